"""Shares by time: a tenant whose callbacks are slow to read costs itself the time, and not the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from backhaul_channels import Ignored
from backhaul_common.names import DEAD_LETTERS_COLLECTION
from backhaul_normalizer.model import Fact, Rejection
from backhaul_normalizer.normalize import Normalizer
from backhaul_proto.callback.v1.callback_pb2 import Callback
from backhaul_testing import make
from normalizer_rig import Rig, RigFactory

SLOW = "slow"
MAX_DELAY_S = 1.0
"""Of reading ahead of another tenant's, by what it costs and not by the clock; unshared it is 8 and 3 seconds."""


@pytest.fixture
def slow_reading(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``slow_reading(0.1)``: each callback of the tenant ``slow`` takes the processor for that many seconds.

    Returns whose callbacks were read, in order.
    """
    real = Normalizer.read

    def prepare(seconds: float) -> list[str]:
        reads: list[str] = []

        def read(
            self: Normalizer, callback: Callback, stream_seq: int, path: str
        ) -> Iterator[Fact | Ignored | Rejection]:
            reads.append(callback.tenant_id)
            if callback.tenant_id == SLOW:
                time.sleep(seconds)  # The processor is busy: nothing else of this process goes on meanwhile.
            yield from real(self, callback, stream_seq, path)

        monkeypatch.setattr(Normalizer, "read", read)
        return reads

    return prepare


async def _slow_ones_ahead(rig: Rig, reads: list[str], bodies: list[str]) -> int:
    """How many of ``bodies`` are read before the callback of another tenant that lies behind all of them."""
    slow, other = make.tenant(SLOW), make.tenant("other")
    await rig.register(slow, other)
    for body in bodies:
        await rig.publish(slow, make.callback(slow, body))
    await rig.publish(other, make.callback(other, make.twilio("SM1", "sent")))
    async with rig.another():
        async with asyncio.timeout(30):
            while not await rig.events_of(other.registration):
                await asyncio.sleep(0.01)  # MongoDB has no event for it that costs less than asking.
        assert reads.count(SLOW) < len(bodies)  # Its event does not wait for the rest of them either.
        await rig.drained(timeout_s=60)
    refused = await rig.database[DEAD_LETTERS_COLLECTION].count_documents({"registration": slow.registration})
    assert await rig.events_of(slow.registration) + refused == len(bodies)
    return reads.index("other")


@pytest.mark.timed
async def test_forty_large_bodies_that_are_slow_to_read_delay_another_tenant_by_a_second_at_most(
    rig_factory: RigFactory, slow_reading: Any
) -> None:
    reads = slow_reading(cost := 0.2)
    async with rig_factory(copies=0) as rig:
        bodies = [f"{n} is unreadable " + "x" * 1_000_000 for n in range(40)]
        assert await _slow_ones_ahead(rig, reads, bodies) * cost <= MAX_DELAY_S


@pytest.mark.timed
async def test_many_small_ones_in_one_batch_are_parted_by_time(rig_factory: RigFactory, slow_reading: Any) -> None:
    reads = slow_reading(cost := 0.05)
    async with rig_factory(copies=0) as rig:
        bodies = [make.twilio(f"SM{n}", "sent") for n in range(60)]
        assert await _slow_ones_ahead(rig, reads, bodies) * cost <= MAX_DELAY_S
        # All are read once, in order: what did not get its turn was kept, and not delivered again.
        assert reads.count(SLOW) == 60
        events = await rig.published()
        slow = [event.message_id for event in events if event.tenant_id == SLOW]
        assert slow == [f"SM{n}" for n in range(60)]
