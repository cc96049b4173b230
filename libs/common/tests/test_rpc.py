"""gRPC as every service speaks it, over loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import grpc
import pytest
from backhaul_common import rpc
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.lifecycle import Readiness
from backhaul_common.metrics import GRPC_CALLS, Counter
from backhaul_common.settings import CommonSettings
from backhaul_common.tracing import Tracing, current_traceparent
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from backhaul_proto.normalizer.v1 import normalizer_pb2_grpc as pb_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from structlog.testing import capture_logs

SERVICE = "backhaul_proto.normalizer.v1.NormalizerService"
SETTINGS = CommonSettings()

Behaviour = Callable[[Any, Any], Awaitable[Any]]


class _Servicer:
    """Does in GetMessage what the test says. The contract's other methods are not there, and may change."""

    def __init__(self) -> None:
        self.behaviour: Behaviour = self.answer

    async def answer(self, request: Any, context: Any) -> Any:
        return pb.GetMessageResponse()

    async def get_message(self, request: Any, context: Any) -> Any:
        return await self.behaviour(request, context)

    def register(self, server: grpc.aio.Server) -> None:
        handler = grpc.unary_unary_rpc_method_handler(
            self.get_message,
            request_deserializer=pb.GetMessageRequest.FromString,
            response_serializer=pb.GetMessageResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"GetMessage": handler}),))


class Running:
    """A server and a client of it, and the connection's pieces for tests that need others."""

    def __init__(
        self, servicer: _Servicer, server: rpc.Server, readiness: Readiness, channel: grpc.aio.Channel
    ) -> None:
        self.servicer = servicer
        self.server = server
        self.readiness = readiness
        self.channel = channel
        self.stub: Any = pb_grpc.NormalizerServiceStub(channel)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    async def get(self, behaviour: Behaviour, **options: Any) -> Any:
        self.servicer.behaviour = behaviour
        return await self.stub.GetMessage(pb.GetMessageRequest(tenant_id="acme"), **options)

    async def error(self, behaviour: Behaviour, **options: Any) -> BackhaulError:
        with pytest.raises(BackhaulError) as caught:
            await self.get(behaviour, **options)
        return caught.value


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    servicer, readiness = _Servicer(), Readiness()
    async with AsyncExitStack() as stack:
        server = await rpc.serve(
            stack,
            SETTINGS,
            Tracing("test", None),
            readiness,
            listen="127.0.0.1:0",
            services=[SERVICE],
            register=servicer.register,
        )
        channel = rpc.connect(f"127.0.0.1:{server.port}", SETTINGS)
        stack.push_async_callback(channel.close)
        yield Running(servicer, server, readiness, channel)


def raising(error: BaseException) -> Behaviour:
    async def behaviour(request: Any, context: Any) -> Any:
        raise error

    return behaviour


