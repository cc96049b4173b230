"""Documents with revisions, held in memory and never older than they must be: what all directories have in common.

One service writes a collection; everybody reads it through a ``Directory``, which holds all of it. A change message on
NATS refreshes one document at once. Now and then all are looked at, and what changed is read: that heals a message that
was missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from pydantic import ValidationError

from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, unavailable
from backhaul_common.lifecycle import keep_running, until_done
from backhaul_common.logs import get_logger
from backhaul_common.mongo import Collection, operation

_HEADS, _DOCUMENTS = 500, 100
"""Documents that are looked at, and that are read, in one go: the event loop has a few milliseconds of work with
them."""


class Revisioned(Protocol):
    """A value of a directory. ``registration`` is one life of its id, and within one ``revision`` grows with every
    write."""

    @property
    def id(self) -> str: ...

    @property
    def registration(self) -> str: ...

    @property
    def revision(self) -> int: ...


V = TypeVar("V", bound=Revisioned)


class Head(NamedTuple):
    """What tells whether a document has changed. The values are as they are stored, whatever they are."""

    id: str
    registration: object
    revision: object
    key: object = None
    """The field by which it is found beside its id, if there is one."""


class Documents:
    """A collection, as a directory reads it."""

    def __init__(self, collection: Collection, *, projection: Mapping[str, Any] | None = None, key: str = "") -> None:
        """Only ``projection`` leaves the database. ``key`` is the field of ``Head.key``."""
        self._collection = collection
        self._projection = projection
        self._key = key

    async def heads(self) -> AsyncIterator[list[Head]]:
        """All documents, some hundred at a time."""
        fields = {"registration": 1, "revision": 1} | ({self._key: 1} if self._key else {})
        cursor = self._collection.find({}, fields, batch_size=_HEADS)
        while documents := await cursor.to_list(_HEADS):
            yield [
                Head(
                    str(document["_id"]),
                    document.get("registration"),
                    document.get("revision"),
                    document.get(self._key) if self._key else None,
                )
                for document in documents
            ]

    async def read(self, ids: Sequence[str]) -> dict[str, Document]:
        """Those of the documents that there are, by id."""
        found = self._collection.find({"_id": {"$in": ids}}, self._projection)
        return {str(document["_id"]): document async for document in found}


@dataclass(frozen=True, slots=True)
class Kind(Generic[V]):
    """What a directory is of.

    ``noun`` is what one is called in log lines, ``changed`` the subject on which the id of one is said that was written
    or deleted. ``read`` makes the value of a document; ValidationError where it is none.
    """

    noun: str
    changed: str
    read: Callable[[Document], V]


class Directory(Generic[V]):
    """All of a kind, in memory. Reading never waits; while MongoDB is away the last known values stay."""

    def __init__(
        self,
        kind: Kind[V],
        documents: Documents,
        *,
        refresh_s: float = 15.0,
        before_reading: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """``before_reading`` raises when the documents may not be read, as ``StoreFormat.ensure`` does."""
        self._kind = kind
        self._documents = documents
        self._before_reading = before_reading
        self._refresh_s = refresh_s
        self._values: dict[str, V] = {}
        self._listeners: list[Callable[[str, V | None], None]] = []
        self._followed: NatsClient | None = None
        self._synced = False
        self._reads = 0
        self._full_read = 0
        self._keys: frozenset[object] = frozenset()
        # By id, the number of the latest read that was believed about it; of those that are gone, too.
        self._believed: dict[str, int] = {}
        self._log = get_logger(component=f"{kind.noun}_directory")

    @property
    def values(self) -> Mapping[str, V]:
        """Every one by id."""
        return MappingProxyType(self._values)

    @property
    def synced(self) -> bool:
        """Whether all have been read once."""
        return self._synced

    def get(self, id_: str) -> V | None:
        """The one with this id, or None."""
        return self._values.get(id_)

    @property
    def reads_begun(self) -> int:
        """The number of the latest read that began; reads are numbered as they begin, from 1."""
        return self._reads

    def nobody_has(self, key: object, since: int) -> bool:
        """Whether a look at all, begun after the read ``since``, found none whose ``Head.key`` is ``key``.

        Those that this copy cannot read are found as well.
        """
        return self._full_read > since and key not in self._keys

    def listen(self, listener: Callable[[str, V | None], None]) -> None:
        """Call ``listener`` with each that is known, and whenever one changes: its id, and its value, None when it is
        gone. It must not block or raise."""
        self._listeners.append(listener)
        for value in self._values.values():
            listener(value.id, value)

    async def check(self) -> None:
        """A readiness check: all have been read once."""
        if not self._synced:
            raise BackhaulError(unavailable("MongoDB").code, f"The {self._kind.noun}s have not been read yet.")

    async def run(self) -> None:
        """Read all as soon as MongoDB answers, then what changed every ``refresh_s`` s, until cancelled."""
        await until_done(f"read_{self._kind.noun}s", self.refresh)

        async def forever() -> None:
            while True:
                await asyncio.sleep(self._refresh_s)
                await self.refresh()

        await keep_running(f"refresh_{self._kind.noun}s", forever, longest_pause_s=self._refresh_s)

    async def follow(self, nats: NatsClient) -> None:
        """Refresh one as soon as somebody says that it changed. To be called again whenever ``nats`` reconnected.

        UNAVAILABLE when MongoDB is away, an error of NATS when it is: then to be called again too.
        """
        if self._followed is not nats:
            # Once for each client, which renews its subscriptions by itself.
            await nats.subscribe(self._kind.changed, cb=self._changed)
            self._followed = nats
        await nats.flush()
        # What changed before the subscription stood was not heard.
        await self.refresh()

    async def _changed(self, message: Msg) -> None:
        id_ = message.data.decode("utf-8", "replace")
        try:
            await self.reload(id_)
        except (BackhaulError, ValidationError) as exc:
            # The next look at all brings what is missed here.
            reason = _places(exc) if isinstance(exc, ValidationError) else str(exc)
            self._log.warning("document_reload_failed", **{self._kind.noun: id_}, error=reason)

    async def reload(self, id_: str) -> V | None:
        """Read one now. UNAVAILABLE when MongoDB is away; ValidationError when its document is none of this kind."""
        if self._before_reading is not None:
            await self._before_reading()
        read = self._begin_read()
        async with operation():
            documents = await self._documents.read([id_])
        document = documents.get(id_)
        value = self._kind.read(document) if document is not None else None
        self._put(id_, value, read)
        return value

    async def refresh(self) -> None:
        """Look at all now, and read those that are not as they are known. UNAVAILABLE when MongoDB is away."""
        if self._before_reading is not None:
            await self._before_reading()
        # One that appears while this reads may be missing from what it read: only those known before can be gone.
        before = set(self._values)
        read = self._begin_read()
        keys: set[object] = set()
        present: set[str] = set()
        changed: list[str] = []
        async with operation():
            async for heads in self._documents.heads():
                for head in heads:
                    present.add(head.id)
                    keys.add(head.key)
                    if not self._is_as_known(head, read):
                        changed.append(head.id)
        if read > self._full_read:
            self._full_read = read
            self._keys = frozenset(keys)
        for id_ in before - present:
            self._put(id_, None, read)
        for start in range(0, len(changed), _DOCUMENTS):
            await self._read(changed[start : start + _DOCUMENTS])
        # Only reads that began before this one can still return deleted ones; forget the rest.
        self._believed = {id_: number for id_, number in self._believed.items() if id_ in self._values or number > read}
        self._synced = True

    async def _read(self, ids: Sequence[str]) -> None:
        read = self._begin_read()
        async with operation():
            documents = await self._documents.read(ids)
        for id_ in ids:
            document = documents.get(id_)
            try:
                value = self._kind.read(document) if document is not None else None
            except ValidationError as exc:
                # One that this copy cannot read must not keep the others from being served.
                self._log.error("document_unreadable", **{self._kind.noun: id_}, error=_places(exc))
                continue
            self._put(id_, value, read)

    def _is_as_known(self, head: Head, read: int) -> bool:
        """Whether one need not be read. Then the read of that number is believed to have seen it."""
        known = self._values.get(head.id)
        if (
            known is None
            or known.registration != head.registration
            or not isinstance(head.revision, int)
            or head.revision > known.revision
        ):
            return False
        self._believed[head.id] = max(read, self._believed.get(head.id, 0))
        return True

    def _begin_read(self) -> int:
        self._reads += 1
        return self._reads

    def _put(self, id_: str, value: V | None, read: int) -> None:
        """Take over what the read of that number found of one, if it is later than what is known.

        A value replaces another

        - of the same registration, when its revision is higher: revisions tell the order of writes, whichever read
          brings them first;
        - of another registration, or nothing at all, when its read began later than every read that was believed about
          this id: no revision tells the order of a deletion, but a read that began later saw no less.
        """
        known = self._values.get(id_)
        last = self._believed.get(id_, 0)
        if value is not None and known is not None and value.registration == known.registration:
            later = value.revision > known.revision
            self._believed[id_] = max(read, last)
        elif later := read >= last:
            self._believed[id_] = read
        if not later or value is known:
            return
        if value is None:
            del self._values[id_]
        else:
            self._values[id_] = value
        for listener in self._listeners:
            listener(id_, value)


def _places(error: ValidationError) -> str:
    """What is wrong where, without the values: digests and encrypted secrets are among them."""
    return "; ".join(
        f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}"
        for one in error.errors(include_url=False, include_input=False, include_context=False)
    )
