"""Who is asked about, as of now: a tenant's id may have had another life when this copy last heard of it."""

from __future__ import annotations

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.tenants import Tenant

from backhaul_suppression.ports import Changes, Tenants


class KnownTenants:
    """The tenants of questions.

    Rows belong to a registration. Whoever looks under that of a tenant that was deleted and created anew finds nobody
    suppressed. A change that is applied here tells of the present one before its writer is told that every copy knows;
    if it is not the one that this copy has heard of, the tenant is read again before the next answer.
    """

    def __init__(self, tenants: Tenants, changes: Changes) -> None:
        self._tenants = tenants
        self._outdated: set[str] = set()
        changes.listen(self._changed)

    async def require(self, tenant_id: str) -> Tenant:
        """The tenant. NOT_FOUND, also while it is being deleted, as its rows go then; UNAVAILABLE."""
        if tenant_id in self._outdated:
            await self._tenants.reload(tenant_id)
            self._outdated.discard(tenant_id)
        tenant = await self._tenants.require(tenant_id)
        if tenant.status == "deleting":
            raise BackhaulError(
                Code.NOT_FOUND, "The tenant is being deleted.", field="tenant_id", fix="Ask about nobody for it."
            )
        return tenant

    def _changed(self, registration: str, _position: int) -> None:
        tenant_id = registration.rpartition(".")[0]
        known = self._tenants.get(tenant_id)
        if known is not None and known.registration != registration:
            self._outdated.add(tenant_id)
