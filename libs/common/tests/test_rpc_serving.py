"""What a gRPC server says of itself, by health and by reflection, and how it begins and ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import grpc
import pytest
from backhaul_common import rpc
from backhaul_common.lifecycle import Readiness
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from backhaul_proto.normalizer.v1 import normalizer_pb2_grpc as pb_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from rpc_calls_rig import SERVICE, Held, Running, Servicer, awaited, calling
from serving_rig import SETTINGS, served
from structlog.testing import capture_logs


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with calling() as made:
        yield made


async def test_only_what_is_served_is_frequent() -> None:
    with pytest.raises(ValueError, match="called often, and not served"):
        async with AsyncExitStack() as stack:
            await served(stack, SERVICE, register=Servicer().register, frequent=[f"{SERVICE}.GetNothing"])


async def _health(running: Running, service: str, wanted: int) -> None:
    stub = health_pb2_grpc.HealthStub(running.channel)
    async with asyncio.timeout(60):
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
        server = await served(stack, readiness=readiness)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_health_is_the_first_to_know_of_a_stop() -> None:
    servicer = Servicer()
    servicer.behaviour = held = Held()
    stack = AsyncExitStack()
    with capture_logs():
        server = await served(stack, SERVICE, register=servicer.register)
        channel = rpc.connect(f"127.0.0.1:{server.port}", SETTINGS)
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        stub: Any = pb_grpc.NormalizerServiceStub(channel)
        async with asyncio.timeout(60):
            while (await anext(watch)).status != health_pb2.HealthCheckResponse.SERVING:
                pass
            call = asyncio.ensure_future(awaited(stub.GetMessage(pb.GetMessageRequest(tenant_id="acme"))))
            await held.began.wait()
            closing = asyncio.create_task(stack.aclose())
            assert (await anext(watch)).status == health_pb2.HealthCheckResponse.NOT_SERVING
            # It was said while the server still had work.
            assert not call.done()
            held.release.set()
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
        with pytest.raises(OSError, match=f"No gRPC server can listen on 127.0.0.1:{running.server.port}: "):
            await served(stack, listen=running.target)


@pytest.mark.timed
async def test_the_end_waits_for_calls_in_flight() -> None:
    servicer = Servicer()
    servicer.behaviour = held = Held()
    stack = AsyncExitStack()
    with capture_logs():
        server = await served(stack, SERVICE, register=servicer.register)
        channel = rpc.connect(f"127.0.0.1:{server.port}", SETTINGS)
        stub: Any = pb_grpc.NormalizerServiceStub(channel)
        call = asyncio.ensure_future(awaited(stub.GetMessage(pb.GetMessageRequest(tenant_id="acme"))))
        await held.began.wait()
        closing = asyncio.create_task(stack.aclose())
        async with asyncio.timeout(3):
            with suppress(ConnectionError):
                while True:  # Until the server has begun to stop: nobody is let in.
                    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
                    writer.close()
                    await asyncio.sleep(0.01)
        held.release.set()
        async with asyncio.timeout(3):
            assert await call == pb.GetMessageResponse()
            await closing
        await channel.close()
