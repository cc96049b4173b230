"""What all calls of the client share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeVar

from backhaul_client.retries import Retries
from backhaul_client.suppression.coalescing import Coalescing
from backhaul_client.suppression.connection import Connection, Tls

T = TypeVar("T")

CHECK_S = 1.0
"""How long a check may take, its repetitions included."""

CALL_S = 5.0
"""How long any other question may take: a chunk of a batch, a page of a list."""

CHANGE_S = 10.0
"""How long a change may take. It is answered when every copy knows of it, which takes seconds where one has died."""

PAGE = 100
"""Rows of a page, unless a call says another number."""


class Base:
    """A client's connection."""

    def __init__(
        self,
        targets: str | Sequence[str],
        *,
        token: str = "",
        tls: Tls | None = None,
        check_timeout_s: float = CHECK_S,
        retries: Retries | None = None,
    ) -> None:
        """``targets`` is host:port, several of them (a sequence, or with commas), or ``dns:///name:port``; calls take
        them in turn. ``token`` is the caller's; a certificate in ``tls`` may stand for it. Without ``tls`` nothing is
        encrypted. ``check_timeout_s`` is what checks have that name no other. Of ``retries`` the ``max_pause_s`` is not
        used: a call is repeated until its deadline at the latest."""
        self._connection = Connection(targets, token, tls, retries or Retries(tries=8))
        self._coalescing = Coalescing(self._connection)
        self._check_timeout_s = check_timeout_s

    def __repr__(self) -> str:
        return f"{type(self).__name__}({','.join(self._connection.targets)!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End every call, with an error for whoever waits, and close the connections."""
        await self._connection.close()
        await self._coalescing.close()

    async def _theirs(self, function: Callable[[], T]) -> T:
        """What the caller's own ``function`` returns, where it may run: here on the event loop."""
        return function()

    async def _call(self, method: str, request: Any, timeout_s: float) -> Any:
        return await self._connection.unary(method, request, _ends_at(timeout_s))


def _ends_at(timeout_s: float) -> float:
    return asyncio.get_running_loop().time() + timeout_s
