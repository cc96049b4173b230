"""Whom SendGrid's events say not to write to, for which mails, and what takes it back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from backhaul_client.suppression import Purpose, Sending
from backhaul_testing.sendgrid import new_message_id
from backhaul_testing.waiting import until
from pymongo import AsyncMongoClient

if TYPE_CHECKING:
    from backhaul_client.suppressionmodels import AddressRecord
    from backhaul_local.stack import Stack
    from simulators.callers import InternalService
    from simulators.people import Tenant, Town

MARKETING, TRANSACTIONAL = Sending(purpose=Purpose.MARKETING), Sending(purpose=Purpose.TRANSACTIONAL)

# SendGrid's word, what comes with it, the kind that follows, and whether a password may be sent all the same.
WORDS: list[tuple[str, dict[str, Any], str, bool]] = [
    ("unsubscribe", {}, "unsubscribe", True),
    ("spamreport", {}, "complaint", True),
    ("bounce", {"status": "5.1.1", "reason": "550 5.1.1 no such user", "type": "bounce"}, "hard_bounce", False),
    ("dropped", {"reason": "Bounced Address"}, "hard_bounce", False),
    ("dropped", {"reason": "Invalid"}, "invalid_address", False),
    ("dropped", {"reason": "Unsubscribed Address"}, "unsubscribe", True),
    ("dropped", {"reason": "Spam Reporting Address"}, "complaint", True),
    # These say something of the mail, the sender or the day.
    ("dropped", {"reason": "Spam Content"}, "allowed", True),
    ("dropped", {"reason": "Recipient List over Package Quota"}, "allowed", True),
    ("bounce", {"status": "5.7.26", "reason": "550 unauthenticated", "type": "blocked"}, "allowed", True),
    ("deferred", {"response": "421 try again later", "attempt": "1"}, "allowed", True),
    ("open", {}, "allowed", True),
    ("delivered", {}, "allowed", True),
    # The last one of the batch, by which it is known that the others were dealt with.
    ("spamreport", {}, "complaint", True),
]


async def _happened(tenant: Tenant, *events: tuple[str, str, dict[str, Any]]) -> None:
    """One post of (address, word, fields)."""
    told = [tenant.sendgrid.event(new_message_id(), word, email=email, **fields) for email, word, fields in events]
    assert (await tenant.send(tenant.sendgrid.batch(tenant.address("SendGrid"), told))).status_code == 200


async def _dealt_with(crm: InternalService, tenant: Tenant, events: int) -> None:
    """Return when suppression has dealt with the tenant's ``events`` so far: it has with what came behind them."""

    async def read() -> bool:
        return len(await tenant.events()) >= events

    await until(f"{events} events", read)
    await _happened(tenant, (f"after-{events}@example.com", "spamreport", {}))
    await crm.told(tenant.id, f"after-{events}@example.com", "complaint")


async def test_each_word_suppresses_what_it_is_about(town: Town, crm: InternalService) -> None:
    tenant, neighbour = await town.platform.register(), await town.platform.register()
    people = [f"person-{number}@example.com" for number in range(len(WORDS))]
    await _happened(tenant, *((person, word, fields) for person, (word, fields, *_) in zip(people, WORDS, strict=True)))
    await _dealt_with(crm, tenant, len(WORDS))
    kinds = [kind for _, _, kind, _ in WORDS]
    assert await crm.verdicts(tenant.id, people, MARKETING) == kinds
    assert await crm.verdicts(tenant.id, people) == kinds
    told = [("allowed" if passes else kind) for _, _, kind, passes in WORDS]
    assert await crm.verdicts(tenant.id, people, TRANSACTIONAL) == told
    assert set(await crm.verdicts(neighbour.id, people)) == {"allowed"}
    # Each names the event that can be read.
    events = {event.recipient: event.id for event in await tenant.events()}
    checks = await crm.client.check_batch(tenant.id, [person.upper() for person in people])
    assert [[row.event_id for row in check.blocking] for check in checks] == [
        [] if kind == "allowed" else [events[person]] for person, kind in zip(people, kinds, strict=True)
    ]


