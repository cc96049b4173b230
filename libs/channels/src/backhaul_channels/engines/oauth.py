"""Access tokens that a provider fetches with client credentials (RFC 6749) and shows with its callbacks (RFC 6750).

A token is a JWT (RFC 7519) signed with a key that is derived from the client's secret. So any copy of the gateway can
verify it, nothing of it is stored, and it ends with its secret. It names one channel, and is good for no other.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Sequence
from hashlib import sha256
from urllib.parse import parse_qsl, unquote_plus

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import BaseModel, ConfigDict, Field

from backhaul_channels.adapter import Answer, MalformedError, RawCallback, Refusal
from backhaul_channels.engines.proofs import any_equal, authorization_of
from backhaul_channels.jsonparts import decode_object

LIFETIME_S = 3600
"""What the provider is told: it asks for another token after so long. Providers repeat a callback for longer, so that
one which was refused for its token comes again with a new one."""

GRACE_S = 300
"""A token is good for so much longer: some callbacks are under way when it expires, and clocks differ."""

MAX_TOKEN_BYTES = 2048
MAX_PARAMETERS = 16

_GRANT = "client_credentials"
_MAX_PARAMETER = 2048
# {"alg":"HS256","typ":"JWT"}. There is no other header, so nothing of a token is read before its signature is right.
_HEADER = b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."

_NO_TOKEN = Refusal("token_missing", "The request carries no Authorization header of the scheme Bearer.")
_WRONG_TOKEN = Refusal("token_invalid", "The access token is none that was issued for this channel and its secrets.")
_OLD_TOKEN = Refusal("token_expired", "The access token has expired; the provider must fetch another one.")


class ClientSecret(BaseModel):
    """A client and its secret, as both sides have them (RFC 6749, section 2.3.1)."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    client_id: str = Field(min_length=1, max_length=256, pattern=r"^[!-9;-~]+$", description="Visible ASCII, no colon.")
    client_secret: str = Field(min_length=16, max_length=1024, pattern=r"^[!-~]+$", description="Visible ASCII.")

    def signing_key(self) -> bytes:
        """32 bytes that are no use to whoever wants to fetch a token."""
        derivation = HKDF(SHA256(), 32, salt=self.client_id.encode(), info=b"backhaul access token")
        return derivation.derive(self.client_secret.encode())


