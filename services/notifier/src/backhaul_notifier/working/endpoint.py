"""One endpoint that this copy holds: what waits for it is read, called, and told to whoever writes it down."""

from __future__ import annotations

import asyncio
from functools import partial
from operator import attrgetter
from typing import Final

from backhaul_common import mongo
from backhaul_common.errors import BackhaulError
from backhaul_common.leases import LostError
from backhaul_common.names import DELIVERIES_COLLECTION
from backhaul_common.outages import is_outage

from backhaul_notifier.model import Delivery, Subscription
from backhaul_notifier.schedules import LOST, Verdict, decide
from backhaul_notifier.working.aftermath import Aftermath
from backhaul_notifier.working.breaker import Breaker
from backhaul_notifier.working.calls import Call
from backhaul_notifier.working.endpoints import Held, Known
from backhaul_notifier.working.intake import Intake, by_digest
from backhaul_notifier.working.pace import Pace
from backhaul_notifier.working.parts import Parts
from backhaul_notifier.working.results import Result, Unwanted, Written
from backhaul_notifier.working.sources import NEVER
from backhaul_notifier.working.tasks import Tasks

HOLD_S: Final = 30.0
"""For how long an endpoint is held on to when there is nothing more to send."""

CROWDED_HOLD_S: Final = 60.0
"""For how long one is worked while others have no place."""

HANGS_S: Final = 0.5
"""An endpoint whose calls come to no end for so long holds none of the copy's places: its connections bound it."""

STALLS_S: Final = 1.5
"""One that begins none for so long is left while others have no place. The slowest pace is one a second."""

_AGAIN_S: Final = 0.5
_COUNTED: Final = attrgetter("counted")


