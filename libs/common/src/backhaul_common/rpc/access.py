"""Whether a call is let in: who shows which credential, and what that opens.

A call shows ``authorization: Bearer …``: what Backhaul's own services show each other, or the token of a service
account. Where it shows nothing, the names in the client's certificate count, which TLS has verified. What it shows
decides alone: a wrong token is refused, whatever the certificate says.

Everything is looked up in memory. Accounts change there as soon as the directory hears of it, and what a token opened
is forgotten at that moment; streams that it opened end. Expiry goes by this machine's clock, at every call.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from backhaul_common.accounts import ALL_TENANTS, READING, ServiceAccount, ServiceToken, Verb, is_uri
from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_common.revisioned import Directory
from backhaul_common.rpc.callers import Caller
from backhaul_common.secrets import matches, parse_credential

HEADER = "authorization"

_MEMORY = 4096
_MAX_CREDENTIAL = 512

_LOOK_S = 60.0
"""How long an open stream is at most not looked at, where its token expires: the machine's clock may be put forward."""

_FIX = "Send the metadata authorization: Bearer bhs_…, or show a client certificate with a name that a service has."


@dataclass(frozen=True, slots=True)
class Grant:
    """Who calls, and by what they are known: the token, or the name in the certificate. ``expires_at`` is unix time."""

    caller: Caller
    credential: str = ""
    expires_at: float | None = None


