"""``/v1/changes`` and ``/admin/v1/changes``: who changed what, when, from where, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
from backhaul_common.documents import Document
from backhaul_common.tenants import Tenant
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from backhaul_gateway.admin.changestore import MongoChangeStore, Wanted
from backhaul_gateway.admission.auth import unauthenticated
from backhaul_gateway.web.filters import Cursor, Filter, From, Limit, To, microseconds
from backhaul_gateway.web.guard import Asking
from backhaul_gateway.web.openapi import problems
from backhaul_gateway.web.parameters import paged

_REFUSED, _FAILED = 400, 500
_OWN = "key:"

_Author = Annotated[
    Filter, Query(description="key:<id> of an API key, admin:<name> of an admin token, service:<id> of an account.")
]
_Action = Annotated[
    Filter, Query(description="The route, or the method over gRPC.", examples=["PUT /v1/channels/{label}"])
]
_Application = Annotated[Filter, Query(description="The id of the entry of an application: what that one changed.")]
_OfTenant = Annotated[Filter, Query(description="A tenant's id, in all of its lives.")]


class LoggedChangeOut(BaseModel):
    """One request by which somebody changed something, or tried to.

    ``outcome`` is ``done``; ``refused`` (nothing was changed); ``failed`` (some of it may have been done); or
    ``unknown``: it is under way, or the gateway died meanwhile. ``status`` is then null, and else that of the answer.
    ``before`` and ``after`` are what the API shows of it; of what other services keep, ``after`` is what was asked for.
    Secrets, people's addresses and texts are ***. ``cut`` says that fields were too large to be kept. A tenant is not
    told from where others than itself asked. A service account asks over gRPC; ``action`` is the method then, and
    ``status`` what HTTP would have said.
    """

    id: str
    at: datetime
    author: str
    client: str | None = Field(description="The address of whoever asked.")
    tenant_id: str | None
    registration: str | None
    action: str
    kind: str
    target: dict[str, str]
    outcome: Literal["done", "refused", "failed", "unknown"]
    status: int | None
    trace_id: str
    application: str | None = Field(description="The id of the entry of the application of which this is one change.")
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    cut: bool

    @classmethod
    def of(cls, entry: Document, *, to_tenant: bool) -> LoggedChangeOut:
        """``entry`` as it is shown, to a tenant or to the platform team."""
        status: int | None = entry.get("status")
        hidden = to_tenant and not entry["author"].startswith(_OWN)
        return cls.model_validate(
            {
                **{name: entry[name] for name in ("at", "author", "action", "kind", "target", "trace_id")},
                "id": entry["_id"],
                "client": None if hidden else entry["client"] or None,
                "tenant_id": entry["tenant_id"] or None,
                "registration": entry["of"] or None,
                "application": entry.get("application"),
                "outcome": _outcome(status),
                "status": status,
                "before": _side(entry.get("before")),
                "after": _side(entry.get("after")),
                "cut": entry.get("cut", False),
            }
        )


class LoggedChangePage(BaseModel):
    """Newest first. ``next_cursor`` is null on the last page."""

    changes: list[LoggedChangeOut]
    next_cursor: str | None


class ChangeRoutes:
    """The log of changes, as tenants and as the platform team read it."""

    def __init__(self, store: MongoChangeStore, tenants: Mapping[str, Tenant]) -> None:
        """``tenants`` by id, as they are now and later."""
        self._store = store
        self._tenants = tenants

    def added_to(self, tenants: APIRouter) -> APIRouter:
        """``tenants`` with the tenants' route."""
        tenants.add_api_route("/changes", self.list_own, methods=["GET"], responses=problems(422))
        return tenants

    def add_to(self, router: APIRouter) -> None:
        """Add the platform team's route."""
        router.add_api_route("", self.list_changes, methods=["GET"], responses=problems(504))

    async def list_own(
        self,
        by: Asking,
        author: _Author = "",
        action: _Action = "",
        application: _Application = "",
        from_: From = None,
        to: To = None,
        limit: Limit = 50,
        cursor: Cursor = "",
    ) -> LoggedChangePage:
        """What was changed of the tenant, by its keys and by the platform team, newest first."""
        tenant = self._tenants.get(by.tenant_id)
        if tenant is None:
            raise unauthenticated()
        wanted = Wanted(
            registration=tenant.registration,
            author=author,
            action=action,
            application=application,
            from_us=microseconds(from_),
            to_us=microseconds(to),
            size=limit,
            token=cursor,
        )
        return await self._page(wanted, to_tenant=True)

    async def list_changes(
        self,
        tenant: _OfTenant = "",
        author: _Author = "",
        action: _Action = "",
        application: _Application = "",
        from_: From = None,
        to: To = None,
        limit: Limit = 50,
        cursor: Cursor = "",
    ) -> LoggedChangePage:
        """What was changed of all, newest first. What a tenant changed itself goes with it when it is deleted."""
        wanted = Wanted(
            tenant_id=tenant,
            author=author,
            action=action,
            application=application,
            from_us=microseconds(from_),
            to_us=microseconds(to),
            size=limit,
            token=cursor,
        )
        return await self._page(wanted, to_tenant=False)

    async def _page(self, wanted: Wanted, *, to_tenant: bool) -> LoggedChangePage:
        rows, token = await paged(self._store.page(wanted))
        return LoggedChangePage(
            changes=[LoggedChangeOut.of(row, to_tenant=to_tenant) for row in rows], next_cursor=token or None
        )


def _outcome(status: int | None) -> str:
    if status is None:
        return "unknown"
    if status < _REFUSED:
        return "done"
    return "refused" if status < _FAILED else "failed"


def _side(text: str | None) -> Any:
    return orjson.loads(text) if text else None
