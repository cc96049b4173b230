"""A person is erased from what was told, from what waits, and from what is enqueued after them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from backhaul_common.errors import BackhaulError
from backhaul_common.names import DELIVERIES_COLLECTION, NOTICES_STREAM, NOTIFIER_ERASURES_COLLECTION
from backhaul_common.store_format import StoreFormat
from backhaul_common.tenantdata import Asked, Erasures
from backhaul_notifier.deliveries import erasing
from backhaul_notifier.deliveries.erasing import Erasing
from backhaul_proto.event.v1.event_pb2 import Event
from backhaul_proto.notice.v1.notice_pb2 import About, Notice
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from enqueuing_rig import ACME, OTHER, Rig, event, now_us

PERSON, BEN = "+15005550001", "+15005550002"


class _Right(StoreFormat):
    """The rig writes tenants without a format number."""

    async def ensure(self) -> None:
        return


def eraser(rig: Rig, *, erase_s: float = 15.0) -> Erasing:
    own = Erasures(rig.database, _Right(rig.database), NOTIFIER_ERASURES_COLLECTION, 60)
    return Erasing(rig.database, own, erase_s=erase_s)


def asked(before_us: int = 0) -> Asked:
    return Asked(ACME.id, ACME.registration, "whatsapp:+1 500 555 0001", before_us or now_us())


async def naming(rig: Rig, of: str = ACME.registration) -> int:
    """How many deliveries say who the person is, in any field."""
    rows = await rig.deliveries()
    return sum(PERSON[1:] in repr(row) for row in rows if row["registration"] == of)


async def test_deliveries_stay_and_say_nothing_of_the_person(enqueuing: Rig) -> None:
    ours = await enqueuing.subscribe("*", ordering=pb.ORDERING_RECIPIENT)
    await enqueuing.subscribe("*", of=OTHER)
    await enqueuing.start()
    early = now_us()
    told = [
        event("1", received_at_us=early, text="Elm Row", callback_id="c1"),
        event("2", received_at_us=early, recipient=f"whatsapp:{PERSON}", callback_id="c2"),
        event("3", received_at_us=early, recipient=BEN, callback_id="c3"),
    ]
    await enqueuing.publish(*told)
    about = About(recipient=PERSON, event_id="e")
    notice = Notice(
        id="n", tenant_id=ACME.id, registration=ACME.registration, type="suppression.added", occurred_at_us=7,
        about=about, text=f"{PERSON} is suppressed.",
    )  # fmt: skip
    await enqueuing.told_up_to(await enqueuing.publish_notice(notice), NOTICES_STREAM)
    await enqueuing.told_up_to(
        await enqueuing.publish(event("1", of=OTHER, received_at_us=early, callback_id="c"), of=OTHER)
    )
    before = await enqueuing.deliveries(ours)
    one = next(row for row in before if row["event_id"] == told[0].id)
    tried = {"number": 1, "status": 200, "answer": f"hello {PERSON}", "request": f"POST https://x/{PERSON}", "text": ""}
    over = {"state": "delivered", "tries": [tried], "ends_at": datetime.now(UTC) + timedelta(days=1)}
    await enqueuing.database[DELIVERIES_COLLECTION].update_one({"_id": one["_id"]}, {"$set": over})

    receipt = await eraser(enqueuing).erase(asked())
    assert receipt.erased == {"deliveries": 3}
    assert (await naming(enqueuing), await naming(enqueuing, OTHER.registration)) == (0, 1)
    after = {row["_id"]: row for row in await enqueuing.deliveries(ours)}
    assert after.keys() == {row["_id"] for row in before}
    left = Event.FromString(after[one["_id"]]["payload"])
    assert (left.kind, left.message_id, left.recipient, left.text) == (told[0].kind, "SM1", "", "")
    assert after[one["_id"]]["tries"] == [tried | {"answer": "", "request": ""}]
    assert "key" not in after[one["_id"]]
    # What waits keeps its place in its order.
    waiting = [row for row in before if row["event_id"] == told[1].id]
    assert [after[row["_id"]]["key"] for row in waiting] == [row["key"] for row in waiting]
    assert (await eraser(enqueuing).erase(asked())).erased == receipt.erased


async def test_what_is_enqueued_later_is_by_when_it_arrived(enqueuing: Rig) -> None:
    """Whatever the two meet at."""
    ours = await enqueuing.subscribe("*")
    await enqueuing.start()
    arrived = now_us()
    positions = []
    erasing_task = None
    for number in range(40):
        one = event(str(number), received_at_us=arrived, callback_id="c")
        positions.append(await enqueuing.publish(one))
        if number == 20:
            erasing_task = asyncio.create_task(eraser(enqueuing).erase(asked()))
    assert erasing_task is not None
    await erasing_task
    late = event("late", received_at_us=now_us() + 1_000_000, callback_id="c")
    await enqueuing.told_up_to(await enqueuing.publish(late))
    rows = await enqueuing.deliveries(ours)
    assert len(rows) == 41
    named = [Event.FromString(row["payload"]).id for row in rows if Event.FromString(row["payload"]).recipient]
    assert named == [late.id]


async def test_what_one_call_cannot_erase_the_next_ones_do(enqueuing: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasing, "SLICE", 2)
    await enqueuing.subscribe("*")
    await enqueuing.subscribe("*", name="b")
    await enqueuing.start()
    told = [event(str(number), received_at_us=1, callback_id="c") for number in range(6)]
    await enqueuing.told_up_to(await enqueuing.publish(*told))

    class Clock:
        """A call has time for two slices."""

        asked = 0

        def monotonic(self) -> float:
            self.asked += 1
            return float(self.asked)

    lefts = []
    for _ in range(20):
        monkeypatch.setattr(erasing, "time", Clock())
        try:
            receipt = await eraser(enqueuing, erase_s=3.0).erase(asked())
        except BackhaulError as exc:
            assert exc.retry_after_s == 1  # noqa: PT017  # most calls raise it
            lefts.append(await naming(enqueuing))
        else:
            break
    assert len(lefts) > 1
    assert lefts == sorted(lefts, reverse=True)
    assert (receipt.erased, await naming(enqueuing)) == ({"deliveries": 12}, 0)
