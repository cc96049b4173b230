"""What Acme's own application is told, for which a receiver stands in: tried again, refused, kept, and in order."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
from backhaul_client import InvalidArgumentError
from backhaul_client.notificationmodels import Delivery, Subscription
from backhaul_testing.posts import send
from backhaul_testing.receiver import Received, Receiver

from backhaul_local.demo_asking import Account, Attempt, poll
from backhaul_local.demo_communication import AT_LAST, BATCH, REGISTERED
from backhaul_local.demo_figures import NOTHING, Check

NEWS: Final = "winter-news"
"""The sending of which is told what is not told of the others."""

ORDERS, CRM, COMPLETE = "/orders", "/crm", f"/complete/{REGISTERED}/{BATCH}"
"""Where Acme's application is called: it fails twice, it is paused for a while, it learns that a batch is complete."""

FAILURES: Final = (503, 500)
RETRY_AFTER_S: Final = (1, 1)

STATUSES: Final = ("queued", "sent", "delivered")
"""What Twilio posts of the message that is told, while one of both subscriptions is paused."""

_SID: Final = "SM5f0d1c7be2a948d68b3c9e4a7f1d2060"

PRIVATE: Final = (
    ("an address of a private network", "http://10.0.0.5/backhaul"),
    ("the same, written as one hexadecimal number", "http://0x0a000005/backhaul"),
    ("where clouds hand out a machine's credentials", "http://169.254.169.254/"),
)
"""What a tenant must not have Backhaul call."""

_DUE: Final = {"id": BATCH, "status": "complete", "progress": {"fulfilment": AT_LAST}}
"""The batch, as it is when everybody was heard of."""

REFUSED: Final = "422 invalid_argument"


@dataclass(frozen=True, kw_only=True)
class Subscribed:
    """Three subscriptions: ``orders`` fails twice, ``crm`` is paused, and ``complete`` is told of batches."""

    orders: Subscription
    crm: Subscription
    complete: Subscription
    refused: Sequence[Attempt]


@dataclass(frozen=True, kw_only=True)
class Told:
    """What came at Acme's application: its calls by subscription. ``history`` is what Backhaul keeps of those that
    fail; ``signed`` counts the calls whose signatures hold; ``waiting`` is what waited for the paused subscription, and
    ``too_early`` how often it was called nevertheless. ``reference`` is where the call about the batch says that it can
    be read, and ``read`` what was read there."""

    orders: Sequence[Received]
    history: Delivery | None
    signed: int
    waiting: Sequence[Delivery]
    too_early: int
    crm: Sequence[Received]
    complete: Sequence[Received]
    reference: str
    read: dict[str, Any]


async def subscribe(http: httpx.AsyncClient, acme: Account, receiver: Receiver, address: str) -> Subscribed:
    """Subscribe, pause one of the three, and have Twilio post to ``address`` what they are to be told."""
    subscriptions = acme.client.subscriptions
    receiver.answers(ORDERS, *FAILURES)
    orders = await subscriptions.create(
        ["message.delivered"],
        name="Orders",
        http={"url": receiver.url(ORDERS)},
        filter={"communication_ids": [NEWS]},
        policy={"kind": "custom", "retry_after_s": RETRY_AFTER_S},
    )
    crm = await subscriptions.create(
        ["message.status_changed"],
        name="CRM",
        http={"url": receiver.url(CRM)},
        filter={"communication_ids": [NEWS]},
        ordering="message",
    )
    await subscriptions.pause(crm.id)
    complete = await subscriptions.create(
        ["communication.completed"],
        name="Reports",
        http={"url": receiver.url("/complete") + "/${communicationId}/${batchId}"},
        payload={"form": "spec"},
    )
    attempts = [await _refused(acme, url) for _, url in PRIVATE]
    for status in STATUSES:
        await send(http, acme.twilio.status(address, _SID, status))
    return Subscribed(orders=orders, crm=crm, complete=complete, refused=attempts)


