"""A change that was asked for by somebody who has hung up since is not begun.

A gateway that stood still finds such requests when it goes on. Whoever sent one gave it up long ago and asked another
copy: the tenant that was to be deleted may be gone, and a new one have its id.
"""

from __future__ import annotations

import asyncio

from backhaul_common.errors import BackhaulError, Code
from fastapi import Request

_TURNS = 8
"""Turns of the event loop between the arrival of a request and that of the end of its connection, where both wait to be
read: it takes three."""


async def refuse_abandoned(request: Request) -> None:
    """FAILED_PRECONDITION, which nobody reads, for a change whose sender is gone. Reading is let through."""
    if request.method in ("GET", "HEAD"):
        return
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    if await request.is_disconnected():
        raise BackhaulError(Code.FAILED_PRECONDITION, "Whoever asked for this has hung up.", fix="Ask again.")
