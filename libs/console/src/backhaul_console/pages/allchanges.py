"""Who changed what of the whole installation, or of one tenant in all of its lives."""

from __future__ import annotations

from starlette.responses import Response

from backhaul_console.filtering import listed
from backhaul_console.pages.changes import ROWS, shown, whole
from backhaul_console.visits import Page, Visit

_FILTERS = ("tenant", "author", "action", "application", "from", "to")


async def _list(visit: Visit) -> Response:
    return shown(visit, await listed(visit, _FILTERS, visit.admin.changes, page_size=ROWS))


async def _whole(visit: Visit) -> Response:
    return await whole(visit, visit.admin.changes)


ROUTES = (
    Page("GET", "/changes", _list, side="admin"),
    Page("GET", "/changes/whole", _whole, side="admin"),
)
"""The tenant's own are those of ``changes``."""