async def test_a_group_is_left_and_joined_by_itself(town: Town, crm: InternalService) -> None:
    tenant = await town.platform.register()
    anna, ben = "anna@example.com", "ben@example.com"
    # SendGrid's times are whole seconds, and of two things of one second nobody can tell which was first.
    earlier = int(time.time()) - 60
    await _happened(
        tenant,
        (anna, "group_unsubscribe", {"asm_group_id": 7, "at": earlier}),
        (anna, "group_unsubscribe", {"asm_group_id": 8, "at": earlier}),
        (ben, "unsubscribe", {"at": earlier}),
        (ben, "group_unsubscribe", {"asm_group_id": 7, "at": earlier}),
    )
    await _dealt_with(crm, tenant, 4)

    async def by_group(person: str) -> dict[str, str]:
        return {group: await crm.verdict(tenant.id, person, Sending(group=group)) for group in ("7", "8", "9", "")}

    # Some mail, which may be of a group that was left.
    assert await crm.verdict(tenant.id, anna) == "unsubscribe unsubscribe"
    assert await by_group(anna) == {"7": "unsubscribe", "8": "unsubscribe", "9": "allowed", "": "allowed"}
    assert (await by_group(ben))["9"] == "unsubscribe"
    await _happened(tenant, *((person, "group_resubscribe", {"asm_group_id": 7}) for person in (anna, ben)))
    await _dealt_with(crm, tenant, 7)
    assert await by_group(anna) == {"7": "allowed", "8": "unsubscribe", "9": "allowed", "": "allowed"}
    # Who wants no mails at all has not said otherwise.
    assert set((await by_group(ben)).values()) == {"unsubscribe"}


async def test_a_later_delivery_lifts_a_bounce_whichever_is_heard_of_first(
    town: Town, crm: InternalService, installation: Stack
) -> None:
    tenant = await town.platform.register()
    now = int(time.time())
    bounced = {"at": now - 100, "status": "5.1.1", "reason": "550 5.1.1 no such user", "type": "bounce"}
    first, last, before, left = (f"{word}@example.com" for word in ("bounce-first", "bounce-last", "before", "left"))

    await _happened(tenant, (first, "bounce", bounced), (left, "unsubscribe", {"at": now - 100}))
    await crm.told(tenant.id, first, "hard_bounce")
    await _happened(tenant, (first, "delivered", {"at": now - 50}), (left, "delivered", {"at": now - 50}))
    await crm.told(tenant.id, first, "allowed")

    await _happened(tenant, (last, "delivered", {"at": now - 50}), (before, "delivered", {"at": now - 150}))
    await _dealt_with(crm, tenant, 6)
    await _happened(tenant, *((person, "bounce", bounced) for person in (last, before)))

    async def known(person: str) -> AddressRecord | None:
        record = await tenant.client.suppression_record(person)
        return record if record.suppressions else None

    async def lifted() -> AddressRecord | None:
        record = await known(last)
        return record if record is not None and not record.suppressions[0].active else None

    record = await until("the bounce is lifted", lifted)
    assert [(change.fact.word, change.suppression.active) for change in record.history] == [
        ("delivered", False), ("5.1.1", True),
    ]  # fmt: skip
    await crm.told(tenant.id, before, "hard_bounce")
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(installation.mongo_uri)
    async with client:
        rows = client[installation.mongo_database]["suppressions"]

        async def all_looked_at() -> bool:
            open_ = {"registration": tenant.registration, "unsettled": {"$exists": True}}
            return not await rows.count_documents(open_)

        await until("what came before the bounces is looked for", all_looked_at)
    assert await crm.verdicts(tenant.id, [first, last, before, left]) == [
        "allowed", "allowed", "hard_bounce", "unsubscribe",
    ]  # fmt: skip
    assert [row.kind for row in (await tenant.client.reactivate(before)).suppressions] == ["hard_bounce"]
    assert await crm.verdict(tenant.id, before) == "allowed"
