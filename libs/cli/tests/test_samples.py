"""Samples before they are sent: what can be changed of one, and where it goes."""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from answering import Gateway
from backhaul_cli import profiles, sampling
from backhaul_cli.__main__ import main
from backhaul_cli.changing import edited, overridden
from backhaul_cli.failing import FailedError
from backhaul_cli.profiles import Profile
from backhaul_client.adminmodels import Channel
from test_messages import EVENT

BODY = {"email": "a@example.com", "timestamp": 1, "to": [{"n": 1}, {"n": 2}], "deep": {"a": None}}
KEY = "bhk_0123456789ab_key"
TOKEN = "bhi_0123456789ab_token"


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("email=7", {"email": "7"}),
        ("timestamp=7", {"timestamp": 7}),
        ("timestamp=soon", {"timestamp": "soon"}),
        ("to.1.n=3", {"to": [{"n": 1}, {"n": 3}]}),
        ("deep.a=true", {"deep": {"a": True}}),
        ("deep.b.c=x=y", {"deep": {"a": None, "b": {"c": "x=y"}}}),
        ("new=[1]", {"new": [1]}),
        ('new="1"', {"new": "1"}),
        ("new=", {"new": ""}),
    ],
)
def test_a_path_leads_into_json(override: str, changed: dict[str, Any]) -> None:
    before = str(BODY)
    assert overridden(BODY, [override], is_form=False) == BODY | changed
    assert str(BODY) == before


def test_a_forms_fields_are_texts_without_parts() -> None:
    assert overridden({"To": "x"}, ["To=7", "a.b=1"], is_form=True) == {"To": "7", "a.b": "1"}


@pytest.mark.parametrize("override", ["email", "=x", "email.a=1", "to.2.n=1", "to.x=1", "to.-1=1", "to.2=1"])
def test_what_leads_nowhere_is_named(override: str) -> None:
    with pytest.raises(FailedError) as refused:
        overridden(BODY, [override], is_form=False)
    assert "--override" in refused.value.what
    assert refused.value.fix


