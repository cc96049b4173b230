"""``/admin/v1``: the platform team's API."""

from __future__ import annotations

from typing import Annotated, Any, Protocol

from backhaul_common.tenants import Channel, Tenant
from fastapi import APIRouter, Depends, Query, Request, Response, Security
from fastapi.security import HTTPBearer

from backhaul_gateway.admin.abandoned import refuse_abandoned
from backhaul_gateway.admin.addresses import Addresses
from backhaul_gateway.admin.auditroutes import AuditKeyRoutes
from backhaul_gateway.admin.channelmodels import ChannelIn, ChannelList, ChannelOut
from backhaul_gateway.admin.channels import ChannelRegistry
from backhaul_gateway.admin.configroutes import ConfigRoutes
from backhaul_gateway.admin.models import (
    IssuedKeyOut,
    KeyIn,
    NewTenantOut,
    TenantIn,
    TenantOut,
    TenantPage,
    TenantPatch,
)
from backhaul_gateway.admin.secretkeys import SecretKeyRoutes
from backhaul_gateway.admin.serviceroutes import ServiceRoutes
from backhaul_gateway.admin.services import ServiceRegistry
from backhaul_gateway.admin.tenants import MAX_TENANTS_A_PAGE, TenantRegistry
from backhaul_gateway.admin.whoami import whoami_of_admins
from backhaul_gateway.web.changes import begun
from backhaul_gateway.web.openapi import problems
from backhaul_gateway.web.parameters import known_parameters

_Cursor = Annotated[str, Query(max_length=64, description="next_cursor of the page before.")]
_Limit = Annotated[int, Query(ge=1, le=MAX_TENANTS_A_PAGE)]
_Purge = Annotated[bool, Query(description="Delete it with all its data; otherwise data refuses it.")]
_Registration = Annotated[
    str, Query(max_length=100, description="Delete only this registration; 404 when another one has the id.")
]


class Routes(Protocol):
    """Routes for the platform team, which may be of another folder."""

    def add_to(self, router: APIRouter) -> None:
        """Add them."""
        ...


def admin_router(
    registry: TenantRegistry,
    channels: ChannelRegistry,
    addresses: Addresses,
    *others: Routes,
) -> APIRouter:
    """The routes about tenants over the use cases, and ``others`` under a tenant's path."""
    router = _router("/admin/v1/tenants")
    TenantRoutes(registry, addresses).add_to(router)
    ChannelRoutes(channels, addresses).add_to(router)
    for routes in others:
        routes.add_to(router)
    return router


def service_router(registry: ServiceRegistry) -> APIRouter:
    """The routes about service accounts over the use cases."""
    router = _router("/admin/v1/services")
    ServiceRoutes(registry).add_to(router)
    return router


def overview_router(overviews: Routes) -> APIRouter:
    """All tenants at a glance."""
    router = _router("/admin/v1/overview")
    overviews.add_to(router)
    return router


def change_router(changes: Routes) -> APIRouter:
    """What was changed, and by whom."""
    router = _router("/admin/v1/changes")
    changes.add_to(router)
    return router


def audit_key_router(keys: AuditKeyRoutes) -> APIRouter:
    """The routes about the keys of audit files."""
    router = _router("/admin/v1/audit-keys")
    keys.add_to(router)
    return router


def whoami_router() -> APIRouter:
    """What an admin token opens."""
    return whoami_of_admins(_router("/admin/v1"))


def config_router(config: ConfigRoutes) -> APIRouter:
    """The routes about all that is configured."""
    router = _router("/admin/v1")
    config.add_to(router)
    return router


def secret_key_router(keys: SecretKeyRoutes) -> APIRouter:
    """The routes about the ring of keys."""
    router = _router("/admin/v1/secret-keys")
    keys.add_to(router)
    return router


def _router(prefix: str) -> APIRouter:
    """``Edge`` has looked at the admin token before a request comes here, since FastAPI would read the body first. The
    scheme below only documents the token."""
    token = HTTPBearer(scheme_name="AdminToken", description="The platform team's token.", auto_error=False)
    return APIRouter(
        prefix=prefix,
        tags=["admin"],
        dependencies=[Security(token), Depends(_known_parameters), Depends(refuse_abandoned), Depends(begun)],
        responses=problems(401, 403, 422, 503),
    )


