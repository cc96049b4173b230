"""The console as one ASGI application: who may see what, which page answers what, and what every answer has."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import httpx
from backhaul_client import BackhaulError, UnauthenticatedError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from backhaul_console import pages
from backhaul_console.bounds import MAX_BODY, STRANGERS_BODY, Visitors, form_of
from backhaul_console.cookies import Cookies, same_site
from backhaul_console.failing import Failures
from backhaul_console.leading import leads_of
from backhaul_console.navigation import current, said, sections_of
from backhaul_console.openid import OpenId, Provider
from backhaul_console.rendering import ROOT, address, environment
from backhaul_console.sessions import (
    Admin,
    Seal,
    SessionMovedError,
    Sessions,
    SessionStore,
    StoreAwayError,
    without,
)
from backhaul_console.signin import SignIn
from backhaul_console.visits import BASE_URL, Api, Page, Visit
from backhaul_console.vouching import BACK

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_FIELDS = (
    (b"content-security-policy", POLICY.encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    # Each form tells by it where it comes from; other sites learn nothing from it.
    (b"referrer-policy", b"same-origin"),
)
_ANSWERS_S = 60.0
"""The API has shorter deadlines of its own, but for what an operator applies at once to many tenants."""
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True, kw_only=True)
class Console:
    """What the console is made of. ``secure`` says whether a request came encrypted, perhaps to a proxy in front."""

    api: Api
    store: SessionStore
    seal: Seal
    """What seals sessions."""
    secure: Callable[[Scope], bool]
    takes_admin_tokens: bool = True
    people: tuple[OpenId, Seal] | None = None
    """What is agreed with whoever vouches for people of the platform team, and what seals a sign-in under way there."""

    def application(self) -> ASGIApp:
        """The application; ``/console`` and all below it are its paths."""
        templates = environment()
        shown = {(page.side, page.path) for page in pages.ROUTES if page.method == "GET"}
        templates.globals.update(sections=sections_of(shown), current=current, said=said, lead=leads_of(shown))
        sessions = Sessions(self.store, self.seal, self._admits)
        cookies, failures = Cookies(self.secure), Failures(templates)
        door = _Door(self.api, sessions, cookies, failures)
        signin = SignIn(
            self.api,
            sessions,
            cookies,
            templates,
            takes_admin_tokens=self.takes_admin_tokens,
            people=(_provider(self.people[0]), self.people[1]) if self.people is not None else None,
        )
        routes = [
            Route(f"{ROOT}/static/{{digest}}/{{name}}", _static),
            *(
                Route(ROOT + path, _heard(failures, signin.route(handler)), methods=[method])
                for method, path, handler in signin.routes
            ),
            *(door.route(page) for page in pages.ROUTES),
        ]
        handlers = {
            404: failures.no_such_page,
            405: failures.no_such_page,
            HTTPException: failures.not_read,
            500: failures.failed,
        }
        app = Starlette(routes=routes, exception_handlers=handlers)
        app.router.redirect_slashes = False
        return _with_fields(app, cookies)

    def _admits(self, admin: Admin) -> bool:
        return self.people is not None if admin.person is not None else self.takes_admin_tokens


def _provider(agreed: OpenId) -> Provider:
    return Provider(agreed, agreed.base_url + address(BACK))


class _Door:
    """Lets visitors to a page who are signed in for it."""

    def __init__(self, api: Api, sessions: Sessions, cookies: Cookies, failures: Failures) -> None:
        self._api = api
        self._sessions = sessions
        self._cookies = cookies
        self._failures = failures
        self._templates = failures.templates
        self._visitors = Visitors()

    def route(self, page: Page) -> Route:
        """The route of a page."""
        below = "/t/{tenant}" if page.side == "tenant" else "/admin"

        async def answer(request: Request) -> Response:
            if page.max_body:
                request.scope[MAX_BODY] = page.max_body
            try:
                return await self._answer(page, request)
            finally:
                # Files that it sent are open until then.
                await request.close()

        return Route(ROOT + below + page.path, _heard(self._failures, answer), methods=[page.method])

    async def _answer(self, page: Page, request: Request) -> Response:
        try:
            session = await self._cookies.session_of(request, self._sessions)
        except StoreAwayError:
            return self._failures.store_away()
        tenant_id = request.path_params["tenant"] if page.side == "tenant" else ""
        if session is None:
            return self._cookies.again(request) or _signing_in(request, tenant_id)
        access = session.access
        if tenant_id not in access.tenants if page.side == "tenant" else access.admin is None:
            return _signing_in(request, tenant_id)
        del request.scope[STRANGERS_BODY]
        person = access.admin.person if access.admin is not None and not tenant_id else None
        transport = self._api(request, person)
        async with httpx.AsyncClient(
            transport=transport, base_url=BASE_URL, trust_env=False, timeout=_ANSWERS_S
        ) as http:
            visit = Visit(
                request=request,
                session=session,
                sessions=self._sessions,
                templates=self._templates,
                http=http,
                transport=transport,
                tenant_id=tenant_id,
            )
            try:
                with self._counted(page, visit):
                    return await self._handled(page, visit)
            finally:
                # It may be another one by now.
                self._cookies.hold(request, visit.session)

    def _counted(self, page: Page, visit: Visit) -> AbstractContextManager[None]:
        """Bounds what is sent with what else its visitor has under way."""
        if page.method == "GET":
            return nullcontext()
        admin = visit.admin_of
        whose = f"t/{visit.tenant_id}" if visit.tenant_id or admin is None else f"admin/{admin.name}"
        if page.takes_file:
            return self._visitors.file(whose)
        return self._visitors.form(visit.request.scope, visit.session.owner, whose)

    async def _handled(self, page: Page, visit: Visit) -> Response:
        if page.method == "POST" and not await _is_own_form(page, visit):
            return self._failures.foreign_form(visit)
        try:
            return await page.handler(visit)
        except BackhaulError as exc:
            answer = self._failures.of(visit, exc)
            if visit.tenant_id and isinstance(exc, UnauthenticatedError):
                await _close(visit)
            return answer
        except SessionMovedError:
            return self._failures.foreign_form(visit)
        except StoreAwayError:
            return self._failures.store_away()


async def _close(visit: Visit) -> None:
    """Its key is good no more: close the tenant's pages, or, where nothing else is open, end the session."""
    access = without(visit.session.access, visit.tenant_id)
    with suppress(SessionMovedError, StoreAwayError):
        if access.admin is not None or access.tenants:
            await visit.change(access)
        else:
            await visit.sessions.end(visit.session)


