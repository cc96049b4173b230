"""What a process of every service has: begun whatever is away, closed in order."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from typing import Any

import grpc
import httpx
import pytest
from backhaul_common import logs
from backhaul_common.feed import StreamMessage
from backhaul_common.names import EVENTS_STREAM, NOTICES_STREAM, STREAMS, TENANT_CHANGED_SUBJECT
from backhaul_common.service import Service
from backhaul_common.settings import CommonSettings, MetricsPortSettings
from backhaul_local.mongod import MongoServer
from backhaul_local.nats_server import NatsServer
from backhaul_local.ports import Hold
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs


@pytest.fixture(autouse=True)
def _lines_can_be_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "configure", lambda *_, **__: None)


@pytest.fixture
def settings(mongo_server: MongoServer, mongo_database: str, fresh_nats: NatsServer) -> CommonSettings:
    return CommonSettings(nats_url=fresh_nats.uri, mongo_uri=mongo_server.uri, mongo_database=mongo_database)  # type: ignore[arg-type]  # pydantic makes a secret of the address


async def ready(service: Service) -> None:
    async with asyncio.timeout(60):
        while await service.readiness.failing():  # readiness has no event of its own
            await asyncio.sleep(0.02)


async def test_it_has_what_a_service_needs_and_closes_it_in_order(settings: CommonSettings) -> None:
    ended: list[str] = []
    stop = asyncio.Event()
    rounds: asyncio.Queue[str] = asyncio.Queue()

    def work(name: str) -> Any:
        async def until_cancelled() -> None:
            await rounds.put(name)
            try:
                await asyncio.Event().wait()
            finally:
                # Everything that work stands on is still there.
                await service.nats.flush()
                await service.mongo_client.admin.command("ping")
                ended.append(name)

        return until_cancelled

    async with Service("test", settings) as service:
        service.stack.callback(ended.append, "stack")
        service.run("first", work("first"))
        service.run("last", work("last"), after=service.prepared)
        hold = Hold()
        [port] = hold.choose(1)
        await service.serve(f"127.0.0.1:{port}", {})
        running = asyncio.create_task(service.until(stop))
        assert [await rounds.get(), await rounds.get()] == ["first", "last"]
        await ready(service)
        names = {info.config.name for info in await service.js.streams_info()}
        assert names == set(STREAMS)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            async with asyncio.timeout(60):
                # It is followed once a second.
                while (await health.Check(health_pb2.HealthCheckRequest())).status != 1:
                    await asyncio.sleep(0.05)
        stop.set()
        await running
        assert ended == []
    assert ended == ["last", "first", "stack"]
    assert service.nats.is_closed


async def test_readiness_is_told_on_the_metrics_port_and_not_before_the_start(settings: CommonSettings) -> None:
    hold = Hold()
    [port] = hold.choose(1)
    with_port = MetricsPortSettings(**dict(settings), metrics_port=port)
    async with Service("test", with_port) as service, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        # Its checks are still being added: that none of them fails says nothing.
        assert (await client.get("/readyz")).json()["failing"].keys() == {"start"}
        service.start()
        await ready(service)
        assert (await client.get("/readyz")).status_code == 200


async def test_whatever_is_away_at_the_start_is_waited_for(
    settings: CommonSettings, fresh_nats: NatsServer, mongo_database: str
) -> None:
    await fresh_nats.kill()
    away = settings.model_copy(
        update={"mongo_uri": type(settings.mongo_uri)("mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=100")}
    )
    async with Service("test", away) as service:
        service.start()
        failing = await service.readiness.failing()
        assert failing.keys() == {"store_format", "tenants", "streams"}
    done: list[str] = []
    fails = [True, True]

    async def prepare(name: str) -> None:
        if fails:
            fails.pop()
            raise OSError("not yet")
        done.append(name)

    with capture_logs():
        async with Service("test", settings) as service:
            service.prepare("one", lambda: prepare("one"))
            service.prepare("two", lambda: prepare("two"))

            async def begin() -> None:
                done.append("begun")
                await asyncio.Event().wait()

            service.run("work", begin, after=service.prepared)
            service.start()
            async with asyncio.timeout(60):
                while done != ["one", "two"]:  # without NATS
                    await asyncio.sleep(0.01)
            assert not service.prepared.is_set()
            assert (await service.readiness.failing()).keys() == {"streams"}
            await fresh_nats.start()
            await ready(service)
            async with asyncio.timeout(60):
                while "begun" not in done:  # as above
                    await asyncio.sleep(0.01)
    assert done == ["one", "two", "begun"]


async def test_news_of_tenants_is_heard_over_every_connection(settings: CommonSettings, fresh_nats: NatsServer) -> None:
    async with Service("test", settings) as service:
        service.start()
        await ready(service)
        await asyncio.wait_for(service.prepared.wait(), 60)
        for _ in range(2):
            reads = service.tenants.reads_begun
            await fresh_nats.kill()
            await fresh_nats.start()
            async with asyncio.timeout(60):
                while service.tenants.reads_begun == reads:  # of all tenants, as news may have been missed
                    await asyncio.sleep(0.01)
        reads = service.tenants.reads_begun
        await service.nats.publish(TENANT_CHANGED_SUBJECT, b"acme")
        async with asyncio.timeout(60):
            while service.tenants.reads_begun == reads:  # of that tenant
                await asyncio.sleep(0.01)
        assert [s.subject for s in service.nats._subs.values()].count(TENANT_CHANGED_SUBJECT) == 1


async def test_two_streams_are_followed_each_by_itself(settings: CommonSettings, fresh_nats: NatsServer) -> None:
    class Came:
        def __init__(self) -> None:
            self.at = 0

        async def position(self) -> int:
            return self.at

        async def keep(self) -> None:
            await asyncio.Event().wait()

        async def apply(self, messages: Sequence[StreamMessage]) -> None:
            self.at = messages[-1].stream_seq

        async def dead_letter(self, message: StreamMessage, error: Exception) -> None:
            raise AssertionError from error

    events, notices = Came(), Came()
    async with Service("test", settings) as service:
        service.follow(EVENTS_STREAM, events)
        service.follow(NOTICES_STREAM, notices)
        service.start()
        await ready(service)
        for sent in (1, 2):
            if sent > 1:
                # What hears of one reader's reconnection must not be in the place of the other's.
                await fresh_nats.kill()
                await fresh_nats.start()
                await ready(service)
            for subject in ("events.acme.twilio.delivered", "notices.acme.dead_letters.full"):
                await service.js.publish(subject, b"x")
            async with asyncio.timeout(60):
                while (events.at, notices.at) != (sent, sent):
                    await asyncio.sleep(0.01)


async def test_it_ends_when_what_it_waits_for_beside_the_stop_has_ended(settings: CommonSettings) -> None:
    async def server() -> None:
        raise OSError("the port is gone")

    async with Service("test", settings) as service:
        serving = asyncio.create_task(server())
        await asyncio.wait_for(service.until(asyncio.Event(), serving), 60)
        with pytest.raises(OSError, match="the port is gone"):
            await serving


async def test_what_fails_while_it_is_built_leaves_nothing_behind(settings: CommonSettings) -> None:
    others = asyncio.all_tasks()
    service = Service("test", settings)

    async def build() -> None:
        async with service:
            service.run("never", lambda: asyncio.sleep(3600))
            await service.serve("127.0.0.1:0", {})
            raise RuntimeError("a mistake")

    with pytest.raises(RuntimeError):
        await build()
    assert asyncio.all_tasks() == others


_PROGRAM = """
import asyncio
from backhaul_common.service import Service, main
from backhaul_common.settings import CommonSettings

async def run(settings: CommonSettings, stop: asyncio.Event) -> None:
    async with Service("test", settings) as service:
        service.stack.callback(print, "closed", flush=True)
        print("up", flush=True)
        await service.until(stop)

main(CommonSettings, run)
"""


@pytest.mark.slow
async def test_a_signal_ends_it_in_order_while_everything_is_away() -> None:
    env = {"BACKHAUL_NATS_URL": "nats://127.0.0.1:9", "BACKHAUL_MONGO_URI": "mongodb://127.0.0.1:9/"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PROGRAM, stdout=asyncio.subprocess.PIPE, env=env
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            while await process.stdout.readline() != b"up\n":  # lines of the log are between
                pass
            process.send_signal(signal.SIGTERM)
            rest = await process.stdout.read()
            assert b"closed\n" in rest
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
