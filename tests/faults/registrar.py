"""Whoever registers communications, batches and members at two copies of the normalizer, of which one may be away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.rpc import connect
from backhaul_common.settings import GrpcSettings
from backhaul_proto.normalizer.v1 import communications_pb2 as pb
from backhaul_proto.normalizer.v1.communications_pb2_grpc import CommunicationServiceStub
from backhaul_testing.waiting import until
from pydantic import SecretStr
from simulators.people import Tenant

if TYPE_CHECKING:
    from backhaul_local.stack import Stack
    from backhaul_proto.normalizer.v1.communications_pb2_grpc import CommunicationServiceAsyncStub

T = TypeVar("T")

TRY_S = 3.0
"""So long a copy is waited for, before the other one is asked."""

_PAUSE_S = 0.1
# A call that was given up counts among those that may be made at once until its copy has heard of it.
_AGAIN = (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.RATE_LIMITED)


class Registrar:
    """Repeats each call at the next copy, until one answers. ``repeated`` counts what was not answered."""

    def __init__(self, stubs: Sequence[CommunicationServiceAsyncStub]) -> None:
        self.stubs = stubs
        self.repeated = 0
        self._next = 0

    async def communication(self, tenant: Tenant, communication_id: str, **settings: Any) -> None:
        told = pb.CommunicationSettings(**settings)
        request = pb.PutCommunicationRequest(tenant_id=tenant.id, communication_id=communication_id, settings=told)
        await self.said(lambda stub: stub.PutCommunication(request))

    async def batch(self, tenant: Tenant, communication_id: str, batch_id: str, **told: Any) -> None:
        request = pb.PutBatchRequest(tenant_id=tenant.id, communication_id=communication_id, batch_id=batch_id, **told)
        await self.said(lambda stub: stub.PutBatch(request))

    async def close(self, tenant: Tenant, batch_id: str) -> None:
        request = pb.CloseBatchRequest(tenant_id=tenant.id, batch_id=batch_id)
        await self.said(lambda stub: stub.CloseBatch(request))

    async def add(self, tenant: Tenant, batch_id: str, members: Iterable[dict[str, Any]]) -> pb.AddMembersResponse:
        """The last answer to a file of these members."""
        first = pb.AddMembersRequest(
            tenant_id=tenant.id,
            batch_id=batch_id,
            format=pb.MEMBER_FORMAT_JSON_LINES,
            data=b"".join(json.dumps(one).encode() + b"\n" for one in members),
            last=True,
        )

        async def added(stub: CommunicationServiceAsyncStub) -> pb.AddMembersResponse:
            return [answer async for answer in stub.AddMembers(iter([first]))][-1]

        return await self.said(added)

    async def said(self, call: Callable[[CommunicationServiceAsyncStub], Awaitable[T]]) -> T:
        """What the first copy answers that answers."""

        async def probe() -> tuple[T] | None:
            self._next += 1
            try:
                async with asyncio.timeout(TRY_S):
                    return (await call(self.stubs[self._next % len(self.stubs)]),)
            except TimeoutError:
                pass
            except BackhaulError as exc:
                if exc.code not in _AGAIN:
                    raise
            self.repeated += 1
            return None

        return (await until("an answer of any copy", probe, within_s=60, pause_s=_PAUSE_S))[0]


@asynccontextmanager
async def registrar(stack: Stack, *copies: str) -> AsyncIterator[Registrar]:
    """One that asks these normalizers of ``stack``."""
    async with AsyncExitStack() as closing:
        stubs: list[Any] = []
        for copy in copies:
            service = stack.service(copy)
            ca, cert, key = (Path(service.env[f"BACKHAUL_GRPC_TLS_{name}_FILE"]) for name in ("CA", "CERT", "KEY"))
            settings = GrpcSettings(
                grpc_tls_ca_file=ca,
                grpc_tls_cert_file=cert,
                grpc_tls_key_file=key,
                internal_token=SecretStr(stack.credentials.internal_token),
            )
            channel = connect(f"127.0.0.1:{service.ports['grpc']}", settings)
            closing.push_async_callback(channel.close)
            stubs.append(cast(Any, CommunicationServiceStub(channel)))
        yield Registrar(stubs)
