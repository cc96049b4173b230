"""One tenant floods with what is large, and the others are told before it. Counted, not timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from backhaul_common import following
from backhaul_common.documents import Document
from backhaul_common.names import EVENTS_STREAM, NOTIFIER_POSITIONS_COLLECTION
from backhaul_notifier.enqueuing import making, sharing
from backhaul_notifier.enqueuing.enqueuer import Enqueuer
from backhaul_proto.event.v1.event_pb2 import Event
from backhaul_testing.waiting import until
from enqueuing_rig import ACME, OTHER, Copy, Rig, event, ids

MESSAGES, SUBSCRIPTIONS = 60, 3


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "MAX_BYTES", 12_000)
    monkeypatch.setattr(sharing, "LANE_BYTES", 3_000)
    monkeypatch.setattr(sharing, "SHARE_BYTES", 24_000)
    monkeypatch.setattr(sharing, "LOOK_S", 0.05)


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> list[list[Document]]:
    """The rows of each transaction, in the order in which they were made."""
    made: list[list[Document]] = []
    store = Enqueuer._store

    def recorded(self: Enqueuer, *arguments: Any) -> Any:
        told = store(self, *arguments)
        made.append(list(told.rows))
        return told

    monkeypatch.setattr(Enqueuer, "_store", recorded)
    return made


@pytest.fixture
def all_there(monkeypatch: pytest.MonkeyPatch) -> Callable[[Copy], None]:
    """Have a copy store nothing before all that was published lies before it."""

    def hold(copy: Copy) -> None:
        reader, commit = copy.readers[EVENTS_STREAM], Enqueuer._commit

        async def held(self: Enqueuer, *arguments: Any) -> Any:
            async def sent() -> bool:
                return reader.pending == 0

            await until("all to be read", sent)
            return await commit(self, *arguments)

        monkeypatch.setattr(Enqueuer, "_commit", held)

    return hold


def large(name: str) -> Event:
    return event(name, text="x" * 4000)


async def flood(rig: Rig) -> tuple[list[str], str, list[Event], int]:
    """What floods and who does not, the events of the former, and the place of the latter's one."""
    mine = [await rig.subscribe("*", name=str(number)) for number in range(SUBSCRIPTIONS)]
    theirs = await rig.subscribe("*", of=OTHER)
    said = [large(str(number)) for number in range(MESSAGES)]
    for one in said:
        await rig.publish(one)
    return mine, theirs, said, await rig.publish(event("small", of=OTHER), of=OTHER)


async def parked(rig: Rig) -> dict[str, int]:
    row = await rig.database[NOTIFIER_POSITIONS_COLLECTION].find_one({"_id": EVENTS_STREAM})
    return dict((row or {}).get("parked", {}))


async def all_told(rig: Rig, mine: list[str], said: list[Event]) -> None:
    async def told() -> bool:
        return [await rig.events_of(one) for one in mine] == [ids(said)] * len(mine)

    await until("all of the flood to be told", told, within_s=120)


async def test_another_tenant_is_told_before_most_of_a_flood(
    enqueuing: Rig, stored: list[list[Document]], all_there: Callable[[Copy], None]
) -> None:
    mine, theirs, said, last = await flood(enqueuing)
    copy = await enqueuing.copy(EVENTS_STREAM)
    all_there(copy)
    copy.start()
    await enqueuing.told_up_to(last)
    await all_told(enqueuing, mine, said)
    rows = [row for some in stored for row in some]
    before = next(place for place, row in enumerate(rows) if row["subscription"] == theirs)
    assert before < MESSAGES * SUBSCRIPTIONS / 4
    for one in mine:  # In their order, each once.
        assert [row["event_id"] for row in rows if row["subscription"] == one] == [each.id for each in said]
        assert (await enqueuing.endpoint(one))["told"] == len(said)
    # What is told apart takes less at a time than what all wait for: one row, which may be larger than that.
    assert max(sum(len(row["payload"]) for row in some) for some in stored) < 12_000 + 5_000


async def test_who_has_caught_up_is_told_with_the_others_again(
    enqueuing: Rig, all_there: Callable[[Copy], None]
) -> None:
    mine, theirs, said, last = await flood(enqueuing)
    copy = await enqueuing.copy(EVENTS_STREAM)
    all_there(copy)
    copy.start()
    await enqueuing.told_up_to(last)
    assert await parked(enqueuing)
    await all_told(enqueuing, mine, said)
    sharing_ = copy.enqueuers[EVENTS_STREAM].sharing

    async def over() -> bool:
        return sharing_.open == 0

    await until("nobody to be told apart", over)
    said.append(event("more"))
    await enqueuing.publish(said[-1])
    await enqueuing.told_up_to(await enqueuing.publish(event("2", of=OTHER), of=OTHER))
    assert await parked(enqueuing) == {}
    for one in mine:
        assert await enqueuing.events_of(one) == ids(said)
    assert await enqueuing.events_of(theirs) == ids([event("small", of=OTHER), event("2", of=OTHER)])


async def test_a_copy_that_takes_over_tells_what_was_left_apart(
    enqueuing: Rig, all_there: Callable[[Copy], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "OWNED_S", 1.0)
    mine, _, said, last = await flood(enqueuing)
    copy = await enqueuing.copy(EVENTS_STREAM)
    all_there(copy)
    copy.start()
    await enqueuing.told_up_to(last)
    await copy.stop()
    assert (await parked(enqueuing)).keys() == {ACME.queue_path}
    assert await enqueuing.events_of(mine[0]) != ids(said)
    await enqueuing.start(EVENTS_STREAM)
    await all_told(enqueuing, mine, said)
    for one in mine:
        assert (await enqueuing.endpoint(one))["told"] == len(said)


async def test_what_fails_of_a_flood_is_given_up_alone(
    enqueuing: Rig, all_there: Callable[[Copy], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "pause_s", lambda _: 0.01)
    mine, _, said, last = await flood(enqueuing)
    store, bad = Enqueuer._store, said[50].id

    def fails(self: Enqueuer, part: making.Part, *rest: Any) -> Any:
        if any(row["event_id"] == bad for row in part.rows.values()):
            raise ValueError("a bug")
        return store(self, part, *rest)

    monkeypatch.setattr(Enqueuer, "_store", fails)
    copy = await enqueuing.copy(EVENTS_STREAM)
    all_there(copy)
    copy.start()
    await enqueuing.told_up_to(last)
    await all_told(enqueuing, mine, [one for one in said if one.id != bad])
    assert copy.counts.given_up.value(EVENTS_STREAM) == 1


async def test_nobody_is_told_apart_where_no_other_tenant_waits(
    enqueuing: Rig, all_there: Callable[[Copy], None]
) -> None:
    """It would only cost more."""
    mine = await enqueuing.subscribe("*")
    said = [large(str(number)) for number in range(20)]
    for one in said:
        last = await enqueuing.publish(one)
    copy = await enqueuing.copy(EVENTS_STREAM)
    all_there(copy)
    copy.start()
    await enqueuing.told_up_to(last)
    assert await enqueuing.events_of(mine) == ids(said)
    assert await parked(enqueuing) == {}
