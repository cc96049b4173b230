"""kill -9 around suppression while people opt out: whatever was answered 200 is enforced on every copy."""

from __future__ import annotations

import pytest
from faults.copies import COPIES, FIRST, Pair, settle
from simulators.optouts import OptOuts

pytestmark = pytest.mark.faults

BEFORE, MEANWHILE, AFTER = 150, 60, 100
"""Callbacks that are answered before, during and after the fault."""


@pytest.mark.parametrize(
    "killed",
    [(FIRST,), COPIES, ("mongod",), ("nats",)],
    ids=["one copy", "every copy", "mongod", "nats"],
)
async def test_what_was_answered_is_enforced_after_a_kill(pair: Pair, killed: tuple[str, ...]) -> None:
    stack = pair.stack
    tenants = await pair.two_tenants()
    async with OptOuts(tenants) as load:
        await load.more(BEFORE)
        for name in killed:
            await stack.kill(name)
        # Without NATS the gateway keeps on its disk what comes.
        await load.more(MEANWHILE)
        for name in killed:
            await stack.member(name).start()
        await load.more(AFTER)
    assert await settle(stack, pair.copies, load, *tenants) > 100
