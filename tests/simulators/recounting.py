"""A communication over two channels, with everything that may make what is counted, listed and filed differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backhaul_testing.sendgrid import new_message_id
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until

if TYPE_CHECKING:
    from backhaul_client.auditmodels import AuditRecount
    from simulators.people import Tenant

Json = dict[str, Any]

PERSON = "+15005550071"
UNMOVED = 130
"""Events of one message: more than a message may have to move to another communication."""


@dataclass(frozen=True)
class Spring:
    """What was told. ``counted`` is what the communication counts by then; ``events`` how many of them there are."""

    counted: Json

    @property
    def events(self) -> int:
        return sum(self.counted.values())


async def spring(tenant: Tenant, communication: str = "spring") -> Spring:
    """Tell all of it, one after the other."""
    texts = tenant.address("Twilio", communicationId=communication)
    mails = tenant.address("SendGrid", communicationId=communication)
    sids = [new_sid() for _ in range(4)]
    first = tenant.twilio.status(texts, sids[0], "delivered", to=PERSON)
    await tenant.receive(
        *(tenant.twilio.status(texts, sid, word, to=PERSON) for sid in sids[:3] for word in ("sent", "delivered")),
        # Once more: it is one event, with a second occurrence.
        first,
        first,
        # Nobody says where it belongs, until the second callback does. The first event is listed there, too, then.
        tenant.twilio.status(tenant.address("Twilio"), sids[3], "queued", to=PERSON),
        tenant.twilio.status(texts, sids[3], "sent", to=PERSON),
    )
    await _names_that_are_told_late(tenant, mails)
    await _mail_that_cannot_move(tenant, mails)
    # One answers a message of it, and its own callback says nothing, or says that it belongs elsewhere.
    await tenant.receive(
        tenant.reply(PERSON, "when?"),
        tenant.twilio.inbound(tenant.address("Twilio", communicationId="elsewhere"), new_sid(), "why?", sender=PERSON),
    )
    return Spring({"delivered": 4, "sent": 4, "queued": 2, "opened": 2, "inbound": 2})


async def _names_that_are_told_late(tenant: Tenant, address: str) -> None:
    """Events under a mail's second name come before the one that tells both names, and are moved. Two of them tell of
    one delivery, so that one becomes the other's duplicate."""
    mail = new_message_id()
    known = tenant.sendgrid.event(mail, "processed")

    def unnamed(word: str) -> Json:
        return {name: value for name, value in tenant.sendgrid.event(mail, word).items() if name != "sg_message_id"}

    for events in ([unnamed("delivered"), unnamed("open")], [tenant.sendgrid.event(mail, "delivered")], [known]):
        await tenant.receive(tenant.sendgrid.batch(address, [*events, *events]))
    await tenant.receive(tenant.sendgrid.batch(address, [tenant.sendgrid.event(mail, "open")]))


async def _mail_that_cannot_move(tenant: Tenant, address: str) -> None:
    """A mail that nobody has given to the communication before it had too many events: it stays outside with all."""
    mail = new_message_id()
    opened = [tenant.sendgrid.event(mail, "open") for _ in range(UNMOVED)]
    await tenant.receive(tenant.sendgrid.batch(tenant.address("SendGrid"), opened))
    await tenant.message_with("sendgrid", mail, UNMOVED, within_s=30)
    await tenant.receive(tenant.sendgrid.batch(address, [tenant.sendgrid.event(mail, "click")]))


async def recounted(tenant: Tenant, communication: str = "spring") -> AuditRecount:
    """What a recount says in the end."""
    told = [one async for one in tenant.client.recount_communication(communication)]
    assert [one.done for one in told] == [False] * (len(told) - 1) + [True]
    return told[-1]


async def recounted_until(
    tenant: Tenant, what: str, holds: Callable[[AuditRecount], bool], communication: str = "spring"
) -> AuditRecount:
    """The first recount of which it holds."""

    async def probe() -> AuditRecount | None:
        if (await tenant.get(f"/v1/communications/{communication}")).status_code != 200:
            return None
        found = await recounted(tenant, communication)
        return found if holds(found) else None

    return await until(what, probe, within_s=60, pause_s=0.3)


def counts_of(found: AuditRecount) -> tuple[Json, Json, Json]:
    """What is counted, listed and audited, by kind."""
    return (
        {one.kind: one.counted for one in found.kinds},
        {one.kind: one.listed for one in found.kinds},
        {one.kind: one.audited for one in found.kinds if one.audited},
    )
