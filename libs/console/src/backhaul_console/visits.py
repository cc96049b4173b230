"""What a page is given: who visits, what the API answers them, and how a page is answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import httpx
from backhaul_client import AsyncAdminClient, AsyncRows, AsyncTenantClient, Retries
from backhaul_client import Page as Rows
from jinja2 import Environment
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from backhaul_console.forms import Filled
from backhaul_console.rendering import address
from backhaul_console.sessions import Access, Admin, Person, Session, Sessions, Tenant

T = TypeVar("T")

_ONCE = Retries(tries=2, max_pause_s=0.5)
_NOT_AGAIN = Retries(tries=1)
"""A person waits for each page, and can ask again."""
BASE_URL = "http://backhaul"
"""The API is asked within the process: this host is in no network."""


class Api(Protocol):
    """How a visit's questions get to the API, as if they came from where the visitor is."""

    def __call__(self, request: Request, person: Person | None, *, any_port: bool = False) -> httpx.AsyncBaseTransport:
        """The transport for one request of a visitor; ``person``: whom to take it for, where no credential says so.
        ``any_port``: also where the platform team has a port of its own, and this is another one."""
        ...


@dataclass(kw_only=True)
class Visit:
    """One request of somebody who is signed in."""

    request: Request
    session: Session
    sessions: Sessions
    templates: Environment
    http: httpx.AsyncClient
    transport: httpx.AsyncBaseTransport
    """What ``http`` asks by. It is good for as long as the answer takes."""
    tenant_id: str = ""
    """Whose pages these are; empty on those of the platform team."""

    @property
    def query(self) -> QueryParams:
        """The address's query."""
        return self.request.query_params

    @property
    def admin_of(self) -> Admin | None:
        """The platform team's side of the session."""
        return self.session.access.admin

    @property
    def tenant_of(self) -> Tenant | None:
        """The tenant whose pages these are, as the session opens it."""
        return self.session.access.tenants.get(self.tenant_id)

    @property
    def api(self) -> AsyncTenantClient:
        """The API as the tenant whose pages these are. Pages of tenants alone may ask for it."""
        tenant = self.tenant_of
        assert tenant is not None  # noqa: S101  # ``app`` has looked
        return AsyncTenantClient(BASE_URL, tenant.key, http=self.http, retries=_ONCE)

    @property
    def admin(self) -> AsyncAdminClient:
        """The API as the platform team. Pages of theirs alone may ask for it."""
        admin = self.admin_of
        assert admin is not None  # noqa: S101  # as above
        # A person has no token: whom to take the request for, the transport says.
        return AsyncAdminClient(BASE_URL, admin.token or "person", http=self.http, retries=_ONCE)

    @asynccontextmanager
    async def lasting_api(self) -> AsyncIterator[AsyncTenantClient]:
        """As ``api``, for an answer that goes on behind its page. What fails is not tried again."""
        tenant = self.tenant_of
        assert tenant is not None  # noqa: S101  # as above
        async with httpx.AsyncClient(transport=self.transport, trust_env=False) as http:
            yield AsyncTenantClient(BASE_URL, tenant.key, http=http, retries=_NOT_AGAIN)

    @asynccontextmanager
    async def lasting_admin(self) -> AsyncIterator[AsyncAdminClient]:
        """As ``admin``, in the same way."""
        admin = self.admin_of
        assert admin is not None  # noqa: S101  # as above
        async with httpx.AsyncClient(transport=self.transport, trust_env=False) as http:
            yield AsyncAdminClient(BASE_URL, admin.token or "person", http=http, retries=_NOT_AGAIN)

    def may(self, *needed: str) -> bool:
        """Whether the visitor has all of these scopes, on a tenant's page, or one of these roles, on one of the
        platform team's. Pages leave out what would be refused; the API alone decides."""
        if self.tenant_id:
            tenant = self.tenant_of
            return tenant is not None and {*needed} <= {*tenant.scopes}
        return self.admin_of is not None and self.admin_of.role in needed

    def at(self, path: str = "", **query: object) -> str:
        """The address of a page of this tenant, or of the platform team."""
        return address(f"/t/{self.tenant_id}{path}" if self.tenant_id else f"/admin{path}", **query)

    @staticmethod
    async def first(rows: AsyncRows[T]) -> Rows[T]:
        """The first page of a list, from the cursor that it was asked with."""
        async for page in rows.pages():
            return page
        return Rows((), "")

    async def form(self, max_files: int = 0) -> Mapping[str, str]:
        """The fields of the form that was sent; ``app`` has looked at its token. Of several of one name the last."""
        sent = await self.request.form(max_files=max_files)
        return {name: value.strip() for name, value in sent.items() if isinstance(value, str)}

    @property
    def asked(self) -> Filled:
        """The address's query, for a form of filters that is shown again where it is refused."""
        return Filled({name: self.query.getlist(name) for name in self.query})

    async def filled(self) -> Filled:
        """The same, for a form that is shown again where it is refused, with each value of every name."""
        sent = await self.request.form()
        names = {name: sent.getlist(name) for name in sent}
        return Filled({name: [one for one in values if isinstance(one, str)] for name, values in names.items()})

    async def change(self, access: Access) -> None:
        """Have the session open ``access`` from now on; the answer gives its new cookie."""
        self.session = await self.sessions.change(self.session, access)

    def page(self, template: str, *, status: int = 200, **values: Any) -> Response:
        """The page that a template makes of ``values``. It has ``visit`` as well."""
        text = self.templates.get_template(template).render(visit=self, **values)
        return HTMLResponse(text, status_code=status)

    def to(self, path: str, **query: object) -> Response:
        """Send the browser on to a page, after something was done. ``said`` in the query is shown there: one of the
        names of ``SAID`` in ``saying.py``, never a text, since anybody can make an address."""
        return RedirectResponse(self.at(path, **query), status_code=303)


Handler = Callable[[Visit], Awaitable[Response]]
Side = Literal["tenant", "admin"]


@dataclass(frozen=True)
class Page:
    """A row of a module's ROUTES. ``path`` is that below ``/console/t/{tenant}``, or below ``/console/admin``."""

    method: Literal["GET", "POST"]
    path: str
    handler: Handler
    side: Side = "tenant"
    max_body: int = 0
    """Bytes of what is sent, where it is more than a form's."""
    takes_file: bool = False
    """Whether its form sends a file that the page reads as it comes (``files.Upload``), for as long as that takes. Such
    a form has its token in its address: ``visit.at(path, form_token=visit.session.form_token)``."""
