"""The overdraft: what a tenant sends over its rate or its share of the log, or while it is suspended, is held on this
gateway's disk within bounds, and stored when that may be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final, NamedTuple

from backhaul_common.errors import BackhaulError, Code

from backhaul_gateway.admission.room import CallbackRoom
from backhaul_gateway.admission.state import TenantStates
from backhaul_gateway.spool.file import Kept
from backhaul_gateway.spool.onward import Onward
from backhaul_gateway.spool.shares import path_in
from backhaul_gateway.spool.spool import Spool

AT_ONCE: Final = 256
_MOST_BYTES: Final = 4 << 20
"""Of what is held, so much is on its way at once, and goes among what comes meanwhile."""
PAUSE_S: Final = 0.5
LONG_PAUSE_S: Final = 5.0


class Bounds(NamedTuple):
    """Of a tenant's overdraft; ``callbacks`` of one that has no limit of its own. While the oldest is held for longer
    than ``age_s``, nothing more is; what is stays."""

    callbacks: int
    bytes: int
    age_s: float


class Overdraft:
    """See the module. What is held goes on in its order, channel by channel, in what its tenant's rate leaves."""

    def __init__(self, spool: Spool, bounds: Bounds, onward: Onward, states: TenantStates, room: CallbackRoom) -> None:
        self.spool = spool
        self.bounds = bounds
        self._onward = onward
        self._states = states
        self._room = room

    def admits(self, path: str, size: int) -> bool:
        """Whether a callback of about ``size`` bytes may be held under a queue path's key."""
        return not self.full(path, size)

    def full(self, path: str, size: int = 0) -> str:
        """Why no callback of about ``size`` bytes may be held under a queue path's key; empty where one may."""
        held, most = self.spool.of(path), self.bounds
        if held.callbacks >= self.most(path):
            return f"{held.callbacks} callbacks are held."
        if held.bytes + size > most.bytes:
            return f"{held.bytes} bytes are held."
        if held.callbacks and time.time() - held.since_us / 1e6 > most.age_s:
            return "The oldest callback has been held for too long."
        return "" if self.spool.shares.admits(path, size) else "There is no room left to hold callbacks in."

    def most(self, path: str) -> int:
        """How many callbacks may be held under a queue path's key."""
        state = self._states.by_path().get(path)
        own = state.tenant.limits.overdraft_callbacks if state is not None else None
        return self.bounds.callbacks if own is None else own

    async def hold(self, subject: str, callback_id: str, encoded: bytes, traceparent: str) -> bool:
        """Whether the callback lies on the disk; else it has no room there, or the disk does not take it."""
        if not self.admits(path_in(subject), Kept(subject, callback_id, traceparent, 0, encoded).size):
            return False
        try:
            await self.spool.put(subject, callback_id, encoded, traceparent)
        except BackhaulError as exc:
            if exc.code is not Code.UNAVAILABLE:
                raise
            return False
        return True

    async def run(self) -> None:
        """Store what is held, until cancelled."""
        while True:
            await self.spool.some.wait()
            try:
                went = await self._go_through()
            except BackhaulError:
                went = False  # The disk has trouble, of which it tells.
            await asyncio.sleep(PAUSE_S if went else LONG_PAUSE_S)

    async def _go_through(self) -> bool:
        """Let each tenant's go as far as it may now. Whether any went."""
        went = False
        states = self._states.by_path()
        for subject in self.spool.shares.subjects:
            state = states.get(path_in(subject))
            if state is None or state.tenant.status != "active":
                # Of a registration that is gone, or it waits; that is seen by the first one.
                went = await self._drain(subject, self.spool.of(path_in(subject)).callbacks, 1) or went
            elif allowed := state.bucket.take_spare(self.spool.of(state.path).callbacks):
                went = await self._drain(subject, allowed, AT_ONCE, state.path) or went
        return went

    async def _drain(self, subject: str, allowed: int, at_once: int, path: str = "") -> bool:
        """Let as many of ``subject`` go as that, and as the share of the log has room for under ``path``, if one is
        given, until none of those that are tried does. Whether any went."""
        position = 0
        while allowed:
            rows = await self.spool.after(position, min(allowed, at_once), _MOST_BYTES, subject)
            if path:
                rows = self._admitted(path, rows)
            done = await self._onward.publish(rows)
            await self.spool.remove(done)
            if not done:
                break
            position, at_once = max(rows), AT_ONCE
            allowed -= len(rows)
        return position > 0

    def _admitted(self, path: str, rows: Mapping[int, Kept]) -> Mapping[int, Kept]:
        """The first of ``rows``, as far as the share has room for them."""
        size, admitted = 0, {}
        for position, row in rows.items():
            size += row.size
            if not self._room.admits(path, size):
                break
            admitted[position] = row
        return admitted
