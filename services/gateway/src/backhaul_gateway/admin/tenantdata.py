"""What all services together keep of a tenant, as the gateway's use cases see it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from backhaul_common.tenants import Tenant
from backhaul_proto.tenantdata.v1.tenantdata_pb2 import GetUsageRequest, PurgeTenantRequest

from backhaul_gateway.ports import OwnChanges, TenantData, TenantGrants

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; grpc.aio's channels make the one class answer awaitables.
    from backhaul_proto.tenantdata.v1.tenantdata_pb2_grpc import TenantDataServiceAsyncStub

_PURGE_DEADLINE_S = 30.0


class ServicesData:
    """A ``TenantData`` over every service that keeps any. Each must answer: one that is away delays a deletion."""

    def __init__(self, services: Sequence[TenantDataServiceAsyncStub]) -> None:
        self._services = services

    async def usage(self, tenant: Tenant) -> Mapping[str, int]:
        """See ``TenantData``."""
        request = GetUsageRequest(tenant_id=tenant.id, registration=tenant.registration)
        total: Counter[str] = Counter()
        for answer in await asyncio.gather(*(service.GetUsage(request) for service in self._services)):
            for one in answer.usage:
                total[one.kind] += one.count
        return total

    async def purge(self, tenant: Tenant) -> None:
        """See ``TenantData``. All are asked, also where one fails: the next call has less to do."""
        request = PurgeTenantRequest(tenant_id=tenant.id, registration=tenant.registration)
        answers = await asyncio.gather(
            *(service.PurgeTenant(request, timeout=_PURGE_DEADLINE_S) for service in self._services),
            return_exceptions=True,
        )
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer


class GrantedData:
    """A ``TenantData``, with what other systems may do with it, which ends before the data does, and what is logged of
    what the tenant changed itself."""

    def __init__(self, data: TenantData, grants: TenantGrants, changes: OwnChanges) -> None:
        self._data = data
        self._grants = grants
        self._changes = changes

    async def usage(self, tenant: Tenant) -> Mapping[str, int]:
        """See ``TenantData``."""
        return await self._data.usage(tenant)

    async def purge(self, tenant: Tenant) -> None:
        """See ``TenantData``."""
        await self._grants.forget(tenant.id)
        await self._changes.purge(tenant.id, tenant.registration)
        await self._data.purge(tenant)
