"""Questions about a tenant that many ask at the same time: a monitor that polls each of its channels, say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Generic, TypeVar

from backhaul_common.tenants import Tenant

T = TypeVar("T")


class Together(Generic[T]):
    """Asks once for all who ask meanwhile, and tells an answer again for ``kept_s`` seconds. A refusal goes to those
    alone who wait for it. Belongs to one event loop."""

    def __init__(self, ask: Callable[[Tenant], Coroutine[Any, Any, T]], kept_s: float = 0.0) -> None:
        self._ask = ask
        self._kept_s = kept_s
        self.kept: dict[str, tuple[Tenant, asyncio.Task[T]]] = {}
        """By tenant: what it was when it was asked about, and what answers, or has answered."""

    async def of(self, tenant: Tenant) -> T:
        """The answer. Raises what the question raises."""
        found = self.kept.get(tenant.id)
        # What was told of a tenant that has changed since is of how it was.
        if found is None or found[0] is not tenant:
            task = asyncio.create_task(self._ask(tenant), name="together")
            self.kept[tenant.id] = found = tenant, task
            task.add_done_callback(partial(self._told, tenant.id))
        # Whoever asked first may give up before the others do.
        return await asyncio.shield(found[1])

    def _told(self, tenant_id: str, task: asyncio.Task[T]) -> None:
        if self._kept_s and not task.cancelled() and task.exception() is None:
            task.get_loop().call_later(self._kept_s, self._forget, tenant_id, task)
        else:
            self._forget(tenant_id, task)

    def _forget(self, tenant_id: str, task: asyncio.Task[T]) -> None:
        if (found := self.kept.get(tenant_id)) is not None and found[1] is task:
            del self.kept[tenant_id]