@pytest.mark.parametrize(
    ("editor", "said"),
    [
        ("no-such-editor -w", "no-such-editor"),
        ("false", "ended with 1"),
        ("sed -i s/{/[/", "no JSON"),
        ("sed -i -n '1s/.*/[]/p'", "no object"),
        ("sed -i s/1/2/", ""),
    ],
)
def test_what_an_editor_leaves_is_looked_at(editor: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", editor)
    if not said:
        assert edited({"a": 1}, is_form=False) == {"a": 2}
        with pytest.raises(FailedError, match="form"):
            edited({"a": 1}, is_form=True)
        return
    with pytest.raises(FailedError, match=said):
        edited({"a": 1}, is_form=False)


def channel(base: str) -> Channel:
    return Channel(
        label="Twilio",
        key="twilio",
        provider="twilio",
        secret_count=1,
        has_pull_credentials=False,
        has_audit_credentials=False,
        settings={},
        verification="enforce",
        processing="on",
        held_since=None,
        callback_url=f"{base}/in/{{ingest_token}}/api/postevents?channelLabel=Twilio#rc=5&rp=all",
        token_url=None,
        updated_at=datetime.now(UTC),
    )


@pytest.mark.parametrize("base", ["https://callbacks.example.com", "https://example.com/in/front"])
def test_it_is_signed_for_the_providers_address_and_posted_where_the_key_belongs(base: str) -> None:
    own = Profile(source="", url="http://127.0.0.1:8080", api_key=KEY)
    by_key = sampling.address(own, channel(base), ["z=1", "a=b c&d"])
    assert by_key.signed == f"{base}/api/postevents?a=b+c%26d&channelLabel=Twilio&z=1"
    assert by_key.posted == "http://127.0.0.1:8080/api/postevents?a=b+c%26d&channelLabel=Twilio&z=1"
    assert by_key.headers == {"X-Api-Key": KEY}
    with_token = Profile(source="", url="http://127.0.0.1:8080", api_key=KEY, ingest_token=TOKEN)
    by_token = sampling.address(with_token, channel(base))
    assert by_token.signed == f"{base}/in/{TOKEN}/api/postevents?channelLabel=Twilio"
    assert by_token.posted == f"http://127.0.0.1:8080/in/{TOKEN}/api/postevents?channelLabel=Twilio"
    assert by_token.headers == {}
    assert TOKEN not in repr(with_token)


CHANNEL = {
    "label": "Twilio", "key": "twilio", "provider": "twilio", "secret_count": 1, "has_pull_credentials": False,
    "has_audit_credentials": False, "settings": {}, "verification": "enforce", "processing": "on", "held_since": None,
    "token_url": None, "updated_at": "2026-11-28T09:00:00Z",
}  # fmt: skip
EVENT_ID = "0123"


def ready(gateway: Gateway) -> None:
    """The gateway has a channel, and its preview is an event."""
    url = f"{gateway.url}/in/{{ingest_token}}/api/postevents?channelLabel=Twilio"
    gateway.says("GET /v1/channels", {"channels": [{**CHANNEL, "callback_url": url}]})
    gateway.says(
        "POST /v1/channels/Twilio/preview",
        {
            "verification": {"mode": "enforce", "result": "verified", "code": None, "detail": None},
            "answer": {"status": 200, "content_type": None, "body": None},
            "parts": [{"event": {**EVENT, "id": EVENT_ID}, "ignored": None, "dead_letter": None}],
            "truncated": False,
        },
    )


def test_what_was_stored_and_does_not_come_is_said_with_where_to_look(
    gateway: Gateway, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(gateway)
    monkeypatch.setattr(sampling, "PATIENCE_S", 0.2)
    # The gateway of these tests reads bodies as JSON.
    monkeypatch.setattr("backhaul_samples.twilio.urlencode", lambda _content: "{}")
    gateway.says("POST /api/postevents", "")
    assert main(["send", "twilio", "sent", "--follow"]) == 6
    said = capsys.readouterr()
    assert said.out == ""
    assert "backhaul message x" in said.err
    assert said.err.count("\n") == 1

    asleep = time.sleep

    def interrupted(pause_s: float) -> None:
        # Other threads of this process sleep too, and Ctrl-C is none of theirs.
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        asleep(pause_s)

    monkeypatch.setattr("time.sleep", interrupted)
    monkeypatch.setattr(sampling, "PATIENCE_S", 60)
    assert main(["send", "twilio", "sent", "--follow"]) == 130
    assert "It was sent: backhaul message x" in capsys.readouterr().err


def test_no_token_is_in_what_is_said_where_nobody_answers(
    gateway: Gateway, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ready(gateway)
    for name in ("URL", "API_KEY", "ADMIN_TOKEN"):
        monkeypatch.delenv(f"BACKHAUL_{name}")
    own = Profile(source="", url=gateway.url, api_key=KEY, ingest_token=TOKEN)
    profiles.write(profiles.path(os.environ), profiles.Profiles({}).with_one("acme", own))
    monkeypatch.setattr("backhaul_samples.twilio.urlencode", lambda _content: "{}")
    path = f"POST /in/{TOKEN}/api/postevents"
    gateway.says(path, b"cut off")
    assert main(["send", "twilio", "sent"]) == 6
    gateway.says(path, 403)
    assert main(["send", "twilio", "sent"]) != 0
    said = capsys.readouterr()
    assert len(gateway.to(path)) == 2
    assert TOKEN not in said.out + said.err
    assert KEY not in said.out + said.err
    # Another tenant's key takes no token of this one along.
    monkeypatch.setattr("sys.stdin", StringIO("bhk_other\n"))
    assert main(["profile", "add", "acme", "--url", gateway.url]) == 0
    kept = profiles.read(tmp_path / "backhaul" / "config.toml").one("acme")
    assert (kept.api_key, kept.ingest_token) == ("bhk_other", "")
