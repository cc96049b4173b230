"""The client side: one channel for each target, whose calls pass the trace on, end in time, and raise typed errors.

- A call with one answer ends after ``DEADLINE_S`` if it is given no ``timeout``.
- A call with many requests or answers has no end of its own: a ``Watch`` lives for days, quiet for most of them. Its
  server must take it up within ``DEADLINE_S``. It ends when its caller closes it, when the ``timeout``
  that it was given is over, and, as UNAVAILABLE, when its connection is dead, which ``keepalive`` notices.

Requests of a stream come from an iterator; gRPC's way of writing them one by one is not offered. The first is sent when
the server has taken the call up: grpc.aio forgets why a call was refused where a request crosses the refusal
(https://github.com/grpc/grpc/issues/36066).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, suppress
from typing import Any, TypeVar

import grpc
from grpc.aio import Metadata

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.rpc import keepalive
from backhaul_common.rpc.access import HEADER
from backhaul_common.rpc.errors import from_rpc, name_of
from backhaul_common.rpc.naming import TAKEN_UP
from backhaul_common.settings import GrpcSettings
from backhaul_common.sizes import MAX_ANSWER_BYTES
from backhaul_common.tracing import current_traceparent

DEADLINE_S = 5.0
"""A call with one answer that is given no timeout gets this one; a stream must be taken up by then."""

_TAKEN_UP_S = 1.0
"""How long the requests of a stream wait at most for the server to take the call up, or to refuse it."""

Answer = TypeVar("Answer")
Pairs = Iterable[tuple[str, str | bytes]]
Requests = AsyncIterator[Any] | Iterator[Any]


class Channel(grpc.aio.Channel):
    """A channel as generated stubs take it. Each call is awaited, or iterated; it is cancelled by cancelling that."""

    def __init__(self, inner: grpc.aio.Channel, token: str = "") -> None:
        """``token`` is shown with each call that has no ``authorization`` of its own."""
        self._inner = inner
        self._authorization = f"Bearer {token}" if token else ""

    def _completed(self, metadata: Pairs) -> Metadata:
        pairs = list(metadata)
        traceparent = current_traceparent()
        if traceparent:
            pairs.append(("traceparent", traceparent))
        if self._authorization and all(name != HEADER for name, _ in pairs):
            pairs.append((HEADER, self._authorization))
        return Metadata(*pairs)

    def unary_unary(self, method: str, *args: Any, **options: Any) -> Any:
        """One request, one answer."""
        begin, service = self._inner.unary_unary(method, *args, **options), name_of(method)

        async def call(request: Any, *, timeout: float | None = None, metadata: Pairs = ()) -> Any:  # noqa: ASYNC109  # it travels to the server too
            limit_s = DEADLINE_S if timeout is None else timeout
            try:
                return await begin(request, timeout=limit_s, metadata=self._completed(metadata))
            except grpc.aio.AioRpcError as exc:
                raise from_rpc(exc, service) from exc

        return call

    def stream_unary(self, method: str, *args: Any, **options: Any) -> Any:
        """Many requests, one answer."""
        begin, service = self._inner.stream_unary(method, *args, **options), name_of(method)

        async def call(requests: Requests, *, timeout: float | None = None, metadata: Pairs = ()) -> Any:  # noqa: ASYNC109  # it travels to the server too
            running = _begun(begin, requests, timeout=timeout, metadata=self._completed(metadata))
            try:
                await _taken_up(running, service)
                return await running
            except grpc.aio.AioRpcError as exc:
                raise from_rpc(exc, service) from exc
            finally:
                running.cancel()

        return call

    def unary_stream(self, method: str, *args: Any, **options: Any) -> Any:
        """One request, many answers."""
        begin, service = self._inner.unary_stream(method, *args, **options), name_of(method)

        def call(request: Any, *, timeout: float | None = None, metadata: Pairs = ()) -> AsyncIterator[Any]:
            return _answers(begin(request, timeout=timeout, metadata=self._completed(metadata)), service)

        return call

    def stream_stream(self, method: str, *args: Any, **options: Any) -> Any:
        """Many requests, many answers."""
        begin, service = self._inner.stream_stream(method, *args, **options), name_of(method)

        def call(requests: Requests, *, timeout: float | None = None, metadata: Pairs = ()) -> AsyncIterator[Any]:
            return _answers(_begun(begin, requests, timeout=timeout, metadata=self._completed(metadata)), service)

        return call

    async def close(self, grace: float | None = None) -> None:
        """End every call, those that begin within ``grace`` seconds later."""
        await self._inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """See ``grpc.aio.Channel``."""
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """See ``grpc.aio.Channel``."""
        await self._inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """See ``grpc.aio.Channel``."""
        await self._inner.channel_ready()

    async def __aenter__(self) -> Channel:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


class Channels:
    """The channels of a process: one for each target, made when it is first asked for and closed by ``stack``."""

    def __init__(self, stack: AsyncExitStack, settings: GrpcSettings) -> None:
        self._stack = stack
        self._settings = settings
        self._by_target: dict[str, Channel] = {}

    def to(self, target: str) -> Channel:
        """The channel to ``target`` (host:port)."""
        channel = self._by_target.get(target)
        if channel is None:
            channel = self._by_target[target] = connect(target, self._settings)
            self._stack.push_async_callback(channel.close)
        return channel


def connect(target: str, settings: GrpcSettings) -> Channel:
    """A channel to ``target`` (host:port). It connects when first used, and again whenever it must.

    What Backhaul's own services show each other goes with each call: only they are at the other end.
    """
    token = next(iter(settings.internal_tokens()), "")
    options = [
        ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2000),
        *keepalive.of_client(),
        # Internal services are never reached through a web proxy. The environment may name one for the outside world,
        # and gRPC would take it even to this very machine.
        ("grpc.enable_http_proxy", 0),
    ]
    if settings.grpc_tls_cert_file and settings.grpc_tls_key_file and settings.grpc_tls_ca_file:
        credentials = grpc.ssl_channel_credentials(
            root_certificates=settings.grpc_tls_ca_file.read_bytes(),
            private_key=settings.grpc_tls_key_file.read_bytes(),
            certificate_chain=settings.grpc_tls_cert_file.read_bytes(),
        )
        return Channel(grpc.aio.secure_channel(target, credentials, options=options), token)
    return Channel(grpc.aio.insecure_channel(target, options=options), token)


def _begun(begin: Callable[..., Any], requests: Requests, **options: Any) -> Any:
    """The call of ``begin``, whose requests wait until the server has taken it up, and are not sent if it refuses."""

    async def waiting() -> AsyncIterator[Any]:
        # A server that is slow, or does not say that it has taken the call up, gets them all the same.
        with suppress(TimeoutError):
            async with asyncio.timeout(_TAKEN_UP_S):
                if TAKEN_UP not in tuple(await running.initial_metadata()):
                    await running.code()  # It is refused, and why comes right behind.
        if running.done():
            return
        if isinstance(requests, AsyncIterator):
            async for request in requests:
                yield request
        else:
            for request in requests:
                yield request

    running = begin(waiting(), **options)
    return running


async def _answers(running: Any, service: str) -> AsyncIterator[Any]:
    try:
        await _taken_up(running, service)
        async for answer in running:
            yield answer
    except grpc.aio.AioRpcError as exc:
        raise from_rpc(exc, service) from exc
    finally:
        running.cancel()


async def _taken_up(running: Any, service: str) -> None:
    """Returns when the server has begun with the call, or the call has ended."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            await running.initial_metadata()
    except TimeoutError:
        raise BackhaulError(Code.DEADLINE_EXCEEDED, f"{service} did not take the call up in time.") from None
