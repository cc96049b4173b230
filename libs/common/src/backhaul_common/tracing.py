"""OpenTelemetry traces, exported by OTLP when ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set.

Without an exporter no span is recorded, yet every request still has a trace id that is passed on and logged.
The W3C ``traceparent`` text is what crosses processes: in HTTP and NATS headers, gRPC metadata and stored callbacks.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from random import getrandbits, randbytes

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

MAX_CLOSE_S = 2.0
"""How long the last export may hold up the end of a process."""

_TRACEPARENT = re.compile(
    # Version 00 ends after its flags; a later version may go on behind another dash, and ff is no version.
    r"(?!ff)(?:00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})"
    r"|(?!00)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?)"
)


class Tracing:
    """A process's tracer. ``enabled`` is false where nothing would export a span; spans then cost next to nothing."""

    def __init__(self, service: str, provider: TracerProvider | None) -> None:
        self.enabled = provider is not None
        self._provider = provider
        self._tracer = provider.get_tracer(f"backhaul.{service}") if provider else None

    @classmethod
    def from_environment(cls, service: str) -> Tracing:
        """Export by OTLP/gRPC when the standard variables name an endpoint; record nothing otherwise."""
        endpoint = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        if not endpoint:
            return cls(service, None)
        # Imported here, because it takes a quarter of a second that most processes need not wait for.
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        provider = TracerProvider(
            shutdown_on_exit=False, resource=Resource.create({SERVICE_NAME: f"backhaul-{service}"})
        )
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(service, provider)

    @contextmanager
    def span(
        self,
        name: str,
        *,
        parent: str | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, AttributeValue] | None = None,
        links: Sequence[str] = (),
    ) -> Iterator[Span]:
        """A span that is current inside the block; an exception marks it as failed and goes on.

        ``parent`` and ``links`` are traceparents; without ``parent`` the current span is the parent.
        """
        span = self.start(name, parent=parent, kind=kind, attributes=attributes, links=links)
        token = otel_context.attach(trace.set_span_in_context(span))
        try:
            yield span
        except Exception as exc:
            span.set_status(Status(StatusCode.ERROR, type(exc).__name__))
            raise
        finally:
            otel_context.detach(token)
            span.end()

    def start(
        self,
        name: str,
        *,
        parent: str | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, AttributeValue] | None = None,
        links: Sequence[str] = (),
        start_time_ns: int | None = None,
    ) -> Span:
        """A span that the caller ends. It is not made current."""
        parent_context = parse_traceparent(parent) if parent else None
        if self._tracer is None:
            current = parent_context or trace.get_current_span().get_span_context()
            return NonRecordingSpan(current if current.is_valid else _new_context())
        context = trace.set_span_in_context(NonRecordingSpan(parent_context)) if parent_context else None
        return self._tracer.start_span(
            name,
            context=context,
            kind=kind,
            attributes=attributes,
            links=[Link(link) for text in links if (link := parse_traceparent(text))],
            start_time=start_time_ns,
        )

    def close(self) -> None:
        """Export what is still queued; returns after ``MAX_CLOSE_S`` whether the collector answered or not."""
        if self._provider is not None:
            close_within(self._provider.shutdown)


def close_within(shutdown: Callable[[], None]) -> None:
    """Run ``shutdown``, and wait ``MAX_CLOSE_S`` at most: the SDK itself tries an absent collector for longer."""
    # A daemon, so that the end of the process does not wait for what was given up here.
    thread = threading.Thread(target=shutdown, name="telemetry-shutdown", daemon=True)
    thread.start()
    thread.join(MAX_CLOSE_S)


def new_traceparent() -> str:
    """The traceparent of a fresh trace that nobody samples."""
    # From a generator that the system seeds, as OpenTelemetry does.
    digits = randbytes(24).hex()  # noqa: S311  # identifiers, no secrets
    return f"00-{digits[:32]}-{digits[32:]}-00"


def trace_id_of(traceparent: str) -> str:
    """The 32 hex digits of the trace in a valid traceparent; empty where that is empty."""
    return traceparent[3:35]


def parse_traceparent(text: str) -> SpanContext | None:
    """The span context that ``text`` names; None when it is not a valid W3C traceparent."""
    match = _TRACEPARENT.fullmatch(text)
    if match is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in match.groups() if part is not None)
    context = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags & 1))
    return context if context.is_valid else None


def traceparent_of(span: Span) -> str:
    """The text that passes ``span`` on as a parent; empty when the span has no valid context."""
    context = span.get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def current_traceparent() -> str:
    """``traceparent_of`` the current span."""
    return traceparent_of(trace.get_current_span())


def _new_context() -> SpanContext:
    # As in ``new_traceparent``: asking the system each time would cost as much as all the rest of a span.
    return SpanContext(getrandbits(128), getrandbits(64), is_remote=False, trace_flags=TraceFlags(0))  # as there
