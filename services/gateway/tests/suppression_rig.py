"""A suppression service of the tests, on a real port: it answers what a test gave it, and keeps what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from backhaul_client.adminmodels import NewTenant
from backhaul_common.errors import BackhaulError
from backhaul_common.rpc import keepalive
from backhaul_common.rpc.errors import DETAILS_KEY, to_details
from backhaul_proto.event.v1.event_pb2 import ADDRESS_FAMILY_PHONE
from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from backhaul_proto.suppression.v1 import suppression_pb2_grpc
from gateway_rig import GatewayFactory, Running

ROW = pb.Suppression(
    id="0" * 32,
    family=ADDRESS_FAMILY_PHONE,
    address="+15005550001",
    kind=pb.SUPPRESSION_KIND_STOP,
    scope=pb.Scope(kind=pb.SCOPE_KIND_ALL),
    active=True,
    since_us=1_700_000_000_000_001,
    recorded_at_us=1_700_000_000_000_002,
    origin=pb.ORIGIN_RECIPIENT,
    source=pb.SOURCE_EVENT,
    event_id="e" * 32,
    due_by_us=1_701_000_000_000_000,
    blocks=[pb.PURPOSE_MARKETING, pb.PURPOSE_TRANSACTIONAL],
    position=7,
)
SHOWN = {
    "id": "0" * 32,
    "family": "phone",
    "address": "+15005550001",
    "kind": "stop",
    "scope": {"kind": "all", "id": None},
    "active": True,
    "since": "2023-11-14T22:13:20.000001Z",
    "recorded_at": "2023-11-14T22:13:20.000002Z",
    "origin": "recipient",
    "source": "event",
    "event_id": "e" * 32,
    "author": None,
    "due_by": "2023-11-26T12:00:00.000000Z",
    "blocks": ["marketing", "transactional"],
    "position": 7,
}


def change(position: int) -> pb.Change:
    fact = pb.Fact(id="f" * 32, origin=pb.ORIGIN_RECIPIENT, source=pb.SOURCE_EVENT, word="STOP")
    return pb.Change(position=position, suppression=ROW, fact=fact, at_us=1_700_000_000_000_002)


class FakeSuppression(suppression_pb2_grpc.SuppressionServiceServicer):
    """``answers`` are by the name of a call: one answer, or the answers of a stream, after which a watch stays open."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.answers: dict[str, Any] = {}
        self.refusal: BackhaulError | None = None
        self.hangs = asyncio.Event()
        """Set while a watch is open that has nothing more to tell."""
        self.ended = asyncio.Event()
        """Set when a stream's client has left it."""
        self.read = bytearray()
        """What has come of a list."""
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def _answer(self, name: str, request: Any, context: Any) -> Any:
        self.asked.append(request)
        await self._refuse(context)
        await self.may_answer.wait()
        return self.answers[name]

    async def _refuse(self, context: Any) -> None:
        if self.refusal is not None:
            details = ((DETAILS_KEY, to_details(self.refusal)),)
            await context.abort(self.refusal.meaning.grpc_status, self.refusal.message, details)

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        return await self._answer("Check", request, context)

    async def CheckBatch(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        return await self._answer("CheckBatch", request, context)

    async def Add(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        return await self._answer("Add", request, context)

    async def Lift(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        return await self._answer("Lift", request, context)

    async def Reactivate(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        return await self._answer("Reactivate", request, context)

    async def Get(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        return await self._answer("Get", request, context)

    async def List(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        return await self._answer("List", request, context)

    async def Watch(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        self.asked.append(request)
        await self._refuse(context)
        try:
            for answer in self.answers["Watch"]:
                yield answer
            self.hangs.set()
            await asyncio.Event().wait()
        finally:
            self.ended.set()

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        self.asked.append(request)
        try:
            for answer in self.answers["Export"]:
                yield answer
            await self._refuse(context)
        finally:
            self.ended.set()

    async def Import(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        answers = iter(self.answers["Import"])
        first = True
        try:
            async for piece in request:
                await self.may_read.wait()
                self.asked.append(piece)
                await self._refuse(context)
                self.read += piece.data
                if first:
                    yield pb.ImportResponse()
                    first = False
                # One answer a piece while there is more than the last one.
                if piece.data and len(self.answers["Import"]) > 1 and (answer := next(answers, None)) is not None:
                    yield answer
            for answer in answers:
                yield answer
        finally:
            self.ended.set()


@dataclass
class Rig:
    """A gateway over a suppression service, and a tenant."""

    gateway: Running
    suppression: FakeSuppression
    tenant: NewTenant

    @property
    def headers(self) -> dict[str, str]:
        return {"X-Api-Key": self.tenant.api_key}

    @property
    def author(self) -> str:
        """Whom a change names."""
        return f"key:{self.tenant.api_key.split('_')[1]}"

    async def get(self, path: str, **params: str | int | float) -> Any:
        return await self.gateway.client.get(f"/v1/suppressions{path}", params=params, headers=self.headers)

    async def post(self, path: str, body: Any, **headers: str) -> Any:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.gateway.client.post(f"/v1/suppressions{path}", json=body, headers={**self.headers, **headers})


@asynccontextmanager
async def suppressing(factory: GatewayFactory, nats_url: str, **settings: Any) -> AsyncIterator[Rig]:
    suppression = FakeSuppression()  # type: ignore[abstract]  # grpc answers the other calls with UNIMPLEMENTED
    server = grpc.aio.server(options=keepalive.of_server())
    suppression_pb2_grpc.add_SuppressionServiceServicer_to_server(suppression, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with factory(nats_url, gateway_suppression_target=f"127.0.0.1:{port}", **settings) as gateway:
            yield Rig(gateway, suppression, await gateway.tenant())
    finally:
        await server.stop(0)
