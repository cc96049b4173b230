"""Who is asking: credentials in headers or in the path, looked up in memory.

A tenant is found from the credential and from nothing else; no payload and no parameter has a say.
"""

from __future__ import annotations

import time
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterable

from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_common.secrets import CredentialKind, matches, parse_credential
from backhaul_common.tenants import Credential, Tenant

from backhaul_gateway.admission.principal import Principal

Headers = Iterable[tuple[bytes, bytes]]

_ASKING = (b"x-api-key", b"authorization")

CREDENTIAL_HEADERS = frozenset({b"authorization", b"x-api-key", b"proxy-authorization", b"cookie"})
"""Headers that are read here, or carry somebody's secrets: never stored, never logged."""

CHALLENGE = 'Basic realm="backhaul", charset="UTF-8"'
_MEMORY = 4096
_MAX_CREDENTIAL = 512

_MESSAGE = "No credential that is valid here was sent."
_FIX = "Send the tenant's API key as X-Api-Key, as Authorization: Bearer, or as Basic (tenant id, key)."


def unauthenticated(message: str = _MESSAGE, fix: str = _FIX, field: str = "Authorization") -> BackhaulError:
    """The same answer for a missing, an unknown and a wrong credential.

    An id that is known is not looked for in the database, so the time tells it from others; ids are random and public,
    and open nothing without the secret.
    """
    return BackhaulError(Code.UNAUTHENTICATED, message, field=field, fix=fix)


def sent_twice(headers: Headers) -> bool:
    """Whether a header that says who is asking is there more than once. Which of them counts would be a guess, and a
    proxy in front may guess otherwise."""
    names = [name for name, _ in headers if name in _ASKING]
    return len(names) > len(set(names))


