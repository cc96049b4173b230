"""One trace from the provider's POST to the published event, and in every log line on its way."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backhaul_proto.event.v1.event_pb2 import EventBatch
from backhaul_testing import broker
from backhaul_testing.sendgrid import new_message_id
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until
from simulators.collector import Collector
from simulators.people import Town

if TYPE_CHECKING:
    from collections.abc import Callable

    from backhaul_local.stack import Stack

Json = dict[str, Any]


def _new_trace() -> tuple[str, str]:
    """A trace id, and the id of a span in it."""
    return os.urandom(16).hex(), os.urandom(8).hex()


async def _line(log: Path, event: str, trace_id: str) -> Json:
    """The log line ``event`` of a trace."""

    async def probe() -> Json | None:
        for text in (await asyncio.to_thread(log.read_text)).splitlines():
            if trace_id in text:
                line: Json = json.loads(text)
                if line["event"] == event and line["trace_id"] == trace_id:
                    return line
        return None

    return await until(f"the line {event} in {log.name}", probe, within_s=5)


async def _published(stack: Stack) -> list[tuple[str, EventBatch]]:
    """Every message of EVENTS: its traceparent and what it holds."""
    connection = await broker.connect(stack.nats_url)
    try:
        js = connection.jetstream()
        last = (await js.stream_info("EVENTS")).state.last_seq
        messages = [await js.get_msg("EVENTS", seq=seq) for seq in range(1, last + 1)]
    finally:
        await connection.close()
    return [((one.headers or {}).get("traceparent", ""), EventBatch.FromString(one.data or b"")) for one in messages]


async def test_one_post_is_one_trace_over_all_services(own_stack: Callable[..., Any]) -> None:
    async with Collector() as collector:
        telemetry = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        async with own_stack(env=telemetry) as stack, Town(stack.gateway_url, stack.admin_token) as town:
            tenant = await town.platform.register()
            trace_id, provider_span = _new_trace()
            message_id = new_message_id()
            post = tenant.sendgrid.batch(
                tenant.address("SendGrid"),
                [tenant.sendgrid.event(message_id, "processed"), tenant.sendgrid.event(message_id, "delivered")],
            ).with_header("traceparent", f"00-{trace_id}-{provider_span}-01")
            answer = await tenant.send(post)
            assert answer.status_code == 200
            message = await tenant.message_with("sendgrid", message_id, 2)

            expected = {
                "POST /api/postevents", "publish CALLBACKS", "normalizer.batch", "mongodb.commit", "events.publish",
            }  # fmt: skip
            spans = await collector.trace_with(trace_id, expected)
            server, stored = spans["POST /api/postevents"], spans["publish CALLBACKS"]
            batch, commit, publish = spans["normalizer.batch"], spans["mongodb.commit"], spans["events.publish"]
            assert len(collector.trace(trace_id)) == len(expected)  # No span twice, and none without a place.
            # One tree: each under the one that caused it, and its root under the provider's own span.
            assert {span.name: span.parent for span in spans.values()} == {
                server.name: provider_span,
                stored.name: server.span_id,
                batch.name: server.span_id,
                commit.name: batch.span_id,
                publish.name: batch.span_id,
            }
            assert {span.service for span in (server, stored)} == {"backhaul-gateway"}
            assert {span.service for span in (batch, commit, publish)} == {"backhaul-normalizer"}
            assert (server.kind, stored.kind, batch.kind) == ("server", "producer", "consumer")
            assert server.started_ns <= stored.started_ns <= stored.ended_ns <= server.ended_ns
            assert batch.started_ns <= commit.started_ns <= commit.ended_ns <= publish.started_ns <= batch.ended_ns
            assert server.attributes["backhaul.tenant"] == tenant.id
            assert server.attributes["http.response.status_code"] == "200"

            # Whoever consumes EVENTS goes on in the same trace.
            published = await _published(stack)
            assert sum(len(held.events) for _, held in published) == 2
            for traceparent, held in published:
                assert traceparent == f"00-{trace_id}-{publish.span_id}-01"
                assert {event.traceparent.split("-")[1] for event in held.events} == {trace_id}
            assert {event.traceparent.split("-")[1] for event in message.timeline} == {trace_id}

            line = await _line(stack.member("gateway").log_path, "callback", trace_id)
            assert (line["tenant"], line["channel"], line["status"]) == (tenant.id, "sendgrid", 200)
            assert line["callback_id"] == answer.headers["backhaul-callback-id"]
            line = await _line(stack.member("normalizer").log_path, "batch", trace_id)
            assert (line["callbacks"], line["events"]) == (1, 2)

            # A read: one trace over the gateway and the gRPC server behind it.
            trace_id, reader_span = _new_trace()
            headers = {"X-Api-Key": tenant.api_key, "traceparent": f"00-{trace_id}-{reader_span}-01"}
            assert (await town.http.get(f"{tenant.base_url}/v1/messages", headers=headers)).status_code == 200
            rpc = "backhaul_proto.normalizer.v1.NormalizerService/ListMessages"
            spans = await collector.trace_with(trace_id, {"GET /v1/messages", rpc})
            assert spans["GET /v1/messages"].parent == reader_span
            assert spans[rpc].parent == spans["GET /v1/messages"].span_id
            assert spans[rpc].service == "backhaul-normalizer"
            await _line(stack.member("gateway").log_path, "request", trace_id)
            await _line(stack.member("normalizer").log_path, "rpc", trace_id)


async def test_every_callback_keeps_its_own_trace_without_a_collector_too(town: Town, installation: Stack) -> None:
    tenant = await town.platform.register()
    traces = {new_sid(): _new_trace()[0] for _ in range(5)}
    log = installation.member("gateway").log_path

    async def send(sid: str, traceparent: str) -> int:
        post = tenant.twilio.status(tenant.address("Twilio"), sid, "sent").with_header("traceparent", traceparent)
        return (await tenant.send(post)).status_code

    # At once, so that they share messages of the stream and batches of the normalizer.
    sending = (send(sid, f"00-{trace_id}-{'1' * 16}-01") for sid, trace_id in traces.items())
    assert set(await asyncio.gather(*sending)) == {200}
    untraced = new_sid()
    assert await send(untraced, "nonsense") == 200

    for sid, trace_id in traces.items():
        message = await tenant.message_with("twilio", sid, 1)
        assert message.timeline[0].traceparent.split("-")[1] == trace_id
        await _line(log, "callback", trace_id)
    # A trace that is none is replaced by a fresh one.
    given = (await tenant.message_with("twilio", untraced, 1)).timeline[0].traceparent.split("-")[1]
    assert len(given) == 32
    assert given not in traces.values()
    await _line(log, "callback", given)
