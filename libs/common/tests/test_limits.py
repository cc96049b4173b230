"""How fast somebody may go on."""

from __future__ import annotations

from backhaul_common.limits import TokenBucket
from hypothesis import given
from hypothesis import strategies as st


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_many_pass_at_once_and_are_paid_for() -> None:
    bucket = TokenBucket(10, 5, clock := Clock())
    assert bucket.take_many(3) == 0
    assert bucket.take_many(3) == 0.1
    clock.now += 0.3
    # More than the burst passes when nothing is spent.
    assert bucket.take_many(100) == 0
    assert bucket.take() == 9.6
    clock.now += 9.6
    assert bucket.take() == 0


def test_some_that_were_taken_before_the_others_are_counted_with_them() -> None:
    bucket = TokenBucket(10, 5, clock := Clock())
    assert bucket.take() == 0
    assert bucket.take_many(5, taken=1) == 0
    # Who waits as long as it says, and takes one before again, passes.
    assert bucket.take() == 0.1
    clock.now += 0.3
    assert bucket.take() == 0
    assert bucket.take_many(5, taken=1) == 0.3
    clock.now += 0.3
    assert bucket.take() == 0
    assert bucket.take_many(5, taken=1) == 0


def test_what_is_owed_stays_owed_when_the_limits_change() -> None:
    bucket = TokenBucket(10, 5, Clock())
    bucket.take_many(100)
    assert bucket.adjusted(10, 50).take() == 5.1
    smaller = TokenBucket(10, 100, Clock())
    smaller.take_many(50)
    # What was free before makes nobody wait for longer than one takes.
    assert smaller.adjusted(10, 5).take() == 0.1


def test_what_can_wait_takes_no_more_than_half_of_what_is_left() -> None:
    bucket = TokenBucket(10, 20, clock := Clock())
    assert bucket.take_spare(3) == 3
    assert bucket.take_spare(100) == 9
    assert [bucket.take_spare(100) for _ in range(5)] == [4, 2, 1, 1, 0]
    assert bucket.take() == 0.1
    clock.now += 1
    # Whoever comes next does not wait for it.
    assert bucket.take_spare(100) == 5
    assert [bucket.take() for _ in range(5)] == [0] * 5
    assert bucket.take_spare(100) == 0


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(1, 40)), max_size=60))
def test_in_the_long_run_nobody_exceeds_the_rate(steps: list[tuple[float, int]]) -> None:
    rate, burst = 10.0, 20
    bucket = TokenBucket(rate, burst, clock := Clock())
    passed, largest = 0, 0
    for pause_s, count in steps:
        clock.now += pause_s
        if not bucket.take_many(count):
            passed += count
            largest = max(largest, count)
    assert passed <= burst + rate * clock.now + largest + 1e-6
