"""What people wrote: first what is likely an opt-out, until somebody decides."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response

from backhaul_console.asking import asks
from backhaul_console.filtering import filters_of, listed
from backhaul_console.pages.replays import ROWS
from backhaul_console.rendering import segment
from backhaul_console.texts import _
from backhaul_console.visits import Page, Visit

FILTERS = ("channel", "recipient", "communication", "from", "to")
_PLACE = ("view", *FILTERS, "cursor")
"""What the address of a list has: whoever decides about a reply comes back to it."""


async def _list(visit: Visit) -> Response:
    only = visit.query.get("view", "") == "flagged"
    cursor = visit.query.get("cursor", "")
    found = await listed(visit, FILTERS, partial(visit.api.replies, flagged=only), page_size=ROWS)
    flagged = None
    if not only and not cursor and found.form.error is None:
        # They stand above the first page of all; the pages behind it have them in their places.
        asked = filters_of(found.form, FILTERS)
        flagged = await visit.first(visit.api.replies(flagged=True, page_size=ROWS, **asked))
    typed = {name: found.form[name] for name in FILTERS}
    values: dict[str, Any] = {
        "found": found,
        "form": found.form,
        "flagged": flagged,
        "only": only,
        "asked": typed,
        "place": {"view": "flagged" if only else "", **typed, "cursor": cursor},
        "channels": await visit.api.channels(),
    }
    return visit.page("replies/list.html", status=found.form.status, **values)


async def _accept(visit: Visit) -> Response:
    await visit.api.accept_reply(visit.request.path_params["reply"])
    return await _back(visit, "accepted")


async def _dismissing(visit: Visit) -> Response:
    place = {name: visit.query.get(name, "") for name in _PLACE}
    return asks(
        visit,
        _("Dismiss what was likely an opt-out"),
        _("The reply is taken for no opt-out: nothing follows from it, and the person is contacted as before."),
        _("It leaves the list of those to decide about. It can still be accepted later, from when it was written."),
        fields=[(name, value) for name, value in place.items() if value],
        action=f"/replies/{segment(visit.request.path_params['reply'])}/dismiss",
        label=_("Dismiss it"),
        back="/replies?" + urlencode({name: value for name, value in place.items() if value}),
    )


async def _dismiss(visit: Visit) -> Response:
    await visit.api.dismiss_reply(visit.request.path_params["reply"])
    return await _back(visit, "dismissed")


async def _back(visit: Visit, said: str) -> Response:
    form = await visit.form()
    return visit.to("/replies", **{name: form.get(name, "") for name in _PLACE}, said=said)


ROUTES = (
    Page("GET", "/replies", _list),
    Page("POST", "/replies/{reply}/accept", _accept),
    Page("GET", "/replies/{reply}/dismiss", _dismissing),
    Page("POST", "/replies/{reply}/dismiss", _dismiss),
)
