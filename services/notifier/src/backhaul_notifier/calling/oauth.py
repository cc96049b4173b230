"""Tokens by client credentials (RFC 6749, 4.4), fetched through the door and used until they expire."""

from __future__ import annotations

import re
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote_plus, urlencode

import msgspec
from backhaul_proto.notifier.v1 import notifier_pb2 as pb

from backhaul_notifier.calling.once import Kept, Once
from backhaul_notifier.door.client import Door
from backhaul_notifier.door.outcome import Outcome, Request, Tls

MAX_ANSWER_BYTES: Final = 32_768
"""Of a token's server. Tokens that name all of somebody's groups have some thousands."""

TIMEOUT_S: Final = 10.0
"""For one request for a token."""

MAX_TOKENS: Final = 10_000

_UNSAID_S: Final = 300.0
"""For how long a token is used whose server does not say."""
_LONGEST_S: Final = 86_400.0
_EARLY_S, _EARLY_PART = 30.0, 0.1
"""A token is given up by so much before it expires: it has to arrive while it is good."""
_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")
_ERROR = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]{1,100}")
_BASIC, _BODY = True, False


class TokenError(Exception):
    """There is no token. ``error`` is the outcome's word; the message is for people, and has nothing that is secret."""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(message)
        self.error = error


@dataclass(frozen=True, slots=True)
class Client:
    """Whom a token is for."""

    registration: str
    token_url: str
    client_id: str
    client_secret: str = field(repr=False)
    scope: str = ""
    audience: str = ""
    tls: Tls | None = None

    @classmethod
    def of(cls, registration: str, told: pb.OAuthCredentials, tls: Tls | None) -> Client:
        """That of a subscription of this tenant."""
        return cls(registration, told.token_url, told.client_id, told.client_secret, told.scope, told.audience, tls)


class Tokens:
    """Tokens of all clients. Each is fetched by one call for all that want it."""

    def __init__(self, door: Door, clock: Callable[[], float] = time.monotonic) -> None:
        self._door = door
        self._kept: Once[Client, str] = Once(MAX_TOKENS, clock)
        self._ways: dict[Client, bool] = {}

    async def get(self, client: Client) -> Kept[str]:
        """The token. TokenError."""
        return await self._kept.get(client, lambda: self._fetched(client))

    def refused(self, client: Client, token: str) -> None:
        """An endpoint does not take ``token``: it is not used again."""
        self._kept.forget(client, token)

    async def close(self) -> None:
        """No token is fetched any more."""
        await self._kept.close()

    async def _fetched(self, client: Client) -> tuple[str, float]:
        way = self._ways.get(client, _BASIC)
        outcome = await self._ask(client, basic=way)
        if outcome.failure is None and outcome.status in (400, 401):
            # Every server should take Basic; some take the secret in the body only, and say no more than this.
            other = await self._ask(client, basic=not way)
            if other.status == 200:
                if len(self._ways) >= MAX_TOKENS:
                    self._ways.clear()
                self._ways[client], outcome = not way, other
        return _token(outcome)

    async def _ask(self, client: Client, *, basic: bool) -> Outcome:
        form = {"grant_type": "client_credentials", "scope": client.scope, "audience": client.audience}
        headers = {
            "content-type": "application/x-www-form-urlencoded",
            "accept": "application/json",
            "user-agent": "Backhaul",
        }
        if basic:
            shown = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret)}"
            headers["authorization"] = f"Basic {b64encode(shown.encode()).decode('ascii')}"
        else:
            form |= {"client_id": client.client_id, "client_secret": client.client_secret}
        body = urlencode({name: value for name, value in form.items() if value}).encode("ascii")
        of = client.registration
        return await self._door.send(
            Request("POST", client.token_url, headers, body, TIMEOUT_S, client.tls, MAX_ANSWER_BYTES, of)
        )


def _token(outcome: Outcome) -> tuple[str, float]:
    """The token that a server answered, and for how many seconds it is used."""
    if outcome.failure is not None:
        # What is ours stays ours; all else is said to be of the token's server, not of the endpoint.
        word = outcome.failure if not outcome.failure.endpoints else f"token_{outcome.failure}"
        raise TokenError(word, f"No token could be fetched: {outcome.sentence}")
    if outcome.status != 200:
        said = _said(outcome)
        raise TokenError("token_refused", f"No token could be fetched: its server answered {outcome.status}{said}.")
    found = _object(outcome.answer)
    token, kind = found.get("access_token"), found.get("token_type", "Bearer")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise TokenError("token_invalid", "The token's server answered 200, and nothing that holds an access_token.")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise TokenError("token_invalid", "The token's server gave a token that is no bearer token.")
    return token, _good_s(found.get("expires_in"))


def _good_s(said: Any) -> float:
    try:
        seconds = float(said) if said is not None and not isinstance(said, bool) else _UNSAID_S
    except (TypeError, ValueError):
        seconds = _UNSAID_S
    if not seconds > 0:  # What is no number at all is not, either.
        return 0.0
    seconds = min(seconds, _LONGEST_S)
    return seconds - min(_EARLY_S, seconds * _EARLY_PART)


def _said(outcome: Outcome) -> str:
    error = _object(outcome.answer).get("error")
    return f" ({error})" if isinstance(error, str) and _ERROR.fullmatch(error) else ""


def _object(text: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, UnicodeEncodeError):
        return {}
    return found if isinstance(found, dict) else {}
