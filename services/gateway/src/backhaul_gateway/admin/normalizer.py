"""The normalizer as the gateway's use cases see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from backhaul_common.tenants import Tenant
from backhaul_proto.normalizer.v1.normalizer_pb2 import GetUsageRequest, PurgeTenantRequest

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; grpc.aio's channels make the one class answer awaitables.
    from backhaul_proto.normalizer.v1.normalizer_pb2_grpc import NormalizerServiceAsyncStub

_PURGE_DEADLINE_S = 30.0


class NormalizerData:
    """A ``TenantData``."""

    def __init__(self, stub: NormalizerServiceAsyncStub) -> None:
        self._stub = stub

    async def usage(self, tenant: Tenant) -> Mapping[str, int]:
        """See ``TenantData``."""
        answer = await self._stub.GetUsage(GetUsageRequest(tenant_id=tenant.id, registration=tenant.registration))
        return {
            "events": answer.events,
            "messages": answer.messages,
            "communications": answer.communications,
            "dead_letters": answer.dead_letters,
        }

    async def purge(self, tenant: Tenant) -> None:
        """See ``TenantData``."""
        request = PurgeTenantRequest(tenant_id=tenant.id, registration=tenant.registration)
        await self._stub.PurgeTenant(request, timeout=_PURGE_DEADLINE_S)
