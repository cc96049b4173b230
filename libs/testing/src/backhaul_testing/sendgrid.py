"""SendGrid's event webhook, signed and with OAuth 2.0.

https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus, urlencode

import httpx
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from backhaul_testing.posts import Post, Sending, TryAgain, TryOnce, deliver, send, sent_url

RETRY_PAUSE_S = 0.2
"""SendGrid's own pauses are minutes; this is short because tests wait for it."""

Event = dict[str, Any]


def new_message_id() -> str:
    """A ``sg_message_id`` that nobody has had before."""
    return f"{secrets.token_urlsafe(16)}.filterdrecv-5645d9c87f-78xq5-1-{secrets.token_hex(4).upper()}.0"


class SendGridSimulator:
    """One webhook with its key pair."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def public_key(self) -> str:
        """The verification key as SendGrid shows it."""
        der = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(der).decode()

    def event(self, message_id: str, word: str, *, at: int | None = None, **fields: Any) -> Event:
        """One event of ``message_id``; ``at`` is unix time in seconds."""
        return {
            "email": "person@example.com",
            "timestamp": at if at is not None else int(time.time()),
            "smtp-id": f"<{message_id.partition('.')[0]}@ismtpd0006p1sjc2.sendgrid.net>",
            "event": word,
            "sg_event_id": base64.urlsafe_b64encode(secrets.token_bytes(16)).decode(),
            "sg_message_id": message_id,
            **fields,
        }

    def batch(self, address: str, events: Sequence[Mapping[str, Any]]) -> Post:
        """``events`` in one signed post, line breaks between them as SendGrid sends them."""
        body = b"[" + b",\r\n".join(json.dumps(event, separators=(",", ":")).encode() for event in events) + b"]\r\n"
        return self.signed(address, body)

    def signed(self, address: str, body: bytes) -> Post:
        """Any body, with a good signature."""
        timestamp = str(int(time.time()))
        signature = self._key.sign(timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))
        headers = (
            ("Content-Type", "application/json"),
            ("X-Twilio-Email-Event-Webhook-Signature", base64.b64encode(signature).decode()),
            ("X-Twilio-Email-Event-Webhook-Timestamp", timestamp),
            ("User-Agent", "SendGrid Event API"),
        )
        return Post(sent_url(address), headers, body)

    async def deliver(self, once: TryOnce, post: Post, *, tries: int = 200) -> Sending:
        """Send ``post`` until it is accepted: SendGrid repeats whatever is not answered 2xx for 24 hours."""
        return await deliver(once, post, _until(tries))


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """What SendGrid was given to fetch access tokens by. How it shows it is not documented, so both ways are here."""

    client_id: str = "sendgrid"
    client_secret: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)

    @property
    def secret(self) -> dict[str, str]:
        """As it is a channel's secret."""
        return {"client_id": self.client_id, "client_secret": self.client_secret}

    def asking(self, token_address: str, *, by_form: bool = False) -> Post:
        """The request for a token: the credentials in the form, or in an Authorization header."""
        form = {"grant_type": "client_credentials", **(self.secret if by_form else {})}
        # RFC 6749 wants both parts encoded as in a form, since a colon lies between them.
        plain = f"{quote_plus(self.client_id)}:{quote_plus(self.client_secret)}"
        basic = () if by_form else (("Authorization", f"Basic {base64.b64encode(plain.encode()).decode()}"),)
        headers = (("Content-Type", "application/x-www-form-urlencoded"), *basic)
        return Post(sent_url(token_address), headers, urlencode(form).encode())

    async def token(self, http: httpx.AsyncClient, token_address: str) -> str:
        """An access token. Raises where there is none."""
        answer = (await send(http, self.asking(token_address))).raise_for_status().json()
        token: str = answer["access_token"]
        return token


def bearing(post: Post, token: str) -> Post:
    """``post`` with an access token."""
    return post.with_header("Authorization", f"Bearer {token}")


def _until(tries: int) -> TryAgain:
    return lambda sending: RETRY_PAUSE_S if len(sending.outcomes) < tries else None
