"""SendGrid's event webhook: an array of events, signed by ECDSA over P-256 with SHA-256 of timestamp and body.

https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event and
https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features

The private half of a webhook's key is SendGrid's alone. A sample is signed with another pair, whose public half the
channel must have been given.
"""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING

from backhaul_samples.provider import MAIL, Content, Post, Provider, Signing, digest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

_AGENT = {"ip": "192.0.2.1", "useragent": "Mozilla/5.0"}
_GROUP = {"asm_group_id": 10}
_CURVE = "secp256r1"
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of P-256: a private key is below it."""


def _content(event: str, message_id: str) -> Content:
    begins = message_id.partition(".")[0]
    return {
        "email": MAIL,
        "timestamp": int(time.time()),
        "smtp-id": f"<{begins}@example.com>",
        "event": event,
        "sg_event_id": digest(message_id, event, str(time.time_ns()))[:22],
        "sg_message_id": message_id,
    }


def _post(content: Content, _address: str, private_key: str) -> Post:
    body = json.dumps([content], separators=(",", ":")).encode()
    headers = {"Content-Type": "application/json"}
    if private_key:
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.hashes import SHA256

        timestamp = str(int(time.time()))
        signature = _key(private_key).sign(timestamp.encode() + body, ECDSA(SHA256()))
        headers["X-Twilio-Email-Event-Webhook-Signature"] = base64.b64encode(signature).decode()
        headers["X-Twilio-Email-Event-Webhook-Timestamp"] = timestamp
    return Post(body, headers)


def _key(pem: str) -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        found = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError):
        found = None
    if not isinstance(found, EllipticCurvePrivateKey) or found.curve.name != _CURVE:
        raise ValueError(
            "That is no private key that signs as SendGrid does. "
            "Make one: openssl ecparam -name prime256v1 -genkey -noout -out FILE; the channel needs its public half."
        )
    return found


def _trying(seed: str) -> Signing:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = derive_private_key(int(digest(seed, "sendgrid"), 16) % (_ORDER - 1) + 1, SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Signing(pem, base64.b64encode(public).decode())


PROVIDER = Provider(
    name="sendgrid",
    label="SendGrid",
    source="https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event",
    events={
        "processed": {},
        "dropped": {"reason": "Bounced Address", "status": "5.0.0"},
        "delivered": {"response": "250 OK"},
        "deferred": {"response": "400 try again later", "attempt": "5"},
        "bounce": {"reason": "500 unknown recipient", "status": "5.0.0", "type": "bounce"},
        "open": {**_AGENT, "sg_machine_open": False},
        "click": {**_AGENT, "url": "https://example.com/"},
        "spamreport": {},
        "unsubscribe": {},
        "group_unsubscribe": {**_AGENT, **_GROUP},
        "group_resubscribe": {**_AGENT, **_GROUP},
    },
    content=_content,
    post=_post,
    message_id=lambda seed: f"{digest(seed, 'message')[:22]}.filterdrecv-0.0",
    secret="Verification key that SendGrid shows",  # noqa: S106  # what is asked for
    signs=True,
    is_public=True,
    trying=_trying,
)
