"""What tests of gRPC calls with one answer share: a server of one method, over loopback, and a client of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest
from backhaul_common import rpc
from backhaul_common.errors import BackhaulError
from backhaul_common.lifecycle import Readiness
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from backhaul_proto.normalizer.v1 import normalizer_pb2_grpc as pb_grpc
from serving_rig import SETTINGS, served

SERVICE = "backhaul_proto.normalizer.v1.NormalizerService"
Behaviour = Callable[[Any, Any], Awaitable[Any]]


class Servicer:
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

    def __init__(self, servicer: Servicer, server: rpc.Server, readiness: Readiness, channel: grpc.aio.Channel) -> None:
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


@asynccontextmanager
async def calling() -> AsyncIterator[Running]:
    """A server, and a client that is connected to it."""
    servicer, readiness = Servicer(), Readiness()
    async with AsyncExitStack() as stack:
        server = await served(stack, SERVICE, register=servicer.register, readiness=readiness)
        channel = rpc.connect(f"127.0.0.1:{server.port}", SETTINGS)
        stack.push_async_callback(channel.close)
        yield Running(servicer, server, readiness, channel)


class Held:
    """A behaviour that answers when ``release`` is set; ``began`` is set when it is asked."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.release = asyncio.Event()

    async def __call__(self, request: Any, context: Any) -> Any:
        self.began.set()
        await self.release.wait()
        return pb.GetMessageResponse()


def raising(error: BaseException) -> Behaviour:
    async def behaviour(request: Any, context: Any) -> Any:
        raise error

    return behaviour


async def awaited(call: Awaitable[Any]) -> Any:
    return await call
