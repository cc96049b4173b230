"""Streams as every service speaks them: a service of this test's own, over real sockets."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from backhaul_common import rpc
from backhaul_common.errors import BackhaulError, Code, Violation
from backhaul_common.lifecycle import Readiness
from backhaul_common.rpc import edge, keepalive
from backhaul_common.settings import CommonSettings
from backhaul_common.tracing import Tracing, current_traceparent
from backhaul_testing.proxy import SilentProxy
from rpc_service import SERVICE, Answer, Ask, Stub, handlers
from structlog.testing import capture_logs

SETTINGS = CommonSettings()
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Servicer:
    """Does what the test puts in its place. ``ended`` is set when a method of it is over, however that came."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.one: Callable[[Any], Awaitable[Any]] = self._echo
        self.many: Callable[[Any], AsyncIterator[Any]] = self._count

    async def _echo(self, request: Any) -> Any:
        return Answer(text=request.text)

    async def _count(self, request: Any) -> AsyncIterator[Any]:
        for number in range(request.number):
            yield Answer(number=number)

    async def do_get(self, request: Any, context: Any) -> Any:
        return await self.one(request)

    async def do_watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async for answer in self.many(request):
                yield answer
        finally:
            self.ended.set()

    async def do_import(self, requests: AsyncIterator[Any], context: Any) -> Any:
        try:
            texts = [request.text async for request in requests]
            return Answer(number=len(texts), text=",".join(texts))
        finally:
            self.ended.set()

    async def do_check(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        try:
            async for request in requests:
                yield Answer(text=request.text.upper())
        finally:
            self.ended.set()

    async def do_keys(self, request: Any, context: Any) -> Any:
        return Answer(text="anybody's")


class Running:
    """A server, a client, and the way between them."""

    def __init__(self, servicer: Servicer, port: int, channel: rpc.Channel, closing: AsyncExitStack) -> None:
        self.servicer = servicer
        self.port = port
        self.channel = channel
        self.closing = closing
        self.stub = Stub(channel)

    async def all_of(self, method: str, request: Any) -> list[Any]:
        """Every answer of the method, also where that is one."""
        call = getattr(self.stub, method)(request)
        return [answer async for answer in call] if method in ("Watch", "Check") else [await call]

    async def watch(self, number: int = 3, **options: Any) -> list[int]:
        return [answer.number async for answer in self.stub.Watch(Ask(tenant_id="acme", number=number), **options)]


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    servicer = Servicer()
    async with AsyncExitStack() as stack:
        closing = await stack.enter_async_context(AsyncExitStack())
        with capture_logs():
            server = await rpc.serve(
                closing,
                SETTINGS,
                Tracing("test", None),
                Readiness(),
                listen="127.0.0.1:0",
                services=[SERVICE],
                register=lambda server: handlers(server, servicer),
                without_tenant=[f"{SERVICE}.Keys"],
            )
            channel = rpc.Channels(stack, SETTINGS).to(f"127.0.0.1:{server.port}")
            yield Running(servicer, server.port, channel, closing)


async def asks(*texts: str, tenant: str = "acme") -> AsyncIterator[Any]:
    for text in texts:
        yield Ask(tenant_id=tenant, text=text)


async def line_of(lines: Sequence[Any]) -> Any:
    async with asyncio.timeout(5):
        # The status leaves before the server writes its line, so the client may be the first to know.
        while not (found := [line for line in lines if line["event"] == "rpc"]):
            await asyncio.sleep(0.001)
    (line,) = found
    return line


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


# Who the call is about.


@pytest.mark.parametrize("tenant", ["", "No Such Id", "../acme"])
@pytest.mark.parametrize("method", ["Get", "Watch", "Import", "Check"])
async def test_every_call_names_a_tenant(running: Running, method: str, tenant: str) -> None:
    request = asks("a", tenant=tenant) if method in ("Import", "Check") else Ask(tenant_id=tenant)
    with pytest.raises(BackhaulError) as caught:
        await running.all_of(method, request)
    assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, "tenant_id")
    assert not running.servicer.ended.is_set()


async def test_a_method_that_is_exempt_names_none(running: Running) -> None:
    assert (await running.stub.Keys(Answer())).text == "anybody's"


@pytest.mark.parametrize("method", ["Import", "Check"])
async def test_a_stream_is_about_one_tenant(running: Running, method: str) -> None:
    async def mixed() -> AsyncIterator[Any]:
        yield Ask(tenant_id="acme", text="a")
        yield Ask(text="b")
        yield Ask(tenant_id="umbrella", text="c")

    with pytest.raises(BackhaulError) as caught:
        await running.all_of(method, mixed())
    assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, "tenant_id")


async def test_an_empty_stream_names_no_tenant(running: Running) -> None:
    with pytest.raises(BackhaulError) as caught:
        await running.stub.Import(asks())
    assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("without", [[], ["backhaul_test.v1.Service.Kyes", "backhaul_test.v1.Service.Keys"]])
