"""Who is signed in. A session's credentials can be read by whoever has its cookie, and by nobody else.

The cookie holds a random token. The store has the session under the token's hash, sealed by a key that is derived from
the token, and once more by the installation's: who reads the store learns neither a credential nor a cookie, who
writes to it makes no session, and each copy of the gateway can serve each visitor.

A session ends when nobody has used it for ``IDLE_S``, ``LASTS_S`` after the sign-in, or when it is revoked.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

LASTS_S = 8 * 3600
IDLE_S = 30 * 60
RENEWED_S = 5 * 60
"""How old a cookie gets: the next page gives another one."""
GRACE_S = 60
"""How long the cookie before is still good for what is under way."""
MAX_TENANTS = 20
"""In one session."""

_NONCE = 12
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
"""As ``secrets`` makes them of 32 bytes: for no other text is the store asked."""


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody of the platform team whom an OpenID provider has vouched for. ``role`` is that of an admin token."""

    name: str
    role: str


class Admin(msgspec.Struct, frozen=True, kw_only=True):
    """The platform team's side of a session: by an admin ``token``, or as a ``person``."""

    name: str
    role: str
    token: str = ""
    person: Person | None = None


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's side of a session. ``temporary``: the key was made by the console, for this session alone."""

    id: str
    key: str
    key_id: str
    scopes: tuple[str, ...]
    temporary: bool = False


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """What a session opens. ``began_at`` is in seconds since 1970."""

    began_at: float
    admin: Admin | None = None
    tenants: dict[str, Tenant] = {}


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A session as the store has it. ``owner`` tells sessions of one credential, so that all can be ended."""

    id: str
    sealed: bytes
    owner: str
    made_at: float
    expires_at: float


class SessionStore(Protocol):
    """Where sessions lie. It forgets by itself what has expired. Each method raises ``StoreAwayError``."""

    async def get(self, session_id: str) -> Stored | None:
        """The session, expired or not; None where there is none."""
        ...

    async def put(self, session: Stored) -> None:
        """Keep a new one."""
        ...

    async def leave(self, session_id: str, until: float) -> bool:
        """Have it end at ``until``, since another one takes its place; False where that is so already, or it is
        gone. Of several who ask at once one is told True."""
        ...

    async def take(self, session_id: str) -> bool:
        """Forget it; False where it was left before, or is gone. As above."""
        ...

    async def delete(self, session_id: str) -> None:
        """Forget it, if it is there."""
        ...

    async def delete_all_of(self, owner: str) -> None:
        """Forget each session of an owner."""
        ...


class Seal(Protocol):
    """What can be opened by each copy of the gateway, and made or read by nobody else."""

    def encrypt(self, plain: str) -> str:
        """A text of ASCII that ``decrypt`` opens."""
        ...

    def decrypt(self, token: str) -> str:
        """ValueError for what was not sealed by it."""
        ...


class StoreAwayError(Exception):
    """The store does not answer, or is not asked: who is signed in is not known now."""


class SessionMovedError(Exception):
    """Something else has changed the session meanwhile, or has ended it: nothing was changed."""


@dataclass(frozen=True)
class Session:
    """Somebody who is signed in. ``token`` is what the cookie holds; ``renewed`` where it is not yet what it holds."""

    token: str
    access: Access
    owner: str
    made_at: float
    renewed: bool = False

    @property
    def id(self) -> str:
        """By which the store has it."""
        return _id_of(self.token)

    @property
    def form_token(self) -> str:
        """What each form of this session carries: another site cannot know it. It stays when the cookie is renewed."""
        return hmac.new(self.owner.encode(), b"form", hashlib.sha256).hexdigest()

    def seal(self, data: bytes) -> str:
        """``data`` as a text which a form may carry from a page that asks to the one that does: what comes back is what
        was looked at, and no page holds it in the clear."""
        nonce = secrets.token_bytes(_NONCE)
        return base64.urlsafe_b64encode(nonce + self._carrier.encrypt(nonce, data, None)).decode()

    def unseal(self, text: str) -> bytes | None:
        """What ``seal`` was given in this session; None for any other text."""
        try:
            sealed = base64.urlsafe_b64decode(text)
            return self._carrier.decrypt(sealed[:_NONCE], sealed[_NONCE:], None)
        except (InvalidTag, ValueError):
            return None

    @property
    def _carrier(self) -> AESGCM:
        # The owner stands on no page, and stays when the cookie is renewed.
        return AESGCM(hashlib.sha256(b"carry:" + self.owner.encode()).digest())

    def carries(self, form_token: str) -> bool:
        """Whether a form is one of this session's."""
        return hmac.compare_digest(self.form_token.encode(), form_token.encode())


