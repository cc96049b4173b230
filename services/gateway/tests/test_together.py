"""What is asked once for all who ask meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.tenants import Tenant
from backhaul_gateway.reads.together import Together
from backhaul_testing import make


class Service:
    """Answers with how often it was asked, when it may."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.may = asyncio.Event()
        self.refuses = False

    async def answer(self, tenant: Tenant) -> int:
        self.asked.append(tenant.id)
        number = len(self.asked)
        await self.may.wait()
        if self.refuses:
            raise BackhaulError(Code.UNAVAILABLE, "It is away.")
        return number


async def settled(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0)


async def test_all_who_ask_meanwhile_have_one_answer_also_when_the_first_is_gone() -> None:
    service, acme, other = Service(), make.tenant("acme"), make.tenant("other")
    together = Together(service.answer)
    first = asyncio.create_task(together.of(acme))
    rest = [asyncio.create_task(together.of(acme)) for _ in range(3)]
    others = asyncio.create_task(together.of(other))
    await settled(lambda: len(service.asked) == 2)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    service.may.set()
    assert (await asyncio.gather(*rest), await others) == ([1, 1, 1], 2)
    # Nothing is kept, unless it shall be.
    assert await together.of(acme) == 3
    assert service.asked == ["acme", "other", "acme"]


async def test_an_answer_is_kept_for_a_while_and_not_of_a_tenant_that_changed() -> None:
    service, acme = Service(), make.tenant("acme")
    service.may.set()
    kept = Together(service.answer, kept_s=3600)
    assert [await kept.of(acme) for _ in range(3)] == [1, 1, 1]
    changed = acme.model_copy(update={"name": "Acme"})
    assert [await kept.of(changed) for _ in range(2)] == [2, 2]
    shortly = Together(service.answer, kept_s=0.01)
    assert await shortly.of(acme) == 3
    await settled(lambda: not shortly.kept)
    assert await shortly.of(acme) == 4


async def test_a_refusal_is_told_to_all_who_wait_and_to_nobody_later() -> None:
    service, acme = Service(), make.tenant("acme")
    service.refuses = True
    together = Together(service.answer, kept_s=3600)
    asking = [asyncio.create_task(together.of(acme)) for _ in range(2)]
    await settled(lambda: len(service.asked) == 1)
    service.may.set()
    for one in asking:
        with pytest.raises(BackhaulError, match="away"):
            await one
    service.refuses = False
    assert await together.of(acme) == 2
