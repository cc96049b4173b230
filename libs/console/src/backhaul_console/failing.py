"""What a page says where it cannot be shown: what is wrong, and what to do."""

from __future__ import annotations

from backhaul_client import (
    BackhaulError,
    ForbiddenError,
    NotFoundError,
    ProblemError,
    RateLimitedError,
    UnauthenticatedError,
    UnavailableError,
)
from jinja2 import Environment
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from backhaul_console.texts import _
from backhaul_console.visits import Visit

_TITLES: tuple[tuple[type[BackhaulError], str], ...] = (
    (UnauthenticatedError, _("The key no longer opens this")),
    (ForbiddenError, _("Not allowed")),
    (NotFoundError, _("There is no such thing")),
    (RateLimitedError, _("Too many requests")),
    (UnavailableError, _("A part of Backhaul does not answer")),
    (ProblemError, _("This was refused")),
)
_NOT_INSTALLED = 501


class Failures:
    """Pages about what went wrong."""

    def __init__(self, templates: Environment) -> None:
        self.templates = templates

    def of(self, visit: Visit, error: BackhaulError) -> Response:
        """The page about an error of the API: its own words, and the fix that it names."""
        title = next((title for kind, title in _TITLES if isinstance(error, kind)), _("No answer"))
        if isinstance(error, ProblemError):
            if error.status == _NOT_INSTALLED:
                title = _("Not installed")
            details = [(one.field, one.message, one.fix) for one in error.errors]
            values = {"text": error.detail, "details": details, "trace_id": error.trace_id}
            return visit.page("failure.html", status=error.status, title=title, **values)
        text = _("The API did not answer this page. Load it again in some seconds.")
        return visit.page("failure.html", status=503, title=title, text=text, details=[], trace_id="")

    def foreign_form(self, visit: Visit) -> Response:
        """For a form that this session was not given."""
        return visit.page(
            "failure.html",
            status=403,
            title=_("Nothing was done"),
            text=_("This form is not of your present session. Load the page again, and send it once more."),
            details=[],
            trace_id="",
        )

    def store_away(self) -> Response:
        """For everybody, while who is signed in is not known."""
        text = _("Who is signed in is not known now: the database does not answer, or is asked too often by strangers.")
        return self._bare(503, _("Try again"), text)

    async def no_such_page(self, request: Request, exc: Exception) -> Response:  # noqa: ARG002  # Starlette's signature
        """For an address that is no page's."""
        return self._bare(404, _("There is no such page"), _("Look at the address, or begin at the overview."))

    async def not_read(self, request: Request, exc: Exception) -> Response:  # noqa: ARG002  # as above
        """For what was sent and cannot be read: a form that is broken, too large, or too slow."""
        status, detail = (exc.status_code, exc.detail) if isinstance(exc, HTTPException) else (400, "")
        return self._bare(status, _("This could not be read"), detail)

    async def failed(self, request: Request, exc: Exception) -> Response:  # noqa: ARG002  # as above
        """For a mistake of the console's own. The gateway's log has it."""
        return self._bare(500, _("Something went wrong"), _("This page failed. Nothing more is known here."))

    def _bare(self, status: int, title: str, text: str) -> Response:
        page = self.templates.get_template("bare.html").render(title=title, text=text)
        return HTMLResponse(page, status_code=status)
