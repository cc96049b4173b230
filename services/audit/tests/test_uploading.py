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
from backhaul_audit.model import Content, PileKey, Plan, Shape
from backhaul_audit.plans import Way
from backhaul_audit.ports import Destinations, ObjectInfo
from backhaul_audit.shaping import Made
from backhaul_audit.uploading import ElsewhereError, Uploads
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.metering import Metrics
from backhaul_digests.model import Chain
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


@dataclass
class Choosy:
    """``Objects``, and ``Destinations`` that have no other: refuses what begins with one of ``refused``."""

    refused: set[str]
    bucket: str = "bucket"
    there: list[str] = field(default_factory=list)
    tried: list[str] = field(default_factory=list)
    away: bool = False

    def named(self, registration: str, destination: str) -> Choosy:
        return self

    async def create(self, key: str, data: bytes | Sequence[bytes], metadata: Mapping[str, str]) -> bool:
        self.tried.append(key)
        if self.away or any(key.startswith(prefix) for prefix in self.refused):
            raise BackhaulError(Code.FAILED_PRECONDITION, f"Nobody may write {key}.", fix="Grant it.")
        self.there.append(key)
        return True

    async def stat(self, key: str) -> ObjectInfo | None:
        if self.away:
            raise BackhaulError(Code.UNAVAILABLE, "Object storage is away.")
        return None


def plan_of(registration: str, name: str) -> Plan:
    pile = PileKey(registration, name, Chain.EVENTS)
    return replace(PLAN, pile=pile, key=f"tenants/{registration}/{name}")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploading, "_FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(uploading, "LONGEST_PAUSE_S", 0.05)


@pytest.mark.usefixtures("quick")
async def test_what_the_bucket_of_all_refuses_of_one_tenant_keeps_no_other_waiting() -> None:
    metrics = Metrics("test")
    choosy = Choosy({"tenants/acme.1/"})
    uploads = Uploads(
        cast("Destinations", cast("Any", choosy)), cast("Asking", Known(False)), Counts(metrics), lambda: None
    )
    mine = plan_of("acme.1", "sms")
    putting = asyncio.create_task(uploads.put(mine, MADE))

    async def refused() -> bool:
        return bool(uploads.refusing)

    await until("the refusal", refused)
    # As long as nobody else had anything to bring there, it may be away.
    assert (list(uploads.blocked), dict(uploads.refusing)) == ([Way("", "")], {Way("", ""): {"acme.1"}})
    async with asyncio.timeout(60):
        for number in range(50):
            await uploads.put(plan_of("globex.1", f"sms{number}"), MADE)

        async def aside() -> bool:
            # It is found to be refused alone when it fails behind one that got through.
            await uploads.put(plan_of("globex.1", "more"), MADE)
            return mine.pile in uploads.aside

        await until("it is set aside", aside)
        assert (list(uploads.blocked), dict(uploads.problems)) == ([], {})
        assert uploads.aside == {mine.pile: f"Nobody may write {mine.key}. Grant it."}
        before = len(choosy.there)
        for number in range(50):
            await uploads.put(plan_of("globex.1", f"then{number}"), MADE)
        assert (len(choosy.there), list(uploads.blocked)) == (before + 50, [])
        choosy.refused.clear()
        await putting
    assert (uploads.aside, choosy.there[-1]) == ({}, mine.key)
    metrics.close()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("answers", [True, False])
async def test_a_bucket_that_takes_nothing_is_away_for_all_and_tried_by_one_at_a_time(answers: bool) -> None:
    metrics = Metrics("test")
    choosy = Choosy({"tenants/"}, away=not answers)
    uploads = Uploads(
        cast("Destinations", cast("Any", choosy)), cast("Asking", Known(False)), Counts(metrics), lambda: None
    )
    plans = [plan_of(f"t{number}.1", "sms") for number in range(40)]
    putting = [asyncio.create_task(uploads.put(plan, MADE)) for plan in plans]

    async def tried() -> bool:
        return len(choosy.tried) >= 2 * len(plans)

    began = asyncio.get_running_loop().time()
    await until("each has tried twice", tried)
    # After the first ones, which began while it was open, each has paused before its turn.
    assert asyncio.get_running_loop().time() - began > 0.03 * (len(plans) - uploading.AT_ONCE)
    assert list(uploads.blocked) == [Way("", "")]
    assert uploads.aside == {}
    assert set(choosy.tried) == {plan.key for plan in plans}, "each has its turn"
    choosy.refused.clear()
    choosy.away = False
    async with asyncio.timeout(60):
        await asyncio.gather(*putting)
    assert (list(uploads.blocked), dict(uploads.problems)) == ([], {})
    metrics.close()


@pytest.mark.usefixtures("quick")
async def test_what_is_given_up_while_a_bucket_is_away_leaves_it_to_be_tried_by_the_next() -> None:
    metrics = Metrics("test")
    choosy = Choosy({"tenants/"})
    uploads = Uploads(
        cast("Destinations", cast("Any", choosy)), cast("Asking", Known(False)), Counts(metrics), lambda: None
    )
    putting = [asyncio.create_task(uploads.put(plan_of("acme.1", name), MADE)) for name in "ab"]

    async def blocked() -> bool:
        return bool(uploads.blocked)

    await until("the way is closed", blocked)
    for one in putting:
        one.cancel()
    await asyncio.gather(*putting, return_exceptions=True)
    assert (list(uploads.blocked), dict(uploads.problems)) == ([], {})
    choosy.refused.clear()
    async with asyncio.timeout(60):
        await uploads.put(plan_of("acme.1", "c"), MADE)
    metrics.close()
