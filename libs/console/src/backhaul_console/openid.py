"""People whom an OpenID provider vouches for: the authorization code flow of OpenID Connect, with PKCE.

The provider is told who asks, and tells in a signed ID token who has signed in. Nothing of that token is believed
before its signature, issuer, audience, time and nonce have been looked at.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from ssl import SSLContext
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import msgspec
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from backhaul_console.sessions import Person

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""Signatures by a key that the provider alone has: neither ``none``, nor one by the client's own secret."""
ROLES = ("operator", "support", "auditor")
"""Of several that somebody has, the first counts."""

_TIMEOUT_S = 5.0
_LEEWAY_S = 60
_KNOWN_S = 3600.0
"""How long what the provider tells of itself is taken for true, and its keys."""
_KEYS_APART_S = 30.0
"""For a key that is not known the keys are asked for anew, but no more often."""
_AWAY_S = 5.0
"""How long a provider that told nothing of itself is not asked again. Whoever comes waits for one question."""
_AT_ONCE = 8
"""Questions to the provider: anybody can have one asked, without being signed in."""
_MAX_ANSWER_BYTES = 1 << 20
_MAX_NAME = 128
_REFUSED = (400, 401)
_EMAIL = re.compile("[^:@]+@[^:@]+")
_WORD = re.compile(r"[a-z0-9_]{1,64}")


class ProviderAwayError(Exception):
    """The provider does not answer, or nothing that can be understood. The text says what, and holds nothing of it."""


class _BusyError(ProviderAwayError):
    """Nothing is known of the provider: it was not asked."""


class NotVouchedError(Exception):
    """The provider vouches for nobody by this. The text says why, and holds no secret."""


class NoRoleError(Exception):
    """The provider vouches for somebody who has no role here. The text is the person's name."""


