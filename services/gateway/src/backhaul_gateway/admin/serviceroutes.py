"""``/admin/v1/services``: who may call Backhaul's services over gRPC."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from backhaul_gateway.admin.servicemodels import (
    IssuedTokenOut,
    NewServiceOut,
    ServiceIn,
    ServiceOut,
    ServicePage,
    ServicePatch,
    TokenIn,
    TokenOut,
)
from backhaul_gateway.admin.services import MAX_SERVICES_A_PAGE, ServiceRegistry
from backhaul_gateway.web.openapi import problems

_Cursor = Annotated[str, Query(max_length=64, description="next_cursor of the page before.")]
_Limit = Annotated[int, Query(ge=1, le=MAX_SERVICES_A_PAGE)]


class ServiceRoutes:
    """Service accounts and their tokens."""

    def __init__(self, registry: ServiceRegistry) -> None:
        self._registry = registry

    def add_to(self, router: APIRouter) -> None:
        """Add each method below under its path."""
        add = router.add_api_route
        one, tokens = "/{service_id}", "/{service_id}/tokens"
        add("", self.create_service, methods=["POST"], status_code=201, responses=problems(400, 409, 413, 422))
        add("", self.list_services, methods=["GET"], responses=problems(422))
        add(one, self.get_service, methods=["GET"], responses=problems(404))
        add(one, self.change_service, methods=["PATCH"], responses=problems(400, 404, 409, 413, 422))
        add(one, self.delete_service, methods=["DELETE"], status_code=204, responses=problems(404))
        add(tokens, self.add_token, methods=["POST"], status_code=201, responses=problems(400, 404, 409, 413, 422))
        add(f"{tokens}/{{token_id}}", self.delete_token, methods=["DELETE"], status_code=204, responses=problems(404))

    async def create_service(self, body: ServiceIn) -> NewServiceOut:
        """Let a system call Backhaul's services over gRPC. Its token is in this answer and nowhere else."""
        account, issued = await self._registry.create(
            body.id, limits=body.limits.given(), expires_at=body.token_expires_at, **body.values()
        )
        return NewServiceOut(**ServiceOut.of(account).model_dump(), token=issued.text)

    async def list_services(self, cursor: _Cursor = "", limit: _Limit = 100) -> ServicePage:
        """Service accounts by id."""
        found = await self._registry.page(cursor, limit + 1)
        page = found[:limit]
        return ServicePage(
            services=[ServiceOut.of(account) for account in page],
            next_cursor=page[-1].id if len(found) > limit else None,
        )

    async def get_service(self, service_id: str) -> ServiceOut:
        """One service account."""
        return ServiceOut.of(await self._registry.get(service_id))

    async def change_service(self, service_id: str, body: ServicePatch) -> ServiceOut:
        """Change what it may do, or disable it. What it may not do any more is refused at once, and streams that it has
        open for that end. Its id cannot be changed."""
        return ServiceOut.of(await self._registry.change(service_id, limits=body.limits.given(), **body.values()))

    async def delete_service(self, service_id: str) -> None:
        """Delete a service account. What it added and lifted stays, signed by it."""
        await self._registry.delete(service_id)

    async def add_token(self, service_id: str, body: TokenIn | None = None) -> IssuedTokenOut:
        """One more token; the others stay valid, or expire when others_expire_at says. Its text is in this answer and
        nowhere else."""
        wanted = body or TokenIn()
        issued = await self._registry.add_token(
            service_id, expires_at=wanted.expires_at, others_expire_at=wanted.others_expire_at
        )
        return IssuedTokenOut(**TokenOut.of(issued.token).model_dump(), token=issued.text)

    async def delete_token(self, service_id: str, token_id: str) -> None:
        """Revoke a token."""
        await self._registry.remove_token(service_id, token_id)
