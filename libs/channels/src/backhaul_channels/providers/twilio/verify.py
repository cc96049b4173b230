"""``X-Twilio-Signature``. https://www.twilio.com/docs/usage/webhooks/webhooks-security

The signature is base64(HMAC-SHA1(auth token, URL + decoded form fields)). Twilio is not of one mind about the URL's
port and user, so where the URL as it stands does not fit, a few other spellings of the same address are tried.
"""

from __future__ import annotations

import hashlib
import re
from binascii import b2a_base64
from collections.abc import Iterator, Sequence
from hmac import compare_digest

from backhaul_channels.adapter import InvalidSecretError, RawCallback, Refusal
from backhaul_channels.jsonparts import looks_like_json
from backhaul_channels.providers.twilio.form import signed_material

SIGNATURE_HEADER = b"x-twilio-signature"

MOST_FORM_BYTES, MOST_FORM_FIELDS = 64 << 10, 1000
"""Twilio's forms have a few KB and at most some dozens of fields. Signing covers every field, sorted: without a bound a
megabyte of them takes a third of a second, whoever posts it."""

_BLOCK = 64
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?]*)(.*)", re.DOTALL)
_BODY_HASH = re.compile(r"[?&]bodySHA256=([^&]*)")

_NO_SECRET = Refusal("secret_missing", "The channel has no auth token; set the primary auth token as its secret.")
_NO_SIGNATURE = Refusal("signature_missing", "The request carries no X-Twilio-Signature header.")
_WRONG_SIGNATURE = Refusal(
    "signature_invalid",
    "X-Twilio-Signature fits none of the channel's auth tokens; check the token and that the public base URL is the "
    "one that Twilio calls.",
)
_LARGE_FORM = Refusal(
    "form_too_large", f"A form of more than {MOST_FORM_BYTES} bytes or {MOST_FORM_FIELDS} fields is not Twilio's."
)
_NO_BODY_HASH = Refusal("body_hash_missing", "A JSON body is authentic only with bodySHA256 in the URL's query.")
_WRONG_BODY_HASH = Refusal("body_hash_mismatch", "The body's SHA-256 is not the bodySHA256 of the URL.")


class TwilioVerifier:
    """Checks requests against any of ``secrets``, the account's auth tokens. With none it refuses everything."""

    __slots__ = ("_keys",)

    def __init__(self, secrets: Sequence[str]) -> None:
        tokens = [secret.strip() for secret in secrets]
        self._keys = tuple(_Key(token) for token in tokens if token)

    def verify(self, callback: RawCallback) -> Refusal | None:
        """None when authentic. Never raises."""
        if not self._keys:
            return _NO_SECRET
        signature = callback.header(SIGNATURE_HEADER)
        if not signature:
            return _NO_SIGNATURE
        url = callback.url.partition("#")[0]
        # The body alone decides between the two schemes, as it does when it is split: no header can make one scheme
        # vouch for a body that is then read by the other.
        if looks_like_json(callback.body):
            return self._verify_json(url, callback.body, signature)
        if len(callback.body) > MOST_FORM_BYTES or callback.body.count(b"&") >= MOST_FORM_FIELDS:
            return _LARGE_FORM
        return None if self._signed(url, signed_material(callback.body), signature) else _WRONG_SIGNATURE

    def _verify_json(self, url: str, body: bytes, signature: bytes) -> Refusal | None:
        body_hash = _BODY_HASH.search(url)
        if body_hash is None:
            return _NO_BODY_HASH
        if not self._signed(url, b"", signature):
            return _WRONG_SIGNATURE
        actual = hashlib.sha256(body).hexdigest()
        expected = body_hash[1].encode("utf-8", "surrogatepass")
        return None if compare_digest(actual.encode(), expected) else _WRONG_BODY_HASH

    def _signed(self, url: str, material: bytes, signature: bytes) -> bool:
        message = url.encode("utf-8", "surrogatepass") + material
        for key in self._keys:
            if compare_digest(key.sign(message), signature):
                return True
        for variant in url_variants(url):
            message = variant.encode("utf-8", "surrogatepass") + material
            for key in self._keys:
                if compare_digest(key.sign(message), signature):
                    return True
        return False


class _Key:
    """HMAC-SHA1 with both pads hashed beforehand: half the cost of ``hmac.digest`` for a message of a few hundred
    bytes."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, token: str) -> None:
        if not token.isascii() or not token.isprintable() or " " in token:
            raise InvalidSecretError(
                "The secret is no Twilio auth token: it holds characters other than visible ASCII. Copy the primary "
                "auth token from the Twilio console."
            )
        key = token.encode()
        if len(key) > _BLOCK:
            key = hashlib.sha1(key).digest()  # noqa: S324 - HMAC-SHA1 is what Twilio signs with.
        key = key.ljust(_BLOCK, b"\0")
        self._inner = hashlib.sha1(bytes(byte ^ 0x36 for byte in key))  # noqa: S324 - as above.
        self._outer = hashlib.sha1(bytes(byte ^ 0x5C for byte in key))  # noqa: S324 - as above.

    def sign(self, message: bytes) -> bytes:
        inner = self._inner.copy()
        inner.update(message)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return b2a_base64(outer.digest(), newline=False)


def url_variants(url: str) -> Iterator[str]:
    """Other spellings of ``url`` (which has no fragment) that Twilio may have signed, ``url`` itself not among them.

    Without the user, with the user; without a port, with the port given, with the scheme's own port; the quotation
    mark ``'`` in the query literally or escaped, since proxies and clients disagree on it. At most 18 of them. The
    host keeps its case; of the scheme, lower case is tried too.
    """
    match = _URL.fullmatch(url)
    if match is None:
        return
    scheme, authority, rest = match[1].lower(), match[2], match[3]
    # Only the last @ ends the user's name and password, which may hold colons and at-signs of their own.
    userinfo, at, host_port = authority.rpartition("@")
    host, port = _split_port(host_port)
    seen = {url}
    for user in dict.fromkeys(("", userinfo + at)):
        for address in (host, f"{host}:{port or _DEFAULT_PORTS.get(scheme, '')}", host_port):
            for tail in _quotation_marks(rest):
                variant = f"{scheme}://{user}{address}{tail}"
                if variant not in seen:
                    seen.add(variant)
                    yield variant


def _split_port(host_port: str) -> tuple[str, str]:
    if host_port.startswith("["):
        # The colons of an IPv6 address are inside of its brackets.
        host, bracket, port = host_port.partition("]")
        return host + bracket, port.removeprefix(":")
    host, _, port = host_port.partition(":")
    return host, port


def _quotation_marks(rest: str) -> tuple[str, ...]:
    path, mark, query = rest.partition("?")
    if "'" not in query and "%27" not in query:
        return (rest,)
    return rest, path + mark + query.replace("'", "%27"), path + mark + query.replace("%27", "'")
