"""What is sent: communications, how far each is, its batches, and what became of their members."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

from backhaul_client import AsyncRows, BackhaulError
from backhaul_client.communicationmodels import CommunicationSummary
from starlette.responses import Response

from backhaul_console.filtering import listed
from backhaul_console.forms import REFUSED, Filled
from backhaul_console.rendering import segment
from backhaul_console.visits import Page, Visit

_PAGE = 50
_A_DAY = len("2026-03-01")
_FILTERS = ("status", "mode", "channel", "registered", "from", "to")


async def _list(visit: Visit) -> Response:
    def asked(*, to: datetime | None = None, registered: str = "", **filters: Any) -> AsyncRows[CommunicationSummary]:
        if to is not None and len(visit.query.get("to", "").strip()) == _A_DAY:
            # The day that was named is among those that are shown.
            to = to.replace(hour=23, minute=59, second=59, microsecond=999_999)
        return visit.api.communications.list(to=to, registered=registered == "yes", **filters)

    found, channels = await asyncio.gather(listed(visit, _FILTERS, asked), visit.api.channels())
    return visit.page(
        "communications/list.html", status=found.form.status, found=found, form=found.form, channels=channels
    )


async def _one(visit: Visit) -> Response:
    asking = visit.query.get("ask", "")
    if asking in ("disable", "enable"):
        return await _ask(visit, asking, Filled.of(reason=""))
    communication_id = visit.request.path_params["communication_id"]
    one, batches_page = await asyncio.gather(
        visit.api.communications.get(communication_id),
        visit.first(
            visit.api.batches.list(
                communication=communication_id, page_size=_PAGE, cursor=visit.query.get("cursor", "")
            )
        ),
    )
    return visit.page("communications/one.html", one=one, batches=batches_page)


async def _ask(visit: Visit, what: str, form: Filled) -> Response:
    """The page that asks before a communication is disabled or enabled."""
    one, telling = await asyncio.gather(
        visit.api.communications.get(visit.request.path_params["communication_id"]), _telling(visit)
    )
    return visit.page("communications/switch.html", status=form.status, one=one, what=what, form=form, telling=telling)


async def _telling(visit: Visit) -> int | None:
    """How many subscriptions wait for a disabled communication; None where nobody says."""
    try:
        return sum([one.policy.kind == "dispatch" async for one in visit.api.subscriptions.list()])
    except BackhaulError:
        return None


async def _switch(visit: Visit) -> Response:
    communication_id, form = visit.request.path_params["communication_id"], await visit.filled()
    calls = visit.api.communications
    try:
        if form["do"] == "enable":
            await calls.enable(communication_id, reason=form["reason"])
        else:
            await calls.disable(communication_id, reason=form["reason"])
    except REFUSED as exc:
        return await _ask(visit, "enable" if form["do"] == "enable" else "disable", form.refused(exc))
    return visit.to(f"/communications/{segment(communication_id)}", said="saved")


async def _batch(visit: Visit) -> Response:
    batch_id = visit.request.path_params["batch_id"]
    batch, members = await asyncio.gather(
        visit.api.batches.get(batch_id),
        visit.first(visit.api.batches.member_pages(batch_id, page_size=_PAGE, cursor=visit.query.get("cursor", ""))),
    )
    return visit.page("communications/batch.html", batch=batch, members=members)


ROUTES = (
    Page("GET", "/communications", _list),
    Page("GET", "/communications/{communication_id:path}", _one),
    Page("POST", "/communications/{communication_id:path}", _switch),
    Page("GET", "/batches/{batch_id:path}", _batch),
)
