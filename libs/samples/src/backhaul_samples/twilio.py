"""Twilio's callbacks: forms, signed by HMAC-SHA1 with the account's auth token.

https://www.twilio.com/docs/messaging/guides/track-outbound-message-status,
https://www.twilio.com/docs/messaging/guides/webhook-request,
https://www.twilio.com/docs/voice/api/call-resource#statuscallback and
https://www.twilio.com/docs/usage/webhooks/webhooks-security
"""

from __future__ import annotations

import base64
import hmac
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import urlencode

from backhaul_samples.provider import PERSON, SENDER, Content, Post, Provider, Signing, digest

_ACCOUNT = {"AccountSid": "AC" + "0" * 32, "ApiVersion": "2010-04-01"}
_STATUSES = ("accepted", "queued", "sending", "sent", "delivered", "undelivered", "failed", "canceled", "read")
_CALLS = ("initiated", "ringing", "in-progress", "completed", "busy", "no-answer", "failed", "canceled")
_STEPS = {"initiated": "0", "ringing": "1", "in-progress": "2"}
_ERRORS = {"undelivered": {"ErrorCode": "30003"}, "failed": {"ErrorCode": "30005"}}
_TEXTS = {"inbound": "Thank you!", "stop": "STOP", "start": "START"}
_CALL = "call-"


def _content(event: str, message_id: str) -> Content:
    if event.startswith(_CALL):
        return {
            **_ACCOUNT,
            "CallSid": "CA" + message_id[2:] if message_id.startswith("SM") else message_id,
            "CallbackSource": "call-progress-events",
            "Direction": "outbound-api",
            "Timestamp": format_datetime(datetime.now(UTC)),
            "From": SENDER,
            "To": PERSON,
        }
    if event in _TEXTS:
        more = {"SmsMessageSid": message_id, "From": PERSON, "To": SENDER, "NumMedia": "0", "NumSegments": "1"}
    else:
        more = {"From": SENDER, "To": PERSON}
    return {**_ACCOUNT, "MessageSid": message_id, "SmsSid": message_id, **more}


def _post(content: Content, address: str, auth_token: str) -> Post:
    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=UTF-8"}
    if auth_token:
        # The address, then each name and value in the order of the names.
        signed = address + "".join(name + content[name] for name in sorted(content))
        made = hmac.digest(auth_token.encode(), signed.encode(), "sha1")
        headers["X-Twilio-Signature"] = base64.b64encode(made).decode()
    return Post(urlencode(content).encode(), headers)


def _trying(seed: str) -> Signing:
    token = digest(seed, "twilio")[:32]
    return Signing(token, token)


PROVIDER = Provider(
    name="twilio",
    label="Twilio",
    source="https://www.twilio.com/docs/usage/webhooks/messaging-webhooks",
    events={
        **{word: {"MessageStatus": word, "SmsStatus": word, **_ERRORS.get(word, {})} for word in _STATUSES},
        **{word: {"SmsStatus": "received", "Body": text} for word, text in _TEXTS.items()},
        **{_CALL + word: {"CallStatus": word, "SequenceNumber": _STEPS.get(word, "3")} for word in _CALLS},
    },
    content=_content,
    post=_post,
    message_id=lambda seed: "SM" + digest(seed, "message")[:32],
    secret="Auth token of the Twilio account",  # noqa: S106  # what is asked for
    signs=True,
    is_form=True,
    trying=_trying,
)
