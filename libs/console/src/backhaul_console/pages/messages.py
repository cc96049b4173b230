"""The list of messages."""

from __future__ import annotations

from starlette.responses import Response

from backhaul_console import choices
from backhaul_console.filtering import listed
from backhaul_console.visits import Page, Visit

FILTERS = (
    "message_id",
    "channel",
    "state",
    "fulfilment_state",
    "recipient",
    "communication",
    "error_code",
    "from",
    "to",
)


async def _messages(visit: Visit) -> Response:
    found = await listed(visit, FILTERS, visit.api.messages)
    form = found.form
    return visit.page(
        "messages/list.html",
        status=form.status,
        found=found,
        channels=await choices.channels(visit, form["channel"]),
        states=choices.kinds(form["state"]),
        fulfilment=choices.fulfilment(form["fulfilment_state"]),
    )


ROUTES = (Page("GET", "/messages", _messages),)
