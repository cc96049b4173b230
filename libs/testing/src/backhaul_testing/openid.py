"""An OpenID provider on a real port: it holds clients to the specification, and lies in its ID tokens where asked."""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode

from authlib.oauth2.rfc7636 import create_s256_code_challenge
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from backhaul_testing.endpoints import LOOPBACK, Call, Endpoint, endpoint

CLIENT_ID = "backhaul console"
CLIENT_SECRET = "a secret: of 100%"  # noqa: S105  # with what has to be encoded
Claims = dict[str, Any]


@dataclass
class OpenIdProvider:
    """See ``openid_provider``. ``person`` is who has signed in there: the claims of the ID token beside its own."""

    endpoint: Endpoint
    person: Claims = field(default_factory=lambda: {"sub": "1", "groups": ["operators"]})
    algorithm: str = "RS256"
    lie: Callable[[Claims], Claims] = lambda claims: claims
    """What becomes of the claims before they are signed."""
    forge: Callable[[str, Claims], str] | None = None
    """Makes the ID token of a true one and its claims, instead."""
    basic: bool = True
    """Whether it takes the client's secret as HTTP's password; otherwise in the form."""
    deaf: bool = False
    """Whether it takes connections, and answers none."""
    host: str = LOOPBACK
    """By which it names itself: to a browser ``localhost`` is another site than ``127.0.0.1``."""
    told: Claims = field(default_factory=dict)
    """What its discovery says other than it should."""
    asked: list[str] = field(default_factory=list)
    """The paths that it was asked for."""

    def __post_init__(self) -> None:
        self.rotate()
        self._codes: dict[str, dict[str, str]] = {}

    @property
    def issuer(self) -> str:
        """By which it names itself."""
        return self.endpoint.url("", self.host)

    @property
    def settings(self) -> dict[str, Any]:
        """What a gateway is told of it, and what it lets in."""
        return {
            "gateway_console_oidc_issuer": self.issuer,
            "gateway_console_oidc_client_id": CLIENT_ID,
            "gateway_console_oidc_client_secret": CLIENT_SECRET,
            "gateway_console_oidc_roles": "operators=operator,helpdesk=support,auditors=auditor",
        }

    def rotate(self) -> None:
        """Sign by other keys from now on."""
        kid = secrets.token_hex(4)
        self._keys: dict[str, Any] = {
            "RS256": RSAKey.generate_key(2048, {"kid": f"{kid}-rsa", "use": "sig"}),
            "ES256": ECKey.generate_key("P-256", {"kid": f"{kid}-ec", "use": "sig"}),
        }

    def public_keys(self) -> list[Claims]:
        """Its keys as it publishes them."""
        return [key.as_dict(private=False) for key in self._keys.values()]

    async def answer(self, call: Call) -> None:
        """One request of a browser, or of a client."""
        method, target, _ = call.head.partition("\r\n")[0].split(" ")
        path, _, query = target.partition("?")
        self.asked.append(path)
        if self.deaf:
            await self.endpoint.ended.wait()
        elif path == "/.well-known/openid-configuration":
            await self._say(call, self._discovery())
        elif path == "/keys":
            await self._say(call, {"keys": [*self.public_keys(), {"kty": "unheard-of"}]})
        elif path == "/authorize":
            await self._authorize(call, _first(query))
        elif path == "/link":
            link = f'<!doctype html><link rel=icon href="data:,"><a href="{_first(query)["to"]}">Go</a>'
            await call.answer(link.encode(), more="Content-Type: text/html\r\n")
        elif path == "/token" and method == "POST":
            await self._token(call, _first(call.body.decode()))
        else:
            await call.answer(status=404)

    def _discovery(self) -> Claims:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": self.issuer + "/authorize",
            "token_endpoint": self.issuer + "/token",
            "jwks_uri": self.issuer + "/keys",
            "token_endpoint_auth_methods_supported": ["client_secret_basic" if self.basic else "client_secret_post"],
            **self.told,
        }

    async def _authorize(self, call: Call, asked: dict[str, str]) -> None:
        """Send the browser back: whoever asks is ``person``."""
        assert asked["response_type"] == "code"  # noqa: S101  # it is a test's
        assert asked["code_challenge_method"] == "S256"  # noqa: S101  # likewise
        assert asked["client_id"] == CLIENT_ID  # noqa: S101  # likewise
        self._codes[code := secrets.token_urlsafe(16)] = asked
        back = f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"
        await call.answer(b"", 303, f"Location: {back}\r\n")

    async def _token(self, call: Call, form: dict[str, str]) -> None:
        asked = self._codes.pop(form.get("code", ""), None)
        if not self._is_client(call, form):
            await self._say(call, {"error": "invalid_client"}, 401)
        elif (
            asked is None
            or form.get("redirect_uri") != asked["redirect_uri"]
            or create_s256_code_challenge(form.get("code_verifier", "")) != asked["code_challenge"]
        ):
            await self._say(call, {"error": "invalid_grant", "error_description": "<script>"}, 400)
        else:
            await self._say(call, {"access_token": "x", "token_type": "Bearer", "id_token": self._token_of(asked)})

    def _token_of(self, asked: dict[str, str]) -> str:
        now = int(time.time())
        own = {"iss": self.issuer, "aud": CLIENT_ID, "exp": now + 300, "iat": now, "nonce": asked["nonce"]}
        claims = self.lie({**own, **self.person})
        key = self._keys[self.algorithm]
        token = jwt.encode({"alg": self.algorithm, "kid": key.kid}, claims, key)
        return self.forge(token, claims) if self.forge is not None else token

    def _is_client(self, call: Call, form: dict[str, str]) -> bool:
        if not self.basic:
            return (form.get("client_id"), form.get("client_secret")) == (CLIENT_ID, CLIENT_SECRET)
        shown = base64.b64decode(call.headers.get("authorization", "").removeprefix("Basic ")).decode()
        return tuple(map(unquote, shown.split(":"))) == (CLIENT_ID, CLIENT_SECRET)

    @staticmethod
    async def _say(call: Call, body: Claims, status: int = 200) -> None:
        await call.answer(json.dumps(body).encode(), status, "Content-Type: application/json\r\n")


def _first(query: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}


@asynccontextmanager
async def openid_provider() -> AsyncIterator[OpenIdProvider]:
    """A provider on loopback."""
    made: list[OpenIdProvider] = []

    async def answer(call: Call) -> None:
        await made[0].answer(call)

    async with endpoint(answer) as served:
        made.append(provider := OpenIdProvider(served))
        yield provider
