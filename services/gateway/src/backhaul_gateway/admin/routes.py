"""``/admin/v1``: the platform team's API."""

# No postponed annotations here: FastAPI reads those of functions that are made inside of a function.
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response, Security
from fastapi.security import HTTPBearer

from backhaul_gateway.admin.abandoned import refuse_abandoned
from backhaul_gateway.admin.channels import ChannelRegistry
from backhaul_gateway.admin.models import (
    ChannelIn,
    ChannelList,
    ChannelOut,
    IssuedKeyOut,
    KeyIn,
    NewTenantOut,
    TenantIn,
    TenantOut,
    TenantPage,
    TenantPatch,
)
from backhaul_gateway.admin.tenants import MOST_TENANTS_A_PAGE, TenantRegistry
from backhaul_gateway.web.openapi import problems
from backhaul_gateway.web.parameters import known_parameters

admin_scheme = HTTPBearer(scheme_name="AdminToken", description="The platform team's token.", auto_error=False)


def admin_router(registry: TenantRegistry, channels: ChannelRegistry) -> APIRouter:  # noqa: C901  # flat routes
    """The routes over the use cases. ``Edge`` has looked at the admin token before it lets a request come here: FastAPI
    would read the body first."""

    async def parameters(request: Request) -> None:
        known_parameters(request)

    router = APIRouter(
        prefix="/admin/v1/tenants",
        tags=["admin"],
        dependencies=[Security(admin_scheme), Depends(parameters), Depends(refuse_abandoned)],
        responses=problems(401, 422, 503),
    )

    @router.post("", status_code=201, responses=problems(400, 409, 413, 422))
    async def create_tenant(body: TenantIn) -> NewTenantOut:
        """Register a tenant. Its API key and ingest token are in this answer and nowhere else."""
        tenant, api_key, ingest_token = await registry.create(body.id, body.name, body.queue_path, body.limits.given())
        return NewTenantOut(**TenantOut.of(tenant).model_dump(), api_key=api_key.text, ingest_token=ingest_token.text)

    @router.get("", responses=problems(422))
    async def list_tenants(
        cursor: Annotated[str, Query(max_length=64, description="next_cursor of the page before.")] = "",
        limit: Annotated[int, Query(ge=1, le=MOST_TENANTS_A_PAGE)] = 100,
    ) -> TenantPage:
        """Tenants by id."""
        found = await registry.page(cursor, limit + 1)
        page = found[:limit]
        return TenantPage(
            tenants=[TenantOut.of(tenant) for tenant in page],
            next_cursor=page[-1].id if len(found) > limit else None,
        )

    @router.get("/{tenant_id}", responses=problems(404))
    async def get_tenant(tenant_id: str) -> TenantOut:
        """One tenant."""
        return TenantOut.of(await registry.get(tenant_id))

    @router.patch("/{tenant_id}", responses=problems(400, 404, 409, 413, 422))
    async def change_tenant(tenant_id: str, body: TenantPatch) -> TenantOut:
        """Change name, limits or status. Id and queue path cannot be changed."""
        return TenantOut.of(
            await registry.change(tenant_id, name=body.name, limits=body.limits.given(), status=body.status)
        )

    @router.delete(
        "/{tenant_id}",
        status_code=204,
        responses={
            202: {"model": TenantOut, "description": "It is being deleted, and gone when GET answers 404."},
            204: {"description": "It is gone."},
            **problems(404, 409, 422, 504),
        },
    )
    async def delete_tenant(
        tenant_id: str,
        purge: Annotated[bool, Query(description="Delete it with all its data; otherwise data refuses it.")] = False,
        registration: Annotated[
            str, Query(max_length=100, description="Delete only this registration; 404 when another one has the id.")
        ] = "",
    ) -> Response:
        """Delete a tenant. One that has data is refused, unless it is to be purged. A purge cannot be taken back, and
        comes to its end by itself. Until then the tenant is in status deleting, and its id and queue path are taken."""
        tenant = await registry.delete(tenant_id, purge=purge, registration=registration)
        if tenant is None:
            return Response(status_code=204)
        return Response(TenantOut.of(tenant).model_dump_json(), 202, media_type="application/json")

    @router.post("/{tenant_id}/keys", status_code=201, responses=problems(400, 404, 409, 413, 422))
    async def add_key(tenant_id: str, body: KeyIn | None = None) -> IssuedKeyOut:
        """One more API key or ingest token; the others stay valid. Its text is in this answer and nowhere else."""
        return IssuedKeyOut.of(await registry.add_credential(tenant_id, (body or KeyIn()).kind))

    @router.delete("/{tenant_id}/keys/{key_id}", status_code=204, responses=problems(404))
    async def delete_key(tenant_id: str, key_id: str) -> None:
        """Revoke a key or token."""
        await registry.remove_credential(tenant_id, key_id)

    @router.get("/{tenant_id}/channels", responses=problems(404))
    async def list_channels(tenant_id: str) -> ChannelList:
        """The tenant's channels."""
        return ChannelList(channels=[ChannelOut.of(channel) for channel in await channels.list(tenant_id)])

    @router.put(
        "/{tenant_id}/channels/{label}",
        responses={201: {"model": ChannelOut, "description": "Created"}, **problems(400, 404, 409, 413, 422)},
    )
    async def put_channel(tenant_id: str, label: str, body: ChannelIn, response: Response) -> ChannelOut:
        """Create a channel, or change its configuration. What is left out stays as it is: provider, secrets, settings,
        verification. An empty list or object resets."""
        channel, created = await channels.put(tenant_id, body.request(label))
        response.status_code = 201 if created else 200
        return ChannelOut.of(channel)

    @router.get("/{tenant_id}/channels/{label}", responses=problems(404))
    async def get_channel(tenant_id: str, label: str) -> ChannelOut:
        """One channel, without its secrets."""
        return ChannelOut.of(await channels.get(tenant_id, label))

    @router.delete("/{tenant_id}/channels/{label}", status_code=204, responses=problems(404))
    async def delete_channel(tenant_id: str, label: str) -> None:
        """Remove a channel. What it brought stays."""
        await channels.delete(tenant_id, label)

    return router
