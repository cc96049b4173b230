"""Uploads that are given up."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from backhaul_audit import uploading
from backhaul_audit.asking import Asking
from backhaul_audit.counts import Counts
from backhaul_audit.model import Chain, Content, PileKey, Plan, Shape
from backhaul_audit.ports import Destinations, ObjectInfo
from backhaul_audit.shaping import Made
from backhaul_audit.uploading import ElsewhereError, Uploads
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


@dataclass
class Endless:
    """``Objects``, and ``Destinations`` that have no other: there is a file already, and it has no end."""

    plan: Plan
    bucket: str = "bucket"
    piece: bytes = bytes(1 << 16)
    pieces: int = 0

    def named(self, registration: str, destination: str) -> Endless:
        return self

    async def create(self, key: str, data: bytes | Sequence[bytes], metadata: Mapping[str, str]) -> bool:
        self.said = metadata
        return False

    async def stat(self, key: str) -> ObjectInfo | None:
        return ObjectInfo(1, self.said, datetime.now(UTC))

    async def read(self, key: str, *, chunk: int = 0) -> AsyncIterator[bytes]:
        while True:
            self.pieces += 1
            yield self.piece


@pytest.mark.parametrize("gzip", [True, False])
async def test_a_file_without_an_end_is_another_file(gzip: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploading, "MAX_LOOKED_AT", 1 << 20)
    metrics = Metrics("test")
    plan = replace(PLAN, shape=Shape("", gzip=gzip))
    # Sixteen megabytes, in few bytes: of them no more than one is inflated.
    endless = Endless(plan, piece=zlib.compress(bytes(1 << 24), wbits=31)) if gzip else Endless(plan)
    asking = cast("Asking", Known(False))
    uploads = Uploads(cast("Destinations", cast("Any", endless)), asking, Counts(metrics), lambda: None)
    async with asyncio.timeout(30):
        with pytest.raises(ElsewhereError):
            await uploads.put(plan, MADE)
    assert endless.pieces <= 17
    metrics.close()
