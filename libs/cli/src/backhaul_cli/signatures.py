"""Signatures by Standard Webhooks, as the notifier makes them, and as whoever is called verifies them.

What is signed is ``<webhook-id>.<webhook-timestamp>.<body>``: ``v1`` is HMAC-SHA256 under a secret (``whsec_…``),
``v1a`` is Ed25519 by a private key (``whsk_…``) of which the receiver has the public half (``whpk_…``).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from backhaul_cli.failing import FailedError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ID, TIMESTAMP, SIGNATURE = HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")
TOLERANCE_S = 300
"""What the specification's own libraries allow, in either direction."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_NAME = re.compile(r"[!#-'*+.0-9A-Z^-z|~-]+")
_DIGITS = re.compile(r"[0-9]{1,12}", re.ASCII)
_PREFIXES: Mapping[str, Literal["v1", "v1a"]] = {"whsec_": "v1", "whsk_": "v1a", "whpk_": "v1a"}
_VERSIONS = frozenset(_PREFIXES.values())
_LENGTHS = {"whsec_": range(24, 65), "whsk_": (32, 64), "whpk_": (32,)}
_Wrong = tuple[str, str]
"""A problem in a word, empty where there is none, and a sentence."""
_WAYS = "whsec_ (HMAC), whsk_ (Ed25519) or whpk_ (its public half)"


class Key(NamedTuple):
    """A key by its prefix, ``whsec_``, ``whsk_`` or ``whpk_``. It does not show itself."""

    prefix: str
    value: bytes

    def __repr__(self) -> str:
        return f"Key({self.prefix}…)"

    @property
    def version(self) -> Literal["v1", "v1a"]:
        """Of the signatures that it makes or verifies."""
        return _PREFIXES[self.prefix]

    def signature(self, signed: bytes) -> str:
        """``v1,…`` or ``v1a,…``."""
        if self.version == "v1":
            return "v1," + _base64(hmac.digest(self.value, signed, hashlib.sha256))
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return "v1a," + _base64(Ed25519PrivateKey.from_private_bytes(self.value[:32]).sign(signed))

    def fits(self, signature: bytes, signed: bytes) -> bool:
        """Whether it is the signature, decoded, of ``signed``."""
        if self.version == "v1":
            return hmac.compare_digest(hmac.digest(self.value, signed, hashlib.sha256), signature)
        from cryptography.exceptions import InvalidSignature

        try:
            self._public().verify(signature, signed)
        except (InvalidSignature, ValueError):
            return False
        return True

    def _public(self) -> Ed25519PublicKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

        if self.prefix == "whsk_":
            return Ed25519PrivateKey.from_private_bytes(self.value[:32]).public_key()
        return Ed25519PublicKey.from_public_bytes(self.value)


class Verdict(NamedTuple):
    """Whether a call is what was signed; if not, the ``problem`` in a word, and in a sentence. ``age_s`` is how many
    seconds it was under way, None where no time can be read."""

    valid: bool
    problem: str | None
    detail: str
    age_s: int | None


def keys_of(text: str) -> list[Key]:
    """The keys in ``text``: one a line, or as Backhaul answers them, JSON with ``secrets``. No error repeats any of
    it."""
    words = _told(text) if text.lstrip().startswith("{") else text.split()
    if not words:
        raise FailedError("There is no key.", f"Give one a line: {_WAYS}.")
    return [_key(number, word) for number, word in enumerate(words, 1)]


