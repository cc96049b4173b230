"""``X-Twilio-Signature``. https://www.twilio.com/docs/usage/webhooks/webhooks-security

The signature is base64(HMAC(secret, URL + decoded form fields)): SHA-1 under the account's auth token or, where the
request names a shared key, whichever hash it names, under that key's secret. Where the URL as it stands does not fit,
a few other spellings of the same address are tried (spellings.py).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from binascii import b2a_base64
from collections.abc import Sequence
from hmac import HMAC, compare_digest

from backhaul_channels.adapter import InvalidSecretError, RawCallback, Refusal
from backhaul_channels.engines.twilio.form import FORM_BEGINS, signed_material
from backhaul_channels.engines.twilio.spellings import spellings
from backhaul_channels.jsonparts import looks_like_json

SIGNATURE_HEADER = b"x-twilio-signature"
SETTINGS_HEADER = b"x-twilio-webhooks-signature-settings"
_AUTHORIZATION = b"authorization"

MAX_FORM_BYTES, MAX_FORM_FIELDS = 64 << 10, 1000
"""Twilio's forms have a few KB and at most some dozens of fields. Signing covers every field, sorted: without a bound a
megabyte of them takes a third of a second, whoever posts it."""

MAX_HASHED_BYTES = 512 << 10
"""What one request with a wrong signature may cost: half a millisecond of hashing. The spelling that fits is among the
first ones, and a usual form has less than a hundredth of this."""

_DIGESTS = {"HMAC_SHA1": "sha1", "HMAC_SHA256": "sha256"}
_SHARED_KEY_PREFIX = "webhooks_sharedkey_"
_SHARED_KEY = re.compile(r"(webhooks_sharedkey_[A-Za-z0-9_-]{1,128}):(\S+)")
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,160}")

# Twilio appends it, so it counts as the last parameter only: anywhere else, the text of an inbound message could bring
# it, with the form's fields moved to the end of the address.
_BODY_HASH = re.compile(r"[?&]bodySHA256=([^&]*)\Z")

_NO_SECRET = Refusal("secret_missing", "The channel has no auth token; set the primary auth token as its secret.")
_NO_SIGNATURE = Refusal("signature_missing", "The request carries no X-Twilio-Signature header.")
_WRONG = (
    "X-Twilio-Signature fits none of the channel's auth tokens; check the token and that the public base URL is the "
    "one that Twilio calls."
)
_SORT = (
    " Twilio may sort the query's parameters after it has signed them as they were configured: configure them in "
    "alphabetical order."
)
_WRONG_SIGNATURE = Refusal("signature_invalid", _WRONG)
_WRONG_SIGNATURE_OF_MANY = Refusal("signature_invalid", _WRONG + _SORT)
_NO_TOKEN = Refusal(
    "signature_invalid",
    "The request is signed with the account's auth token, and the channel has only shared keys; add the primary auth "
    "token to its secrets.",
)
_BAD_SETTINGS = Refusal(
    "signature_invalid",
    "X-Twilio-Webhooks-Signature-Settings names no shared key, or an algorithm other than HMAC_SHA256 and HMAC_SHA1.",
)
_LARGE_FORM = Refusal(
    "form_too_large",
    f"The form has more than {MAX_FORM_BYTES} bytes or {MAX_FORM_FIELDS} fields; Twilio's have a few thousand bytes.",
    too_large=True,
)
_MISSHAPEN_FORM = Refusal(
    "form_invalid",
    "The form or its address has a field name, an escape or an AccountSid that Twilio does not write, so its signature "
    "proves nothing.",
)
_NO_BODY_HASH = Refusal(
    "body_hash_missing", "A JSON body is authentic only with bodySHA256 as the last parameter of the URL's query."
)
_WRONG_BODY_HASH = Refusal("body_hash_mismatch", "The body's SHA-256 is not the bodySHA256 of the URL.")


class TwilioVerifier:
    """Checks requests against any of ``secrets``: the account's auth tokens, and shared keys as ``id:secret``. With
    none it refuses everything."""

    __slots__ = ("_shared", "_tokens")

    def __init__(self, secrets: Sequence[str]) -> None:
        self._tokens: tuple[HMAC, ...] = ()
        self._shared: dict[tuple[str, str], tuple[HMAC, ...]] = {}
        for secret in secrets:
            if text := secret.strip():
                self._add(text)

    def _add(self, text: str) -> None:
        if not text.isascii() or not text.isprintable() or " " in text:
            raise InvalidSecretError(
                "The secret is no Twilio auth token: it holds characters other than visible ASCII. Copy the primary "
                "auth token from the Twilio console."
            )
        if not text.startswith(_SHARED_KEY_PREFIX):
            self._tokens += (_key(text, "sha1"),)
            return
        match = _SHARED_KEY.fullmatch(text)
        if match is None:
            raise InvalidSecretError(
                "The secret begins as the id of a shared key and holds no secret; write the key's id, a colon, and the "
                "secret that Twilio showed when the key was created."
            )
        for digest in _DIGESTS.values():
            known = self._shared.get((match[1], digest), ())
            self._shared[match[1], digest] = (*known, _key(match[2], digest))

    def verify(self, callback: RawCallback) -> Refusal | None:
        """None when authentic. Never raises."""
        if not self._tokens and not self._shared:
            return _NO_SECRET
        # Reversed, so that of a header that is there twice the first counts.
        named = dict(reversed(callback.headers))
        signature = named.get(SIGNATURE_HEADER)
        if not signature:
            return _NO_SIGNATURE
        settings = named.get(SETTINGS_HEADER)
        keys = self._keys_of(settings) if settings else self._tokens or _NO_TOKEN
        if isinstance(keys, Refusal):
            return keys
        url = callback.url.partition("#")[0]
        # The body alone decides between the two schemes, as it does when it is split: no header can make one scheme
        # vouch for a body that is then read by the other.
        check = _check_json if looks_like_json(callback.body) else _check_form
        return check(keys, url, callback.body, signature, named.get(_AUTHORIZATION, b""))

    def _keys_of(self, settings: bytes) -> tuple[HMAC, ...] | Refusal:
        """The shared keys that ``settings`` (``key=…,algorithm=…``) names; without an algorithm it is SHA-1, as in
        Twilio's own libraries. An auth token never stands in for one."""
        pairs = (part.partition("=") for part in settings.decode("latin-1").split(",", 8))
        named = {name.strip().lower(): value.strip() for name, _, value in pairs}
        key_id = named.get("key", "")
        digest = _DIGESTS.get((named.get("algorithm") or "HMAC_SHA1").upper())
        if digest is None or not _KEY_ID.fullmatch(key_id):
            return _BAD_SETTINGS
        keys = self._shared.get((key_id, digest))
        if keys is None:
            return Refusal(
                "signature_invalid",
                f"The request is signed with the shared key {key_id}, which the channel does not have; add the secret "
                "that Twilio showed when the key was created, as the key's id, a colon, and that secret.",
            )
        return keys


