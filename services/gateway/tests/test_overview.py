"""How it stands with all tenants: the worst first, in words, whoever of the services is away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_gateway.reads import overview, overviews
from backhaul_local.nats_server import NatsServer
from backhaul_proto.audit.v1 import audit_pb2
from backhaul_proto.normalizer.v1 import normalizer_pb2
from backhaul_proto.notifier.v1 import notifier_pb2
from backhaul_proto.reconciler.v1 import reconciler_pb2
from backhaul_testing import waiting
from gateway_rig import GatewayFactory
from overview_rig import OverviewRig, overseeing

AT_US = 1_700_000_000_000_000


@pytest.fixture
async def rig(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[OverviewRig]:
    # What is asked is asked anew; that it is told again for a while has a test of its own.
    monkeypatch.setattr(overviews, "FRESH_S", 0.0)
    # However busy the machine is.
    monkeypatch.setattr(overview, "TIMEOUT_S", 60.0)
    monkeypatch.setattr(overviews, "WAIT_S", 60.0)
    async with overseeing(gateway_factory, fresh_nats.uri) as made:
        yield made


async def _town(rig: OverviewRig) -> Mapping[str, str]:
    """Five tenants, the worst last by name; the keys of their APIs."""
    keys = {name: (await rig.gateway.tenant(name)).api_key for name in ("calm", "dead", "held", "lost", "silent")}
    for name in ("calm", "dead", "silent"):
        await rig.gateway.channel(name)
    await rig.gateway.channel("lost", settings={"audit": {"enabled": True}})
    await rig.gateway.channel("held", processing="held", verification="observe")
    letters = [
        normalizer_pb2.DeadLetter(id=f"{number}", reason="No MessageSid.", last_seen_at_us=AT_US) for number in range(3)
    ]
    rig.answers["normalizer", "dead"] = normalizer_pb2.ListDeadLettersResponse(
        dead_letters=letters, next_page_token="x"
    )
    told = notifier_pb2.GetStateResponse(active=2, failing=1, waiting=7, failed=3, oldest_waiting_at_us=AT_US)
    rig.answers["notifier", "dead"] = told
    stopped = notifier_pb2.GetStateResponse(disabled=1, problem="The subscription CRM is disabled: it answered 410.")
    rig.answers["notifier", "lost"] = stopped
    quiet = reconciler_pb2.Channel(
        channel="twilio", silence=reconciler_pb2.SILENCE_SILENT, silent_since_us=AT_US,
        standing=reconciler_pb2.STANDING_CREDENTIALS_REFUSED, text="Twilio refuses the key.",
    )  # fmt: skip
    files = audit_pb2.ChannelState(channel="twilio", problem="The bucket is away.")
    rig.answers["audit", "lost"] = audit_pb2.GetStateResponse(channels=[files])
    rig.answers["reconciler", "silent"] = reconciler_pb2.ListChannelsResponse(channels=[quiet])
    return keys


async def test_the_worst_comes_first_and_says_where_to_look(rig: OverviewRig) -> None:
    keys = await _town(rig)
    found = await rig.overview()
    rows: dict[str, Any] = {row["tenant"]: row for row in found["worst_first"]}
    assert list(rows) == ["lost", "silent", "dead", "held", "calm"]
    assert [found[name] for name in ("tenants", "asked", "with_errors", "with_warnings")] == [5, 5, 2, 2]
    assert found["next_cursor"] is None
    assert {one["name"]: one["state"] for one in found["installation"]["services"]} == dict.fromkeys(
        ("normalizer", "suppression", "audit", "reconciler", "notifier"), "ok"
    )
    texts = [one["text"] for one in rows["dead"]["problems"] if one["part"] == "subscriptions"]
    since = "the oldest since 2023-11-14T22:13:20Z"
    assert texts == [f"The latest attempts of 1 subscription failed; 7 deliveries wait, {since}."]
    said = {
        name: [(one["severity"], one["part"], one["channel"]) for one in row["problems"]] for name, row in rows.items()
    }
    assert said == {
        "silent": [("error", "reconciliation", "Twilio"), ("error", "silence", "Twilio")],
        "lost": [("error", "audit", "Twilio"), ("error", "subscriptions", None)],
        "dead": [
            ("warning", "dead_letters", None), ("warning", "deliveries", None), ("warning", "subscriptions", None),
        ],
        "held": [("warning", "processing", "Twilio")],
        "calm": [],
    }  # fmt: skip
    texts = [one["text"] for row in rows.values() for one in row["problems"]]
    assert all(text.endswith(".") for text in texts), texts
    assert "Messages were sent since 2023-11-14T22:13:20Z" in texts[3]
    assert "More than 3 dead letters are open, the latest of 2023-11-14T22:13:20Z: No MessageSid." in texts
    assert all(one["look"] for row in rows.values() for one in row["problems"])
    states = {name: [channel["state"] for channel in row["channels"]] for name, row in rows.items()}
    assert states == {"silent": ["error"], "lost": ["error"], "dead": ["ok"], "held": ["warning"], "calm": ["ok"]}
    assert rows["dead"]["deliveries"] == {
        "failing": 1, "waiting": 7, "held": 0, "failed": 3, "waiting_since": "2023-11-14T22:13:20Z",
    }  # fmt: skip

    # Of a channel the same is said, but for what concerns another channel; warnings are no Error.
    for name, row in rows.items():
        answer = await rig.gateway.client.get("/api/status?channelLabel=Twilio", headers={"X-Api-Key": keys[name]})
        assert (answer.json()["problems"], answer.json()["away"]) == (row["problems"], [])
    await rig.gateway.channel("silent", "Other", provider="twilio")
    answer = await rig.gateway.client.get("/api/status?channelLabel=Other", headers={"X-Api-Key": keys["silent"]})
    assert answer.json()["problems"] == []
    removed = await rig.gateway.client.delete("/admin/v1/tenants/silent/channels/Other", headers=rig.gateway.admin)
    assert removed.status_code == 204

    # A tenant's own is its row, and nothing of another's; a page goes on behind the last one.
    for name, row in rows.items():
        answer = await rig.gateway.client.get("/v1/overview", headers={"X-Api-Key": keys[name]})
        assert answer.status_code == 200, answer.text
        assert answer.json() == row
    assert (await rig.gateway.client.get("/v1/overview")).status_code == 401
    paged: list[str] = []
    cursor = ""
    while True:
        page = await rig.overview(limit=2, cursor=cursor)
        paged += [row["tenant"] for row in page["worst_first"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert paged == list(rows)
    for hostile in ("x", "1.2", "1.2.3.4", "-1.0.a", "1.1.\u0661"):
        answer = await rig.gateway.client.get(
            "/admin/v1/overview", params={"cursor": hostile}, headers=rig.gateway.admin
        )
        rig.gateway.problem(answer, 422, "cursor")
    assert (await rig.gateway.client.get("/admin/v1/overview")).status_code == 401


async def test_who_is_away_is_said_and_the_rest_is_there(rig: OverviewRig) -> None:
    keys = await _town(rig)
    for service in ("normalizer", "suppression", "reconciler", "notifier"):
        rig.refusals[service] = BackhaulError(Code.UNAVAILABLE, f"{service} is away.")
    for number in range(6):
        await rig.gateway.tenant(f"more-{number}")
        await rig.gateway.channel(f"more-{number}")
    rig.asked.clear()
    found = await rig.overview()
    away = {one["name"]: one["text"] for one in found["installation"]["services"] if one["state"] == "away"}
    assert away == {
        "normalizer": "normalizer is away.",
        "suppression": "suppression is away.",
        "reconciler": "reconciler is away.",
        "notifier": "The notifier is away or too slow.",
    }
    assert found["worst_first"][0]["tenant"] == "lost"  # Audit still answers.
    assert all(row["away"] == ["normalizer", "notifier", "reconciler"] for row in found["worst_first"])
    # Nobody is waited for eleven times: a few at once find out.
    assert max(rig.asked.values()) <= 10
    own = (await rig.gateway.client.get("/v1/overview", headers={"X-Api-Key": keys["held"]})).json()
    assert own["away"] == ["normalizer", "notifier", "reconciler"]
    assert own["dead_letters"] == {"open": None, "more": False, "latest_at": None}
    assert [one["part"] for one in own["problems"]] == ["processing"]
    rig.refusals.clear()
    assert (await rig.overview())["worst_first"][1]["tenant"] == "silent"


async def test_all_are_looked_at_once_for_many_who_ask(rig: OverviewRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overviews, "FRESH_S", 3600.0)
    await rig.gateway.tenant()
    await rig.gateway.channel()
    first = await rig.overview()
    for _ in range(3):
        assert (await rig.overview())["asked_since"] == first["asked_since"]
    assert rig.asked["notifier"] == rig.asked["suppression"] == 1
    assert rig.asked["audit"] == 0  # The channel asks for no files.
    # Who is new, or gone, is counted at once.
    await rig.gateway.tenant("other")
    found = await rig.overview()
    assert (found["tenants"], found["asked"]) == (2, 1)


async def test_what_nobody_stores_and_whose_share_is_full_are_told_while_the_broker_is_away(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overviews, "FRESH_S", 0.0)
    monkeypatch.setattr(overviews, "WAIT_S", 20.0)
    limits = {"stream_max_bytes": 2 << 20, "gateway_spool_dir": tmp_path, "gateway_publish_timeout_s": 0.5}
    async with overseeing(gateway_factory, fresh_nats.uri, **limits) as rig:
        gateway = rig.gateway
        acme, _ = await gateway.tenant(), await gateway.tenant("other")
        await gateway.channel(verification="off")
        large = {**gateway.form, "Body": "x" * 150_000}

        async def full() -> dict[str, Any] | None:
            await gateway.post(acme, form=large)
            found = await rig.overview()
            (row,) = [row for row in found["worst_first"] if row["tenant"] == "acme"]
            return row if ("quota", "error") in [(one["part"], one["severity"]) for one in row["problems"]] else None

        row = await waiting.until("a share that is full", full)
        problem = next(one for one in row["problems"] if one["part"] == "quota")
        (other,) = [row for row in (await rig.overview())["worst_first"] if row["tenant"] == "other"]
        assert row["quota"] > 0.5
        assert "503" in problem["text"]
        assert (other["problems"], other["quota"]) == ([], 0.0)
        await fresh_nats.kill()
        assert (await gateway.post(acme)).status_code == 200
        found = await rig.overview()
        assert {"queue", "processing"} <= {one["part"] for one in found["installation"]["problems"]}
        assert found["installation"]["callbacks_waiting"] is None
        assert found["worst_first"][0]["spooled"] > row["spooled"]
        assert "spool" in [one["part"] for one in found["worst_first"][0]["problems"]]
