"""One POST, one trace."""

from __future__ import annotations

import asyncio

from backhaul_common.tracing import Tracing, parse_traceparent
from backhaul_local.nats_server import NatsServer
from gateway_rig import GatewayFactory
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


async def test_request_and_publish_are_one_trace(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    incoming = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with gateway_factory(fresh_nats.uri, tracing=Tracing("gateway", provider)) as gateway:
        tenant = await gateway.tenant()
        await gateway.channel()
        exporter.clear()
        await gateway.post(tenant, headers={"traceparent": incoming})
        await asyncio.gather(*(gateway.post(tenant) for _ in range(5)))
        await gateway.post(tenant, signature="bad")
        spans = exporter.get_finished_spans()
        batches = await gateway.stored()
    posts = {span.context.span_id: span for span in spans if span.name == "POST /api/postevents"}
    publishes = [span for span in spans if span.name == "publish CALLBACKS"]
    assert len(posts) == 7
    assert len(publishes) == len(batches)
    for publish in publishes:
        assert publish.parent is not None
        parent = posts[publish.parent.span_id]
        assert parent.context.trace_id == publish.context.trace_id
        assert {link.context.span_id for link in publish.links} < posts.keys()
    stored = [parse_traceparent(callback.traceparent) for batch in batches for callback in batch]
    assert all(context is not None and context.span_id in posts for context in stored)
    first = next(span for span in posts.values() if span.context.trace_id == int(incoming.split("-")[1], 16))
    assert first.parent is not None
    assert first.attributes is not None
    assert first.attributes["backhaul.outcome"] == "stored"
    outcomes = sorted(str((span.attributes or {})["backhaul.outcome"]) for span in posts.values())
    assert outcomes == ["signature_invalid", *["stored"] * 6]
