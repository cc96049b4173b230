"""A recount against a plain account of the same events, and where counts move while they are compared."""

from __future__ import annotations

import asyncio
from array import array
from collections import Counter
from typing import Any

import pytest
from backhaul_audit.model import EventId
from backhaul_audit.ports import Waiting
from backhaul_audit.recounting import comparing, recount
from backhaul_audit.recounting.lookups import lying_in
from backhaul_audit.recounting.ports import KindCount
from backhaul_common.errors import BackhaulError, Code
from backhaul_proto.event.v1.event_pb2 import EVENT_KIND_DELIVERED, EVENT_KIND_INBOUND, EVENT_KIND_SENT
from hypothesis import given
from hypothesis import strategies as st
from recount_world import ACME, NOW_US, SPRING, Told, World, recounting, result_of

HOUR_US = 3_600_000_000
CHANNELS = ("sendgrid", "twilio", "voice")

events = st.lists(
    st.builds(
        Told,
        name=st.text(min_size=1, max_size=4),
        kind=st.sampled_from([EVENT_KIND_SENT, EVENT_KIND_DELIVERED, EVENT_KIND_INBOUND]),
        channel=st.sampled_from(CHANNELS),
        revision=st.integers(0, 2),
        received_at_us=st.integers(0, 8).map(lambda hours: NOW_US - hours * HOUR_US),
        filed=st.sets(st.integers(0, 2)).map(lambda some: tuple(sorted(some))),
        duplicate=st.booleans(),
    ),
    min_size=1,
    max_size=25,
    unique_by=lambda one: one.name,
)
waiting = st.lists(
    st.builds(
        Waiting,
        channel=st.sampled_from(CHANNELS),
        problem=st.sampled_from(["", "", "", "No such bucket."]),
        since_us=st.sampled_from([0, NOW_US - HOUR_US, NOW_US - 5 * HOUR_US]),
    ),
    max_size=3,
    unique_by=lambda one: one.channel,
)


@given(
    told=events,
    waits=waiting,
    asking=st.sets(st.sampled_from(CHANNELS)),
    behind_us=st.sampled_from([-1, 0, 3 * HOUR_US]),
    wrongly=st.dictionaries(st.sampled_from([EVENT_KIND_SENT, EVENT_KIND_INBOUND]), st.integers(0, 3)),
    page=st.integers(1, 7),
)
def test_as_a_plain_account_says(
    told: list[Told], waits: list[Waiting], asking: set[str], behind_us: int, wrongly: dict[int, int], page: int
) -> None:
    world = World(told, waits=waits, asking=asking, read_behind_us=behind_us, page=page)
    counted = world.counts() + Counter(wrongly)
    world.counted = counted

    counting = [one for one in told if not one.duplicate]
    listed, audited = Counter(one.kind for one in counting), Counter[int]()
    not_asked, waits_for, missing = list[str](), list[str](), list[str]()
    for one in sorted(counting, key=lambda one: (-one.received_at_us, one.id)):
        state = next((some for some in waits if some.channel == one.channel), Waiting(one.channel, "", 0))
        if one.revision in one.filed:
            audited[one.kind] += 1
        elif one.channel not in asking:
            not_asked.append(one.channel)
        # Whoever files and is hours behind may have met none of it yet.
        elif state.problem or 0 < state.since_us <= one.received_at_us or one.received_at_us >= NOW_US or behind_us:
            waits_for.append(one.id)
        else:
            missing.append(one.id)

    result = asyncio.run(result_of(world))
    assert result.kinds == [
        KindCount(kind, counted[kind], listed[kind], audited[kind]) for kind in sorted((counted | listed).keys())
    ]
    assert (result.not_asked, set(result.channels_not_asked)) == (len(not_asked), set(not_asked))
    assert (result.waiting, result.missing, list(result.missing_ids)) == (len(waits_for), len(missing), missing)
    assert not result.moving
    assert result.equal == (counted == listed and not result.missing)
    assert result.events == len(counting)


@pytest.mark.parametrize(
    ("held", "wanted", "found"),
    [
        ([("a", 0), ("b", 1)], [("a", 0), ("b", 0)], [("a", 0)]),
        ([("a", 0), ("a", 2), ("a", 1)], [("a", 2)], [("a", 2)]),
        ([], [("a", 0)], []),
    ],
)
def test_revisions_are_told_apart(
    held: list[tuple[str, int]], wanted: list[tuple[str, int]], found: list[tuple[str, int]]
) -> None:
    assert _lying_in(held, wanted) == {EventId(_id(name), revision) for name, revision in found}


