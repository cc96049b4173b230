"""No look-up that begins after ``passed(seq)`` returned answers without ``seq``, in whatever order things happen."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from backhaul_suppression import barrier, lease
from backhaul_suppression.barrier import Pause
from backhaul_suppression.lease import Clock
from backhaul_suppression.leases import Holder
from backhaul_suppression.ports import Copies
from hypothesis import given
from hypothesis import strategies as st

# Test folders are no packages: what several test files of this one share is found by its name.
sys.path.insert(0, str(Path(__file__).parent))

from protocol_world import StaleError, World, Writing

STEPS, ORDERS = 400, 500

MOODS = {
    "killed": (0, 0, 0.03),
    "fails": (0, 0, 0.03),
    "asked": (0.1, 1, 5),
    "time": (0, 0.1, 0.5),
    "": (0, 0.01, 0.3, 1, 3),
}
"""How likely what ends in each is, while a mood lasts."""

Choose = Callable[[Sequence[str]], str]


def walk(world: World, choose: Choose) -> None:
    with closing(world):
        for _ in range(STEPS):
            may = world.happenings()
            may[choose(list(may))]()


def moody(seed: int) -> Choose:
    """Prefers some for a while, and forgets others, so that one stands still while another goes on."""
    random_ = random.Random(seed)  # noqa: S311  # an order of steps is no secret
    moods: dict[str, float] = {}

    def choose(names: Sequence[str]) -> str:
        if random_.random() < 0.05:
            moods.clear()
        for name in names:
            if name not in moods:
                moods[name] = random_.choice(next(of for what, of in MOODS.items() if name.endswith(what)))
        return random_.choices(names, [moods[name] + 1e-6 for name in names])[0]

    return choose


@pytest.mark.slow
@given(st.lists(st.integers(0, 2**16), min_size=STEPS, max_size=STEPS))
def test_no_answer_is_stale_in_whatever_order_things_happen(choices: list[int]) -> None:
    left = iter(choices)
    walk(World(), lambda names: names[next(left) % len(names)])


@pytest.mark.slow
def test_no_answer_is_stale_in_hundreds_of_orders_in_which_much_happens() -> None:
    answers = waited = failures = 0
    for seed in range(ORDERS):
        world = World()
        walk(world, moody(seed))
        answers, waited, failures = answers + world.answers, waited + world.waited, failures + world.failures
    # It was not for want of answers, of writers that came to their end, or of failures.
    assert min(answers, waited) > ORDERS < 2 * failures


async def _impatient(seq: int, copies: Copies, clock: Clock, pause: Pause) -> None:
    """A writer that waits for half a lease."""
    began = clock()
    await copies.bar(seq)
    while (behind := await copies.behind(seq)) and clock() - began < lease.LEASE_S / 2:
        await pause(0)
    await copies.forget(behind, seq)


async def _early(seq: int, copies: Copies, clock: Clock, pause: Pause) -> None:
    """A writer whose patience begins before the bar is written."""
    began = clock()
    await copies.bar(seq)
    while (behind := await copies.behind(seq)) and clock() - began < lease.PATIENCE_S:
        await pause(0)
    await copies.forget(behind, seq)


async def _barless(seq: int, copies: Copies, clock: Clock, pause: Pause) -> None:
    """A writer that waits long enough, and bars nobody."""
    began = clock()
    while clock() - began < lease.PATIENCE_S:
        await pause(0)


class _LateLease(Holder):
    """A lease that begins when the renewal is answered."""

    async def step(self) -> None:
        before = self._lease
        await super().step()
        if before.held:
            before.extend(self._clock())


class _Asking(Holder):
    """A copy that asks how far it must be before it is there."""

    async def _register(self) -> bool:
        need = await self._copies.last()
        copy = self._new_id()
        await self._copies.register(copy, self._applied())
        self._copy, self._need, self._said = copy, need, -1
        return True


class _Careless(Holder):
    """A copy that does not look at what it needs."""

    async def step(self) -> None:
        if not self._copy and not await self._register():
            return
        began = self._clock()
        if await self._copies.renew(self._copy, self._applied()) is None:
            self.forget()
        else:
            self._lease.extend(began)


@pytest.mark.parametrize(
    "wrong",
    [
        {"writing": _impatient},
        {"writing": _barless},
        {"holder": _LateLease},
        {"holder": _Asking},
        {"holder": _Careless},
        {"asks_first": False},
    ],
    ids=["too short a patience", "no bar", "lease from the answer", "asks first", "looks at no need", "reads first"],
)
def test_what_is_wrong_is_found(wrong: dict[str, Any]) -> None:
    def stale(seed: int) -> bool:
        try:
            walk(World(**wrong), moody(seed))
        except StaleError:
            return True
        return False

    assert any(map(stale, range(ORDERS)))


@pytest.mark.parametrize(("writing", "right"), [(barrier.everybody, True), (_early, False)])
def test_patience_begins_when_the_bar_is_known_to_be_written(writing: Writing, right: bool) -> None:
    world = World(writing=writing)

    def do(name: str, times: int = 2) -> None:
        for _ in range(times):
            world.happenings()[name]()

    with closing(world):
        do("one follows")
        for _ in ("asks how far all are", "registers", "asks again", "renews"):
            do("one holds")
        do("writer 1.0")  # It commits, and sends the bar, which is under way for longer than its patience.
        do("time", 40)
        do("one holds", 4)  # The copy that does not follow any more renews its lease once more.
        for _ in ("bar", "behind", "forget"):
            do("writer 1.0")
        if right:
            assert world.passed == 0
            do("one is asked", 4)
            assert world.answers == 1
        else:
            assert world.passed == 1
            with pytest.raises(StaleError):
                do("one is asked", 4)