class TenantRoutes:
    """Tenants and their keys."""

    def __init__(self, registry: TenantRegistry, addresses: Addresses) -> None:
        self._registry = registry
        self._addresses = addresses

    def add_to(self, router: APIRouter) -> None:
        """Add each method below under its path."""
        add = router.add_api_route
        add("", self.create_tenant, methods=["POST"], status_code=201, responses=problems(400, 409, 413, 422))
        add("", self.list_tenants, methods=["GET"], responses=problems(422))
        add("/{tenant_id}", self.get_tenant, methods=["GET"], responses=problems(404))
        add("/{tenant_id}", self.change_tenant, methods=["PATCH"], responses=problems(400, 404, 409, 413, 422))
        add(
            "/{tenant_id}",
            self.delete_tenant,
            methods=["DELETE"],
            status_code=204,
            responses={
                202: {"model": TenantOut, "description": "It is being deleted, and gone when GET answers 404."},
                204: {"description": "It is gone."},
                **problems(404, 409, 422, 504),
            },
        )
        add(
            "/{tenant_id}/keys",
            self.add_key,
            methods=["POST"],
            status_code=201,
            responses=problems(400, 404, 409, 413, 422),
        )
        add(
            "/{tenant_id}/keys/{key_id}",
            self.delete_key,
            methods=["DELETE"],
            status_code=204,
            responses=problems(404),
        )

    async def create_tenant(self, body: TenantIn) -> NewTenantOut:
        """Register a tenant. Its API key and ingest token are in this answer and nowhere else."""
        tenant, api_key, ingest_token = await self._registry.create(
            body.id,
            body.name,
            body.queue_path,
            body.limits.given(),
            body.suppression.given(),
            body.audit.given(),
            body.retention.given(),
        )
        return NewTenantOut(**self._shown(tenant).model_dump(), api_key=api_key.text, ingest_token=ingest_token.text)

    async def list_tenants(self, cursor: _Cursor = "", limit: _Limit = 100) -> TenantPage:
        """Tenants by id."""
        found = await self._registry.page(cursor, limit + 1)
        page = found[:limit]
        return TenantPage(
            tenants=[self._shown(tenant) for tenant in page],
            next_cursor=page[-1].id if len(found) > limit else None,
        )

    async def get_tenant(self, tenant_id: str) -> TenantOut:
        """One tenant."""
        return self._shown(await self._registry.get(tenant_id))

    async def change_tenant(self, tenant_id: str, body: TenantPatch) -> TenantOut:
        """Change name, limits, suppression, retention or status. Id and queue path cannot be changed."""
        return self._shown(
            await self._registry.change(
                tenant_id,
                name=body.name,
                limits=body.limits.given(),
                suppression=body.suppression.given(),
                audit=body.audit.given(),
                retention=body.retention.given(),
                status=body.status,
            )
        )

    async def delete_tenant(self, tenant_id: str, purge: _Purge = False, registration: _Registration = "") -> Response:
        """Delete a tenant. One that has data is refused, unless it is to be purged. A purge cannot be taken back, and
        comes to its end by itself. Until then the tenant is in status deleting, and its id and queue path are taken."""
        tenant = await self._registry.delete(tenant_id, purge=purge, registration=registration)
        if tenant is None:
            return Response(status_code=204)
        return Response(self._shown(tenant).model_dump_json(), 202, media_type="application/json")

    async def add_key(self, tenant_id: str, body: KeyIn | None = None) -> IssuedKeyOut:
        """One more API key or ingest token; the others stay valid. Its text is in this answer and nowhere else."""
        tenant, issued = await self._registry.add_credential(tenant_id, (body or KeyIn()).wanted())
        return IssuedKeyOut.issued(issued, tenant, self._addresses)

    async def delete_key(self, tenant_id: str, key_id: str) -> None:
        """Revoke a key or token."""
        await self._registry.remove_credential(tenant_id, key_id)

    def _shown(self, tenant: Tenant) -> TenantOut:
        return TenantOut.of(tenant, self._addresses)


class ChannelRoutes:
    """A tenant's channels."""

    def __init__(self, channels: ChannelRegistry, addresses: Addresses) -> None:
        self._channels = channels
        self._addresses = addresses

    def add_to(self, router: APIRouter) -> None:
        """Add each method below under its path."""
        add = router.add_api_route
        channels, channel = "/{tenant_id}/channels", "/{tenant_id}/channels/{label}"
        created: dict[int | str, dict[str, Any]] = {201: {"model": ChannelOut, "description": "Created"}}
        add(channels, self.list_channels, methods=["GET"], responses=problems(404))
        add(channel, self.put_channel, methods=["PUT"], responses={**created, **problems(400, 404, 409, 413, 422)})
        add(channel, self.get_channel, methods=["GET"], responses=problems(404))
        add(channel, self.delete_channel, methods=["DELETE"], status_code=204, responses=problems(404))

    async def list_channels(self, tenant_id: str) -> ChannelList:
        """The tenant's channels."""
        return ChannelList(channels=[self._shown(channel) for channel in await self._channels.list(tenant_id)])

    async def put_channel(self, tenant_id: str, label: str, body: ChannelIn, response: Response) -> ChannelOut:
        """Create a channel, or change its configuration. What is left out stays as it is: provider, secrets, settings,
        verification, processing. An empty list or object resets."""
        channel, created = await self._channels.put(tenant_id, body.request(label))
        response.status_code = 201 if created else 200
        return self._shown(channel)

    async def get_channel(self, tenant_id: str, label: str) -> ChannelOut:
        """One channel, without its secrets."""
        return self._shown(await self._channels.get(tenant_id, label))

    async def delete_channel(self, tenant_id: str, label: str) -> None:
        """Remove a channel. What it brought stays."""
        await self._channels.delete(tenant_id, label)

    def _shown(self, channel: Channel) -> ChannelOut:
        return ChannelOut.of(channel, self._addresses)


async def _known_parameters(request: Request) -> None:
    # A coroutine, since FastAPI runs plain functions in a thread.
    known_parameters(request)
