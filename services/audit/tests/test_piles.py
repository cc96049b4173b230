"""Piles: whatever order of steps and crashes, each event lies in exactly one file. A world in memory stands for the
database and the bucket; what is real in it is what decides."""

from __future__ import annotations

import tracemalloc
from array import array
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from backhaul_audit.contents import EVENT_BYTES, MAX_LINKS, MESSAGE_BYTES, Content, Part, events_of
from backhaul_audit.model import EventId, FileFormat, PileKey, Plan, Shape
from backhaul_audit.piles import Limits, Piles, Relief, Since
from backhaul_audit.plans import Ask, Closed, Way, new_plan, way_of
from backhaul_audit.shaping import shape
from backhaul_digests.model import Chain
from hypothesis import given, settings
from hypothesis import strategies as st

_SHAPE = Shape("events")
_PILES = [
    PileKey("acme.1", "twilio", Chain.EVENTS),
    PileKey("acme.1", "twilio", Chain.BACKFILL),
    PileKey("globex.1", "sendgrid", Chain.EVENTS),
]
_LIMITS = Limits(file_bytes=400, file_events=5, file_age_s=10, memory_bytes=2000)


def ask_of(pile: PileKey, *, own: bool = False, bucket: str = "bucket", shape: Shape = _SHAPE) -> Ask:
    return Ask(pile.registration.partition(".")[0], pile.channel if own else "", bucket, shape)


def part(pile: PileKey, position: int, events: int = 1, size: int = 10) -> Part:
    ids = b"".join((position * 1000 + number).to_bytes(16) for number in range(events))
    arrivals, stored_us = [position * 1_000_000] * events, position * 1_000_000 + 5
    return Part(pile, position, [b"x" * size] * events, ids, array("I", [0] * events), arrivals, stored_us)


@dataclass
class World:
    """What outlives a crash, and one copy."""

    messages: list[tuple[PileKey, int]]
    own: bool = False
    ids: int = 0
    floor: int = 0
    done: Counter[PileKey] = field(default_factory=Counter)
    plans: dict[str, Plan] = field(default_factory=dict)
    objects: dict[str, list[EventId]] = field(default_factory=dict)
    files: dict[PileKey, list[list[EventId]]] = field(default_factory=dict)
    now: float = 0
    read: int = 0
    recorded: list[Closed] = field(default_factory=list)
    uploaded: list[Closed] = field(default_factory=list)
    piles: Piles = field(init=False)

    def __post_init__(self) -> None:
        self.crash()

    def new_id(self) -> str:
        self.ids += 1
        return f"{self.ids:032x}"

    def crash(self) -> None:
        self.piles = Piles(_LIMITS, self.new_id)
        planned: dict[PileKey, list[Plan]] = {}
        for plan in self.plans.values():
            planned.setdefault(plan.pile, []).append(plan)
        for pile in _PILES:
            self.piles.known(pile, self.done[pile], planned.get(pile, ()))
        self.read = self.floor
        self.recorded, self.uploaded = [], []

    def take(self) -> None:
        if self.read >= len(self.messages):
            return
        position = self.read + 1
        pile, events = self.messages[position - 1]
        wants = self.piles.wants(pile, position)
        if wants is not False:
            ask = ask_of(pile, own=self.own)
            if isinstance(wants, Plan):
                ask = Ask(wants.tenant_id, wants.destination, wants.bucket, wants.shape)
            self.piles.take(part(pile, position, events), ask, self.now)
        self.read = position
        self.piles.passed(position)

    def age(self) -> None:
        self.now += 20
        self.piles.expire(self.now, lambda pile: ask_of(pile, own=self.own))

    def record(self) -> None:
        for closed in self.piles.closed():
            if not closed.recorded:
                self.plans[closed.plan.id] = closed.plan
                closed.recorded = True
            self.recorded.append(closed)

    def upload(self, index: int) -> None:
        if not self.recorded:
            return
        closed = self.recorded.pop(index % len(self.recorded))
        events = list(events_of(closed.content.ids, closed.content.revisions))
        assert self.objects.setdefault(closed.plan.key, events) == events, "made again, it is another file"
        self.uploaded.append(closed)

    def upload_and_die(self, index: int) -> None:
        self.upload(index)
        self.crash()

    def seal(self) -> None:
        for pile in _PILES:
            line = self.piles.in_line(pile)
            if line and any(line[0] is one for one in self.uploaded):
                closed = line[0]
                floor = self.piles.floor(self.read, without=[closed])
                assert floor >= self.floor
                self.floor = floor
                self.files.setdefault(pile, []).append(self.objects[closed.plan.key])
                self.done[pile] = closed.plan.last
                del self.plans[closed.plan.id]
                self.piles.sealed(closed)
                self.uploaded = [one for one in self.uploaded if one is not closed]

    def relieve(self) -> None:
        if self.piles.bytes:
            self.piles.close(next(iter(self.piles.waiting())))

    def lapse(self) -> None:
        waiting = list(self.piles.waiting())
        if waiting:
            closed = self.piles.lapse(waiting[0])
            self.recorded = [one for one in self.recorded if not any(one is other for other in closed)]
            self.uploaded = [one for one in self.uploaded if not any(one is other for other in closed)]

    def finish(self) -> None:
        self.crash()
        while self.read < len(self.messages):
            self.take()
        self.age()
        for _ in range(len(self.messages) + 1):
            self.record()
            while self.recorded:
                self.upload(0)
            self.seal()


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(_PILES), st.integers(1, 4)), min_size=1, max_size=25),
    st.lists(
        st.sampled_from(
            ["take", "take", "take", "age", "record", "upload", "die", "seal", "crash", "relieve", "lapse"]
        ),
        max_size=60,
    ),
)
def test_each_event_lies_in_exactly_one_file(messages: list[tuple[PileKey, int]], steps: list[str]) -> None:
    world = World(messages)
    for number, step in enumerate(steps):
        match step:
            case "upload":
                world.upload(number)
            case "die":
                world.upload_and_die(number)
            case _:
                getattr(world, step)()
    world.finish()
    found = Counter(event for files in world.files.values() for file in files for event in file)
    wanted = Counter(
        event
        for position, (pile, events) in enumerate(messages, 1)
        for event in events_of(part(pile, position, events).ids, [0] * events)
    )
    assert found == wanted
    assert world.floor == len(messages)
    assert not world.plans
    assert world.piles.bytes == 0


