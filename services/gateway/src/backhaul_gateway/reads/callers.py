"""Who asks on the routes for tenants, and how they are answered. Every answer is about the credential's tenant only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from backhaul_common.errors import BackhaulError, Code
from fastapi import APIRouter, Depends, Request, Security
from fastapi.openapi.models import APIKey, HTTPBase
from fastapi.openapi.models import SecurityBase as SecurityScheme
from fastapi.security.base import SecurityBase

from backhaul_gateway.admission.auth import unauthenticated
from backhaul_gateway.admission.door import Admission
from backhaul_gateway.admission.refusals import not_active
from backhaul_gateway.admission.state import TenantState, TenantStates
from backhaul_gateway.twins.writing import Writer
from backhaul_gateway.web.changes import begun
from backhaul_gateway.web.guard import Guard
from backhaul_gateway.web.openapi import problems
from backhaul_gateway.web.parameters import known_parameters

_CALLER = "backhaul.caller"


class _Documented(SecurityBase):
    """A way to authenticate, for the OpenAPI document only. FastAPI's own classes also read the request, and refuse an
    Authorization that they cannot read even where it is not what counts."""

    def __init__(self, scheme_name: str, model: SecurityScheme) -> None:
        self.scheme_name = scheme_name
        self.model = model

    async def __call__(self) -> None:
        """Ask for nothing: ``Guard`` has read the headers."""


_SCHEMES = (
    Security(_Documented("ApiKey", APIKey.model_validate({"in": "header", "name": "X-Api-Key"}))),
    Security(_Documented("Bearer", HTTPBase(scheme="bearer", description="The API key."))),
    Security(_Documented("Basic", HTTPBase(scheme="basic", description="Tenant id and API key."))),
)


class Callers:
    """Finds the tenant of whoever asks, and whether it may. ``Guard`` has looked at the key, and at its scopes."""

    def __init__(self, guard: Guard, states: TenantStates, admission: Admission, writer: Writer) -> None:
        self._guard = guard
        self._states = states
        self._admission = admission
        self.written = writer.written
        self.written_by = writer.written_by
        self.run = writer.run

    def router(self, prefix: str, *statuses: int, lasting: bool = False) -> APIRouter:
        """A router of routes on which ``By`` is who asks. ``statuses`` are those of problems that all of them have.

        Where their answers are ``lasting``, only the beginning of one counts among the reads at once.
        """
        return APIRouter(
            prefix=prefix,
            tags=["tenant"],
            dependencies=[*_SCHEMES, Depends(self._begun if lasting else self._admitted)],
            responses=problems(401, 403, 429, 503, *statuses),
        )

    async def _admitted(self, request: Request) -> AsyncIterator[None]:
        state = self.still(request)
        with self._admission.reading(state):
            known_parameters(request)
            _unpacked(request)
            request.scope[_CALLER] = state
            await begun(request)
            yield

    async def _begun(self, request: Request) -> None:
        async for _ in self._admitted(request):
            pass

    def still(self, request: Request) -> TenantState:
        """Who asks, by what is known now. Raises what the request would be refused with, if it came now."""
        state = self._states.get(self._guard.still(request.scope).tenant_id)
        if state is None:
            raise unauthenticated()
        if state.tenant.status != "active":
            raise not_active(state.tenant)
        return state


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
