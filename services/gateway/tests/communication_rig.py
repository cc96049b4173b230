"""Communications of the tests, on a real port: they answer what a test gave them, and keep what they were asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
from backhaul_client.adminmodels import NewTenant
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.rpc import keepalive
from backhaul_common.rpc.errors import DETAILS_KEY, to_details
from backhaul_proto.normalizer.v1 import communications_pb2 as pb
from backhaul_proto.normalizer.v1 import communications_pb2_grpc, normalizer_pb2
from gateway_rig import GatewayFactory, Running

INFO = pb.CommunicationInfo(
    id="spring", status=pb.COMMUNICATION_STATUS_ACTIVE, settings=pb.CommunicationSettings(deadline_s=3600)
)
BATCH = pb.Batch(id="b1", communication_id="spring", status=pb.BATCH_STATUS_OPEN)


class FakeCommunications(communications_pb2_grpc.CommunicationServiceServicer):
    """``members`` are what each answer of ``ListMembers`` has; ``added`` the answers of ``AddMembers``, of which the
    last one comes when all has been read. ``created`` is what a registration says."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.created = True
        self.members: Sequence[pb.ListMembersResponse] = ()
        self.added: list[pb.AddMembersResponse] = [pb.AddMembersResponse(done=True)]
        self.read = bytearray()
        """What has come of members."""
        self.refusal: BackhaulError | None = None
        self.breaks: BackhaulError | None = None
        """What ``ListMembers`` ends with."""
        self.ended = asyncio.Event()
        """Set when a stream has ended, or its client has left it."""

    async def _begin(self, request: Any, context: Any) -> None:
        self.asked.append(request)
        if self.refusal is not None:
            await abort(context, self.refusal)

    async def PutCommunication(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        await self._begin(request, context)
        return pb.PutCommunicationResponse(communication=INFO, created=self.created)

    async def DescribeCommunication(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        await self._begin(request, context)
        counts = normalizer_pb2.Communication(id=request.communication_id, messages=3)
        return pb.DescribeCommunicationResponse(communication=INFO, counts=counts, batches=[BATCH])

    async def ListCommunications(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        await self._begin(request, context)
        return pb.ListCommunicationsResponse(communications=[INFO], next_page_token="next")

    async def DisableCommunication(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        await self._begin(request, context)
        return pb.DisableCommunicationResponse(communication=INFO)

    async def EnableCommunication(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        await self._begin(request, context)
        return pb.EnableCommunicationResponse(communication=INFO)

    async def PutBatch(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        await self._begin(request, context)
        return pb.PutBatchResponse(batch=BATCH, created=self.created)

    async def ListBatches(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        await self._begin(request, context)
        return pb.ListBatchesResponse(batches=[BATCH], next_page_token="next")

    async def GetBatch(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        await self._begin(request, context)
        return pb.GetBatchResponse(batch=BATCH)

    async def CloseBatch(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        await self._begin(request, context)
        return pb.CloseBatchResponse(batch=BATCH)

    async def GetMember(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        await abort(context, BackhaulError(Code.NOT_FOUND, "The gateway asks for no single member."))

    async def ListMembers(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        await self._begin(request, context)
        try:
            for answer in self.members:
                yield answer
            if self.breaks is not None:
                await abort(context, self.breaks)
        finally:
            self.ended.set()

    async def AddMembers(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        first = True
        try:
            async for piece in request:
                await self._begin(piece, context)
                self.read += piece.data
                if first:
                    yield pb.AddMembersResponse()
                    first = False
            for answer in self.added:
                yield answer
        finally:
            self.ended.set()


async def abort(context: Any, error: BackhaulError) -> None:
    """As the service does."""
    await context.abort(error.meaning.grpc_status, error.message, ((DETAILS_KEY, to_details(error)),))


@dataclass
class CommunicationRig:
    """A gateway over communications, and a tenant."""

    gateway: Running
    communications: FakeCommunications
    tenant: NewTenant

    @property
    def headers(self) -> dict[str, str]:
        return {"X-Api-Key": self.tenant.api_key}

    async def ask(
        self, method: str, path: str, body: Any = None, *, tenant: NewTenant | None = None, **options: Any
    ) -> httpx.Response:
        """The answer to a request below ``/v1``, whose path is sent as it is written here."""
        headers = {**self.headers, **options.pop("headers", {})}
        if tenant is not None:
            headers["X-Api-Key"] = tenant.api_key
        if body is not None:
            options["json"] = body
        return await self.gateway.client.request(method, f"/v1{path}", headers=headers, **options)


@asynccontextmanager
async def communicating(factory: GatewayFactory, nats_url: str, **settings: Any) -> AsyncIterator[CommunicationRig]:
    communications = FakeCommunications()
    server = grpc.aio.server(options=keepalive.of_server())
    communications_pb2_grpc.add_CommunicationServiceServicer_to_server(communications, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with factory(nats_url, gateway_normalizer_target=f"127.0.0.1:{port}", **settings) as gateway:
            yield CommunicationRig(gateway, communications, await gateway.tenant())
    finally:
        await server.stop(0)
