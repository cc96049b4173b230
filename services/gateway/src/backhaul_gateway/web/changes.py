"""The log of changes, as requests pass it: an entry is begun before a change, and completed before its answer.

What a route logs says ``LOGGED``. ``ChangeLog`` stands between ``Guard`` and the routes; ``begun`` is called by what
admits a request to them, so that what is over a tenant's rate writes nothing. docs/decisions/0042 tells why.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Protocol

import orjson
from backhaul_common.changelog import MASK, Begun, ChangeStore, Outcome, bounded, time_of
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.ids import new_callback_id
from backhaul_common.logs import get_logger
from backhaul_common.tenants import Tenant
from backhaul_common.tracing import trace_id_of
from fastapi import Request
from starlette.types import Message, Receive, Scope, Send

from backhaul_gateway.admission.entries import NOTED, Noted, Sides
from backhaul_gateway.admission.logged import Logged
from backhaul_gateway.admission.principal import PRINCIPAL, Principal
from backhaul_gateway.web.clients import ClientAddress
from backhaul_gateway.web.masking import masked
from backhaul_gateway.web.problems import TRACEPARENT

MAX_TARGET = 256
"""Characters of each part of the path that an entry keeps."""

_MAX_BODY_BYTES = 256 << 10
_MAX_ANSWER_BYTES = 256 << 10
_FORBIDDEN, _BAD, _FAILED = 403, 400, 500
_REFUSALS_APART_S = 60.0
_MAX_REFUSALS = 1024
CHANGE = "backhaul.change"
"""Where the scope of a request to a route that is logged has its ``Change``."""


class Shown(Protocol):
    """What an entry shows of a request, or of a part of what it changes."""

    logged: Logged
    noted: Noted

    @property
    def target(self) -> Mapping[str, Any]:
        """Which one is changed: the parts of a path."""
        ...

    @property
    def before(self) -> Document | None:
        """What was before of what the gateway does not store itself, where it is known."""
        ...

    def asked(self) -> Document | None:
        """What was asked for, masked; None where there is nothing."""
        ...


class ChangeLog:
    """Makes an entry of every request to a route that is logged."""

    def __init__(
        self,
        store: ChangeStore,
        clients: ClientAddress,
        sides: Mapping[str, Sides],
        tenants: Mapping[str, Tenant],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``sides`` by kind, of those that are ``stored``; ``tenants`` by id, as they are now and later."""
        self.store = store
        self._clients = clients
        self._sides = sides
        self._tenants = tenants
        self._clock = clock
        self._refusals: dict[tuple[str, str], float] = {}
        self._log = get_logger(component="changes")

    async def around(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        logged: Logged,
        action: str,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Let ``app`` admit and answer a request, and log it."""
        change = scope[CHANGE] = Change(self, logged, action, scope, receive, send)
        token = NOTED.set(change.noted)
        try:
            await app(scope, change.receive, change.send)
        except BackhaulError as exc:
            # Of the guard: what a route raises is answered before it comes here.
            if exc.code is Code.FORBIDDEN:
                await self.refused(change)
            raise
        except Exception:
            await change.complete(_FAILED)
            raise
        finally:
            NOTED.reset(token)

    def begun(self, change: Change, shown: Shown, application: str = "") -> Begun:
        """What is known now of what is ``shown`` of ``change``: all of it, or a part of an ``application``."""
        scope, id_ = change.scope, new_callback_id()
        principal: Principal = scope[PRINCIPAL]
        tenant_id = principal.tenant_id or shown.target.get("tenant_id", "")
        tenant = self._tenants.get(tenant_id)
        return Begun(
            id=id_,
            at=time_of(id_),
            author=principal.author,
            client=self._clients.of(scope, scope["headers"]),
            # One that was registered by another gateway may not be known here yet.
            tenant_id=masked(str(tenant_id))[:MAX_TARGET],
            registration=tenant.registration if tenant is not None else "",
            own=principal.kind == "key",
            action=change.action,
            kind=shown.logged.kind,
            target=_target(shown.logged, shown.target),
            trace_id=trace_id_of(scope.get(TRACEPARENT, "")),
            application=application,
        )

    async def refused(self, change: Change) -> None:
        """Log that somebody may not: once a minute for each author and action, since nothing else bounds it. That it
        could not be logged changes nothing about the refusal."""
        begun = self.begun(change, change)
        now, who = self._clock(), (begun.author, begun.action)
        if now - self._refusals.get(who, -_REFUSALS_APART_S) < _REFUSALS_APART_S:
            return
        if len(self._refusals) >= _MAX_REFUSALS:
            self._refusals.clear()
        self._refusals[who] = now
        try:
            await self.store.begin(begun, Outcome(_FORBIDDEN, begun.target, "", "", cut=False))
        except BackhaulError as exc:
            self._log.warning("refusal_not_logged", author=begun.author, action=begun.action, reason=str(exc))

    async def complete(self, shown: Shown, begun: Begun, status: int, answer: bytes = b"") -> None:
        """Add what became of it. The change is done by now, and is answered as done; where this fails, the entry says
        that nobody knows."""
        try:
            (before, cut), (after, cut_too) = map(bounded, self._sides_of(shown, status))
            made = _made(begun.target, answer) if status < _BAD else {}
            about = shown.noted.after or shown.noted.before if shown.logged.stored == "tenant" else None
            tenant = (about.id, about.registration) if about is not None else None
            target = {**begun.target, **_target(shown.logged, shown.target), **made}
            await self.store.complete(begun.id, Outcome(status, target, before, after, cut or cut_too, tenant))
        except Exception as exc:  # noqa: BLE001  # whatever it is, the change was made, and its answer must say so
            self._log.warning("change_not_completed", change=begun.id, action=begun.action, reason=str(exc))

    def _sides_of(self, shown: Shown, status: int) -> tuple[Document | None, Document | None]:
        """What was before, and what is after, as far as it is known here."""
        if shown.logged.stored:
            noted = shown.noted
            before, after = (noted.before, noted.after) if noted.wrote else (noted.seen, noted.seen)
            if status >= _BAD and not noted.wrote:
                return None, None
            was, is_ = self._sides[shown.logged.kind](before, after, shown.target)
            # That a secret was replaced shows in nothing else.
            return was, {**is_, **(shown.asked() or {})} if is_ is not None else None
        # What was refused may hold anything anywhere, since nobody has read it.
        return shown.before, shown.asked() if status < _BAD or status >= _FAILED else None


@dataclass(slots=True)
class Change:
    """One request to a route that is logged."""

    log: ChangeLog
    logged: Logged
    action: str
    scope: Scope
    _receive: Receive
    _send: Send
    noted: Noted = field(init=False)
    _begun: Begun | None = None
    _body: bytearray = field(default_factory=bytearray)
    _size: int = 0
    _hash: Any = field(default_factory=sha256)
    _start: Message | None = None
    _status: int = 0
    _completed: bool = False

    def __post_init__(self) -> None:
        self.noted = Noted(self.logged.stored)

    @property
    def target(self) -> Mapping[str, Any]:
        """See ``Shown``."""
        parts: Mapping[str, Any] = self.scope["path_params"]
        return parts

    @property
    def before(self) -> None:
        """See ``Shown``."""

    @property
    def id(self) -> str:
        """The id of its entry, once that is begun."""
        return self._begun.id if self._begun is not None else ""

    async def begin(self) -> None:
        """Return when the entry is durable; UNAVAILABLE, and nothing is done."""
        begun = self.log.begun(self, self)
        await self.log.store.begin(begun)
        self._begun = begun

    async def receive(self) -> Message:
        """The next part of the body, of which is kept what the entry needs."""
        message = await self._receive()
        piece: bytes = message.get("body", b"")
        if self.logged.file:
            self._size += len(piece)
            self._hash.update(piece)
        elif self.logged.has_body and len(self._body) <= _MAX_BODY_BYTES:
            self._body += piece
        return message

    async def send(self, message: Message) -> None:
        """Pass the answer on, once the entry says what it is. One that comes in parts passes as it comes."""
        if message["type"] == "http.response.start":
            self._start, self._status = message, message["status"]
            if self._status < _BAD and self._begun is None:
                raise RuntimeError(f"{self.action} has changed something, and nothing has begun its entry")
            return
        start, self._start = self._start, None
        if not message.get("more_body", False):
            await self._answered(message.get("body", b"") if start is not None else b"")
        if start is not None:
            await self._send(start)
        await self._send(message)

    async def _answered(self, answer: bytes) -> None:
        if self._begun is not None:
            await self.complete(self._status, answer)
        elif self._status == _FORBIDDEN:
            await self.log.refused(self)

    async def complete(self, status: int, answer: bytes = b"") -> None:
        """Add to the entry what became of it, once."""
        if self._begun is not None and not self._completed:
            self._completed = True
            await self.log.complete(self, self._begun, status, answer)

    def asked(self) -> Document | None:
        """The request's body, masked; of a file how large it was, and its hash. None where there is nothing."""
        if self.logged.file:
            return {"bytes": self._size, "sha256": self._hash.hexdigest()}
        if not self._body or len(self._body) > _MAX_BODY_BYTES:
            return None
        try:
            body = orjson.loads(self._body)
        except orjson.JSONDecodeError:
            return None
        return self.logged.asked(body) if isinstance(body, dict) else None


async def begun(request: Request) -> None:
    """Begin the entry of a request that was admitted to a route that is logged. UNAVAILABLE; what is not logged
    passes."""
    change: Change | None = request.scope.get(CHANGE)
    if change is not None:
        await change.begin()


def _target(logged: Logged, parts: Mapping[str, Any]) -> dict[str, str]:
    # An address that somebody pasted in the place of an id may hold a credential.
    return {name: MASK if name in logged.hides else masked(str(value))[:MAX_TARGET] for name, value in parts.items()}


def _made(target: Mapping[str, str], answer: bytes) -> dict[str, str]:
    """The id that an answer gives to what was made."""
    if not answer or len(answer) > _MAX_ANSWER_BYTES:
        return {}
    try:
        body = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return {}
    made = body.get("id") if isinstance(body, dict) else None
    return {"id": made[:MAX_TARGET]} if isinstance(made, str) and made not in target.values() else {}
