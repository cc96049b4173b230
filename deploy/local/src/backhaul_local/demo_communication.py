"""A sending that Acme registers: a batch of ten people over SMS and e-mail, and what became of each of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
from backhaul_client import DestinationIn, MemberIn, SendIn
from backhaul_client.communicationmodels import (
    Batch,
    BatchProgress,
    CommunicationRecord,
    Member,
    MembersAdded,
)
from backhaul_client.suppressionmodels import Checked
from backhaul_testing.posts import Post, send
from backhaul_testing.sendgrid import bearing

from backhaul_local.demo_asking import Account, Attempt, poll, refused

REGISTERED: Final = "summer-sale"
BATCH: Final = "summer-1"
SETTINGS: Final[dict[str, Any]] = {
    "name": "Summer sale",
    "mode": "live",
    "channel": "Twilio",
    "notify": ["marketing@acme.example.com"],
    "deadline_hours": 48,
    "completes_on": "processed",
    "environments": {"live": {"shop": "https://shop.example.com"}, "test": {"shop": "https://test.example.com"}},
}
"""Of the communication."""


@dataclass(frozen=True)
class Recipient:
    """A member of the batch. ``words`` are what the provider posts of their message, in the order of happening, the
    last ``after`` of them when the batch is closed. What was ``refused`` when Acme handed it over has no message id.
    ``ends`` is the fulfilment state that counts in the end, ``error`` the code."""

    key: str
    name: str
    address: str
    words: tuple[str, ...]
    ends: str
    error: str = ""
    refused: bool = False
    after: int = 0

    @property
    def channel(self) -> str:
        """The label of the channel that they are reached over."""
        return "SendGrid" if "@" in self.address else "Twilio"

    @property
    def message_id(self) -> str:
        """What the provider answered to the sending."""
        number = int(self.key.rpartition("-")[2])
        return f"Xo7uA9kQT3W1mB5eR2yL{number:02}" if "@" in self.address else f"SM9e52436fb0d781cae41738f9{number:08x}"


BLOCKED: Final = "+15005550125"
"""Who had unsubscribed at Twilio: so says the code 21610."""

LATE: Final = "crm-2"
"""Whose delivery is reported after the batch is complete."""

PEOPLE: Final = (
    Recipient("crm-1", "Fay", "+15005550121", ("sent", "delivered"), "Delivered"),
    Recipient(LATE, "Gus", "+15005550122", ("sent", "delivered"), "Delivered", after=1),
    Recipient("crm-3", "Hal", "+15005550123", ("sent", "undelivered"), "Undelivered", "30003"),
    Recipient("crm-4", "Ida", "+15005550124", (), "InvalidNumber", "21211", refused=True),
    Recipient("crm-5", "Jon", BLOCKED, (), "Failed", "21610", refused=True),
    Recipient("crm-6", "Kim", "kim@example.com", ("processed", "delivered", "open"), "Delivered"),
    Recipient("crm-7", "Lea", "lea@example.com", ("processed", "delivered", "click"), "Delivered"),
    Recipient("crm-8", "Max", "max@example.com", ("processed", "bounce"), "Undelivered", "5.1.1"),
    Recipient("crm-9", "Noa", "noa@example.com", ("dropped",), "Failed", "bounced_address"),
    Recipient("crm-10", "Ole", "ole@example.com", ("processed", "delivered"), "Delivered", after=1),
)
_FIELDS: Final[dict[str, dict[str, Any]]] = {
    "undelivered": {"ErrorCode": "30003", "ErrorMessage": "Unreachable destination handset"},
    "bounce": {"reason": "550 5.1.1 unknown recipient", "status": "5.1.1", "type": "bounce"},
    "dropped": {"reason": "Bounced Address", "status": "5.0.0"},
}
_BEFORE: Final = 8
"""How many callbacks come before anybody tells of members and of what was sent."""

AT_CLOSING: Final = {"Queued": 1, "Sent": 1, "Delivered": 3, "Undelivered": 2, "Failed": 2, "InvalidNumber": 1}
AT_COMPLETION: Final = {"Sent": 1, "Delivered": 4, "Undelivered": 2, "Failed": 2, "InvalidNumber": 1}
AT_LAST: Final = {"Delivered": 5, "Undelivered": 2, "Failed": 2, "InvalidNumber": 1}
"""Destinations by fulfilment state, with every callback that there is by then."""

SENDING_EVENTS: Final = {
    "queued": 12,
    "rejected": 3,
    "sent": 3,
    "delivered": 5,
    "undelivered": 1,
    "bounced": 1,
    "opened": 1,
    "clicked": 1,
}
"""Of the communication: eight messages that Acme handed over and two that were refused, and what was posted."""

SENDING_ERRORS: Final = {f"{one.channel.lower()} {one.error}": 1 for one in PEOPLE if one.error}
"""By channel and code: how many messages have it."""

REGISTRATION: Final = "Summer sale, live: shop=https://shop.example.com, told to marketing@acme.example.com"
"""What is registered of the communication, of whose environments that of its mode holds."""


@dataclass(frozen=True, kw_only=True)
class Completed:
    """What became of the batch: when it was ``closed``, when it was ``completed``, and when the late delivery had
    ``corrected`` it. ``reported`` is how many sends were taken. ``again`` is the answer to the same members once more,
    ``addition`` that to another one. ``members`` and ``communication`` are as they are at the end; ``blocked`` is
    whether ``BLOCKED`` may be contacted."""

    statuses: Sequence[int]
    added: MembersAdded
    reported: int
    closed: Batch
    completed: Batch
    corrected: Batch
    again: MembersAdded
    addition: Attempt
    members: Sequence[Member]
    communication: CommunicationRecord
    blocked: Checked


async def complete(http: httpx.AsyncClient, acme: Account, *, twilio: str, sendgrid: str, token: str) -> Completed:
    """Register the sending, and have it happen. Twilio posts to the address ``twilio``, which names the communication;
    SendGrid posts to ``sendgrid`` with the access ``token``, and names nothing but its own ids."""
    communications, batches = acme.client.communications, acme.client.batches
    statuses: list[int] = []

    def callback(to: Recipient, word: str) -> Post:
        fields = _FIELDS.get(word, {})
        if to.channel == "Twilio":
            address = f"{twilio}&memberId={to.key}"
            return acme.twilio.status(address, to.message_id, word, to=to.address, **fields)
        event = acme.sendgrid.event(f"{to.message_id}.recvd-1.0", word, email=to.address, **fields)
        return bearing(acme.sendgrid.batch(sendgrid, [event]), token)

    async def post(*told: tuple[Recipient, str]) -> None:
        statuses.extend([(await send(http, callback(to, word))).status_code for to, word in told])

    async def read(until: Callable[[Batch], bool]) -> Batch:
        return await poll(lambda: batches.get(BATCH), until)

    await communications.put(REGISTERED, **SETTINGS)
    await batches.put(REGISTERED, BATCH, label="Early birds")
    told = [(to, word) for to in PEOPLE for word in to.words[: len(to.words) - to.after]]
    random.Random(1).shuffle(told)  # noqa: S311  # far from their order and the same each time; no secret.
    await post(*told[:_BEFORE])
    members = [_member(to) for to in PEOPLE]
    added = await batches.add_members(BATCH, members)
    reported = await acme.client.report_sends([_sent(to) for to in PEOPLE])
    await post(*told[_BEFORE:])
    await read(lambda batch: counted(batch.progress) == AT_CLOSING)
    closed = await batches.close(BATCH)
    await post((PEOPLE[-1], PEOPLE[-1].words[-1]))
    completed = await read(lambda batch: batch.status == "complete")
    late = next(to for to in PEOPLE if to.key == LATE)
    await post((late, late.words[-1]))
    corrected = await read(lambda batch: batch.changed_since > 0)
    return Completed(
        statuses=statuses,
        added=added,
        reported=reported.accepted,
        closed=closed,
        completed=completed,
        corrected=corrected,
        again=await batches.add_members(BATCH, members),
        addition=await refused(
            "one more member",
            "409 failed_precondition",
            batches.add_members(BATCH, [{"member_key": "crm-11", "destinations": [{"recipient": "+15005550131"}]}]),
        ),
        members=[member async for member in batches.members(BATCH)],
        communication=await poll(
            lambda: communications.get(REGISTERED),
            lambda seen: sum(seen.events.values()) == sum(SENDING_EVENTS.values()),
        ),
        blocked=await poll(lambda: acme.client.check(BLOCKED), lambda checked: not checked.allowed),
    )


def counted(progress: BatchProgress | None) -> dict[str, int]:
    """The destinations by fulfilment state, without those in which there are none."""
    return {state: count for state, count in progress.fulfilment.items() if count} if progress else {}


def outcome_of(to: Recipient) -> str:
    """What must become of somebody, in one line."""
    return _outcome(to.channel.lower(), to.address, to.ends, to.error)


def told_of(member: Member | None) -> str:
    """The same as the list of members has it."""
    if member is None or not member.destinations:
        return "not there"
    return "; ".join(
        _outcome(one.channel, one.recipient, one.message.fulfilment_state, one.message.error_code)
        if one.message
        else f"{one.channel} {one.recipient}: waiting"
        for one in member.destinations
    )


def registration_of(communication: CommunicationRecord) -> str:
    """As ``REGISTRATION``."""
    told = communication.registered
    if told is None:
        return "not registered"
    variables = (f"{name}={value}" for name, value in told.environments.get(told.mode, {}).items())
    return f"{told.name}, {told.mode}: {', '.join(variables)}, told to {', '.join(told.notify)}"


def _outcome(channel: str, address: str, state: str | None, error: str) -> str:
    return f"{channel} {address}: {state}" + (f", error {error}" if error else "")


def _member(to: Recipient) -> MemberIn:
    # On the communication's channel, where it is none of SendGrid's.
    destination: DestinationIn = {"recipient": to.address}
    if to.channel == "SendGrid":
        destination["channel"] = "SendGrid"
    return {"member_key": to.key, "attributes": {"first_name": to.name}, "destinations": [destination]}


def _sent(to: Recipient) -> SendIn:
    told: SendIn = {"channel": to.channel, "recipient": to.address, "communication": REGISTERED}
    told |= {"batch": BATCH, "member": to.key}
    if to.refused:
        return told | {"status": "refused", "id": f"{BATCH}/{to.key}", "error_code": to.error}
    return told | {"message_id": to.message_id}