keys = st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 2**32 - 1) | st.integers(0, 1))


@given(held=st.lists(keys, max_size=30), wanted=st.lists(keys, max_size=10))
def test_what_lies_in_a_file_is_what_was_put_there(held: list[tuple[str, int]], wanted: list[tuple[str, int]]) -> None:
    assert _lying_in(held, wanted) == {EventId(_id(name), revision) for name, revision in {*held} & {*wanted}}


def _id(name: str) -> str:
    # Halves alone do not tell them apart.
    return ("00" if name < "e" else "11") * 8 + f"{ord(name):016x}"


def _lying_in(held: list[tuple[str, int]], wanted: list[tuple[str, int]]) -> Any:
    ids = bytes.fromhex("".join(_id(name) for name, _ in held))
    revisions = array("I", [revision for _, revision in held]).tobytes()
    asked = frozenset(EventId(_id(name), revision) for name, revision in wanted)
    halves = frozenset(array("Q", bytes.fromhex(one.id)[:8])[0] for one in asked)
    return lying_in(ids, revisions, asked, halves)


def some(count: int, **values: Any) -> list[Told]:
    return [Told(str(number), EVENT_KIND_SENT, **values) for number in range(count)]


async def test_what_comes_while_it_is_listed_is_counted_the_next_time() -> None:
    world = World(some(7))

    def late(page: int) -> None:
        if page == 2:
            # It arrived just now, so it stands before what was listed already.
            world.told.append(Told("late", EVENT_KIND_DELIVERED, received_at_us=NOW_US - 1))

    world.meanwhile = late
    result = await result_of(world)
    assert (result.equal, result.moving) == (True, False)
    assert [(one.counted, one.listed, one.audited) for one in result.kinds] == [(7, 7, 7), (1, 1, 1)]


async def test_counts_that_never_rest_are_said_to_move() -> None:
    world = World(some(3))
    world.meanwhile = lambda page: world.told.append(Told(f"late {page}", EVENT_KIND_SENT))
    result = await result_of(world)
    assert (result.moving, result.equal) == (True, False)
    assert world.pages <= recount.MAX_TRIES * 3


async def test_a_list_that_missed_what_was_being_marked_is_read_again() -> None:
    world = World([*some(4), Told("better", EVENT_KIND_DELIVERED, received_at_us=NOW_US - 2 * HOUR_US)])

    def marked(page: int) -> None:
        if page == 2:
            # Of two that tell of one thing the newer counts from now on: as many as before, and listed is neither.
            world.change("better", duplicate=True)
            world.told.append(Told("worse", EVENT_KIND_DELIVERED, received_at_us=NOW_US - 1))

    world.meanwhile = marked
    assert (await result_of(world)).equal


async def test_a_difference_is_told_when_it_was_found_twice() -> None:
    world = World(some(4), counted=Counter({EVENT_KIND_SENT: 5}))
    result = await result_of(world)
    assert result.kinds == [KindCount(EVENT_KIND_SENT, 5, 4, 4)]
    assert (result.equal, result.moving, world.pages) == (False, False, 4)


async def test_what_has_expired_is_told_and_nothing_else_is_taken_for_it() -> None:
    counted: Counter[int] = Counter({EVENT_KIND_SENT: 6, EVENT_KIND_DELIVERED: 1})
    world = World(some(4, received_at_us=NOW_US - 2 * HOUR_US), counted=counted, retained_since_us=NOW_US - HOUR_US)
    result = await result_of(world)
    assert (result.equal, result.expired, result.missing) == (True, 3, 0)
    # None of it is that old.
    world.retained_since_us = NOW_US - 2 * HOUR_US
    result = await result_of(world)
    assert (result.equal, result.expired) == (False, 0)
    # More than is counted does not come of that, and what is in no file is missing all the same.
    world.retained_since_us = NOW_US
    world.counted = Counter({EVENT_KIND_SENT: 3})
    assert not (await result_of(world)).equal
    world.counted = counted
    world.change("1", filed=())
    result = await result_of(world)
    assert (result.equal, result.expired, result.missing) == (False, 3, 1)