async def read_told(http: httpx.AsyncClient, acme: Account, receiver: Receiver, subscribed: Subscribed) -> Told:
    """What was told by now; then the paused subscription is resumed."""
    deliveries = acme.client.deliveries

    async def of(subscription: Subscription) -> list[Delivery]:
        return [one async for one in deliveries.list(subscription_id=subscription.id)]

    listed = await poll(lambda: of(subscribed.orders), lambda seen: any(one.state == "delivered" for one in seen))
    waiting = await poll(lambda: of(subscribed.crm), lambda seen: len(seen) >= len(STATUSES))
    too_early = len(receiver.of(CRM))
    await acme.client.subscriptions.resume(subscribed.crm.id)

    async def called(path: str) -> list[Received]:
        return receiver.of(path)

    crm = await poll(lambda: called(CRM), lambda seen: len(seen) >= len(STATUSES))
    complete = await poll(lambda: called(COMPLETE), bool)
    reference = _reference(complete)
    answer = await http.get(reference, headers={"X-Api-Key": acme.tenant.api_key}) if reference else None
    of_whom = ((subscribed.orders, ORDERS), (subscribed.crm, CRM), (subscribed.complete, COMPLETE))
    return Told(
        orders=receiver.of(ORDERS),
        history=await deliveries.get(listed[0].id) if listed else None,
        signed=sum(call.is_signed_by(_secret(one)) for one, path in of_whom for call in receiver.of(path)),
        waiting=waiting,
        too_early=too_early,
        crm=crm,
        complete=complete,
        reference=reference,
        read=answer.json() if answer is not None else {},
    )


def checks_of(subscribed: Subscribed, seen: Told) -> list[Check]:
    """Everything was told, as often and in the order that is due, and nobody else was called."""
    history, due = seen.history, len(FAILURES) + 1 + len(STATUSES) + 1
    answers = ", ".join(map(str, (*FAILURES, 200)))
    kept = f"{history.state}: {', '.join(str(one.status) for one in history.history)}" if history else NOTHING
    ids = len({call.headers["webhook-id"] for call in seen.orders})
    calls = len(seen.orders) + len(seen.crm) + len(seen.complete)
    return [
        Check("an application that fails twice: its answers", answers, answers_of(seen.orders)),
        Check(
            "… what Backhaul kept of them",
            f"delivered: {answers}",
            kept,
        ),
        Check("… webhook-ids of all attempts", "1", str(ids)),
        Check("paused: deliveries that wait", str(len(STATUSES)), str(len(seen.waiting))),
        Check("… calls meanwhile", "0", str(seen.too_early)),
        Check("… told when it is resumed", " → ".join(STATUSES), kinds_of(seen.crm)),
        Check(f"{BATCH}: calls that say it is complete", "1", str(len(seen.complete))),
        Check("… read at the address that was told", of_batch(_DUE), of_batch(seen.read)),
        Check("calls, and those whose signatures hold", f"{due}, {due}", f"{calls}, {seen.signed}"),
        *(Check(one.what, one.due, one.got) for one in subscribed.refused),
    ]


def kinds_of(calls: Sequence[Received]) -> str:
    """What calls told, in the order in which they came."""
    return " → ".join(json.loads(call.body)["data"]["kind"] for call in calls)


def answers_of(calls: Sequence[Received]) -> str:
    """What calls were answered, in the order in which they came."""
    return ", ".join(str(call.status) for call in calls)


def of_batch(read: Mapping[str, Any]) -> str:
    """What was read of the batch, in one line."""
    fulfilment = read.get("progress", {}).get("fulfilment", {})
    counted = ", ".join(f"{state} {count}" for state, count in sorted(fulfilment.items()) if count)
    return f"{read.get('id')} is {read.get('status')}: {counted}"


def _reference(calls: Sequence[Received]) -> str:
    """Where a call about a batch says that it can be read; empty where none came."""
    return str(json.loads(calls[0].body).get("batch", "")) if calls else ""


def _secret(subscription: Subscription) -> str:
    """What its calls are signed with, as it was told once."""
    (secret,) = subscription.secrets
    return secret.secret or ""


async def _refused(acme: Account, url: str) -> Attempt:
    """A subscription to an address that is not called."""
    try:
        await acme.client.subscriptions.create(["*"], http={"url": url})
    except InvalidArgumentError as problem:
        why = "; ".join(f"{error.field}: {error.message} {error.fix}" for error in problem.errors)
        return Attempt(what=url, due=REFUSED, got=f"{problem.status} {problem.code}", why=why)
    return Attempt(what=url, due=REFUSED, got="was let in", why="")
