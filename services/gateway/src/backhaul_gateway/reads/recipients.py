"""``DELETE /v1/recipients/{address}``: a person of one tenant is erased from every service, and what stays is named."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import STREAMS
from backhaul_common.tenants import Tenant
from backhaul_common.times import time_of
from backhaul_proto.tenantdata.v1 import tenantdata_pb2 as pb
from fastapi import APIRouter, Path
from pydantic import BaseModel

from backhaul_gateway.reads.callers import By
from backhaul_gateway.web.filters import Text
from backhaul_gateway.web.openapi import problems

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; grpc.aio's channels make the one class answer awaitables.
    from backhaul_proto.tenantdata.v1.tenantdata_pb2_grpc import TenantDataServiceAsyncStub

MAX_ERASE_S = 30.0
"""What a call has before it is 504: a service erases for 15 seconds at most, and ends what it is at."""

_Address = Annotated[Text, Path(min_length=1, max_length=512, description="In any spelling, of any channel.")]


class KeptOut(BaseModel):
    """What stays of the person, and why. ``count`` is null where it is not counted, ``until`` where it does not go by
    itself."""

    kind: str
    count: int | None
    reason: str
    until: str | None


class ServiceErasureOut(BaseModel):
    """What one service did. ``erases`` is false of one that keeps what it has. What had arrived before
    ``erased_before`` is erased; ``erased`` says how much of each kind, in this call and those before it."""

    service: str
    erases: bool
    erased_before: str | None
    erased: dict[str, int]
    kept: list[KeptOut]


class StreamErasureOut(BaseModel):
    """A stream, in which nothing can be erased. All of the person is gone from it at ``until``; null where callbacks
    are held, and stay until their channel's processing goes on."""

    stream: str
    until: str | None


class RecipientErasureOut(BaseModel):
    """The receipt. ``complete`` is whether every service erases people."""

    complete: bool
    services: list[ServiceErasureOut]
    streams: list[StreamErasureOut]


class RecipientRoutes:
    """What is kept of a tenant's recipients, by every service."""

    def __init__(
        self,
        services: Mapping[str, TenantDataServiceAsyncStub],
        *,
        stream_max_age_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``services`` by their names, as people know them; ``clock`` is in seconds since 1970."""
        self._services = services
        self._stream_max_age_s = stream_max_age_s
        self._clock = clock
        self._under_way: set[str] = set()

    def add_to(self, router: APIRouter) -> None:
        """Add the method below under its path."""
        router.add_api_route(
            "/recipients/{address:path}",
            self.erase,
            methods=["DELETE"],
            response_model=RecipientErasureOut,
            responses=problems(404, 409),
        )

    async def erase(self, by: By, address: _Address) -> RecipientErasureOut:
        """Erase a person: what callbacks told of them until now, in every service. Counts and states stay, without
        anything that says who it was; so do suppressions, so that an opt-out goes on being honoured. What arrives from
        now on is kept as ever. May be repeated; 503 with Retry-After where more is left than one call erases, and
        the same call again goes on."""
        tenant = by.tenant.id
        if tenant in self._under_way:
            # Each goes through all that the tenant has.
            raise BackhaulError(
                Code.UNAVAILABLE,
                "Another person of the tenant is being erased.",
                fix="Erase people one after another.",
                retry_after_s=1,
            )
        self._under_way.add(tenant)
        try:
            return await self._erase(by.tenant, address)
        finally:
            self._under_way.discard(tenant)

    async def _erase(self, tenant: Tenant, address: str) -> RecipientErasureOut:
        now = self._clock()
        request = pb.EraseRecipientRequest(
            tenant_id=tenant.id,
            registration=tenant.registration,
            address=address,
            before_us=round(now * 1e6),
        )
        # All are asked, also where one fails: the next call has less to do.
        answers = await asyncio.gather(
            *(service.EraseRecipient(request, timeout=MAX_ERASE_S) for service in self._services.values()),
            return_exceptions=True,
        )
        failed = [answer for answer in answers if isinstance(answer, BaseException)]
        # What waiting does not mend is said first.
        for error in sorted(failed, key=_passes):
            raise error
        services = [
            _service(name, answer)
            for name, answer in zip(self._services, answers, strict=True)
            if not isinstance(answer, BaseException)
        ]
        held = any(channel.processing == "held" for channel in tenant.channels.values())
        gone_at = time_of(round((now + self._stream_max_age_s) * 1e6))
        return RecipientErasureOut(
            complete=all(one.erases for one in services),
            services=services,
            streams=[StreamErasureOut(stream=name, until=None if held else gone_at) for name in STREAMS],
        )


def _passes(error: BaseException) -> bool:
    return isinstance(error, BackhaulError) and error.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED)


def _service(name: str, answer: pb.EraseRecipientResponse) -> ServiceErasureOut:
    return ServiceErasureOut(
        service=name,
        erases=answer.supported,
        erased_before=time_of(answer.erased_before_us),
        erased={one.kind: one.count for one in answer.erased},
        kept=[
            KeptOut(kind=one.kind, count=one.count or None, reason=one.reason, until=time_of(one.until_us))
            for one in answer.kept
        ],
    )
