"""What an account allows is never exceeded, wherever in a request the provider counts it."""

from __future__ import annotations

import heapq
from math import inf
from random import Random

import pytest
from backhaul_channels.pull import Budget
from backhaul_reconciler.ledger import MAX_RETRY_AFTER_S, MINUTE_S, Ledger
from hypothesis import given
from hypothesis import strategies as st


class Provider:
    """Counts each request somewhere between its two ends, and now and then refuses it."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)  # noqa: S311  # a simulation's
        self.counted: list[float] = []
        self.spans: list[tuple[float, float]] = []

    def takes_s(self) -> float:
        return self.random.choice([0.0, 0.05, 1.0, 30.0]) * self.random.random()


def simulate(budget: Budget, seed: int, seconds: float) -> tuple[Provider, list[float]]:
    """Ask as fast as the ledger allows; what the provider counted, and until when it wanted to be left alone."""
    provider = Provider(seed)
    random = provider.random
    now = 1000.0
    ledger = Ledger(budget, now, spread=random.uniform)
    ends: list[tuple[float, float]] = []
    refused_until = [0.0]
    until = now + seconds
    while now < until:
        wait_s = ledger.wait_s(now)
        if wait_s > 0:
            following = min(now + wait_s, ends[0][0] if ends else inf)
            assert following < inf, "it waits for nothing"
            now = following
        while ends and ends[0][0] <= now:
            at, _ = heapq.heappop(ends)
            ledger.end(at)
            match random.randrange(12):
                case 0:
                    ledger.too_often(at, told := random.choice([None, 3.0, 20.0]))
                    refused_until.append(at + (told or 0.0))
                case 1:
                    ledger.later(at, None)
                case _:
                    ledger.answered()
        if ledger.wait_s(now) == 0:
            assert now >= max(refused_until), "it was asked to leave the provider alone"
            takes_s = provider.takes_s()
            provider.counted.append(now + random.random() * takes_s)
            provider.spans.append((now, now + takes_s))
            ledger.begin()
            heapq.heappush(ends, (now + takes_s, now))
    return provider, refused_until


@given(st.integers(0, 10**9), st.sampled_from([Budget(6), Budget(1), Budget(30, 4), Budget(None, 4), Budget(60, 2)]))
def test_no_minute_and_no_moment_has_more_than_the_budget(seed: int, budget: Budget) -> None:
    provider, _ = simulate(budget, seed, 900)
    assert provider.counted
    if budget.per_minute is not None:
        counted = sorted(provider.counted)
        assert all(later - sooner > 60 for sooner, later in zip(counted, counted[budget.per_minute :], strict=False))
    for moment, _ in provider.spans:
        assert sum(begin <= moment < end for begin, end in provider.spans) <= budget.at_once


def test_the_whole_budget_is_used() -> None:
    ledger = Ledger(Budget(6), 0.0)
    now = 0.0
    asked = 0
    while now < 600:
        wait_s = ledger.wait_s(now)
        now += wait_s
        ledger.begin()
        ledger.end(now)
        asked += 1
    assert asked >= 6 * 9


def test_whoever_takes_an_account_over_waits_for_a_minute() -> None:
    ledger = Ledger(Budget(6), 100.0, spent=True)
    assert ledger.wait_s(100.0) == pytest.approx(MINUTE_S)
    assert ledger.wait_s(100.0 + MINUTE_S) == 0
    # Where nothing is counted by the minute there is nothing to wait for.
    assert Ledger(Budget(None, 4), 100.0, spent=True).wait_s(100.0) == 0


def test_less_is_asked_at_once_when_it_was_too_much_and_one_more_every_minute() -> None:
    ledger = Ledger(Budget(None, 8), 0.0, spread=lambda low, _: low)
    for _ in range(8):
        assert ledger.wait_s(0.0) == 0
        ledger.begin()
    assert ledger.wait_s(0.0) == inf
    # All of what was asked together is refused: that is one warning, not three.
    for _ in range(3):
        ledger.end(1.0)
        ledger.too_often(1.0, None)
    assert ledger.at_once(1.0) == 4
    for _ in range(5):
        ledger.end(2.0)
        ledger.answered()
    assert [ledger.at_once(1.0 + 60 * minutes) for minutes in (0, 1, 2, 4, 9)] == [4, 5, 6, 8, 8]
    ledger.too_often(700.0, None)
    ledger.too_often(800.0, None)
    ledger.too_often(900.0, None)
    ledger.too_often(1300.0, None)
    assert ledger.at_once(1300.0) >= 1


def test_less_is_asked_at_once_where_others_are_busy_and_more_when_they_are_not() -> None:
    ledger = Ledger(Budget(at_once=4, busy_header="together", busy_at=10), 0.0)

    def told(now: float, together: str) -> int:
        ledger.told(now, {"together": together})
        return ledger.at_once(now)

    for _ in range(3):
        ledger.begin()
    # Three of those that are under way are ours.
    assert [told(0.0, str(number)) for number in (1, 9, 10, 11, 12, 4)] == [4, 4, 3, 2, 1, 1]
    assert [told(0.0, odd) for odd in ("10000", "9" * 400, "-5", "x", "", "²")] == [1] * 6
    assert [ledger.at_once(60.0 * minutes) for minutes in (0, 1, 2, 3, 9)] == [1, 2, 3, 4, 4]
    # As long as they are busy there is no more, and nobody waits for ever.
    assert [told(600.0 + 50 * times, "13") for times in range(5)] == [1] * 5
    for _ in range(3):
        ledger.end(800.0)
    assert ledger.wait_s(800.0) == 0


def test_what_is_not_told_by_a_header_of_the_budget_changes_nothing() -> None:
    ledger = Ledger(Budget(at_once=4), 0.0)
    ledger.told(0.0, {"": "100", "together": "100"})
    assert ledger.at_once(0.0) == 4


def test_a_provider_is_left_alone_for_as_long_as_it_says_and_ever_longer_where_it_does_not() -> None:
    ledger = Ledger(Budget(), 0.0, spread=lambda low, _: low)
    ledger.too_often(0.0, 90.0)
    assert ledger.wait_s(0.0) == 90
    ledger.later(100.0, 10**9)
    assert ledger.wait_s(100.0) == MAX_RETRY_AFTER_S
    quiet = Ledger(Budget(), 0.0, spread=lambda low, _: low)
    now, waits = 0.0, []
    for _ in range(9):
        quiet.later(now, None)
        waits.append(quiet.wait_s(now))
        now += waits[-1]
    assert waits == [2.5, 5, 10, 20, 40, 80, 150, 150, 150]
    quiet.answered()
    quiet.later(now, None)
    assert quiet.wait_s(now) == 2.5