def _told(text: str) -> list[str]:
    import json

    try:
        return [
            word
            for one in json.loads(text)["secrets"]
            for word in (one.get("secret"), one.get("public_key"))
            if isinstance(word, str) and word
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise FailedError(
            "The keys are JSON, and not an answer with secrets.",
            "Keep that of POST /v1/subscriptions, or give the keys one a line.",
        ) from None


def _key(number: int, word: str) -> Key:
    prefix = next((prefix for prefix in _PREFIXES if word.startswith(prefix)), None)
    if prefix is None:
        raise FailedError(f"Key {number} does not begin as one does.", f"A key begins with {_WAYS}.")
    value = _decoded(word.removeprefix(prefix))
    if value is None:
        raise FailedError(f"What follows {prefix} in key {number} is no base64.", "Copy it whole, with = at its end.")
    if len(value) not in _LENGTHS[prefix]:
        raise FailedError(f"Key {number} has {len(value)} bytes, which no key with {prefix} has.", "Copy it whole.")
    return Key(prefix, value)


def headers_of(text: str) -> dict[str, str]:
    """The headers of a call: ``name: value`` a line, as tools write them, or a JSON object. Names in lower case."""
    if text.lstrip().startswith("{"):
        import json

        try:
            return {str(name).lower(): str(value).strip() for name, value in json.loads(text).items()}
        except (ValueError, RecursionError):
            raise FailedError("The headers are no JSON.", "Give one a line, such as webhook-id: 0f3c.") from None
    lines = (line.partition(":") for line in text.splitlines())
    # A line with the request itself has a colon, too, where it names the whole address.
    return {name.lower(): value.strip() for name, colon, value in lines if colon and _NAME.fullmatch(name)}


def signed_headers(call: str, at: int, body: bytes, keys: Sequence[Key]) -> dict[str, str]:
    """The three headers of a call made ``at``, unix time in seconds, signed by each of ``keys``."""
    if not _ID.fullmatch(call):
        # A full stop would part what is signed elsewhere.
        raise FailedError(f"{call!r} is no id of a call.", "Use letters, digits, - and _, up to 128.")
    if any(key.prefix == "whpk_" for key in keys):
        raise FailedError("A public key (whpk_) cannot sign.", "Sign with its private half: whsk_.")
    signed = b"%b.%d.%b" % (call.encode(), at, body)
    return {ID: call, TIMESTAMP: str(at), SIGNATURE: " ".join(key.signature(signed) for key in keys)}


def verdict(headers: Mapping[str, str], body: bytes, keys: Sequence[Key], now: int, tolerance_s: int) -> Verdict:
    """Whether a call with these ``headers`` is what one of ``keys`` signed, and came in time. ``now`` is unix time.

    The signature comes before the time: a time that nobody signed says nothing.
    """
    at = headers.get(TIMESTAMP, "")
    age_s = now - int(at) if _DIGITS.fullmatch(at) else None
    problem, detail = _form(headers) or _signature(headers, body, keys) or _time(age_s or 0, tolerance_s)
    return Verdict(not problem, problem or None, detail, age_s)


def _form(headers: Mapping[str, str]) -> _Wrong | None:
    if missing := [name for name in HEADERS if not headers.get(name)]:
        return "header_missing", f"There is no {' and no '.join(missing)}."
    if not _DIGITS.fullmatch(headers[TIMESTAMP]):
        return "timestamp_malformed", f"{TIMESTAMP} is {headers[TIMESTAMP]!r}, and should be unix time in seconds."
    if "." in headers[ID]:
        return "id_malformed", f"{ID} holds a full stop, which parts what is signed."
    # One of a version that is not known may look otherwise, and takes nothing from one that is.
    told = _signatures(headers)
    if any(one is None and (version is None or version in _VERSIONS) for version, one in told):
        return "signature_malformed", f"{SIGNATURE} is not v1,<base64> or v1a,<base64>, parted by blanks."
    return None


def _signature(headers: Mapping[str, str], body: bytes, keys: Sequence[Key]) -> _Wrong | None:
    told = _signatures(headers)
    ours, theirs = {key.version for key in keys}, {version for version, _ in told if version}
    if not ours & theirs:
        has, need = ", ".join(sorted(theirs)), ", ".join(sorted(ours))
        return "version_missing", f"There are signatures of {has}, and the keys are for {need}."
    signed = b"%b.%b.%b" % (headers[ID].encode(), headers[TIMESTAMP].encode(), body)
    if not any(key.version == version and key.fits(one or b"", signed) for key in keys for version, one in told):
        wrong = "it was signed with another key, or the body, the id or the time is not what was signed, to the byte"
        return "signature_wrong", f"No signature fits: {wrong}."
    return None


def _time(age_s: int, tolerance_s: int) -> _Wrong:
    if abs(age_s) <= tolerance_s:
        return "", "It is what was signed."
    problem, when = ("too_old", "ago") if age_s > 0 else ("too_new", "ahead")
    return problem, f"The signature fits, but it was made {abs(age_s)} s {when}, and {tolerance_s} s are allowed."


def _signatures(headers: Mapping[str, str]) -> list[tuple[str | None, bytes | None]]:
    """Versions, None where none is named, and signatures, None where it is no base64."""
    parted = (one.partition(",") for one in headers[SIGNATURE].split())
    return [(version if comma else None, _decoded(text)) for version, comma, text in parted]


def _decoded(text: str) -> bytes | None:
    """Base64 as it is written, padded: other texts that mean the same bytes are none."""
    try:
        decoded = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return decoded if decoded and _base64(decoded) == text else None


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
