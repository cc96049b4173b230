"""The rules and what is written about them: each fires when it should, and says where it is told what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from backhaul_local.service import default_services
from promtool_rig import needs_promtool, promtool

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "deploy/observability/prometheus"
OPERATIONS = (ROOT / "docs/operations.md").read_text()


def rules() -> dict[str, dict[str, Any]]:
    """Every alert, by its name."""
    found = [
        rule
        for path in sorted((PROMETHEUS / "rules").glob("*.yaml"))
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]
    names = [rule["alert"] for rule in found]
    assert len(names) == len(set(names)) > 40
    return dict(zip(names, found, strict=True))


@needs_promtool
def test_prometheus_takes_the_rules_and_the_configurations(tmp_path: Path) -> None:
    promtool("check", "rules", *sorted((PROMETHEUS / "rules").glob("*.yaml")))
    (tmp_path / "rules").symlink_to(PROMETHEUS / "rules")
    for path in sorted(PROMETHEUS.glob("*.yaml")):
        config = yaml.safe_load(path.read_text())
        for job in config["scrape_configs"]:
            # Debian's Prometheus is built without it.
            job.pop("kubernetes_sd_configs", None)
        (tmp_path / path.name).write_text(yaml.safe_dump(config))
        promtool("check", "config", tmp_path / path.name)


@needs_promtool
@pytest.mark.slow  # Days go by in it.
def test_each_alert_fires_when_it_should_and_not_before() -> None:
    promtool("test", "rules", *sorted((PROMETHEUS / "rules/tests").glob("*.yaml")))


def test_each_alert_is_tried_while_all_is_well_and_while_it_is_not() -> None:
    tried: dict[str, list[bool]] = {}
    for path in (PROMETHEUS / "rules/tests").glob("*.yaml"):
        plan = yaml.safe_load(path.read_text())
        assert plan["rule_files"] == [f"../{path.name}"]
        for test in plan["tests"]:
            for one in test["alert_rule_test"]:
                tried.setdefault(one["alertname"], []).append(len(one["exp_alerts"]) > 0)
    assert tried.keys() == rules().keys()
    assert all(sorted(times) == [False, True] for times in tried.values())


def test_each_alert_has_words_about_what_to_do_and_no_words_are_left_over() -> None:
    section = OPERATIONS.partition("## Alerts worth having")[2]
    told = dict(re.findall(r"^### (Backhaul\w+)\n\n((?:.+\n)+)", section, re.MULTILINE))
    assert told.keys() == rules().keys()
    for name, rule in rules().items():
        # GitHub's anchor of the heading.
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
        assert rule["labels"] == {"severity": rule["labels"]["severity"]}
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"].endswith(".")
        # What it means, and what then.
        assert len(re.findall(r"[.:]\s", told[name])) >= 1, name


def test_prometheus_looks_for_each_service_where_it_is() -> None:
    (job,) = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text())["scrape_configs"]
    looked = {name: one["port"] for one in job["dns_sd_configs"] for name in one["names"]}
    specs = default_services()
    ports = {spec.name: spec.ports["metrics" if "metrics" in spec.ports else "http"] for spec in specs}
    assert looked == ports | {"gateway-2": ports["gateway"]}
    # Both gateways are one service, as the copies behind one name are.
    (relabelled,) = job["relabel_configs"]
    services = {name: re.fullmatch(relabelled["regex"], name) for name in looked}
    assert {name: found and found[1] for name, found in services.items()} == {
        name: name.removesuffix("-2") for name in looked
    }
    # What alerts and dashboards tell copies by.
    for path in PROMETHEUS.glob("*.yaml"):
        (job,) = yaml.safe_load(path.read_text())["scrape_configs"]
        assert job["job_name"] == "backhaul"
        assert "service" in [one.get("target_label") for one in job["relabel_configs"]]
