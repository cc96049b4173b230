"""Signing in with a key or a token, and signing out."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from backhaul_client import AsyncAdminClient, AsyncTenantClient, BackhaulError, ProblemError, Retries
from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from backhaul_console.bounds import Strangers
from backhaul_console.cookies import Cookies, same_site
from backhaul_console.openid import Provider
from backhaul_console.rendering import address
from backhaul_console.saying import SAID
from backhaul_console.sessions import (
    MAX_TENANTS,
    Access,
    Admin,
    Seal,
    Session,
    SessionMovedError,
    Sessions,
    StoreAwayError,
    Tenant,
    left_over,
    with_admin,
)
from backhaul_console.texts import _
from backhaul_console.visits import BASE_URL, Api
from backhaul_console.vouching import BACK, BEGIN, Vouching, own

_READS = "read"
_KEYS = "bhk_"
"""How an API key begins; an admin token is any other text."""
_OTHERS = {
    "bhi_": _(
        "This is an ingest token: it stands in the address to which a provider posts callbacks, and opens no page. "
        "Sign in with an API key of the scope read, which begins with bhk_."
    ),
    "bhs_": _(
        "This is a service account's token, by which services call each other, and opens no page. Sign in with an API "
        "key of the scope read, which begins with bhk_, or with an admin token."
    ),
}
"""What begins so is no key of a tenant's, and no admin token."""
_TENANT = re.compile("[a-z0-9_-]{1,64}")
_ONCE = Retries(tries=1)
_REFUSED = 422


