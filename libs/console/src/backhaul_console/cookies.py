"""The cookie of a session, and what a browser says of where a request comes from."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import Scope

from backhaul_console.rendering import ROOT
from backhaul_console.sessions import LASTS_S, Session

_PLAIN = "backhaul-console"
_SECURE = "__Host-backhaul-console"
"""Browsers take a cookie of this name over HTTPS alone, and from no neighbouring host."""

_AGAIN = "<!doctype html><meta charset=utf-8><title>…</title><meta http-equiv=refresh content=0>"


class Cookies:
    """Gives and takes the cookie. ``secure`` says whether a request came encrypted."""

    def __init__(self, secure: Callable[[Scope], bool]) -> None:
        self._secure = secure

    def token_of(self, request: Request) -> str:
        """What the cookie holds; empty where there is none."""
        return request.cookies.get(_SECURE if self._secure(request.scope) else _PLAIN, "")

    def give(self, request: Request, answer: Response, session: Session) -> None:
        """Have the browser keep it until it is closed, or the session has ended anyway."""
        self._set(request, answer, session.token, LASTS_S)

    def take(self, request: Request, answer: Response) -> None:
        """Have the browser forget it."""
        self._set(request, answer, "", 0)

    def _set(self, request: Request, answer: Response, token: str, lasts_s: int) -> None:
        secure = self._secure(request.scope)
        answer.set_cookie(
            _SECURE if secure else _PLAIN,
            token,
            max_age=lasts_s,
            path="/" if secure else ROOT,
            secure=secure,
            httponly=True,
            samesite="strict",
        )

    def again(self, request: Request) -> Response | None:
        """For whoever followed a link of another site: the browser has kept the cookie back, and sends it when the
        page that it is on asks for itself."""
        if request.method != "GET" or request.headers.get("sec-fetch-site") != "cross-site":
            return None
        return HTMLResponse(_AGAIN)


def same_site(request: Request) -> bool:
    """Whether a form was sent by a page of this host. Browsers that do not say where from name the origin."""
    where = request.headers.get("sec-fetch-site")
    if where is not None:
        return where == "same-origin"
    origin = request.headers.get("origin", "")
    return not origin or origin.partition("://")[2] == request.headers.get("host", "")
