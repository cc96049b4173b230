"""``GET /v1/whoami`` and ``GET /admin/v1/whoami``: what the credential that asks opens, whatever that is."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter
from pydantic import BaseModel, Field

from backhaul_gateway.admin.models import LimitsOut
from backhaul_gateway.admission.auth import unauthenticated
from backhaul_gateway.admission.principal import names_of
from backhaul_gateway.admission.state import TenantStates
from backhaul_gateway.web.guard import Asking


class KeyHolderOut(BaseModel):
    """An API key, as whoever asks has shown it."""

    tenant_id: str
    key_id: str = Field(description="Its public id, by which it can be revoked.")
    scopes: list[str] = Field(description="What it opens.")
    expires_at: datetime | None = Field(description="Null: never.")
    limits: LimitsOut = Field(description="How much its tenant may ask of the gateway.")


class AdminOut(BaseModel):
    """An admin token, as whoever asks has shown it."""

    name: str = Field(description="As the settings name it.")
    role: str = Field(description="`operator`, `support` or `auditor`.")


def whoami_of_tenants(router: APIRouter, states: TenantStates) -> APIRouter:
    """``router`` with the route for API keys. ``states`` know the limits of tenants."""

    async def key(by: Asking) -> KeyHolderOut:
        """Which key this is, what it opens, and how much may be asked with it. Any key of the tenant's may ask."""
        state = states.get(by.tenant_id)
        if state is None:
            raise unauthenticated()
        end = by.expires_at
        return KeyHolderOut(
            tenant_id=by.tenant_id,
            key_id=by.name,
            scopes=list(names_of(by.bits)),
            expires_at=None if end is None else datetime.fromtimestamp(end, UTC),
            limits=LimitsOut.of(state.tenant.limits),
        )

    router.add_api_route("/whoami", key)
    return router


def whoami_of_admins(router: APIRouter) -> APIRouter:
    """``router`` with the route for admin tokens."""
    router.add_api_route("/whoami", _admin)
    return router


async def _admin(by: Asking) -> AdminOut:
    """Which admin token this is, and its role."""
    return AdminOut(name=by.name, role=by.role)
