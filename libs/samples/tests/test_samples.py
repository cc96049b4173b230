"""Samples as such. What they are worth to a gateway is tried in tests/e2e/test_first_callback.py."""

from __future__ import annotations

import pytest
from backhaul_samples import PROVIDERS, named
from backhaul_samples.addresses import address

TOKEN = "bhi_0123456789ab_token"


@pytest.mark.parametrize("base", ["https://callbacks.example.com", "https://example.com/in/front"])
def test_an_address_leads_to_the_same_place_behind_any_other(base: str) -> None:
    url = f"{base}/in/{{ingest_token}}/api/postevents?channelLabel=Our%20texts#rc=5&rp=all"
    by_header = address(url)
    assert by_header.signed == f"{base}/api/postevents?channelLabel=Our%20texts"
    assert by_header.path == "/api/postevents?channelLabel=Our%20texts"
    by_token = address(url, TOKEN, ["z=1", "a=b c&d"])
    assert by_token.signed == f"{base}/in/{TOKEN}/api/postevents?a=b+c%26d&channelLabel=Our%20texts&z=1"
    assert by_token.path == f"/in/{TOKEN}/api/postevents?a=b+c%26d&channelLabel=Our%20texts&z=1"


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


def test_what_is_no_key_signs_nothing_and_is_not_repeated() -> None:
    sendgrid = PROVIDERS["sendgrid"]
    with pytest.raises(ValueError, match="openssl") as refused:
        sendgrid.post(sendgrid.sample("open"), "", "-----BEGIN mine")
    assert "mine" not in str(refused.value)
