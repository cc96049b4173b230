"""Who works replays: any copy, a page at a time, and each page under the replay's lease.

After a page the replay is given back with what it found, so copies take turns, and so do tenants. A copy that dies
keeps what it held for as long as a lease lasts; another one then does that page again.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import suppress

from backhaul_common.errors import BackhaulError
from backhaul_common.logs import get_logger
from backhaul_common.metering import Counter as Metric
from backhaul_common.outages import is_outage

from backhaul_normalizer.ports import KnownTenants
from backhaul_normalizer.replays.callbacks import CallbackPages
from backhaul_normalizer.replays.held import Held, MongoHeld, Page
from backhaul_normalizer.replays.letters import LetterPages
from backhaul_normalizer.replays.tasks import settles

LOOK_S = 2.0
"""How often every copy looks for replays, beside whenever one is begun here."""

REST = 1.0
"""For how much of the time that a page took the next one waits: what comes in takes the other half."""

MAX_TRIES = 3
"""How often a page is tried that fails for a reason which waiting does not mend."""


class Working:
    """Works all replays that nobody else holds."""

    def __init__(
        self, tenants: KnownTenants, leases: MongoHeld, callbacks: CallbackPages, letters: LetterPages, read: Metric
    ) -> None:
        self._tenants = tenants
        self._leases = leases
        self._callbacks = callbacks
        self._letters = letters
        self._read = read
        self._failures: Counter[str] = Counter()
        self._changed = asyncio.Event()
        self._log = get_logger(component="replays")

    def changed(self) -> None:
        """There is something to be worked."""
        self._changed.set()

    async def run(self) -> None:
        """Work until cancelled. UNAVAILABLE when MongoDB or JetStream is away."""
        try:
            while True:
                self._changed.clear()
                while not (rest_s := await self.round()):
                    pass
                with suppress(TimeoutError):
                    async with asyncio.timeout(rest_s):
                        await self._changed.wait()
        finally:
            with suppress(BackhaulError):
                await self._leases.leave()

    async def round(self) -> float:
        """A page of each replay that nobody else holds, and whose rate lets it. In how many seconds there may be
        another one; 0: at once. UNAVAILABLE, when all had their turn."""
        worked, away = False, None
        turns, rest_s = await self._leases.waiting()
        for id_ in turns:
            held = await self._leases.take(id_)
            if held is None:
                continue
            began = time.perf_counter()
            if "open_since_us" not in held.row:
                await self._leases.give_back(held, {})
                continue
            try:
                worked |= await self._work(held)
            except Exception as exc:
                if not is_outage(exc):
                    raise
                away = exc
            await asyncio.sleep((time.perf_counter() - began) * REST)
        if away is not None:
            raise away
        return 0.0 if worked else min(LOOK_S, LOOK_S if rest_s is None else rest_s)

    async def _work(self, held: Held) -> bool:
        """A page of it. Whether there may be more to do at once."""
        row, began = held.row, time.perf_counter()
        # Of dead letters that were sent through it is counted to the end what became of them.
        if row["state"] == "cancelled" and not row["unpublished"] and not settles(row):
            await self._leases.close(held)
            return False
        # By settings that are at least as new as the request.
        tenant = await self._tenants.reload(row["tenant"])
        if tenant is None or tenant.registration != row["registration"]:
            await self._leases.stop(held, "The tenant is gone.")
            return False
        try:
            if row["kind"] != "callbacks":
                page = await self._letters.page(held, tenant)
            elif row["channel"] not in tenant.channels:
                await self._leases.stop(held, "The tenant has no such channel any more.")
                return False
            elif tenant.channels[row["channel"]].processing == "held":
                await self._leases.wait(held, "The channel's callbacks are held.")
                return False
            else:
                page = await self._callbacks.page(held, tenant)
        except Exception as exc:
            if is_outage(exc):
                raise
            await self._failed(held, exc)
            return False
        took_s = time.perf_counter() - began
        # A dry run tells by the counts how long the rate has it take.
        rate = 0 if row["dry_run"] else row.get("rate_per_s", 0)
        page.took_s = took_s * (1 + REST)
        if rate:
            page.rest_s = max(0.0, page.counts["callbacks"] / rate - took_s)
        await self._leases.found(held, page)
        self._failures.pop(held.id, None)
        self._said(held, page)
        return True

    async def _failed(self, held: Held, exc: Exception) -> None:
        row = held.row
        self._log.error("replay_failed", tenant=row["tenant"], replay_id=held.id, exc_info=exc)
        self._failures[held.id] += 1
        if self._failures[held.id] < MAX_TRIES:
            await self._leases.give_back(held, {})
        else:
            del self._failures[held.id]
            await self._leases.stop(held, f"It failed: {type(exc).__name__}.")

    def _said(self, held: Held, page: Page) -> None:
        row = held.row
        count = page.counts["callbacks" if row["kind"] == "callbacks" else "dead_letters"]
        # What was refused again is taken off what was counted as closed.
        self._read.add(row["tenant"], amount=max(0, count))
        if page.done:
            self._log.info("replay_done", tenant=row["tenant"], replay_id=held.id, kind=row["kind"])
