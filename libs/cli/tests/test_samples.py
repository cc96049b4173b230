"""Samples before they are sent: what can be changed of one, and where it goes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from backhaul_cli import sampling
from backhaul_cli.changing import edited, overridden
from backhaul_cli.failing import FailedError
from backhaul_cli.profiles import Profile
from backhaul_cli.samples import PROVIDERS, named
from backhaul_client.adminmodels import Channel

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


def test_providers_are_known_by_name_and_by_label() -> None:
    assert [one.name for one in PROVIDERS.values() for _ in range(2)] == [
        found.name for one in PROVIDERS.values() for text in (one.name, one.label.upper()) if (found := named(text))
    ]
    assert named("") is None
    assert named("pigeon") is None


def test_secrets_for_trying_follow_from_one_key_and_tell_nothing_of_each_other() -> None:
    for one in PROVIDERS.values():
        assert (one.trying is not None) == one.signs
        if one.trying is not None:
            assert one.trying("a").verifies == one.trying("a").verifies != one.trying("b").verifies
    assert (
        PROVIDERS["twilio"].sample("sent", seed="x")["MessageSid"]
        == PROVIDERS["twilio"].sample("sent", seed="x")["MessageSid"]
    )
    assert PROVIDERS["twilio"].sample("sent")["MessageSid"] != PROVIDERS["twilio"].sample("sent")["MessageSid"]


def test_every_provider_has_the_event_with_which_init_begins() -> None:
    assert all("delivered" in one.events for one in PROVIDERS.values())
