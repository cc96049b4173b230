"""Signatures by Standard Webhooks: they prove to whoever receives a call that Backhaul made it, and when.

What is signed is ``<webhook-id>.<webhook-timestamp>.<body>``. A header has one signature for each key that is active,
separated by blanks: ``v1`` is HMAC-SHA256 under a secret that both sides know (``whsec_…``), ``v1a`` is Ed25519 with a
key of which the receiver has the public half alone (``whsk_…``, ``whpk_…``).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from secrets import token_bytes
from typing import Final

from backhaul_common.errors import BackhaulError, Code
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MIN_SECRET_BYTES: Final = 24
MAX_SECRET_BYTES: Final = 64
MAX_GRACE_S: Final = 604_800
"""For how long a key may be good beside the one that took its place."""

_NEW_SECRET_BYTES = 32
_ED25519_BYTES = 32
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
"""No full stop: it separates what is signed."""


class SecretKind(StrEnum):
    """How a key signs."""

    HMAC = "hmac"
    ED25519 = "ed25519"


_PREFIXES = {SecretKind.HMAC: "whsec_", SecretKind.ED25519: "whsk_"}
_PUBLIC_PREFIX = "whpk_"


@dataclass(frozen=True)
class SigningKey:
    """A key. ``secret`` is the HMAC secret (24 to 64 bytes), or the 32 bytes of an Ed25519 private key.

    Times are unix time in microseconds. ``expires_at_us`` is 0 where it stays until another takes its place.
    """

    kind: SecretKind
    secret: bytes
    created_at_us: int = 0
    expires_at_us: int = 0

    def __repr__(self) -> str:
        return f"SigningKey({self.kind}, created_at_us={self.created_at_us}, expires_at_us={self.expires_at_us})"

    @property
    def text(self) -> str:
        """``whsec_…`` or ``whsk_…``: what must stay secret."""
        return _PREFIXES[self.kind] + base64.b64encode(self.secret).decode("ascii")

    @property
    def public_text(self) -> str:
        """``whpk_…``, by which the receiver verifies; empty of an HMAC secret, which has no public half."""
        if self.kind is SecretKind.HMAC:
            return ""
        return _PUBLIC_PREFIX + base64.b64encode(self._private.public_key().public_bytes_raw()).decode("ascii")

    @cached_property
    def _private(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.secret)

    @cached_property
    def _begun(self) -> hmac.HMAC:
        """Of nothing yet. A copy takes less than preparing the key for each call anew."""
        return hmac.new(self.secret, digestmod=hashlib.sha256)

    def signature(self, signed: bytes) -> str:
        """``v1,…`` or ``v1a,…`` of ``signed``."""
        if self.kind is SecretKind.HMAC:
            made = self._begun.copy()
            made.update(signed)
            return "v1," + _base64(made.digest())
        return "v1a," + _base64(self._private.sign(signed))


def new_key(kind: SecretKind, now_us: int) -> SigningKey:
    """A random key: 32 bytes from the system."""
    return SigningKey(kind, token_bytes(_NEW_SECRET_BYTES), now_us)


def parse_key(text: str, now_us: int, *, field: str = "secret") -> SigningKey:
    """The key that ``whsec_…`` or ``whsk_…`` names. INVALID_ARGUMENT, of ``field``, where it is none.

    Base64 must be padded, and the standard alphabet's: whatever library a receiver has must read the same bytes. Of
    ``whsk_`` both the 32 bytes of the private key and the 64 bytes of a pair are known.
    """
    for kind, prefix in _PREFIXES.items():
        if text.startswith(prefix):
            secret = _decoded(text.removeprefix(prefix), field)
            return SigningKey(kind, _checked(kind, secret, field), now_us)
    raise _invalid(
        field,
        "A secret begins with whsec_ (HMAC) or whsk_ (Ed25519).",
        "Pass whsec_ and the base64 of 24 to 64 random bytes, or nothing: then one is made.",
    )


def rotated(keys: Sequence[SigningKey], new: SigningKey, grace_s: int, now_us: int) -> tuple[SigningKey, ...]:
    """The keys when ``new`` has come, newest first. Those of its kind are good for ``grace_s`` more, but no longer than
    they were to be; what is over is dropped. INVALID_ARGUMENT where ``grace_s`` is out of bounds."""
    if not 0 <= grace_s <= MAX_GRACE_S:
        raise _invalid(
            "grace_s",
            f"The grace is not between 0 and {MAX_GRACE_S} seconds.",
            "Pass for how long the receiver needs to take over the new secret, such as 86400.",
        )
    until = now_us + grace_s * 1_000_000
    ended = [
        key if key.kind is not new.kind else replace(key, expires_at_us=min(key.expires_at_us or until, until))
        for key in keys
    ]
    return tuple(active((new, *ended), now_us))


def active(keys: Iterable[SigningKey], now_us: int) -> list[SigningKey]:
    """Those that sign now, newest first."""
    good = [key for key in keys if not key.expires_at_us or key.expires_at_us > now_us]
    return sorted(good, key=lambda key: key.created_at_us, reverse=True)


def signed_headers(webhook_id: str, body: bytes, keys: Sequence[SigningKey], now_us: int) -> dict[str, str]:
    """The three headers of a call that is made at ``now_us``. A call without a body is signed as an empty one.

    ValueError where no key is active, or where the id is none: neither can come from outside.
    """
    if not _ID.fullmatch(webhook_id):
        raise ValueError(f"{webhook_id!r} cannot be the id of a call: letters, digits, dashes and underscores only")
    signing = active(keys, now_us)
    if not signing:
        raise ValueError("no key is active: a call would be unsigned")
    timestamp = str(now_us // 1_000_000)
    signed = b"%b.%b.%b" % (webhook_id.encode(), timestamp.encode("ascii"), body)
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(key.signature(signed) for key in signing),
    }


def _checked(kind: SecretKind, secret: bytes, field: str) -> bytes:
    if kind is SecretKind.HMAC:
        if not MIN_SECRET_BYTES <= len(secret) <= MAX_SECRET_BYTES:
            raise _invalid(
                field,
                f"The secret has {len(secret)} bytes, and not {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES}.",
                "Pass whsec_ and the base64 of 24 to 64 random bytes, or nothing: then one is made.",
            )
        return secret
    private = secret[:_ED25519_BYTES]
    if len(secret) == 2 * _ED25519_BYTES:
        public = Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
        if public != secret[_ED25519_BYTES:]:
            raise _invalid(field, "The two halves of the key are not of one pair.", "Pass the pair as it was made.")
    elif len(secret) != _ED25519_BYTES:
        raise _invalid(
            field,
            f"An Ed25519 key has 32 bytes, or 64 with its public half; this has {len(secret)}.",
            "Pass whsk_ and the base64 of such a key.",
        )
    return private


def _decoded(encoded: str, field: str) -> bytes:
    try:
        decoded = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        decoded = None
    if decoded is None or _base64(decoded) != encoded:
        raise _invalid(
            field, "What follows the prefix is no base64.", "Use the letters A-Z a-z 0-9 + / and pad with =."
        )
    return decoded


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _invalid(field: str, message: str, fix: str) -> BackhaulError:
    return BackhaulError(Code.INVALID_ARGUMENT, message, field=field, fix=fix)