def test_files_are_closed_at_their_limits() -> None:
    piles = Piles(_LIMITS, iter(f"{number:032x}" for number in range(99)).__next__)
    pile = _PILES[0]
    ask = ask_of(pile)
    for position in range(1, 4):
        piles.take(part(pile, position, 2), ask, 0)
    (closed,) = piles.closed()  # A message is not divided: two of them are four events, and three would be six.
    assert (closed.plan.first, closed.plan.last, closed.content.events) == (1, 2, 4)
    piles.take(part(pile, 4, 1, size=500), ask, 0)
    assert [one.content.events for one in piles.closed()] == [2, 1]
    piles.take(part(pile, 5), ask, 100)
    piles.expire(109, ask_of)
    assert not piles.closed()
    piles.expire(110, ask_of)
    assert [one.plan.first for one in piles.closed()] == [5]
    piles.take(part(pile, 6), ask, 200)
    piles.take(part(pile, 7), ask_of(pile, shape=Shape("elsewhere")), 200)
    assert [one.plan.shape.folder for one in piles.closed()] == ["events"]
    piles.expire(200, lambda _: None)
    assert [one.plan.shape.folder for one in piles.closed()] == ["elsewhere"]


def test_no_file_is_closed_for_its_age_while_its_bucket_is_away() -> None:
    """Nothing could be made of it, and a week of small files would have to be uploaded one by one."""
    piles = Piles(_LIMITS, iter(f"{number:032x}" for number in range(99)).__next__)
    theirs, ours = _PILES[0], _PILES[2]
    piles.take(part(theirs, 1), ask_of(theirs, own=True), 0)
    piles.take(part(ours, 2), ask_of(ours), 0)
    away = way_of(theirs, theirs.channel)
    asks = {theirs: ask_of(theirs, own=True), ours: ask_of(ours)}
    piles.expire(20, asks.get, {away})
    assert [one.plan.pile for one in piles.closed()] == [ours]
    piles.take(part(theirs, 3), asks[theirs], 30)
    piles.expire(50, asks.get, {away})
    assert not piles.closed()
    # At its limits it is closed all the same, and by its age once the bucket is back.
    piles.take(part(theirs, 4, 4), asks[theirs], 60)
    assert [(one.plan.first, one.plan.last) for one in piles.closed()] == [(1, 3)]
    piles.expire(70, asks.get)
    assert [(one.plan.first, one.plan.last) for one in piles.closed()] == [(4, 4)]


