"""Who changed what of the whole installation, or of one tenant in all of its lives."""

from __future__ import annotations

from typing import Any

from backhaul_client import Page as Rows
from backhaul_client.changes import Change
from starlette.responses import Response

from backhaul_console.forms import REFUSED
from backhaul_console.pages.changes import differences
from backhaul_console.visits import Page, Visit

_FILTERS = ("tenant", "author", "action", "application")
_ROWS, _MAX_OPEN = 25, 12
"""Changes on a page, and fields of one that are seen at once, as on a tenant's own pages."""


async def _list(visit: Visit) -> Response:
    form = visit.asked
    filters: dict[str, Any] = {name: form[name] for name in _FILTERS}
    try:
        times: dict[str, Any] = {"from_": form.moment("from"), "to": form.moment("to")}
        found = await visit.first(visit.admin.changes(page_size=_ROWS, cursor=form["cursor"], **filters, **times))
    except REFUSED as exc:
        form, found = form.refused(exc), Rows[Change]((), "")
    return visit.page(
        "changes/list.html",
        status=form.status,
        form=form,
        rows=[(change, differences(change.before, change.after)) for change in found.rows],
        shown=_MAX_OPEN,
        next_cursor=found.next_cursor,
        query={**filters, "from": form["from"], "to": form["to"]},
    )


ROUTES = (Page("GET", "/changes", _list, side="admin"),)
"""The tenant's own are those of ``changes``."""
