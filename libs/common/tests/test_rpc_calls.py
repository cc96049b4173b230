"""A gRPC call as every service makes and serves it, over loopback: its line, its count, its deadline and its trace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from backhaul_common import rpc
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.lifecycle import Readiness
from backhaul_common.metering import Counter
from backhaul_common.metrics import GRPC_CALLS
from backhaul_common.tracing import Tracing, current_traceparent
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from rpc_calls_rig import SERVICE, Running, Servicer, calling
from serving_rig import SETTINGS, served
from structlog.testing import capture_logs


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with calling() as made:
        yield made


async def test_a_frequent_method_is_counted_and_has_a_line_where_it_fails_or_is_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    servicer, calls = Servicer(), Counter(GRPC_CALLS)

    async def refuses(request: Any, context: Any) -> Any:
        raise BackhaulError(Code.NOT_FOUND, "There is none.")

    async with AsyncExitStack() as stack:
        server = await served(
            stack, SERVICE, register=servicer.register, calls=calls, frequent=[f"{SERVICE}.GetMessage"]
        )
        channel = rpc.connect(f"127.0.0.1:{server.port}", SETTINGS)
        stack.push_async_callback(channel.close)
        running = Running(servicer, server, Readiness(), channel)
        with capture_logs() as lines:
            await running.get(servicer.answer)
            await running.error(refuses)
            monkeypatch.setattr("backhaul_common.rpc.edge.SLOW_S", -1.0)
            await running.get(servicer.answer)
        assert [line["outcome"] for line in lines if line["event"] == "rpc"] == ["not_found", "ok"]
        assert calls.value(f"{SERVICE}/GetMessage", "ok") == 2
        assert calls.value(f"{SERVICE}/GetMessage", "not_found") == 1


async def test_what_the_server_does_not_offer_is_told_of_and_may_be_tried_again(running: Running) -> None:
    method = f"/{SERVICE}/Nothing"
    ask = running.channel.unary_unary(
        method,
        request_serializer=pb.GetMessageRequest.SerializeToString,
        response_deserializer=pb.GetMessageResponse.FromString,
    )
    with capture_logs() as lines:
        for _ in range(2):
            with pytest.raises(BackhaulError) as caught:
                await ask(pb.GetMessageRequest(tenant_id="acme"))
            assert caught.value.code is Code.UNAVAILABLE
    told = [line for line in lines if line["event"] == "method_not_offered"]
    assert [(line["error"], line["log_level"]) for line in told] == [(method, "warning")]


async def test_an_answer_and_its_one_log_line(running: Running) -> None:
    with capture_logs() as lines:
        assert await running.get(running.servicer.answer) == pb.GetMessageResponse()
    (line,) = [line for line in lines if line["event"] == "rpc"]
    assert line["method"] == f"/{SERVICE}/GetMessage"
    assert (line["tenant"], line["outcome"]) == ("acme", "ok")
    assert line["duration_ms"] >= 0


@pytest.mark.timed
async def test_a_call_that_overruns_its_deadline_is_ended_on_both_sides(running: Running) -> None:
    ended = asyncio.Event()

    async def hang(request: Any, context: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    loop = asyncio.get_running_loop()
    began = loop.time()
    with capture_logs():
        error = await running.error(hang, timeout=0.2)
        async with asyncio.timeout(2):
            await ended.wait()
    assert error.code is Code.DEADLINE_EXCEEDED
    assert loop.time() - began < 1.5


@pytest.mark.timed
async def test_a_call_that_is_given_up_is_ended_on_the_server(running: Running) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def hang(request: Any, context: Any) -> Any:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with capture_logs():
        call = asyncio.create_task(running.get(hang))
        async with asyncio.timeout(2):
            await began.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await ended.wait()


async def test_every_call_has_a_deadline(running: Running) -> None:
    remaining: list[float] = []

    async def look(request: Any, context: Any) -> Any:
        remaining.append(context.time_remaining())
        return pb.GetMessageResponse()

    with capture_logs():
        await running.get(look)
    # A deadline travels as the time that is left, in few digits: gRPC may round it up by up to a hundredth.
    assert 3 < remaining[0] <= 5.05


async def test_the_trace_goes_on_behind_the_call(running: Running) -> None:
    seen: list[str] = []

    async def look(request: Any, context: Any) -> Any:
        seen.append(current_traceparent())
        return pb.GetMessageResponse()

    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with capture_logs():
        with Tracing("client", None).span("request", parent=parent):
            await running.get(look)
        await running.get(look)
        await running.get(look, metadata=(("traceparent", "nonsense"),))
    assert seen[0] == parent
    # Without one, each call is a trace of its own.
    assert len({text[3:35] for text in seen}) == 3
    assert all(text for text in seen)
