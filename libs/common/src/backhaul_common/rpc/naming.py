"""Every request names its tenant: which field does is read from the services' descriptors."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from google.protobuf import descriptor_pool

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import check_tenant_id

FIELD = "tenant_id"


class TenantRule:
    """Which calls name a tenant, and whether one does.

    ``services`` are full names of services whose generated modules are imported. Every method's request must have a
    field ``tenant_id``, and carry it. ``without_tenant`` are the full names of methods, or of whole services, that are
    exempt. A method that has no such field and is not exempt raises ValueError, and so does an exemption of what is
    not served.
    """

    def __init__(self, services: Iterable[str], without_tenant: Collection[str] = ()) -> None:
        self._names_it: dict[str, bool] = {}
        unused = set(without_tenant)
        for service in services:
            for method in descriptor_pool.Default().FindServiceByName(service).methods:
                exempt = {service, method.full_name} & set(without_tenant)
                unused -= exempt
                if not exempt and FIELD not in method.input_type.fields_by_name:
                    raise ValueError(f"{method.full_name} takes no {FIELD}: add the field, or exempt the method")
                self._names_it[f"/{service}/{method.name}"] = not exempt
        if unused:
            raise ValueError(f"exempt from naming a tenant, and not served: {', '.join(sorted(unused))}")

    @property
    def methods(self) -> Collection[str]:
        """All that are served, as ``/package.Service/Method``."""
        return self._names_it.keys()

    def of(self, method: str, request: Any) -> str:
        """The tenant that ``request`` of ``method`` names; INVALID_ARGUMENT where it must name one and does not.

        ``method`` is /service/method; KeyError if it is not served. Empty where it is exempt and no tenant is named.
        """
        tenant_id: str = getattr(request, FIELD, "")
        if not self._names_it[method]:
            return tenant_id
        if not tenant_id:
            raise BackhaulError(Code.INVALID_ARGUMENT, "Every call names its tenant.", field=FIELD, fix=f"Set {FIELD}.")
        return check_tenant_id(tenant_id, field=FIELD)

    def same(self, request: Any, tenant_id: str) -> None:
        """INVALID_ARGUMENT where a later request of a stream names another tenant than its first did.

        A later one may name none.
        """
        other = getattr(request, FIELD, "")
        if other and other != tenant_id:
            raise BackhaulError(
                Code.INVALID_ARGUMENT,
                "All requests of a stream are about one tenant.",
                field=FIELD,
                fix="Begin a stream for each tenant.",
            )
