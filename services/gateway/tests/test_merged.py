"""What a request makes of a channel, without a gateway."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from backhaul_channels import load_adapters
from backhaul_common.errors import BackhaulError
from backhaul_common.tenants import Channel
from backhaul_gateway.admin.channels import ChannelRequest, merged

ADAPTERS = load_adapters()
THEN, NOW, LATER = (datetime(2026, month, 1, tzinfo=UTC) for month in (3, 4, 5))

BEFORE = Channel.model_validate(
    {
        "label": "Twilio",
        "key": "twilio",
        "provider": "twilio",
        "secrets": ("<old>",),
        "settings": {"newer_mapping": [1]},
        "verification": "observe",
        "updated_at": THEN,
        "newer_paused": True,
    }
)


def after(request: ChannelRequest, before: Channel | None = BEFORE, provider: str = "twilio") -> Channel:
    return merged(before, request, ADAPTERS[provider], lambda plain: f"<{plain}>", NOW)


def test_what_is_left_out_stays() -> None:
    assert after(ChannelRequest(label="TWILIO")) == BEFORE.model_copy(update={"label": "TWILIO", "updated_at": NOW})


def test_what_is_given_replaces_what_there_was() -> None:
    found = after(ChannelRequest(label="Twilio", secrets=["a" * 32, " ", "b" * 32], settings={}, verification="off"))
    changed = {"secrets": (f"<{'a' * 32}>", f"<{'b' * 32}>"), "settings": {}, "verification": "off", "updated_at": NOW}
    assert found == BEFORE.model_copy(update=changed)
    assert after(ChannelRequest(label="Twilio", secrets=[])).secrets == ()


def test_only_the_verification_outlives_a_change_of_the_provider() -> None:
    expected = Channel(label="Twilio", key="twilio", provider="sendgrid", verification="observe", updated_at=NOW)
    assert after(ChannelRequest(label="Twilio"), provider="sendgrid") == expected


def test_it_is_held_since_it_was_first_set_to_be() -> None:
    held = after(ChannelRequest(label="Twilio", processing="held"))
    assert (held.processing, held.held_since) == ("held", NOW)
    for request in (ChannelRequest(label="Twilio"), ChannelRequest(label="Twilio", processing="held")):
        for provider in ("twilio", "sendgrid"):
            still = merged(held, request, ADAPTERS[provider], lambda plain: plain, LATER)
            assert (still.processing, still.held_since, still.updated_at) == ("held", NOW, LATER)
    on = after(ChannelRequest(label="Twilio", processing="on"), held)
    assert (on.processing, on.held_since) == ("on", None)


def test_a_new_channel_is_verified_and_enforced() -> None:
    expected = Channel(label="My SMS", key="my-sms", provider="twilio", verification="enforce", updated_at=NOW)
    assert after(ChannelRequest(label="My SMS"), before=None) == expected


def test_every_field_that_the_adapter_refuses_is_named() -> None:
    with pytest.raises(BackhaulError) as refused:
        after(ChannelRequest(label="Twilio", secrets=["MIIB", "x"], settings={}), provider="sendgrid")
    assert [one.field for one in refused.value.violations] == ["secrets[0]", "secrets[1]"]
    with pytest.raises(BackhaulError) as refused:
        after(ChannelRequest(label="Twilio", settings={"unheard_of": 1}))
    assert [one.field for one in refused.value.violations] == ["settings.unheard_of"]


@pytest.mark.parametrize(
    ("replies", "field", "said"),
    [
        ({"removed": ["TD", "stop"]}, "settings.replies.removed", "47 CFR 64.1200"),
        ({"removed": ["aide"]}, "settings.replies.removed", "Canada"),
        ({"templates": [{"name": "Size", "keywords": ["s"]}]}, "settings.replies", "capture_survey_responses"),
        ({"languages": ["tlh"]}, "settings.replies.languages", "'tlh'"),
        ({"added": {"stop": ["x" * 35]}}, "settings.replies.added.stop[0]", "34"),
    ],
)
def test_what_cannot_be_set_of_replies_is_refused_with_its_reason(
    replies: dict[str, object], field: str, said: str
) -> None:
    with pytest.raises(BackhaulError) as refused:
        after(ChannelRequest(label="Twilio", settings={"replies": replies}))
    assert [one.field for one in refused.value.violations] == [field]
    assert said in refused.value.violations[0].message


def test_what_is_set_of_replies_is_stored_as_it_was_given() -> None:
    replies = {"likely_stop": "apply", "removed": ["TD"], "added": {"stop": ["basta"]}}
    assert after(ChannelRequest(label="Twilio", settings={"replies": replies})).settings == {"replies": replies}


def test_a_channel_that_hears_no_replies_has_no_settings_for_them() -> None:
    with pytest.raises(BackhaulError) as refused:
        after(ChannelRequest(label="Twilio", settings={"replies": {}}), provider="sendgrid")
    assert [one.field for one in refused.value.violations] == ["settings.replies"]
