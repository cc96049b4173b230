"""Around every call of a server: trace, caller, tenant, deadline, one log line, and the only translation of errors.

Every call is counted. Calls of frequent methods, which are more than anybody reads lines of, have one only where they
fail or take longer than ``SLOW_S``: it costs as much as all else here.

How long a call may take:

- One answer to one request: ``MAX_CALL_S``.
- One answer to many requests: ``MAX_IDLE_S`` from each request to the next, and from the last to the answer.
- Many answers: as long as the client likes. A ``Watch`` may be quiet for days. But when there is an answer to send, the
  client must take it within ``MAX_IDLE_S``. A client that is gone is noticed by ``keepalive``.

The first request of a stream must come within ``MAX_IDLE_S``, since it names the tenant. A client's own deadline is
kept in every case. A stream that has none ends as UNAVAILABLE when the server stops: its client goes on with another
copy. A stream of a service account ends, as it would be refused, when its token is revoked or expires.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from opentelemetry.trace import SpanKind

from backhaul_common.errors import CATALOGUE, BackhaulError, Code
from backhaul_common.logs import get_logger
from backhaul_common.metering import Counter
from backhaul_common.rpc.access import Access, Grant, Stay
from backhaul_common.rpc.callers import is_called_by
from backhaul_common.rpc.changes import CallLog, Entry
from backhaul_common.rpc.errors import DETAILS_KEY, shortened, to_details
from backhaul_common.rpc.naming import TenantRule
from backhaul_common.tracing import Tracing

MAX_CALL_S = 30.0
"""How long one answer to one request may take."""

MAX_IDLE_S = 30.0
"""How long a stream may stand still while the server waits for its client."""

SLOW_S = 0.1
"""Calls of frequent methods that take longer are logged."""

_DONE, _FAILED = 200, 500

_QUIET = ("/grpc.health.v1.Health/", "/grpc.reflection.")

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

_MAKERS: dict[tuple[bool, bool], tuple[str, Callable[..., Handler]]] = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}
"""By whether requests and answers are streams: a handler's attribute that does the work, and what makes a handler."""


@dataclass(slots=True)
class _Call:
    """One call: what it is, and what its line says of it."""

    method: str
    many_requests: bool
    many_answers: bool
    metadata: Sequence[tuple[str, str | bytes]] = ()
    read: Callable[[bytes], Any] | None = None
    """Takes a single request apart; None of many requests, which are taken apart when they are asked for."""
    grant: Grant | None = None
    """Where the server asks for credentials."""
    entry: Entry | None = None
    """In the log of changes, where a service account changes something."""
    tenant: str = ""
    received: int = 0
    sent: int = 0

    @property
    def streams(self) -> bool:
        return self.many_requests or self.many_answers


class _Patience:
    """When a call is given up: ``ends`` is moved, by the loop's clock, and never behind the client's deadline."""

    def __init__(self, ends: asyncio.Timeout, last: float | None) -> None:
        self._ends = ends
        self._last = last
        self._now = asyncio.get_running_loop().time

    def within(self, seconds: float) -> None:
        """The next step must come within ``seconds``."""
        soon = self._now() + seconds
        self._ends.reschedule(soon if self._last is None else min(soon, self._last))

    def for_ever(self) -> None:
        """The next step comes when it comes."""
        self._ends.reschedule(self._last)


