"""Twilio as seen from a webhook: messages and calls. https://www.twilio.com/docs/usage/webhooks/webhooks-security"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from backhaul_testing.posts import Post, Sending, TryAgain, TryOnce, deliver, sent_url, signed_url

ACCOUNT_SID = "AC" + "5" * 32
OWN_NUMBER = "+15005550006"
RETRY_PAUSE_S = 0.1
"""Twilio's own pauses are not documented; this is short because tests wait for it."""


def new_sid(prefix: str = "SM") -> str:
    """A message id that nobody has had before."""
    return prefix + secrets.token_hex(16)


def call_fields(sid: str, status: str, sequence: int, *, to: str = "+15005550001", **fields: str) -> dict[str, str]:
    """The fields of an outgoing call's status callback, with times in whole seconds as Twilio writes them."""
    return {
        "AccountSid": ACCOUNT_SID,
        "ApiVersion": "2010-04-01",
        "CallSid": sid,
        "CallStatus": status,
        "CallbackSource": "call-progress-events",
        "Called": to,
        "Caller": OWN_NUMBER,
        "Direction": "outbound-api",
        "From": OWN_NUMBER,
        "SequenceNumber": str(sequence),
        "Timestamp": format_datetime(datetime.now(UTC)),
        "To": to,
        **fields,
    }


@dataclass(frozen=True, slots=True)
class RetryRules:
    """The connection overrides of a URL's fragment. https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides

    Unless told otherwise Twilio tries once more, and only if the connection failed: a 503 is not repeated.
    """

    count: int = 1
    reasons: frozenset[str] = frozenset({"ct"})

    @classmethod
    def of(cls, address: str) -> RetryRules:
        """Those that ``address`` asks for, as in ``https://host/path#rc=5&rp=all``."""
        given = dict(parse_qsl(urlsplit(address).fragment))
        count = int(given.get("rc", "1"))
        if not 0 <= count <= 5:
            raise ValueError(f"rc={count}: Twilio takes 0 to 5")
        return cls(count, frozenset(given.get("rp", "ct").split(",")))

    def allow(self, outcome: int | str) -> bool:
        """Whether ``outcome`` is a reason to try again."""
        if "all" in self.reasons:
            return True
        if isinstance(outcome, int):
            return f"{outcome // 100}xx" in self.reasons
        return ("ct" if outcome.startswith("Connect") else "rt") in self.reasons

    def try_again(self) -> TryAgain:
        """The rules as ``deliver`` wants them."""

        def decide(sending: Sending) -> float | None:
            retries = len(sending.outcomes) - 1
            return RETRY_PAUSE_S if retries < self.count and self.allow(sending.outcomes[-1]) else None

        return decide


class TwilioSimulator:
    """One Twilio account. ``auth_token`` is what it signs with."""

    def __init__(self, auth_token: str | None = None) -> None:
        self.auth_token = auth_token or secrets.token_hex(16)

    def status(self, address: str, sid: str, status: str, *, to: str = "+15005550001", **fields: str) -> Post:
        """A status callback to ``address``, which may hold user, password and a fragment."""
        return self.form(
            address,
            {
                "AccountSid": ACCOUNT_SID,
                "ApiVersion": "2010-04-01",
                "From": OWN_NUMBER,
                "MessageSid": sid,
                "MessageStatus": status,
                "SmsSid": sid,
                "SmsStatus": status,
                "To": to,
                **fields,
            },
        )

    def inbound(self, address: str, sid: str, text: str, *, sender: str = "+15005550001", **fields: str) -> Post:
        """A reply of a person."""
        return self.form(
            address,
            {
                "AccountSid": ACCOUNT_SID,
                "ApiVersion": "2010-04-01",
                "Body": text,
                "From": sender,
                "MessageSid": sid,
                "NumMedia": "0",
                "NumSegments": "1",
                "SmsMessageSid": sid,
                "SmsSid": sid,
                "SmsStatus": "received",
                "To": OWN_NUMBER,
                **fields,
            },
        )

    def call(
        self, address: str, sid: str, status: str, sequence: int, *, to: str = "+15005550001", **fields: str
    ) -> Post:
        """The status callback of an outgoing call; ``status`` is Twilio's word, ``sequence`` its number from 0."""
        return self.form(address, call_fields(sid, status, sequence, to=to, **fields))

    def call_event(self, sid: str, status: str, sequence: int, **fields: str) -> dict[str, Any]:
        """The same as an event of Event Streams, for ``cloud_events``."""
        ends = {"in-progress": "answered", **dict.fromkeys(("busy", "no-answer", "failed", "canceled"), "completed")}
        return {
            "specversion": "1.0",
            "type": f"com.twilio.voice.status-callback.call.{ends.get(status, status)}",
            "source": "AB" + "5" * 32,
            "id": new_sid("NO"),
            "dataschema": "https://events-schemas.twilio.com/Voice.WebhookEvent/2",
            "datacontenttype": "application/json",
            "data": {
                "sid": sid,
                "eventSid": new_sid("VW"),
                "request": {"method": "POST", "parameters": call_fields(sid, status, sequence, **fields)},
            },
        }

    def machine(self, address: str, sid: str, answered_by: str, **fields: str) -> Post:
        """What answering machine detection found, where the call goes on meanwhile."""
        return self.form(address, {"AccountSid": ACCOUNT_SID, "CallSid": sid, "AnsweredBy": answered_by, **fields})

    def recording(self, address: str, sid: str, recording_sid: str, status: str = "completed", **fields: str) -> Post:
        """What became of a call's recording."""
        return self.form(
            address,
            {
                "AccountSid": ACCOUNT_SID,
                "CallSid": sid,
                "RecordingSid": recording_sid,
                "RecordingStatus": status,
                "RecordingUrl": f"https://api.twilio.com/2010-04-01/Accounts/{ACCOUNT_SID}/Recordings/{recording_sid}",
                **fields,
            },
        )

    def form(self, address: str, fields: Mapping[str, str]) -> Post:
        """Any form, signed: the URL, then each name and value in the order of the names."""
        material = signed_url(address) + "".join(name + fields[name] for name in sorted(fields))
        headers = (
            ("Content-Type", "application/x-www-form-urlencoded; charset=UTF-8"),
            ("X-Twilio-Signature", self.sign(material)),
            ("User-Agent", "TwilioProxy/1.1"),
            # Every retry of a callback carries the token of its first try.
            ("I-Twilio-Idempotency-Token", secrets.token_hex(16)),
        )
        return Post(sent_url(address), headers, urlencode(fields).encode())

    def cloud_events(self, address: str, events: Sequence[Mapping[str, Any]]) -> Post:
        """A batch of Event Streams: the URL carries the body's hash, and the URL alone is signed."""
        body = json.dumps(events).encode()
        base, mark, fragment = address.partition("#")
        joined = base + ("&" if "?" in base else "?") + "bodySHA256=" + hashlib.sha256(body).hexdigest()
        whole = joined + mark + fragment
        headers = (("Content-Type", "application/json"), ("X-Twilio-Signature", self.sign(signed_url(whole))))
        return Post(sent_url(whole), headers, body)

    def sign(self, material: str) -> str:
        """The value of X-Twilio-Signature."""
        digest = hmac.new(self.auth_token.encode(), material.encode(), hashlib.sha1).digest()
        return base64.b64encode(digest).decode()

    async def deliver(self, once: TryOnce, post: Post, rules: RetryRules | None = None) -> Sending:
        """Send ``post`` as often as Twilio would."""
        return await deliver(once, post, (rules or RetryRules()).try_again())
