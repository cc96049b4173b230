"""An audit service of the tests, on a real port: it answers what a test gave it, and keeps what it was asked."""

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
from backhaul_proto.audit.v1 import audit_pb2 as pb
from backhaul_proto.audit.v1 import audit_pb2_grpc
from gateway_rig import GatewayFactory, Running

FILE_ID = "5b5f3c1e" * 4
NAME = "AUDIT_20231114221320000_5b5f3c1e-5b5f-3c1e-5b5f-3c1e5b5f3c1e_Events.json"
FILE = pb.AuditFile(
    id=FILE_ID,
    channel="sendgrid",
    chain=pb.CHAIN_EVENTS,
    number=7,
    bucket="backhaul",
    key=f"tenants/acme.1/events/{NAME}",
    format=pb.FILE_FORMAT_JSON_LINES,
    events=3,
    bytes=42,
    sha256="ab" * 32,
    inflated_bytes=42,
    inflated_sha256="ab" * 32,
    first_position=10,
    last_position=20,
    first_at_us=1_700_000_000_000_000,
    last_at_us=1_700_000_001_000_000,
    sealed_at_us=1_700_000_002_000_000,
    digest=2,
    encrypted=True,
)
FILE_SHOWN = {
    "id": FILE_ID,
    "channel": "sendgrid",
    "chain": "events",
    "number": 7,
    "bucket": "backhaul",
    "key": f"tenants/acme.1/events/{NAME}",
    "format": "jsonl",
    "gzip": False,
    "events": 3,
    "bytes": 42,
    "sha256": "ab" * 32,
    "inflated_bytes": 42,
    "inflated_sha256": "ab" * 32,
    "first_position": 10,
    "last_position": 20,
    "first_at": "2023-11-14T22:13:20.000000Z",
    "last_at": "2023-11-14T22:13:21.000000Z",
    "sealed_at": "2023-11-14T22:13:22.000000Z",
    "deleted_at": None,
    "digest": 2,
    "encrypted": True,
}
DIGEST = pb.Digest(
    chain=pb.CHAIN_EVENTS,
    number=2,
    from_us=1_700_000_000_000_000,
    to_us=1_700_003_600_000_000,
    bucket="backhaul",
    key="digests/acme.1/events/2023/11/14/DIGEST_20231114T231320Z_2.jsonl",
    hash="cd" * 32,
    key_id="1" * 16,
    signature="c2lnbmVk",
    files=1,
)
DIGEST_SHOWN = {
    "chain": "events",
    "number": 2,
    "begins_at": "2023-11-14T22:13:20.000000Z",
    "ends_at": "2023-11-14T23:13:20.000000Z",
    "bucket": "backhaul",
    "key": "digests/acme.1/events/2023/11/14/DIGEST_20231114T231320Z_2.jsonl",
    "hash": "cd" * 32,
    "key_id": "1" * 16,
    "signature": "c2lnbmVk",
    "files": 1,
    "deletions": 0,
}
KEY = pb.PublicKey(key_id="1" * 16, algorithm="Ed25519", public_key="AQ==", created_at_us=1_700_000_000_000_000)
KEY_SHOWN = {
    "key_id": "1" * 16,
    "algorithm": "Ed25519",
    "public_key": "AQ==",
    "created_at": "2023-11-14T22:13:20.000000Z",
}


class FakeAudit(audit_pb2_grpc.AuditServiceServicer):
    """``answers`` are by the name of a call: one answer, or those of a stream."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.answers: dict[str, Any] = {}
        self.refusal: BackhaulError | None = None
        self.breaks: BackhaulError | None = None
        """What a stream ends with behind its answers."""
        self.hangs = False
        """Whether a stream stays open behind its answers."""
        self.hanging = asyncio.Event()
        """Set while one does."""
        self.ended = asyncio.Event()
        """Set when a stream's client has left it."""

    async def _answer(self, name: str, request: Any, context: Any) -> Any:
        self.asked.append(request)
        await _abort(context, self.refusal)
        return self.answers[name]

    async def _stream(self, name: str, request: Any, context: Any) -> AsyncIterator[Any]:
        self.asked.append(request)
        await _abort(context, self.refusal)
        try:
            for answer in self.answers[name]:
                yield answer
            if self.hangs:
                self.hanging.set()
                await asyncio.Event().wait()
            await _abort(context, self.breaks)
        finally:
            self.ended.set()

    async def ListFiles(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        return await self._answer("ListFiles", request, context)

    async def DescribeFile(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        return await self._answer("DescribeFile", request, context)

    async def GetFile(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        async for answer in self._stream("GetFile", request, context):
            yield answer

    async def LinkFile(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        return await self._answer("LinkFile", request, context)

    async def ListDigests(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        return await self._answer("ListDigests", request, context)

    async def GetDigest(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        return await self._answer("GetDigest", request, context)

    async def GetHead(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        return await self._answer("GetHead", request, context)

    async def Prove(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        return await self._answer("Prove", request, context)

    async def Verify(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        async for answer in self._stream("Verify", request, context):
            yield answer

    async def Recount(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        async for answer in self._stream("Recount", request, context):
            yield answer

    async def ErasePerson(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        return await self._answer("ErasePerson", request, context)

    async def GetState(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        return await self._answer("GetState", request, context)

    async def ListKeys(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        return await self._answer("ListKeys", request, context)

    async def RotateKey(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        return await self._answer("RotateKey", request, context)


async def _abort(context: Any, error: BackhaulError | None) -> None:
    if error is not None:
        await context.abort(error.meaning.grpc_status, error.message, ((DETAILS_KEY, to_details(error)),))


@dataclass
class AuditRig:
    """A gateway over an audit service, and a tenant."""

    gateway: Running
    audit: FakeAudit
    tenant: NewTenant

    @property
    def headers(self) -> dict[str, str]:
        return {"X-Api-Key": self.tenant.api_key}

    async def get(self, path: str = "", **params: Any) -> Any:
        return await self.gateway.client.get(f"/v1/audits{path}", params=params, headers=self.headers)


@asynccontextmanager
async def audit_server(audit: FakeAudit) -> AsyncIterator[str]:
    """Its target."""
    server = grpc.aio.server(options=keepalive.of_server())
    audit_pb2_grpc.add_AuditServiceServicer_to_server(audit, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


@asynccontextmanager
async def auditing(factory: GatewayFactory, nats_url: str, **settings: Any) -> AsyncIterator[AuditRig]:
    audit = FakeAudit()
    async with (
        audit_server(audit) as target,
        factory(nats_url, gateway_audit_target=target, **settings) as gateway,
    ):
        yield AuditRig(gateway, audit, await gateway.tenant())