class Endpoint:
    """``run`` works it; everything else is told to it meanwhile."""

    def __init__(self, parts: Parts, held: Held, subscription: Subscription) -> None:
        self.held = held
        self.aftermath = Aftermath(parts, held)
        self.told_late = False
        """Whether it was told something after its end had begun."""
        self._parts = parts
        self._subscription = subscription
        self._rows = parts.database[DELIVERIES_COLLECTION]
        self._ordering = subscription.definition.ordering
        self._intake = Intake(parts, held, subscription, self._delete)
        self._queue = self._intake.queue
        self._breaker = Breaker(self.aftermath.standing.rest_until_us, self.aftermath.standing.rests)
        self._pace = Pace(lambda: parts.now_us() / 1_000_000, self.aftermath.standing.slow_until_us / 1_000_000)
        self._callers: set[asyncio.Task[None]] = set()
        self._calls = 0
        self._tasks = Tasks(parts.database, parts.endpoints, held, parts.holding)
        self._known = Known.of(held.row)
        self._wake = asyncio.Event()
        self._leaving = False
        self._ending = False
        self._pause_s: float | None = None
        self._failure: BaseException | None = None
        self._reads_at = 0.0
        self._active_at = self._moved_at = held.loop_time()
        self._allow(subscription)

    async def run(self) -> None:
        """Work until there has been nothing to do for a while, or it is not to be worked any more; give it back then.
        Cancelled, it makes and writes nothing more."""
        try:
            while self._goes_on():
                self._wake.clear()
                await self._do_tasks()
                await self._read()
                self._pump()
                if (wait_s := self._wait_s()) <= 0:
                    break
                await self._sleep(wait_s)
            self._ending = True
            while self._callers or self._intake.unwritten:
                self._wake.clear()
                await self._wake.wait()
            if self._failure is not None:
                raise self._failure
            await self._give_back()
        finally:
            self._leaving = True
            for task in self._callers:
                task.cancel()
            await asyncio.gather(*self._callers, return_exceptions=True)
            self._intake.weight.clear()
            self._parts.shares.leave(self._subscription.tenant, self.held.id)

    def told(self, known: Known | None = None) -> None:
        """Something was added to what waits; it stands so with it by now, as far as that is known."""
        if known is not None:
            before, self._known = self._known, known
            if known.told == before.told:
                return
            self._tasks.found(known.tasks)
            if known.restarts != before.restarts:
                self.restart()
        self.told_late = self._ending
        self._intake.source.told()
        self._wake.set()

    def poke(self) -> None:
        """Something may be otherwise than before: the lease, the time, a place for a call."""
        self._wake.set()

    def leave(self) -> None:
        """Begin no further call, and end."""
        self._leaving = True
        self._wake.set()

    def restart(self) -> None:
        """Something older may wait again."""
        self._intake.source.restart()
        self._wake.set()

    def _allow(self, subscription: Subscription) -> None:
        definition = subscription.definition
        self._subscription = subscription
        self._intake.allow(subscription)
        # One mail after the other: what comes while one is sent is of the next.
        at_once = 1 if by_digest(self.held, subscription) else definition.concurrency
        self._pace.allow(definition.rate_per_s, at_once)
        self._queue.sent(self.aftermath.standing.last_success_at_us)

    def _current(self) -> Subscription | None:
        """The subscription as it is now; None where nothing is to be sent by it here."""
        found = self._parts.subscriptions.get(self.held.id)
        if found is None or found.deleted or found.state != "active" or found.definition.ordering != self._ordering:
            return None
        if found is not self._subscription:
            self._allow(found)
            self._tasks.look()  # It may have been resumed at a rate.
        return found

    @property
    def hangs(self) -> bool:
        """Whether it does nothing but wait for its calls."""
        return bool(self._calls) and self.held.loop_time() - self._moved_at > HANGS_S

    @property
    def rests(self) -> bool:
        """Whether it is left alone after failures."""
        return bool(self._breaker.rests)

    def _goes_on(self) -> bool:
        if self._leaving or self._current() is None:
            return False
        if not self._parts.crowded:
            return True
        now = self.held.loop_time()
        waits = not self._calls and (self.rests or now - self._moved_at > STALLS_S)
        return not (waits or now - self.held.began > CROWDED_HOLD_S)

    def _holds(self) -> bool:
        # Who slept sends nothing before it knows whether another copy has taken the endpoint.
        return self.held.loop_time() < self.held.works_until

    def _may_work(self) -> bool:
        return self._holds() and not (self._leaving or self._ending or self._parts.results.stuck)

    def _may_send(self) -> bool:
        return self._may_work() and not self._tasks.first

    async def _do_tasks(self) -> None:
        """Do a page of what is to be sent again; of what is to be done first, all."""
        try:
            while self._tasks.any and self._may_work() and self.held.loop_time() >= self._reads_at:
                await self._intake.hold_back()  # What is older may be released.
                if await self._tasks.page(self._parts.now_us()):
                    self.restart()
                if not (self._tasks.first and self._goes_on()):
                    return
        except LostError:
            self.leave()
        except BackhaulError as exc:
            self._put_off(exc)

    def _put_off(self, failure: BackhaulError) -> None:
        """Read again later, where ``failure`` is an outage."""
        if not is_outage(failure):
            raise failure
        self._parts.away.warning(repr(failure))
        self._reads_at = self.held.loop_time() + _AGAIN_S

    async def _read(self) -> None:
        if not self._may_send() or self.held.loop_time() < self._reads_at:
            return
        try:
            await self._intake.read(self._parts.now_us())
        except LostError:
            self.leave()
        except BackhaulError as exc:
            self._put_off(exc)
        else:
            self._parts.away.over()

    def _delete(self, delivery: Delivery) -> None:
        self._parts.results.add(Unwanted(delivery, self.held, self._written))

    def _pump(self) -> None:
        """Begin as many calls as may be."""
        while (begun := self._next()) is not None:
            task = asyncio.create_task(self._make(*begun))
            self._callers.add(task)
            task.add_done_callback(self._over)

    def _next(self) -> tuple[Call, int] | None:
        """A call that begins now, and its turn of the breaker; else ``_pause_s`` says when one may, if time does."""
        self._pause_s = None
        if not self._may_send():
            self._pause_s = _AGAIN_S
            return None
        if self._intake.sift():
            self._wake.set()
        now_us, shares = self._parts.now_us(), self._parts.shares
        if self._calls >= self._pace.at_once or not self._queue.has_ready(now_us):
            return None
        if not self._breaker.may_call(now_us):
            if self._breaker.probes_at_us:
                self._pause_s = (self._breaker.probes_at_us - now_us) / 1_000_000
        elif self._current() is None or self._tasks.first:
            self._wake.set()
        elif not shares.take(self._subscription.tenant, self.held.id, self.poke):
            self._pause_s = 1.0
        elif pause_s := self._pace.take():
            shares.give(self._subscription.tenant, self.held.id)
            self._pause_s = pause_s
        elif (call := self._queue.next(now_us)) is not None:
            self._calls += 1
            self._moved_at = self.held.loop_time()
            return call, self._breaker.begun()
        return None

    async def _make(self, call: Call, turn: int) -> None:
        """Make ``call``, and then one after the other what begins in its place: a task for each would cost more."""
        begun: tuple[Call, int] | None = (call, turn)
        while begun is not None:
            await self._call(*begun)
            begun = self._end()

    def _end(self) -> tuple[Call, int] | None:
        """A call has ended. The one that begins in its place."""
        self._calls -= 1
        self._parts.shares.give(self._subscription.tenant, self.held.id)
        self._active_at = self._moved_at = self.held.loop_time()
        begun = None if self._ending or self._leaving else self._next()
        if begun is not None and self._calls < self._pace.at_once:
            self._pump()
        if begun is None or self._pause_s is not None or not self._queue or self._intake.wants(self._parts.now_us()):
            self._wake.set()
        return begun

    def _over(self, task: asyncio.Task[None]) -> None:
        self._callers.discard(task)
        if task.cancelled() or task.exception() is not None:
            self._failure = None if task.cancelled() else task.exception()
            self.leave()
            self._end()
        self._wake.set()

    def _wait_s(self) -> float:
        """For how long there is nothing to do, unless something is told; 0: for so long that it is given back."""
        now_us, now = self._parts.now_us(), self.held.loop_time()
        if not self._may_work():
            return _AGAIN_S
        if self._tasks.any:
            return max(0.001, self._reads_at - now)
        waits = []
        if self._pause_s is not None:
            waits.append(self._pause_s)
        if self._queue.ripe_at_us > now_us:
            waits.append((self._queue.ripe_at_us - now_us) / 1_000_000)
        if (next_us := self._intake.next_at_us) != NEVER:
            waits.append(max((next_us - now_us) / 1_000_000, self._reads_at - now))
        if not (self._calls or self._intake.unwritten or self._intake.stuck or self._is_soon(now_us)):
            hold_s = 0.0 if self._parts.crowded else self._parts.hold_s
            idle_s = self._active_at + hold_s - now
            if idle_s <= 0 and min(waits, default=1.0) > 0:
                return 0.0
            waits.append(idle_s)
        # What is late is looked at in the next turn of the loop, and what cannot be read yet a little later.
        return max(0.001, min(waits, default=_AGAIN_S * 10))

    def _is_soon(self, now_us: int) -> bool:
        """Whether something is to be sent in a time for which the endpoint is held on to."""
        return bool(self._queue) and self._queue.has_ready(now_us + round(self._parts.hold_s * 1_000_000))

    async def _sleep(self, seconds: float) -> None:
        timer = asyncio.get_running_loop().call_later(seconds, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    async def _call(self, call: Call, turn: int) -> None:
        parts, subscription = self._parts, None
        try:
            if not call.new or await self.aftermath.until_done(partial(self._write_call, call)):
                subscription = self._current()
        except LostError:
            self.leave()
        if subscription is None or not self._holds() or self._intake.is_any_held_back(call.deliveries):
            self._breaker.ended(turn, failed=True, charged=False, now_us=0)
            self._intake.put_back(call)
            return
        attempted = await parts.attempts.make(self.held, subscription, call, self._holds)
        now_us = parts.now_us()
        # A mail may hold what an application was to be told before, and was tried: what was tried least counts.
        least = min(call.deliveries, key=_COUNTED)
        decision = decide(
            subscription.policy,
            least.counted + 1,
            attempted.outcome,
            # Of one that is lost the pause is counted from its beginning: nothing else is known of it.
            attempted.at_us if attempted.outcome.error == LOST else now_us,
            parts.chance(),
            our_failures=least.ours,
            sentence=attempted.text,
        )
        failed = decision.verdict is not Verdict.SUCCEEDED
        self._breaker.ended(turn, failed=failed, charged=decision.charged, now_us=now_us)
        if decision.throttle_s:
            self._pace.slow_down(decision.throttle_s)
        if decision.charged:
            self.aftermath.note(decision, self._breaker, now_us, failed=failed)
            self._queue.sent(self.aftermath.standing.last_success_at_us)
        # Before it is written down: whoever dies in between makes the attempt again, and disables then.
        if not self._leaving or decision.disables:
            await self.aftermath.follow(subscription, call, decision, now_us, self.leave)
        self._intake.unwritten += len(call.deliveries)
        days = parts.days(subscription.registration)
        for one in call.deliveries:
            parts.results.add(Result(one, attempted, decision, now_us, days, self.held, self._written))

    async def _write_call(self, call: Call) -> None:
        """Write down that its deliveries go together, and from now on fall due together. LostError where another copy
        has said of some what they go with; UNAVAILABLE."""
        ids = [one.id for one in call.deliveries]
        query = {"_id": {"$in": ids}, "state": "waiting", "call": {"$in": [None, call.id]}}
        change = {"$set": {"call": call.id, "due_at_us": self._parts.now_us()}}
        async with mongo.operation():
            written = await self._rows.update_many(query, change)
        if written.matched_count < len(ids):
            raise LostError

    def _written(self, result: Written, unsure: bool) -> None:
        self._intake.unwritten -= 1
        self._active_at = self.held.loop_time()
        self._intake.source.ended(result.delivery, result.retry_at_us)
        if isinstance(result, Result) and not result.retry_at_us:
            outcome = "delivered" if result.decision.verdict is Verdict.SUCCEEDED else "failed"
            self._parts.counts.ended.add(self._subscription.tenant, outcome)
        if unsure:
            # It may have been sent again meanwhile, and was passed over for being under way.
            self.restart()
        # With the last one it begins to be idle, which has its time.
        at_rest = not self._intake.unwritten
        if self._ending or result.retry_at_us or at_rest or self._intake.wants(self._parts.now_us()):
            self._wake.set()

    async def _give_back(self) -> None:
        """Let other copies have it, with the time at which there is something to send."""
        try:
            row = await self._parts.endpoints.row(self.held.id)
            if row is None:
                return
            now_us = self._parts.now_us()
            # What is told after this look keeps its own time.
            left = await self._intake.left(now_us) or row.get("tasks")
            next_us = now_us if left else max(now_us, self._intake.falls_due_us)
            due_at_us = next_us if next_us != NEVER else None
            await self._parts.endpoints.hand_over(self.held, self.aftermath.standing, row.get("told", 0), due_at_us)
        except BackhaulError as exc:  # It is free when the lease is over.
            if not is_outage(exc):
                raise
            self._parts.away.warning(repr(exc))
