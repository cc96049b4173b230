"""What joins a message of SendGrid to a communication by default."""

from __future__ import annotations

import json

import pytest
from backhaul_channels import Context
from backhaul_channels.providers.sendgrid import ADAPTER
from backhaul_channels.providers.sendgrid.settings import SendGridSettings
from pydantic import ValidationError


@pytest.mark.parametrize(
    ("fields", "joined_by"),
    [
        ({"category": "news", "marketing_campaign_id": 7}, "marketing_campaign_id"),
        ({"marketing_campaign_id": 7, "singlesend_id": "s"}, "singlesend_id"),
        ({"marketing_campaign_id": 7, "campaign": "spring"}, "campaign"),
        ({"marketing_campaign_name": "Spring", "category": ["news"]}, "category"),
    ],
)
def test_the_default_keys_join_a_message_to_its_sending(fields: dict[str, object], joined_by: str) -> None:
    settings = SendGridSettings()
    event = {"event": "open", "timestamp": 1, "sg_event_id": "e1", **fields}
    names = {name for name, _ in ADAPTER.normalize(json.dumps(event).encode(), Context(settings)).vars}
    assert next(key for key in settings.communication_keys if key in names) == joined_by


@pytest.mark.parametrize(
    "key",
    ["type", "Type", "status", "email", "timestamp", "event", "sg_message_id", "SMTP-ID", "from", "url", "reason"],
)
def test_a_communication_key_that_sendgrid_overwrites_is_refused(key: str) -> None:
    with pytest.raises(ValidationError, match=rf"'{key}' can join no message: SendGrid .* under another name"):
        SendGridSettings(communication_keys=("campaign", key))


@pytest.mark.parametrize(
    "key", ["status", "type", "email", "timestamp", "sg_event_id", "category", "SG_Message_Id", "Smtp-Id", "from"]
)
def test_a_message_id_that_sendgrid_overwrites_is_refused(key: str) -> None:
    with pytest.raises(ValidationError, match=rf"'{key}' can name no message: SendGrid .*'sg_message_id', 'smtp-id'"):
        SendGridSettings(message_id_from=(key, "sg_message_id"))


def test_what_can_work_is_taken() -> None:
    SendGridSettings(
        communication_keys=("category", "Category", "singlesend_id", "marketing_campaign_id", "template_id", "order"),
        message_id_from=("smtp-id", "sg_message_id", "my_message_id", "order"),
    )


def test_nothing_of_the_url_is_signed() -> None:
    assert ADAPTER.signs_url is False
