"""The loop: accounts that are due are taken, and their channels asked one after another."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

from backhaul_channels import Adapter
from backhaul_common.errors import BackhaulError
from backhaul_common.leases import LEASE_S, RENEW_S, LostError
from backhaul_common.lifecycle import cancel
from backhaul_common.logs import get_logger
from backhaul_common.metering import Metrics
from backhaul_common.metrics import RECONCILER_ACCOUNTS, RECONCILER_CHANNELS, RECONCILER_LATE_SECONDS
from backhaul_common.outages import Repeated, is_outage

from backhaul_reconciler.accounts import Held, MongoAccounts
from backhaul_reconciler.channels import Channels
from backhaul_reconciler.ledger import MAX_RETRY_AFTER_S, Ledger
from backhaul_reconciler.run import Turns

LOOK_S: Final = 2.0
"""How often is looked for what is due."""

COUNT_S: Final = 15.0
"""How often is counted how it stands with channels: all of them are read for it."""

MAX_HELD: Final = 64
"""Accounts that a copy asks at once."""

HELD_S: Final = 60.0
"""For how long a copy asks an account, while others have no place."""

_REST_S: Final = 5.0
"""For how long this copy leaves an account alone of which it could not store or publish what it found."""


class Asking:
    """Asks for whatever is due, until it is cancelled."""

    def __init__(
        self,
        channels: Channels,
        accounts: MongoAccounts,
        turns: Turns,
        adapters: Mapping[str, Adapter[Any]],
        metrics: Metrics,
        *,
        look_s: float = LOOK_S,
        renew_s: float = RENEW_S,
        most: int = MAX_HELD,
        held_s: float = HELD_S,
    ) -> None:
        """``most`` accounts are asked at once; at most half of these are of providers that did not answer last, so that
        who hangs keeps nobody else from being asked."""
        self._channels = channels
        self._accounts = accounts
        self._turns = turns
        self._adapters = adapters
        self._look_s = look_s
        self._renew_s = renew_s
        self._most = most
        self._held_s = held_s
        self._held: dict[str, asyncio.Task[None]] = {}
        self._waiting: set[str] = set()
        self._crowded = False
        self._resting: dict[str, float] = {}
        self._elsewhere: set[str] = set()
        self._late_s = 0.0
        self._standings: Mapping[str, float] = {}
        self._count_at = 0.0
        self._ended = asyncio.Event()
        self._log = get_logger(component="asking")
        self._away = Repeated("reconciling_interrupted", component="asking")
        metrics.gauge(RECONCILER_LATE_SECONDS, lambda: self._late_s)
        metrics.gauges(RECONCILER_CHANNELS, lambda: self._standings)
        metrics.gauge(RECONCILER_ACCOUNTS, lambda: float(len(self._held)))

    async def run(self) -> None:
        """Ask until cancelled. UNAVAILABLE while MongoDB is away."""
        try:
            while True:
                self._ended.clear()
                await self.look()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._look_s):
                        await self._ended.wait()
        finally:
            await asyncio.gather(*(cancel(task) for task in list(self._held.values())))
            # What was being taken or given back at that moment would stay this copy's until its lease is over.
            with suppress(BackhaulError, TimeoutError):
                async with asyncio.timeout(LEASE_S / 4):
                    await self._accounts.leave()

    async def look(self) -> None:
        """Begin with the accounts that are due and that nobody asks. UNAVAILABLE."""
        await self._channels.sync()
        due = await self._channels.due()
        asked = set(self._held)
        now = asyncio.get_running_loop().time()
        if now >= self._count_at:
            self._standings = await self._channels.standings()
            self._count_at = now + COUNT_S
        self._resting = {account: until for account, until in self._resting.items() if until > now}
        self._elsewhere &= self._resting.keys()
        free = [one for one in due if one.account not in self._held and self._is_to_be_taken(one.account)]
        self._crowded = len(self._held) + len(free) > self._most
        for one in free:
            if len(self._held) >= self._most:
                break
            if one.waiting and len(self._waiting) >= self._most // 2:
                continue
            held = await self._accounts.take(one.account)
            if held is None:
                # Somebody else asks it: not before a look later may it be otherwise.
                self._resting[one.account] = now + self._look_s / 2
                self._elsewhere.add(one.account)
                continue
            task = asyncio.create_task(self._hold(held), name=f"account {one.account}")
            self._held[one.account] = task
            if one.waiting:
                self._waiting.add(one.account)
            task.add_done_callback(partial(self._over, one.account))
        # Of one that is being asked, all channels but one wait for their turn: that is no delay of this service's.
        asked |= self._elsewhere
        self._late_s = max((one.late_s for one in due if one.account not in asked), default=0.0)

    def ledgers(self, held: Held) -> Mapping[str, Ledger]:
        """What may be asked of an account that was just taken."""
        now = held.loop_time()
        puller = self._adapters[held.id.partition("/")[0]].puller
        budgets = puller.budgets if puller is not None else {}
        left = held.left or {}
        # Of one whose holder died, or did not know of a budget, nobody knows how much was asked.
        ledgers = {
            name: Ledger(budget, now, spent=held.epoch > 1, left=left.get(name), left_s=held.left_s)
            for name, budget in budgets.items()
        }
        # More than any provider may ask for is of a clock of MongoDB's that was wrong.
        rest_s = min((held.not_before_us - held.now_us()) / 1_000_000, 2 * MAX_RETRY_AFTER_S)
        if rest_s > 0:
            for ledger in ledgers.values():
                ledger.leave_until(now + rest_s)
        return ledgers

    def _is_to_be_taken(self, account: str) -> bool:
        """One of a provider that only a newer version knows is left to its copies."""
        return account not in self._resting and account.partition("/")[0] in self._adapters

    def _over(self, account: str, task: asyncio.Task[None]) -> None:
        self._held.pop(account, None)
        self._waiting.discard(account)
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._resting[account] = asyncio.get_running_loop().time() + _REST_S
            self._log.error("account_failed", account=account, exc_info=failure)
        self._ended.set()

    async def _hold(self, held: Held) -> None:
        """Ask the account's channels, and hold it meanwhile. It ends when none is due, or the account is lost."""
        ledgers = self.ledgers(held)
        working = asyncio.create_task(self._work(held, ledgers), name=f"asking {held.id}")
        lost = False
        try:
            while not (await asyncio.wait({working}, timeout=self._renew_s))[0]:
                try:
                    await self._accounts.renew(held)
                except LostError:
                    lost = True
                    break
                except Exception as exc:
                    if not is_outage(exc):
                        raise
                if held.loop_time() >= held.works_until:
                    lost = True
                    break
        finally:
            if not working.done():
                await cancel(working)
            if not lost:
                await self._give_back(held, ledgers)
        if not working.cancelled() and (failure := working.exception()) is not None:
            self._failed(held, failure)

    async def _work(self, held: Held, ledgers: Mapping[str, Ledger]) -> None:
        while (row := await self._channels.next_of(held.id, held.now_us())) is not None:
            await self._turns.turn(held, row, ledgers)
            self._away.over()
            if self._crowded and held.loop_time() - held.began >= self._held_s:
                # Whoever has a place next has waited for it: this account is not taken again at once.
                self._resting[held.id] = held.loop_time() + 2 * self._look_s
                return

    async def _give_back(self, held: Held, ledgers: Mapping[str, Ledger]) -> None:
        rest_s = max((ledger.not_before for ledger in ledgers.values()), default=0.0) - held.loop_time()
        not_before_us = held.now_us() + int(rest_s * 1_000_000) if rest_s > 0 else 0
        left = {name: ledger.left(held.loop_time()) for name, ledger in ledgers.items()}
        with suppress(BackhaulError, TimeoutError):  # It is free when the lease is over.
            async with asyncio.timeout(LEASE_S / 4):
                await self._accounts.hand_over(held, not_before_us, left)

    def _failed(self, held: Held, failure: BaseException) -> None:
        self._resting[held.id] = held.loop_time() + _REST_S
        if isinstance(failure, LostError):
            self._log.info("account_lost", account=held.id)
        elif is_outage(failure):
            self._away.warning(repr(failure))
        else:
            self._log.error("account_failed", account=held.id, exc_info=failure)
