"""What metrics are counted with: counters cheap enough for the hot path. Which there are is in ``metrics``.

Everything goes through OpenTelemetry: exported by OTLP when ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set, and always in
Prometheus' format. Counters and gauges are plain numbers that OpenTelemetry reads when it collects: adding to one
costs a dictionary look-up, where an instrument of the SDK costs ten times as much.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import CardinalityLimits, MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from prometheus_client import CollectorRegistry, generate_latest

from backhaul_common.metrics import Metric
from backhaul_common.tracing import close_within

_SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_MAX_SERIES = 1_000_000
"""Combinations of label values of one counter. Tenants and their channels bound them; beyond its own default of 2,000
OpenTelemetry would count all further ones as nobody's, and alerts by tenant would never go off."""
_CHEAP_S = 0.02
"""What a rendering may cost each time."""
_COUNT_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class Counter:
    """A number that only grows, one for every combination of label values."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self._values: dict[tuple[str, ...], float] = {}

    def add(self, *labels: str, amount: float = 1) -> None:
        """Add ``amount``. ``labels`` are values in the order of the metric's ``labels``."""
        try:
            self._values[labels] += amount
        except KeyError:
            # Refused here, because in `observe` one bad key would hide all the counter's values for good.
            if len(labels) != len(self.metric.labels):
                raise ValueError(f"{self.metric.name} has the labels {self.metric.labels}, not {labels}") from None
            self._values[labels] = amount

    def value(self, *labels: str) -> float:
        """The present count."""
        return self._values.get(labels, 0)

    def observe(self, _: CallbackOptions) -> Iterable[Observation]:
        """What OpenTelemetry collects."""
        # A copy, because collection runs on a thread of its own while the event loop goes on counting.
        for labels, value in list(self._values.items()):
            yield Observation(value, dict(zip(self.metric.labels, labels, strict=True)))


_GATHERED = 100
"""Values of a distribution that are taken in at once."""


class Histogram:
    """A distribution without labels. Values are gathered: one by one each would take the SDK some 20 µs, and takes it a
    third of that among others."""

    def __init__(self, take: Callable[[float], None]) -> None:
        self._take = take
        self._gathered: deque[float] = deque()

    def record(self, value: float) -> None:
        """Count ``value``."""
        self._gathered.append(value)
        if len(self._gathered) >= _GATHERED:
            self.take_in()

    def take_in(self) -> None:
        """Take in what is gathered. Any thread may."""
        with suppress(IndexError):
            while True:
                self._take(self._gathered.popleft())

    def observe(self, _: CallbackOptions) -> Iterable[Observation]:
        """Nothing: it is asked before the distributions are read."""
        self.take_in()
        return ()


class Metrics:
    """A process's metrics, made once by its composition root."""

    def __init__(self, service: str) -> None:
        self._registry = CollectorRegistry()
        limits: CardinalityLimits = {ObservableCounter: _MAX_SERIES}
        readers: list[MetricReader] = [PrometheusMetricReader(registry=self._registry, cardinality_limits=limits)]
        if os.environ.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
            # Imported here, because it takes a quarter of a second that most processes need not wait for.
            from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

            readers.append(PeriodicExportingMetricReader(OTLPMetricExporter(), cardinality_limits=limits))
        self._provider = MeterProvider(
            readers,
            shutdown_on_exit=False,
            resource=Resource.create({SERVICE_NAME: f"backhaul-{service}"}),
        )
        self._meter = self._provider.get_meter(f"backhaul.{service}")
        self._rendering: asyncio.Task[bytes] | None = None
        self._stale_at = 0.0

    def counter(self, metric: Metric) -> Counter:
        """The counter of ``metric``."""
        counter = Counter(metric)
        self._meter.create_observable_counter(metric.name, [counter.observe], metric.unit, metric.description)
        return counter

    def gauge(self, metric: Metric, read: Callable[[], float]) -> None:
        """A gauge whose value is asked for when it is collected, by a thread of its own."""
        self._meter.create_observable_gauge(
            metric.name, [lambda _: [Observation(read())]], metric.unit, metric.description
        )

    def gauges(self, metric: Metric, read: Callable[[], Mapping[str, float]]) -> None:
        """Gauges of a metric with one label, by its values. They are asked for as that of ``gauge`` is."""
        (label,) = metric.labels
        self._meter.create_observable_gauge(
            metric.name,
            [lambda _: [Observation(value, {label: name}) for name, value in read().items()]],
            metric.unit,
            metric.description,
        )

    def histogram(self, metric: Metric) -> Histogram:
        """The distribution of ``metric``; without buckets of its own they follow from its unit."""
        instrument = self._meter.create_histogram(
            metric.name,
            metric.unit,
            metric.description,
            explicit_bucket_boundaries_advisory=metric.buckets
            or (_SECONDS_BUCKETS if metric.unit == "s" else _COUNT_BUCKETS),
        )
        made = Histogram(instrument.record)
        self._meter.create_observable_gauge(f"{metric.name}_gathered", [made.observe])
        return made

    def render(self) -> bytes:
        """All metrics in Prometheus' text format, at some 16 µs of processor for each combination of labels."""
        return generate_latest(self._registry)

    async def rendered(self) -> bytes:
        """The same without holding up the event loop, whoever asks for it how often: by a thread, once for all who ask
        meanwhile; and what has taken long is told again for ten times as long. Belongs to one event loop."""
        if self._rendering is None or (self._rendering.done() and time.monotonic() >= self._stale_at):
            self._rendering = asyncio.create_task(self._render_aside(), name="render_metrics")
        return await asyncio.shield(self._rendering)

    async def _render_aside(self) -> bytes:
        text, cost_s = await asyncio.to_thread(_timed, self.render)
        self._stale_at = time.monotonic() + 10 * max(0.0, cost_s - _CHEAP_S)
        return text

    def close(self) -> None:
        """Export what was collected last; returns soon, whether the collector answered or not."""
        close_within(self._provider.shutdown)


def _timed(work: Callable[[], bytes]) -> tuple[bytes, float]:
    """What ``work`` returns, and the seconds of processor that it took."""
    began = time.thread_time()
    return work(), time.thread_time() - began
