"""What tests of the tenant directory share: tenants, and documents that a test moves away or holds back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from backhaul_common import mongo
from backhaul_common.directory import TenantDocuments
from backhaul_common.revisioned import Head
from backhaul_common.tenants import Tenant

NOW = datetime(2026, 3, 1, 12, 0, 0, 123000, tzinfo=UTC)


def tenant(tenant_id: str = "acme", revision: int = 1, *, created: datetime = NOW, **values: Any) -> Tenant:
    return Tenant(
        id=tenant_id,
        # One created at another time is another registration.
        registration=f"{tenant_id}.{created:%H%M%S}",
        name=values.pop("name", tenant_id),
        queue_path=values.pop("queue_path", tenant_id),
        revision=revision,
        created_at=created,
        updated_at=NOW,
        **values,
    )


async def store(collection: mongo.Collection, value: Tenant) -> None:
    await collection.replace_one({"_id": value.id}, value.to_document(), upsert=True)


async def until(condition: Callable[[], bool], longest_s: float = 5) -> None:
    async with asyncio.timeout(longest_s):
        while not condition():  # what is looked at is plain values, on purpose
            await asyncio.sleep(0.005)


class Moving(TenantDocuments):
    """The documents, now here and now elsewhere."""

    def move(self, collection: mongo.Collection) -> None:
        super().__init__(collection)


class Held(TenantDocuments):
    """The real documents, which are read when the reading is begun and can be held back then.

    So that two reads overtake each other when the test says so: no server does that on request.
    """

    def __init__(self, collection: mongo.Collection) -> None:
        super().__init__(collection, secrets=True)
        self.holding = False
        self.release = asyncio.Event()
        self.has_read = asyncio.Event()

    async def _hold(self) -> None:
        if self.holding:
            self.holding = False
            self.has_read.set()
            await self.release.wait()

    async def read(self, tenant_ids: Sequence[str]) -> dict[str, Any]:
        found = await super().read(tenant_ids)
        await self._hold()
        return found

    async def heads(self) -> AsyncIterator[list[Head]]:
        found = [heads async for heads in super().heads()]
        await self._hold()
        for heads in found:
            yield heads

    async def overtake(self, slow: Callable[[], Awaitable[Any]], meanwhile: Callable[[], Awaitable[Any]]) -> None:
        """Begin ``slow``, let it read, do ``meanwhile``, and only then let ``slow`` go on with what it read."""
        self.holding = True
        self.release.clear()
        self.has_read.clear()
        task = asyncio.ensure_future(slow())
        async with asyncio.timeout(60):
            await self.has_read.wait()
        await meanwhile()
        self.release.set()
        await task
