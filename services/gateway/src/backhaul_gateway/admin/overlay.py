"""Tenants as they would become: what a dry run writes lies in memory alone."""

from __future__ import annotations

from collections.abc import Mapping

from backhaul_common.names import queue_path_key
from backhaul_common.tenants import Tenant

from backhaul_gateway.admin.updates import id_taken, queue_path_taken
from backhaul_gateway.ports import TenantStore


class Silent:
    """Nobody is told of what only happens in memory."""

    async def tenant_changed(self, tenant_id: str) -> None:
        """See ``Announcer``."""


class Overlay:
    """A ``TenantStore`` of what others would become: what is written lies in memory alone."""

    def __init__(self, store: TenantStore, known: Mapping[str, Tenant]) -> None:
        """``known`` are all tenants, as this copy of the gateway has heard of them."""
        self._store = store
        self._known = known
        self._made: dict[str, Tenant] = {}

    async def find(self, tenant_id: str) -> Tenant | None:
        """See ``TenantStore``."""
        return self._made.get(tenant_id) or await self._store.find(tenant_id)

    async def insert(self, tenant: Tenant) -> None:
        """See ``TenantStore``."""
        if await self.find(tenant.id) is not None:
            raise id_taken(tenant)
        path = queue_path_key(tenant.queue_path)
        for one in (*self._known.values(), *self._made.values()):
            # What this copy has heard of may be gone by now.
            if queue_path_key(one.queue_path) == path and await self.find(one.id) is not None:
                raise queue_path_taken(tenant)
        self._made[tenant.id] = tenant

    async def replace(self, tenant: Tenant, revision: int) -> bool:  # noqa: ARG002  # nobody else writes here
        """See ``TenantStore``."""
        self._made[tenant.id] = tenant
        return True

    async def delete(self, tenant: Tenant) -> bool:
        """See ``TenantStore``. A document deletes nothing."""
        raise NotImplementedError

    async def owner_of(self, credential_id: str) -> str | None:
        """See ``TenantStore``."""
        return await self._store.owner_of(credential_id)

    async def page(self, after: str, limit: int) -> list[Tenant]:
        """See ``TenantStore``."""
        return await self._store.page(after, limit)
