"""A stream whose client or server goes: given up, stopped, killed, or silent."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from backhaul_common import rpc
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.rpc import keepalive
from backhaul_testing.proxy import SilentProxy
from rpc_service import Answer, Ask, Stub
from rpc_streams_rig import Running, Servicer, line_of, served_streams, streaming
from serving_rig import SETTINGS
from structlog.testing import capture_logs


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with streaming() as made:
        yield made


@pytest.mark.timed
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
        async with asyncio.timeout(60):
            last = 0
            while last != written:  # Until the server waits for whoever does not read.
                last = written
                await asyncio.sleep(0.1)
        await answers.aclose()
        assert (await line_of(lines))["outcome"] == "cancelled"
    assert [line["event"] for line in lines if line["log_level"] == "error"] == []


@pytest.mark.timed
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
from rpc_service import Answer
from rpc_streams_rig import served_streams

class Servicer:
    async def do_watch(self, request, context):
        yield Answer(number=1)
        await asyncio.Event().wait()

async def main():
    async with AsyncExitStack() as stack:
        server = await served_streams(stack, Servicer())
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
            async with asyncio.timeout(60):
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
            server = await served_streams(stack, servicer)
            proxy = await stack.enter_async_context(SilentProxy(server.port))
            answers = Stub(rpc.Channels(stack, SETTINGS).to(f"127.0.0.1:{proxy.port}")).Watch(Ask(tenant_id="acme"))
            await anext(answers)
            proxy.go_silent()
            async with asyncio.timeout(60):
                with pytest.raises(BackhaulError) as caught:
                    await anext(answers)
                assert caught.value.code is Code.UNAVAILABLE
                await servicer.ended.wait()
