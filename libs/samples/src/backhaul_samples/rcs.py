"""Pontaltech's Pointer RCS API v3, which signs nothing.

https://doc-pointer-rcs-api-node.pontaltech.com.br/api-docv3/en-us/api-reference/callbacks
"""

from __future__ import annotations

import secrets

from backhaul_samples.provider import PERSON, Content, Provider, digest, now, posted


def _content(_event: str, message_id: str) -> Content:
    return {
        "reference": message_id,
        "campaign_name": None,
        "event_id": secrets.token_hex(12),
        "direction": "outbound",
        "session_id": None,
        "user_id": PERSON.lstrip("+"),
        "timestamp": now(),
        "channel": "RCS",
        "message": None,
        "vars": None,
    }


def _text(text: str) -> Content:
    return {"type": "text", "message": {"contentType": "text", "text": text}}


def _pressed(kind: str, text: str) -> Content:
    response = {"type": kind, "text": text, "postbackData": "sample"}
    message = {"contentType": "suggestionResponse", "suggestionResponse": response}
    return {"type": "suggestionResponse", "direction": "inbound", "message": message}


PROVIDER = Provider(
    name="rcs",
    label="RCS",
    source="https://doc-pointer-rcs-api-node.pontaltech.com.br/api-docv3/en-us/api-reference/callbacks",
    events={
        "sent": _text("Hello!"),
        "delivered": {"type": "DELIVERED"},
        "read": {"type": "READ"},
        "failed": {"type": "EXCEPTION", "message": "Request failed with status code 503: Service Unavailable"},
        "prepaid_blocked": {"type": "PREPAID_BLOCKED"},
        "inbound": {**_text("Thank you!"), "direction": "inbound"},
        "stop": {**_text("STOP"), "direction": "inbound"},
        "reply": _pressed("REPLY", "Yes"),
        "openurl": _pressed("OPENURL", "Shop"),
    },
    content=_content,
    post=posted,
    message_id=lambda seed: digest(seed, "message")[:24],
)
