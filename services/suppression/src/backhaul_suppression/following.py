"""How the rows in memory come to be what MongoDB has, and stay so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import Protocol

from backhaul_common.logs import get_logger
from backhaul_common.outages import Repeated, is_outage
from backhaul_common.pauses import pauses

from backhaul_suppression.changes import Page, Stored
from backhaul_suppression.index import Index
from backhaul_suppression.ports import ChangesListener

LOOK_S = 0.1
"""How often it is looked whether there are changes, when nobody says so."""

SLICE = 250
"""Changes that are applied before others have a turn: about a millisecond."""

_LONGEST_PAUSE_S = 0.5


class Source(Protocol):
    """Where rows come from. UNAVAILABLE from both."""

    async def load(self, put: Callable[[Iterable[Stored]], None]) -> int:
        """Call ``put``, in another thread, with all active rows. Returns the change behind which to ``read`` on."""
        ...

    async def read(self, after: int) -> Page:
        """The changes behind ``after``. LookupError where there never were so many."""
        ...


class Follower:
    """Loads ``index`` and keeps it up to date. A ``Changes``."""

    def __init__(
        self, source: Source, index: Index, *, applied: Callable[[], None], set_back: Callable[[], None]
    ) -> None:
        """``applied`` is called when more was applied, ``set_back`` when what was applied is no longer so. Like
        listeners they must not block or raise."""
        self._source = source
        self._index = index
        self._tell = applied
        self._set_back = set_back
        self._applied = -1
        self._listeners: dict[object, ChangesListener] = {}
        self._changed = asyncio.Event()
        self._away = Repeated("suppressions_not_followed")
        self._log = get_logger(component="suppression_follower")
        self.loaded = asyncio.Event()
        """Set while the index has been loaded."""

    @property
    def applied(self) -> int:
        """The change up to which all are applied; -1 until all rows are loaded."""
        return self._applied

    def changed(self) -> None:
        """There is something new: look now."""
        self._changed.set()

    def listen(self, listener: ChangesListener) -> Callable[[], None]:
        """See ``Changes``."""
        key = object()
        self._listeners[key] = listener
        return lambda: self._listeners.pop(key, None) and None

    async def run(self) -> None:
        """Load, and follow until cancelled."""
        waits = pauses(0.05, _LONGEST_PAUSE_S)
        while True:
            self._changed.clear()
            try:
                more = await self.step()
            except Exception as exc:
                if not is_outage(exc):
                    raise
                self._away.warning(repr(exc))
                await asyncio.sleep(next(waits))
                continue
            if self._away.times:
                self._away.over()
                waits = pauses(0.05, _LONGEST_PAUSE_S)
            if not more:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._changed.wait()

    async def step(self) -> bool:
        """Load, or apply some changes. Whether there may be more already. UNAVAILABLE."""
        if not self.loaded.is_set():
            await self._load()
            return True
        self._index.tidy()
        try:
            page = await self._source.read(self._applied)
        except LookupError as exc:
            # An older state was restored under this process. What was applied is not so any more.
            self._log.error("suppressions_set_back", error=str(exc))
            self._applied = -1
            self.loaded.clear()
            self._set_back()
            return True
        for start in range(0, len(page.rows), SLICE):
            self._index.put(page.rows[start : start + SLICE])
            await asyncio.sleep(0)
        # Not before all of it is: up to here a renewal says what was applied before.
        if page.applied > self._applied:
            self._applied = page.applied
            self._tell_of(page.changed)
        return page.more

    async def _load(self) -> None:
        self._index.clear()
        self._applied = await self._source.load(self._index.load)
        self.loaded.set()
        self._log.info("suppressions_loaded", addresses=self._index.addresses, applied=self._applied)
        self._tell_of(self._index.registrations)

    def _tell_of(self, registrations: Collection[str]) -> None:
        """With nothing waited for since it was applied: before anything can be answered with it."""
        for registration in registrations:
            for listener in tuple(self._listeners.values()):
                listener(registration)
        self._tell()
