"""A channel's settings as fields, and as JSON where there is none."""

from __future__ import annotations

from typing import Any

import pytest
from backhaul_console.forms import Filled
from backhaul_console.providers import provider, settings_of, shown


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"communication_keys": ["campaign", "offer"], "audit": {"enabled": True, "gzip": True}},
        # What a field cannot hold as it is stays among the JSON: an empty list is not the provider's default.
        {"communication_keys": []},
        {"communication_keys": ["two\nlines", " spaces ", ""]},
        {"communication_keys": "no list", "audit": None, "replies": {"likely_stop": "newer", "languages": [1]}},
        {"reconcile": {"senders": ["+15005550006"], "every_minutes": 5}, "unknown": {"of": ["newer"]}},
    ],
)
def test_what_is_shown_is_what_is_saved(settings: dict[str, Any]) -> None:
    of = provider("twilio")
    assert settings_of(of, Filled(shown(of, settings))) == settings


def test_a_field_takes_the_place_of_what_it_showed() -> None:
    of = provider("twilio")
    values = shown(of, {"communication_keys": ["a"], "audit": {"enabled": True, "gzip": True}})
    assert values["settings.audit.enabled"] == ["yes"]
    assert '"gzip"' in values["settings"][0]
    assert "enabled" not in values["settings"][0]
    typed = {**values, "settings.communication_keys": ["b\n\n c "], "settings.audit.enabled": [""]}
    assert settings_of(of, Filled(typed)) == {"communication_keys": ["b", "c"], "audit": {"gzip": True}}
