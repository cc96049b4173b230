"""Those who wait together until every copy knows."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from backhaul_suppression.barrier import SharedBarrier


class Nobody:
    """``Copies`` of which none is behind. It remembers how far they had to be."""

    def __init__(self) -> None:
        self.bars: list[int] = []
        self.let = asyncio.Event()

    async def bar(self, seq: int) -> None:
        self.bars.append(seq)
        await self.let.wait()

    async def behind(self, seq: int) -> Collection[str]:  # whatever it is
        return ()

    async def register(self, copy: str, applied: int) -> None:
        raise NotImplementedError

    async def last(self) -> int:
        raise NotImplementedError

    async def renew(self, copy: str, applied: int) -> int | None:
        raise NotImplementedError

    async def forget(self, copies: Collection[str], seq: int) -> None:
        raise NotImplementedError

    async def leave(self, copy: str) -> None:
        raise NotImplementedError


async def test_what_was_on_its_way_when_mongodb_was_set_back_spares_nobody_the_wait() -> None:
    copies = Nobody()
    barrier = SharedBarrier(copies, lambda: 0.0, lambda: None)
    before = asyncio.create_task(barrier.passed(100))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert copies.bars == [100]
    barrier.forget()
    copies.let.set()
    await before
    await barrier.passed(51)
    await barrier.passed(50)
    assert copies.bars == [100, 51]
