"""``/api/test``, ``/api/status`` and ``/v1``: what tenants ask."""

# No postponed annotations here: FastAPI reads those of functions that are made inside of a function.
from collections.abc import Sequence
from typing import Annotated, Protocol

from backhaul_common.names import channel_key
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from backhaul_gateway.admission.refusals import no_channel
from backhaul_gateway.admission.state import TenantState, TenantStates
from backhaul_gateway.admission.strangers import Strangers
from backhaul_gateway.reads.callers import By, Callers
from backhaul_gateway.reads.status import ChannelStatus, StatusOut
from backhaul_gateway.web.openapi import problems
from backhaul_gateway.web.parameters import label_of


class Routes(Protocol):
    """The routes over one service."""

    def add_to(self, router: APIRouter) -> None:
        """Add them."""
        ...


class AccessOut(BaseModel):
    """The service is accessible."""

    status: str = "ok"
    version: str


def tenant_router(
    callers: Callers,
    services: Sequence[Routes],
    optional: Sequence[Routes],
    *,
    strangers: Strangers,
    states: TenantStates,
    status: ChannelStatus,
    version: str,
) -> APIRouter:
    """The routes over ``services``, over those that may not be installed, and the status."""
    api = callers.router("/api")
    v1 = callers.router("/v1", 422, 504)
    of_optional = callers.router("/v1", 422, 501, 504)
    top = APIRouter()

    @top.get("/api/test", tags=["operations"])
    async def test() -> AccessOut:
        """Whether the service is accessible; asks for no credential."""
        return AccessOut(version=version)

    @api.get("/status", responses=problems(404, 422))
    async def channel_status(
        request: Request,
        by: By,
        channelLabel: Annotated[str | None, Query(description="The channel's label, in any case. Required.")] = None,  # noqa: ARG001, N803  # the parameter's public name, in any case; read from the raw query
    ) -> StatusOut:
        """The channel's overall state with each part of it. Error without object storage, whatever else works."""
        label = label_of(request.scope["query_string"])
        state: TenantState | None = by
        if label and channel_key(label) not in by.tenant.channels:
            await strangers.channel(by, channel_key(label))
            state = states.get(by.tenant.id)
        tenant = (state or by).tenant
        channel = tenant.channels.get(channel_key(label)) if label else None
        if channel is None:
            raise no_channel(tenant, label)
        return await status.of(tenant, channel)

    for service in services:
        service.add_to(v1)
    for service in optional:
        service.add_to(of_optional)
    top.routes.extend([*api.routes, *v1.routes, *of_optional.routes])
    return top
