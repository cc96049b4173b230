"""Webhooks that are read by a mapping: mPulse and Outbound Delivery, as far as they can be guessed, since nothing is
published about them; and any sender of Standard Webhooks (https://www.standardwebhooks.com)."""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from backhaul_testing.posts import Post, Sending, TryAgain, TryOnce, deliver, sent_url

RETRY_PAUSE_S = 0.2
"""Nobody's own pauses are known; this is short because tests wait for it."""

Row = dict[str, Any]


def new_id(prefix: str) -> str:
    """An id that nobody has had before."""
    return f"{prefix}-{secrets.token_hex(12)}"


def now() -> str:
    """The time as JSON has it."""
    return datetime.now(UTC).isoformat()


class _Poster:
    """Posts JSON, with a name and a password where it has them."""

    def __init__(self, credentials: tuple[str, str] | None = None) -> None:
        self._credentials = credentials

    def json(self, address: str, content: object) -> Post:
        """Any content."""
        headers = [("Content-Type", "application/json")]
        if self._credentials is not None:
            told = base64.b64encode(":".join(self._credentials).encode()).decode()
            headers.append(("Authorization", f"Basic {told}"))
        return Post(sent_url(address), tuple(headers), json.dumps(content).encode())

    async def deliver(self, once: TryOnce, post: Post, *, tries: int = 200) -> Sending:
        """Send ``post`` until it is accepted."""
        return await deliver(once, post, _until(tries))


class MPulseSimulator(_Poster):
    """One mPulse account; an object is one event, an array several."""

    def status(self, message_id: str, status: str, *, phone: str = "+15005550001", **fields: Any) -> Row:
        """What became of a message."""
        return {"messageId": message_id, "status": status, "phone": phone, "timestamp": now(), **fields}

    def keyword(self, keyword: str, *, phone: str = "+15005550001", **fields: Any) -> Row:
        """What somebody answered, with an id of its own."""
        return {"messageId": new_id("reply"), "keyword": keyword, "phone": phone, "timestamp": now(), **fields}

    def post(self, address: str, rows: Sequence[Mapping[str, Any]]) -> Post:
        """``rows`` in one post."""
        return self.json(address, rows[0] if len(rows) == 1 else list(rows))


class OutboundDeliverySimulator(_Poster):
    """One job of an outbound campaign, which posts what became of an offer's deliveries."""

    def state(self, delivery_id: str, state: str, *, address: str = "+15005550001", **fields: Any) -> Row:
        """The fulfilment state of one delivery."""
        return {"deliveryId": delivery_id, "fulfilmentState": state, "address": address, "timestamp": now(), **fields}

    def post(self, address: str, offer_id: str, rows: Sequence[Mapping[str, Any]]) -> Post:
        """``rows`` of one offer in one post."""
        return self.json(address, [{"offerId": offer_id, **row} for row in rows])


class StandardWebhooksSimulator:
    """A sender that is known by nothing but its signature."""

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key or secrets.token_bytes(24)

    @property
    def secret(self) -> str:
        """The secret as such senders show it."""
        return "whsec_" + base64.b64encode(self._key).decode()

    def event(self, message_id: str, word: str, *, to: str = "+15005550001", **data: Any) -> Row:
        """One event of ``message_id``: what happened is its type."""
        content = {"message_id": message_id, "to": to, **data}
        return {"type": f"message.{word}", "timestamp": now(), "data": content}

    def post(self, address: str, event: Mapping[str, Any], *, at: int | None = None) -> Post:
        """``event``, signed at ``at``, a unix time in seconds; now, unless told otherwise."""
        return self.signed(address, json.dumps(event, separators=(",", ":")).encode(), at=at)

    def signed(self, address: str, body: bytes, *, at: int | None = None) -> Post:
        """Any body, with a good signature."""
        named, timestamp = new_id("msg"), str(int(time.time()) if at is None else at)
        digest = hmac.digest(self._key, f"{named}.{timestamp}.".encode() + body, "sha256")
        headers = (
            ("Content-Type", "application/json"),
            ("webhook-id", named),
            ("webhook-timestamp", timestamp),
            ("webhook-signature", "v1," + base64.b64encode(digest).decode()),
        )
        return Post(sent_url(address), headers, body)

    async def deliver(self, once: TryOnce, post: Post, *, tries: int = 200) -> Sending:
        """Send ``post`` until it is accepted."""
        return await deliver(once, post, _until(tries))


GENERIC_SETTINGS: Row = {
    "mapping": {"message_id": "data.message_id", "recipient": "data.to", "communication": "data.campaign"},
    "proof": {"type": "standard_webhooks"},
}
"""Settings of a channel of the provider ``generic`` that reads what StandardWebhooksSimulator sends."""


def _until(tries: int) -> TryAgain:
    return lambda sending: RETRY_PAUSE_S if len(sending.outcomes) < tries else None