class SignIn:
    """The pages of whoever is not signed in yet."""

    def __init__(
        self,
        api: Api,
        sessions: Sessions,
        cookies: Cookies,
        templates: Environment,
        *,
        takes_admin_tokens: bool = True,
        people: tuple[Provider, Seal] | None = None,
    ) -> None:
        """``people``: who vouches for those of the platform team, and what seals a sign-in that is under way there."""
        self._takes_admin_tokens = takes_admin_tokens
        self._host = people[0].host if people is not None else ""
        self._vouching = Vouching(*people, sessions, cookies, self._opens, self._wrong) if people is not None else None
        self._api = api
        self._sessions = sessions
        self._cookies = cookies
        self._templates = templates
        self._strangers = Strangers()

    @property
    def routes(self) -> list[tuple[str, str, Callable[[Request], Awaitable[Response]]]]:
        """Method, path below the console's, and what answers."""
        vouching = self._vouching
        return [
            *([("GET", BEGIN, vouching.begin), ("GET", BACK, vouching.back)] if vouching is not None else []),
            ("GET", "", self._home),
            ("GET", "/", self._home),
            ("GET", "/sign-in", self._form),
            ("POST", "/sign-in", self._sign_in),
            ("POST", "/sign-out", self._sign_out),
        ]

    def route(self, handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """``handler``, which a database that is away makes no error of."""

        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except SessionMovedError:
                return self._page(request, status=409, wrong=_("Your session has changed meanwhile. Try it again."))
            except StoreAwayError:
                return self._page(request, status=503, wrong=_("The database does not answer. Try again in a moment."))

        return answer

    async def _home(self, request: Request) -> Response:
        session = await self._cookies.session_of(request, self._sessions)
        if session is None:
            return self._cookies.again(request) or RedirectResponse(address("/sign-in"), status_code=303)
        return RedirectResponse(home_of(session.access), status_code=303)

    async def _form(self, request: Request) -> Response:
        session = await self._cookies.session_of(request, self._sessions)
        return self._page(request, access=session.access if session is not None else None)

    async def _sign_in(self, request: Request) -> Response:
        if not same_site(request):
            return self._page(request, status=403, wrong=_("This form came from another site. Use the one below."))
        form = await self._strangers.form(request)
        credential, to = str(form.get("credential", "")).strip(), str(form.get("to", ""))
        session = await self._cookies.session_of(request, self._sessions)
        access = session.access if session is not None else None
        try:
            opened = await self._opened(request, access or Access(began_at=time.time()), credential)
        except ValueError as exc:
            return self._page(request, status=_REFUSED, wrong=str(exc), to=to, access=access)
        except ProblemError as exc:
            return self._page(request, status=exc.status, wrong=exc.detail, to=to, access=access)
        except BackhaulError:
            wrong = _("Backhaul did not answer. Try again in a moment.")
            return self._page(request, status=503, wrong=wrong, to=to, access=access)
        self._cookies.hold(request, await self._opens(request, session, opened))
        return RedirectResponse(own(to) or home_of(opened, last=True), status_code=303)

    async def _opens(self, request: Request, session: Session | None, opened: Access) -> Session:
        """A session that opens it from now on. Keys that were made for the one before are revoked, where it does not
        open them any more."""
        if session is None:
            return await self._sessions.begin(opened)
        changed = await self._sessions.change(session, opened)
        await self._forget_keys(request, session.access, opened)
        return changed

    async def _opened(self, request: Request, access: Access, credential: str) -> Access:
        """What a session opens with one credential more. Raises what the API says, or a ValueError."""
        if not credential:
            raise ValueError(_("Paste an API key, or an admin token."))
        for begins, text in _OTHERS.items():
            if credential.startswith(begins):
                raise ValueError(text)
        async with httpx.AsyncClient(transport=self._api(request, None), trust_env=False) as http:
            if credential.startswith(_KEYS):
                key = await AsyncTenantClient(BASE_URL, credential, http=http, retries=_ONCE).whoami()
                if _READS not in key.scopes:
                    raise ValueError(_("This key lacks the scope read, without which it can show nothing."))
                tenant = Tenant(id=key.tenant_id, key=credential, key_id=key.key_id, scopes=key.scopes)
                return with_tenant(access, tenant)
            if not self._takes_admin_tokens:
                raise ValueError(_("Admin tokens are not taken here. Sign in as yourself, or with a tenant's key."))
            admin = await AsyncAdminClient(BASE_URL, credential, http=http, retries=_ONCE).whoami()
        return with_admin(access, Admin(name=admin.name, role=admin.role, token=credential))

    async def _sign_out(self, request: Request) -> Response:
        session = await self._cookies.session_of(request, self._sessions)
        if session is not None:
            form = await self._strangers.form(request)
            if not same_site(request) or not session.carries(str(form.get("form_token", ""))):
                return RedirectResponse(home_of(session.access), status_code=303)
            # What is opened meanwhile finds no session, and is revoked by whoever opens it.
            await self._sessions.end(session)
            await self._forget_keys(request, session.access, None)
        answer = RedirectResponse(address("/sign-in", said="signed-out"), status_code=303)
        self._cookies.take(request, answer)
        return answer

    async def _forget_keys(self, request: Request, before: Access, after: Access | None) -> None:
        """Revoke the keys that were made for a session alone, by whoever had them made, on whichever port. One that
        cannot be now expires by itself."""
        admin, made = before.admin, left_over(before, after)
        if admin is None or not made:
            return
        transport = self._api(request, admin.person, any_port=True)
        async with httpx.AsyncClient(transport=transport, trust_env=False) as http:
            client = AsyncAdminClient(BASE_URL, admin.token or "person", http=http, retries=_ONCE)
            for tenant in made:
                try:
                    await client.delete_key(tenant.id, tenant.key_id)
                except BackhaulError:
                    continue

    def _wrong(self, request: Request, status: int, wrong: str) -> Response:
        return self._page(request, status=status, wrong=wrong)

    def _page(
        self, request: Request, *, status: int = 200, wrong: str = "", to: str = "", access: Access | None = None
    ) -> Response:
        """``access``: what is open already, beside which more is opened."""
        query = request.query_params
        tenant = query.get("tenant", "")
        values: dict[str, Any] = {
            "wrong": wrong,
            "access": access,
            "said": SAID.get(query.get("said", ""), ""),
            "to": own(to or query.get("to", "")),
            # Nobody is told by a link what these pages are.
            "tenant": tenant if _TENANT.fullmatch(tenant) else "",
            "host": self._host,
            "takes_admin_tokens": self._takes_admin_tokens,
        }
        return HTMLResponse(self._templates.get_template("signin.html").render(**values), status_code=status)


def with_tenant(access: Access, tenant: Tenant) -> Access:
    """What a session opens with one tenant more. ValueError for more than one session holds."""
    tenants = {**access.tenants, tenant.id: tenant}
    if len(tenants) > MAX_TENANTS:
        raise ValueError(_("This session has as many tenants as one may have. Sign out, and in again."))
    return Access(began_at=access.began_at, admin=access.admin, tenants=tenants)


def home_of(access: Access, *, last: bool = False) -> str:
    """Where to begin: at the platform team's overview, or at a tenant's, the ``last`` one that was added if asked."""
    if access.admin is not None and not (last and access.tenants):
        return address("/admin")
    tenants = list(access.tenants)
    return address(f"/t/{tenants[-1 if last else 0]}") if tenants else address("/sign-in")
