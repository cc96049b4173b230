"""Google's RCS for Business: an event in Pub/Sub's envelope, signed by HMAC-SHA512 with the agent's client token.

https://developers.google.com/business-communications/rcs-business-messaging/guides/integrate/webhooks
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets

from backhaul_samples.provider import PERSON, Content, Post, Provider, Signing, digest, now


def _content(_event: str, message_id: str) -> Content:
    return {
        "senderPhoneNumber": PERSON,
        "messageId": message_id,
        "sendTime": now(),
        "agentId": "sample@rbm.goog",
        "eventId": secrets.token_urlsafe(12),
    }


def _post(content: Content, _address: str, client_token: str) -> Post:
    data = json.dumps(content).encode()
    message = {"data": base64.b64encode(data).decode(), "messageId": secrets.token_hex(8), "publishTime": now()}
    headers = {"Content-Type": "application/json"}
    if client_token:
        made = hmac.digest(client_token.encode(), data, "sha512")
        headers["X-Goog-Signature"] = base64.b64encode(made).decode()
    return Post(json.dumps({"message": message, "subscription": "projects/sample/subscriptions/rbm"}).encode(), headers)


def _trying(seed: str) -> Signing:
    token = digest(seed, "google_rbm")
    return Signing(token, token)


PROVIDER = Provider(
    name="google_rbm",
    label="Google RBM",
    source="https://developers.google.com/business-communications/rcs-business-messaging/guides/build/events",
    events={
        "delivered": {"eventType": "DELIVERED"},
        "read": {"eventType": "READ"},
        "expired": {"eventType": "TTL_EXPIRATION_REVOKED", "phoneNumber": PERSON},
        "inbound": {"text": "Thank you!"},
        "unsubscribe": {"eventType": "UNSUBSCRIBE"},
        "subscribe": {"eventType": "SUBSCRIBE"},
    },
    content=_content,
    post=_post,
    message_id=lambda seed: digest(seed, "message")[:24],
    secret="Client token of the agent",  # noqa: S106  # what is asked for
    signs=True,
    trying=_trying,
)
