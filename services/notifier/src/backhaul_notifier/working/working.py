"""The copy: endpoints that have something to send are found, taken, held together, and given back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from backhaul_common import mongo
from backhaul_common.errors import BackhaulError
from backhaul_common.leases import LEASE_S, RENEW_S
from backhaul_common.lifecycle import cancel
from backhaul_common.logs import get_logger
from backhaul_common.names import DELIVERIES_DUE_SUBJECT, LOOK_MARK
from backhaul_common.outages import Repeated, is_outage
from backhaul_common.revisioned import Directory
from nats.aio.client import Client
from nats.aio.msg import Msg

from backhaul_notifier.holding.holding import Holding
from backhaul_notifier.holding.switches import Switched
from backhaul_notifier.ports import Caller, Communications, Subscriptions
from backhaul_notifier.working.attempts import Attempts
from backhaul_notifier.working.clock import ServerClock
from backhaul_notifier.working.counts import Counts, Watching
from backhaul_notifier.working.endpoint import HANGS_S, HOLD_S, Endpoint
from backhaul_notifier.working.endpoints import Held, MongoEndpoints
from backhaul_notifier.working.parts import Parts
from backhaul_notifier.working.results import Results
from backhaul_notifier.working.shares import Shares
from backhaul_notifier.working.weight import Memory

LOOK_S: Final = 2.0
"""How often is looked for what is due."""

MAX_HELD: Final = 1_000
"""Endpoints that a copy works at once, beside those that hang: of these there are no more than connections."""

STOP_S: Final = 5.0
"""For how long calls that are under way may go on when the copy is to end."""

_REST_S: Final = 5.0
_TAKEN_AT_ONCE: Final = 32


class Working:
    """Works endpoints until it is cancelled; ``stop`` before that lets what is under way come to its end."""

    def __init__(
        self,
        database: mongo.Database,
        owner: str,
        caller: Caller,
        subscriptions: Subscriptions,
        communications: Communications,
        switched: Directory[Switched],
        counts: Counts,
        *,
        connections: int,
        days: Callable[[str], float],
        pause_after_s: float,
        look_s: float = LOOK_S,
        renew_s: float = RENEW_S,
        hold_s: float = HOLD_S,
        most: int = MAX_HELD,
        memory: Memory | None = None,
        now_us: Callable[[], int] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """``owner`` names this copy, and no other one. ``connections`` are the door's. ``days`` says of a registration
        for how long it keeps what has ended, ``pause_after_s`` for how long an endpoint fails before its subscription
        is paused. ``now_us`` is the time, by MongoDB's clock where none is given."""
        self._endpoints = MongoEndpoints(database, owner)
        self._clock = ServerClock(database)
        self._now_us = now_us or self._clock.now_us
        self._results = Results(database, self._endpoints)
        self._attempts = Attempts(database, caller, counts, self._now_us)
        self._away = Repeated("working_interrupted", component="working")
        self._parts = Parts(
            database=database,
            endpoints=self._endpoints,
            attempts=self._attempts,
            subscriptions=subscriptions,
            communications=communications,
            holding=Holding(database, switched, self._endpoints),
            results=self._results,
            shares=Shares(connections),
            memory=memory or Memory(),
            counts=counts,
            now_us=self._now_us,
            days=days,
            chance=chance,
            pause_after_us=int(pause_after_s * 1_000_000),
            hold_s=hold_s,
            away=self._away,
        )
        self._watching = Watching(database, counts, self._now_us)
        self._subscriptions = subscriptions
        self._look_s = look_s
        self._renew_s = renew_s
        self._most = most
        self._held: dict[str, Endpoint] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._woken: set[str] = set()
        self._changed: set[str] = set()
        self._look_soon = asyncio.Event()
        self._resting: dict[str, float] = {}
        self._stopping = False
        self._followed: Client | None = None
        self._log = get_logger(component="working")

    @property
    def held(self) -> int:
        """How many endpoints are worked."""
        return len(self._held)

    @property
    def _free(self) -> int:
        """How many more may be worked."""
        return max(0, self._most - sum(not one.hangs for one in self._held.values()))

    async def follow(self, client: Client) -> None:
        """Hear over ``client`` of what is added to what waits. To be called after each connection."""
        if self._followed is not client:
            await client.subscribe(DELIVERIES_DUE_SUBJECT, cb=self._heard)
            self._followed = client
        await client.flush()

    async def run(self) -> None:
        """Work until cancelled."""
        parts = {
            "results": self._results.run(),
            "attempts": self._attempts.run(),
            "keep": self._keep(),
            "seek": self._seek(),
            "watch": self._watching.run(),
        }
        running = [asyncio.create_task(part, name=f"working {name}") for name, part in parts.items()]
        try:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in running:
                if task.done():
                    task.result()
        finally:
            await asyncio.gather(*(cancel(task) for task in [*running, *self._tasks.values()]))
            # What was being taken or given back at that moment would stay this copy's until its lease is over.
            with suppress(BackhaulError, TimeoutError):
                async with asyncio.timeout(LEASE_S / 4):
                    await self._endpoints.leave()

    async def stop(self, within_s: float = STOP_S) -> None:
        """Begin nothing more, and give back what is held; what is under way may take ``within_s``."""
        self._stopping = True
        for endpoint in self._held.values():
            endpoint.leave()
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=within_s)

    async def look(self) -> None:
        """Find what is due, and take what is free of it. UNAVAILABLE."""
        await self._clock.set()
        await self._tell(self._held)
        self._woken.clear()
        self._changed.clear()
        free = self._free
        # Who has no connection left for them needs no place for more endpoints.
        full = self._parts.shares.full()
        due = await self._endpoints.due(self._now_us(), free + 1, without=self._held, not_of=full)
        self._parts.crowded = len(due) > free
        if self._parts.crowded:
            for endpoint in self._held.values():
                endpoint.poke()
        await self._take(due[:free])
        self._show()

    def _show(self) -> None:
        """How much is done now."""
        working = list(self._held.values())
        hanging = sum(one.hangs for one in working)
        resting = sum(one.rests and not one.hangs for one in working)
        counts = self._parts.counts
        counts.held = {"working": len(working) - hanging - resting, "hanging": hanging, "resting": resting}
        counts.calls = self._parts.shares.used

    def wake(self) -> None:
        """Time has passed otherwise than by itself."""
        for endpoint in self._held.values():
            endpoint.poke()
        self._look_soon.set()

    async def _heard(self, message: Msg) -> None:
        for said in message.data.decode().split():
            changed, id_ = said.endswith(LOOK_MARK), said.removesuffix(LOOK_MARK)
            endpoint = self._held.get(id_)
            if endpoint is None:
                self._woken.add(id_)
            elif changed:
                self._changed.add(id_)
            else:
                endpoint.told()
        if self._woken or self._changed:
            self._look_soon.set()

    async def _tell(self, ids: Collection[str]) -> None:
        """Tell those of ``ids`` that are held what their documents say."""
        known = await self._endpoints.known(ids) if ids else {}
        for id_, one in known.items():
            if id_ in self._held:
                self._held[id_].told(one)

    async def _seek(self) -> None:
        loop = asyncio.get_running_loop()
        look_at = loop.time()
        while True:
            try:
                if loop.time() >= look_at or not (self._woken or self._changed):
                    look_at = loop.time() + self._look_s
                    await self.look()
                else:
                    changed, self._changed = self._changed, set()
                    await self._tell(changed)
                    woken, self._woken = self._woken, set()
                    if woken and self._free:
                        await self._take(await self._endpoints.due_among(woken, self._now_us()))
                self._away.over()
            except Exception as exc:
                if not is_outage(exc):
                    raise
                self._away.warning(repr(exc))
                look_at = loop.time() + self._look_s
            if self._parts.crowded:
                # Those that hang give way as soon as it shows.
                look_at = min(look_at, loop.time() + HANGS_S)
            self._look_soon.clear()
            if not (self._woken or self._changed):
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(look_at):
                        await self._look_soon.wait()

    async def _take(self, ids: Sequence[str]) -> None:
        now = asyncio.get_running_loop().time()
        self._resting = {id_: until for id_, until in self._resting.items() if until > now}
        wanted = [id_ for id_ in ids if id_ not in self._held and id_ not in self._resting and self._is_served(id_)]
        for place in range(0, len(wanted), _TAKEN_AT_ONCE):
            some = wanted[place : place + _TAKEN_AT_ONCE]
            taken = await asyncio.gather(*map(self._endpoints.take, some), return_exceptions=True)
            failures = [one for one in taken if isinstance(one, BaseException)]
            for held in taken:
                if isinstance(held, Held):
                    self._work(held)
            if failures:
                raise failures[0]

    def _is_served(self, id_: str) -> bool:
        found = self._subscriptions.get(id_)
        return not self._stopping and found is not None and not found.deleted and found.state == "active"

    def _work(self, held: Held) -> None:
        subscription = self._subscriptions.get(held.id)
        if subscription is None:
            return
        endpoint = Endpoint(self._parts, held, subscription)
        if self._stopping:
            endpoint.leave()
        self._held[held.id] = endpoint
        task = asyncio.create_task(endpoint.run(), name=f"endpoint {held.id}")
        self._tasks[held.id] = task
        task.add_done_callback(partial(self._over, endpoint))

    def _over(self, endpoint: Endpoint, task: asyncio.Task[None]) -> None:
        id_ = endpoint.held.id
        del self._held[id_], self._tasks[id_]
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._resting[id_] = asyncio.get_running_loop().time() + _REST_S
            self._log.error("endpoint_failed", endpoint=id_, exc_info=failure)
        elif endpoint.told_late:
            self._woken.add(id_)
        if self._woken or self._parts.crowded:
            self._look_soon.set()

    async def _keep(self) -> None:
        """Renew the leases, and write down how it stands with their endpoints."""
        while True:
            await asyncio.sleep(self._renew_s)
            working = list(self._held.values())
            try:
                lost = {held.id for held in await self._endpoints.renew_all([one.held for one in working])}
                for one in working:
                    if one.held.id in lost and (task := self._tasks.get(one.held.id)) is not None:
                        self._log.info("endpoint_lost", endpoint=one.held.id)
                        task.cancel()
                await self._note([one for one in working if one.held.id not in lost])
            except Exception as exc:
                if not is_outage(exc):
                    raise
                self._away.warning(repr(exc))

    async def _note(self, working: Sequence[Endpoint]) -> None:
        """Write down how it stands with those of which it has changed. UNAVAILABLE: they are written next time."""
        changed = [one for one in working if not one.aftermath.noted]
        # Before: what changes while this is written is written next time.
        for one in changed:
            one.aftermath.noted = True
        try:
            await self._endpoints.note({one.held.id: (one.held, one.aftermath.standing) for one in changed})
        except BaseException:
            for one in changed:
                one.aftermath.noted = False
            raise
