"""``/v1/reconciliation`` over a reconciler that answers what it is told to, and what the status says of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from backhaul_channels import load_adapters
from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_gateway.reads.reconcilerstate import ReconcilerStates
from backhaul_local.nats_server import NatsServer
from backhaul_proto.event.v1.event_pb2 import EVENT_KIND_DELIVERED, EVENT_KIND_FAILED
from backhaul_proto.reconciler.v1 import reconciler_pb2 as pb
from backhaul_testing import make
from gateway_rig import GatewayFactory
from reconciler_rig import (
    ENDED,
    ENDED_SHOWN,
    REPORT_ID,
    RUNNING,
    RUNNING_SHOWN,
    ReconcilerRig,
    reconciling,
)

AT_US, AT = 1_700_000_000_000_000, "2023-11-14T22:13:20.000000Z"
STATUS_AT = "2023-11-14T22:13:20Z"


@pytest.fixture
async def rig(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> AsyncIterator[ReconcilerRig]:
    async with reconciling(gateway_factory, fresh_nats.uri) as found:
        yield found


async def test_reports(rig: ReconcilerRig) -> None:
    rig.reconciler.answers["ListReports"] = pb.ListReportsResponse(reports=[ENDED, RUNNING], next_page_token="t")
    params: dict[str, Any] = {"channel": "Twilio", "from": "2026-11-01T00:00:00Z", "limit": 5, "cursor": "c"}
    answer = await rig.get("/reports", to="2026-11-02T00:00:00+01:00", **params)
    assert (answer.status_code, answer.json()) == (
        200,
        {"reports": [ENDED_SHOWN, RUNNING_SHOWN], "next_cursor": "t"},
    )
    rig.reconciler.answers["GetReport"] = pb.GetReportResponse(report=ENDED)
    assert (await rig.get(f"/reports/{REPORT_ID}")).json() == ENDED_SHOWN
    assert rig.reconciler.asked == [
        pb.ListReportsRequest(
            tenant_id="acme",
            channel="Twilio",
            from_us=1_793_491_200_000_000,
            to_us=1_793_574_000_000_000,
            page_size=5,
            page_token="c",
        ),
        pb.GetReportRequest(tenant_id="acme", id=REPORT_ID),
    ]
    problem = rig.gateway.problem(await rig.get("/reports/1"), 422, "report_id")
    assert problem["errors"][0]["fix"] == "Pass the id of a report, 32 lower-case hex digits, as reports are listed."
    rig.reconciler.refusal = BackhaulError(Code.NOT_FOUND, "There is no such report.", field="id", fix="Another.")
    rig.gateway.problem(await rig.get(f"/reports/{REPORT_ID}"), 404, "report_id")
    rig.reconciler.refusal = BackhaulError(Code.INVALID_ARGUMENT, "No token.", field="page_token", fix="None.")
    rig.gateway.problem(await rig.get("/reports", cursor="wrong"), 422, "cursor")


async def test_differences(rig: ReconcilerRig) -> None:
    rig.reconciler.answers["ListDifferences"] = pb.ListDifferencesResponse(
        differences=[
            pb.Difference(
                channel="twilio",
                message_id="SM1",
                kind=pb.DIFFERENCE_KIND_UNKNOWN_TO_PROVIDER,
                our_state=EVENT_KIND_DELIVERED,
                first_seen_at_us=AT_US,
                last_seen_at_us=AT_US,
                report_id=REPORT_ID,
            ),
            pb.Difference(provider_state=EVENT_KIND_FAILED, provider_error_code="30006"),
        ],
        full_channels=["twilio"],
    )
    answer = (await rig.get("/differences", channel="Twilio", kind="State", limit=2)).json()
    assert (answer["full_channels"], answer["next_cursor"]) == (["twilio"], None)
    first, second = answer["differences"]
    assert first == {
        "channel": "twilio",
        "message_id": "SM1",
        "kind": "unknown_to_provider",
        "our_state": "delivered",
        "our_error_code": None,
        "provider_state": None,
        "provider_error_code": None,
        "first_seen_at": AT,
        "last_seen_at": AT,
        "report_id": REPORT_ID,
    }
    assert (second["provider_state"], second["provider_error_code"]) == ("failed", "30006")
    kind = pb.DIFFERENCE_KIND_STATE
    assert rig.reconciler.asked == [
        pb.ListDifferencesRequest(tenant_id="acme", channel="Twilio", kind=kind, page_size=2)
    ]
    rig.gateway.problem(await rig.get("/differences", kind="other"), 422, "kind")


async def test_a_day(rig: ReconcilerRig) -> None:
    day = pb.Day(channel="twilio", day="2026-11-25", state=pb.DAY_STATE_OPEN, text="One is on its way.")
    day.provider_messages, day.equal, day.open, day.compared_at_us = 3, 2, 1, AT_US
    rig.reconciler.answers["GetDay"] = pb.GetDayResponse(day=day)
    assert (await rig.get("/days/2026-11-25", channel="Twilio")).json() == {
        "channel": "twilio",
        "day": "2026-11-25",
        "state": "open",
        "text": "One is on its way.",
        "provider_messages": 3,
        "equal": 2,
        "backfilled": 0,
        "differing": 0,
        "open": 1,
        "unknown_to_provider": 0,
        "compared_at": AT,
    }
    assert rig.reconciler.asked == [pb.GetDayRequest(tenant_id="acme", channel="Twilio", day="2026-11-25")]
    problem = rig.gateway.problem(await rig.get("/days/yesterday", channel="Twilio"), 422, "day")
    assert problem["errors"][0]["fix"] == "Pass a day of UTC, such as 2026-11-25."
    rig.gateway.problem(await rig.get("/days/2026-11-25"), 422, "channel")
    rig.reconciler.refusal = BackhaulError(Code.NOT_FOUND, "It was not looked at.", field="day", fix="Wait.")
    rig.gateway.problem(await rig.get("/days/2026-11-25", channel="Twilio"), 404, "day")


async def test_channels(rig: ReconcilerRig) -> None:
    waiting = pb.Channel(
        channel="twilio",
        standing=pb.STANDING_WAITING,
        text="Asked too often.",
        asked_at_us=AT_US,
        due_at_us=AT_US,
        discovered_to_us=AT_US,
        silence=pb.SILENCE_SILENT,
        silent_since_us=AT_US,
        report_id=REPORT_ID,
    )
    polled = pb.Channel(channel="polled", standing=pb.STANDING_ASKED)
    rig.reconciler.answers["ListChannels"] = pb.ListChannelsResponse(channels=[polled, waiting])
    nothing = dict.fromkeys(("text", "asked_at", "due_at", "discovered_to", "silence", "silent_since", "report_id"))
    assert (await rig.get("/channels")).json() == {
        "channels": [
            {"channel": "polled", "standing": "asked", **nothing},
            {
                "channel": "twilio",
                "standing": "waiting",
                "text": "Asked too often.",
                "asked_at": AT,
                "due_at": AT,
                "discovered_to": AT,
                "silence": "silent",
                "silent_since": AT,
                "report_id": REPORT_ID,
            },
        ]
    }
    assert rig.reconciler.asked == [pb.ListChannelsRequest(tenant_id="acme")]


async def test_a_run_is_answered_when_it_has_begun(rig: ReconcilerRig) -> None:
    rig.reconciler.reports, rig.reconciler.hangs = [RUNNING], True
    body = {"channel": "Twilio", "from": "2026-11-01T00:00:00Z", "to": "2026-11-02T00:00:00+01:00", "dry_run": True}
    answer = await rig.run(body)
    assert (answer.status_code, answer.json()) == (202, RUNNING_SHOWN)
    assert answer.headers["location"] == f"/v1/reconciliation/reports/{REPORT_ID}"
    # Nobody follows it any more; it goes on by itself.
    async with asyncio.timeout(60):
        await rig.reconciler.ended.wait()
    await rig.run({"channel": "twilio"})
    assert rig.reconciler.asked == [
        pb.RunRequest(
            tenant_id="acme",
            channel="Twilio",
            from_us=1_793_491_200_000_000,
            to_us=1_793_574_000_000_000,
            dry_run=True,
        ),
        pb.RunRequest(tenant_id="acme", channel="twilio"),
    ]


async def test_a_run_line_by_line(rig: ReconcilerRig) -> None:
    rig.reconciler.reports = [RUNNING, ENDED]
    answer = await rig.run({"channel": "Twilio"}, progress="true")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
    assert [json.loads(line) for line in answer.text.splitlines()] == [RUNNING_SHOWN, ENDED_SHOWN]
    # What breaks off before the end does not look whole.
    for breaks in (None, unavailable("The reconciler")):
        rig.reconciler.reports, rig.reconciler.breaks = [RUNNING], breaks
        with pytest.raises(httpx.RemoteProtocolError):
            await rig.run({"channel": "Twilio"}, progress="true")


async def test_who_hangs_up_is_told_nothing_more(rig: ReconcilerRig) -> None:
    rig.reconciler.reports, rig.reconciler.hangs = [RUNNING], True
    path, body = "/v1/reconciliation/runs?progress=true", {"channel": "Twilio"}
    async with rig.gateway.client.stream("POST", path, json=body, headers=rig.headers):
        await rig.reconciler.hanging.wait()
        assert not rig.reconciler.ended.is_set()
    async with asyncio.timeout(60):
        await rig.reconciler.ended.wait()


@pytest.mark.parametrize("progress", ["true", "false"])
async def test_why_no_run_begins(rig: ReconcilerRig, progress: str) -> None:
    for code, field, status, named in (
        (Code.NOT_FOUND, "channel", 404, "channel"),
        (Code.FAILED_PRECONDITION, "channel", 409, "channel"),
        (Code.INVALID_ARGUMENT, "from_us", 422, "from"),
    ):
        rig.reconciler.refusal = BackhaulError(code, f"{field} is wrong.", field=field, fix="Change it.")
        problem = rig.gateway.problem(await rig.run({"channel": "Twilio"}, progress=progress), status, named)
        assert problem["detail"] == f"{named} is wrong."
    rig.reconciler.refusal = unavailable("The reconciler")
    problem = rig.gateway.problem(await rig.run({"channel": "Twilio"}, progress=progress), 503)
    assert "look for it among the reports" in problem["errors"][0]["fix"]
    rig.reconciler.refusal = None
    # One that says nothing of its report.
    rig.gateway.problem(await rig.run({"channel": "Twilio"}, progress=progress), 503)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "channel"),
        ({"channel": ""}, "channel"),
        ({"channel": "\0"}, "channel"),
        ({"channel": "Twilio", "from": "yesterday"}, "from"),
        ({"channel": "Twilio", "to": "2026-11-01T00:00:00"}, "to"),
        ({"channel": "Twilio", "dry_run": "yes"}, "dry_run"),
        ({"channel": "Twilio", "days": 3}, "days"),
    ],
)
async def test_what_is_no_run(rig: ReconcilerRig, body: dict[str, Any], field: str) -> None:
    problem = rig.gateway.problem(await rig.run(body), 422, field)
    assert "item after validation" not in problem["errors"][0]["message"], "a library's own words"
    assert rig.reconciler.asked == []


async def test_nobody_asks_without_a_key(rig: ReconcilerRig) -> None:
    for path in ("channels", "reports", f"reports/{REPORT_ID}", "differences", "days/2026-11-25?channel=Twilio"):
        rig.gateway.problem(await rig.gateway.client.get(f"/v1/reconciliation/{path}"), 401)
    answer = await rig.gateway.client.post("/v1/reconciliation/runs", json={"channel": "Twilio"})
    rig.gateway.problem(answer, 401)
    assert rig.reconciler.asked == []


async def status(rig: ReconcilerRig) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is said of the callbacks, and of the reconciliation, of the channel Twilio."""
    answer = await rig.gateway.client.get("/api/status?channelLabel=Twilio", headers=rig.headers)
    assert answer.status_code == 200, answer.text
    parts = answer.json()["parts"]
    return parts["callbacks"], parts["reconciliation"]