async def test_a_frequent_method_is_counted_and_has_a_line_where_it_fails_or_is_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    servicer, calls = _Servicer(), Counter(GRPC_CALLS)

    async def refuses(request: Any, context: Any) -> Any:
        raise BackhaulError(Code.NOT_FOUND, "There is none.")

    async with AsyncExitStack() as stack:
        server = await rpc.serve(
            stack,
            SETTINGS,
            Tracing("test", None),
            Readiness(),
            listen="127.0.0.1:0",
            services=[SERVICE],
            register=servicer.register,
            calls=calls,
            frequent=[f"{SERVICE}.GetMessage"],
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


async def test_only_what_is_served_is_frequent() -> None:
    with pytest.raises(ValueError, match="called often, and not served"):
        async with AsyncExitStack() as stack:
            await rpc.serve(
                stack,
                SETTINGS,
                Tracing("test", None),
                Readiness(),
                listen="127.0.0.1:0",
                services=[SERVICE],
                register=_Servicer().register,
                frequent=[f"{SERVICE}.GetNothing"],
            )


async def test_an_answer_and_its_one_log_line(running: Running) -> None:
    with capture_logs() as lines:
        assert await running.get(running.servicer.answer) == pb.GetMessageResponse()
    (line,) = [line for line in lines if line["event"] == "rpc"]
    assert line["method"] == f"/{SERVICE}/GetMessage"
    assert (line["tenant"], line["outcome"]) == ("acme", "ok")
    assert line["duration_ms"] >= 0


@pytest.mark.parametrize("code", Code)
async def test_a_typed_error_crosses(code: Code, running: Running) -> None:
    with capture_logs() as lines:
        error = await running.error(
            raising(BackhaulError(code, "Größe «1»\nline", field="query.limit", fix="Less.", retry_after_s=0.5))
        )
        async with asyncio.timeout(5):
            # The status leaves before the server writes its line, so the client may be the first to know.
            while not any(line["event"] == "rpc" for line in lines):  # a list has no event
                await asyncio.sleep(0.001)
    assert (error.code, error.message, error.field, error.fix, error.retry_after_s) == (
        code,
        "Größe «1»\nline",
        "query.limit",
        "Less.",
        0.5,
    )
    assert [line["outcome"] for line in lines if line["event"] == "rpc"] == [code.value]


async def test_an_error_with_a_long_text_crosses_too(running: Running) -> None:
    with capture_logs():
        error = await running.error(raising(BackhaulError(Code.INVALID_ARGUMENT, "ß" * 100_000, field="f" * 9000)))
    assert error.code is Code.INVALID_ARGUMENT
    assert error.field.startswith("fff")


async def test_what_is_unexpected_crosses_without_detail(running: Running) -> None:
    with capture_logs() as lines:
        error = await running.error(raising(RuntimeError("password=hunter2")))
    assert error.code is Code.INTERNAL
    assert "hunter2" not in str(error)
    assert isinstance(error.__cause__, grpc.aio.AioRpcError)
    assert "hunter2" not in str(error.__cause__)
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["rpc_failed"]


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


async def test_somebody_elses_timeout_is_not_the_calls_deadline(running: Running) -> None:
    with capture_logs():
        error = await running.error(raising(TimeoutError("the database driver's")))
    assert error.code is Code.INTERNAL


async def test_a_message_beyond_grpcs_limit_is_too_large_and_not_retryable(running: Running) -> None:
    request = pb.GetMessageRequest()
    request.ParseFromString(b"\xfa\x07" + _varint(17 << 20) + b"x" * (17 << 20))  # An unknown field of 17 MiB.
    with pytest.raises(BackhaulError) as caught:
        await running.stub.GetMessage(request)
    assert caught.value.code is Code.TOO_LARGE
    assert not caught.value.meaning.retryable


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


async def test_a_method_that_is_not_there_is_internal(running: Running) -> None:
    call: Any = running.channel.unary_unary(f"/{SERVICE}/Nothing")
    with capture_logs(), pytest.raises(BackhaulError) as caught:
        await call(b"")
    assert caught.value.code is Code.INTERNAL


async def test_a_server_that_is_away_is_unavailable_at_once() -> None:
    with socket.socket() as taken:  # Bound and not listening: nobody is there.
        taken.bind(("127.0.0.1", 0))
        channel = rpc.connect(f"127.0.0.1:{taken.getsockname()[1]}", SETTINGS)
        stub: Any = pb_grpc.NormalizerServiceStub(channel)
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(BackhaulError) as caught:
            await stub.GetMessage(pb.GetMessageRequest(tenant_id="acme"))
        assert caught.value.code is Code.UNAVAILABLE
        assert loop.time() - began < 1
        await channel.close()


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


async def _health(running: Running, service: str, wanted: int) -> None:
    stub = health_pb2_grpc.HealthStub(running.channel)
    async with asyncio.timeout(5):
        async for answer in stub.Watch(health_pb2.HealthCheckRequest(service=service)):
            if answer.status == wanted:
                return


@pytest.mark.slow
async def test_health_follows_readiness(running: Running) -> None:
    there = True

    async def check() -> None:
        if not there:
            raise ConnectionError("away")

    running.readiness.add("nats", check)
    for service in ("", SERVICE):
        with capture_logs():
            await _health(running, service, health_pb2.HealthCheckResponse.SERVING)
    there = False
    with capture_logs() as lines:
        await _health(running, SERVICE, health_pb2.HealthCheckResponse.NOT_SERVING)
        await _health(running, "", health_pb2.HealthCheckResponse.NOT_SERVING)
    assert [line.get("nats") for line in lines if line["event"] == "not_ready"] == ["away"]
    there = True
    with capture_logs():
        await _health(running, SERVICE, health_pb2.HealthCheckResponse.SERVING)


async def test_health_is_never_good_before_readiness_was_asked() -> None:
    readiness = Readiness()

    async def hangs() -> None:
        await asyncio.Event().wait()

    readiness.add("mongo", hangs)
    async with AsyncExitStack() as stack:
        server = await rpc.serve(
            stack,
            SETTINGS,
            Tracing("test", None),
            readiness,
            listen="127.0.0.1:0",
            services=[],
            register=lambda _: None,
        )
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_health_is_the_first_to_know_of_a_stop() -> None:
    servicer = _Servicer()
    began, release = asyncio.Event(), asyncio.Event()

    async def slow(request: Any, context: Any) -> Any:
        began.set()
        await release.wait()
        return pb.GetMessageResponse()

    servicer.behaviour = slow
    stack = AsyncExitStack()
    with capture_logs():
        server = await rpc.serve(
            stack,
            SETTINGS,
            Tracing("test", None),
            Readiness(),
            listen="127.0.0.1:0",
            services=[SERVICE],
            register=servicer.register,
        )
        channel = rpc.connect(f"127.0.0.1:{server.port}", SETTINGS)
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        stub: Any = pb_grpc.NormalizerServiceStub(channel)
        async with asyncio.timeout(5):
            while (await anext(watch)).status != health_pb2.HealthCheckResponse.SERVING:
                pass
            call = asyncio.ensure_future(_awaited(stub.GetMessage(pb.GetMessageRequest(tenant_id="acme"))))
            await began.wait()
            closing = asyncio.create_task(stack.aclose())
            assert (await anext(watch)).status == health_pb2.HealthCheckResponse.NOT_SERVING
            # It was said while the server still had work.
            assert not call.done()
            release.set()
            assert await call == pb.GetMessageResponse()
            await watch.aclose()
            await closing
        await channel.close()


async def test_reflection_lists_the_services(running: Running) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(running.channel)

    async def questions() -> AsyncIterator[Any]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        yield reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE)

    listed, described = [answer async for answer in stub.ServerReflectionInfo(questions())]
    assert {service.name for service in listed.list_services_response.service} == {
        SERVICE,
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert described.file_descriptor_response.file_descriptor_proto


async def test_a_taken_port_is_refused(running: Running) -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(RuntimeError, match=str(running.server.port)):
            await rpc.serve(
                stack,
                SETTINGS,
                Tracing("test", None),
                Readiness(),
                listen=running.target,
                services=[],
                register=lambda _: None,
            )


async def test_the_end_waits_for_calls_in_flight() -> None:
    servicer = _Servicer()
    began, release = asyncio.Event(), asyncio.Event()

    async def slow(request: Any, context: Any) -> Any:
        began.set()
        await release.wait()
        return pb.GetMessageResponse()

    servicer.behaviour = slow
    stack = AsyncExitStack()
    with capture_logs():
        server = await rpc.serve(
            stack,
            SETTINGS,
            Tracing("test", None),
            Readiness(),
            listen="127.0.0.1:0",
            services=[SERVICE],
            register=servicer.register,
        )
        channel = rpc.connect(f"127.0.0.1:{server.port}", SETTINGS)
        stub: Any = pb_grpc.NormalizerServiceStub(channel)
        call = asyncio.ensure_future(_awaited(stub.GetMessage(pb.GetMessageRequest(tenant_id="acme"))))
        await began.wait()
        closing = asyncio.create_task(stack.aclose())
        async with asyncio.timeout(3):
            with suppress(ConnectionError):
                while True:  # Until the server has begun to stop: nobody is let in.
                    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
                    writer.close()
                    await asyncio.sleep(0.01)
        release.set()
        async with asyncio.timeout(3):
            assert await call == pb.GetMessageResponse()
            await closing
        await channel.close()


async def _awaited(call: Awaitable[Any]) -> Any:
    return await call
