"""What means nothing is refused, what cannot be taken back is asked about, and pages are followed to their end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from answering import Gateway
from backhaul_cli.__main__ import main

CHANNEL: dict[str, Any] = {"label": "Twilio", "key": "twilio", "provider": "twilio", "verification": "enforce"}
CHANNEL |= {"secret_count": 1, "has_pull_credentials": False, "has_audit_credentials": False, "settings": {}}
CHANNEL |= {"processing": "on", "held_since": None, "callback_url": "", "token_url": None}
CHANNEL |= {"updated_at": "2026-11-28T09:00:00Z"}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["deliveries", "redeliver", "d1", "--which", "failed"], "--which goes with --subscription"),
        (["deliveries", "redeliver", "d1", "--from", "1h", "--rate", "3"], "--from, --rate goes with --subscription"),
        (["message", "SM1", "--json", "--view", "raw"], "leave --view out"),
        (["apply", "FILE", "--json"], "backhaul diff"),
        (["diff", "FILE"], "101 tenants, and 100 are taken at once. Divide it: backhaul export --tenant"),
        (["tenants", "set-status", "acme", "suspended"], "Suspend acme? Nobody can be asked here: say --yes"),
        (["overview", "--limit", "3"], "goes with --tenants"),
    ],
)
def test_what_means_nothing_or_was_not_asked_is_refused(
    gateway: Gateway, command: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "document.json"
    file.write_text(json.dumps({"tenants": [{"id": str(number)} for number in range(101)]}))
    assert main([str(file) if word == "FILE" else word for word in command]) == 2
    assert said in capsys.readouterr().err
    assert gateway.asked == []


@pytest.mark.parametrize(
    ("before", "asked"),
    [
        (CHANNEL, "Twilio is of twilio"),
        (CHANNEL | {"provider": "sendgrid"}, ""),
        (403, "It cannot be seen"),
        (404, ""),
    ],
)
def test_a_channel_gets_another_provider_with_a_yes(
    gateway: Gateway, before: Any, asked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.says("GET /v1/channels/Twilio", before)
    command = ["channels", "add", "Twilio", "--provider", "SendGrid"]
    main(command)
    assert asked in capsys.readouterr().err
    assert len(gateway.to("PUT /v1/channels/Twilio")) == (not asked)
    main([*command, "--yes"])
    assert len(gateway.to("PUT /v1/channels/Twilio")) == 1 + (not asked)


def test_the_history_of_an_address_is_shown_to_its_end(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    page = {"address": "a", "family": "email", "suppressions": [], "history": []}
    gateway.says("GET /v1/suppressions/address", page | {"next_cursor": "c"}, page | {"next_cursor": None})
    assert main(["suppressions", "show", "a", "--json"]) == 0
    assert [("cursor=c" in query) for query in gateway.to("GET /v1/suppressions/address")] == [False, True]
    assert json.loads(capsys.readouterr().out)["next_cursor"] is None


def test_all_tenants_are_as_many_as_were_asked_for(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    shared: dict[str, Any] = {"callbacks_waiting": None, "services": [], "problems": []}
    tenant = {"tenant": "t", "name": "", "status": "active", "channels": [], "problems": [], "held": 0}
    tenant |= {"dead_letters": {"open": None, "more": False, "latest_at": None}, "away": [], "asked_at": None}
    tenant |= {"deliveries": dict.fromkeys(("failing", "waiting", "held", "failed", "waiting_since"))}
    tenant |= {"spooled": None, "quota": None}
    counts = {"asked_since": None, "tenants": 300, "asked": 300, "with_errors": 0, "with_warnings": 0}
    page = counts | {"installation": shared, "worst_first": [tenant] * 100}
    gateway.says("GET /admin/v1/overview", page | {"next_cursor": "c"}, page | {"next_cursor": "d"})
    assert main(["overview", "--tenants", "--limit", "150", "--json"]) == 0
    assert gateway.to("GET /admin/v1/overview") == ["limit=100", "limit=50&cursor=c"]
    said = capsys.readouterr()
    assert len(json.loads(said.out)["worst_first"]) == 200
    assert "There are more tenants" in said.err


def test_profiles_that_have_what_is_missing_are_named(
    gateway: Gateway, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "backhaul" / "config.toml"
    file.parent.mkdir()
    file.touch(mode=0o600)
    file.write_text(
        'current = "acme"\n[profiles.acme]\nurl = "https://a.test"\napi_key = "bhk_1"\n'
        '[profiles.team]\nurl = "https://a.test"\nadmin_token = "t"\n'
    )
    monkeypatch.delenv("BACKHAUL_API_KEY")
    assert main(["messages"]) == 3
    assert "Say --profile acme, which has one" in capsys.readouterr().err
    for name in ("URL", "ADMIN_TOKEN"):
        monkeypatch.delenv(f"BACKHAUL_{name}")
    assert main(["tenants", "list"]) == 3
    said = capsys.readouterr().err
    assert "no admin token in profile acme. Say --profile team, which has one" in said
    assert gateway.asked == []
