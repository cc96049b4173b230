"""Signatures by a shared secret, as most webhooks have them: an HMAC of the body, and of a time where there is one.

A time within what is signed is compared with the arrival in both directions. Whoever retries for hours must sign each
try anew, or the tolerance must be as long.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backhaul_channels.adapter import InvalidSecretError, RawCallback, Refusal
from backhaul_channels.engines.proofs import any_equal

MAX_HEADERS_SIGNED = 4

NO_SECRET = Refusal("secret_missing", "The channel has no secret that its provider signs with.")

_PLACEHOLDER = re.compile(r"\{(timestamp|body|header:[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64})\}")
_BRACKETS = re.compile(rb"[{\[]")
_SECOND = 1_000_000


class Signed:
    """What is signed: texts, and what stands between them, of one request. ``template`` has ``{body}``, and may have
    ``{timestamp}`` and ``{header:Name}``. Raises ValueError, which says what to write."""

    __slots__ = ("_marks", "_pieces", "_timestamp", "_touching")

    def __init__(self, template: str, timestamp_header: bytes) -> None:
        split = _PLACEHOLDER.split(template)
        # Texts stand at even places, what goes between them at odd ones.
        texts, names = split[::2], split[1::2]
        if any("{" in text or "}" in text for text in texts):
            raise ValueError("Braces only stand around body, timestamp and header:Name.")
        if names.count("body") != 1:
            raise ValueError("The body must be signed, once: {body}.")
        if names.count("timestamp") != bool(timestamp_header):
            raise ValueError(
                "A time that is not signed proves nothing: {timestamp} and timestamp_header go together, once."
            )
        if len(names) - names.count("body") > MAX_HEADERS_SIGNED:
            raise ValueError(f"At most {MAX_HEADERS_SIGNED} headers can be signed.")
        between = texts[1:-1]
        touching = [names[number : number + 2] for number, text in enumerate(between) if not text]
        # The end of one could be moved to the beginning of the other, and be signed all the same. But a time may not
        # hold the bracket that JSON begins with, nor does JSON begin with anything of a time.
        if touching not in ([], [["timestamp", "body"]]):
            raise ValueError("What is signed needs marks between its parts, as in {timestamp}.{body}.")
        self._touching = bool(touching)
        self._timestamp = timestamp_header
        self._marks = tuple({text.encode() for text in between if text})
        self._pieces: list[tuple[bytes, bytes | None]] = []
        for number, text in enumerate(texts):
            self._pieces.append((text.encode(), b""))
            if number < len(names):
                self._pieces.append((b"", _header_of(names[number], timestamp_header)))

    @property
    def headers(self) -> frozenset[bytes]:
        """The names of the headers that are signed, in lower case."""
        return frozenset(name for _, name in self._pieces if name)

    def of(self, callback: RawCallback) -> bytes | None:
        """None where a header is not there, or where the parts could as well meet at another place: a header holds one
        of the marks, alone or with a piece of it beside the header; or a body that a time touches is no JSON."""
        if self._touching and callback.body[:1] not in (b"{", b"["):
            return None
        parts: list[bytes] = []
        for text, header in self._pieces:
            if header is None:
                parts.append(callback.body)
            elif not header:
                parts.append(text)
            else:
                value = callback.header(header)
                if not value or any(mark in mark[1:] + value + mark[:-1] for mark in self._marks):
                    return None
                if self._touching and header == self._timestamp and _BRACKETS.search(value):
                    return None
                parts.append(value)
        return b"".join(parts)


def _header_of(name: str, timestamp_header: bytes) -> bytes | None:
    if name == "body":
        return None
    return timestamp_header if name == "timestamp" else name.partition(":")[2].lower().encode()


@dataclass(frozen=True, slots=True)
class HmacRules:
    """How a provider signs. Headers are in lower case; without ``timestamp_header`` no time is asked for.
    ``to_microseconds`` reads the time, and raises ValueError."""

    header: bytes
    algorithm: str
    in_base64: bool
    prefix: bytes
    signed: Signed
    timestamp_header: bytes
    tolerance_s: int
    to_microseconds: Callable[[object], int]


class HmacVerifier:
    """Checks requests against any of ``keys``. With none it refuses everything."""

    __slots__ = ("_keys", "_missing", "_outside", "_rules", "_unclear", "_unprefixed", "_wrong")

    def __init__(self, keys: Sequence[bytes], rules: HmacRules) -> None:
        self._keys = tuple(keys)
        self._rules = rules
        name = rules.header.decode()
        self._missing = Refusal("signature_missing", f"The request carries no {name} header.")
        self._unprefixed = Refusal("signature_invalid", f"{name} does not begin with {rules.prefix.decode()!r}.")
        self._wrong = Refusal("signature_invalid", f"{name} fits none of the channel's secrets.")
        self._unclear = Refusal(
            "signature_invalid",
            f"What is signed is not clear: {', '.join(sorted(map(bytes.decode, rules.signed.headers)))} must be there, "
            "and hold none of the marks that stand between the parts; a body that the time touches must be JSON.",
        )
        self._outside = outside(rules.timestamp_header.decode(), rules.tolerance_s)

    def verify(self, callback: RawCallback) -> Refusal | None:
        """None when authentic. Never raises."""
        rules = self._rules
        if not self._keys:
            return NO_SECRET
        told = callback.header(rules.header)
        if not told:
            return self._missing
        if not told.startswith(rules.prefix):
            return self._unprefixed
        signed = rules.signed.of(callback)
        if signed is None:
            return self._unclear
        if not self._fits(told, signed):
            return self._wrong
        return None if self._is_recent(callback) else self._outside

    def _fits(self, told: bytes, signed: bytes) -> bool:
        rules = self._rules
        told = told[len(rules.prefix) :]
        if not rules.in_base64:
            # Digits beyond nine are written in either case.
            told = told.lower()
        return any_equal((self._expected(key, signed) for key in self._keys), told)

    def _expected(self, key: bytes, signed: bytes) -> bytes:
        digest = hmac.digest(key, signed, self._rules.algorithm)
        return b64encode(digest) if self._rules.in_base64 else digest.hex().encode()

    def _is_recent(self, callback: RawCallback) -> bool:
        if not self._rules.timestamp_header:
            return True
        try:
            told = (callback.header(self._rules.timestamp_header) or b"").decode("ascii")
            signed_at_us = self._rules.to_microseconds(told)
        except (ValueError, OverflowError):
            return False
        return is_recent(signed_at_us, callback.received_at_us, self._rules.tolerance_s)


def outside(header: str, tolerance_s: int) -> Refusal:
    """That a request was signed at another time than it came."""
    return Refusal(
        "timestamp_outside",
        f"{header} is no time, or more than {tolerance_s} s away from the arrival: it was sent once before, or one of "
        "the clocks is wrong.",
    )


def is_recent(signed_at_us: int, received_at_us: int, tolerance_s: int) -> bool:
    """Whether the two are no further apart, in either direction."""
    return abs(received_at_us - signed_at_us) <= tolerance_s * _SECOND


def text_key(secret: str) -> bytes:
    """A secret that is its own key. InvalidSecretError, which repeats nothing of it."""
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise InvalidSecretError("The secret holds characters other than visible ASCII; copy it from the provider.")
    return secret.encode()


def base64_key(secret: str) -> bytes:
    """A secret that is its key in base64. InvalidSecretError, which repeats nothing of it."""
    try:
        key = b64decode(secret.encode("ascii"), validate=True)
    except (NotBase64, ValueError):
        raise InvalidSecretError("The secret is not base64; copy it whole from the provider.") from None
    if not key:
        raise InvalidSecretError("The secret is empty; copy it whole from the provider.")
    return key


def hex_key(secret: str) -> bytes:
    """A secret that is its key in hexadecimal digits. InvalidSecretError, which repeats nothing of it."""
    try:
        return bytes.fromhex(secret)
    except ValueError:
        raise InvalidSecretError("The secret is not hexadecimal; copy it whole from the provider.") from None
