"""What follows from an attempt beside its delivery: how it stands with the endpoint, and what is switched off."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from backhaul_common.errors import BackhaulError
from backhaul_common.outages import is_outage
from backhaul_common.pauses import pauses

from backhaul_notifier.model import Subscription
from backhaul_notifier.schedules import Decision, Disables
from backhaul_notifier.working.breaker import Breaker
from backhaul_notifier.working.calls import Call
from backhaul_notifier.working.endpoints import MAX_LAST_FAILURE, Held, Standing
from backhaul_notifier.working.parts import Parts


class Aftermath:
    """That of one endpoint's attempts. ``noted``: its standing is written down as it is."""

    def __init__(self, parts: Parts, held: Held) -> None:
        self._parts = parts
        self._held = held
        self.standing = Standing.of(held.row)
        self.noted = True

    def note(self, decision: Decision, breaker: Breaker, now_us: int, *, failed: bool) -> None:
        """An attempt has told something of the endpoint."""
        standing = self.standing
        if failed:
            standing.failing_since_us = standing.failing_since_us or now_us
            standing.last_failure_at_us = now_us
            standing.last_failure = decision.happened[:MAX_LAST_FAILURE]
        else:
            standing.failing_since_us = 0
            standing.last_success_at_us = now_us
        standing.rests, standing.rest_until_us = breaker.rests, breaker.rest_until_us
        if decision.throttle_s:
            slow_until_us = now_us + round(decision.throttle_s * 1_000_000)
            standing.slow_until_us = max(standing.slow_until_us, slow_until_us)
        self.noted = False

    async def follow(
        self, subscription: Subscription, call: Call, decision: Decision, now_us: int, leave: Callable[[], None]
    ) -> None:
        """Disable or pause what the decision says. ``leave`` has the endpoint begin no further call."""
        parts = self._parts
        if decision.disables is Disables.COMMUNICATION:
            for one in call.deliveries:
                await self.until_done(partial(parts.communications.disable, subscription, one, decision.text))
        elif decision.disables is Disables.SUBSCRIPTION:
            await self.until_done(partial(parts.subscriptions.disable, subscription, decision.text))
            leave()
        elif decision.charged and self._has_failed_for_too_long(subscription, now_us):
            leave()
            text = f"Its endpoint has only failed for too long. The last time: {decision.happened}"
            await self.until_done(partial(parts.subscriptions.pause, subscription, text))

    async def until_done(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Do ``work``, however often that takes. False: the endpoint may be another copy's by now."""
        for pause_s in pauses(0.1, 2.0):
            try:
                await work()
            except BackhaulError as exc:
                # Also what is no outage: whoever gave up here would make the attempt once more, and then for ever.
                say = self._parts.away.warning if is_outage(exc) else self._parts.away.error
                say(repr(exc))
            else:
                return True
            await asyncio.sleep(pause_s)
            if self._held.loop_time() >= self._held.until:
                return False
        return False  # pragma: no cover  # pauses do not end

    def _has_failed_for_too_long(self, subscription: Subscription, now_us: int) -> bool:
        # Whoever has it resumed gives it the whole time again.
        since_us = max(self.standing.failing_since_us, subscription.state_since_us)
        return bool(self.standing.failing_since_us) and now_us - since_us > self._parts.pause_after_us
