"""What needs a hand, the worst first: of one tenant, or of all."""

from __future__ import annotations

from starlette.responses import Response

from backhaul_console.visits import Page, Visit


async def _of_tenant(visit: Visit) -> Response:
    return visit.page("overview/tenant.html", overview=await visit.api.overview())


async def _of_all(visit: Visit) -> Response:
    overview = await visit.admin.overview(cursor=visit.query.get("cursor", ""))
    return visit.page("overview/all.html", overview=overview)


ROUTES = (
    Page("GET", "", _of_tenant),
    Page("GET", "", _of_all, side="admin"),
)
