"""Counts of whole hours and days, and events that are followed."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

import pytest
from answering import Gateway
from backhaul_cli.__main__ import main

TEXTS = (
    "id channel kind provider provider_status message_id recipient sender communication_id error_code error_text text "
    "source verification data_format callback_id traceparent"
)
NULLS = (
    "error_class error_url occurred_at occurred_at_basis sequence received_at recipient_family consent classification "
    "review reply answered data"
)
LISTS = "references vars attributes missing_parameters default_parameters"
EVENT: dict[str, Any] = {"revision": 0, "invalid_recipient": False, "by_machine": False}
EVENT |= dict.fromkeys(TEXTS.split(), "x") | dict.fromkeys(NULLS.split()) | {name: [] for name in LISTS.split()}
END = b'event: end\ndata: {"code": "forbidden", "message": "The tenant is suspended."}\n\n'


@pytest.mark.parametrize(
    ("per", "from_", "to", "asked"),
    [
        ("hour", "2026-11-28T09:20Z", "2026-11-28T11:20Z", ("2026-11-28T09:00", "2026-11-28T12:00")),
        ("hour", "2026-11-28T09:00Z", "2026-11-28T11:00Z", ("2026-11-28T09:00", "2026-11-28T11:00")),
        ("day", "2026-11-28T00:20+01:00", "2026-11-28T11:20Z", ("2026-11-27T00:00", "2026-11-28T12:00")),
    ],
)
def test_counts_are_of_whole_hours_and_days(
    gateway: Gateway, per: str, from_: str, to: str, asked: tuple[str, str]
) -> None:
    gateway.says("GET /v1/stats", {"rows": [], "truncated": False, "from": from_, "to": to, "per": per})
    main(["stats", "--per", per, "--from", from_, "--to", to])
    query = parse_qs(gateway.to("GET /v1/stats")[0])
    assert (query["from"][0], query["to"][0]) == tuple(f"{one}:00+00:00" for one in asked)


def test_whoever_follows_is_told_where_to_go_on_however_it_ends(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.says("GET /v1/events/stream", b"id: 4\ndata: " + json.dumps(EVENT).encode() + b"\n\n" + END)
    assert main(["tail", "--json"]) == 3
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert told["stream_id"] == "4"
    assert {name: told[name] for name in EVENT} == EVENT
    assert "backhaul tail --after 4\n" in said.err
    assert "suspended" in said.err

    # With what it was asked for.
    assert main(["tail", "--channel", "Outbound Delivery", "--kind", "failed"]) == 3
    assert "backhaul tail --channel 'Outbound Delivery' --kind failed --after 4\n" in capsys.readouterr().err
    gateway.says("GET /v1/suppressions/changes", {"changes": [], "next_position": 0}, 403)
    assert main(["suppressions", "watch", "--kind", "stop,complaint", "--family", "phone"]) == 3
    again = "backhaul suppressions watch --after 0 --family phone --kind stop,complaint\n"
    assert again in capsys.readouterr().err


def test_a_gateway_that_is_restarted_is_waited_for(
    gateway: Gateway, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    def sleep(pause_s: float) -> None:
        pauses.append(pause_s)
        if sum(pauses) > 120:
            gateway.says("GET /v1/events/stream", END)

    monkeypatch.setattr("time.sleep", sleep)
    gateway.says("GET /v1/events/stream", 503)
    assert main(["tail"]) == 3
    assert max(pauses) < 10
    said = capsys.readouterr().err
    assert 1 <= said.count("Not now: trying again") <= 2
    assert "--after" not in said