class _Claims(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What a token says. ``aud`` is the channel, times are unix time in seconds."""

    aud: str
    sub: str
    iat: int
    exp: int


class TokenVerifier:
    """Asks for a token that was issued to any of ``clients``. They are at least one."""

    __slots__ = ("_keys",)

    def __init__(self, clients: Sequence[ClientSecret]) -> None:
        self._keys = [client.signing_key() for client in clients]

    def verify(self, callback: RawCallback) -> Refusal | None:
        """None when authentic. Never raises."""
        scheme, shown = authorization_of(callback)
        if scheme != b"bearer":
            return _NO_TOKEN
        claims = self._claims(shown)
        if claims is None or claims.aud != callback.audience:
            return _WRONG_TOKEN
        now_s = callback.received_at_us // 1_000_000
        # A callback without a time is none that arrived here, so nothing is known about the token's age either.
        if now_s < claims.iat - GRACE_S:
            return _WRONG_TOKEN
        return _OLD_TOKEN if now_s >= claims.exp else None

    def _claims(self, token: bytes) -> _Claims | None:
        """What ``token`` says, if one of the keys has signed it."""
        signed, _, signature = token.rpartition(b".")
        if len(token) > MAX_TOKEN_BYTES or not signed.startswith(_HEADER):
            return None
        if not any_equal((_signature(key, signed) for key in self._keys), signature):
            return None
        try:
            return msgspec.json.decode(_unpadded(signed[len(_HEADER) :]), type=_Claims)
        except ValueError:
            # Whoever knows the secret can sign what Backhaul never would.
            return None


def token_answer(callback: RawCallback, clients: Sequence[ClientSecret]) -> Answer:
    """The answer to a request for a token by one of ``clients``: RFC 6749, section 5. Never raises.

    The credentials may stand in an Authorization header of the scheme Basic, in the form, or in both, and then both
    must be right. A JSON object is taken for a form: some clients send one.
    """
    try:
        fields = _fields(callback)
    except MalformedError as error:
        return _error(400, "invalid_request", str(error))
    client = _client(clients, _shown(callback, fields))
    if client is None:
        return _error(401, "invalid_client", "The client id or its secret is none of the channel's.")
    grant = fields.get("grant_type", "")
    if grant != _GRANT:
        what = "unsupported_grant_type" if grant else "invalid_request"
        return _error(400, what, f"grant_type must be {_GRANT}.")
    issued_s = callback.received_at_us // 1_000_000
    claims = _Claims(callback.audience, client.client_id, issued_s, issued_s + LIFETIME_S + GRACE_S)
    signed = _HEADER + urlsafe_b64encode(msgspec.json.encode(claims)).rstrip(b"=")
    token = signed + b"." + _signature(client.signing_key(), signed)
    return _json(200, {"access_token": token.decode("ascii"), "token_type": "Bearer", "expires_in": LIFETIME_S})


def _signature(key: bytes, signed: bytes) -> bytes:
    return urlsafe_b64encode(hmac.digest(key, signed, sha256)).rstrip(b"=")


def _unpadded(encoded: bytes) -> bytes:
    return urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4))


def _fields(callback: RawCallback) -> dict[str, str]:
    """The parameters of the request, each of which may be there once; MalformedError."""
    content_type = (callback.header(b"content-type") or b"").partition(b";")[0].strip().lower()
    if content_type == b"application/json":
        try:
            parameters = decode_object(callback.body)
        except MalformedError:
            raise MalformedError("The body is no JSON object.") from None
        return {name: value for name, value in parameters.items() if isinstance(value, str)}
    try:
        pairs = parse_qsl(
            callback.body.decode("utf-8"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS, errors="strict"
        )
    except ValueError:
        raise MalformedError("The body is no form, or has too many parameters.") from None
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise MalformedError("A parameter is there more than once.")
    return fields


def _shown(callback: RawCallback, fields: dict[str, str]) -> list[set[tuple[str, str]]]:
    """Id and secret as each part of the request shows them, in each way in which they may be meant."""
    found = []
    scheme, encoded = authorization_of(callback)
    if scheme == b"basic":
        found.append(_of_basic(encoded))
    if "client_secret" in fields:
        found.append({(fields.get("client_id", ""), fields["client_secret"])})
    return found


def _of_basic(encoded: bytes) -> set[tuple[str, str]]:
    try:
        name, _, password = b64decode(encoded, validate=True).decode("utf-8").partition(":")
    except (Base64Error, ValueError):
        return set()
    # The RFC wants both encoded as in a form, and not every client does it.
    return {(name, password), (unquote_plus(name), unquote_plus(password))}


def _client(clients: Sequence[ClientSecret], shown: list[set[tuple[str, str]]]) -> ClientSecret | None:
    """The client that everything shown is right for; None where nothing is shown."""
    if not shown:
        return None
    for client in clients:
        own = f"{client.client_id}:{client.client_secret}".encode()
        if all([any([_same(own, one) for one in ways]) for ways in shown]):  # noqa: C419  # all are compared, as any_equal does.
            return client
    return None


def _same(own: bytes, shown: tuple[str, str]) -> bool:
    name, secret = shown
    return hmac.compare_digest(own, f"{name[:_MAX_PARAMETER]}:{secret[:_MAX_PARAMETER]}".encode("utf-8", "replace"))


def _error(status: int, error: str, description: str) -> Answer:
    return _json(status, {"error": error, "error_description": description})


def _json(status: int, content: dict[str, str | int]) -> Answer:
    return Answer(status, "application/json", msgspec.json.encode(content))
