"""Refuses to begin a change whose sender has hung up.

A gateway process that was stopped finds such requests when it goes on. Their senders have given them up long ago, and
have asked another copy of the gateway. By now the tenant to be deleted may be gone, and a new one may have its id.
"""

from __future__ import annotations

import asyncio

from backhaul_common.errors import BackhaulError, Code
from fastapi import Request

_TURNS = 8
"""How many turns of the event loop to wait. Where a request and the end of its connection wait to be read together, the
end is seen three turns after the request."""


async def refuse_abandoned(request: Request) -> None:
    """FAILED_PRECONDITION for a change whose sender is gone; nobody is there to read it. GET and HEAD pass."""
    if request.method in ("GET", "HEAD"):
        return
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    if await request.is_disconnected():
        raise BackhaulError(Code.FAILED_PRECONDITION, "Whoever asked for this has hung up.", fix="Ask again.")
