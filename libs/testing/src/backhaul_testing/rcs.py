"""Pontaltech's Pointer RCS API v3 as seen from a webhook. Nothing is signed.

https://doc-pointer-rcs-api-node.pontaltech.com.br/api-docv3/en-us/api-reference/callbacks
"""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from backhaul_testing.posts import Post, Sending, TryAgain, TryOnce, deliver, sent_url

MAX_RETRIES = 10
RETRY_PAUSE_S = 0.1
"""Pontaltech's own pauses are from ten seconds to a day; this is short because tests wait for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RcsMessage:
    """One message that was sent, and the callbacks about it. ``event_id`` is that of the sending, until it is read."""

    address: str
    reference: str = field(default_factory=lambda: secrets.token_hex(12))
    event_id: str = field(default_factory=lambda: secrets.token_hex(12))
    campaign: str = "spring"
    user_id: str = "5511987654321"
    channel: str = "RCS"
    credentials: tuple[str, str] | None = None

    def by_sms(self) -> RcsMessage:
        """The same after the fallback: the device has no RCS."""
        return replace(self, channel="SMS")

    def post(self, word: str, **fields: Any) -> Post:
        """Any callback of the type ``word``; ``fields`` stand in for what all have."""
        callback = {
            "reference": self.reference,
            "campaign_name": self.campaign,
            "event_id": self.event_id,
            "direction": "outbound",
            "session_id": None,
            "user_id": self.user_id,
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "channel": self.channel,
            "type": word,
            "message": None,
            "vars": None,
            **fields,
        }
        headers = [("Content-Type", "application/json")]
        if self.credentials is not None:
            told = base64.b64encode(":".join(self.credentials).encode()).decode()
            headers.append(("Authorization", f"Basic {told}"))
        return Post(sent_url(self.address), tuple(headers), json.dumps(callback).encode())

    def sent(self, text: str = "Oi!", **fields: Any) -> Post:
        """The first callback: a text was sent."""
        return self.post("text", message={"contentType": "text", "text": text}, **fields)

    def failed(self, code: int, words: str, *, word: str = "EXCEPTION") -> Post:
        """Nothing was sent, for the reason of an HTTP status."""
        return self.post(word, message=f"Request failed with status code {code}: {words}")

    def blocked(self) -> Post:
        """Nothing was sent, since the same had been sent shortly before."""
        return self.sent(status="bloqueado por duplicidade")

    def said(self, text: str) -> Post:
        """The person answers by a text."""
        return self._interaction("text", {"contentType": "text", "text": text})

    def pressed(self, action: str, text: str, payload: str) -> Post:
        """The person presses a button: REPLY, OPENURL or CALL."""
        response = {"type": action, "text": text, "postbackData": payload}
        message = {"contentType": "suggestionResponse", "suggestionResponse": response}
        return self._interaction("suggestionResponse", message)

    def _interaction(self, word: str, message: Any) -> Post:
        # Each interaction has an event_id of its own.
        own = {"event_id": secrets.token_hex(12), "direction": "inbound", "session_id": secrets.token_hex(8)}
        return self.post(word, message=message, **own)


async def deliver_callback(once: TryOnce, post: Post) -> Sending:
    """Send ``post`` as often as Pontaltech would."""
    return await deliver(once, post, _try_again())


def _try_again() -> TryAgain:
    return lambda sending: RETRY_PAUSE_S if len(sending.outcomes) <= MAX_RETRIES else None