def test_what_has_no_place_waits_until_it_has_or_nobody_wants_it() -> None:
    piles = Piles(_LIMITS, iter(f"{number:032x}" for number in range(99)).__next__)
    pile, other = _PILES[0], _PILES[2]
    for position, one in enumerate((pile, other), 1):
        piles.take(part(one, position, 9), ask_of(one, bucket=""), 0)
    assert not piles.closed()
    assert piles.floor(2) == 0
    piles.expire(99, lambda one: ask_of(one) if one == pile else None)
    assert [one.plan.bucket for one in piles.closed()] == ["bucket"]
    assert set(piles.waiting()) == {pile}


def test_a_file_has_the_shape_with_which_it_was_begun_also_where_it_had_no_place() -> None:
    """Its channel asks for another one before it has a place: what was written is not of that shape."""
    array_ = Shape("events", FileFormat.ARRAY)
    for how in ("expire", "take"):
        piles = Piles(_LIMITS, iter(f"{number:032x}" for number in range(99)).__next__)
        pile = _PILES[0]
        piles.take(part(pile, 1, 3), ask_of(pile, bucket=""), 0)
        piles.take(part(pile, 2, 3), ask_of(pile, bucket="", shape=array_), 0)
        if how == "expire":
            piles.expire(1, lambda one: ask_of(one, shape=array_))
        else:
            piles.take(part(pile, 3), ask_of(pile, shape=array_), 1)
        (closed,) = piles.closed()
        assert (closed.plan.bucket, closed.plan.shape) == ("bucket", _SHAPE), how
        made = b"".join(shape(closed.content, closed.plan.shape).pieces)
        assert made.count(b"\n") == closed.content.events == 6
        assert b"," not in made


def test_room_is_made_by_closing_the_largest_then_waiting() -> None:
    piles = Piles(Limits(10_000, 1000, 10, 1000), iter(f"{number:032x}" for number in range(99)).__next__)
    small, large = _PILES[0], _PILES[2]
    piles.take(part(small, 1, 1, 100), ask_of(small), 0)
    piles.take(part(large, 2, 1, 950), ask_of(large), 0)
    assert piles.relief(()) == (Relief.CLOSE, large)
    piles.close(large)
    assert piles.relief(()) == (Relief.WAIT, None)
    (closed,) = piles.closed()
    piles.sealed(closed)
    assert piles.relief(()) is None
    assert piles.bytes == 101 + MESSAGE_BYTES + EVENT_BYTES


def test_small_events_are_counted_as_what_they_take() -> None:
    """Of a hostile sender each is two bytes, and takes many times as much in memory."""
    piles = Piles(Limits(1 << 20, 100_000, 10, 900_000), iter(f"{number:032x}" for number in range(99)).__next__)
    pile = _PILES[0]
    tracemalloc.start()
    try:
        for position in range(1, 5001):
            piles.take(part(pile, position, size=2), ask_of(pile), 0)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 1.2 * piles.bytes
    assert piles.relief(()) == (Relief.CLOSE, pile)


def test_files_of_one_event_are_counted_as_what_they_take() -> None:
    """Of many channels with few events nothing else takes memory, and what waits for a bucket must not fill it."""
    piles = Piles(Limits(1 << 20, 1, 10, 1_000_000), iter(f"{number:032x}" for number in range(999)).__next__)
    for position in range(1, 201):
        piles.take(part(_PILES[0], position), ask_of(_PILES[0]), 0)
    assert piles.relief({Way("", "")}) == (Relief.WAIT, None)
    for closed in piles.closed():
        piles.sealed(closed)
    assert (piles.bytes, piles.relief(())) == (0, None)


def test_so_many_traces_are_kept_as_a_span_names() -> None:
    content = Content()
    for position in range(1, 200):
        content.add(replace(part(_PILES[0], position), traceparent=f"00-{position:032x}-{position:016x}-01"), b"\n")
    assert len(content.traceparents) == MAX_LINKS


def test_a_bucket_of_its_own_that_is_away_lapses_and_the_installations_makes_all_wait() -> None:
    piles = Piles(Limits(10_000, 1000, 10, 1000), iter(f"{number:032x}" for number in range(99)).__next__)
    theirs, ours = _PILES[0], _PILES[2]
    piles.take(part(theirs, 1, 1, 700), ask_of(theirs, own=True), 0)
    piles.take(part(ours, 2, 1, 700), ask_of(ours), 0)
    blocked = {way_of(theirs, theirs.channel)}
    assert piles.relief(blocked) == (Relief.LAPSE, theirs)
    assert not piles.lapse(theirs)
    assert piles.relief(blocked) is None
    assert piles.wants(theirs, 3) is False
    assert piles.floor(3) == 0
    assert set(piles.lapsed) == {theirs}
    # What it dropped waits all the same.
    assert piles.waiting() == {theirs: Since(1_000_000, 1_000_005), ours: Since(2_000_000, 2_000_005)}
    piles.take(part(ours, 4, 1, 700), ask_of(ours), 0)
    assert piles.relief({*blocked, Way("", "")}) == (Relief.WAIT, None)


