"""Fairness as a property: whatever arrives of whomever, a batch shares by bytes, and nothing is lost or doubled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import pytest
from backhaul_common.feed.buffers import FairBuffers, Put
from hypothesis import given, settings
from hypothesis import strategies as st

PATH_BYTES = 400
PATHS = ("acme", "globex", "initech", "umbrella")


@dataclass(frozen=True)
class Item:
    path: str
    stream_seq: int
    data: bytes = field(repr=False)

    @property
    def reply(self) -> str:
        return f"reply.{self.stream_seq}"


Buffers = FairBuffers[Item]


def fair_level(demands: Sequence[int], budget: int) -> Fraction:
    """The equal share of ``budget``, where nobody has more than it asks for and the others have what it leaves."""
    left, hungry = Fraction(budget), sorted(demands)
    while hungry and hungry[0] * len(hungry) <= left:
        left -= hungry.pop(0)
    return left / len(hungry) if hungry else Fraction(max(demands, default=0))


def check_batch(waiting: dict[str, list[Item]], batch: Sequence[Item], budget: int) -> None:
    """Holds ``batch``, which was taken of ``waiting``, against what fairness means."""
    sizes = {path: [len(item.data) for item in items] for path, items in waiting.items() if items}
    level = fair_level([sum(each) for each in sizes.values()], budget)
    taken: dict[str, list[Item]] = {}
    for item in batch:
        taken.setdefault(item.path, []).append(item)
    assert bool(batch) == bool(sizes), "a batch holds something while anything waits"
    for path, items in taken.items():
        assert items == waiting[path][: len(items)], "the first of each path, in their order"
        assert sum(len(item.data) for item in items[:-1]) <= level, "nobody has more than one message above its share"
    for path, each in sizes.items():
        count, fits = len(taken.get(path, ())), 0
        while fits < len(each) and sum(each[: fits + 1]) <= level:
            fits += 1
        assert count >= fits, "what fits into the share of its path is in the batch"
        if len(each) == 1 and each[0] <= budget // len(sizes):
            assert count == 1, "a path with one message is in the very next batch"
    total = sum(len(item.data) for item in batch)
    assert total < budget + max((max(each) for each in sizes.values()), default=1), "bounded"


class Run:
    """Buffers that are used as a feed uses them, beside a plain account of what waits where."""

    def __init__(self, buffers: Buffers, *, parks: bool) -> None:
        self.buffers = buffers
        self.parks = parks
        self.seq = 0
        self.waiting: dict[str, list[Item]] = {path: [] for path in PATHS}
        self.parked: dict[str, dict[int, Item]] = {path: {} for path in PATHS}
        self.taken: list[Item] = []
        self.last: list[Item] = []
        self.done: Counter[int] = Counter()

    def arrive(self, path: str, size: int) -> None:
        self.seq += 1
        item = Item(path, self.seq, bytes(size))
        put = self.buffers.put(item)
        if put is Put.PARKED:
            assert self.parks
            self.parked[path][item.stream_seq] = item
        else:
            assert put is Put.BUFFERED
            self.waiting[path].append(item)
            held = sum(len(one.data) for one in self.waiting[path])
            assert not self.parks or len(self.waiting[path]) == 1 or held <= PATH_BYTES, "bounded"

    def again(self, path: str) -> None:
        """The broker delivers again what waits here."""
        for item in [*self.waiting[path][:1], *list(self.parked[path].values())[:1]]:
            put = self.buffers.put(item)
            if put is Put.BUFFERED:  # It was parked, and there was room by now.
                self.waiting[path].append(self.parked[path].pop(item.stream_seq))

    def batch(self, budget: int) -> None:
        batch = self.buffers.next_batch(budget)
        check_batch(self.waiting, batch, budget)
        for item in batch:
            self.waiting[item.path].remove(item)
        self.settle()
        self.last = batch

    def take_back(self, count: int) -> None:
        """A feed takes back the last of some paths, in the order in which they were taken."""
        back = self.last[len(self.last) - min(count, len(self.last)) :]
        self.last = self.last[: len(self.last) - len(back)]
        self.buffers.take_back(back)
        for item in reversed(back):
            self.waiting[item.path].insert(0, item)
        self.settle()

    def reread(self) -> None:
        if not self.parks:
            return
        for path in list(self.buffers.room()):
            assert list(self.buffers.parked_of(path)) == list(self.parked[path])
            seq, item = next(iter(self.parked[path].items()))
            self.buffers.unpark(item)
            self.waiting[path].append(self.parked[path].pop(seq))

    def settle(self) -> None:
        """What was taken is done with."""
        self.done.update(item.stream_seq for item in self.last)
        self.last = []

    def check(self) -> None:
        assert self.buffers.bytes == sum(len(item.data) for items in self.waiting.values() for item in items)
        assert self.buffers.parked == sum(map(len, self.parked.values()))
        expected = {(path, item.stream_seq) for path in PATHS for item in self.waiting[path]}
        expected |= {(path, seq) for path in PATHS for seq in self.parked[path]}
        assert sorted(self.buffers.positions()) == sorted(expected)

    def drain(self) -> None:
        """Take all there is: nothing was lost, and nothing is there twice."""
        while len(self.buffers) or self.buffers.parked:
            self.reread()
            self.batch(1000)
        self.settle()
        assert self.done == Counter(range(1, self.seq + 1))


paths = st.sampled_from(PATHS)
sizes = st.integers(0, 60) | st.integers(0, 600)
steps = st.lists(
    st.tuples(st.just(Run.arrive), paths, sizes)
    | st.tuples(st.just(Run.arrive), paths, sizes)
    | st.tuples(st.just(Run.again), paths)
    | st.tuples(st.just(Run.batch), st.integers(1, 1000))
    | st.tuples(st.just(Run.take_back), st.integers(1, 5))
    | st.tuples(st.just(Run.reread)),
    max_size=60,
)


def holds(make: Callable[[int | None], Buffers]) -> None:
    """Fails where buffers that ``make`` builds are not fair."""

    @settings(max_examples=400, deadline=None, database=None, derandomize=True, report_multiple_bugs=False)
    @given(steps, st.booleans())
    def whatever_arrives(run_of: list[tuple[Callable[..., None], object]], parks: bool) -> None:
        run = Run(make(PATH_BYTES if parks else None), parks=parks)
        for step, *values in run_of:
            step(run, *values)
            run.check()
        run.drain()

    whatever_arrives()


def test_whatever_arrives_a_batch_shares_by_bytes_and_nothing_is_lost_or_doubled() -> None:
    holds(FairBuffers)


class WholeBudget(FairBuffers[Item]):
    def _share(self, size: int, paths: int) -> int:
        return size


class NoTurns(FairBuffers[Item]):
    """Forgets who had more than its share."""

    def next_batch(self, budget: int, paths: Iterable[str] | None = None) -> list[Item]:
        before = dict(self._ready)
        batch = super().next_batch(budget, paths)
        self._ready = {path: None for path in before if path in self._ready}
        return batch


class ByNumber(FairBuffers[Item]):
    """The same number of messages of everybody."""

    def next_batch(self, budget: int, paths: Iterable[str] | None = None) -> list[Item]:
        batch: list[Item] = []
        while self._ready and sum(len(item.data) for item in batch) < budget:
            for path in list(self._ready):
                self._take(path, self._buffers[path], batch)
        return batch


class Forgetful(FairBuffers[Item]):
    """Loses what is taken back."""

    def take_back(self, items: Sequence[Item]) -> None:
        super().take_back(items[:1])


@pytest.mark.slow
@pytest.mark.parametrize("broken", [WholeBudget, ByNumber, Forgetful])
def test_the_property_finds_buffers_that_are_not_fair(broken: type[Buffers]) -> None:
    with pytest.raises(AssertionError):
        holds(broken)


def turns_until_served(buffers: Buffers, others: int) -> int:
    """How many batches a message waits that is larger than its share, beside ``others`` who always have more."""
    seq = 0
    for n in range(others):
        for _ in range(3):
            seq += 1
            buffers.put(Item(f"other{n}", seq, bytes(60)))
    wanted = Item("large", seq + 1, bytes(500))
    buffers.put(wanted)
    for turn in range(1, 100):
        batch = buffers.next_batch(50 * (others + 1))
        if wanted in batch:
            return turn
        for item in batch:
            seq += 2
            buffers.put(Item(item.path, seq, item.data))
    return 100


@pytest.mark.parametrize("others", [1, 3, 10])
def test_a_message_larger_than_its_share_is_served_in_its_turn(others: int) -> None:
    assert turns_until_served(FairBuffers(None), others) <= others + 1


def test_without_turns_it_would_wait_for_ever() -> None:
    assert turns_until_served(NoTurns(None), 10) == 100


def test_a_flood_costs_the_others_no_share() -> None:
    buffers: Buffers = FairBuffers(None)
    for seq in range(1, 1001):
        buffers.put(Item("flood", seq, bytes(1000)))
    buffers.put(Item("small", 1001, bytes(1000)))
    batch = buffers.next_batch(10_000)
    assert Counter(item.path for item in batch) == {"flood": 9, "small": 1}


def test_it_is_uneven_where_little_waits_beside_much() -> None:
    buffers: Buffers = FairBuffers(None)
    assert not buffers.uneven(100, 200)
    for seq, path in enumerate(("flood", "flood", "flood", "flood", "flood"), 1):
        buffers.put(Item(path, seq, bytes(50)))
    assert not buffers.uneven(100, 200)
    buffers.put(Item("a", 6, bytes(100)))
    assert buffers.uneven(100, 200)
    assert not buffers.uneven(99, 200)
    assert not buffers.uneven(100, 250)


def test_floods_and_others_are_taken_apart() -> None:
    buffers: Buffers = FairBuffers(PATH_BYTES)
    assert buffers.apart(250) == ([], [])
    for seq in range(1, 13):
        buffers.put(Item("abc"[seq % 3], seq, bytes(100 if seq % 3 else 50)))
    assert buffers.apart(250) == (["b", "c"], ["a"])
    assert {item.path for item in buffers.next_batch(10_000, ["a"])} == {"a"}
    assert buffers.apart(400) == ([], ["b", "c"])
    # What is parked is more than its path may have, however little of it is here.
    while buffers.put(Item("b", 1000 + buffers.bytes, bytes(PATH_BYTES // 4))) is not Put.PARKED:
        pass
    assert buffers.apart(1 << 30) == (["b"], ["c"])


def test_what_is_dropped_does_not_wait_any_more() -> None:
    buffers: Buffers = FairBuffers(PATH_BYTES)
    for seq in range(1, 11):
        buffers.put(Item(PATHS[seq % 2], seq, bytes(100)))
    buffers.drop(PATHS[0])
    assert {item.path for item in buffers.next_batch(10_000)} == {PATHS[1]}
    assert buffers.take_all() == ["reply.9"]
    assert (buffers.bytes, buffers.parked, len(buffers)) == (0, 0, 0)


def test_everything_that_waits_is_handed_back_once() -> None:
    buffers: Buffers = FairBuffers(PATH_BYTES)
    for seq in range(1, 21):
        buffers.put(Item(PATHS[seq % 2], seq, bytes(100)))
    assert buffers.parked == 12
    assert sorted(buffers.take_all()) == sorted(f"reply.{seq}" for seq in range(1, 21))
    assert (buffers.bytes, buffers.parked, len(buffers)) == (0, 0, 0)


@pytest.mark.parametrize("path_bytes", [None, 100])
def test_what_is_delivered_again_while_it_is_taken_waits_once_when_it_comes_back(path_bytes: int | None) -> None:
    buffers: Buffers = FairBuffers(path_bytes)
    items = [Item("acme", seq, bytes(60)) for seq in (1, 2)]
    buffers.put(items[0])
    assert buffers.next_batch(1) == items[:1]
    for item in reversed(items):
        buffers.put(item)  # The first is parked behind the second where that fills the buffer.
    buffers.take_back(items[:1])
    assert sorted(item.stream_seq for item in buffers.next_batch(1000)) == [1, 2]
    assert (buffers.bytes, buffers.parked, len(buffers)) == (0, 0, 0)
