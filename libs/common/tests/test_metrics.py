"""Metrics: the catalogue's names, and what Prometheus and an OTLP collector are shown."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from queue import Queue
from typing import Any

import grpc
import pytest
import yaml
from backhaul_common import metrics as module
from backhaul_common.metering import Metrics
from backhaul_common.metrics import Metric, catalogue
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[3]

# https://opentelemetry.io/docs/specs/otel/metrics/api/#instrument-name-syntax
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_./-]{0,254}")
# https://opentelemetry.io/docs/specs/semconv/general/metrics/: UCUM, or an annotation in braces.
UNIT = re.compile(r"s|By|1|\{[a-z]+\}")

COUNTED = Metric("backhaul_test_callbacks", "{callback}", "Things.", ("tenant", "outcome"))
SECONDS = Metric("backhaul_test_duration", "s", "Durations.")
SIZES = Metric("backhaul_test_batch", "{event}", "Sizes.")
WAITING = Metric("backhaul_test_waiting", "By", "Bodies.")


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metrics]:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    made = Metrics("test")
    yield made
    made.close()


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by name and labels, without those that the exporter adds to say who measured."""
    return {
        (
            sample.name,
            tuple(sorted((key, value) for key, value in sample.labels.items() if not key.startswith("otel_"))),
        ): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def test_names_are_unique_and_follow_the_conventions() -> None:
    all_metrics = [value for value in vars(module).values() if isinstance(value, Metric)]
    assert len(all_metrics) == len(catalogue()) > 10
    services = "|".join(path.parent.name for path in ROOT.glob("services/*/pyproject.toml"))
    for metric in all_metrics:
        assert NAME.fullmatch(metric.name)
        assert re.match(rf"backhaul_({services}|grpc|certificate)_", metric.name)
        # Prometheus' exporter adds these.
        assert not metric.name.endswith(("_total", "_seconds", "_count", "_bucket", "_sum")), metric.name
        assert UNIT.fullmatch(metric.unit), metric
        assert metric.description.endswith("."), metric
        assert len(set(metric.labels)) == len(metric.labels)
        # Reserved by Prometheus, or without bound.
        assert not {"le", "quantile", "job", "instance", "message_id", "url"} & set(metric.labels)


def test_alerts_are_about_what_prometheus_shows(metrics: Metrics) -> None:
    """An alert on a name that nothing has never goes off."""
    sources = "".join(path.read_text() for part in ("libs", "services") for path in ROOT.glob(f"{part}/*/src/**/*.py"))
    made = {
        name: kind for kind, name in re.findall(r"\.(counter|gauges?|histogram)\((?:catalogue\.)?([A-Z_]+)\b", sources)
    }
    for name, metric in vars(module).items():
        if not isinstance(metric, Metric):
            continue
        kind = made.get(name, "gauge")  # That of what is away is handed on before it is made.
        if kind == "counter":
            metrics.counter(metric).add(*("x" for _ in metric.labels))
        elif kind == "histogram":
            metrics.histogram(metric).record(1)
        elif kind == "gauges":
            metrics.gauges(metric, lambda: {"x": 1})
        else:
            metrics.gauge(metric, lambda: 1)
    shown: dict[str, set[str]] = {}
    for name, labels in samples(metrics):
        shown.setdefault(name, set()).update(label for label, _ in labels)
    # Each as what it is: a distribution, say, has no total.
    assert all(any(name.startswith(metric) for name in shown) for metric in catalogue())
    assert {"backhaul_gateway_callbacks_total", "backhaul_normalizer_lag_seconds_bucket"} <= shown.keys()
    assert "backhaul_normalizer_lag_seconds_total" not in shown
    asked = list(expressions())
    assert len(asked) > 150
    for expression in asked:
        known = set(OF_THE_TARGET)
        for name, selected in re.findall(r"\b(backhaul_\w+)(?:\{([^}]*)\})?", expression):
            assert name in shown, name
            wanted = set(re.findall(r"(\w+)\s*(?:=|!)", selected)) - OF_THE_TARGET
            assert wanted <= shown[name], (name, wanted)
            known |= shown[name]
        for grouped in re.findall(r"by \(([^)]*)\)", expression):
            assert set(grouped.replace(" ", "").split(",")) <= known, expression


OF_THE_TARGET = {"instance", "job", "namespace", "pod", "service", "condition"}
"""Labels that Prometheus adds by where a metric comes from, or that are of no metric of ours."""


def expressions() -> Iterator[str]:
    """Whatever is asked of Prometheus: by alerts, by their tests, by dashboards, and by what counts copies."""
    deploy = ROOT / "deploy"
    for path in (deploy / "observability/prometheus/rules").glob("*.yaml"):
        yield from (rule["expr"] for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"])
    for path in (deploy / "observability/prometheus/rules/tests").glob("*.yaml"):
        tests = yaml.safe_load(path.read_text())["tests"]
        yield from (given["series"] for test in tests for given in test["input_series"])
    for path in (deploy / "observability/grafana/dashboards").glob("*.json"):
        panels = json.loads(path.read_text())["panels"]
        yield from (target["expr"] for panel in panels for target in panel.get("targets", []))
    for document in yaml.safe_load_all((deploy / "k8s/base/scaling.yaml").read_text()):
        triggers = document["spec"]["triggers"]
        yield from (trigger["metadata"]["query"] for trigger in triggers if trigger["type"] == "prometheus")


def test_counters_with_labels(metrics: Metrics) -> None:
    counter = metrics.counter(COUNTED)
    counter.add("acme", "stored")
    counter.add("acme", "stored", amount=4)
    counter.add('we"ird\n\\', "stored")
    assert counter.value("acme", "stored") == 5
    assert counter.value("acme", "refused") == 0
    found = samples(metrics)
    assert found["backhaul_test_callbacks_total", (("outcome", "stored"), ("tenant", "acme"))] == 5
    assert found["backhaul_test_callbacks_total", (("outcome", "stored"), ("tenant", 'we"ird\n\\'))] == 1


def test_wrong_labels_are_refused_and_the_others_still_shown(metrics: Metrics) -> None:
    counter = metrics.counter(COUNTED)
    counter.add("acme", "stored")
    for labels in ((), ("acme",), ("acme", "stored", "more")):
        with pytest.raises(ValueError, match="backhaul_test_callbacks has the labels"):
            counter.add(*labels)
    assert samples(metrics)["backhaul_test_callbacks_total", (("outcome", "stored"), ("tenant", "acme"))] == 1


def test_gauges_are_asked_when_collected(metrics: Metrics) -> None:
    values = [1.0, 2.5]
    metrics.gauge(WAITING, lambda: values.pop(0))
    assert samples(metrics)["backhaul_test_waiting_bytes", ()] == 1
    assert samples(metrics)["backhaul_test_waiting_bytes", ()] == 2.5


def test_a_gauge_that_fails_hides_nothing_else(metrics: Metrics) -> None:
    metrics.gauge(WAITING, lambda: 1 / 0)
    metrics.counter(COUNTED).add("acme", "stored")
    assert ("backhaul_test_callbacks_total", (("outcome", "stored"), ("tenant", "acme"))) in samples(metrics)


def test_buckets_follow_the_unit(metrics: Metrics) -> None:
    seconds, sizes = metrics.histogram(SECONDS), metrics.histogram(SIZES)
    for value in (0.0005, 0.02, 0.02, 40.0):
        seconds.record(value)
    sizes.record(75)
    found = samples(metrics)
    assert found["backhaul_test_duration_seconds_count", ()] == 4
    assert found["backhaul_test_duration_seconds_sum", ()] == pytest.approx(40.0405)
    assert found["backhaul_test_duration_seconds_bucket", (("le", "0.001"),)] == 1
    assert found["backhaul_test_duration_seconds_bucket", (("le", "0.025"),)] == 3
    assert found["backhaul_test_duration_seconds_bucket", (("le", "30.0"),)] == 3
    assert found["backhaul_test_duration_seconds_bucket", (("le", "+Inf"),)] == 4
    assert found["backhaul_test_batch_bucket", (("le", "64"),)] == 0
    assert found["backhaul_test_batch_bucket", (("le", "128"),)] == 1


def test_what_is_gathered_of_a_distribution_is_shown_whenever_it_is_asked(metrics: Metrics) -> None:
    seconds = metrics.histogram(SECONDS)
    for more in (1, 98, 1, 150):
        for _ in range(more):
            seconds.record(0.02)
        shown = samples(metrics)
        assert (
            shown["backhaul_test_duration_seconds_count", ()]
            == shown["backhaul_test_duration_seconds_bucket", (("le", "+Inf"),)]
        )
    assert shown["backhaul_test_duration_seconds_count", ()] == 250
    assert not [name for name, _ in shown if "gathered" in name]


def test_two_processes_worth_of_metrics_live_side_by_side(metrics: Metrics) -> None:
    other = Metrics("other")
    other.counter(COUNTED).add("acme", "stored")
    assert b"backhaul_test_callbacks" not in metrics.render()
    assert b"backhaul_test_callbacks" in other.render()
    other.close()


async def test_rendering_holds_up_nobody(metrics: Metrics) -> None:
    """Many tenants make many numbers: 10,000 of them take some 0.2 s, for whoever asks."""
    counter = metrics.counter(COUNTED)
    for number in range(10_000):
        counter.add(f"tenant-{number}", "stored")
    waits = []

    async def look() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)  # whatever else the loop has to do
            waits.append(time.perf_counter() - began)

    looking = asyncio.create_task(look())
    used = time.process_time()
    texts = await asyncio.gather(*(metrics.rendered() for _ in range(10)))
    looking.cancel()
    assert texts[0].count(b"tenant-") == 10_000
    assert b"overflow" not in texts[0]
    # Once for all of them, and not again at once.
    assert all(text is texts[0] for text in [*texts, await metrics.rendered()])
    cost = time.process_time() - used
    assert sorted(waits)[len(waits) // 2] < cost / 10
    assert len(waits) > 10


async def test_what_costs_little_is_told_anew(metrics: Metrics) -> None:
    counter = metrics.counter(COUNTED)
    for number in range(1, 4):
        counter.add("acme", "stored")
        assert f" {number}.0\n".encode() in await metrics.rendered()


class _Collector(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self) -> None:
        self.requests: Queue[Any] = Queue()

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC dictates the name
        self.requests.put(request)
        return metrics_service_pb2.ExportMetricsServiceResponse()


def test_a_collector_gets_the_last_values_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    collector = _Collector()
    server = grpc.server(futures.ThreadPoolExecutor(1))
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]  # generated
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    try:
        metrics = Metrics("test")
        metrics.counter(COUNTED).add("acme", "stored", amount=7)
        metrics.close()
        request = collector.requests.get(timeout=60)
    finally:
        server.stop(0).wait()
    (metric,) = request.resource_metrics[0].scope_metrics[0].metrics
    assert metric.name == COUNTED.name
    assert metric.sum.is_monotonic
    (point,) = metric.sum.data_points
    assert {one.key: one.value.string_value for one in point.attributes} == {"tenant": "acme", "outcome": "stored"}
    assert (point.as_double or point.as_int) == 7
