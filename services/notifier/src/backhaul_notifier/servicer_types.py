"""gRPC to the catalogue of types, and back; nothing is decided here."""

from __future__ import annotations

from backhaul_proto.notifier.v1 import notifier_pb2 as pb

from backhaul_notifier.catalogue.listing import Entry, listed
from backhaul_notifier.payloads import Renderer
from backhaul_notifier.ports import Tenants


class TypeCalls:
    """What ``NotifierService`` says of types. Errors are BackhaulErrors; the server's edge translates."""

    def __init__(self, tenants: Tenants, renderer: Renderer) -> None:
        self._tenants = tenants
        # It is the same until another version runs, and making it takes a while.
        self._catalogue = pb.ListEventTypesResponse(types=map(_message, listed(renderer)))

    async def list(self, request: pb.ListEventTypesRequest) -> pb.ListEventTypesResponse:
        """Every type, in the order of the catalogue."""
        await self._tenants.require(request.tenant_id)
        return self._catalogue


def _message(entry: Entry) -> pb.EventType:
    return pb.EventType(
        type=entry.type,
        title=entry.title,
        description=entry.description,
        kinds=entry.kinds,  # type: ignore[arg-type]  # numbers of the enum
        schema=entry.schema_json,
        sample=entry.sample,
    )
