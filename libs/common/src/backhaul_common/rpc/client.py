"""The client side: one channel for each target, whose calls pass the trace on, end in time, and raise typed errors.

- A call with one answer ends after ``DEADLINE_S`` if it is given no ``timeout``.
- A call with many requests or answers has no end of its own: a ``Watch`` lives for days, quiet for most of them. Its
  server must take it up within ``DEADLINE_S``. It ends when its caller closes it, when the ``timeout``
  that it was given is over, and, as UNAVAILABLE, when its connection is dead, which ``keepalive`` notices.

Requests of a stream come from an iterator; gRPC's way of writing them one by one is not offered. Where a request
crosses the end of the call, grpc.aio forgets why it ended (https://github.com/grpc/grpc/issues/36066); ``_Ending`` does
not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any, TypeVar

import grpc
from grpc.aio import Metadata

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.outages import Repeated
from backhaul_common.rpc import keepalive
from backhaul_common.rpc.access import HEADER
from backhaul_common.rpc.errors import ended_while_sending, from_rpc, name_of
from backhaul_common.rpc.line import Line
from backhaul_common.settings import GrpcSettings
from backhaul_common.sizes import MAX_ANSWER_BYTES
from backhaul_common.tls import channel_credentials, files_of
from backhaul_common.tracing import current_traceparent

DEADLINE_S = 5.0
"""A call with one answer that is given no timeout gets this one; a stream must be taken up by then."""

_STATUS_S = 1.0
"""How long the status of a call is waited for that was ended while more was sent: it may not have come yet."""

T = TypeVar("T")
Pairs = Iterable[tuple[str, str | bytes]]
Requests = AsyncIterator[Any] | Iterator[Any]


class Channel(grpc.aio.Channel):
    """A channel as generated stubs take it. Each call is awaited, or iterated; it is cancelled by cancelling that."""

    def __init__(
        self,
        inner: grpc.aio.Channel,
        token: str = "",
        successor: Callable[[], grpc.aio.Channel | None] = lambda: None,
    ) -> None:
        """``token`` is shown with each call that has no ``authorization`` of its own. ``successor`` says, before each
        call, whether that and later ones go over another channel; calls that are under way stay where they are."""
        self._line = Line(inner)
        self._successor = successor
        # Calls that go on for days would fail with their channel.
        self._former: set[Line] = set()
        self._authorization = f"Bearer {token}" if token else ""
        self._not_offered = Repeated("method_not_offered", component="rpc")

    def _completed(self, metadata: Pairs) -> Metadata:
        pairs = list(metadata)
        traceparent = current_traceparent()
        if traceparent:
            pairs.append(("traceparent", traceparent))
        if self._authorization and all(name != HEADER for name, _ in pairs):
            pairs.append((HEADER, self._authorization))
        return Metadata(*pairs)

    def _latest(self, kind: str, method: str, *args: Any, **options: Any) -> Callable[[], tuple[Line, Any]]:
        """What begins calls of ``method``, and over what: the present channel."""
        made_by = self._line
        begin = getattr(made_by.channel, kind)(method, *args, **options)

        def latest() -> tuple[Line, Any]:
            nonlocal made_by, begin
            if (successor := self._successor()) is not None:
                self._succeed(successor)
            if made_by is not self._line:
                made_by = self._line
                begin = getattr(made_by.channel, kind)(method, *args, **options)
            return made_by, begin

        return latest

    def _succeed(self, successor: grpc.aio.Channel) -> None:
        former, self._line = self._line, Line(successor)
        self._former = {line for line in self._former if not line.is_closed} | {former}
        former.leave()

    def _meant(self, method: str, error: grpc.aio.AioRpcError) -> BackhaulError:
        """What ``error`` means for the caller. One that passes when copies are updated passes never where the target is
        another service, so it is told of."""
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            self._not_offered.warning(method)
        return from_rpc(error, name_of(method))

    def unary_unary(self, method: str, *args: Any, **options: Any) -> Any:
        """One request, one answer."""
        latest = self._latest("unary_unary", method, *args, **options)

        async def call(request: Any, *, timeout: float | None = None, metadata: Pairs = ()) -> Any:  # noqa: ASYNC109  # it travels to the server too
            limit_s = DEADLINE_S if timeout is None else timeout
            line, begin = latest()
            with line.call():
                try:
                    return await begin(request, timeout=limit_s, metadata=self._completed(metadata))
                except grpc.aio.AioRpcError as exc:
                    raise self._meant(method, exc) from exc

        return call

    def stream_unary(self, method: str, *args: Any, **options: Any) -> Any:
        """Many requests, one answer."""
        latest, service = self._latest("stream_unary", method, *args, **options), name_of(method)

        async def call(requests: Requests, *, timeout: float | None = None, metadata: Pairs = ()) -> Any:  # noqa: ASYNC109  # it travels to the server too
            line, begin = latest()
            with line.call():
                running = begin(requests, timeout=timeout, metadata=self._completed(metadata))
                ending = _Ending(running)
                try:
                    await _taken_up(running, service)
                    return await running
                except grpc.aio.AioRpcError as exc:
                    raise self._meant(method, await ending.of(exc)) from exc
                finally:
                    running.cancel()

        return call

    def unary_stream(self, method: str, *args: Any, **options: Any) -> Any:
        """One request, many answers."""
        latest, service = self._latest("unary_stream", method, *args, **options), name_of(method)
        said = partial(self._meant, method)

        def call(request: Any, *, timeout: float | None = None, metadata: Pairs = ()) -> AsyncIterator[Any]:
            return _answers(latest, said, service, request, timeout, self._completed(metadata))

        return call

    def stream_stream(self, method: str, *args: Any, **options: Any) -> Any:
        """Many requests, many answers."""
        latest, service = self._latest("stream_stream", method, *args, **options), name_of(method)
        said = partial(self._meant, method)

        def call(requests: Requests, *, timeout: float | None = None, metadata: Pairs = ()) -> AsyncIterator[Any]:
            return _answers(latest, said, service, requests, timeout, self._completed(metadata))

        return call

    async def close(self, grace: float | None = None) -> None:
        """End every call, those that begin within ``grace`` seconds later."""
        await asyncio.gather(*(line.close(grace) for line in (*self._former, self._line)))

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """See ``grpc.aio.Channel``."""
        return self._line.channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """See ``grpc.aio.Channel``."""
        await self._line.channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """See ``grpc.aio.Channel``."""
        await self._line.channel.channel_ready()

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
    if settings.grpc_tls_cert_file is None:
        return Channel(grpc.aio.insecure_channel(target, options=options), token)
    # A channel's credentials are for good: a renewed certificate takes another channel.
    files = files_of(settings, channel_credentials)

    def successor() -> grpc.aio.Channel | None:
        return grpc.aio.secure_channel(target, files.current(), options=options) if files.renewed() else None

    return Channel(grpc.aio.secure_channel(target, files.current(), options=options), token, successor)


async def _answers(
    latest: Callable[[], tuple[Line, Any]],
    said: Callable[[grpc.aio.AioRpcError], BackhaulError],
    service: str,
    asked: Any,
    timeout_s: float | None,
    metadata: Metadata,
) -> AsyncIterator[Any]:
    # Begun here: what nobody iterates never comes to the end of it, and would keep its channel.
    line, begin = latest()
    with line.call():
        running = begin(asked, timeout=timeout_s, metadata=metadata)
        ending = _Ending(running)
        try:
            await _taken_up(running, service)
            async for answer in running:
                yield answer
        except grpc.aio.AioRpcError as exc:
            raise said(await ending.of(exc)) from exc
        finally:
            running.cancel()


class _Ending:
    """How the server ended a call. grpc.aio puts a status of its own in place of it where a request cannot be sent any
    more; it calls its callbacks for each of the two, whichever comes first."""

    def __init__(self, running: Any) -> None:
        self._told: asyncio.Future[grpc.aio.AioRpcError] = asyncio.get_running_loop().create_future()
        running.add_done_callback(self._ended)

    async def of(self, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """What ``error`` stands for."""
        if ended_while_sending(error):
            with suppress(TimeoutError):
                async with asyncio.timeout(_STATUS_S):
                    return await self._told
        return error

    def _ended(self, running: Any) -> None:
        error = grpc.aio.AioRpcError(
            _at_once(running.code()), Metadata(), _at_once(running.trailing_metadata()), _at_once(running.details())
        )
        if not self._told.done() and not ended_while_sending(error):
            self._told.set_result(error)


def _at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """What ``coroutine`` returns, which has nothing to wait for: the call has ended."""
    try:
        coroutine.send(None)
    except StopIteration as returned:
        value: T = returned.value
        return value
    coroutine.close()
    raise RuntimeError("a call that has ended has no status")


async def _taken_up(running: Any, service: str) -> None:
    """Returns when the server has begun with the call, or the call has ended."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            await running.initial_metadata()
    except TimeoutError:
        raise BackhaulError(Code.DEADLINE_EXCEEDED, f"{service} did not take the call up in time.") from None
