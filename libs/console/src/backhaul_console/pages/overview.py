"""What needs a hand, the worst first: of one tenant, or of all."""

from __future__ import annotations

import asyncio
from typing import Any

from backhaul_client import BackhaulError
from starlette.responses import Response

from backhaul_console.counting import Counted, Span, count
from backhaul_console.pages.audits import filing
from backhaul_console.visits import Page, Visit

_COUNTS_S = 3.0
"""What needs a hand is shown without the numbers, if these take longer."""


async def _of_tenant(visit: Visit) -> Response:
    overview, channels, hours = await asyncio.gather(visit.api.overview(), visit.api.channels(), _hours(visit))
    values: dict[str, Any] = {"channels": channels, "filing": filing(channels)}
    return visit.page("overview/tenant.html", overview=overview, hours=hours, **values)


async def _hours(visit: Visit) -> Counted | None:
    """What was counted in the last 24 hours; None while nobody says, and where the page only asks for what changes."""
    if "hx-request" in visit.request.headers and visit.query.get("part") != "hours":
        return None
    try:
        async with asyncio.timeout(_COUNTS_S):
            return await count(visit.api, Span.of("hour", 24))
    except (BackhaulError, TimeoutError):
        return None


async def _of_all(visit: Visit) -> Response:
    overview = await visit.admin.overview(cursor=visit.query.get("cursor", ""))
    return visit.page("overview/all.html", overview=overview)


ROUTES = (
    Page("GET", "", _of_tenant),
    Page("GET", "", _of_all, side="admin"),
)
