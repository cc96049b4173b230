"""What people wrote: first what is likely an opt-out, until somebody decides."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from backhaul_console.forms import moment_of
from backhaul_console.pages.replays import ROWS
from backhaul_console.rendering import shown
from backhaul_console.visits import Page, Visit


async def _list(visit: Visit) -> Response:
    asked = shown(visit.query, "channel", "recipient", "communication", "from", "to")
    filters: dict[str, Any] = {name: asked[name] for name in ("channel", "recipient", "communication")}
    filters |= {"from_": moment_of("from", asked["from"]), "to": moment_of("to", asked["to"])}
    only = visit.query.get("view", "") == "flagged"
    cursor = visit.query.get("cursor", "")
    rows = visit.api.replies(flagged=only, page_size=ROWS, cursor=cursor, **filters)
    # They stand above the first page of all; the pages behind it have them in their places.
    first = visit.api.replies(flagged=True, page_size=ROWS, **filters)
    values: dict[str, Any] = {
        "page": await visit.first(rows),
        "flagged": None if only or cursor else await visit.first(first),
        "only": only,
        "asked": asked,
        "channels": await visit.api.channels(),
    }
    return visit.page("replies/list.html", **values)


async def _accept(visit: Visit) -> Response:
    await visit.api.accept_reply(visit.request.path_params["reply"])
    return await _back(visit, "accepted")


async def _dismiss(visit: Visit) -> Response:
    await visit.api.dismiss_reply(visit.request.path_params["reply"])
    return await _back(visit, "dismissed")


async def _back(visit: Visit, said: str) -> Response:
    only = (await visit.form()).get("view") == "flagged"
    return visit.to("/replies", view="flagged" if only else "", said=said)


ROUTES = (
    Page("GET", "/replies", _list),
    Page("POST", "/replies/{reply}/accept", _accept),
    Page("POST", "/replies/{reply}/dismiss", _dismiss),
)
