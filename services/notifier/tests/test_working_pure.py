"""What decides when an endpoint is called: the breaker, the pace, the shares, what goes together, and the clock."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from backhaul_common import mongo
from backhaul_notifier.documents import webhook_id
from backhaul_notifier.working.breaker import FAILURES, RESTS_S, Breaker
from backhaul_notifier.working.calls import Queue
from backhaul_notifier.working.clock import ServerClock
from backhaul_notifier.working.pace import CONCURRENCY, Pace
from backhaul_notifier.working.shares import Shares
from calling_rig import delivery
from msgspec.structs import replace

SECOND_US = 1_000_000


def fail(breaker: Breaker, times: int, now_us: int = 0) -> None:
    for _ in range(times):
        breaker.ended(breaker.begun(), failed=True, charged=True, now_us=now_us)


class TestBreaker:
    def test_it_rests_after_failures_in_a_row(self) -> None:
        breaker = Breaker()
        fail(breaker, FAILURES - 1)
        breaker.ended(breaker.begun(), failed=False, charged=True, now_us=0)
        fail(breaker, FAILURES - 1)
        assert breaker.may_call(0)
        assert breaker.probes_at_us == 0
        fail(breaker, 1, now_us=7)
        assert not breaker.may_call(7)
        assert breaker.probes_at_us == 7 + RESTS_S[0] * SECOND_US

    def test_each_rest_is_longer_up_to_the_last(self) -> None:
        breaker, now_us = Breaker(), 0
        fail(breaker, FAILURES)
        for rest_s in (*RESTS_S, RESTS_S[-1], RESTS_S[-1]):
            assert breaker.rest_until_us - now_us == rest_s * SECOND_US
            assert not breaker.may_call(breaker.rest_until_us - 1)
            now_us = breaker.rest_until_us
            assert breaker.may_call(now_us)
            fail(breaker, 1, now_us)

    def test_one_probe_at_a_time_and_its_success_ends_it(self) -> None:
        breaker = Breaker(rest_until_us=5, rests=3)
        turn = breaker.begun()
        assert not breaker.may_call(10)
        assert breaker.probes_at_us == 0
        breaker.ended(turn, failed=False, charged=True, now_us=10)
        assert breaker.may_call(10)
        assert (breaker.rests, breaker.rest_until_us) == (0, 0)
        fail(breaker, FAILURES - 1)
        assert breaker.may_call(10)

    def test_a_probe_that_tells_nothing_is_followed_by_another(self) -> None:
        breaker = Breaker(rest_until_us=5, rests=1)
        breaker.ended(breaker.begun(), failed=True, charged=False, now_us=10)
        assert breaker.may_call(10)
        assert breaker.rests == 1

    def test_what_was_begun_before_a_rest_says_nothing_after_it(self) -> None:
        breaker = Breaker()
        before = [breaker.begun() for _ in range(5)]
        fail(breaker, FAILURES)
        for turn in before:
            breaker.ended(turn, failed=False, charged=True, now_us=0)
        assert (breaker.rests, breaker.may_call(0)) == (1, False)


class TestPace:
    def clocked(self) -> tuple[Pace, list[float]]:
        now = [100.0]
        return Pace(lambda: now[0]), now

    def test_without_a_rate_as_fast_as_it_goes(self) -> None:
        pace, _ = self.clocked()
        assert [pace.take() for _ in range(1000)] == [0.0] * 1000
        assert pace.at_once == CONCURRENCY

    @pytest.mark.parametrize("rate", [1, 7, 20, 1000])
    def test_a_rate_is_kept_in_any_second_but_for_a_twentieth(self, rate: int) -> None:
        pace, now = self.clocked()
        pace.allow(rate, 3)
        assert pace.at_once == 3
        times = []
        while now[0] < 105.0:
            if wait_s := pace.take():
                now[0] += max(wait_s, 1e-6)  # Timers are no finer.
            else:
                times.append(now[0])
        burst = max(1, int(rate * 0.05))
        for place, at in enumerate(times):
            assert sum(at <= one < at + 1.0 - 1e-6 for one in times[place:]) <= rate + burst
        assert len(times) >= 5 * rate

    def test_another_rate_gives_nothing_for_free(self) -> None:
        pace, now = self.clocked()
        pace.allow(10, 0)
        assert pace.take() == 0.0
        assert pace.take() == pytest.approx(0.1)
        pace.allow(20, 0)
        assert pace.take() > 0
        now[0] += 0.0501
        assert pace.take() == 0.0
        pace.allow(0, 0)
        assert pace.take() == 0.0

    def test_who_asks_for_less_is_called_once_a_second_and_one_at_a_time(self) -> None:
        pace, now = self.clocked()
        pace.allow(500, 16)
        pace.slow_down(10.0)
        assert pace.at_once == 1
        # The call that was answered so was this second's.
        assert pace.take() == pytest.approx(1.0)
        now[0] += 1.0
        assert pace.take() == 0.0
        pace.slow_down(3.0)  # Shorter than what it has asked for.
        now[0] += 8.5
        assert pace.at_once == 1
        now[0] += 1.0
        assert (pace.at_once, pace.take()) == (16, 0.0)


class TestShares:
    def taken(self, shares: Shares, tenant: str, endpoint: str) -> int:
        number = 0
        while shares.take(tenant, endpoint, lambda: None):
            number += 1
        return number

    def test_half_is_for_the_next_tenant_and_half_of_a_share_for_the_next_endpoint(self) -> None:
        shares = Shares(120)
        assert self.taken(shares, "a", "a1") == 30
        assert self.taken(shares, "a", "a2") == 20
        assert shares.full() == []
        assert self.taken(shares, "b", "b1") == 20
        assert shares.used == 70
        # With two tenants each has a third: the first has more than that by now, and nobody is cut off.
        assert shares.full() == ["a"]
        assert self.taken(shares, "c", "c1") == 15

    def test_everybody_has_one_while_there_is_any(self) -> None:
        shares = Shares(5)
        assert [shares.take(str(number), "one", lambda: None) for number in range(6)] == [True] * 5 + [False]
        assert not shares.take("0", "another", lambda: None)
        shares.give("3", "one")
        assert shares.take("5", "one", lambda: None)

    def test_who_waits_is_woken_once_when_there_is_room_for_it(self) -> None:
        shares, woken = Shares(8), list[str]()
        for _ in range(2):
            assert shares.take("a", "a1", lambda: None)
        for name in ("a1", "a1"):
            assert not shares.take("a", name, partial(woken.append, name))
        assert shares.take("a", "a2", lambda: None)
        shares.give("a", "a2")
        # Of the first endpoint there are as many as may be still.
        assert woken == []
        shares.give("a", "a1")
        shares.give("a", "a1")
        assert woken == ["a1"]
        assert shares.used == 0

    def test_who_has_no_room_keeps_no_other_of_its_tenant_waiting(self) -> None:
        shares, woken = Shares(8), list[str]()
        for endpoint in ("a1", "a1", "a2", "a3"):
            assert shares.take("a", endpoint, lambda: None)
        for endpoint in ("a1", "a4"):
            assert not shares.take("a", endpoint, partial(woken.append, endpoint))
        shares.give("a", "a3")
        assert woken == ["a4"]

    def test_who_leaves_is_waited_for_by_nobody_and_who_comes_again_is_woken_itself(self) -> None:
        shares, woken = Shares(4), list[str]()
        for endpoint in ("a1", "a2"):
            assert shares.take("a", endpoint, lambda: None)
        for who in ("a3", "a3 again", "a4"):
            assert not shares.take("a", who[:2], partial(woken.append, who))
        shares.leave("a", "a4")
        for endpoint in ("a1", "a2"):
            shares.give("a", endpoint)
        assert woken == ["a3 again"]
        shares.leave("a", "a3")
        shares.leave("b", "b1")


def calls(queue: Queue, now_us: int = 0) -> list[Sequence[Any]]:
    found = []
    while call := queue.next(now_us):
        found.append(call.deliveries)
    return found


class TestQueue:
    def test_one_a_call(self) -> None:
        queue, ones = Queue(), [delivery(number=number) for number in range(3)]
        for one in ones:
            queue.add(one)
        first = queue.next(0)
        assert first is not None
        assert (first.webhook_id, first.new) == (webhook_id(ones[0].id), False)
        queue.put_back(first)
        assert calls(queue) == [(one,) for one in ones]

    def test_several_go_when_they_are_many_or_have_waited(self) -> None:
        queue = Queue()
        queue.allow(3, 10)
        ones = [replace(delivery(number=number), created_at_us=number) for number in range(5)]
        for one in ones:
            queue.add(one)
        first = queue.next(0)
        assert first is not None
        assert first.new
        assert first.webhook_id == webhook_id(first.id)
        assert [one.id for one in first.deliveries] == [one.id for one in ones[:3]]
        assert queue.ripe_at_us == 3 + 10 * SECOND_US
        assert not queue.has_ready(queue.ripe_at_us - 1)
        (rest,) = calls(queue, queue.ripe_at_us)
        assert [one.id for one in rest] == [one.id for one in ones[3:]]
        assert len(queue) == queue.ripe_at_us == 0

    def test_what_is_taken_out_makes_room(self) -> None:
        queue = Queue()
        queue.allow(3, 10)
        for number in range(200):
            queue.add(replace(delivery(number=number), communication_id="sale" if number % 2 else ""))
        assert not queue.has_room
        taken = queue.sift(lambda one: one.communication_id == "sale")
        assert len(taken) == len(queue) == 100
        taken += queue.sift(lambda _: True)
        assert (len(taken), len(queue), queue.has_room, queue.next(1 << 60)) == (200, 0, True, None)

    def test_what_was_tried_alone_goes_alone_again(self) -> None:
        queue = Queue()
        queue.allow(3, 10)
        queue.add(replace(delivery(), attempts=1))
        queue.add(delivery(number=2))
        assert [len(each) for each in calls(queue)] == [1]
        queue.allow(1, 0)
        assert [len(each) for each in calls(queue)] == [1]


async def test_the_clock_is_mongodbs_and_even(mongo_server: Any, mongo_database: str) -> None:
    client = mongo.connect(mongo_server.uri)
    even = [50.0]
    clock = ServerClock(mongo.database(client, mongo_database), lambda: even[0])
    assert clock.now_us() == pytest.approx(time.time() * 1e6, abs=SECOND_US)
    even[0] += 1000.0
    assert clock.now_us() == pytest.approx((time.time() + 1000) * 1e6, abs=SECOND_US)
    await clock.set()
    now_us = clock.now_us()
    assert now_us == pytest.approx(time.time() * 1e6, abs=SECOND_US)
    even[0] += 2.5
    assert clock.now_us() - now_us == 2_500_000
    await mongo.close(client)
