"""Grafana's dashboards: what it reads them by, and that Prometheus understands what they ask."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from promtool_rig import needs_promtool, promtool

GRAFANA = Path(__file__).parents[1] / "grafana"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))


def shown(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """The panels of a dashboard with what each asks."""
    for panel in json.loads(path.read_text())["panels"]:
        for target in panel.get("targets", []):
            yield panel, target["expr"]


@needs_promtool
@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_prometheus_understands_what_panels_ask(path: Path, tmp_path: Path) -> None:
    asked = [expr.replace("$__rate_interval", "5m").replace("$tenant", "acme") for _, expr in shown(path)]
    assert len(asked) > 10
    rules = [{"record": f"asked:{number}", "expr": expr} for number, expr in enumerate(asked)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "rules.yaml")


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_have_places_of_their_own_and_a_data_source_that_there_is(path: Path) -> None:
    dashboard = json.loads(path.read_text())
    sources = yaml.safe_load((GRAFANA / "provisioning/datasources/backhaul.yaml").read_text())["datasources"]
    uids = {source["uid"] for source in sources}
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
        for one in [panel, *panel.get("targets", [])]:
            assert one.get("datasource", {"uid": "prometheus"})["uid"] in uids


def test_dashboards_are_apart_and_are_where_grafana_looks() -> None:
    uids = [json.loads(path.read_text())["uid"] for path in DASHBOARDS]
    assert len(set(uids)) == len(uids) > 1
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/backhaul.yaml").read_text())["providers"]
    assert provider["options"]["path"].endswith("/dashboards")


@pytest.mark.parametrize(
    "metric",
    [
        "backhaul_audit_digests_total",
        "backhaul_gateway_callback_log_fill",
        "backhaul_gateway_callbacks_total",
        "backhaul_gateway_callbacks_unverified_total",
        "backhaul_gateway_connections",
        "backhaul_gateway_spool_callbacks",
        "backhaul_normalizer_dead_letters_total",
        "backhaul_normalizer_lag_seconds_bucket",
        "backhaul_normalizer_parked",
        "backhaul_notifier_deliveries_ended_total",
        "backhaul_notifier_waiting",
        "backhaul_reconciler_records_total",
        "backhaul_suppression_age_at_enforcement_seconds_bucket",
    ],
)
def test_what_whoever_runs_backhaul_looks_for_is_shown(metric: str) -> None:
    assert any(metric in expr for path in DASHBOARDS for _, expr in shown(path))
