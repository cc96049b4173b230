"""Which errors were reported: how often, on which channel, and what they mean."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from starlette.responses import Response

from backhaul_console.rendering import shown
from backhaul_console.texts import _
from backhaul_console.visits import Page, Visit

MAX_ROWS = 100
"""More make no page that anybody reads: their number is told, and filters narrow them."""

_SPANS = {
    "1h": (1, _("The last hour")),
    "24h": (24, _("24 hours")),
    "7d": (168, _("7 days")),
    "30d": (720, _("30 days")),
}


async def _errors(visit: Visit) -> Response:
    asked = shown(visit.query, "span", "channel", "error_code")
    hours, _label = _SPANS.get(asked["span"] or "24h") or _SPANS["24h"]
    # A full minute, so that the lists that a row leads to begin where its count does, and their addresses stay short.
    since = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(hours=hours)
    found, channels = await asyncio.gather(
        visit.api.errors(channel=asked["channel"], error_code=asked["error_code"], from_=since),
        visit.api.channels(),
    )
    return visit.page(
        "errors/page.html",
        asked=asked,
        found=found,
        rows=found.errors[:MAX_ROWS],
        total=sum(one.count for one in found.errors),
        most=max((one.count for one in found.errors), default=0),
        since=since,
        channels=channels,
        spans=[(name, label) for name, (_hours, label) in _SPANS.items()],
    )


ROUTES = (Page("GET", "/errors", _errors),)
