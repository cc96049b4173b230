"""What is registered of communications, over gRPC, by a tenant of the bench."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import TYPE_CHECKING

from backhaul_proto.normalizer.v1 import communications_pb2 as pb
from backhaul_proto.normalizer.v1.communications_pb2_grpc import CommunicationServiceStub
from generators import LoadError
from installation import Installation
from suppressing import channel_to

if TYPE_CHECKING:
    from backhaul_proto.normalizer.v1.communications_pb2_grpc import CommunicationServiceAsyncStub

_PIECE_LINES = 2000


class Registry:
    """Calls of one tenant."""

    def __init__(self, stub: CommunicationServiceAsyncStub, token: str, tenant: str) -> None:
        self._stub = stub
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._tenant = tenant

    async def open(self, communication: str, batch: str, channel: str, members: int) -> None:
        """Register a communication with a batch that closes when it has so many members."""
        settings = pb.CommunicationSettings(channel=channel)
        await self._stub.PutCommunication(
            pb.PutCommunicationRequest(tenant_id=self._tenant, communication_id=communication, settings=settings),
            metadata=self._metadata,
        )
        await self._stub.PutBatch(
            pb.PutBatchRequest(
                tenant_id=self._tenant, communication_id=communication, batch_id=batch, expected_members=members
            ),
            metadata=self._metadata,
        )

    async def add(self, batch: str, pieces: Iterable[bytes]) -> int:
        """Add the members of a file of JSON lines that comes in these pieces; how many there were. LoadError where one
        of them was not new."""
        said = [one async for one in self._stub.AddMembers(self._requests(batch, pieces), metadata=self._metadata)]
        if not said[-1].done or said[-1].added != said[-1].lines:
            raise LoadError(f"Not all members of {batch} were added: {said[-1]}")
        return said[-1].added

    def _requests(self, batch: str, pieces: Iterable[bytes]) -> Iterator[pb.AddMembersRequest]:
        yield pb.AddMembersRequest(tenant_id=self._tenant, batch_id=batch, format=pb.MEMBER_FORMAT_JSON_LINES)
        for piece in pieces:
            yield pb.AddMembersRequest(data=piece)
        yield pb.AddMembersRequest(last=True)

    async def batch(self, batch: str) -> pb.Batch:
        """The batch as it is."""
        request = pb.GetBatchRequest(tenant_id=self._tenant, batch_id=batch)
        return (await self._stub.GetBatch(request, metadata=self._metadata)).batch

    async def members(self, batch: str) -> AsyncIterator[Sequence[pb.Member]]:
        """All members, answer by answer."""
        request = pb.ListMembersRequest(tenant_id=self._tenant, batch_id=batch)
        async for answer in self._stub.ListMembers(request, metadata=self._metadata):
            yield answer.members

    async def page(self, batch: str, size: int, token: str) -> pb.ListMembersResponse:
        """The page of so many members that the token is of."""
        request = pb.ListMembersRequest(tenant_id=self._tenant, batch_id=batch, page_size=size, page_token=token)
        (answer,) = [one async for one in self._stub.ListMembers(request, metadata=self._metadata)]
        return answer


@asynccontextmanager
async def registry(site: Installation, tenant: str) -> AsyncIterator[Registry]:
    """Calls of ``tenant`` to the normalizer, which runs."""
    service = site.stack.service("normalizer")
    async with channel_to(service) as channel:
        yield Registry(CommunicationServiceStub(channel), service.env["BACKHAUL_INTERNAL_TOKEN"], tenant)


def lines(members: Iterable[tuple[str, str]]) -> Iterator[bytes]:
    """A file of JSON lines in pieces, with a line for each key and recipient of ``members``."""
    source = iter(members)
    while some := list(islice(source, _PIECE_LINES)):
        yield b"".join(_line(*one) for one in some)


def _line(key: str, recipient: str) -> bytes:
    attributes = {"first_name": "Ada", "city": "Lisbon", "language": "pt"}
    member = {"member_key": key, "attributes": attributes, "destinations": [{"recipient": recipient}]}
    return json.dumps(member).encode() + b"\n"
