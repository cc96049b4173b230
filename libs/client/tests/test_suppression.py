"""The client of suppression against a server that can be told to be slow, away or wrong: single checks and batches."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import grpc
import pytest
from backhaul_client import (
    ForbiddenError,
    InvalidArgumentError,
    ProblemError,
    Retries,
    TooLargeError,
    UnavailableError,
    UnexpectedAnswerError,
    UnreachableError,
)
from backhaul_client.suppression import (
    Answer,
    Family,
    Item,
    Kind,
    Purpose,
    Sending,
    SuppressedError,
    SuppressionClient,
    SuppressionUnavailableError,
    Verdict,
    wire,
)
from backhaul_client.suppression.checks import MAX_CHUNK_BYTES, MAX_ITEMS, chunks
from backhaul_common import errors as served
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from opentelemetry import context as otel_context
from opentelemetry import trace
from stand_in import FREE, SINCE_US, STOPPED, TOKEN, WRONG, StandIn, serving

AWAY = served.BackhaulError(served.Code.UNAVAILABLE, "The lease is over.", retry_after_s=5)
MARKETING = Sending(purpose=Purpose.MARKETING, sender="+15005550006", group="")


async def test_a_check_says_yes_or_every_row_that_says_no(client: SuppressionClient) -> None:
    answer = await client.check("acme", FREE)
    assert (answer.verdict, answer.allowed, answer.blocking) == (Verdict.ALLOWED, True, ())
    answer = await client.check("acme", STOPPED)
    assert (answer.verdict, answer.allowed) == (Verdict.SUPPRESSED, False)
    (row,) = answer.blocking
    assert (row.kind, row.scope.kind, row.event_id) == (Kind.STOP, "all", "e" * 32)
    assert row.since == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=SINCE_US)
    assert (await client.check("globex", STOPPED)).allowed


async def test_an_answer_is_no_condition(client: SuppressionClient) -> None:
    answer = await client.check("acme", STOPPED)
    with pytest.raises(TypeError, match=r"answer\.allowed"):
        bool(answer)
    with pytest.raises(TypeError, match="compare it"):
        bool(answer.verdict)


async def test_raise_if_suppressed_raises_without_the_address(client: SuppressionClient) -> None:
    await client.raise_if_suppressed("acme", FREE, MARKETING)
    with pytest.raises(SuppressedError, match="stop since 2026-") as raised:
        await client.raise_if_suppressed("acme", STOPPED, MARKETING)
    assert raised.value.answer.blocking[0].kind is Kind.STOP
    assert STOPPED not in str(raised.value)


@pytest.mark.timed
async def test_what_is_asked_travels_with_token_deadline_and_trace(client: SuppressionClient, service: StandIn) -> None:
    span = trace.NonRecordingSpan(trace.SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=trace.TraceFlags(1)))
    token = otel_context.attach(trace.set_span_in_context(span))
    try:
        await client.check("acme", FREE, MARKETING, family=Family.VOICE, timeout_s=0.5)
        with pytest.raises(InvalidArgumentError) as raised:
            await client.check("acme", WRONG)
    finally:
        otel_context.detach(token)
    asked = service.asked[0]
    sending = pb.Sending(purpose=pb.PURPOSE_MARKETING, sender="+15005550006", group="")
    assert asked.request == pb.CheckRequest(
        tenant_id="acme", address=FREE, family=event_pb2.ADDRESS_FAMILY_VOICE, sending=sending
    )
    assert not asked.request.sending.HasField("messaging_service")
    assert asked.metadata["authorization"] == f"Bearer {TOKEN}"
    assert asked.metadata["traceparent"] == f"00-{0xABC:032x}-{0xDEF:016x}-01"
    assert asked.left_s is not None
    assert 0.3 < asked.left_s < 0.6  # It is rounded on its way.
    assert raised.value.trace_id == f"{0xABC:032x}"


@pytest.mark.parametrize("words", wire.ENUMS)
def test_every_word_of_the_contract_is_known(words: type[StrEnum]) -> None:
    enum, prefix = wire.ENUMS[words]
    names = {name.removeprefix(prefix) for name in enum.keys()} - {"UNSPECIFIED"}  # noqa: SIM118  # no mapping
    assert names == {word.name for word in words} - {"UNKNOWN", "UNANSWERED"}
    for member in words:
        if member.name in names:
            assert wire.word(words, wire.number(words, member)) is member


def test_a_word_of_the_future_reads_as_unknown_and_is_not_sent() -> None:
    assert wire.word(Kind, 99) is Kind.UNKNOWN
    with pytest.raises(ValueError, match="no Kind that can be sent"):
        wire.number(Kind, Kind.UNKNOWN)


@pytest.mark.parametrize("result", [pb.CheckResponse(), pb.CheckResponse(verdict=99)])  # type: ignore[arg-type]  # newer
def test_a_verdict_of_the_future_is_never_allowed(result: pb.CheckResponse) -> None:
    with pytest.raises(UnexpectedAnswerError):
        wire.answer(FREE, result)


async def test_a_check_is_repeated_within_its_deadline_whatever_later_means(
    client: SuppressionClient, service: StandIn
) -> None:
    service.failures.extend([AWAY, grpc.StatusCode.UNAVAILABLE, AWAY])
    assert (await client.check("acme", STOPPED, timeout_s=0.9)).verdict is Verdict.SUPPRESSED
    assert len(service.asked) == 4
    first, last = service.asked[0].left_s, service.asked[-1].left_s
    assert first is not None
    assert last is not None
    assert last < first - 0.05


async def test_what_nobody_answers_raises_unless_the_caller_chose_to_send(
    client: SuppressionClient, service: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    service.failures.extend([AWAY] * 100)
    with pytest.raises(SuppressionUnavailableError, match="The lease is over") as raised:
        await client.check("acme", FREE, timeout_s=0.1)
    cause = raised.value.__cause__
    assert isinstance(cause, UnavailableError)
    assert (cause.status, cause.code, cause.retry_after_s) == (503, "unavailable", 5)
    with pytest.raises(SuppressionUnavailableError):
        await client.raise_if_suppressed("acme", FREE, timeout_s=0.1)
    assert not caplog.records
    with caplog.at_level(logging.WARNING, "backhaul_client.suppression"):
        answer = await client.check("acme", FREE, timeout_s=0.1, if_unavailable="allow")
    assert (answer.verdict, answer.allowed) == (Verdict.UNANSWERED, True)
    assert isinstance(answer.unavailable, UnavailableError)
    assert ["tenant=acme" in record.getMessage() for record in caplog.records] == [True]
    assert FREE not in caplog.text


async def test_no_answer_in_time_is_no_answer(client: SuppressionClient, service: StandIn) -> None:
    service.open.clear()
    with pytest.raises(SuppressionUnavailableError) as raised:
        await client.check("acme", FREE, timeout_s=0.05)
    assert isinstance(raised.value.__cause__, UnreachableError)
    assert len(service.asked) == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [(served.Code.FORBIDDEN, ForbiddenError), (served.Code.INVALID_ARGUMENT, InvalidArgumentError)],
)
async def test_what_the_caller_did_wrong_is_never_allowed(
    client: SuppressionClient, service: StandIn, code: served.Code, kind: type[ProblemError]
) -> None:
    service.failures.append(served.BackhaulError(code, "No.", field="tenant_id", fix="Ask for yours."))
    with pytest.raises(kind) as raised:
        await client.check("acme", FREE, if_unavailable="allow")
    assert (raised.value.code, raised.value.field, raised.value.fix) == (code, "tenant_id", "Ask for yours.")


async def test_nobody_at_the_address_is_no_answer(port: int) -> None:
    async with SuppressionClient("127.0.0.1:1", retries=Retries(tries=2)) as client:
        with pytest.raises(SuppressionUnavailableError) as raised:
            await client.check("acme", FREE)
    assert isinstance(raised.value.__cause__, UnreachableError)


# Many at once.


async def test_checks_that_wait_at_the_same_moment_become_one_call(client: SuppressionClient, service: StandIn) -> None:
    service.open.clear()
    first = asyncio.create_task(client.check("acme", FREE))
    await service.have_come(1)
    addresses = [FREE, STOPPED, WRONG, FREE]
    others = [asyncio.create_task(client.check("acme", address)) for address in addresses]
    foreign = [
        asyncio.create_task(client.check("globex", STOPPED)),
        asyncio.create_task(client.check("acme", STOPPED, MARKETING)),
    ]
    await service.have_come(4)
    service.open.set()
    assert (await first).allowed
    free, stopped, wrong, again = await asyncio.gather(*others, return_exceptions=True)
    assert isinstance(free, Answer) and isinstance(stopped, Answer) and isinstance(again, Answer)  # noqa: PT018  # mypy
    assert (free.allowed, stopped.allowed, again.allowed) == (True, False, True)
    assert isinstance(wrong, InvalidArgumentError)
    assert (wrong.field, wrong.fix) == ("address", "Send it as E.164.")
    assert [answer.allowed for answer in await asyncio.gather(*foreign)] == [True, False]
    assert sorted(service.methods) == ["Check", "Check", "Check", "CheckBatch"]
    (batch,) = [one for one in service.asked if one.method == "CheckBatch"]
    assert [item.address for item in batch.request.items] == addresses
    assert batch.metadata["authorization"] == f"Bearer {TOKEN}"


async def test_a_check_that_hangs_holds_up_nobody(client: SuppressionClient, service: StandIn) -> None:
    service.open.clear()
    hanging = asyncio.create_task(client.check("acme", FREE))
    await service.have_come(1)
    second = asyncio.create_task(client.check("acme", STOPPED))
    await service.have_come(2)
    assert not hanging.done()
    service.open.set()
    assert not (await second).allowed
    assert (await hanging).allowed


async def test_a_failed_call_of_many_fails_each_of_them(client: SuppressionClient, service: StandIn) -> None:
    service.open.clear()
    first = asyncio.create_task(client.check("acme", FREE))
    await service.have_come(1)
    service.failures.extend([AWAY] * 100)
    others = [asyncio.create_task(client.check("acme", FREE, timeout_s=0.2)) for _ in range(3)]
    found = await asyncio.gather(*others, return_exceptions=True)
    assert [type(one) for one in found] == [SuppressionUnavailableError] * 3
    assert len({id(one) for one in found}) == 3
    service.open.set()
    assert (await first).allowed


async def test_cancelling_one_of_many_cancels_that_one(client: SuppressionClient, service: StandIn) -> None:
    service.open.clear()
    first = asyncio.create_task(client.check("acme", FREE))
    await service.have_come(1)
    gone, stays = (asyncio.create_task(client.check("acme", STOPPED)) for _ in range(2))
    await service.have_come(2)
    for task in (first, gone):
        task.cancel()
    service.open.set()
    assert (await stays).verdict is Verdict.SUPPRESSED
    for task in (first, gone):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (await client.check("acme", FREE)).allowed


async def test_each_waits_for_no_longer_than_its_own_deadline(client: SuppressionClient, service: StandIn) -> None:
    service.open.clear()
    first = asyncio.create_task(client.check("acme", FREE))
    await service.have_come(1)
    short = asyncio.create_task(client.check("acme", FREE, timeout_s=0.05))
    long = asyncio.create_task(client.check("acme", FREE, timeout_s=5))
    with pytest.raises(SuppressionUnavailableError):
        await short
    service.open.set()
    assert (await long).allowed
    assert (await first).allowed


async def test_an_address_that_cannot_be_sent_is_its_callers_error_only(
    client: SuppressionClient, service: StandIn
) -> None:
    service.open.clear()
    first = asyncio.create_task(client.check("acme", FREE))
    await service.have_come(1)
    good = asyncio.create_task(client.check("acme", FREE))
    long = asyncio.create_task(client.check("acme", "x" * 5_000_000))
    with pytest.raises(ValueError, match="surrogates"):
        await client.check("acme", "\ud800")
    await service.have_come(2)
    service.open.set()
    assert (await good).allowed
    assert (await first).allowed
    with pytest.raises((TooLargeError, InvalidArgumentError)):
        await long


async def test_closing_ends_what_waits(port: int, service: StandIn) -> None:
    client = SuppressionClient(f"127.0.0.1:{port}")
    service.open.clear()
    tasks = [asyncio.create_task(client.check("acme", FREE)) for _ in range(3)]
    await service.have_come(2)
    await client.close()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in found] == [SuppressionUnavailableError] * 3
    with pytest.raises(RuntimeError, match="closed"):
        await client.check("acme", FREE, if_unavailable="allow")


# Batches.


async def test_a_batch_has_an_answer_for_each_in_order(client: SuppressionClient, service: StandIn) -> None:
    answers = await client.check_batch("acme", [Item(WRONG, "a"), STOPPED, Item(FREE, "c")], MARKETING)
    assert [(one.address, one.verdict, one.correlation_id) for one in answers] == [
        (WRONG, Verdict.INVALID, "a"),
        (STOPPED, Verdict.SUPPRESSED, ""),
        (FREE, Verdict.ALLOWED, "c"),
    ]
    assert answers[0].error is not None
    assert (answers[0].error.field, answers[0].allowed) == ("address", False)
    assert await client.check_batch("acme", []) == []
    assert len(service.asked) == 1


async def test_a_large_batch_goes_in_chunks(client: SuppressionClient, service: StandIn) -> None:
    answers = await client.check_batch("acme", (FREE for _ in range(2 * MAX_ITEMS + 1)))
    assert len(answers) == 2 * MAX_ITEMS + 1
    assert [len(one.request.items) for one in service.asked] == [MAX_ITEMS, MAX_ITEMS, 1]


def test_a_chunk_is_no_larger_than_the_service_takes() -> None:
    found = list(chunks(["x" * 1000] * 6000))
    assert len(found) == 2
    assert sum(len(item.address) for item in found[0]) <= MAX_CHUNK_BYTES


async def test_a_batch_that_nobody_answers_raises_or_is_unanswered(client: SuppressionClient, service: StandIn) -> None:
    service.failures.extend([AWAY] * 100)
    with pytest.raises(SuppressionUnavailableError):
        await client.check_batch("acme", [FREE], timeout_s=0.1)
    answers = await client.check_batch("acme", [Item(FREE, "a")], timeout_s=0.1, if_unavailable="allow")
    assert [(one.verdict, one.correlation_id) for one in answers] == [(Verdict.UNANSWERED, "a")]


# Addresses of the service.


async def test_calls_take_the_copies_in_turn_and_pass_over_one_that_is_away(service: StandIn, port: int) -> None:
    other = StandIn()
    async with serving(other) as second:
        targets = [f"127.0.0.1:{port}", f"127.0.0.1:{second}", "127.0.0.1:1"]
        async with SuppressionClient(targets) as client:
            for _ in range(12):
                assert (await client.check("acme", FREE)).allowed
    assert len(service.asked) + len(other.asked) == 12
    assert min(len(service.asked), len(other.asked)) >= 3


async def test_a_name_leads_to_the_service(port: int) -> None:
    async with SuppressionClient(f"dns:///localhost:{port}") as client:
        assert (await client.check("acme", FREE)).allowed


@pytest.mark.parametrize("token", [f"{TOKEN}\n", f"{TOKEN} ", f"{TOKEN}é"])
async def test_a_token_that_no_header_can_hold_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(ValueError, match="token") as raised:
        SuppressionClient("localhost:1", token=token)
    assert "secret-half" not in str(raised.value)


async def test_what_cannot_be_an_address_of_it_is_refused(client: SuppressionClient) -> None:
    wrong: list[str | list[str]] = ["", [], "a:1,"]
    for targets in wrong:
        with pytest.raises(ValueError, match="target"):
            SuppressionClient(targets)
    assert TOKEN not in repr(client)
