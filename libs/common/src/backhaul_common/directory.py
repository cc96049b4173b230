"""The cached readers of tenants, which every service has, and of service accounts.

The gateway writes the collections; everybody reads them through ``TenantDirectory`` and ``ServiceDirectory``, which
hold all in memory: see ``revisioned``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from backhaul_common.accounts import ServiceAccount
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.mongo import Collection
from backhaul_common.names import SERVICE_CHANGED_SUBJECT, TENANT_CHANGED_SUBJECT
from backhaul_common.revisioned import Directory, Documents, Kind
from backhaul_common.tenants import Channel, Tenant


def _where_object(value: str, then: dict[str, Any]) -> dict[str, Any]:
    # A document that is no tenant must not fail the reading of the others.
    return {"$cond": [{"$eq": [{"$type": value}, "object"]}, then, value]}


_PUBLIC = [name for name in Channel.model_fields if name not in ("secrets", "pull_credentials", "audit_credentials")]
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


class TenantDocuments(Documents):
    """The collection of tenants, as a directory reads it."""

    def __init__(self, collection: Collection, *, secrets: bool = False) -> None:
        """Without ``secrets`` neither credentials nor the secrets of channels leave the database."""
        super().__init__(collection, projection=None if secrets else _WITHOUT_SECRETS, key="queue_path_key")


class TenantDirectory(Directory[Tenant]):
    """All tenants, in memory. Their ``Head.key`` is ``queue_path_key``."""

    def __init__(
        self,
        documents: Documents,
        *,
        refresh_s: float = 15.0,
        before_reading: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """See ``Directory``."""
        super().__init__(
            Kind("tenant", TENANT_CHANGED_SUBJECT, Tenant.from_document),
            documents,
            refresh_s=refresh_s,
            before_reading=before_reading,
        )

    @property
    def tenants(self) -> Mapping[str, Tenant]:
        """Every tenant by id."""
        return self.values

    async def require(self, tenant_id: str) -> Tenant:
        """The tenant, read at once if this copy has not heard of it. NOT_FOUND; UNAVAILABLE."""
        tenant = self.get(tenant_id) or await self.reload(tenant_id)
        if tenant is None:
            raise BackhaulError(Code.NOT_FOUND, "There is no such tenant.", field="tenant_id", fix="Check the id.")
        return tenant


class ServiceDirectory(Directory[ServiceAccount]):
    """All service accounts, in memory, of whoever lets them in."""

    def __init__(
        self,
        documents: Documents,
        *,
        refresh_s: float = 15.0,
        before_reading: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """See ``Directory``."""
        super().__init__(
            Kind("service", SERVICE_CHANGED_SUBJECT, ServiceAccount.from_document),
            documents,
            refresh_s=refresh_s,
            before_reading=before_reading,
        )
