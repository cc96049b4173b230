"""What the demo's other channels post, one story for each provider, and what must come of it."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from backhaul_testing.posts import Post
from backhaul_testing.rbm import RbmSimulator
from backhaul_testing.rcs import RcsMessage
from backhaul_testing.twilio import TwilioSimulator

from backhaul_local.demo_script import Due

PERSON = "+15005550042"
FLAGGED = "please stop, thanks"
"""What a person answers over RCS: likely an opt-out, and for somebody to look at."""

OTHER_COMMUNICATION = "autumn"
"""What these messages belong to."""

_PARCELS_SECRET = "c3Rvcnktb2YtYS1wYXJjZWw"  # noqa: S105  # of nothing but this story.


@dataclass(frozen=True)
class ChannelStory:
    """One provider's story. ``channel`` is how the channel is set up, empty where there is one already; ``proof`` what
    shows that its callbacks are genuine; ``posts`` are made for the address that is pasted at the provider."""

    label: str
    proof: str
    due: Due
    posts: Callable[[str], Sequence[Post]]
    channel: Mapping[str, Any] = field(default_factory=dict)


def channel_stories(twilio: TwilioSimulator) -> list[ChannelStory]:
    """One story for each provider whose callbacks the demo has not shown yet; ``twilio`` is the account that calls."""
    return [_call(twilio), _rcs(), _rbm(), _mpulse(), _outbound_delivery(), _parcels()]


def _call(twilio: TwilioSimulator) -> ChannelStory:
    due = Due(
        "Twilio",
        "CA5b1d8e0f6a7c4e3b9d2f1a0c8e7b6d5f",
        "A call that was answered: arrived as completed, ringing, initiated, in-progress",
        "initiated → ringing → answered (in-progress) → completed",
        "completed",
        "Delivered",
    )
    steps = (("completed", 3), ("ringing", 1), ("initiated", 0), ("in-progress", 2))
    return ChannelStory(
        "Twilio",
        "its HMAC-SHA1 fits the account's auth token",
        due,
        lambda address: [twilio.call(address, due.id, status, number, to=PERSON) for status, number in steps],
    )


def _rcs() -> ChannelStory:
    due = Due(
        "RCS",
        "order-4711",
        f"To a device without RCS, so by SMS; the person answers “{FLAGGED}”",
        "failed (exception) → sent (text) → delivered",
        "delivered",
        "Delivered",
    )

    def posts(address: str) -> list[Post]:
        rich = RcsMessage(address=address, reference=due.id, campaign=OTHER_COMMUNICATION, user_id=PERSON.lstrip("+"))
        by_sms = rich.by_sms()
        told = [rich.failed(404, "Device does not support RCS."), by_sms.sent(), by_sms.post("DELIVERED")]
        return [*_in_turn(told), by_sms.said(FLAGGED)]

    return ChannelStory("RCS", "the ingest token in its address, since nothing is signed", due, posts)


def _in_turn(posts: Sequence[Post]) -> list[Post]:
    """The same, each a second after the one before, so that all have a time of their own."""
    began = datetime.now(UTC) - timedelta(seconds=len(posts))
    times = ((began + timedelta(seconds=n)).isoformat(timespec="milliseconds") for n in range(len(posts)))
    changed = (
        json.dumps({**json.loads(post.body), "timestamp": time}) for post, time in zip(posts, times, strict=True)
    )
    return [Post(post.url, post.headers, body.encode()) for post, body in zip(posts, changed, strict=True)]


def _rbm() -> ChannelStory:
    token = "rbm-client-token-of-acme"  # noqa: S105  # as above.
    due = Due(
        "Google RBM",
        "rbm-1f0c",
        "RCS over Google: delivered and read; that the person typed is not kept",
        "delivered → read",
        "read",
        "Delivered",
    )

    def posts(address: str) -> list[Post]:
        google = RbmSimulator(address, client_token=token, person=PERSON)
        return [google.event("DELIVERED", due.id), google.event("READ", due.id), google.event("IS_TYPING")]

    return ChannelStory(
        "Google RBM",
        "its HMAC-SHA512 fits the agent's client token",
        due,
        posts,
        {"provider": "google_rbm", "secrets": [token]},
    )


def _mpulse() -> ChannelStory:
    due = Due("mPulse", "mp-90210", "A text over mPulse", "sent → delivered", "delivered", "Delivered")
    reports = [{"messageId": due.id, "status": status, "to": PERSON} for status in ("Sent", "Delivered")]
    return ChannelStory(
        "mPulse",
        "name and password, beside the ingest token",
        due,
        lambda address: [_json(address, one, Authorization="Basic YWNtZTpzZXNhbWU=") for one in reports],
        {"secrets": [{"username": "acme", "password": "sesame"}]},
    )


def _outbound_delivery() -> ChannelStory:
    due = Due(
        "Outbound Delivery",
        "od-77",
        "Two states of one file, the second in an array",
        "queued → failed (invalidnumber)",
        "failed",
        "InvalidNumber",
    )
    states = [
        {"messageId": due.id, "fulfilmentState": state, "address": PERSON} for state in ("Queued", "InvalidNumber")
    ]
    return ChannelStory(
        "Outbound Delivery",
        "the ingest token in its address",
        due,
        lambda address: [_json(address, states[0]), _json(address, [states[1]])],
    )


def _parcels() -> ChannelStory:
    """A sender that nobody wrote an adapter for: it is described by settings alone."""
    due = Due(
        "Parcels",
        "pc-3003",
        "A webhook of which Backhaul knows nothing but what the settings say",
        "sent (handed_over) → delivered (arrived)",
        "delivered",
        "Delivered",
    )

    def post(address: str, state: str) -> Post:
        body = {"event": {"state": state, "sms": {"ref": due.id, "phone": PERSON}}}
        encoded = json.dumps(body).encode()
        signature = hmac.new(_PARCELS_SECRET.encode(), encoded, hashlib.sha256).hexdigest()
        return Post(address, (("Content-Type", "application/json"), ("X-Parcels-Hmac", f"sha256={signature}")), encoded)

    return ChannelStory(
        "Parcels",
        "the HMAC-SHA256 that the settings describe",
        due,
        lambda address: [post(address, "handed_over"), post(address, "arrived")],
        {
            "provider": "generic",
            "secrets": [_PARCELS_SECRET],
            "settings": {
                "proof": {"type": "hmac", "signature_header": "X-Parcels-Hmac", "prefix": "sha256="},
                "mapping": {"message_id": "event.sms.ref", "status": "event.state", "recipient": "event.sms.phone"},
                "statuses": {"handed_over": "sent", "arrived": "delivered"},
            },
        },
    )


def _json(address: str, content: object, **headers: str) -> Post:
    return Post(address, (("Content-Type", "application/json"), *headers.items()), json.dumps(content).encode())
