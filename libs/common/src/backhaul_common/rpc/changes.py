"""What service accounts change, in the log of changes: an entry before a call is handled, completed before its end."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from backhaul_common.changelog import MASK, Begun, ChangeStore, Logged, Outcome, bounded, time_of
from backhaul_common.documents import Document
from backhaul_common.ids import new_callback_id
from backhaul_common.logs import get_logger
from backhaul_common.rpc.callers import Caller
from backhaul_common.secrets import parse_credential
from backhaul_common.tenants import Tenant
from backhaul_common.tracing import current_traceparent, trace_id_of

_APART = frozenset({"tenant_id", "idempotency_key", "actor", "author", "last"})
"""Fields that an entry does not keep: it names the tenant itself, and an account acts for nobody else."""

_FILE = "data"
"""The field in which a file comes, in parts."""

_FAILED, _BAD = 500, 400

_MAX_TARGET = 256

_MAX_BODY_BYTES = 256 << 10
"""Of a larger request nothing is kept."""


class CallLog:
    """Makes an entry of every call by which a service account changes something."""

    def __init__(self, store: ChangeStore, tenants: Mapping[str, Tenant], calls: Mapping[str, Logged | None]) -> None:
        """``calls`` leads from the full names of methods (``package.Service.Method``) to what is kept of their
        requests, None where they change nothing; ``tenants`` by id, as they are now and later. ValueError where a
        field of a request is neither shown nor masked."""
        self._store = store
        self._tenants = tenants
        self._calls = {_path(name): logged for name, logged in calls.items()}
        self._log = get_logger(component="changes")
        for name, logged in calls.items():
            if logged is not None:
                asked = descriptor_pool.Default().FindMethodByName(name).input_type
                if undecided := sorted(_undecided(asked, logged)):
                    raise ValueError(f"what the log of changes keeps of {name} is not decided: {', '.join(undecided)}")

    def require_decided(self, methods: Collection[str]) -> None:
        """ValueError where it is not said whether one of ``methods`` (``/package.Service/Method``) changes anything."""
        if unknown := set(methods) - self._calls.keys():
            raise ValueError(f"need a row in the table of what is logged: {', '.join(sorted(unknown))}")

    async def begun(self, method: str, caller: Caller, tenant_id: str, request: Any, peer: str) -> Entry | None:
        """The entry of a call, once it is durable; None where nothing is logged. UNAVAILABLE."""
        logged = self._calls.get(method)
        if logged is None or caller.internal:
            return None
        id_, tenant = new_callback_id(), self._tenants.get(tenant_id)
        begun = Begun(
            id=id_,
            at=time_of(id_),
            author=caller.author,
            client=_address(peer),
            tenant_id=tenant_id,
            registration=tenant.registration if tenant is not None else "",
            own=False,
            action=method.lstrip("/"),
            kind=logged.kind,
            target=_target(request),
            trace_id=trace_id_of(current_traceparent()),
        )
        await self._store.begin(begun)
        return Entry(self, begun, logged, _asked(logged, request))

    async def complete(self, entry: Entry, status: int, answer: Any) -> None:
        """Add what became of it. The change is done by now, and is answered as done; where this fails, the entry says
        that nobody knows."""
        begun = entry.begun
        try:
            # What was refused may hold anything anywhere.
            after, cut = bounded(entry.asked() if status < _BAD or status >= _FAILED else None)
            target = {**begun.target, **(_made(answer) if answer is not None else {})}
            await self._store.complete(begun.id, Outcome(status, target, "", after, cut))
        except Exception as exc:  # noqa: BLE001  # whatever it is, the change was made, and its answer must say so
            self._log.warning("change_not_completed", change=begun.id, action=begun.action, reason=str(exc))


@dataclass(slots=True)
class Entry:
    """The entry of one call."""

    log: CallLog
    begun: Begun
    logged: Logged
    _asked: Document
    _size: int = 0
    _hash: Any = field(default_factory=sha256)

    def took(self, request: Any) -> None:
        """Count a part of a file that came."""
        if self.logged.file:
            piece: bytes = getattr(request, _FILE)
            self._size += len(piece)
            self._hash.update(piece)

    def asked(self) -> Document:
        """What was asked for, masked; of a file how large it was as well, and its hash."""
        file = {"bytes": self._size, "sha256": self._hash.hexdigest()} if self.logged.file else {}
        return {**self._asked, **file}

    async def complete(self, status: int, answer: Any = None) -> None:
        """Add what became of it: a status as HTTP has it, and of one answer what it gave an id."""
        await self.log.complete(self, status, answer)


def _asked(logged: Logged, request: Any) -> Document:
    if logged.file:
        # Its bytes would be made a text first.
        whole, request = request, type(request)()
        request.CopyFrom(whole)
        request.ClearField(_FILE)
    if request.ByteSize() > _MAX_BODY_BYTES:
        # Many thousands of empty messages fit into it, and would be made dictionaries on the event loop.
        return {}
    return logged.asked(MessageToDict(request, preserving_proto_field_name=True))


def _target(request: Any) -> dict[str, str]:
    """The ids that a request names."""
    names = [one.name for one in request.DESCRIPTOR.fields if one.name == "id" or one.name.endswith("_id")]
    found = {name: str(getattr(request, name)) for name in names if name not in _APART}
    # A credential that somebody pasted in the place of an id is none.
    shown = {name: MASK if parse_credential(value) else value for name, value in found.items() if value}
    return {name: value[:_MAX_TARGET] for name, value in shown.items()}


def _made(answer: Message) -> dict[str, str]:
    """The id of what an answer shows."""
    for one, value in answer.ListFields():
        if one.name == "id":
            return {"id": str(value)[:_MAX_TARGET]}
        if isinstance(value, Message) and (made := str(getattr(value, "id", ""))):
            return {"id": made[:_MAX_TARGET]}
    return {}


def _undecided(descriptor: Descriptor, logged: Logged, above: str = "") -> Iterator[str]:
    """Fields of which it is not said what is kept."""
    for one in descriptor.fields:
        path = above + one.name
        if logged.decides(path) or (not above and (one.name in _APART or (logged.file and one.name == _FILE))):
            continue
        if one.message_type is not None and logged.looks_into(path):
            yield from _undecided(one.message_type, logged, f"{path}.")
        else:
            yield path


def _address(peer: str) -> str:
    """The address of ``ipv4:127.0.0.1:50000`` or ``ipv6:[::1]:50000``; another kind of peer has none."""
    kind, _, rest = peer.partition(":")
    return rest.rpartition(":")[0].strip("[]").replace("%5B", "").replace("%5D", "") if kind in ("ipv4", "ipv6") else ""


def _path(full_name: str) -> str:
    service, _, method = full_name.rpartition(".")
    return f"/{service}/{method}"
