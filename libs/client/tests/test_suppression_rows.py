"""The client of suppression: what changes rows, what reads them, streams of checks, and lists in and out."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from backhaul_client import FailedPreconditionError, ForbiddenError, UnavailableError, UnreachableError
from backhaul_client.suppression import (
    Answer,
    Evidence,
    Family,
    Item,
    Kind,
    Progress,
    Scope,
    ScopeKind,
    Source,
    Standing,
    SuppressionClient,
    SuppressionUnavailableError,
    Verdict,
)
from backhaul_client.suppression.lists import Pieces
from backhaul_common import errors as served
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from stand_in import FREE, STOPPED, WRONG, StandIn, serving

AWAY = served.BackhaulError(served.Code.UNAVAILABLE, "The lease is over.", retry_after_s=5)
SAID_AT = datetime(2026, 11, 1, 12, 0, 0, 123456, UTC)
SAID_AT_US = 1_793_534_400_123_456
CONSENT = Evidence(source=Source.WEB, at=SAID_AT, reference="form 12")


# Changes of rows.


async def test_what_was_added_is_suppressed(client: SuppressionClient, service: StandIn) -> None:
    outcome = await client.add(
        "acme",
        FREE,
        Kind.STOP,
        source=Source.AGENT,
        scope=Scope(ScopeKind.SENDER, "+15005550006"),
        family=Family.PHONE,
        effective_at=SAID_AT,
        evidence=CONSENT,
        note="By telephone.",
    )
    assert outcome.changed
    row = outcome.suppression
    assert (row.kind, row.scope, row.since) == (Kind.STOP, Scope(ScopeKind.SENDER, "+15005550006"), SAID_AT)
    assert (row.active, row.blocks, row.author) == (True, ("marketing", "transactional"), "service:0123")
    (asked,) = service.asked
    assert asked.request == pb.AddRequest(
        tenant_id="acme",
        address=FREE,
        family=event_pb2.ADDRESS_FAMILY_PHONE,
        kind=pb.SUPPRESSION_KIND_STOP,
        scope=pb.Scope(kind=pb.SCOPE_KIND_SENDER, id="+15005550006"),
        source=pb.SOURCE_AGENT,
        effective_at_us=SAID_AT_US,
        evidence=pb.Evidence(source=pb.SOURCE_WEB, at_us=SAID_AT_US, reference="form 12"),
        note="By telephone.",
        idempotency_key=outcome.idempotency_key,
    )
    assert not (await client.check("acme", FREE)).allowed


async def test_a_change_that_is_repeated_is_the_same_call(client: SuppressionClient, service: StandIn) -> None:
    service.failures.extend([AWAY, grpc.StatusCode.UNAVAILABLE])
    outcome = await client.add("acme", FREE, Kind.MANUAL)
    assert service.methods == ["Add"] * 3
    assert {one.request.idempotency_key for one in service.asked} == {outcome.idempotency_key}
    assert len(service.keys) == 1
    other = await client.add("acme", FREE, Kind.MANUAL)
    assert other.idempotency_key != outcome.idempotency_key
    own = await client.add("acme", FREE, Kind.MANUAL, idempotency_key="mine")
    assert own.idempotency_key == service.asked[-1].request.idempotency_key == "mine"


@pytest.mark.timed
async def test_a_change_that_goes_on_failing_raises_within_its_time(
    client: SuppressionClient, service: StandIn
) -> None:
    service.failures.extend([AWAY] * 100)
    with pytest.raises(UnavailableError):
        await client.add("acme", FREE, Kind.MANUAL, timeout_s=0.2)
    with pytest.raises(UnavailableError):
        await client.reactivate("acme", FREE, timeout_s=0.2)


async def test_a_lift_that_may_not_be_names_the_rule(client: SuppressionClient, service: StandIn) -> None:
    with pytest.raises(FailedPreconditionError, match="the person's to lift"):
        await client.lift("acme", STOPPED, Kind.STOP)
    lifted = await client.lift("acme", STOPPED, Kind.STOP, evidence=CONSENT)
    assert (lifted.changed, lifted.suppression.active, lifted.suppression.due_by) == (True, False, None)
    assert (await client.check("acme", STOPPED)).allowed
    assert [row.kind for row in await client.reactivate("acme", STOPPED)] == [Kind.HARD_BOUNCE]
    assert all(one.request.idempotency_key for one in service.asked if one.method in ("Lift", "Reactivate"))


async def test_a_time_without_a_zone_is_refused_before_anything_is_sent(
    client: SuppressionClient, service: StandIn
) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        await client.add("acme", FREE, Kind.STOP, effective_at=datetime(2026, 11, 1))  # noqa: DTZ001  # the mistake
    assert service.asked == []


# Rows.


async def test_rows_and_history_come_page_by_page(client: SuppressionClient, service: StandIn) -> None:
    for number in range(5):
        await client.add("acme", f"+1500555100{number}", Kind.MANUAL)
    service.asked.clear()
    rows = client.list("acme", kind=Kind.MANUAL, standing=Standing.ANY, from_=SAID_AT, page_size=2)
    assert service.asked == []
    assert [row.address for row in [row async for row in rows]] == [
        f"+1500555100{number}" for number in (4, 3, 2, 1, 0)
    ]
    assert [one.request.page_token for one in service.asked] == ["", "2", "4"]
    assert service.asked[0].request == pb.ListRequest(
        tenant_id="acme",
        kind=pb.SUPPRESSION_KIND_MANUAL,
        standing=pb.STANDING_ANY,
        from_us=SAID_AT_US,
        page_size=2,
    )
    await client.add("acme", "+15005551000", Kind.STOP)
    record = await client.get("acme", "+15005551000", page_size=1)
    assert [row.kind for row in record.suppressions] == [Kind.STOP]
    assert [change.position for change in record.history] == [6]
    history = client.history("acme", "+15005551000", page_size=1)
    assert [change.position async for change in history] == [6, 1]


async def test_a_read_is_repeated(client: SuppressionClient, service: StandIn) -> None:
    service.failures.append(AWAY)
    assert [row async for row in client.list("acme")] == []
    assert len(service.asked) == 2


# Streams of checks.


async def test_a_stream_answers_in_order_and_takes_no_more_than_is_under_way(
    client: SuppressionClient, service: StandIn
) -> None:
    taken = 0

    async def source() -> AsyncIterator[str | Item]:
        nonlocal taken
        for number in range(20_000):
            taken += 1
            yield Item(STOPPED if number % 3 == 0 else FREE, str(number))

    service.open.clear()
    answers = client.check_stream("acme", source())
    first = asyncio.ensure_future(anext(answers))
    await service.have_come(4)
    assert taken <= 5000
    service.open.set()
    found = [await first, *[answer async for answer in answers]]
    assert [one.correlation_id for one in found] == [str(number) for number in range(20_000)]
    assert [one.allowed for one in found[:4]] == [False, True, True, False]


async def test_a_slow_source_holds_back_no_answer(client: SuppressionClient) -> None:
    go_on = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        for _ in range(1000):
            yield FREE
        await go_on.wait()
        yield WRONG

    answers = client.check_stream("acme", source())
    assert [(await anext(answers)).allowed for _ in range(1000)] == [True] * 1000
    go_on.set()
    assert [answer.verdict async for answer in answers] == [Verdict.INVALID]


async def test_a_stream_over_a_copy_that_goes_away_is_answered_by_another(service: StandIn, port: int) -> None:
    other = StandIn()
    async with serving(other) as second, SuppressionClient([f"127.0.0.1:{port}", f"127.0.0.1:{second}"]) as client:
        other.failures.extend([grpc.StatusCode.UNAVAILABLE] * 3)
        answers = [answer async for answer in client.check_stream("acme", [FREE] * 10_000)]
    assert [answer.allowed for answer in answers] == [True] * 10_000


async def test_a_stream_that_nobody_answers_raises_or_says_so(client: SuppressionClient, service: StandIn) -> None:
    service.failures.extend([AWAY] * 100)
    with pytest.raises(SuppressionUnavailableError):
        await anext(client.check_stream("acme", [FREE], timeout_s=0.1))
    answers = client.check_stream("acme", [FREE], timeout_s=0.1, if_unavailable="allow")
    assert [answer.verdict async for answer in answers] == [Verdict.UNANSWERED]


async def test_what_the_source_raises_is_raised(client: SuppressionClient) -> None:
    def source() -> Iterator[str]:
        yield from [FREE] * 1000
        raise LookupError("the source's own")

    answers: list[Answer] = []
    with pytest.raises(LookupError, match="the source's own"):
        answers.extend([answer async for answer in client.check_stream("acme", source())])


# Lists.


@pytest.mark.parametrize("way", ["file", "pieces", "asynchronous pieces"])
async def test_a_list_goes_in_with_progress_and_refused_lines(
    client: SuppressionClient, service: StandIn, tmp_path: Path, way: str
) -> None:
    lines = [b"bad\n" if number % 100_000 == 7 else b"+15005550001\n" for number in range(200_000)]
    content = b"".join(lines)
    path = tmp_path / "list.csv"
    path.write_bytes(content)

    async def pieces() -> AsyncIterator[bytes]:
        yield b""
        yield content

    heard: list[Progress] = []
    refused = io.BytesIO()
    ways: dict[str, Pieces] = {"file": path, "pieces": [b"", content], "asynchronous pieces": pieces()}
    last = await client.import_list(
        "acme", ways[way], kind=Kind.STOP, effective_at=SAID_AT, progress=heard.append, refused=refused
    )
    assert last == Progress(lines=200_000, changed=199_998, unchanged=0, refused=2, done=True)
    assert heard[-1] == last
    assert [one.lines for one in heard] == sorted(one.lines for one in heard)
    assert len(heard) > 3
    assert refused.getvalue() == b"bad\nbad\n"
    asked = [one.request for one in service.asked]
    assert b"".join(one.data for one in asked) == content
    assert max(len(one.data) for one in asked) <= 1 << 20
    asked[0].data = b""
    assert asked[0] == pb.ImportRequest(
        tenant_id="acme",
        format=pb.FILE_FORMAT_CSV,
        kind=pb.SUPPRESSION_KIND_STOP,
        scope=pb.Scope(kind=pb.SCOPE_KIND_ALL),
        effective_at_us=SAID_AT_US,
    )


async def test_an_import_that_is_refused_or_cut_raises(client: SuppressionClient, service: StandIn) -> None:
    service.failures.append(served.BackhaulError(served.Code.FORBIDDEN, "It may not import."))
    with pytest.raises(ForbiddenError):
        await client.import_list("acme", [b"a\n"])
    service.failures.extend([None, grpc.StatusCode.UNAVAILABLE])
    with pytest.raises(UnreachableError):
        await client.import_list("acme", [b"a\n"] * 100)

    def source() -> Iterator[bytes]:
        yield b"a\n"
        raise LookupError("the source's own")

    with pytest.raises(LookupError, match="the source's own"):
        await client.import_list("acme", source())


async def test_a_list_comes_out_into_a_file_that_is_whole(
    client: SuppressionClient, service: StandIn, tmp_path: Path
) -> None:
    path = tmp_path / "list.csv"
    content = f"address\n{STOPPED}\n".encode()
    assert await client.export_list("acme", path) == len(content)
    assert path.read_bytes() == content
    service.failures.extend([None, grpc.StatusCode.UNAVAILABLE])
    with pytest.raises(UnreachableError):
        await client.export_list("acme", path, standing=Standing.ANY)
    assert os.listdir(tmp_path) == ["list.csv"]
    assert path.read_bytes() == content