@dataclass(frozen=True, kw_only=True)
class OpenId:
    """What is agreed with a provider. ``roles`` maps values of ``claim`` to roles; ``base_url`` is how browsers address
    the console's host."""

    issuer: str
    client_id: str
    client_secret: str
    base_url: str
    roles: Mapping[str, str]
    claim: str = "groups"
    scopes: str = "openid profile email"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One sign-in under way, which its browser alone knows. ``at`` is in seconds since 1970; ``to`` is where it was
    going."""

    state: str
    nonce: str
    verifier: str
    at: float
    to: str = ""


@dataclass(frozen=True)
class _Known:
    endpoints: Mapping[str, Any]
    keys: KeySet
    at: float


class Provider:
    """Asks one provider. ``redirect_uri`` is where it sends browsers back to."""

    def __init__(self, agreed: OpenId, redirect_uri: str, now: Callable[[], float] = time.time) -> None:
        self.issuer, self.host = agreed.issuer, httpx.URL(agreed.issuer).host
        self._agreed = agreed
        self._redirect_uri = redirect_uri
        self._now = now
        self._known: _Known | None = None
        self._away: tuple[ProviderAwayError, float] | None = None
        self._discovering = asyncio.Lock()
        self._asking = asyncio.Semaphore(_AT_ONCE)

    async def address(self, asked: Asked) -> str:
        """Where a browser is sent to sign in. ProviderAwayError."""
        endpoint: str = (await self._discovered()).endpoints["authorization_endpoint"]
        query = {
            "response_type": "code",
            "client_id": self._agreed.client_id,
            "redirect_uri": self._redirect_uri,
            "scope": self._agreed.scopes,
            "state": asked.state,
            "nonce": asked.nonce,
            "code_challenge": create_s256_code_challenge(asked.verifier),
            "code_challenge_method": "S256",
        }
        return endpoint + ("&" if "?" in endpoint else "?") + urlencode(query)

    async def person(self, asked: Asked, code: str) -> Person:
        """Whom the provider vouches for by a code. ProviderAwayError, NotVouchedError, NoRoleError."""
        known = await self._discovered()
        told = await self._redeemed(known, code, asked.verifier)
        claims = await self._checked(known, told, asked.nonce)
        name = _name_of(claims)
        mine = _values_of(claims, self._agreed.claim)
        held = {role for value, role in self._agreed.roles.items() if value in mine}
        for role in ROLES:
            if role in held:
                return Person(name=name, role=role)
        raise NoRoleError(name)

    async def _discovered(self) -> _Known:
        async with self._discovering:
            known, away = self._known, self._away
            if known is not None and self._now() - known.at <= _KNOWN_S:
                return known
            if away is not None and self._now() - away[1] <= _AWAY_S:
                raise ProviderAwayError(str(away[0]))
            try:
                known = self._known = await self._told_of_itself()
            except _BusyError:
                raise
            except ProviderAwayError as exc:
                self._away = exc, self._now()
                raise
            return known

    async def _told_of_itself(self) -> _Known:
        issuer = self._agreed.issuer
        endpoints = await self._json("GET", issuer.rstrip("/") + "/.well-known/openid-configuration")
        if endpoints.get("issuer") != issuer:
            raise ProviderAwayError("it tells of another issuer than BACKHAUL_GATEWAY_CONSOLE_OIDC_ISSUER")
        scheme = httpx.URL(issuer).scheme
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            if not isinstance(endpoints.get(name), str) or not endpoints[name].startswith(("https://", scheme + ":")):
                raise ProviderAwayError(f"it tells of no {name} that can be used")
        return _Known(endpoints, await self._keys(endpoints), self._now())

    async def _keys(self, endpoints: Mapping[str, Any]) -> KeySet:
        told = await self._json("GET", endpoints["jwks_uri"])
        try:
            return KeySet.import_key_set({"keys": [key for key in told["keys"] if key.get("use", "sig") == "sig"]})
        except (JoseError, KeyError, TypeError, ValueError, AttributeError) as exc:
            raise ProviderAwayError("its keys cannot be read") from exc

    async def _redeemed(self, known: _Known, code: str, verifier: str) -> Mapping[str, Any]:
        """What the provider gives for a code, once."""
        agreed = self._agreed
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": verifier,
        }
        methods = known.endpoints.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        if "client_secret_basic" in methods:
            # Either is encoded before (RFC 6749, 2.3.1), so that a colon in one is no end.
            auth = httpx.BasicAuth(quote(agreed.client_id, safe=""), quote(agreed.client_secret, safe=""))
        else:
            auth = None
            form |= {"client_id": agreed.client_id, "client_secret": agreed.client_secret}
        return await self._json("POST", known.endpoints["token_endpoint"], data=form, auth=auth)

    async def _checked(self, known: _Known, told: Mapping[str, Any], nonce: str) -> Mapping[str, Any]:
        """The claims of an ID token that is the provider's, and meant for this sign-in."""
        text, access_token = told.get("id_token"), told.get("access_token")
        if not isinstance(text, str):
            raise NotVouchedError("no ID token was given")
        try:
            try:
                token = jwt.decode(text, known.keys, algorithms=ALGORITHMS)
            except InvalidKeyIdError:
                token = jwt.decode(text, await self._newer_keys(known), algorithms=ALGORITHMS)
            agreed = self._agreed
            claims = CodeIDToken(
                token.claims,
                token.header,
                options={
                    "iss": {"essential": True, "value": agreed.issuer},
                    "aud": {"essential": True, "value": agreed.client_id},
                    "sub": {"essential": True},
                },
                params={"nonce": nonce, "client_id": agreed.client_id, "access_token": access_token},
            )
            claims.validate(now=int(self._now()), leeway=_LEEWAY_S)
        except JoseError as exc:
            raise NotVouchedError(f"its ID token does not hold: {exc.error}") from exc
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise NotVouchedError("its ID token cannot be read") from exc
        checked: Mapping[str, Any] = claims
        return checked

    async def _newer_keys(self, known: _Known) -> KeySet:
        """The provider's keys as they are now: it may have begun to sign by another."""
        async with self._discovering:
            known = self._known or known
            if self._now() - known.at < _KEYS_APART_S:
                return known.keys
            self._known = newer = _Known(known.endpoints, await self._keys(known.endpoints), self._now())
            return newer.keys

    @cached_property
    def _trusted(self) -> SSLContext:
        """Read once: it takes longer than a page."""
        return httpx.create_ssl_context()

    async def _json(
        self, method: str, url: str, data: Mapping[str, str] | None = None, auth: httpx.Auth | None = None
    ) -> Mapping[str, Any]:
        """An object that the provider tells. NotVouchedError where it refuses."""
        if self._asking.locked():
            raise _BusyError("too many sign in at once")
        verify = self._trusted if url.startswith("https:") else False
        try:
            async with (
                self._asking,
                httpx.AsyncClient(timeout=_TIMEOUT_S, verify=verify) as http,
                http.stream(method, url, data=data, auth=auth, headers={"accept": "application/json"}) as answer,
            ):
                body = bytearray()
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > _MAX_ANSWER_BYTES:
                        raise ProviderAwayError("it answers with more than is taken")
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise ProviderAwayError("it does not answer") from exc
        told = _object_of(body)
        if data is not None and answer.status_code in _REFUSED:
            error = told.get("error") if told is not None else None
            raise NotVouchedError(f"it says {error}" if is_word(error) else "it refuses the code")
        if not answer.is_success or told is None:
            raise ProviderAwayError(f"it answers {answer.status_code}, and not what it should")
        return told


def _object_of(body: bytes | bytearray) -> Mapping[str, Any] | None:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def is_word(text: object) -> bool:
    """Whether it is the code of an error, which can be shown."""
    return isinstance(text, str) and _WORD.fullmatch(text) is not None


def _name_of(claims: Mapping[str, Any]) -> str:
    """By which the log of changes names somebody. No admin token's name has a colon. Of e-mail addresses only one that
    the provider has seen to be theirs: any other may be somebody else's."""
    email, sub = claims.get("email"), claims["sub"]
    if isinstance(email, str) and _EMAIL.fullmatch(email) and claims.get("email_verified") is True:
        told = email
    else:
        # No address has a colon there, so that nobody is called what somebody else's address is.
        told = f"sub:{sub}" if "@" in sub else sub
    if not told.isprintable() or len(told) > _MAX_NAME:
        raise NotVouchedError("its name of the person cannot be written down")
    return f"oidc:{told}"


def _values_of(claims: Mapping[str, Any], claim: str) -> frozenset[str]:
    """The values of a claim: one text or several. ``a.b`` is also the b of an object a, as Keycloak has its roles."""
    found: Any = claims.get(claim)
    if found is None:
        found = claims
        for part in claim.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
    several = found if isinstance(found, list) else [found]
    return frozenset(value for value in several if isinstance(value, str))
