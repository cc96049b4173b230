"""Reading a body that may be too large, too slow, or never whole."""

from __future__ import annotations

import asyncio

from backhaul_common.errors import BackhaulError, Code, unavailable
from starlette.types import Receive

from backhaul_gateway.admission.limits import MemoryBudget
from backhaul_gateway.ingest.request import Request
from backhaul_gateway.ingest.watchdog import Watchdog
from backhaul_gateway.web.refusals import body_timeout


class GoneError(Exception):
    """The provider went away before its request was complete; nobody is there to be answered."""


class BodyReader:
    """Reads bodies, each within the same time, and all within a budget of memory and of connections."""

    def __init__(self, timeout_s: float, budget: MemoryBudget, max_bodies: int) -> None:
        """``max_bodies`` may be read at once, as each takes up a connection. A tenant may have at most half of what the
        others leave free."""
        self._budget = budget
        self._max_bodies = max_bodies
        self._watchdog = Watchdog(timeout_s)

    async def read(self, request: Request, limit: int) -> bytes:
        """The body, at most ``limit`` bytes. The caller gives them back to the budget.

        Raises, and then nothing is to be given back: TOO_LARGE; UNAVAILABLE when the tenant, or all together, have too
        much or too many under way; ``body_timeout``; GoneError when the connection ends. INTERNAL when the server says
        that the body is whole and it is not as long as the head announced: an incomplete body must not be answered for.
        """
        if request.declared > limit:
            raise _too_large(limit)
        if 2 * len(self._watchdog) >= self._max_bodies:
            self._refuse_crowding(request.tenant)
        task = self._watchdog.watch(request.tenant)
        try:
            # Inlined _next_part: most bodies arrive in one message.
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise GoneError
            body: bytes = message.get("body", b"")
            if message.get("more_body", False):
                return await self._rest(request, body, limit)
        except asyncio.CancelledError:
            if self._watchdog.expired(task):
                raise body_timeout() from None
            raise
        finally:
            self._watchdog.release(task)
        size = len(body)
        if size != request.declared:
            _require_whole(size, request.declared)
        if size:
            self._take(request.tenant, size, size, limit)
        return body

    async def _rest(self, request: Request, part: bytes, limit: int) -> bytes:
        """A body that comes in parts. Each is counted when it arrives: unfinished bodies fill the memory too."""
        parts: list[bytes] = []
        size = 0
        more = True
        try:
            while True:
                self._take(request.tenant, len(part), size + len(part), limit)
                parts.append(part)
                size += len(part)
                if not more:
                    _require_whole(size, request.declared)
                    return b"".join(parts)
                part, more = await _next_part(request.receive)
        except BaseException:
            if size:
                self._budget.give_back(request.tenant, size)
            raise

    def _take(self, tenant_id: str, part: int, size: int, limit: int) -> None:
        """Have the budget hold ``part`` bytes more, of a body that has ``size`` bytes with them."""
        if size > limit:
            raise _too_large(limit)
        if part and not self._budget.take(tenant_id, part):
            raise unavailable("The callback log", retry_after_s=2)

    def _refuse_crowding(self, tenant_id: str) -> None:
        # Counted only where half of the places are taken, so that the usual request pays nothing for it.
        own = self._watchdog.count(tenant_id)
        if own >= self._max_bodies - len(self._watchdog):
            raise BackhaulError(
                Code.UNAVAILABLE,
                f"{own} bodies of the tenant's are under way already.",
                fix="Send each body at once, over fewer connections.",
                retry_after_s=2,
            )


async def _next_part(receive: Receive) -> tuple[bytes, bool]:
    """What has arrived, and whether more is to come."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise GoneError
    return message.get("body", b""), message.get("more_body", False)


def _require_whole(size: int, declared: int) -> None:
    """``declared`` is negative where the request announces no length."""
    if size != declared >= 0:
        raise BackhaulError(Code.INTERNAL, "The body is not as long as Content-Length says. Repeat the request.")


def _too_large(limit: int) -> BackhaulError:
    return BackhaulError(
        Code.TOO_LARGE,
        f"The body is larger than the tenant's limit of {limit} bytes.",
        field="body",
        fix="Send less at once, or ask the platform team for a higher max_body_bytes.",
    )
