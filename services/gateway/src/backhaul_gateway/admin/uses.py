"""When each credential was last used: gathered in memory, and written behind the requests, once in an hour each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime

from backhaul_common.errors import BackhaulError

from backhaul_gateway.admin.updates import utc_now
from backhaul_gateway.admission.auth import CredentialIndex

PAUSE_S = 60.0
EVERY_S = 3600.0


class KeyUses:
    """Writes down the use of keys and tokens. What is not written when the process ends is forgotten, and a change of
    the tenant at the same moment may undo it: the next hour tells again."""

    def __init__(
        self,
        credentials: CredentialIndex,
        used: Callable[[str, str, datetime], Awaitable[None]],
        clock: Callable[[], float],
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """``used`` writes down that a tenant's credential was used at a time; UNAVAILABLE. ``clock`` runs in seconds,
        from anywhere."""
        self._credentials = credentials
        self._used = used
        self._clock = clock
        self._now = now
        self._written: dict[str, float] = {}

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await asyncio.sleep(PAUSE_S)
            await self.write()

    async def write(self) -> None:
        """Write the uses since the last time, but for those of credentials that were written within the hour."""
        began = self._clock()
        self._written = {name: at for name, at in self._written.items() if began - at < EVERY_S}
        for name, tenant_id in self._credentials.take_used().items():
            if name in self._written:
                continue
            try:
                await self._used(tenant_id, name, self._now())
            except BackhaulError:
                return  # The database is away. Whoever uses a key again is written down then.
            self._written[name] = began
