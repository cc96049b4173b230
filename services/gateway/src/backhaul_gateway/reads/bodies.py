"""Bodies of JSON that are larger than most: how many bytes of them are held at once, and how they are read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from backhaul_common.errors import BackhaulError, Code
from fastapi import Request
from starlette.requests import ClientDisconnect

from backhaul_gateway.admission.limits import MemoryBudget
from backhaul_gateway.admission.state import TenantState
from backhaul_gateway.web.edge import MAX_BODY


class LargeBodies:
    """Room for ``most`` bytes of bodies at once. A tenant may hold half of it while no other holds any."""

    def __init__(self, most: int, refusal: str) -> None:
        """``refusal`` says of what there are too many."""
        self._budget = MemoryBudget(most)
        self._refusal = refusal

    @contextmanager
    def room(self, request: Request, by: TenantState, most: int) -> Iterator[None]:
        """While a body of at most ``most`` bytes is read and worked with. UNAVAILABLE where there is no room.

        Of nobody who has not shown a credential so much is read: ask here when it is known who asks.
        """
        declared = request.headers.get("content-length", "")
        size = min(int(declared), most) if declared.isdecimal() else most
        if not self._budget.take(by.tenant.id, size):
            raise BackhaulError(
                Code.UNAVAILABLE, self._refusal, fix="Repeat the request, one at a time.", retry_after_s=2.0
            )
        try:
            request.scope[MAX_BODY] = size
            yield
        finally:
            self._budget.give_back(by.tenant.id, size)


async def body_of(request: Request) -> bytes:
    """The body. The edge bounds its size and its time."""
    try:
        return await request.body()
    except ClientDisconnect:
        raise BackhaulError(Code.INVALID_ARGUMENT, "The body is not whole.", field="body") from None
