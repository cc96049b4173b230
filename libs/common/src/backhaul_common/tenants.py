"""Tenants as every service sees them: immutable values, and one cached reader.

The gateway writes the collection; everybody reads it through ``TenantDirectory``, which holds all tenants in memory.
A change message on NATS refreshes one tenant at once; a full read now and then heals a message that was missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Any, Literal

from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, unavailable
from backhaul_common.lifecycle import keep_running, until_done
from backhaul_common.logs import get_logger
from backhaul_common.mongo import Collection, operation
from backhaul_common.names import TENANT_CHANGED_SUBJECT, queue_path_key
from backhaul_common.secrets import CredentialKind

VerificationMode = Literal["enforce", "observe", "off"]
TenantStatus = Literal["active", "suspended", "deleting"]


class _Value(BaseModel):
    # Unknown fields are kept, so that an older copy of a service neither stumbles over what a newer one wrote nor
    # erases it: nested values are written back whole.
    model_config = ConfigDict(frozen=True, extra="allow")


Rate = Annotated[float, Field(gt=0, le=1_000_000)]
Burst = Annotated[int, Field(ge=1, le=10_000_000)]
BodyBytes = Annotated[int, Field(ge=1024, le=4_194_304)]
AtOnce = Annotated[int, Field(ge=1, le=1000)]


class Limits(_Value):
    """How much a tenant may ask of the gateway."""

    requests_per_second: Rate = 5000
    burst: Burst = 10_000
    max_body_bytes: BodyBytes = 1_048_576
    reads_per_second: Rate = 50
    read_burst: Burst = 200
    concurrent_reads: AtOnce = 8


class Credential(_Value):
    """One API key or ingest token; only the digest of its secret part is kept."""

    id: str
    kind: CredentialKind
    digest: str
    created_at: datetime


class Channel(_Value):
    """A tenant's configured source. ``secrets`` are encrypted; ``settings`` fit the provider's own model."""

    label: str
    key: str
    provider: str
    secrets: tuple[str, ...] = ()
    settings: Mapping[str, Any] = {}
    verification: VerificationMode = "enforce"
    updated_at: datetime


class Tenant(_Value):
    """A customer of the platform team. ``channels`` are by key; ``revision`` grows with every write.

    ``registration`` is one life of the id: made when the tenant is created, and never used again. Whatever belongs to a
    tenant names it, so that nothing of a deleted tenant ever passes for its successor's.

    The status ``deleting`` is the fence of its deletion, and final: whatever commits reads it, and stores nothing of
    the tenant from then on. ``deleting_since`` tells people when that began; nothing is decided by it.
    """

    # Unknown fields of the tenant itself stay in the store, where writing sets only those that are known.
    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    registration: str
    name: str
    queue_path: str
    status: TenantStatus = "active"
    deleting_since: datetime | None = None
    limits: Limits = Limits()
    credentials: tuple[Credential, ...] = ()
    channels: Mapping[str, Channel] = {}
    revision: int = 1
    created_at: datetime
    updated_at: datetime

    def to_document(self) -> dict[str, Any]:
        """The document that is stored; ``queue_path_key`` carries the unique index."""
        document = self.model_dump(mode="python")
        document["_id"] = document.pop("id")
        document["queue_path_key"] = queue_path_key(self.queue_path)
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Tenant:
        """The tenant that a stored document describes."""
        return cls.model_validate({**document, "id": document["_id"]})


Listener = Callable[[str, Tenant | None], None]
"""Told the id and the new value of a tenant, None when it is gone."""


class TenantDirectory:
    """All tenants, in memory. Reading never waits; while MongoDB is away the last known tenants stay."""

    def __init__(
        self,
        collection: Collection,
        *,
        refresh_s: float = 15.0,
        before_reading: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """``before_reading`` raises when the collection may not be read, as ``StoreFormat.ensure`` does."""
        self._collection = collection
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

    @property
    def reads_begun(self) -> int:
        """The number of the latest read that began; reads are numbered as they begin, from 1."""
        return self._reads

    def nobody_has(self, path: str, since: int) -> bool:
        """Whether a full read that began after the read ``since`` found no tenant whose ``queue_path_key`` is ``path``.

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
        """Read all tenants as soon as MongoDB answers, then again every ``refresh_s`` seconds, until cancelled."""
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
            # The next full read brings what is missed here.
            reason = _places(exc) if isinstance(exc, ValidationError) else str(exc)
            self._log.warning("tenant_reload_failed", tenant=tenant_id, error=reason)

    async def reload(self, tenant_id: str) -> Tenant | None:
        """Read one tenant now. UNAVAILABLE when MongoDB is away; ValidationError when its document is no tenant."""
        if self._before_reading is not None:
            await self._before_reading()
        read = self._begin_read()
        async with operation():
            document = await self._collection.find_one({"_id": tenant_id})
        tenant = Tenant.from_document(document) if document is not None else None
        self._put(tenant_id, tenant, read)
        return tenant

    async def refresh(self) -> None:
        """Read all tenants now. UNAVAILABLE when MongoDB is away."""
        if self._before_reading is not None:
            await self._before_reading()
        # A tenant that appears while this reads may be missing from what it read: only those known before can be gone.
        before = set(self._tenants)
        read = self._begin_read()
        documents: dict[str, Document] = {}
        async with operation():
            async for document in self._collection.find({}):
                documents[str(document["_id"])] = document
        if read > self._full_read:
            self._full_read = read
            self._paths = frozenset(document.get("queue_path_key") for document in documents.values())
        for tenant_id in before - documents.keys():
            self._put(tenant_id, None, read)
        for tenant_id, document in documents.items():
            try:
                tenant = Tenant.from_document(document)
            except ValidationError as exc:
                # One tenant that this copy cannot read must not keep the others from being served.
                self._log.error("tenant_unreadable", tenant=tenant_id, error=_places(exc))
                continue
            self._put(tenant_id, tenant, read)
        # Only reads that began before this one can still return deleted tenants; forget the rest.
        self._believed = {
            key: number for key, number in self._believed.items() if key in self._tenants or number > read
        }
        self._synced = True

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