async def test_what_names_no_tenant_is_declared(without: Sequence[str]) -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(ValueError, match=r"Keys takes no tenant_id|not served: .*Kyes"):
            await rpc.serve(
                stack,
                SETTINGS,
                Tracing("test", None),
                Readiness(),
                listen="127.0.0.1:0",
                services=[SERVICE],
                register=lambda _: None,
                without_tenant=without,
            )


# How long it may take.


@pytest.mark.slow
async def test_a_quiet_stream_lives_on(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    # All limits are a hundredth of a second or so: whatever applied to a quiet stream would end it.
    monkeypatch.setattr(edge, "MAX_CALL_S", 0.01)
    monkeypatch.setattr(edge, "MAX_IDLE_S", 0.05)
    monkeypatch.setattr(rpc.client, "DEADLINE_S", 0.5)
    go_on = asyncio.Event()

    async def quiet(request: Any) -> AsyncIterator[Any]:
        yield Answer(number=1)
        await go_on.wait()
        yield Answer(number=2)

    running.servicer.many = quiet
    answers = running.stub.Watch(Ask(tenant_id="acme"))
    assert (await anext(answers)).number == 1
    asyncio.get_running_loop().call_later(1.0, go_on.set)
    assert (await anext(answers)).number == 2
    assert [answer async for answer in answers] == []


async def test_a_quiet_checker_lives_on(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "MAX_IDLE_S", 0.1)

    async def seldom() -> AsyncIterator[Any]:
        yield Ask(tenant_id="acme", text="a")
        await asyncio.sleep(0.5)
        yield Ask(text="b")

    assert [answer.text async for answer in running.stub.Check(seldom())] == ["A", "B"]


async def test_the_deadline_of_a_stream_is_kept_on_both_sides(running: Running) -> None:
    async def hang(request: Any) -> AsyncIterator[Any]:
        yield Answer()
        await asyncio.Event().wait()

    running.servicer.many = hang
    with pytest.raises(BackhaulError) as caught:
        await running.watch(timeout=0.3)
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    async with asyncio.timeout(2):
        await running.servicer.ended.wait()


@pytest.mark.parametrize("method", ["Import", "Check"])
async def test_a_client_that_sends_nothing_is_not_waited_for(
    running: Running, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "MAX_IDLE_S", 0.2)
    sent = 1 if method == "Import" else 0

    async def stuck() -> AsyncIterator[Any]:
        for _ in range(sent):
            yield Ask(tenant_id="acme", text="a")
        await asyncio.Event().wait()

    with pytest.raises(BackhaulError) as caught:
        await running.all_of(method, stuck())
    assert caught.value.code is Code.DEADLINE_EXCEEDED


async def test_a_long_upload_lives_as_long_as_it_goes_on(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "MAX_IDLE_S", 0.4)
    monkeypatch.setattr(edge, "MAX_CALL_S", 0.1)

    async def slow() -> AsyncIterator[Any]:
        for _ in range(8):
            yield Ask(tenant_id="acme", text="a")
            await asyncio.sleep(0.1)

    assert (await running.stub.Import(slow())).number == 8


async def test_a_client_that_does_not_read_is_not_waited_for(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "MAX_IDLE_S", 0.3)

    async def flood(request: Any) -> AsyncIterator[Any]:
        while True:
            yield Answer(text="x" * 100_000)

    running.servicer.many = flood
    async with aclosing(running.stub.Watch(Ask(tenant_id="acme"))) as answers:
        await anext(answers)
        async with asyncio.timeout(5):
            await running.servicer.ended.wait()


async def test_a_server_that_does_not_take_a_stream_up_is_not_waited_for(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc.client, "DEADLINE_S", 0.3)

    async def asleep(self: Any, *_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(edge.Edge, "_stream", asleep)
    for work in (running.watch(), running.stub.Import(asks("a"))):
        with pytest.raises(BackhaulError) as caught:
            await work
        assert caught.value.code is Code.DEADLINE_EXCEEDED


# Whoever goes.


@pytest.mark.parametrize("how", ["closed", "cancelled", "forgotten"])
async def test_a_stream_that_is_given_up_ends_on_the_server(running: Running, how: str) -> None:
    under_way = asyncio.Event()

    async def endless(request: Any) -> AsyncIterator[Any]:
        yield Answer()
        under_way.set()
        await asyncio.Event().wait()

    running.servicer.many = endless
    with capture_logs() as lines:
        if how == "cancelled":
            reading = asyncio.create_task(running.watch())
            await asyncio.wait_for(under_way.wait(), 5)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        else:
            answers = running.stub.Watch(Ask(tenant_id="acme"))
            await anext(answers)
            if how == "closed":
                await answers.aclose()
            else:
                del answers
        async with asyncio.timeout(3):
            await running.servicer.ended.wait()
        assert (await line_of(lines))["outcome"] == "cancelled"


async def test_a_client_that_leaves_while_it_is_written_to_is_no_failure(running: Running) -> None:
    written = 0

    async def flood(request: Any) -> AsyncIterator[Any]:
        nonlocal written
        while True:
            written += 1
            yield Answer(text="x" * 100_000)

    running.servicer.many = flood
    with capture_logs() as lines:
        answers = running.stub.Watch(Ask(tenant_id="acme"))
        await anext(answers)
        async with asyncio.timeout(5):
            last = 0
            while last != written:  # Until the server waits for whoever does not read.
                last = written
                await asyncio.sleep(0.1)
        await answers.aclose()
        assert (await line_of(lines))["outcome"] == "cancelled"
    assert [line["event"] for line in lines if line["log_level"] == "error"] == []


async def test_a_server_that_stops_ends_quiet_streams_at_once_and_waits_for_the_others(running: Running) -> None:
    release, began = asyncio.Event(), asyncio.Event()

    async def quiet(request: Any) -> AsyncIterator[Any]:
        yield Answer()
        await asyncio.Event().wait()

    async def slow(request: Any) -> Any:
        began.set()
        await release.wait()
        return Answer(text="done")

    running.servicer.many, running.servicer.one = quiet, slow
    answers = running.stub.Watch(Ask(tenant_id="acme"))
    await anext(answers)
    call = asyncio.create_task(running.stub.Get(Ask(tenant_id="acme")))
    await began.wait()
    loop = asyncio.get_running_loop()
    stopped_at = loop.time()
    closing = asyncio.create_task(running.closing.aclose())
    with pytest.raises(BackhaulError) as caught:
        await anext(answers)
    assert caught.value.code is Code.UNAVAILABLE
    assert loop.time() - stopped_at < 2
    release.set()
    assert (await call).text == "done"
    await closing


_SERVER = """
import asyncio, sys
from contextlib import AsyncExitStack
sys.path.insert(0, {folder!r})
from backhaul_common import rpc
from backhaul_common.lifecycle import Readiness
from backhaul_common.settings import CommonSettings
from backhaul_common.tracing import Tracing
from rpc_service import SERVICE, Answer, handlers

class Servicer:
    async def do_watch(self, request, context):
        yield Answer(number=1)
        await asyncio.Event().wait()

async def main():
    async with AsyncExitStack() as stack:
        server = await rpc.serve(stack, CommonSettings(), Tracing("test", None), Readiness(), listen="127.0.0.1:0",
            services=[SERVICE], register=lambda server: handlers(server, Servicer()),
            without_tenant=[SERVICE + ".Keys"])
        print(server.port, file=sys.stderr, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.slow
async def test_a_server_that_is_killed_is_unavailable_in_the_middle_of_a_stream() -> None:
    program = _SERVER.format(folder=str(Path(__file__).parent))
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        assert server.stderr is not None
        port = int(await server.stderr.readline())
        async with AsyncExitStack() as stack:
            answers = Stub(rpc.Channels(stack, SETTINGS).to(f"127.0.0.1:{port}")).Watch(Ask(tenant_id="acme"))
            assert (await anext(answers)).number == 1
            os.kill(server.pid, signal.SIGKILL)
            async with asyncio.timeout(5):
                with pytest.raises(BackhaulError) as caught:
                    await anext(answers)
            assert caught.value.code is Code.UNAVAILABLE
    finally:
        with suppress(ProcessLookupError):
            server.kill()
        await server.wait()


async def test_a_connection_that_goes_silent_ends_a_stream_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepalive, "INTERVAL_S", keepalive.INTERVAL_S / 10)
    monkeypatch.setattr(keepalive, "PATIENCE_S", keepalive.PATIENCE_S / 10)
    servicer = Servicer()

    async def quiet(request: Any) -> AsyncIterator[Any]:
        yield Answer()
        await asyncio.Event().wait()

    servicer.many = quiet
    async with AsyncExitStack() as stack:
        with capture_logs():
            server = await rpc.serve(
                stack,
                SETTINGS,
                Tracing("test", None),
                Readiness(),
                listen="127.0.0.1:0",
                services=[SERVICE],
                register=lambda server: handlers(server, servicer),
                without_tenant=[f"{SERVICE}.Keys"],
            )
            proxy = await stack.enter_async_context(SilentProxy(server.port))
            answers = Stub(rpc.Channels(stack, SETTINGS).to(f"127.0.0.1:{proxy.port}")).Watch(Ask(tenant_id="acme"))
            await anext(answers)
            proxy.go_silent()
            async with asyncio.timeout(5):
                with pytest.raises(BackhaulError) as caught:
                    await anext(answers)
                assert caught.value.code is Code.UNAVAILABLE
                await servicer.ended.wait()


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
