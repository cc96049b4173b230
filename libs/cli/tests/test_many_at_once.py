"""What is done to many at once is what was counted, and it is a no where it was not done to its end."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from answering import Gateway
from backhaul_cli.__main__ import main

NULLS = "channel reason span_from span_to text stored_since author created_at ended_at"
COUNTS = "callbacks events new completed contradicted unreadable erased dead_letters"


def replay(state: str, **known: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(NULLS.split())
    counts = dict.fromkeys(COUNTS.split(), 3)
    made = {"id": "r1", "kind": "discard", "state": state, "dry_run": False, "percent": 9, "counts": counts}
    return {**nothing, **made, "examples": [], **known}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Somebody at a terminal, who says yes; what they were asked."""
    questions: list[str] = []

    def confirm(question: str, **_: object) -> None:
        questions.append(question)

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", confirm)
    return questions


def test_dead_letters_that_come_after_the_count_are_not_meant(gateway: Gateway, asked: list[str]) -> None:
    gateway.says("POST /v1/dead-letters/discard", replay("done"))
    before = datetime.now(UTC)
    assert main(["dead-letters", "discard", "--channel", "Twilio"]) == 0
    counted, done = gateway.to("POST /v1/dead-letters/discard")
    assert asked == ["Discard 3 dead letters?"]
    assert counted == {**done, "dry_run": True}
    assert before <= datetime.fromisoformat(done["to"]) <= datetime.now(UTC)


def test_a_count_that_broke_off_is_asked_about_by_nobody(
    gateway: Gateway, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.says("POST /v1/dead-letters/replay", replay("stopped", text="The store is full."))
    assert main(["dead-letters", "replay", "--channel", "Twilio"]) == 7
    assert "stopped: The store is full. Nothing was changed." in capsys.readouterr().err
    assert (asked, len(gateway.asked)) == ([], 1)


@pytest.mark.parametrize(
    "command",
    [
        ["dead-letters", "discard", "--channel", "Twilio"],
        ["deliveries", "redeliver", "--subscription", "s", "--from", "1h"],
    ],
)
def test_where_nobody_can_be_asked_nothing_is_counted(
    gateway: Gateway, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 2
    assert "--yes" in capsys.readouterr().err
    assert gateway.asked == []


def test_deliveries_that_come_after_the_count_are_not_meant(
    gateway: Gateway, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.says("POST /v1/subscriptions/s/redeliver", {"deliveries": 100_000})
    assert main(["deliveries", "redeliver", "--subscription", "s", "--from", "1h"]) == 0
    counted, done = gateway.to("POST /v1/subscriptions/s/redeliver")
    assert counted == {**done, "dry_run": True}
    assert "to" in done
    assert asked == ["Send 100000 or more deliveries again?"]
    assert "100000 or more" in capsys.readouterr().out


@pytest.mark.parametrize("state", ["stopped", "cancelled"])
@pytest.mark.parametrize(
    ("command", "to"),
    [
        (["replay", "run", "Twilio", "--from", "1h"], "POST /v1/replays"),
        (["dead-letters", "replay", "--channel", "Twilio", "--yes"], "POST /v1/dead-letters/replay"),
    ],
)
def test_a_replay_that_was_not_done_to_its_end_is_a_no(
    gateway: Gateway, command: list[str], to: str, state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.says(to, replay(state, takes_s=90, stored_since="2026-11-01T00:00:00Z"))
    assert main(command) == 7
    said = " ".join(capsys.readouterr().out.split())
    assert f"state {state}" in said
    assert "takes at least 90 s stored since 2026-11-01 00:00:00.000Z" in said


def test_letters_that_were_refused_again_are_no_closed_ones(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    done = replay("done", kind="dead_letters", examples=[{"outcome": "refused_again", "id": "d1", "event_kind": None}])
    done["counts"] |= {"dead_letters": 7, "refused_again": 2}
    gateway.says("POST /v1/dead-letters/replay", done)
    assert main(["dead-letters", "replay", "--channel", "Twilio", "--yes"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "dead letters closed 7 refused again, open 2 refused again d1" in said


@pytest.mark.slow
@pytest.mark.parametrize("nobody", [[503] * 6, [429] * 6])
def test_a_replay_that_is_waited_for_outlasts_a_gateway_that_does_not_answer(
    gateway: Gateway, nobody: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.says("POST /v1/replays", replay("running"))
    gateway.says("GET /v1/replays/r1", replay("running"), *nobody, replay("done", percent=100))
    assert main(["replay", "run", "Twilio", "--from", "1h", "--rate", "7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "done"
    assert gateway.to("POST /v1/replays")[0]["rate_per_s"] == 7


def test_a_replay_that_cannot_be_asked_about_goes_on_and_that_is_said(
    gateway: Gateway, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backhaul_cli.replaying.PATIENCE_S", -1.0)
    gateway.says("POST /v1/replays", replay("running"))
    for answer, code in ((401, 3), (503, 6)):
        gateway.says("GET /v1/replays/r1", answer)
        assert main(["replay", "run", "Twilio", "--from", "1h"]) == code
        assert "It goes on: backhaul replay show r1" in capsys.readouterr().err


def test_deliveries_are_found_by_why_they_failed(gateway: Gateway) -> None:
    gateway.says("GET /v1/deliveries", {"deliveries": [], "next_cursor": None})
    assert main(["deliveries", "list", "--reason", "tls_*", "--state", "failed"]) == 0
    assert "reason=tls_%2A" in gateway.to("GET /v1/deliveries")[0]
