"""A real Prometheus with our rules beside a whole stack: what the dashboards ask is answered, and no alert is wrong."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until

if TYPE_CHECKING:
    from backhaul_client.suppressionmodels import Checked
    from backhaul_local.stack import Stack
    from simulators.people import Tenant, Town

OBSERVABILITY = Path(__file__).parents[2] / "deploy" / "observability"
RULES = OBSERVABILITY / "prometheus" / "rules"
DASHBOARDS = sorted((OBSERVABILITY / "grafana" / "dashboards").glob("*.json"))

LISTENS = re.compile(r"Listening on.*127\.0\.0\.1:(\d+)")

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="no Prometheus on this machine: Debian's package prometheus has it"
)

QUIET = {
    "backhaul_gateway_callbacks_total[1h] offset 1d": "the stack has no yesterday",
    "backhaul_gateway_callbacks_unverified_total": "every signature is right",
    "backhaul_gateway_rate_limited_total": "nobody is over the limit",
    "backhaul_gateway_spool": "JetStream stores everything",
    "backhaul_normalizer_events_duplicate_total": "nothing comes twice",
    "batch_retries_total": "nothing fails",
    "backhaul_audit_files_total": "there is no object storage",
    "backhaul_audit_digests_total": "as above",
    "backhaul_audit_files_lost_total": "as above",
    "backhaul_audit_uploads_failed_total": "as above",
    "backhaul_reconciler_records_total": "no channel has credentials to ask by",
    "backhaul_reconciler_channels": "as above",
    "backhaul_notifier_deliveries_ended_total": "what is refused is tried again for days",
    "backhaul_grpc_calls_total": "no call fails",
}
"""What of a panel's query has no data where all is well, and why. Everything else must have some."""


class Prometheus:
    """One that looks at each service of a stack every second."""

    def __init__(self, url: str) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=30)

    async def ready(self) -> bool:
        try:
            return (await self._http.get("/-/ready")).status_code == 200
        except httpx.TransportError:
            return False

    async def read(self, path: str, **params: str) -> Any:
        answer = await self._http.get(f"/api/v1/{path}", params=params)
        assert answer.status_code == 200, f"{params}: {answer.text}"
        return answer.json()["data"]

    async def close(self) -> None:
        await self._http.aclose()


@pytest.fixture
async def prometheus(installation: Stack, tmp_path: Path) -> AsyncIterator[Prometheus]:
    ports = {one.name: one.ports.get("metrics") or one.ports["http"] for one in installation.services}
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES / "*.yaml")],
        "scrape_configs": [
            {
                "job_name": "backhaul",
                "static_configs": [
                    {"targets": [f"127.0.0.1:{port}"], "labels": {"service": name}} for name, port in ports.items()
                ],
            }
        ],
    }
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
    process = await asyncio.create_subprocess_exec(
        "prometheus",
        f"--config.file={tmp_path / 'prometheus.yaml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        "--web.listen-address=127.0.0.1:0",
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            while (listens := LISTENS.search(line := (await process.stderr.readline()).decode())) is None:
                assert line, "Prometheus has ended"
        reading = asyncio.create_task(process.stderr.read())
        looking = Prometheus(f"http://127.0.0.1:{listens[1]}")
        await until("Prometheus is ready", looking.ready, within_s=60.0)
        yield looking
        await looking.close()
    finally:
        process.terminate()
        await process.wait()
    await reading


async def _lived(tenant: Tenant) -> None:
    """Something of everything that happens while all is well."""
    sid, person = new_sid(), "+15005550042"
    address = tenant.address("Twilio", communicationId="spring-sale")
    await tenant.client.subscriptions.create(["message.*"], http={"url": "https://localhost/told"})
    await tenant.receive(
        tenant.twilio.status(address, sid, "sent", to=person),
        tenant.twilio.status(address, sid, "delivered", to=person),
        tenant.sendgrid.signed(tenant.address("SendGrid"), b"[broken"),
        tenant.reply(person, "STOP"),
    )
    # Of every sixteenth it is measured how long its answer took.
    await tenant.receive(*(tenant.twilio.status(address, new_sid(), "sent", to=person) for _ in range(16)))
    await tenant.message_with("twilio", sid, 2)

    async def suppressed() -> bool:
        checked: Checked = await tenant.client.check(person)
        return checked.verdict == "suppressed"

    await until("the person is suppressed", suppressed, within_s=60.0)


async def test_what_dashboards_ask_is_there(town: Town, prometheus: Prometheus) -> None:
    tenant = await town.platform.register()
    await _lived(tenant)

    asked = []
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                expr = target["expr"].replace("$__rate_interval", "30s").replace("$tenant", tenant.id)
                asked.append((f"{path.stem}: {panel['title']}", expr))

    empty: list[str] = []

    async def all_told() -> bool:
        found = [(title, expr, await prometheus.read("query", query=expr)) for title, expr in asked]
        empty[:] = [
            f"{title}: {expr}"
            for title, expr, data in found
            if not data["result"] and not any(part in expr for part in QUIET)
        ]
        return not empty

    with suppress(AssertionError):  # What is missing says more than that something is.
        await until("each panel has data", all_told, within_s=60.0, pause_s=1.0)
    assert not empty


async def test_no_alert_is_wrong_about_a_stack_where_all_is_well(prometheus: Prometheus) -> None:
    async def evaluated() -> list[Any] | None:
        groups = (await prometheus.read("rules"))["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        return rules if rules and all(rule["health"] != "unknown" for rule in rules) else None

    rules = await until("each rule was looked at", evaluated, within_s=60.0)
    assert len(rules) > 20
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
    targets = (await prometheus.read("targets"))["activeTargets"]
    assert [(target["labels"]["service"], target["lastError"]) for target in targets if target["health"] != "up"] == []
    assert [rule["name"] for rule in rules if rule.get("state") == "firing"] == []
