"""A file is read some lines at a time, and the process does other things in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

MAX_FOUND = 1_000
"""So much is given together at most."""

MAX_HELD_S = 0.002
"""So long lines are read before others may do something. The process answers other calls meanwhile."""

_FED_BYTES = 4 << 10
"""So much is read at once: of a megabyte of blank lines nothing is found, and it takes its time all the same."""


async def in_turns(
    pieces: AsyncIterator[bytes],
    feed: Callable[[bytes], Iterator[T]],
    end: Callable[[], Iterator[T]],
    clock: Callable[[], float] = time.monotonic,
) -> AsyncGenerator[list[T], None]:
    """What ``feed`` reads of ``pieces``, which it takes cut anywhere, and ``end`` of what is left behind the last one:
    in the order of the file, a list for each piece at least, which may be empty. ``clock`` is in seconds, and never
    goes back.

    Raises what ``feed`` and ``end`` raise: the first list says that the file can be read.
    """
    async for piece in pieces:
        async for found in _in_turns(_fed(feed, piece), clock):
            yield found
    async for found in _in_turns(end(), clock):
        yield found


def _fed(feed: Callable[[bytes], Iterator[T]], piece: bytes) -> Iterator[T | None]:
    """What ``feed`` reads of ``piece``, and None now and then."""
    for at in range(0, len(piece), _FED_BYTES):
        yield from feed(piece[at : at + _FED_BYTES])
        yield None


async def _in_turns(read: Iterator[T | None], clock: Callable[[], float]) -> AsyncGenerator[list[T], None]:
    found: list[T] = []
    until = clock() + MAX_HELD_S
    for one in read:
        if one is not None:
            found.append(one)
        if clock() > until or len(found) == MAX_FOUND:
            if found:
                yield found
                found = []
            await asyncio.sleep(0)
            until = clock() + MAX_HELD_S
    yield found
