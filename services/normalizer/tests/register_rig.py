"""What the tests of registered communications share: calls of the service, and members to send."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from backhaul_common.rpc import connect
from backhaul_proto.normalizer.v1 import communications_pb2 as pb
from backhaul_proto.normalizer.v1.communications_pb2_grpc import CommunicationServiceStub
from backhaul_testing import make
from grpc_health.v1 import health_pb2, health_pb2_grpc
from normalizer_rig import Rig

if TYPE_CHECKING:
    from backhaul_proto.normalizer.v1.communications_pb2_grpc import CommunicationServiceAsyncStub


class Register:
    """Calls of the tenant acme."""

    def __init__(self, stub: CommunicationServiceAsyncStub) -> None:
        self.stub = stub

    async def communication(self, communication_id: str = "sale", **settings: Any) -> pb.PutCommunicationResponse:
        told = pb.CommunicationSettings(**{"channel": "twilio", **settings})
        return await self.stub.PutCommunication(
            pb.PutCommunicationRequest(tenant_id="acme", communication_id=communication_id, settings=told)
        )

    async def put_batch(self, batch_id: str = "b1", of: str = "sale", **told: Any) -> pb.PutBatchResponse:
        return await self.stub.PutBatch(
            pb.PutBatchRequest(tenant_id="acme", communication_id=of, batch_id=batch_id, **told)
        )

    async def batch(self, batch_id: str = "b1") -> pb.Batch:
        return (await self.stub.GetBatch(pb.GetBatchRequest(tenant_id="acme", batch_id=batch_id))).batch

    async def close(self, batch_id: str = "b1") -> pb.Batch:
        return (await self.stub.CloseBatch(pb.CloseBatchRequest(tenant_id="acme", batch_id=batch_id))).batch

    async def describe(self, communication_id: str = "sale") -> pb.DescribeCommunicationResponse:
        return await self.stub.DescribeCommunication(
            pb.DescribeCommunicationRequest(tenant_id="acme", communication_id=communication_id)
        )

    async def add(
        self, members: Iterable[dict[str, Any]], batch_id: str = "b1", *, last: bool = True
    ) -> list[pb.AddMembersResponse]:
        """All that is answered to a file of these members."""
        return await self.add_file(lines_of(members), batch_id, last=last)

    async def add_file(
        self,
        file: bytes,
        batch_id: str = "b1",
        *,
        last: bool = True,
        file_format: Any = pb.MEMBER_FORMAT_JSON_LINES,
    ) -> list[pb.AddMembersResponse]:
        """All that is answered to ``file``."""
        pieces = [file[start : start + 100_000] for start in range(0, len(file), 100_000)] or [b""]
        first, *others = pieces
        requests = [pb.AddMembersRequest(tenant_id="acme", batch_id=batch_id, format=file_format, data=first)]
        requests += [pb.AddMembersRequest(data=piece) for piece in others]
        requests[-1].last = last
        return [answer async for answer in self.stub.AddMembers(iter(requests))]

    async def members(self, batch_id: str = "b1") -> dict[str, pb.Member]:
        """All members of a batch, by key."""
        return {one.key: one for answer in await self.answers(batch_id) for one in answer.members}

    async def answers(self, batch_id: str = "b1", **page: Any) -> Sequence[pb.ListMembersResponse]:
        request = pb.ListMembersRequest(tenant_id="acme", batch_id=batch_id, **page)
        return [answer async for answer in self.stub.ListMembers(request)]


def lines_of(members: Iterable[dict[str, Any]]) -> bytes:
    """JSON Lines."""
    return b"".join(json.dumps(one).encode() + b"\n" for one in members)


def member(number: int, **more: Any) -> dict[str, Any]:
    """One with a destination on the channel twilio."""
    return {"member_key": f"m{number}", "destinations": [{"channel": "twilio", "recipient": phone(number)}], **more}


def phone(number: int) -> str:
    return f"+1500555{number:04d}"


@asynccontextmanager
async def register_of(rig: Rig) -> AsyncIterator[Register]:
    """The service of the normalizer that ``rig`` is, and the tenant acme."""
    await rig.register(make.tenant("acme"))
    async with connect(rig.settings.normalizer_grpc_listen, rig.settings) as channel:
        # Reads of one moment fail while the collection that they read is being made.
        watched = cast(Any, health_pb2_grpc.HealthStub(channel)).Watch(health_pb2.HealthCheckRequest())
        async for answer in watched:
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                break
        yield Register(cast(Any, CommunicationServiceStub(channel)))
