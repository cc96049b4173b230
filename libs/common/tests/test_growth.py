"""Whether what waits grows: in bytes, with what the broker has not delivered yet."""

from __future__ import annotations

from backhaul_common.feed.growth import JUDGED_S, Growth


def reply(pending: int) -> str:
    """Where a message is answered behind which ``pending`` lie for its consumer."""
    return f"$JS.ACK.PARCELS.courier.1.7.7.1700000000000000000.{pending}"


class Watched:
    """A growth that is judged every ``JUDGED_S``."""

    def __init__(self) -> None:
        self._growth = Growth()
        self._now = 100.0
        assert not self._growth.judge(self._now)

    def after(self, came: list[int], taken: int, pending: int = 0) -> bool:
        """Judged after messages of these sizes came, and as many bytes were taken."""
        for size in came:
            self._growth.came(reply(pending), size)
        self._growth.taken(taken)
        self._now += JUDGED_S
        return self._growth.judge(self._now)


def test_it_grows_where_more_comes_than_is_taken() -> None:
    assert Watched().after([100] * 10, 999)
    assert not Watched().after([100] * 10, 1000)
    assert not Watched().after([], 0)


def test_that_it_grows_is_held_to_for_longer_each_time() -> None:
    watched, held = Watched(), []
    for _ in range(8):
        assert watched.after([100] * 10, 999)
        times = 1
        while watched.after([], 5000):
            times += 1
        held.append(times * JUDGED_S)
    assert held == [10, 20, 40, 80, 160, 320, 320, 320]
    # What does not grow for a while is as what never did.
    for _ in range(8):
        assert not watched.after([], 0)
    assert watched.after([100] * 10, 999)
    assert [watched.after([], 0) for _ in range(2)] == [True, False]


def test_messages_do_not_count_but_their_bytes() -> None:
    # A thousand small messages more wait, in place of ten large ones.
    assert not Watched().after([100] * 1000, 10 * 40_000)


def test_a_backlog_that_is_only_delivered_does_not_grow() -> None:
    watched = Watched()
    assert not watched.after([100] * 10, 60_000, pending=500)
    # It was in the stream, and is here now. What is new is much smaller, and makes the mean small.
    assert not watched.after([1000] * 400 + [10] * 3000, 1000, pending=100)
    assert not watched.after([1000] * 100 + [10] * 400, 1000, pending=0)
    # From now on all that comes is new.
    assert not watched.after([10] * 500, 5100, pending=3)
    assert watched.after([10] * 500, 4900, pending=0)


def test_what_the_broker_has_counts_by_the_mean_size() -> None:
    watched = Watched()
    assert not watched.after([100] * 10, 2200, pending=11)
    assert watched.after([100] * 10, 2000, pending=22)


def test_it_is_judged_no_oftener() -> None:
    growth = Growth()
    growth.judge(100.0)
    growth.came(reply(0), 100)
    assert not growth.judge(100.0 + JUDGED_S - 0.1)
    assert growth.judge(100.0 + JUDGED_S)


def test_what_was_taken_back_waits() -> None:
    growth = Growth()
    growth.judge(100.0)
    growth.came(reply(0), 100)
    growth.taken(100)
    growth.taken(-100)
    assert growth.judge(100.0 + JUDGED_S)
