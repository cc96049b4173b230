"""The live tail: a tenant's stream of events, as rows of a table.

The API has the stream, its filters and its bounds. What it refuses, and why it ends, is told in words on the same
connection. It has no memory: a browser comes back with the last id that it was given, to any copy of the gateway.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
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
"""Of the gateway's time, in which callbacks are taken in, that one tail may take."""
_AT_ONCE_S = 0.01
_BACK_MS = 500
_AWAY_MS = 5000
"""When a browser comes back: behind a stream that broke off, and behind one that could not be had."""

_Told = Followed | BackhaulError


async def tail(visit: Visit, filters: Mapping[str, Any], after: str) -> AsyncGenerator[bytes, None]:
    """What a browser is sent: a row for each event behind the id ``after``, or from now on. By name: ``begun``;
    ``missed``, what may be missing; ``away``, why it has to come back; ``ended``, why it must not."""
    coming: asyncio.Queue[_Told] = asyncio.Queue(_AHEAD)
    following = asyncio.create_task(_follow(visit, filters, after, coming), name="console_tail")
    rows: Any = visit.templates.get_template("events/rows.html").make_module({"visit": visit})
    clock = asyncio.get_running_loop().time
    look_at, begun, busy_s = clock() + LOOKS_S, False, 0.0
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
            if isinstance(one, BackhaulError):
                yield _end(one)
                return
            began = clock()
            if not begun:
                begun = True
                yield told(event="begun", id_=one.id, retry_ms=_BACK_MS)
            if one.missed:
                yield told(one.missed, event="missed", id_=one.id)
            elif one.event is None:
                yield told(id_=one.id)
            else:
                yield told(rows.row(one.event), id_=one.id)
            busy_s += clock() - began
            if busy_s > _AT_ONCE_S:
                await asyncio.sleep(busy_s / _SHARE)
                busy_s = 0.0
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
    except BackhaulError as exc:
        await coming.put(exc)


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


def _end(error: BackhaulError) -> bytes:
    if isinstance(error, ProblemError) and not isinstance(error, UnavailableError):
        return told(f"{error.detail} {error.fix}".strip(), event="ended")
    # The gateway may be about to stop: another copy goes on.
    return told(_("The stream is away. Trying again…"), event="away", retry_ms=_AWAY_MS)
