"""Standard Webhooks, version 1 (https://www.standardwebhooks.com): HMAC-SHA256 of id, time and body.

The headers are ``webhook-id``, ``webhook-timestamp`` and ``webhook-signature``; older senders write another word before
the dash (``svix-id``). A signature header may hold several, parted by blanks, while a secret rotates. Each try is
signed anew, so that the time may be compared with the arrival.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64encode
from collections.abc import Sequence

from backhaul_channels.adapter import InvalidSecretError, RawCallback, Refusal
from backhaul_channels.engines.hmacs import NO_SECRET, base64_key, is_recent, outside
from backhaul_channels.engines.proofs import any_equal

TOLERANCE_S = 300
"""What the specification's own libraries allow, in either direction."""

MAX_SIGNATURES = 32
"""Signatures of a header that are looked at: a header of 64 KB would have room for thousands."""

_PREFIX = "whsec_"
_VERSION = b"v1,"
_DIGITS = re.compile(rb"[0-9]{1,12}", re.ASCII)
# The specification asks for 24 to 64 bytes; what is shorter than this can be tried out.
_MIN_KEY_BYTES = 16
_MAX_KEY_BYTES = 512


class StandardWebhooksVerifier:
    """Checks requests against any of ``secrets``. With none it refuses everything."""

    __slots__ = ("_id", "_keys", "_missing", "_outside", "_signature", "_timestamp", "_tolerance_s", "_wrong")

    def __init__(self, secrets: Sequence[str], word: str = "webhook", tolerance_s: int = TOLERANCE_S) -> None:
        self._keys = tuple(_key(secret.strip()) for secret in secrets if secret.strip())
        self._tolerance_s = tolerance_s
        self._id, self._timestamp, self._signature = headers_of(word)
        self._missing = Refusal(
            "signature_missing", f"The request lacks {word}-id, {word}-timestamp or {word}-signature."
        )
        self._wrong = Refusal("signature_invalid", f"No v1 of {word}-signature fits any of the channel's secrets.")
        self._outside = outside(f"{word}-timestamp", tolerance_s)

    def verify(self, callback: RawCallback) -> Refusal | None:
        """None when authentic. Never raises."""
        if not self._keys:
            return NO_SECRET
        named, timestamp = callback.header(self._id), callback.header(self._timestamp)
        told = callback.header(self._signature)
        if not named or not timestamp or not told:
            return self._missing
        # With a dot in it, the end of the id could be taken for the time, and the time for the body.
        if b"." in named or not _DIGITS.fullmatch(timestamp):
            return self._wrong
        signed = b"%b.%b.%b" % (named, timestamp, callback.body)
        several = told.split(b" ", MAX_SIGNATURES)[:MAX_SIGNATURES]
        signatures = [one[len(_VERSION) :] for one in several if one.startswith(_VERSION)]
        expected = [b64encode(hmac.digest(key, signed, "sha256")) for key in self._keys]
        matches = [any_equal(expected, one) for one in signatures]
        if not any(matches):
            return self._wrong
        recent = is_recent(int(timestamp) * 1_000_000, callback.received_at_us, self._tolerance_s)
        return None if recent else self._outside


def headers_of(word: str) -> tuple[bytes, bytes, bytes]:
    """The names of the headers with the id, the time and the signatures."""
    return f"{word}-id".encode(), f"{word}-timestamp".encode(), f"{word}-signature".encode()


def _key(secret: str) -> bytes:
    key = base64_key(secret.removeprefix(_PREFIX))
    if not _MIN_KEY_BYTES <= len(key) <= _MAX_KEY_BYTES:
        raise InvalidSecretError(
            f"The secret has {len(key)} bytes; those of Standard Webhooks have 24 to 64. Copy it whole, with whsec_."
        )
    return key
