"""gRPC to what is kept of a tenant, and back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
from backhaul_proto.tenantdata.v1 import tenantdata_pb2 as pb
from backhaul_proto.tenantdata.v1 import tenantdata_pb2_grpc

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.tenantdata.erasures import Asked, RecipientData, no_address
from backhaul_common.tenantdata.store import TenantData

SERVICE = pb.DESCRIPTOR.services_by_name["TenantDataService"].full_name


class TenantDataServicer(tenantdata_pb2_grpc.TenantDataServiceServicer):
    """``backhaul_proto.tenantdata.v1.TenantDataService`` over a ``TenantData``. Without ``people`` the
    service says that it erases nobody."""

    def __init__(self, data: TenantData, people: RecipientData | None = None) -> None:
        self._data = data
        self._people = people

    async def GetUsage(self, request: pb.GetUsageRequest, context: Any) -> pb.GetUsageResponse:
        """How much there is."""
        usage = await self._data.usage(_registration(request))
        return pb.GetUsageResponse(usage=[pb.Usage(kind=kind, count=count) for kind, count in usage.items()])

    async def PurgeTenant(self, request: pb.PurgeTenantRequest, context: Any) -> pb.PurgeTenantResponse:
        """Delete it."""
        return pb.PurgeTenantResponse(deleted=await self._data.purge(request.tenant_id, _registration(request)))

    async def EraseRecipient(self, request: pb.EraseRecipientRequest, context: Any) -> pb.EraseRecipientResponse:
        """Erase somebody."""
        registration = _registration(request)
        if not request.address.strip():
            raise no_address()
        if self._people is None:
            return pb.EraseRecipientResponse()
        receipt = await self._people.erase(Asked(request.tenant_id, registration, request.address, request.before_us))
        return pb.EraseRecipientResponse(
            supported=True,
            erased_before_us=receipt.before_us,
            erased=[pb.Usage(kind=kind, count=count) for kind, count in sorted(receipt.erased.items())],
            kept=[
                pb.Kept(kind=one.kind, count=one.count, reason=one.reason, until_us=one.until_us)
                for one in receipt.kept
            ],
        )


def _registration(request: pb.GetUsageRequest | pb.PurgeTenantRequest | pb.EraseRecipientRequest) -> str:
    """The registration that is named. It may be gone from the directory: that is what a deletion is about."""
    if not request.registration:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            "The registration is missing: a tenant's id may be somebody else's by now.",
            field="registration",
            fix="Set the registration of the tenant as it was read.",
        )
    return request.registration


def registrations(
    data: TenantData, people: RecipientData | None = None
) -> dict[str, Callable[[grpc.aio.Server], None]]:
    """What ``Service.serve`` takes, to offer ``data`` beside what else a service offers, and to erase ``people``."""
    servicer = TenantDataServicer(data, people)
    return {SERVICE: partial(tenantdata_pb2_grpc.add_TenantDataServiceServicer_to_server, servicer)}