class CredentialIndex:
    """Every tenant's credentials by their public id; fed by the tenant directory."""

    def __init__(self, is_complete: Callable[[], bool], now: Callable[[], float] = time.time) -> None:
        """``is_complete`` says whether all tenants have been read: before, an unknown credential proves nothing.
        ``now`` is the time in seconds since 1970."""
        self._is_complete = is_complete
        self._now = now
        self._owners: dict[str, tuple[Principal, Credential]] = {}
        self._ids: dict[str, tuple[str, ...]] = {}
        # Header value (or path token) to whose it is, of what was found valid. Hashing a key costs 2 µs, finding it
        # here 0.1. Cleared at any tenant's change, so that a revoked key is refused at once. Comparing for equality of
        # hashes first, dictionaries tell an attacker nothing about how much of a guess was right.
        self._known: dict[tuple[bytes, bytes], Principal] = {}
        self._used: dict[str, str] = {}

    def changed(self, tenant_id: str, tenant: Tenant | None) -> None:
        """A listener of the tenant directory."""
        self._known.clear()
        for credential_id in self._ids.pop(tenant_id, ()):
            owner = self._owners.get(credential_id)
            if owner is not None and owner[0].tenant_id == tenant_id:
                del self._owners[credential_id]
        if tenant is not None:
            self._ids[tenant_id] = tuple(credential.id for credential in tenant.credentials)
            for credential in tenant.credentials:
                self._owners[credential.id] = (Principal.of_credential(tenant_id, credential), credential)

    def refusal(self, message: str = _MESSAGE, fix: str = _FIX, field: str = "Authorization") -> BackhaulError:
        """Why nobody was found: UNAUTHENTICATED, or, while the tenants have not been read, UNAVAILABLE.

        A provider that is told 4xx may drop the callback for good, so no key is called wrong before it can be known.
        """
        return unauthenticated(message, fix, field) if self._is_complete() else unavailable("The tenant directory")

    def token_refusal(self) -> BackhaulError:
        """The same of an ingest token in a path."""
        return self.refusal("The ingest token in the path is not valid.", "Use the tenant's ingest token.", "token")

    def from_headers(self, headers: Headers) -> Principal | None:
        """Whose API key the headers carry, or None; also when one of them is there twice. UNAUTHENTICATED for a key
        that has expired."""
        found = list(headers)
        if sent_twice(found):
            return None
        named = dict(found)
        return self.from_values(named.get(b"x-api-key"), named.get(b"authorization"))

    def from_values(self, api_key: bytes | None, authorization: bytes | None) -> Principal | None:
        """The same, of the two headers' values. ``X-Api-Key`` wins: a proxy may add an Authorization of its own. But
        where that is another tenant's key, two tenants are named, and neither is believed."""
        if api_key is not None:
            principal = self._remembered(b"key", api_key)
            if authorization is not None:
                other = self._remembered(b"auth", authorization)
                if other is not None and (principal is None or other.tenant_id != principal.tenant_id):
                    return None
            return self._unexpired(principal)
        if authorization is not None:
            return self._unexpired(self._remembered(b"auth", authorization))
        return None

    def from_token(self, token: str) -> Principal | None:
        """Whose ingest token this is, or None."""
        return self._unexpired(self._remembered(b"token", token.encode("utf-8", "surrogatepass")))

    def unknown_id(self, token: str | None, api_key: bytes | None, authorization: bytes | None) -> str:
        """The public id of the credential that was sent, when no tenant is known to have it; else empty.

        ``token`` is the path's, if it has one, and the others are headers' values.
        """
        if token is not None:
            kind, text = "ingest", token.encode("utf-8", "surrogatepass")
        else:
            kind, text = "api", _presented(api_key, authorization)
        if len(text) > _MAX_CREDENTIAL:
            return ""
        parsed = parse_credential(text.decode("latin-1"))
        if parsed is None or parsed[0] != kind or parsed[1] in self._owners:
            return ""
        return parsed[1]

    def take_used(self) -> dict[str, str]:
        """The ids of the credentials that opened something since this was last asked, with those of their tenants."""
        used, self._used = self._used, {}
        return used

    def _unexpired(self, principal: Principal | None) -> Principal | None:
        """The same; UNAUTHENTICATED where its credential has expired. Only who has the whole credential is told so."""
        if principal is None:
            return None
        if principal.expires_at is not None and principal.expires_at <= self._now():
            raise unauthenticated("The credential has expired.", "Use another one of the tenant's.")
        self._used[principal.name] = principal.tenant_id
        return principal

    def _remembered(self, where: bytes, value: bytes) -> Principal | None:
        principal = self._known.get((where, value))
        if principal is None:
            principal = self._look_up(where, value)
            if principal is not None:
                if len(self._known) >= _MEMORY:
                    self._known.clear()
                self._known[where, value] = principal
        return principal

    def _look_up(self, where: bytes, value: bytes) -> Principal | None:
        if len(value) > _MAX_CREDENTIAL:
            return None
        if where == b"token":
            return self._owner("ingest", value)
        if where == b"key":
            return self._owner("api", value.strip())
        scheme, _, rest = value.strip().partition(b" ")
        if scheme.lower() == b"bearer":
            return self._owner("api", rest.strip())
        if scheme.lower() == b"basic":
            user, password = parse_basic(rest)
            principal = self._owner("api", password)
            return principal if principal is not None and user == principal.tenant_id.encode() else None
        return None

    def _owner(self, kind: CredentialKind, text: bytes) -> Principal | None:
        parsed = parse_credential(text.decode("latin-1"))
        if parsed is None or parsed[0] != kind:
            return None
        _, credential_id, secret = parsed
        principal, credential = self._owners.get(credential_id, (None, None))
        if credential is None or credential.kind != kind or not matches(secret, credential.digest):
            return None
        return principal


def _presented(api_key: bytes | None, authorization: bytes | None) -> bytes:
    """The text that should be an API key, wherever it stands; empty when there is none."""
    if api_key is not None:
        return api_key.strip()
    scheme, _, rest = (authorization or b"").strip().partition(b" ")
    if scheme.lower() == b"basic":
        return parse_basic(rest)[1]
    return rest.strip() if scheme.lower() == b"bearer" else b""


def parse_basic(encoded: bytes) -> tuple[bytes, bytes]:
    """User and password of a Basic credential; both empty when it is malformed."""
    try:
        user, _, password = b64decode(encoded.strip(), validate=True).partition(b":")
    except (Base64Error, ValueError):
        return b"", b""
    return user, password
