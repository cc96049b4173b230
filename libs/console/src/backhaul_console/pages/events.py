"""The list of events, and the live tail: events as they are published."""

from __future__ import annotations

from starlette.responses import Response

from backhaul_console import choices
from backhaul_console.filtering import filters_of, form_of, listed
from backhaul_console.pages.tail import tail
from backhaul_console.sse import MEDIA_TYPE, EventStream
from backhaul_console.visits import Page, Visit

FOLLOWED = ("kind", "channel", "message_id", "recipient", "communication", "error_code")
"""By what a stream can be filtered."""
FILTERS = (*FOLLOWED, "from", "to")


async def _events(visit: Visit) -> Response:
    live = bool(visit.query.get("live"))
    found = None if live else await listed(visit, FILTERS, visit.api.events)
    form = form_of(visit, FOLLOWED) if found is None else found.form
    query = {name: form[name] for name in FOLLOWED}
    return visit.page(
        "events/live.html" if live else "events/list.html",
        status=form.status,
        found=found,
        form=form,
        query=query,
        stream=visit.at("/events/live", **query),
        channels=await choices.channels(visit, form["channel"]),
        kinds=choices.kinds(form["kind"]),
    )


async def _live(visit: Visit) -> Response:
    """The stream of the page, for scripts; whoever else comes here is led to the page."""
    form = form_of(visit, FOLLOWED)
    if MEDIA_TYPE not in visit.request.headers.get("accept", ""):
        return visit.to("/events", live=1, **{name: form[name] for name in FOLLOWED})
    return EventStream(tail(visit, filters_of(form, FOLLOWED), visit.request.headers.get("last-event-id", "")))


ROUTES = (
    Page("GET", "/events", _events),
    Page("GET", "/events/live", _live),
)
