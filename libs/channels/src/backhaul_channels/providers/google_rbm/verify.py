"""``X-Goog-Signature``: the HMAC-SHA512 of the event under the webhook's client token, as base64. And the question
whether the address is ours.

https://developers.google.com/business-communications/rcs-business-messaging/guides/integrate/webhooks
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Sequence
from typing import Annotated

import msgspec

from backhaul_channels.adapter import Answer, MalformedError, RawCallback, Refusal
from backhaul_channels.engines.hmacs import text_key
from backhaul_channels.engines.proofs import any_equal
from backhaul_channels.providers.google_rbm.envelope import signed_bytes

SIGNATURE_HEADER = b"x-goog-signature"

MAX_QUESTION_BYTES = 4096

_NO_SECRET = Refusal("secret_missing", "The channel has no client token.")
_NO_SIGNATURE = Refusal("signature_missing", "The request carries no X-Goog-Signature header.")
_UNREADABLE = Refusal("body_unreadable", "The body is no envelope of Pub/Sub, so there is nothing that is signed.")
_WRONG_SIGNATURE = Refusal("signature_invalid", "X-Goog-Signature fits none of the channel's client tokens.")


class _Question(msgspec.Struct):
    clientToken: str  # noqa: N815  # Google's name.
    secret: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]


_read_question = msgspec.json.Decoder(_Question).decode


class GoogleRbmVerifier:
    """Checks requests against any of ``secrets``, client tokens. With none it refuses everything."""

    __slots__ = ("_keys",)

    def __init__(self, secrets: Sequence[str]) -> None:
        stripped = [secret.strip() for secret in secrets]
        self._keys = tuple(text_key(secret) for secret in stripped if secret)

    def verify(self, callback: RawCallback) -> Refusal | None:
        """None when authentic. Never raises."""
        if not self._keys:
            return _NO_SECRET
        signature = callback.header(SIGNATURE_HEADER)
        if signature is None:
            return _NO_SIGNATURE
        try:
            signed = signed_bytes(callback.body)
        except MalformedError:
            return _UNREADABLE
        expected = (b64encode(hmac.digest(key, signed, "sha512")) for key in self._keys)
        return None if any_equal(expected, signature) else _WRONG_SIGNATURE


def answer_question(callback: RawCallback, secrets: Sequence[str]) -> Answer | None:
    """Google's secret in return for one of the client tokens; 403 for another token; None where nothing is asked.

    Never raises.
    """
    body = callback.body
    # An event has its own words in base64, so that none gets further than here.
    if len(body) > MAX_QUESTION_BYTES or b'"clientToken"' not in body:
        return None
    try:
        question = _read_question(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    tokens = (secret.strip().encode() for secret in secrets if secret.strip())
    known = any_equal(tokens, question.clientToken.encode())
    return Answer(200, "text/plain", question.secret.encode()) if known else Answer(403)
