"""Google's RCS for Business as seen from a webhook.

https://developers.google.com/business-communications/rcs-business-messaging/guides/integrate/webhooks
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
from datetime import UTC, datetime
from typing import Any

from backhaul_testing.posts import Post, sent_url

AGENT = "agent@rbm.goog"


class RbmSimulator:
    """One agent's webhook, at ``address``. ``client_token`` is what Google signs with."""

    def __init__(self, address: str, *, client_token: str | None = None, person: str = "+15005550013") -> None:
        self.address = address
        self.client_token = client_token or secrets.token_urlsafe(16)
        self.person = person

    def question(self, secret: str) -> Post:
        """Whether the address is the tenant's; Google wants ``secret`` back."""
        body = json.dumps({"clientToken": self.client_token, "secret": secret}).encode()
        return Post(sent_url(self.address), (("Content-Type", "application/json"),), body)

    def event(self, word: str, message_id: str | None = None, **fields: Any) -> Post:
        """A user event: DELIVERED, READ, IS_TYPING, SUBSCRIBE, UNSUBSCRIBE."""
        about = {} if message_id is None else {"messageId": message_id}
        event = {"senderPhoneNumber": self.person, "eventType": word, "eventId": secrets.token_urlsafe(12), **about}
        return self.signed({**event, "sendTime": _now(), "agentId": AGENT, **fields})

    def expired(self, message_id: str) -> Post:
        """A message expired before it was delivered, and was taken back."""
        event = {"phoneNumber": self.person, "messageId": message_id, "eventType": "TTL_EXPIRATION_REVOKED"}
        return self.signed({**event, "eventId": secrets.token_urlsafe(12), "sendTime": _now(), "agentId": AGENT})

    def said(self, message_id: str, **content: Any) -> Post:
        """A person's message: ``text``, ``suggestionResponse``, ``location`` or ``userFile``."""
        own = {"senderPhoneNumber": self.person, "messageId": message_id, "sendTime": _now(), "agentId": AGENT}
        return self.signed({**own, **content})

    def signed(self, event: Any) -> Post:
        """Any event, signed and wrapped as Pub/Sub pushes it."""
        data = json.dumps(event).encode()
        message = {"data": base64.b64encode(data).decode(), "messageId": secrets.token_hex(8), "publishTime": _now()}
        body = json.dumps({"message": message, "subscription": "projects/rbm/subscriptions/rbm-sub"}).encode()
        signature = base64.b64encode(hmac.digest(self.client_token.encode(), data, "sha512")).decode()
        return Post(
            sent_url(self.address), (("Content-Type", "application/json"), ("X-Goog-Signature", signature)), body
        )


def _now() -> str:
    # Google's times have nanoseconds.
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"
