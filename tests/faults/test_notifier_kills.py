"""kill -9 around the notifier while it delivers, and a copy that sleeps across its lease: nothing is lost, only that
comes again which at-least-once allows, and each message's events come in their order."""

from __future__ import annotations

import time

import pytest
from backhaul_testing.waiting import until
from faults.receivers import COPIES, LEASE_S, TAKES_S, Notified, tenants_of
from simulators.load import Load

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

CALLS = 100
"""That are made before and after each fault."""


@pytest.mark.parametrize("victim", ["a copy", "nats", "mongod"])
async def test_what_was_answered_is_told_after_a_kill(notified: Notified, victim: str) -> None:
    stack, receivers = notified.stack, notified.receivers
    places = await notified.places()
    async with Load(tenants_of(places), connections=4) as load:
        await receivers.more(CALLS)
        copy = await receivers.busy(places[0].path)
        killed = copy if victim == "a copy" else victim
        stack.member(killed).kill_blocking()
        at = time.monotonic()
        receivers.takes_s = TAKES_S
        if victim == "a copy":
            await notified.let_go(copy, places)
            # The other one goes on.
            await receivers.more(CALLS // 2, places[0].path)
        else:
            await load.more(20)
        again_at = time.monotonic()
        await stack.member(killed).start()
        away_s = time.monotonic() - at
        await receivers.more(CALLS)
    doubles = await notified.settle(load, places)
    if victim == "a copy":
        assert doubles, "no kill hit a call"
        receivers.require_cut(doubles, copy, at, again_at)
    elif away_s < LEASE_S / 2:
        # Who lives forgets nothing.
        assert not doubles


async def test_a_call_that_a_kill_cut_off_is_in_the_history(notified: Notified) -> None:
    stack, receivers = notified.stack, notified.receivers
    places = await notified.places(("ordered",))
    place = places[0]
    async with Load(tenants_of(places), connections=2) as load:
        await receivers.more(CALLS)
        receivers.holds = place.path
        await notified.until_written_down(place)
        copy = receivers.of(place.path)[-1].copy
        stack.member(copy).kill_blocking()
        receivers.holds = ""
        await notified.let_go(copy, places)
        await stack.member(copy).start()
        await receivers.more(CALLS // 2, place.path)
    await notified.settle(load, places)
    cut = {call.headers["webhook-id"] for call in receivers.held}
    asked = place.tenant.client.deliveries.list(subscription_id=place.subscription.id, history=True)
    histories = [one.history async for one in asked if one.webhook_id in cut]
    lost = [one for one in histories if "lost" in [attempt.error for attempt in one]]
    assert lost, f"of those that were cut off, none shows it: {histories}"
    for history in lost:
        assert [one.number for one in history] == list(range(1, len(history) + 1))
        assert history[-1].status == 200


async def test_a_copy_that_sleeps_across_its_lease_makes_no_stale_call(notified: Notified) -> None:
    stack, receivers = notified.stack, notified.receivers
    places = await notified.places()
    path = places[0].path
    async with Load(tenants_of(places), connections=2) as load:
        await receivers.more(CALLS)
        receivers.holds = path

        async def some_held() -> bool:
            return len(receivers.held) >= 2

        await until("calls that hang", some_held)
        sleeper = receivers.of(path)[-1].copy
        (other,) = set(COPIES) - {sleeper}
        stack.member(sleeper).pause()
        at = time.monotonic()
        receivers.holds = ""
        held = {call.headers["webhook-id"] for call in receivers.held}

        async def told_by_the_other() -> bool:
            return held <= {call.webhook_id for call in receivers.of(path, other) if call.ended}

        await until("the other copy to tell what hung", told_by_the_other, within_s=LEASE_S * 2)
        assert time.monotonic() - at > LEASE_S / 2, "it was taken from a copy that held it"
        await receivers.more(20, path, other)
        taken = {place.path for place in places if receivers.of(place.path)[-1].copy == other}
        # Its connections end, as whoever is not heard of finds them: what was begun on one must not be begun again.
        for call in receivers.held:
            call.reset()
        stack.member(sleeper).resume()
        resumed = time.monotonic()
        await receivers.more(CALLS // 2, path)
    doubles = await notified.settle(load, places)
    stale = [call for call in receivers.calls if call.copy == sleeper and call.began > resumed and call.path in taken]
    # One call at most is between the last look at the lease and the socket.
    assert len({call.webhook_id for call in stale}) <= 1, f"calls of a copy that had lost the endpoint: {stale}"
    receivers.require_cut(doubles, sleeper, at, resumed)
