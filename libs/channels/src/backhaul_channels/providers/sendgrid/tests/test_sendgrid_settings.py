"""What joins a message of SendGrid to a communication by default."""

from __future__ import annotations

import json

import pytest
from backhaul_channels.providers.sendgrid import ADAPTER, SendGridSettings


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
    names = {name for name, _ in ADAPTER.normalize(json.dumps(event).encode(), settings).vars}
    assert next(key for key in settings.communication_keys if key in names) == joined_by
