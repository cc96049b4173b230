"""Deliveries that were heard of before the bounce that they are later than."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.tenants import Tenant
from backhaul_proto.callback.v1 import callback_pb2
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.event.v1.event_pb2 import Event, EventKind
from backhaul_suppression.lane import Lane
from backhaul_suppression.model import EVERYTHING, Family, Kind, Row, Target
from backhaul_suppression.settling import Settling
from backhaul_suppression.unsettled import MongoUnsettled
from backhaul_testing import make
from store_rig import AtOnce, Rig, fact, now_us

MAIL = "user@example.com"
BOUNCED = Target(Kind.HARD_BOUNCE, EVERYTHING)
DAY_US = 86_400_000_000


class Heard:
    """A normalizer that has heard of these events, the latest first, and gives a few at a time."""

    def __init__(self, *events: Event) -> None:
        self.events = events
        self.asked: list[tuple[str, str, int]] = []
        self.failure: Exception | None = None

    async def of(
        self, tenant_id: str, recipient: str, since_us: int, size: int, token: str
    ) -> tuple[Sequence[Event], str]:
        self.asked.append((tenant_id, recipient, since_us))
        if self.failure is not None:
            raise self.failure
        first = int(token or 0)
        last = first + 2
        return self.events[first:last], str(last) if last < len(self.events) else ""


class Directory:
    def __init__(self, *tenants: Tenant) -> None:
        self._tenants = {one.id: one for one in tenants}

    def get(self, tenant_id: str) -> Tenant | None:
        return self._tenants.get(tenant_id)

    async def require(self, tenant_id: str) -> Tenant:
        return self._tenants[tenant_id]

    async def reload(self, tenant_id: str) -> Tenant | None:
        return self._tenants.get(tenant_id)


def event(
    name: str, at_us: int, kind: EventKind.ValueType = EventKind.EVENT_KIND_DELIVERED, *, of: str = "acme.1"
) -> Event:
    return Event(
        id=name * 32,
        tenant_id=of.partition(".")[0],
        registration=of,
        channel="sendgrid",
        provider="sendgrid",
        kind=kind,
        recipient=MAIL,
        recipient_family=event_pb2.ADDRESS_FAMILY_EMAIL,
        occurred_at_us=at_us,
        received_at_us=at_us + 5,
        verification=callback_pb2.VERIFICATION_VERIFIED,
    )


async def settling(rig: Rig, heard: Heard, barrier: AtOnce | None = None) -> Settling:
    await rig.register(make.tenant("acme"))
    barrier = barrier or AtOnce()
    directory = Directory(make.tenant("acme"))
    return Settling(MongoUnsettled(rig.database), heard, directory, Lane(rig.store(), barrier), barrier, now_us)


async def bounce(rig: Rig, name: str = "a", at_us: int = 10 * DAY_US) -> None:
    await rig.store().commit([fact(name * 32, at_us, address=MAIL, family=Family.EMAIL, targets=[BOUNCED])])


async def only_row(rig: Rig) -> Row:
    (row,) = (await rig.rows()).values()
    return row


async def test_a_bounce_that_a_later_delivery_was_heard_before_is_lifted(rig: Rig) -> None:
    opened = event("c", 12 * DAY_US, EventKind.EVENT_KIND_OPENED)
    heard = Heard(opened, event("d", 9 * DAY_US), event("e", 11 * DAY_US))
    barrier = AtOnce()
    settles = await settling(rig, heard, barrier)
    await bounce(rig)
    assert await settles.settle_some() == 1
    row = await only_row(rig)
    assert (row.active, row.event_id) == (False, "e" * 32)
    # By the recipient, on every page, and not before the copies knew the row.
    assert heard.asked == [("acme", MAIL, 9 * DAY_US)] * 2
    assert barrier.asked[0] == 1
    assert await settles.settle_some() == 0
    await rig.check()


async def test_an_earlier_delivery_lifts_nothing_and_is_not_asked_for_again(rig: Rig) -> None:
    heard = Heard(event("d", 9 * DAY_US), event("e", 11 * DAY_US, of="acme.0"))
    settles = await settling(rig, heard)
    await bounce(rig)
    assert await settles.settle_some() == 1
    assert (await only_row(rig)).active
    assert await settles.settle_some() == 0
    # Until the row becomes active anew.
    await rig.store().commit(
        [fact("b" * 32, 12 * DAY_US, lifts=True, address=MAIL, family=Family.EMAIL, targets=[BOUNCED])]
    )
    assert await settles.settle_some() == 0
    await bounce(rig, "f", 13 * DAY_US)
    assert await settles.settle_some() == 1
    await rig.check()


async def test_two_copies_that_settle_the_same_row_lift_it_once(rig: Rig) -> None:
    first, second = [await settling(rig, Heard(event("e", 11 * DAY_US))) for _ in range(2)]
    await bounce(rig)
    unsettled = await MongoUnsettled(rig.database).oldest(10)
    await first.settle_some()

    class Late(MongoUnsettled):
        async def oldest(self, limit: int) -> object:  # type: ignore[override]  # what it read before the other settled it
            return unsettled

    second._unsettled = Late(rig.database)  # type: ignore[assignment]  # as above
    await second.settle_some()
    assert len(await rig.changes()) == 2
    await rig.check()


async def test_a_row_that_became_active_anew_meanwhile_is_still_to_be_settled(rig: Rig) -> None:
    await settling(rig, Heard())
    unsettled = MongoUnsettled(rig.database)
    await bounce(rig)
    (before,) = await unsettled.oldest(10)
    # An earlier bounce arrives later: what was delivered between the two counts now.
    await bounce(rig, "0", 8 * DAY_US)
    await unsettled.settled([before])
    (after,) = await unsettled.oldest(10)
    assert (before.seq, after.seq) == (1, 2)
    assert (after.tenant_id, after.row.since_us) == ("acme", 8 * DAY_US)


async def test_while_the_normalizer_is_away_a_row_stays_to_be_settled(rig: Rig) -> None:
    heard = Heard(event("e", 11 * DAY_US))
    settles = await settling(rig, heard)
    await bounce(rig)
    heard.failure = BackhaulError(Code.UNAVAILABLE, "away")
    with pytest.raises(BackhaulError) as caught:
        await settles.settle_some()
    assert caught.value.code is Code.UNAVAILABLE
    assert len(await MongoUnsettled(rig.database).oldest(10)) == 1
    # An address about which too much was heard keeps nobody else from being settled, and stays suppressed.
    heard.failure = BackhaulError(Code.DEADLINE_EXCEEDED, "too many")
    assert await settles.settle_some() == 1
    assert (await only_row(rig)).active
    assert await settles.settle_some() == 0


async def test_while_the_normalizer_lets_nobody_in_a_row_stays_to_be_settled(rig: Rig) -> None:
    heard = Heard(event("e", 11 * DAY_US))
    settles = await settling(rig, heard)
    await bounce(rig)
    heard.failure = BackhaulError(Code.UNAUTHENTICATED, "another token")
    with pytest.raises(BackhaulError):
        await settles.settle_some()
    heard.failure = None
    assert await settles.settle_some() == 1
    assert not (await only_row(rig)).active


async def test_a_tenant_that_cannot_be_read_keeps_no_others_row_from_being_settled(rig: Rig) -> None:
    class Newer(Directory):
        async def reload(self, tenant_id: str) -> Tenant | None:
            return Tenant.model_validate({"id": "globex", "status": "of a newer version"})

    barrier = AtOnce()
    lane = Lane(rig.store(), barrier)
    directory = Newer(make.tenant("acme"))
    await rig.register(make.tenant("acme"), make.tenant("globex"))
    heard = Heard(event("e", 11 * DAY_US))
    settles = Settling(MongoUnsettled(rig.database), heard, directory, lane, barrier, now_us)
    await bounce(rig)
    theirs = fact("b" * 32, 10 * DAY_US, of="globex", address=MAIL, family=Family.EMAIL, targets=[BOUNCED])
    await rig.store().commit([theirs])
    assert await settles.settle_some() == 2
    rows = (await rig.rows()).values()
    assert {row.key.address.registration: row.active for row in rows} == {"acme.1": False, "globex.1": True}
