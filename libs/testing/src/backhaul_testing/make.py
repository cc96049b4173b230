"""Values as services hand them to each other, for tests that need some: tenants, callbacks, bodies of providers."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from backhaul_common.ids import new_callback_id
from backhaul_common.tenants import Channel, Tenant
from backhaul_proto.callback.v1 import callback_pb2
from backhaul_proto.callback.v1.callback_pb2 import Callback


def tenant(tenant_id: str, **channels: dict[str, Any]) -> Tenant:
    """A tenant with the channels Twilio and SendGrid, and with those of which ``channels`` gives the settings.

    The key of each channel is its provider.
    """
    now = datetime.now(UTC)
    return Tenant(
        id=tenant_id,
        registration=f"{tenant_id}.1",
        name=tenant_id,
        queue_path=f"path-{tenant_id}",
        channels={
            key: Channel(
                label=key, key=key, provider=key, settings=channels.get(key, {}), verification="off", updated_at=now
            )
            for key in dict.fromkeys(("twilio", "sendgrid", *channels))
        },
        created_at=now,
        updated_at=now,
    )


def callback(of: Tenant, body: bytes | str, *, channel: str = "twilio", query: str = "", **fields: Any) -> Callback:
    """A callback as the gateway stores it."""
    return Callback(
        id=new_callback_id(),
        tenant_id=of.id,
        registration=of.registration,
        channel=channel,
        provider=fields.pop("provider", channel),
        method="POST",
        url=f"https://callbacks.example.com/api/postevents?channelLabel={channel}{query and '&' + query}",
        body=body.encode() if isinstance(body, str) else body,
        received_at_us=time.time_ns() // 1000,
        source=fields.pop("source", callback_pb2.SOURCE_CALLBACK),
        verification=fields.pop("verification", callback_pb2.VERIFICATION_VERIFIED),
        **fields,
    )


def twilio(sid: str, status: str, **more: str) -> str:
    """A status callback's body."""
    return urlencode(
        {
            "MessageSid": sid,
            "MessageStatus": status,
            "To": "+15005550001",
            "From": "+15005550006",
            "AccountSid": "AC1",
            **more,
        }
    )


def sendgrid(*events: dict[str, Any]) -> str:
    """An event webhook's body."""
    return json.dumps(events)
