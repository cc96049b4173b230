"""What stands in front of every route: whoever asks has shown what ``ROUTES`` wants for it, before a body is read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from backhaul_common.errors import BackhaulError, Code
from fastapi import Depends, Request
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from backhaul_gateway.admission.access import ROUTES, Rule
from backhaul_gateway.admission.auth import CredentialIndex
from backhaul_gateway.admission.logged import LOGGED, UNLOGGED
from backhaul_gateway.admission.principal import PRINCIPAL, Principal
from backhaul_gateway.admission.strangers import Strangers
from backhaul_gateway.web.changes import ChangeLog


class Guard:
    """Finds who is asking, and asks the table whether they may."""

    def __init__(self, credentials: CredentialIndex, strangers: Strangers, changes: ChangeLog) -> None:
        self._credentials = credentials
        self._strangers = strangers
        self._changes = changes

    def protect(self, routes: Iterable[BaseRoute]) -> None:
        """Put each route behind its rule. One that the tables do not have is closed."""
        for route in routes:
            if not isinstance(route, APIRoute):
                raise TypeError(f"{route!r} is no route that can be guarded")
            route.app = self._guarded(route)

    def still(self, scope: Scope) -> Principal:
        """Who is asking, now that the body is there: meanwhile the key may have been deleted, and its tenant's id
        registered anew by somebody else. UNAUTHENTICATED."""
        principal = self._credentials.from_headers(scope["headers"])
        if principal is None:
            raise self._credentials.refusal()
        return principal

    def _guarded(self, route: APIRoute) -> ASGIApp:
        names = {method: f"{method} {route.path_format}" for method in route.methods or ()}
        rules = {method: _rule_of(name) for method, name in names.items()}
        logged = {method: LOGGED.get(name) for method, name in names.items()}
        app = route.app

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            method = scope["method"]
            rule = rules.get(method)
            if rule is None:
                raise _closed(f"{method} {route.path_format}")

            async def admitted(scope: Scope, receive: Receive, send: Send) -> None:
                await self._admit(rule, scope)
                await app(scope, receive, send)

            change = logged[method]
            if change is None:
                await admitted(scope, receive, send)
            else:
                await self._changes.around(admitted, change, names[method], scope, receive, send)

        return guarded

    async def _admit(self, rule: Rule, scope: Scope) -> None:
        """Raises UNAUTHENTICATED, UNAVAILABLE or FORBIDDEN."""
        if rule.by == "key":
            scope[PRINCIPAL] = principal = await self._tenant(scope)
            scope["backhaul.tenant"] = principal.tenant_id
            rule.check(principal)
        elif rule.by == "admin":
            rule.check(scope[PRINCIPAL])

    async def _tenant(self, scope: Scope) -> Principal:
        headers = scope["headers"]
        principal = self._credentials.from_headers(headers)
        if principal is None:
            named = dict(headers)
            await self._strangers.credential(None, named.get(b"x-api-key"), named.get(b"authorization"))
            principal = self._credentials.from_headers(headers)
        if principal is None:
            raise self._credentials.refusal()
        return principal


def _rule_of(route: str) -> Rule | None:
    """None for one that a table lacks: who may ask for it, or, of a change, whether it is logged."""
    told = route.startswith("GET ") or route in LOGGED or route in UNLOGGED
    return ROUTES.get(route) if told else None


def _closed(route: str) -> BackhaulError:
    return BackhaulError(
        Code.FORBIDDEN,
        f"{route} is closed: the gateway's tables of routes do not say who may ask for it, or whether it is logged.",
        fix="GET /openapi.json lists what is open, and to whom.",
    )


async def _asking(request: Request) -> Principal:
    found: Principal = request.scope[PRINCIPAL]
    return found


Asking = Annotated[Principal, Depends(_asking)]
"""Who is asking, on a route that needs a key or an admin token: by whom something is changed."""
