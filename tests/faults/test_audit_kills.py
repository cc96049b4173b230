"""kill -9 around audit under load: every event that is published lies in one file, and every file in one digest."""

from __future__ import annotations

import asyncio

import pytest
from backhaul_common.following import OWNED_S
from faults.filed import FIRST, SECOND, Filing, more_files, settle
from simulators.load import Load

pytestmark = pytest.mark.faults

BEFORE, MEANWHILE, AFTER = 80, 40, 60
"""Posts that are accepted before, during and after the fault."""


@pytest.mark.parametrize(
    "killed",
    [(FIRST,), (FIRST, SECOND, "normalizer"), ("s3",), ("nats",), ("mongod",)],
    ids=["one copy", "every copy and the normalizer", "s3", "nats", "mongod"],
)
async def test_everything_is_filed_once_whatever_is_killed(filing: Filing, killed: tuple[str, ...]) -> None:
    stack = filing.stack
    tenants = await filing.two_tenants()
    async with Load(tenants) as load:
        await load.more(BEFORE)
        await more_files(stack, tenants[0])
        for name in killed:
            await stack.kill(name)
        # Without NATS the gateway keeps on its disk what comes.
        await load.more(MEANWHILE)
        for name in killed:
            await stack.member(name).start()
        await load.more(AFTER)
    assert await settle(stack, *tenants) > BEFORE + AFTER


async def test_an_owner_that_is_stopped_across_its_lease_files_nothing_twice(filing: Filing) -> None:
    stack = filing.stack
    tenants = await filing.two_tenants()
    async with Load(tenants) as load:
        await load.more(BEFORE)
        await more_files(stack, tenants[0])
        for name in (FIRST, SECOND):
            # One of the two is the owner. The other one must have taken over, and file, when it wakes.
            stack.member(name).pause()
            stopped_at = asyncio.get_running_loop().time()
            await load.more(MEANWHILE)
            await more_files(stack, tenants[0])
            left_s = OWNED_S + 1 - (asyncio.get_running_loop().time() - stopped_at)
            await asyncio.sleep(max(0.0, left_s))  # The lease itself is what is waited for.
            stack.member(name).resume()
            await load.more(MEANWHILE)
    assert await settle(stack, *tenants) > BEFORE