async def _is_own_form(page: Page, visit: Visit) -> bool:
    """Whether a form was made for this session. One with a file has its token in its address, and is read by its page:
    nothing of it is taken before that is known."""
    request = visit.request
    if not same_site(request):
        return False
    token = request.headers.get("x-form-token") or request.query_params.get("form_token", "")
    if page.takes_file or (token and not visit.session.carries(token)):
        return visit.session.carries(token)
    # Whoever asks for it later is given what is read here.
    form = await form_of(request)
    return visit.session.carries(token or str(form.get("form_token", "")))


def _heard(
    failures: Failures, handler: Callable[[Request], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    """``handler``, of which a client that hangs up while it sends makes no mistake."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except ClientDisconnect as exc:
            return await failures.not_read(request, exc)

    return answer


def _signing_in(request: Request, tenant_id: str) -> Response:
    """Ask whoever came to sign in, and lead them back to where they wanted to go."""
    back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    asked = back if request.method == "GET" and "hx-request" not in request.headers else ""
    to = address("/sign-in", to=asked, tenant=tenant_id)
    if "last-event-id" in request.headers:
        # What comes back to a stream takes no other page: it would ask again and again.
        return Response(status_code=401)
    if "hx-request" in request.headers:
        # A part of a page cannot show the form: the whole page goes there.
        return Response(status_code=200, headers={"hx-redirect": to})
    return RedirectResponse(to, status_code=303)


async def _static(request: Request) -> Response:
    """A file of ``static/``, which browsers keep: its address changes with it."""
    name, digest = request.path_params["name"], request.path_params["digest"]
    file = _static_files().get(name)
    if file is None:
        return Response("There is no such file.\n", status_code=404, media_type="text/plain")
    kept = "public, max-age=31536000, immutable" if file.digest == digest else "no-store"
    return Response(file.content, media_type=file.kind, headers={"cache-control": kept})


@dataclass(frozen=True, kw_only=True)
class _File:
    """What a browser is given; ``kind`` is its media type."""

    kind: str
    content: bytes
    digest: str


@cache
def _static_files() -> Mapping[str, _File]:
    """Each by its name, read once: whatever name is asked for, none is looked for."""
    found = {}
    for path in files("backhaul_console").joinpath("static").iterdir():
        kind = next((kind for end, kind in _TYPES.items() if path.name.endswith(end)), "")
        if kind:
            content = path.read_bytes()
            found[path.name] = _File(kind=kind, content=content, digest=hashlib.sha256(content).hexdigest()[:16])
    return found


def _with_fields(app: ASGIApp, cookies: Cookies) -> ASGIApp:
    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        async def with_fields(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_FIELDS, *cookies.fields(scope)]}
            await send(message)

        # Until a page knows better.
        scope[STRANGERS_BODY] = True
        try:
            await app(scope, receive, with_fields)
        except ClientDisconnect:
            return

    return answered
