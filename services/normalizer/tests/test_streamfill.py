"""How full EVENTS and NOTICES are: on a real broker."""

from __future__ import annotations

import pytest
from backhaul_common.jetstream import AWAY
from backhaul_common.metering import Metrics
from backhaul_common.names import EVENTS_STREAM, NOTICES_STREAM
from backhaul_local.nats_server import NatsServer
from backhaul_normalizer.streamfill import StreamFill
from backhaul_testing import broker
from nats.js.api import StreamConfig
from prometheus_client.parser import text_string_to_metric_families


def told(metrics: Metrics) -> dict[str, float]:
    return {
        sample.labels["stream"]: sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if sample.name == "backhaul_normalizer_stream_fill"
    }


async def test_the_limit_that_is_nearest_is_told_of_each_stream(fresh_nats: NatsServer) -> None:
    client = await broker.connect(fresh_nats.uri)
    try:
        js, metrics = client.jetstream(), Metrics("normalizer")
        fill = StreamFill(js, metrics)
        with pytest.raises(AWAY):
            await fill.look()
        assert told(metrics) == {}, "what is not known is not told"
        await js.add_stream(StreamConfig(name=EVENTS_STREAM, subjects=["events.>"], max_bytes=100_000, max_msgs=10))
        await js.add_stream(StreamConfig(name=NOTICES_STREAM, subjects=["notices.>"]))
        await fill.look()
        assert told(metrics) == {EVENTS_STREAM: 0, NOTICES_STREAM: 0}
        for _ in range(5):
            await js.publish("events.acme", b"x")
            await js.publish("notices.acme", b"x")
        await fill.look()
        assert told(metrics) == {EVENTS_STREAM: 0.5, NOTICES_STREAM: 0}, (
            "one is half full of messages, one has no limit"
        )
        await js.publish("events.acme", bytes(80_000))
        await fill.look()
        assert 0.8 < told(metrics)[EVENTS_STREAM] < 0.82, "it is fuller in bytes than in messages"
    finally:
        await client.close()
