"""One trace from the provider's POST to the tenant's endpoint, and in every log line on its way."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backhaul_proto.event.v1.event_pb2 import EventBatch
from backhaul_testing import broker
from backhaul_testing.apis.twilio import TwilioApi
from backhaul_testing.apis.twilio_scenario import TwilioScenario
from backhaul_testing.receiver import Receiver
from backhaul_testing.sendgrid import new_message_id
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until
from simulators.archive import QUICK, ask_for_files
from simulators.collector import Collector
from simulators.people import Town

if TYPE_CHECKING:
    from collections.abc import Callable

    from backhaul_local.stack import Stack

Json = dict[str, Any]

RECONCILER = "backhaul_proto.reconciler.v1.ReconcilerService"
NOTIFIER = "backhaul_proto.notifier.v1.NotifierService"
US = "https://api.twilio.com"


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

    return await until(f"the line {event} in {log.name}", probe)


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
    twilio = TwilioApi()
    env = {"audit": QUICK, "reconciler": {"BACKHAUL_RECONCILER_ORIGINS": json.dumps({US: twilio.url})}}
    async with Collector() as collector:
        telemetry = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        async with (
            own_stack(env=telemetry, service_env=env, with_object_store=True) as stack,
            Town(stack.gateway_url, stack.admin_token) as town,
            Receiver() as receiver,
        ):
            tenant = await town.platform.register()
            await tenant.client.subscriptions.create(["message.delivered"], http={"url": receiver.url("/told")})
            await ask_for_files(town.platform, tenant, "SendGrid")
            trace_id, provider_span = _new_trace()
            message_id = new_message_id()
            post = tenant.sendgrid.batch(
                tenant.address("SendGrid"),
                [tenant.sendgrid.event(message_id, word) for word in ("processed", "delivered", "unsubscribe")],
            ).with_header("traceparent", f"00-{trace_id}-{provider_span}-01")
            answer = await tenant.send(post)
            assert answer.status_code == 200
            message = await tenant.message_with("sendgrid", message_id, 3)

            names = ("gateway", "normalizer", "suppression", "audit", "reconciler", "notifier")
            gateway, normalizer, suppression, audit, reconciler, notifier = (f"backhaul-{name}" for name in names)
            spans = await collector.whole_trace(
                trace_id,
                {
                    (gateway, "POST /api/postevents"),
                    (gateway, "publish CALLBACKS"),
                    (normalizer, "normalizer.batch"),
                    (normalizer, "mongodb.commit"),
                    (normalizer, "events.publish"),
                    (suppression, "suppression.batch"),
                    (suppression, "mongodb.commit"),
                    (suppression, "suppression.barrier"),
                    (audit, "audit.file"),
                    (notifier, "notifier.enqueue"),
                    (notifier, "endpoint.call"),
                },
            )
            server, stored = spans[gateway, "POST /api/postevents"], spans[gateway, "publish CALLBACKS"]
            batch, commit = spans[normalizer, "normalizer.batch"], spans[normalizer, "mongodb.commit"]
            publish = spans[normalizer, "events.publish"]
            consumed, recorded = spans[suppression, "suppression.batch"], spans[suppression, "mongodb.commit"]
            known = spans[suppression, "suppression.barrier"]
            filed = spans[audit, "audit.file"]
            enqueued, told = spans[notifier, "notifier.enqueue"], spans[notifier, "endpoint.call"]
            # One tree: each under the one that caused it, and its root under the provider's own span.
            assert {key: span.parent for key, span in spans.items()} == {
                (gateway, server.name): provider_span,
                (gateway, stored.name): server.span_id,
                (normalizer, batch.name): server.span_id,
                (normalizer, commit.name): batch.span_id,
                (normalizer, publish.name): batch.span_id,
                (suppression, consumed.name): server.span_id,
                (suppression, recorded.name): consumed.span_id,
                (suppression, known.name): consumed.span_id,
                (audit, filed.name): server.span_id,
                (notifier, enqueued.name): server.span_id,
                (notifier, told.name): server.span_id,
            }
            assert (server.kind, stored.kind, batch.kind, consumed.kind, enqueued.kind, told.kind) == (
                "server", "producer", "consumer", "consumer", "consumer", "client",
            )  # fmt: skip
            assert server.started_ns <= stored.started_ns <= stored.ended_ns <= server.ended_ns
            assert batch.started_ns <= commit.started_ns <= commit.ended_ns <= publish.started_ns <= batch.ended_ns
            assert publish.started_ns <= consumed.started_ns <= recorded.started_ns <= recorded.ended_ns
            assert recorded.ended_ns <= known.started_ns <= known.ended_ns <= consumed.ended_ns
            assert publish.started_ns <= filed.started_ns <= filed.ended_ns
            assert publish.started_ns <= enqueued.started_ns <= enqueued.ended_ns
            assert publish.started_ns <= told.started_ns <= told.ended_ns
            # The tenant's endpoint goes on in it, too.
            (call,) = receiver.calls
            assert call.headers["traceparent"] == f"00-{trace_id}-{told.span_id}-01"
            assert told.attributes["http.response.status_code"] == "200"
            assert server.attributes["backhaul.tenant"] == tenant.id
            assert server.attributes["http.response.status_code"] == "200"

            # Whoever consumes EVENTS goes on in the same trace.
            published = await _published(stack)
            assert sum(len(held.events) for _, held in published) == 3
            for traceparent, held in published:
                assert traceparent == f"00-{trace_id}-{publish.span_id}-01"
                assert {event.traceparent.split("-")[1] for event in held.events} == {trace_id}
            assert {event.traceparent.split("-")[1] for event in message.timeline} == {trace_id}

            line = await _line(stack.member("gateway").log_path, "callback", trace_id)
            assert (line["tenant"], line["channel"], line["status"]) == (tenant.id, "sendgrid", 200)
            assert line["callback_id"] == answer.headers["backhaul-callback-id"]
            line = await _line(stack.member("normalizer").log_path, "batch", trace_id)
            assert (line["callbacks"], line["events"]) == (1, 3)
            line = await _line(stack.member("suppression").log_path, "batch", trace_id)
            assert (line["tenants"], line["facts"], line["changes"]) == (1, 1, 1)

            # A read: one trace over the gateway and the gRPC server behind it.
            for path, service, method in (
                ("/v1/messages", normalizer, "backhaul_proto.normalizer.v1.NormalizerService/ListMessages"),
                ("/v1/suppressions", suppression, "backhaul_proto.suppression.v1.SuppressionService/List"),
                ("/v1/audits", audit, "backhaul_proto.audit.v1.AuditService/ListFiles"),
                ("/v1/reconciliation/reports", reconciler, f"{RECONCILER}/ListReports"),
                ("/v1/deliveries", notifier, f"{NOTIFIER}/ListDeliveries"),
            ):
                trace_id, reader_span = _new_trace()
                headers = {"X-Api-Key": tenant.api_key, "traceparent": f"00-{trace_id}-{reader_span}-01"}
                assert (await town.http.get(tenant.base_url + path, headers=headers)).status_code == 200
                request, rpc = (gateway, f"GET {path}"), (service, method)
                spans = await collector.whole_trace(trace_id, {request, rpc})
                assert (spans[request].parent, spans[rpc].parent) == (reader_span, spans[request].span_id)
                await _line(stack.member("gateway").log_path, "request", trace_id)
                line = await _line(stack.member(service.removeprefix("backhaul-")).log_path, "rpc", trace_id)
                assert (line["method"], line["tenant"], line["outcome"]) == (f"/{method}", tenant.id, "ok")

            with twilio:
                await _what_was_asked_for_is_one_trace(town, collector, twilio)


async def _what_was_asked_for_is_one_trace(town: Town, collector: Collector, twilio: TwilioApi) -> None:
    """A STOP of which Twilio's API alone tells goes the way of callbacks, in the trace of the page that had it."""
    tenant, account = await town.platform.register(), twilio.account()
    reply = TwilioScenario(account).reply("STOP", at=twilio.clock.now() - timedelta(seconds=10))
    await town.platform.client.put_channel(
        tenant.id,
        "Twilio",
        pull_credentials={"account_sid": account.sid, "auth_token": account.auth_token},
        settings={"audit": {"enabled": True}},
    )
    (event,) = (await tenant.message_with("twilio", reply.sid, 1)).timeline
    assert event.source == "backfill"
    normalizer, suppression = "backhaul-normalizer", "backhaul-suppression"
    page = ("backhaul-reconciler", "reconciler.page")
    compared = (normalizer, "backhaul_proto.normalizer.v1.RecordService/CompareRecords")
    batch, consumed = (normalizer, "normalizer.batch"), (suppression, "suppression.batch")
    parents = {
        compared: page,
        batch: page,
        (normalizer, "mongodb.commit"): batch,
        (normalizer, "events.publish"): batch,
        consumed: page,
        (suppression, "mongodb.commit"): consumed,
        (suppression, "suppression.barrier"): consumed,
        ("backhaul-audit", "audit.file"): page,
    }
    spans = await collector.whole_trace(event.traceparent.split("-")[1], {page, *parents})
    assert spans[page].parent == ""
    for child, parent in parents.items():
        assert spans[child].parent == spans[parent].span_id, child


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
