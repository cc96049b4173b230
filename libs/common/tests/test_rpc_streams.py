"""What a stream carries: answers, requests and errors, the trace, and its one line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from backhaul_common import rpc
from backhaul_common.errors import BackhaulError, Code, Violation
from backhaul_common.tracing import Tracing, current_traceparent
from rpc_service import SERVICE, Answer, Ask
from rpc_streams_rig import Running, asks, line_of, streaming
from serving_rig import SETTINGS
from structlog.testing import capture_logs

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with streaming() as made:
        yield made


async def test_many_answers_and_their_one_line(running: Running) -> None:
    with capture_logs() as lines:
        assert await running.watch(3) == [0, 1, 2]
        line = await line_of(lines)
    assert (line["method"], line["tenant"], line["outcome"], line["sent"]) == (f"/{SERVICE}/Watch", "acme", "ok", 3)


async def test_many_requests_and_their_one_line(running: Running) -> None:
    with capture_logs() as lines:
        answer = await running.stub.Import(asks("a", "b"))
        line = await line_of(lines)
    assert (answer.number, answer.text) == (2, "a,b")
    assert (line["method"], line["tenant"]) == (f"/{SERVICE}/Import", "acme")
    assert (line["outcome"], line["received"]) == ("ok", 2)


async def test_many_requests_with_as_many_answers(running: Running) -> None:
    go_on: asyncio.Queue[str] = asyncio.Queue()

    async def in_turn() -> AsyncIterator[Any]:
        while text := await go_on.get():
            yield Ask(tenant_id="acme", text=text)

    answers = running.stub.Check(in_turn())
    for text in ("a", "b"):
        go_on.put_nowait(text)
        assert (await anext(answers)).text == text.upper()
    go_on.put_nowait("")
    assert [answer async for answer in answers] == []


async def test_the_trace_goes_on_behind_a_stream(running: Running) -> None:
    seen: list[str] = []

    async def look(request: Any) -> AsyncIterator[Any]:
        seen.append(current_traceparent())
        yield Answer()
        seen.append(current_traceparent())

    running.servicer.many = look
    with Tracing("client", None).span("request", parent=PARENT):
        await running.watch()
    await running.watch()
    assert seen[:2] == [PARENT, PARENT]
    assert seen[2] == seen[3] != PARENT


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize("method", ["Watch", "Check"])
async def test_a_typed_error_ends_a_stream(running: Running, method: str, after: int, monkeypatch: Any) -> None:
    wrong = [Violation("rows[0].address", "It is none.", "Send E.164."), Violation("rows[7]", "It is empty.")]

    async def fail(request: Any) -> AsyncIterator[Any]:
        for number in range(after):
            yield Answer(number=number)
        raise BackhaulError(Code.INVALID_ARGUMENT, "Two rows are wrong.", retry_after_s=2.5, violations=wrong)

    running.servicer.many = fail
    monkeypatch.setattr(running.servicer, "do_check", running.servicer.do_watch)
    request = Ask(tenant_id="acme") if method == "Watch" else asks("a")
    answers = getattr(running.stub, method)(request)
    with capture_logs() as lines:
        seen = [(await anext(answers)).number for _ in range(after)]
        with pytest.raises(BackhaulError) as caught:
            await anext(answers)
        line = await line_of(lines)
    assert seen == list(range(after))
    assert (caught.value.code, caught.value.message) == (Code.INVALID_ARGUMENT, "Two rows are wrong.")
    assert (caught.value.violations, caught.value.retry_after_s) == (tuple(wrong), 2.5)
    assert (line["outcome"], line["sent"]) == ("invalid_argument", after)


async def test_what_is_unexpected_in_a_stream_crosses_without_detail(running: Running) -> None:
    async def fail(request: Any) -> AsyncIterator[Any]:
        yield Answer()
        raise RuntimeError("password=hunter2")

    running.servicer.many = fail
    with capture_logs() as lines, pytest.raises(BackhaulError) as caught:
        await running.watch()
    assert caught.value.code is Code.INTERNAL
    assert "hunter2" not in str(caught.value) + str(caught.value.__cause__)
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["rpc_failed"]


async def test_a_method_that_streams_must_be_a_generator(running: Running, monkeypatch: Any) -> None:
    monkeypatch.setattr(running.servicer, "do_watch", lambda *_: [Answer()])
    with capture_logs() as lines, pytest.raises(BackhaulError) as caught:
        await running.watch()
    assert caught.value.code is Code.INTERNAL
    assert "rpc_failed" in [line["event"] for line in lines]


async def test_an_answer_beyond_grpcs_limit_is_too_large_and_not_retryable(running: Running) -> None:
    async def large(request: Any) -> AsyncIterator[Any]:
        yield Answer(text="x" * (33 << 20))

    running.servicer.many = large
    with pytest.raises(BackhaulError) as caught:
        await running.watch()
    assert caught.value.code is Code.TOO_LARGE


async def test_a_request_beyond_grpcs_limit_ends_its_stream(running: Running) -> None:
    with pytest.raises(BackhaulError) as caught:
        await running.stub.Import(asks("a", "x" * (17 << 20)))
    assert not caught.value.meaning.retryable


async def test_a_target_has_one_channel() -> None:
    async with AsyncExitStack() as stack:
        channels = rpc.Channels(stack, SETTINGS)
        first = channels.to("127.0.0.1:1")
        assert channels.to("127.0.0.1:1") is first
        assert channels.to("127.0.0.1:2") is not first
    assert first.get_state() is grpc.ChannelConnectivity.SHUTDOWN