async def test_lists_that_never_agree_are_said_to_move() -> None:
    world = World(some(3), counted=Counter({EVENT_KIND_SENT: 99}))
    world.meanwhile = lambda page: world.told.append(Told(f"late {page}", EVENT_KIND_SENT))
    result = await result_of(world)
    assert (result.moving, result.equal) == (True, False)


async def test_what_was_published_late_waits_until_it_has_been_read() -> None:
    """A later revision of an old event is listed before it is published, and read after that."""
    world = World([Told("old", EVENT_KIND_SENT, revision=1, filed=(0,))], read_behind_us=4_000_000)
    result = await result_of(world)
    # Six seconds later what had been published by then was read, and it was not among it.
    assert (result.missing, result.missing_ids) == (1, [world.told[0].id])
    assert 6 <= world.slept_s < 8

    class Filing(World):
        async def sleep(self, seconds: float) -> None:
            await super().sleep(seconds)
            if self.slept_s > 3:
                self.waits = [Waiting("twilio", "", self.told[0].received_at_us)]
            if self.slept_s > 5 and self.seals:
                self.change("old", filed=(0, 1))

        seals = False

    for seals, expected in ((False, (1, 0, 0)), (True, (0, 0, 1))):
        filing = Filing([Told("old", EVENT_KIND_SENT, revision=1, filed=(0,))], read_behind_us=4_000_000)
        filing.seals = seals
        result = await result_of(filing)
        assert (result.waiting, result.missing, result.kinds[0].audited) == expected


@pytest.mark.parametrize(
    ("state", "waits"),
    [
        (Waiting("twilio", "No such bucket.", 0), True),
        (Waiting("sendgrid", "No such bucket.", 0), False),
        (Waiting("twilio", "", NOW_US - HOUR_US), True),
        (Waiting("twilio", "", NOW_US - HOUR_US + 1), False),
        (Waiting("sendgrid", "", NOW_US - HOUR_US), False),
        (Waiting("twilio", "", 0), False),
    ],
)
async def test_what_its_own_channel_has_waiting_is_not_missing(state: Waiting, waits: bool) -> None:
    result = await result_of(World(some(2, filed=(), received_at_us=NOW_US - HOUR_US), waits=[state]))
    assert (result.waiting, result.missing) == ((2, 0) if waits else (0, 2))
    assert result.equal is waits


async def test_many_that_are_missing_take_no_more_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "MAX_DOUBTS", 150)
    world = World(some(400, filed=()), page=50)
    result = await result_of(world)
    assert (result.missing, len(result.missing_ids), result.kinds[0].listed) == (400, 100, 400)
    assert world.looked_up == [400, 150]


async def test_events_are_looked_for_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recount, "LOOKED_UP", 10)
    world = World(some(34), page=4)
    assert (await result_of(world)).equal
    assert world.looked_up == [12, 12, 10]


async def test_how_far_it_is_is_told_and_leaving_it_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recount, "TOLD_S", 0.01)
    monkeypatch.setattr(recount, "LOOKED_UP", 3)
    held, ended = asyncio.Event(), asyncio.Event()

    class Slow(World):
        async def ListEvents(self, request: Any) -> Any:  # noqa: N802  # gRPC's name
            if self.pages == 2:
                held.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.set()
            return await super().ListEvents(request)

    told = recounting(Slow(some(9))).run(ACME, SPRING)
    async for one in told:
        assert not one.done
        if held.is_set():
            assert one.events == 6
            break
    await told.aclose()
    assert ended.is_set()


@pytest.mark.parametrize(
    ("code", "passed_on"),
    [
        (Code.UNAVAILABLE, Code.UNAVAILABLE),
        (Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE),
        (Code.UNAUTHENTICATED, Code.UNAVAILABLE),
        (Code.NOT_FOUND, Code.NOT_FOUND),
    ],
)
async def test_what_the_normalizer_cannot_say_is_not_known(code: Code, passed_on: Code) -> None:
    world = World(some(1), error=BackhaulError(code, "It went wrong."))
    with pytest.raises(BackhaulError) as caught:
        await result_of(world)
    assert caught.value.code is passed_on


async def test_events_of_another_life_of_the_tenants_id_are_not_counted() -> None:
    with pytest.raises(BackhaulError) as caught:
        await result_of(World(some(1), registration="acme.another"))
    assert caught.value.code is Code.UNAVAILABLE
