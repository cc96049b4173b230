"""mPulse and Outbound Delivery. Nothing is published about what they post: names and words are what their adapters
guess, and real callbacks may have others."""

from __future__ import annotations

from backhaul_samples.provider import PERSON, Content, Provider, digest, now, posted

_GUESSED = "nothing is published: names and words are guesses"


def _mpulse(_event: str, message_id: str) -> Content:
    return {"messageId": message_id, "phone": PERSON, "timestamp": now()}


def _outbound_delivery(_event: str, message_id: str) -> Content:
    return {"offerId": "sample", "deliveryId": message_id, "address": PERSON, "timestamp": now()}


MPULSE = Provider(
    name="mpulse",
    label="mPulse",
    source=_GUESSED,
    events={
        "sent": {"status": "Sent"},
        "delivered": {"status": "Delivered"},
        "failed": {"status": "Failed"},
        "keyword": {"keyword": "YES"},
        "stop": {"keyword": "STOP"},
    },
    content=_mpulse,
    post=posted,
    message_id=lambda seed: digest(seed, "message")[:24],
)
OUTBOUND_DELIVERY = Provider(
    name="outbound_delivery",
    label="Outbound Delivery",
    source=_GUESSED,
    events={
        state.lower(): {"fulfilmentState": state}
        for state in ("Queued", "Sent", "Delivered", "Undelivered", "Failed", "InvalidNumber")
    },
    content=_outbound_delivery,
    post=posted,
    message_id=lambda seed: digest(seed, "message")[:24],
)
