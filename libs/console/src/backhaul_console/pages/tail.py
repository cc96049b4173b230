"""The live tail: a tenant's stream of events, as rows of a table.

The API has the stream, its filters and its bounds. What it refuses, and why it ends, is told in words on the same
connection. It has no memory: a browser comes back with the last id that it was given, to any copy of the gateway.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any, cast

from backhaul_client import BackhaulError, Followed, ProblemError, UnavailableError

from backhaul_console.sessions import StoreAwayError
from backhaul_console.sse import STILL_HERE, told
from backhaul_console.texts import _
from backhaul_console.visits import Visit

LOOKS_S = 15.0
"""How long a stream is silent, and how soon it ends behind its session."""
_AHEAD = 64
"""Events that wait to be written."""
_SHARE = 0.1
"""Of the gateway's time, in which callbacks are taken in, in which the rows of all tails together are made."""
_AT_ONCE_S = 0.1
"""Pauses shorter than this are put together."""
_ID = re.compile("[0-9.]{1,64}")
"""What an id may look like; the API knows which are."""
_BACK_MS = 500
_AWAY_MS = 5000
"""When a browser comes back: behind a stream that broke off, and behind one that could not be had."""

_Told = Followed | Exception


class Pace:
    """Makes the tails of a process wait for each other, so that together they take no more than ``_SHARE``."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._free_at = 0.0

    def took(self, busy_s: float) -> float:
        """How long whoever was busy for so long has to wait now."""
        self._free_at = max(self._free_at, self._now()) + busy_s / _SHARE
        ahead_s = self._free_at - self._now()
        return ahead_s if ahead_s > _AT_ONCE_S else 0.0


PACE = Pace()
"""Of this process."""


async def tail(visit: Visit, filters: Mapping[str, Any], after: str) -> AsyncGenerator[bytes, None]:
    """What a browser is sent: a row for each event behind the id ``after``, or from now on. By name: ``begun``;
    ``missed``, what may be missing; ``away``, why it has to come back; ``ended``, why it must not."""
    if after and _ID.fullmatch(after) is None:
        yield told(_("That is no id which this stream gave. Load the page again."), event="ended")
        return
    coming: asyncio.Queue[_Told] = asyncio.Queue(_AHEAD)
    following = asyncio.create_task(_follow(visit, filters, after, coming), name="console_tail")
    rows: Any = visit.templates.get_template("events/rows.html").make_module({"visit": visit})
    clock = asyncio.get_running_loop().time
    look_at, begun = clock() + LOOKS_S, False
    try:
        while True:
            one = await _next(coming, look_at - clock())
            if clock() >= look_at:
                look_at = clock() + LOOKS_S
                if not await _lives(visit):
                    # It may only have moved to another cookie: the browser comes back with what it has now.
                    yield told(_("Looking whether you are signed in…"), event="away", retry_ms=_BACK_MS)
                    return
                yield STILL_HERE
            if one is None:
                continue
            if isinstance(one, Exception):
                yield _end(one)
                if not isinstance(one, BackhaulError):
                    # It is a mistake of the console's own, and belongs in the log.
                    raise one
                return
            began = time.perf_counter()
            if not begun:
                begun = True
                yield told(event="begun", id_=one.id, retry_ms=_BACK_MS)
            yield _written(rows, one)
            if pause_s := PACE.took(time.perf_counter() - began):
                await asyncio.sleep(pause_s)
    finally:
        following.cancel()
        await asyncio.wait((following,))


async def _follow(visit: Visit, filters: Mapping[str, Any], after: str, coming: asyncio.Queue[_Told]) -> None:
    try:
        async with visit.lasting_api() as api:
            # What it iterates over is a generator, which has to be closed.
            events = cast("AsyncGenerator[Followed, None]", api.follow_events(**filters, after=after, positions=True))
            async with aclosing(events):
                async for one in events:
                    await coming.put(one)
    except Exception as exc:  # noqa: BLE001  # whatever it is, nothing comes any more
        await coming.put(exc)
    else:
        await coming.put(BackhaulError("the stream has ended"))


async def _next(coming: asyncio.Queue[_Told], patience_s: float) -> _Told | None:
    """The next one; None where none comes in time."""
    try:
        async with asyncio.timeout(max(0.0, patience_s)):
            return await coming.get()
    except TimeoutError:
        return None


async def _lives(visit: Visit) -> bool:
    try:
        return await visit.sessions.lives(visit.session)
    except StoreAwayError:
        # Not known now; the API looks at the key all the while.
        return True


def _written(rows: Any, one: Followed) -> bytes:
    if one.missed:
        return told(one.missed, event="missed", id_=one.id)
    return told(rows.row(one.event), id_=one.id) if one.event is not None else told(id_=one.id)


def _end(error: Exception) -> bytes:
    if isinstance(error, ProblemError) and not isinstance(error, UnavailableError):
        return told(f"{error.detail} {error.fix}".strip(), event="ended")
    # The gateway may be about to stop: another copy goes on.
    return told(_("The stream is away. Trying again…"), event="away", retry_ms=_AWAY_MS)
