"""One cached reader of tenants, which every service has.

The gateway writes the collection; everybody reads it through ``TenantDirectory``, which holds all tenants in memory.
A change message on NATS refreshes one tenant at once. Now and then all are looked at, and what changed is read: that
heals a message that was missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from pydantic import ValidationError

from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_common.lifecycle import keep_running, until_done
from backhaul_common.logs import get_logger
from backhaul_common.mongo import Collection, operation
from backhaul_common.names import TENANT_CHANGED_SUBJECT
from backhaul_common.tenants import Channel, Listener, Tenant

_HEADS, _DOCUMENTS = 500, 100
"""Tenants that are looked at, and that are read, in one go: the event loop has a few milliseconds of work with them."""


def _where_object(value: str, then: dict[str, Any]) -> dict[str, Any]:
    # A document that is no tenant must not fail the reading of the others.
    return {"$cond": [{"$eq": [{"$type": value}, "object"]}, then, value]}


_PUBLIC = [name for name in Channel.model_fields if name not in ("secrets", "pull_credentials")]
"""Named one by one, so that what a newer version adds to a channel stays behind as well: it may be a secret."""

_WITHOUT_SECRETS: dict[str, Any] = {
    **{name: 1 for name in Tenant.model_fields if name not in ("id", "credentials")},
    "channels": _where_object(
        "$channels",
        {
            "$arrayToObject": {
                "$map": {
                    "input": {"$objectToArray": "$channels"},
                    "in": {
                        "k": "$$this.k",
                        "v": _where_object("$$this.v", {name: f"$$this.v.{name}" for name in _PUBLIC}),
                    },
                }
            }
        },
    ),
}


class TenantHead(NamedTuple):
    """What tells whether a tenant has changed. The values are as they are stored, whatever they are."""

    id: str
    registration: object
    revision: object
    path: object
    """Its ``queue_path_key``."""


class TenantDocuments:
    """The collection of tenants, as a directory reads it."""

    def __init__(self, collection: Collection, *, secrets: bool = False) -> None:
        """Without ``secrets`` neither credentials nor the secrets of channels leave the database."""
        self._collection = collection
        self._projection = None if secrets else _WITHOUT_SECRETS

    async def heads(self) -> AsyncIterator[list[TenantHead]]:
        """All tenants, some hundred at a time."""
        projection = {"registration": 1, "revision": 1, "queue_path_key": 1}
        cursor = self._collection.find({}, projection, batch_size=_HEADS)
        while documents := await cursor.to_list(_HEADS):
            yield [
                TenantHead(
                    str(document["_id"]),
                    document.get("registration"),
                    document.get("revision"),
                    document.get("queue_path_key"),
                )
                for document in documents
            ]

    async def read(self, tenant_ids: Sequence[str]) -> dict[str, Document]:
        """Those of the documents that there are, by id."""
        found = self._collection.find({"_id": {"$in": tenant_ids}}, self._projection)
        return {str(document["_id"]): document async for document in found}


class TenantDirectory:
    """All tenants, in memory. Reading never waits; while MongoDB is away the last known tenants stay."""

    def __init__(
        self,
        documents: TenantDocuments,
        *,
        refresh_s: float = 15.0,
        before_reading: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """``before_reading`` raises when the documents may not be read, as ``StoreFormat.ensure`` does."""
        self._documents = documents
        self._before_reading = before_reading
        self._refresh_s = refresh_s
        self._tenants: dict[str, Tenant] = {}
        self._listeners: list[Listener] = []
        self._followed: NatsClient | None = None
        self._synced = False
        self._reads = 0
        self._full_read = 0
        self._paths: frozenset[object] = frozenset()
        # By tenant, the number of the latest read that was believed about it; of those that are gone, too.
        self._believed: dict[str, int] = {}
        self._log = get_logger(component="tenant_directory")

    @property
    def tenants(self) -> Mapping[str, Tenant]:
        """Every tenant by id."""
        return MappingProxyType(self._tenants)

    @property
    def synced(self) -> bool:
        """Whether all tenants have been read once."""
        return self._synced

    def get(self, tenant_id: str) -> Tenant | None:
        """The tenant, or None."""
        return self._tenants.get(tenant_id)

    async def require(self, tenant_id: str) -> Tenant:
        """The tenant, read at once if this copy has not heard of it. NOT_FOUND; UNAVAILABLE."""
        tenant = self.get(tenant_id) or await self.reload(tenant_id)
        if tenant is None:
            raise BackhaulError(Code.NOT_FOUND, "There is no such tenant.", field="tenant_id", fix="Check the id.")
        return tenant

    @property
    def reads_begun(self) -> int:
        """The number of the latest read that began; reads are numbered as they begin, from 1."""
        return self._reads

    def nobody_has(self, path: str, since: int) -> bool:
        """Whether a look at all, begun after the read ``since``, found no tenant whose ``queue_path_key`` is ``path``.

        Tenants that this copy cannot read are found as well.
        """
        return self._full_read > since and path not in self._paths

    def listen(self, listener: Listener) -> None:
        """Call ``listener`` for every tenant that is known, and whenever one changes. It must not block or raise."""
        self._listeners.append(listener)
        for tenant in self._tenants.values():
            listener(tenant.id, tenant)

    async def check(self) -> None:
        """A readiness check: the tenants have been read once."""
        if not self._synced:
            raise BackhaulError(unavailable("MongoDB").code, "The tenants have not been read yet.")

    async def run(self) -> None:
        """Read all tenants as soon as MongoDB answers, then what changed every ``refresh_s`` s, until cancelled."""
        await until_done("read_tenants", self.refresh)

        async def forever() -> None:
            while True:
                await asyncio.sleep(self._refresh_s)
                await self.refresh()

        await keep_running("refresh_tenants", forever, longest_pause_s=self._refresh_s)

    async def follow(self, nats: NatsClient) -> None:
        """Refresh a tenant as soon as somebody says that it changed. To be called again whenever ``nats`` reconnected.

        UNAVAILABLE when MongoDB is away, an error of NATS when it is: then to be called again too.
        """
        if self._followed is not nats:
            # Once for each client, which renews its subscriptions by itself.
            await nats.subscribe(TENANT_CHANGED_SUBJECT, cb=self._changed)
            self._followed = nats
        await nats.flush()
        # What changed before the subscription stood was not heard.
        await self.refresh()

    async def _changed(self, message: Msg) -> None:
        tenant_id = message.data.decode("utf-8", "replace")
        try:
            await self.reload(tenant_id)
        except (BackhaulError, ValidationError) as exc:
            # The next look at all tenants brings what is missed here.
            reason = _places(exc) if isinstance(exc, ValidationError) else str(exc)
            self._log.warning("tenant_reload_failed", tenant=tenant_id, error=reason)

    async def reload(self, tenant_id: str) -> Tenant | None:
        """Read one tenant now. UNAVAILABLE when MongoDB is away; ValidationError when its document is no tenant."""
        if self._before_reading is not None:
            await self._before_reading()
        read = self._begin_read()
        async with operation():
            documents = await self._documents.read([tenant_id])
        document = documents.get(tenant_id)
        tenant = Tenant.from_document(document) if document is not None else None
        self._put(tenant_id, tenant, read)
        return tenant

    async def refresh(self) -> None:
        """Look at all tenants now, and read those that are not as they are known. UNAVAILABLE when MongoDB is away."""
        if self._before_reading is not None:
            await self._before_reading()
        # A tenant that appears while this reads may be missing from what it read: only those known before can be gone.
        before = set(self._tenants)
        read = self._begin_read()
        paths: set[object] = set()
        present: set[str] = set()
        changed: list[str] = []
        async with operation():
            async for heads in self._documents.heads():
                for head in heads:
                    present.add(head.id)
                    paths.add(head.path)
                    if not self._is_as_known(head, read):
                        changed.append(head.id)
        if read > self._full_read:
            self._full_read = read
            self._paths = frozenset(paths)
        for tenant_id in before - present:
            self._put(tenant_id, None, read)
        for start in range(0, len(changed), _DOCUMENTS):
            await self._read(changed[start : start + _DOCUMENTS])
        # Only reads that began before this one can still return deleted tenants; forget the rest.
        self._believed = {
            key: number for key, number in self._believed.items() if key in self._tenants or number > read
        }
        self._synced = True

    async def _read(self, tenant_ids: Sequence[str]) -> None:
        read = self._begin_read()
        async with operation():
            documents = await self._documents.read(tenant_ids)
        for tenant_id in tenant_ids:
            document = documents.get(tenant_id)
            try:
                tenant = Tenant.from_document(document) if document is not None else None
            except ValidationError as exc:
                # One tenant that this copy cannot read must not keep the others from being served.
                self._log.error("tenant_unreadable", tenant=tenant_id, error=_places(exc))
                continue
            self._put(tenant_id, tenant, read)

    def _is_as_known(self, head: TenantHead, read: int) -> bool:
        """Whether a tenant need not be read. Then the read of that number is believed to have seen it."""
        known = self._tenants.get(head.id)
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

    def _put(self, tenant_id: str, tenant: Tenant | None, read: int) -> None:
        """Take over what the read of that number found of a tenant, if it is later than what is known.

        A value replaces another

        - of the same registration, when its revision is higher: revisions tell the order of writes, whichever read
          brings them first;
        - of another registration, or nothing at all, when its read began later than every read that was believed about
          this id: no revision tells the order of a deletion, but a read that began later saw no less.
        """
        known = self._tenants.get(tenant_id)
        last = self._believed.get(tenant_id, 0)
        if tenant is not None and known is not None and tenant.registration == known.registration:
            later = tenant.revision > known.revision
            self._believed[tenant_id] = max(read, last)
        elif later := read >= last:
            self._believed[tenant_id] = read
        if not later or tenant is known:
            return
        if tenant is None:
            del self._tenants[tenant_id]
        else:
            self._tenants[tenant_id] = tenant
        for listener in self._listeners:
            listener(tenant_id, tenant)


def _places(error: ValidationError) -> str:
    """What is wrong where, without the values: digests and encrypted secrets are among them."""
    return "; ".join(
        f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}"
        for one in error.errors(include_url=False, include_input=False, include_context=False)
    )
