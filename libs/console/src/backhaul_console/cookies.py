"""The cookie of a session, that of a sign-in under way, and what a browser says of where a request comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import Scope

from backhaul_console.rendering import ROOT, asset
from backhaul_console.sessions import LASTS_S, Session, Sessions

_PLAIN = "backhaul-console"
_ASKED = "backhaul-console-sign-in"
_SECURE = "__Host-"
"""Browsers take a cookie whose name begins so over HTTPS alone, and from no neighbouring host."""
_HELD = "backhaul.session"
"""By which name a request has the session that the browser is to have a cookie of."""

_AGAIN = (
    "<!doctype html><meta charset=utf-8><title>…</title><link rel=icon href={icon}><meta http-equiv=refresh content=0>"
)


class Cookies:
    """Gives and takes the cookie. ``secure`` says whether a request came encrypted."""

    def __init__(self, secure: Callable[[Scope], bool]) -> None:
        self._secure = secure

    async def session_of(self, request: Request, sessions: Sessions) -> Session | None:
        """The session of the browser's cookie; None where there is none. It may have another token from now on, so that
        whatever is answered gives the browser that one: its own opens nothing a minute later."""
        session = await sessions.find(request.cookies.get(self._name(request, _PLAIN), ""))
        self.hold(request, session)
        return session

    def hold(self, request: Request, session: Session | None) -> None:
        """Have the browser keep the session's cookie until it is closed, or the session has ended anyway."""
        request.scope[_HELD] = session

    def fields(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """What an answer's head has for that; nothing where the browser has the cookie already."""
        session: Session | None = scope.get(_HELD)
        if session is None or not session.renewed:
            return []
        answer = Response()
        self._set(Request(scope), answer, _PLAIN, session.token, LASTS_S, "strict")
        return [field for field in answer.raw_headers if field[0] == b"set-cookie"]

    def take(self, request: Request, answer: Response) -> None:
        """Have the browser forget it."""
        self.hold(request, None)
        self._set(request, answer, _PLAIN, "", 0, "strict")

    def asked_of(self, request: Request) -> str:
        """What the cookie of a sign-in under way holds; empty where there is none."""
        return request.cookies.get(self._name(request, _ASKED), "")

    def give_asked(self, request: Request, answer: Response, sealed: str, lasts_s: int) -> None:
        """Have the browser keep what a provider was asked for. It is sent along when that leads back here."""
        self._set(request, answer, _ASKED, sealed, lasts_s, "lax")

    def take_asked(self, request: Request, answer: Response) -> None:
        """Have the browser forget it."""
        self._set(request, answer, _ASKED, "", 0, "lax")

    def _name(self, request: Request, name: str) -> str:
        return _SECURE + name if self._secure(request.scope) else name

    def _set(
        self, request: Request, answer: Response, name: str, value: str, lasts_s: int, sent: Literal["strict", "lax"]
    ) -> None:
        secure = self._secure(request.scope)
        answer.set_cookie(
            self._name(request, name),
            value,
            max_age=lasts_s,
            path="/" if secure else ROOT,
            secure=secure,
            httponly=True,
            samesite=sent,
        )

    def again(self, request: Request) -> Response | None:
        """For whoever followed a link of another site: the browser has kept the cookie back, and sends it when the
        page that it is on asks for itself."""
        if request.method != "GET" or request.headers.get("sec-fetch-site") != "cross-site":
            return None
        return HTMLResponse(_AGAIN.format(icon=asset("icon.svg")))


def same_site(request: Request) -> bool:
    """Whether a form was sent by a page of this host. Browsers that do not say where from name the origin."""
    where = request.headers.get("sec-fetch-site")
    if where is not None:
        return where == "same-origin"
    origin = request.headers.get("origin", "")
    return not origin or origin.partition("://")[2] == request.headers.get("host", "")