class Edge(grpc.aio.ServerInterceptor):
    """Wraps every handler but those of health and reflection. A method that answers with a stream is an asynchronous
    generator."""

    def __init__(
        self,
        tracing: Tracing,
        tenants: TenantRule,
        access: Access | None = None,
        *,
        changes: CallLog | None = None,
        calls: Counter | None = None,
        frequent: Collection[str] = (),
    ) -> None:
        """Without ``access`` everybody may call, and nothing is put down in ``changes``. ``calls`` counts methods by
        outcomes. ``frequent`` are methods
        (``/package.Service/Method``)."""
        self._tracing = tracing
        self._tenants = tenants
        self._access = access
        self._changes = changes
        self._calls = calls
        self._frequent = frozenset(frequent)
        self._wrapped: dict[str, Handler] = {}
        self._log = get_logger()
        self._endless: set[asyncio.Task[Any]] = set()
        self._stopping = False

    def stop(self) -> None:
        """End the streams that would not end by themselves, now and from now on."""
        self._stopping = True
        for task in self._endless:
            task.cancel()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """See ``grpc.aio.ServerInterceptor``."""
        method = handler_call_details.method
        # Whoever calls for a method that is there gets the same handler each time.
        if (known := self._wrapped.get(method)) is not None:
            return known
        handler: Any = await continuation(handler_call_details)
        if handler is None or method.startswith(_QUIET):
            found: Handler | None = handler
            return found
        name, make = _MAKERS[handler.request_streaming, handler.response_streaming]
        behaviour = getattr(handler, name)

        async def wrapped(request: Any, context: Any) -> Any:
            metadata = tuple(context.invocation_metadata() or ())
            read = None if handler.request_streaming else handler.request_deserializer
            call = _Call(method, handler.request_streaming, handler.response_streaming, metadata, read)
            return await self._run(call, behaviour, request, context)

        # A single request stays bytes until it is known who calls. Some millions of empty messages fit into one that is
        # allowed, and would take a second of the event loop and half a gigabyte, from anybody.
        deserializer = handler.request_deserializer if handler.request_streaming else None
        made = self._wrapped[method] = make(
            wrapped, request_deserializer=deserializer, response_serializer=handler.response_serializer
        )
        return made

    async def _run(self, call: _Call, behaviour: Callable[..., Any], request: Any, context: Any) -> Any:
        began = time.perf_counter()
        outcome = "ok"
        traceparent = next((str(value) for key, value in call.metadata if key == "traceparent"), "") or None
        with self._tracing.span(call.method.lstrip("/"), parent=traceparent, kind=SpanKind.SERVER):
            try:
                answer = await self._bounded(call, behaviour, request, context)
                if call.entry is not None:
                    await call.entry.complete(_DONE, answer)
                return answer
            except BackhaulError as exc:
                outcome = exc.code.value
                if call.entry is not None:
                    await call.entry.complete(exc.meaning.http_status)
                await _abort(context, exc)
            except (asyncio.CancelledError, grpc.aio.AbortError):
                outcome = "cancelled"
                raise
            except Exception as exc:  # noqa: BLE001  # the edge: whatever is unexpected becomes INTERNAL without detail
                outcome = Code.INTERNAL.value
                self._log.error("rpc_failed", method=call.method, exc_info=exc)
                if call.entry is not None:
                    await call.entry.complete(_FAILED)
                await _abort(context, BackhaulError(Code.INTERNAL, CATALOGUE[Code.INTERNAL].title))
            finally:
                self._ended(call, outcome, time.perf_counter() - began)

    def _ended(self, call: _Call, outcome: str, took_s: float) -> None:
        if self._calls is not None:
            self._calls.add(call.method.lstrip("/"), outcome)
        if outcome == "ok" and took_s <= SLOW_S and call.method in self._frequent:
            return
        more: dict[str, Any] = {"received": call.received, "sent": call.sent} if call.streams else {}
        if call.grant is not None:
            more["caller"] = call.grant.caller.author or "internal"
        self._log.info(
            "rpc",
            method=call.method,
            tenant=call.tenant,
            outcome=outcome,
            duration_ms=round(took_s * 1000, 2),
            **more,
        )

    async def _bounded(self, call: _Call, behaviour: Callable[..., Any], request: Any, context: Any) -> Any:
        remaining_s: float | None = context.time_remaining()
        if not call.streams:
            remaining_s = MAX_CALL_S if remaining_s is None else min(remaining_s, MAX_CALL_S)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # grpc.aio runs each handler in a task
        if self._access is not None:
            call.grant = self._access.admit(call.method, call.metadata, context)
            is_called_by(call.grant.caller)
        if call.read is not None:
            request = _read(call.read, request)
        endless = remaining_s is None
        if endless:
            if self._stopping:
                raise _stopping()
            self._endless.add(task)
        stay: Stay | None = None
        try:
            with self._staying(call, task) as stay:
                async with asyncio.timeout(remaining_s) as ends:
                    if not call.streams:
                        await self._is_about(call, request, context)
                        return await behaviour(request, context)
                    return await self._stream(call, behaviour, request, context, stay, _Patience(ends, ends.when()))
        except TimeoutError:
            if not ends.expired():
                raise  # The call's own, about something else that was slow.
            raise BackhaulError(Code.DEADLINE_EXCEEDED, "The call took longer than it may.") from None
        except asyncio.CancelledError:
            # A client that is gone cancels too: it hears nothing of this.
            why = stay.error if stay is not None else None
            if why is None and endless and self._stopping:
                why = _stopping()
            if why is None:
                raise
            task.uncancel()
            raise why from None
        finally:
            self._endless.discard(task)

    def _staying(self, call: _Call, task: asyncio.Task[Any]) -> AbstractContextManager[Stay | None]:
        if self._access is None or call.grant is None or not call.streams:
            return nullcontext()
        return self._access.staying(call.grant, call.method, task)

    async def _is_about(self, call: _Call, request: Any, context: Any, stay: Stay | None = None) -> None:
        """``request`` is the call's first: its tenant must be named, and one that the caller may call for. What it
        changes is put down before anything is done."""
        tenant_id = self._tenants.of(call.method, request)
        if self._access is not None and call.grant is not None:
            self._access.require_tenant(call.grant, tenant_id)
        call.tenant = tenant_id
        if stay is not None:
            stay.tenant = tenant_id
        if self._changes is not None and call.grant is not None:
            caller = call.grant.caller
            call.entry = await self._changes.begun(call.method, caller, tenant_id, request, context.peer())

    async def _stream(
        self,
        call: _Call,
        behaviour: Callable[..., Any],
        request: Any,
        context: Any,
        stay: Stay | None,
        patience: _Patience,
    ) -> Any:
        if call.many_requests:
            await context.send_initial_metadata(())
            request = await self._requests(call, request, context, stay, patience)
        else:
            await self._is_about(call, request, context, stay)
            await context.send_initial_metadata(())
        if not call.many_answers:
            return await behaviour(request, context)
        async with aclosing(behaviour(request, context)) as answers:
            async for answer in answers:
                patience.within(MAX_IDLE_S)
                try:
                    await context.write(answer)
                except grpc.aio.InternalError:
                    # So gRPC tells of a client that has left meanwhile.
                    raise asyncio.CancelledError from None
                patience.for_ever()
                call.sent += 1
        return None

    async def _requests(
        self, call: _Call, requests: AsyncIterator[Any], context: Any, stay: Stay | None, patience: _Patience
    ) -> AsyncIterator[Any]:
        """The requests, whose first has come and named the tenant."""
        iterator = aiter(requests)
        patience.within(MAX_IDLE_S)
        try:
            first = await anext(iterator)
        except StopAsyncIteration:
            raise BackhaulError(
                Code.INVALID_ARGUMENT, "The stream has no request.", fix="Send one that names the tenant."
            ) from None
        await self._is_about(call, first, context, stay)

        async def all_of_them() -> AsyncIterator[Any]:
            request = first
            while True:
                call.received += 1
                if call.entry is not None:
                    call.entry.took(request)
                if call.many_answers:
                    patience.for_ever()
                else:
                    patience.within(MAX_IDLE_S)
                yield request
                try:
                    request = await anext(iterator)
                except StopAsyncIteration:
                    if not call.many_answers:
                        patience.within(MAX_IDLE_S)
                    return
                self._tenants.same(request, call.tenant)

        return all_of_them()


def _read(read: Callable[[bytes], Any], request: bytes) -> Any:
    try:
        return read(request)
    except DecodeError:
        raise BackhaulError(
            Code.INVALID_ARGUMENT, "The request cannot be read.", fix="Encode it by the contract's messages."
        ) from None


def _stopping() -> BackhaulError:
    return BackhaulError(Code.UNAVAILABLE, "The service is stopping.", fix="Begin the stream again.", retry_after_s=1)


async def _abort(context: Any, error: BackhaulError) -> None:
    await context.abort(
        error.meaning.grpc_status, shortened(error.message), trailing_metadata=((DETAILS_KEY, to_details(error)),)
    )
