"""Tenants and service accounts in MongoDB."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from backhaul_common.accounts import ServiceAccount
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.mongo import Collection, operation
from backhaul_common.revisioned import Revisioned
from backhaul_common.store_format import StoreFormat
from backhaul_common.tenants import Tenant
from pymongo.errors import DuplicateKeyError

from backhaul_gateway.admin.updates import id_taken, queue_path_taken
from backhaul_gateway.admission.entries import noted_of
from backhaul_gateway.admission.logged import Stored as Kind

_QUEUE_PATH_INDEX = "queue_path_key_unique"
_CREDENTIALS_INDEX = "credentials_id"
_CERTIFICATES_INDEX = "certificates_unique"


class Stored(Revisioned, Protocol):
    """What is stored by its id, in one life of it, and by revision."""

    def to_document(self) -> Document: ...


V = TypeVar("V", bound=Stored)


class MongoStore(Generic[V]):
    """Whatever is kept by revision, in one collection. What a request changes of it is noted for the log of changes."""

    _kind: Kind

    def __init__(self, collection: Collection, store_format: StoreFormat, read: Callable[[Document], V]) -> None:
        """``read`` makes the value of a document."""
        self._collection = collection
        self._format = store_format
        self._read = read
        self._prepared = False

    async def prepare(self) -> None:
        """Create the indexes. Idempotent."""
        await self._format.ensure()
        async with operation():
            await self._make_indexes()
        self._prepared = True

    async def _make_indexes(self) -> None:
        raise NotImplementedError

    async def _insert(self, value: V) -> None:
        """DuplicateKeyError where an index refuses it."""
        if not self._prepared:
            # Without the indexes nothing would be refused, and the task that makes them may not have come that far.
            await self.prepare()
        async with operation():
            await self._collection.insert_one(value.to_document())
        if (noted := noted_of(self._kind)) is not None:
            noted.replaced(None, value)

    async def find(self, id_: str) -> V | None:
        """The one with this id as stored now, or None."""
        await self._format.ensure()
        async with operation():
            document = await self._collection.find_one({"_id": id_})
        found = self._read(document) if document is not None else None
        if (noted := noted_of(self._kind)) is not None:
            noted.seen = found
        return found

    async def page(self, after: str, limit: int) -> list[V]:
        """At most ``limit`` whose ids come after ``after``, by id."""
        await self._format.ensure()
        async with operation():
            documents = await self._collection.find({"_id": {"$gt": after}}).sort("_id", 1).limit(limit).to_list(limit)
        return [self._read(document) for document in documents]

    async def replace(self, value: V, revision: int) -> bool:
        """Store ``value`` if the stored one still has ``revision`` and is the same registration; False otherwise."""
        document = value.to_document()
        del document["_id"]
        noted = noted_of(self._kind)
        before = noted.seen if noted is not None and noted.seen.revision == revision else None
        async with operation():
            result = await self._collection.update_one(
                {**_registration(value), "revision": revision}, {"$set": document}
            )
        if result.matched_count and noted is not None:
            noted.replaced(before, value)
        return result.matched_count == 1

    async def delete(self, value: V) -> bool:
        """Forget ``value`` if it is stored as it is given: same registration, same revision; False otherwise."""
        async with operation():
            result = await self._collection.delete_one({**_registration(value), "revision": value.revision})
        if result.deleted_count and (noted := noted_of(self._kind)) is not None:
            noted.replaced(value, None)
        return result.deleted_count == 1


class MongoTenantStore(MongoStore[Tenant]):
    """A ``TenantStore``. Unique indexes decide: of all that register one queue path at once, one wins."""

    _kind = "tenant"

    def __init__(self, collection: Collection, store_format: StoreFormat) -> None:
        super().__init__(collection, store_format, Tenant.from_document)

    async def _make_indexes(self) -> None:
        await self._collection.create_index("queue_path_key", unique=True, name=_QUEUE_PATH_INDEX)
        await self._collection.create_index("credentials.id", name=_CREDENTIALS_INDEX)

    async def insert(self, tenant: Tenant) -> None:
        """See ``TenantStore``."""
        try:
            await self._insert(tenant)
        except DuplicateKeyError as exc:
            if "queue_path_key" in ((exc.details or {}).get("keyPattern") or {}):
                raise queue_path_taken(tenant) from exc
            raise id_taken(tenant) from exc

    async def owner_of(self, credential_id: str) -> str | None:
        """See ``TenantStore``."""
        await self._format.ensure()
        async with operation():
            document = await self._collection.find_one({"credentials.id": credential_id}, {"_id": 1})
        return str(document["_id"]) if document is not None else None

    async def used(self, tenant_id: str, credential_id: str, at: datetime) -> None:
        """Write down that the credential was used ``at`` that time, unless it is gone, or was used later. The tenant's
        revision stays."""
        await self._format.ensure()
        async with operation():
            await self._collection.update_one(
                {"_id": tenant_id, "credentials.id": credential_id}, {"$max": {"credentials.$.last_used_at": at}}
            )


class MongoServiceStore(MongoStore[ServiceAccount]):
    """A ``ServiceStore``. A unique index decides: of all that claim one certificate's name at once, one wins."""

    _kind = "service"

    def __init__(self, collection: Collection, store_format: StoreFormat) -> None:
        super().__init__(collection, store_format, ServiceAccount.from_document)

    async def _make_indexes(self) -> None:
        await self._collection.create_index(
            "certificates",
            unique=True,
            name=_CERTIFICATES_INDEX,
            # An empty list counts as one value, of which there could be no two.
            partialFilterExpression={"certificates.0": {"$exists": True}},
        )

    async def insert(self, account: ServiceAccount) -> None:
        """See ``ServiceStore``."""
        try:
            await self._insert(account)
        except DuplicateKeyError as exc:
            if "certificates" in ((exc.details or {}).get("keyPattern") or {}):
                raise _taken() from exc
            raise BackhaulError(
                Code.CONFLICT, f"There is a service {account.id!r} already.", field="id", fix="Choose another id."
            ) from exc

    async def of_tenant(self, tenant_id: str) -> list[str]:
        """See ``ServiceStore``."""
        await self._format.ensure()
        async with operation():
            documents = await self._collection.find({"tenants": tenant_id}, {"_id": 1}).to_list(None)
        return [str(document["_id"]) for document in documents]

    async def replace(self, value: ServiceAccount, revision: int) -> bool:
        """See ``ServiceStore``."""
        try:
            return await super().replace(value, revision)
        except DuplicateKeyError as exc:
            raise _taken() from exc


def _taken() -> BackhaulError:
    return BackhaulError(
        Code.CONFLICT,
        "A name of a certificate belongs to another service.",
        field="certificates",
        fix="Take it from the other service first, or choose another name: it must say which service calls.",
    )


def _registration(value: Stored) -> Document:
    """A filter that finds this registration, and no later one of the same id."""
    return {"_id": value.id, "registration": value.registration}
