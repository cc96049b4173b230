"""A callback log that has somewhere to go while JetStream does not store: the spool."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from backhaul_common.errors import BackhaulError, Code

from backhaul_gateway.ingest.watch import Storing
from backhaul_gateway.ports import CallbackLog
from backhaul_gateway.spool.onward import Onward
from backhaul_gateway.spool.spool import Spool

AT_ONCE: Final = 256
_MOST_BYTES: Final = 4 << 20
"""Of what was kept, so much is on its way at once, and goes among what comes meanwhile: neither waits for the other."""
_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 5.0


class DirectLog(CallbackLog, Storing, Protocol):
    """JetStream."""


class SpooledLog:
    """A ``CallbackLog``: what JetStream does not store lies in the spool, and goes on as soon as it does.

    What was kept goes on in the order in which it came. What comes meanwhile goes beside it, and may be earlier: what
    becomes of a message does not depend on the order of its callbacks. A callback that JetStream has stored and did not
    acknowledge in time is stored twice, as one that a provider repeats; it counts once.
    """

    def __init__(self, direct: DirectLog, spool: Spool, onward: Onward) -> None:
        self._direct = direct
        self._spool = spool
        self._onward = onward

    async def publish(self, subject: str, callback_id: str, encoded: bytes, traceparent: str) -> None:
        """See ``CallbackLog``. Returns when the callback is stored, or lies in the spool."""
        if not self._away:
            try:
                await self._direct.publish(subject, callback_id, encoded, traceparent)
            except BackhaulError as exc:
                if exc.code is not Code.UNAVAILABLE:
                    raise
            else:
                return
        await self._spool.put(subject, callback_id, encoded, traceparent)

    @property
    def _away(self) -> bool:
        """Whether nothing was stored since something was not, so that nobody need wait to find it out once more. What
        is in the spool is tried, and ends it."""
        return self._spool.some.is_set() and self._direct.failed_at > self._direct.stored_at

    async def run(self) -> None:
        """Publish what is in the spool, until cancelled."""
        pause_s = _PAUSE_S
        while True:
            await self._spool.some.wait()
            try:
                went = await self._go_through()
            except BackhaulError:
                went = False  # The spool's own disk has trouble, of which it tells.
            if went:
                pause_s = _PAUSE_S
            else:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _go_through(self) -> bool:
        """Try to publish each once, in order. Whether any was, or none is left. One that is refused keeps no other."""
        position, went = 0, False
        while rows := await self._spool.after(position, 1 if self._away else AT_ONCE, _MOST_BYTES):
            position = max(rows)
            stored = await self._onward.publish(rows)
            await self._spool.remove(stored)
            went = went or bool(stored)
            if not stored and self._away:
                break
        return went
