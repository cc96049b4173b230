"""gRPC to what is kept of a tenant, and back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
from backhaul_proto.tenantdata.v1 import tenantdata_pb2 as pb
from backhaul_proto.tenantdata.v1 import tenantdata_pb2_grpc

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.tenantdata.store import TenantData

SERVICE = pb.DESCRIPTOR.services_by_name["TenantDataService"].full_name


class TenantDataServicer(tenantdata_pb2_grpc.TenantDataServiceServicer):
    """``backhaul_proto.tenantdata.v1.TenantDataService`` over a ``TenantData``."""

    def __init__(self, data: TenantData) -> None:
        self._data = data

    async def GetUsage(self, request: pb.GetUsageRequest, context: Any) -> pb.GetUsageResponse:
        """How much there is."""
        usage = await self._data.usage(_registration(request))
        return pb.GetUsageResponse(usage=[pb.Usage(kind=kind, count=count) for kind, count in usage.items()])

    async def PurgeTenant(self, request: pb.PurgeTenantRequest, context: Any) -> pb.PurgeTenantResponse:
        """Delete it."""
        return pb.PurgeTenantResponse(deleted=await self._data.purge(request.tenant_id, _registration(request)))


def _registration(request: pb.GetUsageRequest | pb.PurgeTenantRequest) -> str:
    """The registration that is named. It may be gone from the directory: that is what a deletion is about."""
    if not request.registration:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            "The registration is missing: a tenant's id may be somebody else's by now.",
            field="registration",
            fix="Set the registration of the tenant as it was read.",
        )
    return request.registration


def registrations(data: TenantData) -> dict[str, Callable[[grpc.aio.Server], None]]:
    """What ``Service.serve`` takes, to offer ``data`` beside what else a service offers."""
    return {SERVICE: partial(tenantdata_pb2_grpc.add_TenantDataServiceServicer_to_server, TenantDataServicer(data))}