class Stay:
    """One stream of a service account, for as long as it is open. ``error`` says why it was ended."""

    def __init__(self, grant: Grant, method: str, task: asyncio.Task[Any]) -> None:
        self.grant = grant
        self.method = method
        self.task = task
        self.tenant = ""
        self.purposes = tuple(grant.caller.purposes)
        self.error: BackhaulError | None = None
        self.timer: asyncio.TimerHandle | None = None

    def forget(self) -> None:
        """It is not to be looked at again."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Access:
    """Who may call a server's methods, by their credentials."""

    def __init__(
        self,
        internal_tokens: Sequence[str],
        accounts: Directory[ServiceAccount] | None = None,
        verbs: Mapping[str, Verb] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``verbs`` says what each method needs, by its full name (``package.Service.Method``); one that is not there
        is for Backhaul's own services alone. ValueError without ``internal_tokens``. ``now`` tells unix time."""
        if not internal_tokens:
            raise ValueError(
                "without an internal token nobody knows Backhaul's own services: set BACKHAUL_INTERNAL_TOKEN"
            )
        self._internal = [token.encode() for token in internal_tokens]
        self._accounts = accounts
        self._verbs = {_path(name): verb for name, verb in (verbs or {}).items()}
        self._clock = clock
        self._now = now
        self._own = Caller()
        self._callers: dict[str, Caller] = {}
        self._tokens: dict[str, tuple[Caller, ServiceToken]] = {}
        self._named: dict[str, set[str]] = {}
        self._stays: dict[str, set[Stay]] = {}
        # What was found valid, by the whole header. Hashing a token costs 2 µs, finding it here 0.1. Cleared at any
        # change of an account. Comparing for equality of hashes first, dictionaries tell an attacker nothing about how
        # much of a guess was right.
        self._known: dict[str, Grant] = {}
        if accounts is not None:
            accounts.listen(self._changed)

    def require_served(self, methods: Collection[str]) -> None:
        """ValueError where a verb belongs to a method that is none of ``methods`` (``/package.Service/Method``)."""
        if unknown := self._verbs.keys() - methods:
            raise ValueError(f"need a verb, and are not served: {', '.join(sorted(unknown))}")

    @property
    def changing(self) -> Collection[str]:
        """Methods with a verb by which something may be changed, as ``/package.Service/Method``."""
        return [method for method, verb in self._verbs.items() if verb not in READING]

    def admit(self, method: str, metadata: Iterable[tuple[str, str | bytes]], context: Any) -> Grant:
        """Who makes the call of ``method`` (``/package.Service/Method``), if they may.

        UNAUTHENTICATED; FORBIDDEN; RATE_LIMITED; UNAVAILABLE while the accounts have not been read.
        """
        grant = self._who(metadata, context)
        caller = grant.caller
        if caller.account is not None:
            self._require_verb(caller, method)
            if self._verbs[method] == "check":
                caller.take_check()
            else:
                caller.take_request()
        return grant

    def require_tenant(self, grant: Grant, tenant_id: str) -> None:
        """FORBIDDEN where the caller may not call for the tenant, and always in the same words: whether there is such a
        tenant is not the caller's to know. Calls that name none are about all."""
        account = grant.caller.account
        if account is not None and not account.serves(tenant_id or ALL_TENANTS):
            raise BackhaulError(
                Code.FORBIDDEN,
                f"{grant.caller} may not call for this tenant.",
                field="tenant_id",
                fix="Name a tenant of the service, or have the platform team add this one to its tenants.",
            )

    @contextmanager
    def staying(self, grant: Grant, method: str, task: asyncio.Task[Any]) -> Iterator[Stay]:
        """A stream of ``task``, which is cancelled as soon as a call like it would be refused; ``error`` says why."""
        stay = Stay(grant, method, task)
        account = grant.caller.account
        if account is None:
            yield stay
            return
        grant.caller.begin_stream()
        stays = self._stays.setdefault(account.id, set())
        stays.add(stay)
        try:
            self._look_at(stay)
            yield stay
        finally:
            stay.forget()
            grant.caller.streams -= 1
            stays.discard(stay)
            if not stays and self._stays.get(account.id) is stays:
                del self._stays[account.id]

    def _who(self, metadata: Iterable[tuple[str, str | bytes]], context: Any) -> Grant:
        shown = [value for key, value in metadata if key == HEADER]
        if not shown:
            return self._by_certificate(context)
        if len(shown) > 1:
            # Which of them counts would be a guess, and whatever stands between may guess otherwise.
            raise _unauthenticated("The call shows two credentials.", "Send one authorization.")
        header = shown[0] if isinstance(shown[0], str) else shown[0].decode("latin-1")
        grant = self._known.get(header)
        if grant is None:
            grant = self._by_header(header)
            if len(self._known) >= _MEMORY:
                self._known.clear()
            self._known[header] = grant
        self._require_valid(grant)
        return grant

    def _by_header(self, header: str) -> Grant:
        scheme, _, rest = header.strip().partition(" ")
        token = rest.strip()
        if scheme.lower() != "bearer" or not token or len(token) > _MAX_CREDENTIAL:
            raise self._unknown("authorization is no bearer token of this system.")
        presented = token.encode("utf-8", "surrogatepass")
        # All are compared, so that the time tells nothing.
        same = [hmac.compare_digest(presented, own) for own in self._internal]
        if True in same:
            return Grant(self._own)
        parsed = parse_credential(token)
        caller, known = self._tokens.get(parsed[1], (None, None)) if parsed and parsed[0] == "service" else (None, None)
        if parsed is None or caller is None or known is None or not matches(parsed[2], known.digest):
            raise self._unknown("The token is not valid here.")
        return _of_token(caller, known)

    def _by_certificate(self, context: Any) -> Grant:
        if not self._named:
            raise self._unknown("The call shows no credential.")
        peer: Mapping[str, Iterable[bytes]] = context.auth_context()
        names = [name for name in map(_text, peer.get("peer_dns", ())) if not is_uri(name)]
        names = [name.lower() for name in names] + [
            name for name in map(_text, peer.get("peer_uri", ())) if is_uri(name)
        ]
        found = {(service_id, name) for name in names for service_id in self._named.get(name, ())}
        services = {service_id for service_id, _ in found}
        if not services:
            raise self._unknown("The call shows no token, and its client certificate has no name of a service.")
        if len(services) > 1:
            raise _unauthenticated("The client certificate has names of several services.", "Send a token as well.")
        service_id, name = min(found)
        grant = Grant(self._callers[service_id], f"certificate {name}")
        self._require_valid(grant)
        return grant

    def _unknown(self, message: str) -> BackhaulError:
        """UNAUTHENTICATED, or, while the accounts have not been read, UNAVAILABLE: no token is called wrong before it
        can be known."""
        if self._accounts is None:
            return _unauthenticated(message, "Only Backhaul's own services may call this one.")
        if not self._accounts.synced:
            return unavailable("The directory of services", retry_after_s=1)
        return _unauthenticated(message)

    def _require_valid(self, grant: Grant) -> None:
        account = grant.caller.account
        if account is None:
            return
        if grant.expires_at is not None and grant.expires_at <= self._now():
            raise _unauthenticated(f"The {grant.credential} has expired.", "Have the platform team issue another one.")
        if account.disabled:
            raise BackhaulError(
                Code.FORBIDDEN, f"{grant.caller} is disabled.", field=HEADER, fix="Have the platform team enable it."
            )

    def _require_verb(self, caller: Caller, method: str) -> None:
        verb = self._verbs.get(method)
        if verb is None:
            raise BackhaulError(
                Code.FORBIDDEN,
                "Only Backhaul's own services may call this method.",
                fix="Look for the method in the description of what services may call.",
            )
        if caller.account is not None and verb not in caller.account.verbs:
            raise BackhaulError(
                Code.FORBIDDEN,
                f"{caller} lacks the verb {verb!r}.",
                field=HEADER,
                fix=f"Have the platform team add {verb!r} to its verbs.",
            )

    def _changed(self, service_id: str, account: ServiceAccount | None) -> None:
        """A listener of the directory."""
        self._known.clear()
        before = self._callers.pop(service_id, None)
        if before is not None and before.account is not None:
            for token in before.account.tokens:
                if self._tokens.get(token.id, (None,))[0] is before:
                    del self._tokens[token.id]
            for name in before.account.certificates:
                if services := self._named.get(name):
                    services.discard(service_id)
                    if not services:
                        del self._named[name]
        if account is not None:
            if before is None or before.account is None or before.account.registration != account.registration:
                caller = Caller(account, self._clock)
            else:
                caller = before
                caller.become(account)
            self._callers[service_id] = caller
            for token in account.tokens:
                self._tokens[token.id] = (caller, token)
            for name in account.certificates:
                self._named.setdefault(name, set()).add(service_id)
        for stay in tuple(self._stays.get(service_id, ())):
            self._look_at(stay)

    def _look_at(self, stay: Stay) -> None:
        """End a stream that would not be let in now; else look again when its token expires."""
        stay.forget()
        if stay.error is not None:
            return
        try:
            self._require_still_valid(stay)
        except BackhaulError as exc:
            stay.error = exc
            stay.task.cancel()
            return
        if stay.grant.expires_at is not None:
            left_s = min(max(stay.grant.expires_at - self._now(), 0.001), _LOOK_S)
            stay.timer = asyncio.get_running_loop().call_later(left_s, self._look_at, stay)

    def _require_still_valid(self, stay: Stay) -> None:
        caller = stay.grant.caller
        account = caller.account
        if account is None or self._callers.get(account.id) is not caller:
            raise _unauthenticated("The service is gone.")
        kind, _, shown = stay.grant.credential.partition(" ")
        token = next((token for token in account.tokens if token.id == shown), None) if kind == "token" else None
        if token is not None:
            stay.grant = _of_token(caller, token)
        elif kind == "token" or shown not in account.certificates:
            raise _unauthenticated(f"The {stay.grant.credential} is not valid any more.")
        self._require_valid(stay.grant)
        self._require_verb(caller, stay.method)
        if stay.tenant:
            self.require_tenant(stay.grant, stay.tenant)
        if stay.purposes != account.purposes:
            # What the stream tells may have been chosen by them when it began.
            raise BackhaulError(
                Code.UNAVAILABLE,
                "What the service may ask for has changed.",
                fix="Begin the stream again.",
                retry_after_s=1,
            )


def _of_token(caller: Caller, token: ServiceToken) -> Grant:
    return Grant(caller, f"token {token.id}", token.expires_at.timestamp() if token.expires_at is not None else None)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _path(full_name: str) -> str:
    service, _, method = full_name.rpartition(".")
    return f"/{service}/{method}"


def _unauthenticated(message: str, fix: str = _FIX) -> BackhaulError:
    return BackhaulError(Code.UNAUTHENTICATED, message, field=HEADER, fix=fix)
