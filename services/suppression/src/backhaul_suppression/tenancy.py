"""Who is asked about, as of now: a tenant's id may have had another life when this copy last heard of it."""

from __future__ import annotations

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.tenants import Tenant

from backhaul_suppression.ports import Changes, Tenants


class KnownTenants:
    """The tenants of questions.

    Rows belong to a registration. Whoever looks under that of a tenant that was deleted and created anew finds nobody
    suppressed. A change that is applied here tells of the present one before its writer is told that every copy knows,
    and so do rows that are loaded before this copy may answer; if it is not the one that this copy has heard of, the
    tenant is read again before the next answer.
    """

    def __init__(self, tenants: Tenants, changes: Changes) -> None:
        self._tenants = tenants
        # By tenant, an object for the last time that it was told of. Who is not known may be being read just now.
        self._outdated: dict[str, object] = {}
        changes.listen(self._changed)

    async def require(self, tenant_id: str) -> Tenant:
        """The tenant. NOT_FOUND, also while it is being deleted, as its rows go then; UNAVAILABLE."""
        while True:
            told = self._outdated.get(tenant_id)
            if told is not None:
                await self._tenants.reload(tenant_id)
                # What was told of meanwhile may be later than what was read. Until then others who ask read as well.
                if self._outdated.get(tenant_id) is told:
                    del self._outdated[tenant_id]
            read = await self._tenants.require(tenant_id)
            if tenant_id not in self._outdated:
                # Others may have read it later than this one did.
                tenant = self._tenants.get(tenant_id) or read
                break
        if tenant.status == "deleting":
            raise BackhaulError(
                Code.NOT_FOUND, "The tenant is being deleted.", field="tenant_id", fix="Ask about nobody for it."
            )
        return tenant

    def _changed(self, registration: str) -> None:
        tenant_id = registration.rpartition(".")[0]
        known = self._tenants.get(tenant_id)
        if known is None or known.registration != registration:
            self._outdated[tenant_id] = object()