class Sessions:
    """Begins, finds, renews and ends sessions."""

    def __init__(
        self,
        store: SessionStore,
        seal: Seal,
        admits: Callable[[Admin], bool],
        now: Callable[[], float] = time.time,
    ) -> None:
        """``admits``: whether the platform team can sign in so now. What began otherwise opens nothing of theirs."""
        self._store = store
        self._seal = seal
        self._admits = admits
        self._now = now

    async def begin(self, access: Access) -> Session:
        """Somebody has signed in. Each sign-in is an owner of its own; a session that is changed keeps its owner."""
        return await self._put(access, secrets.token_hex(16))

    async def find(self, token: str) -> Session | None:
        """The session of a cookie, with another token where its own has become old; None where there is none."""
        if not _TOKEN.fullmatch(token):
            return None
        stored, now = await self._store.get(_id_of(token)), self._now()
        if stored is None or stored.expires_at <= now:
            return None
        access = self._opened(stored.sealed, token)
        if access is None or access.began_at + LASTS_S <= now:
            return None
        if access.admin is not None and not self._admits(access.admin):
            access = with_admin(access, None)
        session = Session(token, access, stored.owner, stored.made_at)
        if stored.made_at + RENEWED_S > now or stored.expires_at - now <= GRACE_S:
            return session
        return await self._renewed(session)

    async def change(self, session: Session, access: Access) -> Session:
        """The session with more or less that it opens, under another token; the one before opens nothing any more.
        Raises ``SessionMovedError``."""
        changed = await self._put(access, session.owner)
        if await self._store.take(session.id):
            return changed
        await self._store.delete(changed.id)
        raise SessionMovedError

    async def lives(self, session: Session) -> bool:
        """Whether it was not ended meanwhile."""
        stored = await self._store.get(session.id)
        return stored is not None and stored.expires_at > self._now()

    async def end(self, session: Session) -> None:
        """Sign out, wherever its cookies are."""
        await self._store.delete_all_of(session.owner)

    async def _renewed(self, session: Session) -> Session | None:
        # Of all that come at once with an old cookie, one gets another.
        if not await self._store.leave(session.id, self._now() + GRACE_S):
            return session
        renewed = await self._put(session.access, session.owner)
        if await self._store.get(session.id) is not None:
            return renewed
        # Somebody has signed out since, when this one was not there yet.
        await self._store.delete(renewed.id)
        return None

    async def _put(self, access: Access, owner: str) -> Session:
        token, now = secrets.token_urlsafe(32), self._now()
        expires_at = min(now + IDLE_S, access.began_at + LASTS_S)
        sealed = self._sealed(access, token)
        stored = Stored(id=_id_of(token), sealed=sealed, owner=owner, made_at=now, expires_at=expires_at)
        await self._store.put(stored)
        return Session(token, access, owner, now, renewed=True)

    def _sealed(self, access: Access, token: str) -> bytes:
        nonce = secrets.token_bytes(_NONCE)
        by_token = nonce + _key_of(token).encrypt(nonce, msgspec.json.encode(access), None)
        return self._seal.encrypt(base64.b64encode(by_token).decode()).encode()

    def _opened(self, sealed: bytes, token: str) -> Access | None:
        """None for what was sealed by another token, or not by this installation, or is of another version."""
        try:
            by_token = base64.b64decode(self._seal.decrypt(sealed.decode("ascii")))
            return msgspec.json.decode(_key_of(token).decrypt(by_token[:_NONCE], by_token[_NONCE:], None), type=Access)
        except (InvalidTag, ValueError, msgspec.MsgspecError):
            return None


def with_admin(access: Access, admin: Admin | None) -> Access:
    """What a session opens with that side of the platform team. Tenants that another one has opened are closed."""
    tenants = access.tenants
    if admin != access.admin:
        tenants = {id_: tenant for id_, tenant in tenants.items() if not tenant.temporary}
    return Access(began_at=access.began_at, admin=admin, tenants=tenants)


def without(access: Access, tenant_id: str) -> Access:
    """What a session opens with one tenant less."""
    tenants = {id_: tenant for id_, tenant in access.tenants.items() if id_ != tenant_id}
    return Access(began_at=access.began_at, admin=access.admin, tenants=tenants)


def left_over(before: Access, after: Access | None) -> list[Tenant]:
    """The tenants whose keys were made for a session, and which it does not open by them any more."""
    kept = {tenant.key_id for tenant in after.tenants.values()} if after is not None else set()
    return [tenant for tenant in before.tenants.values() if tenant.temporary and tenant.key_id not in kept]


def _id_of(token: str) -> str:
    return hashlib.sha256(b"id:" + token.encode()).hexdigest()


def _key_of(token: str) -> AESGCM:
    # The token is 32 random bytes, so that a hash is all the derivation that it needs.
    return AESGCM(hashlib.sha256(b"seal:" + token.encode()).digest())
