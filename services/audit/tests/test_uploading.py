"""Uploads that are given up."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

import pytest
from backhaul_audit.asking import Asking
from backhaul_audit.counts import Counts
from backhaul_audit.model import Chain, Content, PileKey, Plan, Shape
from backhaul_audit.ports import Destinations
from backhaul_audit.shaping import Made
from backhaul_audit.uploading import Uploads
from backhaul_common.metrics import Metrics
from backhaul_testing.waiting import until

PLAN = Plan(
    "0" * 32, PileKey("acme.1", "twilio", Chain.EVENTS), "acme", "", "bucket", "tenants/acme.1/x", Shape(""), 1, 2
)
MADE = Made([b"{}\n"], Content(1, 3, "", 3, "", 0, 0))


@dataclass
class Slow:
    """``Objects``, and ``Destinations`` that have no other: what is created is there when ``goes_on`` is set."""

    bucket: str = "bucket"
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)
    there: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    def named(self, registration: str, destination: str) -> Slow:
        return self

    async def create(self, key: str, data: bytes | Sequence[bytes], metadata: Mapping[str, str]) -> bool:
        self.begun.set()
        await self.goes_on.wait()
        self.there.append(key)
        return True

    async def delete(self, key: str) -> datetime | None:
        self.there.remove(key)
        self.deleted.append(key)
        return None


@dataclass
class Known:
    """Of ``Asking`` what uploads ask."""

    is_gone: bool

    def gone(self, registration: str) -> bool:
        return self.is_gone


@pytest.mark.parametrize("gone", [True, False])
async def test_what_comes_too_late_of_a_tenant_that_is_gone_is_taken_away(gone: bool) -> None:
    metrics = Metrics("test")
    slow = Slow()
    asking = cast("Asking", Known(gone))
    uploads = Uploads(cast("Destinations", cast("Any", slow)), asking, Counts(metrics), lambda: None)
    putting = asyncio.create_task(uploads.put(PLAN, MADE))
    await slow.begun.wait()
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    slow.goes_on.set()

    async def ended() -> bool:
        return not [task for task in asyncio.all_tasks() if task.get_name().startswith("late_")]

    await until("the end of the upload", ended)
    # Of a tenant that is there it is the plan's, and is found by whoever makes that file.
    assert (slow.there, slow.deleted) == (([], [PLAN.key]) if gone else ([PLAN.key], []))
    metrics.close()