def _key(secret: str, digest: str) -> HMAC:
    return hmac.new(secret.encode(), digestmod=digest)


def _check_form(keys: Sequence[HMAC], url: str, body: bytes, signature: bytes, authorization: bytes) -> Refusal | None:
    if len(body) >= MAX_FORM_FIELDS and (len(body) > MAX_FORM_BYTES or body.count(b"&") >= MAX_FORM_FIELDS):
        return _LARGE_FORM
    material = signed_material(body)
    if material is None:
        return _MISSHAPEN_FORM
    return _check_signature(keys, url, material, signature, authorization)


def _check_json(keys: Sequence[HMAC], url: str, body: bytes, signature: bytes, authorization: bytes) -> Refusal | None:
    body_hash = _BODY_HASH.search(url)
    if body_hash is None:
        return _NO_BODY_HASH
    refusal = _check_signature(keys, url, b"", signature, authorization)
    if refusal is not None:
        return refusal
    actual = hashlib.sha256(body).hexdigest()
    expected = body_hash[1].encode("utf-8", "surrogatepass")
    return None if compare_digest(actual.encode(), expected) else _WRONG_BODY_HASH


def _check_signature(
    keys: Sequence[HMAC], url: str, material: bytes, signature: bytes, authorization: bytes
) -> Refusal | None:
    message = url.encode("utf-8", "surrogatepass") + material
    if _fits(keys, message, signature):
        return _check_seam(message, material)
    left = MAX_HASHED_BYTES
    for spelling in spellings(url, authorization):
        message = spelling.encode("utf-8", "surrogatepass") + material
        left -= len(message) * len(keys)
        if left < 0:
            break
        if _fits(keys, message, signature):
            return _check_seam(message, material)
    return _WRONG_SIGNATURE_OF_MANY if "&" in url.partition("?")[2] else _WRONG_SIGNATURE


def _check_seam(message: bytes, material: bytes) -> Refusal | None:
    """Address and form are signed without a mark between them, and Twilio's forms begin with the account. Where that
    first stands anywhere else in what was signed, a part of the one was moved into the other."""
    begins = message.find(FORM_BEGINS)
    return None if begins in (-1, len(message) - len(material)) else _MISSHAPEN_FORM


def _fits(keys: Sequence[HMAC], message: bytes, signature: bytes) -> bool:
    for key in keys:
        # A copy has the key's two pads hashed already, which is more than half of the work for a usual form.
        mac = key.copy()
        mac.update(message)
        if compare_digest(b2a_base64(mac.digest(), newline=False), signature):
            return True
    return False
