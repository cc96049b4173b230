"""Around every call of a server: trace, tenant, deadline, one log line, and the only translation of errors.

How long a call may take:

- One answer to one request: ``MAX_CALL_S``.
- One answer to many requests: ``MAX_IDLE_S`` from each request to the next, and from the last to the answer.
- Many answers: as long as the client likes. A ``Watch`` may be quiet for days. But when there is an answer to send, the
  client must take it within ``MAX_IDLE_S``. A client that is gone is noticed by ``keepalive``.

The first request of a stream must come within ``MAX_IDLE_S``, since it names the tenant. A client's own deadline is
kept in every case. A stream that has none ends as UNAVAILABLE when the server stops: its client goes on with another
copy.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
from opentelemetry.trace import SpanKind

from backhaul_common.errors import CATALOGUE, BackhaulError, Code
from backhaul_common.logs import get_logger
from backhaul_common.rpc.errors import DETAILS_KEY, shortened, to_details
from backhaul_common.rpc.naming import TenantRule
from backhaul_common.tracing import Tracing

MAX_CALL_S = 30.0
"""How long one answer to one request may take."""

MAX_IDLE_S = 30.0
"""How long a stream may stand still while the server waits for its client."""

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

    def __init__(self, tracing: Tracing, tenants: TenantRule) -> None:
        self._tracing = tracing
        self._tenants = tenants
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
        handler: Any = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(_QUIET):
            found: Handler | None = handler
            return found
        traceparent = str(dict(handler_call_details.invocation_metadata).get("traceparent", "")) or None
        name, make = _MAKERS[handler.request_streaming, handler.response_streaming]
        behaviour = getattr(handler, name)

        async def wrapped(request: Any, context: Any) -> Any:
            call = _Call(method, handler.request_streaming, handler.response_streaming)
            return await self._run(call, behaviour, request, context, traceparent)

        return make(
            wrapped, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer
        )

    async def _run(
        self, call: _Call, behaviour: Callable[..., Any], request: Any, context: Any, traceparent: str | None
    ) -> Any:
        began = time.perf_counter()
        outcome = "ok"
        with self._tracing.span(call.method.lstrip("/"), parent=traceparent, kind=SpanKind.SERVER):
            try:
                return await self._bounded(call, behaviour, request, context)
            except BackhaulError as exc:
                outcome = exc.code.value
                await _abort(context, exc)
            except (asyncio.CancelledError, grpc.aio.AbortError):
                outcome = "cancelled"
                raise
            except Exception as exc:  # noqa: BLE001  # the edge: whatever is unexpected becomes INTERNAL without detail
                outcome = Code.INTERNAL.value
                self._log.error("rpc_failed", method=call.method, exc_info=exc)
                await _abort(context, BackhaulError(Code.INTERNAL, CATALOGUE[Code.INTERNAL].title))
            finally:
                counts = {"received": call.received, "sent": call.sent} if call.streams else {}
                self._log.info(
                    "rpc",
                    method=call.method,
                    tenant=call.tenant,
                    outcome=outcome,
                    duration_ms=round((time.perf_counter() - began) * 1000, 2),
                    **counts,
                )

    async def _bounded(self, call: _Call, behaviour: Callable[..., Any], request: Any, context: Any) -> Any:
        remaining_s: float | None = context.time_remaining()
        if not call.streams:
            remaining_s = MAX_CALL_S if remaining_s is None else min(remaining_s, MAX_CALL_S)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # grpc.aio runs each handler in a task
        endless = remaining_s is None
        if endless:
            if self._stopping:
                raise _stopping()
            self._endless.add(task)
        try:
            async with asyncio.timeout(remaining_s) as ends:
                if not call.streams:
                    call.tenant = self._tenants.of(call.method, request)
                    return await behaviour(request, context)
                return await self._stream(call, behaviour, request, context, _Patience(ends, ends.when()))
        except TimeoutError:
            if not ends.expired():
                raise  # The call's own, about something else that was slow.
            raise BackhaulError(Code.DEADLINE_EXCEEDED, "The call took longer than it may.") from None
        except asyncio.CancelledError:
            # A client that is gone cancels too: it hears nothing of this.
            if not (endless and self._stopping):
                raise
            task.uncancel()
            raise _stopping() from None
        finally:
            self._endless.discard(task)

    async def _stream(
        self, call: _Call, behaviour: Callable[..., Any], request: Any, context: Any, patience: _Patience
    ) -> Any:
        if call.many_requests:
            await context.send_initial_metadata(())
            request = await self._requests(call, request, patience)
        else:
            call.tenant = self._tenants.of(call.method, request)
            await context.send_initial_metadata(())
        if not call.many_answers:
            return await behaviour(request, context)
        async with aclosing(behaviour(request, context)) as answers:
            async for answer in answers:
                patience.within(MAX_IDLE_S)
                await context.write(answer)
                patience.for_ever()
                call.sent += 1
        return None

    async def _requests(self, call: _Call, requests: AsyncIterator[Any], patience: _Patience) -> AsyncIterator[Any]:
        """The requests, whose first has come and named the tenant."""
        iterator = aiter(requests)
        patience.within(MAX_IDLE_S)
        try:
            first = await anext(iterator)
        except StopAsyncIteration:
            raise BackhaulError(
                Code.INVALID_ARGUMENT, "The stream has no request.", fix="Send one that names the tenant."
            ) from None
        call.tenant = self._tenants.of(call.method, first)

        async def all_of_them() -> AsyncIterator[Any]:
            request = first
            while True:
                call.received += 1
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


def _stopping() -> BackhaulError:
    return BackhaulError(Code.UNAVAILABLE, "The service is stopping.", fix="Begin the stream again.", retry_after_s=1)


async def _abort(context: Any, error: BackhaulError) -> None:
    await context.abort(
        error.meaning.grpc_status, shortened(error.message), trailing_metadata=((DETAILS_KEY, to_details(error)),)
    )