def test_of_a_bucket_that_refuses_what_waits_one_more_file_shows_whether_it_refuses_all() -> None:
    piles = Piles(_LIMITS, iter(f"{number:032x}" for number in range(99)).__next__)
    refused, ours = _PILES[0], _PILES[2]
    other = PileKey("initech.1", "twilio", Chain.EVENTS)
    asks = {pile: ask_of(pile) for pile in (refused, ours, other)}
    piles.take(part(refused, 1), asks[refused], 0)
    piles.expire(20, asks.get)
    assert [one.plan.pile for one in piles.closed()] == [refused]
    for position, pile in enumerate(asks, 2):
        piles.take(part(pile, position), asks[pile], 20)
    blocked, refusing = {Way("", "")}, {Way("", ""): {"acme.1"}}
    piles.expire(40, asks.get, blocked, (), {})
    assert not piles.closed()
    piles.expire(40, asks.get, blocked, (), refusing)
    assert [one.plan.pile for one in piles.closed()] == [ours]
    piles.expire(40, asks.get, blocked, (), refusing)
    assert not piles.closed()
    # That one was refused as well.
    piles.expire(40, asks.get, blocked, (), {Way("", ""): {"acme.1", "globex.1"}})
    assert [one.plan.pile for one in piles.closed()] == [other]
    # Where the bucket takes others' files, what it refuses stays open.
    piles.expire(40, asks.get, (), {refused})
    assert not piles.closed()


def test_what_the_bucket_of_all_refuses_of_one_pile_lapses() -> None:
    piles = Piles(Limits(10_000, 1000, 10, 1000), iter(f"{number:032x}" for number in range(99)).__next__)
    refused, ours = _PILES[0], _PILES[2]
    piles.take(part(refused, 1, 1, 700), ask_of(refused), 0)
    piles.close(refused)
    piles.take(part(ours, 2, 1, 300), ask_of(ours), 0)
    assert piles.relief(()) == (Relief.WAIT, None)
    assert piles.relief((), {refused}) == (Relief.LAPSE, refused)
    assert [one.plan.pile for one in piles.lapse(refused)] == [refused]
    assert piles.relief(()) is None
    assert (piles.floor(2), set(piles.lapsed)) == (0, {refused})


def test_what_is_read_again_was_stored_no_earlier_than_is_said() -> None:
    """What was brought twice is remembered for as long as a message of then can be read again."""
    piles = Piles(_LIMITS, iter(f"{number:032x}" for number in range(99)).__next__)
    first, second = _PILES[0], _PILES[2]
    assert piles.stored_from(7) == 7
    for position, pile in enumerate((first, second), 1):
        piles.take(replace(part(pile, position), stored_at_us=position * 10), ask_of(pile, own=True), 0)
    assert piles.stored_from(70) == 10
    piles.close(first)
    assert piles.stored_from(70) == 10
    (closed,) = piles.closed()
    piles.sealed(closed)
    assert piles.stored_from(70) == 20
    piles.lapse(second)
    assert piles.stored_from(70) == 20


@pytest.mark.parametrize(
    ("chain", "shape", "key"),
    [
        (
            Chain.EVENTS,
            Shape("out/mails"),
            (
                "tenants/acme.1/out/mails/channel=twilio/dt=2023-11-14/AUDIT_20231114221320123_"
                "00112233-4455-6677-8899-aabbccddeeff_Events.json"
            ),
        ),
        (
            Chain.BACKFILL,
            Shape("events", FileFormat.ARRAY, gzip=True, flat=True),
            "tenants/acme.1/events/backfill/AUDIT_20231114221320123_00112233-4455-6677-8899-aabbccddeeff_Events.json.gz",
        ),
    ],
)
def test_keys(chain: Chain, shape: Shape, key: str) -> None:
    pile = PileKey("acme.1", "twilio", chain)
    file_id = "00112233445566778899aabbccddeeff"
    plan = new_plan(pile, ask_of(pile, shape=shape), 1_700_000_000_123_456, 1, 2, file_id)
    assert plan.key == key
    assert new_plan(pile, ask_of(pile, shape=shape), 2**62, 1, 2, file_id).key
    assert new_plan(pile, ask_of(pile, shape=shape), -5, 1, 2, file_id).key
