"""An OpenTelemetry collector: takes traces over OTLP/gRPC, and keeps them for the test to look at."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage


@dataclass(frozen=True, slots=True)
class Span:
    """One finished span; ids in lower-case hex, ``parent`` empty for a root."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent: str
    kind: str
    attributes: dict[str, str]
    started_ns: int
    ended_ns: int


class Collector:
    """``async with Collector() as collector``: listens on ``collector.endpoint`` of the loopback interface."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._server = grpc.aio.server()
        self._port = 0
        self._exported = asyncio.Condition()

    @property
    def endpoint(self) -> str:
        """What ``OTEL_EXPORTER_OTLP_ENDPOINT`` has to be."""
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        register = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
        register(_Servicer(self), self._server)  # type: ignore[no-untyped-call]  # generated without stubs
        self._port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._server.stop(None)

    async def take(self, spans: list[Span]) -> None:
        """Keep ``spans``, and wake whoever waits for them."""
        async with self._exported:
            self.spans += spans
            self._exported.notify_all()

    def trace(self, trace_id: str) -> list[Span]:
        """The spans of one trace that have arrived."""
        return [span for span in self.spans if span.trace_id == trace_id]

    async def whole_trace(
        self, trace_id: str, expected: set[tuple[str, str]], *, within_s: float = 15.0
    ) -> dict[tuple[str, str], Span]:
        """The spans of one trace by service and name, as soon as all that are ``expected`` are there. AssertionError
        names the missing, those that are not expected, and those that are there twice."""

        def there() -> list[tuple[str, str]]:
            return [(span.service, span.name) for span in self.trace(trace_id)]

        with suppress(TimeoutError):
            async with asyncio.timeout(within_s), self._exported:
                await self._exported.wait_for(lambda: expected <= set(there()))
        if sorted(there()) != sorted(expected):
            others = sorted({f"{span.service}: {span.name}" for span in self.spans if span.trace_id != trace_id})
            raise AssertionError(
                f"trace {trace_id} lacks {sorted(expected - set(there()))}; it has {sorted(there())}; "
                f"other traces have {others}"
            )
        return {(span.service, span.name): span for span in self.trace(trace_id)}


class _Servicer(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def Export(  # noqa: N802  # gRPC dictates the name
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: Any
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        spans = []
        for resource_spans in request.resource_spans:
            resource = {pair.key: pair.value.string_value for pair in resource_spans.resource.attributes}
            for scope_spans in resource_spans.scope_spans:
                spans += [_span(resource.get("service.name", ""), message) for message in scope_spans.spans]
        await self._collector.take(spans)
        return trace_service_pb2.ExportTraceServiceResponse()


def _span(service: str, message: SpanMessage) -> Span:
    return Span(
        service=service,
        name=message.name,
        trace_id=message.trace_id.hex(),
        span_id=message.span_id.hex(),
        parent=message.parent_span_id.hex(),
        kind=SpanMessage.SpanKind.Name(message.kind).removeprefix("SPAN_KIND_").lower(),
        attributes={pair.key: pair.value.string_value or str(pair.value.int_value) for pair in message.attributes},
        started_ns=message.start_time_unix_nano,
        ended_ns=message.end_time_unix_nano,
    )