async def test_the_status_names_a_channel_on_which_nothing_is_heard(rig: ReconcilerRig) -> None:
    await rig.gateway.channel()
    here = pb.Channel(channel="twilio", standing=pb.STANDING_NO_CREDENTIALS, text="PUT some.")
    elsewhere = pb.Channel(channel="sendgrid", silence=pb.SILENCE_SILENT, silent_since_us=AT_US)

    def answer(**fields: Any) -> None:
        here.MergeFrom(pb.Channel(**fields))
        rig.reconciler.answers["ListChannels"] = pb.ListChannelsResponse(channels=[elsewhere, here])

    answer(silence=pb.SILENCE_CANNOT_BE_TOLD)
    callbacks, reconciliation = await status(rig)
    assert callbacks == {
        "state": "OK",
        "detail": None,
        "last_seen_at": None,
        "silence": "cannot_be_told",
        "silent_since": None,
    }
    # That nobody gave it credentials is no error.
    nothing = {"state": "OK", "detail": None, "asked_at": None, "discovered_to": None}
    assert reconciliation == {**nothing, "standing": "no_credentials"}

    answer(silence=pb.SILENCE_SILENT, silent_since_us=AT_US)
    callbacks, reconciliation = await status(rig)
    assert (callbacks["state"], callbacks["silence"], callbacks["silent_since"]) == ("Error", "silent", STATUS_AT)
    assert callbacks["detail"].startswith(f"Messages were sent since {STATUS_AT}, and no callback has come:")
    assert reconciliation["state"] == "OK"

    answer(standing=pb.STANDING_CREDENTIALS_REFUSED, text="Status 401.", asked_at_us=AT_US, discovered_to_us=AT_US)
    _, reconciliation = await status(rig)
    assert reconciliation == {
        "state": "Error",
        "detail": "Status 401.",
        "standing": "credentials_refused",
        "asked_at": STATUS_AT,
        "discovered_to": STATUS_AT,
    }
    assert rig.reconciler.asked == [pb.ListChannelsRequest(tenant_id="acme")] * 3


async def test_without_the_reconciler_only_channels_that_it_asks_are_in_error(rig: ReconcilerRig) -> None:
    await rig.gateway.channel()
    rig.reconciler.refusal = unavailable("The reconciler")
    callbacks, reconciliation = await status(rig)
    assert (callbacks["state"], callbacks["silence"]) == ("OK", None)
    assert (reconciliation["state"], reconciliation["standing"]) == ("OK", None)


def test_which_channels_depend_on_the_reconciler() -> None:
    found = load_adapters()
    pulled = type("Pulled", (type(found["twilio"]),), {"puller": object()})()
    states = ReconcilerStates(None, {**found, "twilio": pulled})  # type: ignore[arg-type]  # nobody is asked
    channel = make.tenant("acme").channels["twilio"]
    assert not states._asked(channel)
    asked = channel.model_copy(update={"pull_credentials": "encrypted"})
    assert states._asked(asked)
    assert not states._asked(asked.model_copy(update={"settings": {"reconcile": {"enabled": False}}}))
    assert not states._asked(asked.model_copy(update={"settings": {"reconcile": 1}}))
    assert not states._asked(asked.model_copy(update={"provider": "mpulse"}))
    assert not states._asked(asked.model_copy(update={"provider": "tomorrows"}))
