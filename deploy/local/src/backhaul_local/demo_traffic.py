"""The demo's traffic: bodies as the providers send them, signed here as the providers sign them.

The signing is written from the providers' documentation and shares no code with the adapters that check it.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

FORM = {"Content-Type": "application/x-www-form-urlencoded; charset=UTF-8"}
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, kw_only=True)
class Post:
    """One request of a provider: path with query, headers, body."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class TwilioAccount:
    """An account whose auth token signs. https://www.twilio.com/docs/usage/webhooks/webhooks-security"""

    auth_token: str = field(repr=False)

    @classmethod
    def new(cls) -> TwilioAccount:
        return cls(secrets.token_hex(16))

    def post(self, base_url: str, path: str, body: str) -> Post:
        """A signed form post. ``base_url`` is the gateway's public one: Twilio signs the address that it calls."""
        fields = "".join(name + value for name, value in sorted(set(parse_qsl(body, keep_blank_values=True))))
        digest = hmac.digest(self.auth_token.encode(), (base_url + path + fields).encode(), "sha1")
        signature = base64.b64encode(digest).decode()
        return Post(path=path, headers={**FORM, "X-Twilio-Signature": signature}, body=body.encode())


class SendGridWebhook:
    """A signed event webhook with a key pair of its own.

    https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features
    """

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def verification_key(self) -> str:
        """The public key as SendGrid's console shows it."""
        der = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(der).decode()

    def post(self, path: str, body: bytes) -> Post:
        """A signed batch of events, posted now."""
        timestamp = str(int(time.time()))
        signature = self._key.sign(timestamp.encode() + body, ec.ECDSA(SHA256()))
        headers = {
            **JSON,
            "X-Twilio-Email-Event-Webhook-Timestamp": timestamp,
            "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
        }
        return Post(path=path, headers=headers, body=body)


@dataclass(frozen=True, kw_only=True)
class ExpectedMessage:
    """What a message must have become. ``timeline`` holds (kind, provider's word) in order; ``story`` is for people."""

    channel: str
    message_id: str
    story: str
    state: str
    fulfilment_state: str | None
    error_code: str
    error_text: str
    timeline: Sequence[tuple[str, str]]

    @property
    def name(self) -> str:
        return f"{self.channel} {self.message_id if len(self.message_id) < 16 else '…' + self.message_id[-6:]}"


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Everything that is posted, and what must come of it.

    ``twilio_bodies`` are in the order of posting; ``burst_body`` has places for ``{sid}`` and ``{status}``;
    ``unreadable`` is authentic, and no messaging callback.
    """

    twilio_query: str
    twilio_bodies: Sequence[str]
    unreadable: str
    burst_body: str
    sendgrid_batch: bytes
    communication_id: str
    messages: Sequence[ExpectedMessage]
    communication: Mapping[str, Any]


def load_traffic() -> Traffic:
    """Read the data files of this package."""
    folder = files("backhaul_local") / "demo_data"
    twilio = json.loads((folder / "twilio.json").read_text("utf-8"))
    expected = json.loads((folder / "expected.json").read_text("utf-8"))
    messages = [
        ExpectedMessage(**{**message, "timeline": [(kind, word) for kind, word in message["timeline"]]})
        for message in expected["messages"]
    ]
    return Traffic(
        twilio_query=twilio["query"],
        twilio_bodies=[body for message in twilio["messages"] for body in message["bodies"]],
        unreadable=twilio["unreadable"],
        burst_body=twilio["burst"],
        sendgrid_batch=(folder / "sendgrid_batch.json").read_bytes(),
        communication_id=expected["communication_id"],
        messages=messages,
        communication=expected["communication"],
    )
