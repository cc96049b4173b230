"""What tests of streams share: a service with a method of each shape, over real sockets, and a client of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from backhaul_common import rpc
from rpc_service import SERVICE, Answer, Ask, Stub, handlers
from serving_rig import SETTINGS, served
from structlog.testing import capture_logs


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


async def served_streams(stack: AsyncExitStack, servicer: object) -> rpc.Server:
    """A server of ``servicer``, which ends with ``stack``."""
    return await served(
        stack, SERVICE, register=partial(handlers, servicer=servicer), without_tenant=[f"{SERVICE}.Keys"]
    )


@asynccontextmanager
async def streaming() -> AsyncIterator[Running]:
    """A server, and a client that is connected to it."""
    servicer = Servicer()
    async with AsyncExitStack() as stack:
        closing = await stack.enter_async_context(AsyncExitStack())
        with capture_logs():
            server = await served_streams(closing, servicer)
            channel = rpc.Channels(stack, SETTINGS).to(f"127.0.0.1:{server.port}")
            yield Running(servicer, server.port, channel, closing)


async def asks(*texts: str, tenant: str = "acme") -> AsyncIterator[Any]:
    for text in texts:
        yield Ask(tenant_id=tenant, text=text)


async def line_of(lines: Sequence[Any]) -> Any:
    async with asyncio.timeout(60):
        # The status leaves before the server writes its line, so the client may be the first to know.
        while not (found := [line for line in lines if line["event"] == "rpc"]):
            await asyncio.sleep(0.001)
    (line,) = found
    return line
