"""Traces: the text that crosses processes, with and without an exporter, and a real OTLP collector."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent import futures
from queue import Queue
from typing import Any

import grpc
import pytest
from backhaul_common.tracing import (
    MAX_CLOSE_S,
    Tracing,
    current_traceparent,
    new_traceparent,
    parse_traceparent,
    traceparent_of,
)
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@given(st.integers(1, (1 << 128) - 1), st.integers(1, (1 << 64) - 1), st.booleans())
def test_a_traceparent_comes_back(trace_id: int, span_id: int, sampled: bool) -> None:
    context = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(int(sampled)))
    assert parse_traceparent(traceparent_of(NonRecordingSpan(context))) == context


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    assert parse_traceparent(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        PARENT[:-1],
        PARENT + "\n",
        " " + PARENT,
        PARENT.upper(),
        "ff" + PARENT[2:],
        "zz" + PARENT[2:],
        PARENT + "-what-the-future-brings",  # Version 00 has four parts.
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01",
        # What int(text, 16) takes for a number and W3C does not.
        "00-0x" + "a" * 30 + "-b7ad6b7169203331-01",
        "00-" + "a_" * 15 + "aa-b7ad6b7169203331-01",
        "00-+" + "a" * 31 + "-b7ad6b7169203331-01",
        "00- " + "a" * 31 + "-b7ad6b7169203331-01",
        "00-" + "\u0661" * 32 + "-b7ad6b7169203331-01",
    ],
)
def test_what_is_no_traceparent(text: str) -> None:
    assert parse_traceparent(text) is None


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    for text in ("cc" + PARENT[2:], "01" + PARENT[2:] + "-what-the-future-brings"):
        context = parse_traceparent(text)
        assert context is not None
        assert context.span_id == 0xB7AD6B7169203331
        assert context.trace_flags.sampled


def test_a_new_trace_is_valid_and_not_sampled() -> None:
    context = parse_traceparent(new_traceparent())
    assert context is not None
    assert not context.trace_flags.sampled
    assert new_traceparent() != new_traceparent()


def test_without_exporter_every_request_has_an_id_and_passes_its_parents_on() -> None:
    tracing = Tracing("gateway", None)
    assert not tracing.enabled
    assert current_traceparent() == ""
    with tracing.span("a") as outer:
        assert parse_traceparent(current_traceparent()) is not None
        with tracing.span("b"):
            assert current_traceparent() == traceparent_of(outer)
        with tracing.span("c", parent=PARENT):
            assert current_traceparent() == PARENT
        with tracing.span("d", parent="nonsense"):
            assert current_traceparent() == traceparent_of(outer)
    assert current_traceparent() == ""
    with pytest.raises(KeyError), tracing.span("e"):
        raise KeyError
    assert current_traceparent() == ""
    tracing.close()


class _Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self) -> None:
        self.requests: Queue[Any] = Queue()

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC dictates the name
        self.requests.put(request)
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Collector]:
    """A real OTLP/gRPC collector that the environment names."""
    servicer = _Collector()
    server = grpc.server(futures.ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]  # generated
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    yield servicer
    server.stop(0).wait()


def test_spans_reach_a_collector(collector: _Collector) -> None:
    tracing = Tracing.from_environment("normalizer")
    assert tracing.enabled
    with tracing.span("outer", parent=PARENT, kind=SpanKind.CONSUMER, links=[PARENT, "nonsense"]) as outer:
        own = traceparent_of(outer)
        with pytest.raises(ValueError, match="boom"), tracing.span("inner", attributes={"events": 3}):
            raise ValueError("boom, with a secret")
        loose = tracing.start("loose", parent=own, start_time_ns=time.time_ns() - 1_000_000_000)
        assert current_traceparent() == own
        loose.end()
    tracing.close()

    (resource,) = collector.requests.get(timeout=60).resource_spans
    names = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
    assert names["service.name"] == "backhaul-normalizer"
    spans = {span.name: span for scope in resource.scope_spans for span in scope.spans}
    assert set(spans) == {"outer", "inner", "loose"}
    assert {span.trace_id.hex() for span in spans.values()} == {PARENT[3:35]}
    assert spans["outer"].parent_span_id.hex() == PARENT[36:52]
    assert spans["inner"].parent_span_id == spans["loose"].parent_span_id == spans["outer"].span_id
    assert [link.span_id.hex() for link in spans["outer"].links] == [PARENT[36:52]]
    assert spans["inner"].attributes[0].value.int_value == 3
    # The type alone: messages of exceptions quote what failed.
    assert (spans["inner"].status.code, spans["inner"].status.message) == (2, "ValueError")
    assert "secret" not in str(resource)
    assert spans["loose"].end_time_unix_nano - spans["loose"].start_time_unix_nano >= 1_000_000_000


def test_a_parent_that_is_not_sampled_is_passed_on_and_not_exported(collector: _Collector) -> None:
    tracing = Tracing.from_environment("normalizer")
    parent = new_traceparent()
    with tracing.span("quiet", parent=parent):
        assert current_traceparent()[:35] == parent[:35]
        assert current_traceparent().endswith("-00")
    tracing.close()
    assert collector.requests.empty()


def test_without_endpoint_nothing_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    assert not Tracing.from_environment("gateway").enabled
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    assert not Tracing.from_environment("gateway").enabled


@pytest.mark.timed
@pytest.mark.slow
def test_an_absent_collector_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor kills what has not ended in time, and the stop would not be an orderly one."""
    with socket.socket() as taken:  # Bound and not listening: nobody is there.
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        tracing = Tracing.from_environment("gateway")
        with tracing.span("lost"):
            pass
        began = time.monotonic()
        tracing.close()
        assert time.monotonic() - began < MAX_CLOSE_S + 0.5
