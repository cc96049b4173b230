"""Who asks on the routes for tenants, and how they are answered. Every answer is about the credential's tenant only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from backhaul_common.errors import BackhaulError, Code
from fastapi import APIRouter, Depends, Request, Security
from fastapi.openapi.models import APIKey, HTTPBase
from fastapi.openapi.models import SecurityBase as SecurityScheme
from fastapi.security.base import SecurityBase

from backhaul_gateway.admission.auth import CredentialIndex
from backhaul_gateway.admission.door import Admission
from backhaul_gateway.admission.refusals import not_active
from backhaul_gateway.admission.state import TenantState, TenantStates
from backhaul_gateway.admission.strangers import Strangers
from backhaul_gateway.twins.writing import Writer
from backhaul_gateway.web.openapi import problems
from backhaul_gateway.web.parameters import known_parameters

_CALLER = "backhaul.caller"
_KEY = "backhaul.key"


class _Documented(SecurityBase):
    """A way to authenticate, for the OpenAPI document only. FastAPI's own classes also read the request, and refuse an
    Authorization that they cannot read even where it is not what counts."""

    def __init__(self, scheme_name: str, model: SecurityScheme) -> None:
        self.scheme_name = scheme_name
        self.model = model

    async def __call__(self) -> None:
        """Ask for nothing: ``CredentialIndex`` reads the headers."""


_SCHEMES = (
    Security(_Documented("ApiKey", APIKey.model_validate({"in": "header", "name": "X-Api-Key"}))),
    Security(_Documented("Bearer", HTTPBase(scheme="bearer", description="The API key."))),
    Security(_Documented("Basic", HTTPBase(scheme="basic", description="Tenant id and API key."))),
)


class Callers:
    """Finds who asks, and whether they may."""

    def __init__(
        self,
        credentials: CredentialIndex,
        strangers: Strangers,
        states: TenantStates,
        admission: Admission,
        writer: Writer,
    ) -> None:
        self._credentials = credentials
        self._strangers = strangers
        self._states = states
        self._admission = admission
        self.written = writer.written
        self.written_by = writer.written_by
        self.run = writer.run

    def router(self, prefix: str, *statuses: int) -> APIRouter:
        """A router of routes on which ``By`` is who asks. ``statuses`` are those of problems that all of them have."""
        return APIRouter(
            prefix=prefix,
            tags=["tenant"],
            dependencies=[*_SCHEMES, Depends(self._admitted)],
            responses=problems(401, 403, 429, 503, *statuses),
        )

    async def _admitted(self, request: Request) -> AsyncIterator[None]:
        state = await self._authenticated(request)
        request.scope["backhaul.tenant"] = state.tenant.id
        with self._admission.reading(state):
            known_parameters(request)
            _unpacked(request)
            request.scope[_CALLER] = state
            request.scope[_KEY] = self._credentials.key_id(request.scope["headers"])
            yield

    async def _authenticated(self, request: Request) -> TenantState:
        state = self._known(request)
        if state is None:
            headers = dict(request.scope["headers"])
            await self._strangers.credential(None, headers.get(b"x-api-key"), headers.get(b"authorization"))
            state = self._known(request)
        if state is None:
            raise self._credentials.refusal()
        if state.tenant.status != "active":
            raise not_active(state.tenant)
        return state

    def _known(self, request: Request) -> TenantState | None:
        tenant_id = self._credentials.from_headers(request.scope["headers"])
        return self._states.get(tenant_id) if tenant_id is not None else None


def _unpacked(request: Request) -> None:
    """INVALID_ARGUMENT for a body that is compressed: nothing here inflates one, and it would be no JSON."""
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            f"A body that is encoded as {encoding[:64]!r} cannot be read.",
            field="Content-Encoding",
            fix="Send the body as it is, without this header.",
        )


async def _caller(request: Request) -> TenantState:
    found: TenantState = request.scope[_CALLER]
    return found


By = Annotated[TenantState, Depends(_caller)]
"""Who asks, on a route of ``Callers.router``."""


async def _key_id(request: Request) -> str:
    found: str = request.scope[_KEY]
    return found


KeyId = Annotated[str, Depends(_key_id)]
"""The public id of the API key that was shown, on such a route: by whom something is changed."""


def author_of(key_id: str) -> str:
    """By whom something is changed that an API key was shown for."""
    return f"key:{key_id}"
