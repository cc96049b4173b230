"""Who must not be contacted: one person, with all that is known; all of them, as a list and as a file."""

from __future__ import annotations

from typing import Any, Literal

from backhaul_client import UnavailableError
from backhaul_client.suppressionmodels import Checked
from starlette.responses import Response

from backhaul_console.filtering import listed
from backhaul_console.forms import MISTYPED, Filled
from backhaul_console.pages.replays import ROWS
from backhaul_console.rendering import shown
from backhaul_console.streaming import download
from backhaul_console.visits import Page, Visit

FAMILIES = ("phone", "email", "voice")
KINDS = (
    "manual",
    "stop",
    "unsubscribe",
    "complaint",
    "hard_bounce",
    "invalid_address",
    "provider_block",
    "legal",
)
SCOPES = ("all", "sender", "messaging_service", "group")
PURPOSES = ("marketing", "transactional")
_ORIGINS = ("recipient", "provider", "tenant", "operator", "import")
_STANDINGS = ("active", "lifted", "any")
_EXPORTED = ("kind", "family", "standing")
"""Filters that the export has as well; with any other its file would not be what the list shows."""
_NOT_EXPORTED = ("origin", "scope_kind", "scope_id", "from", "to")
_SENDING = ("sender", "messaging_service", "group")
LIFTED_BY = {
    "stop": "lift",
    "unsubscribe": "lift",
    "manual": "lift",
    "hard_bounce": "reactivate",
    "invalid_address": "reactivate",
}
"""Which call of a tenant lifts a kind. Others are lifted by events, or by the operator; the API has the last word."""


async def _suppressions(visit: Visit) -> Response:
    """A person, where an address is asked for; else the list."""
    return await (_person(visit) if visit.query.get("address", "").strip() else _list(visit))


async def _list(visit: Visit) -> Response:
    found = await listed(visit, (*_EXPORTED, *_NOT_EXPORTED), visit.api.suppressions, page_size=ROWS)
    form = found.form
    values: dict[str, Any] = {
        "found": found,
        "form": form,
        "exported": None if any(form[name] for name in _NOT_EXPORTED) else {name: form[name] for name in _EXPORTED},
        "words_of": {
            "family": FAMILIES,
            "kind": KINDS,
            "origin": _ORIGINS,
            "scope_kind": SCOPES,
            "standing": _STANDINGS,
        },
    }
    return visit.page("suppressions/list.html", status=form.status, **values)


async def _person(visit: Visit) -> Response:
    asked = shown(visit.query, "address", "family", *_SENDING)
    form = Filled.of(**asked)
    values: dict[str, Any] = {"form": form, "families": FAMILIES, "record": None, "verdicts": None, "lifted_by": {}}
    try:
        record = await visit.api.suppression_record(
            asked["address"], family=asked["family"], page_size=ROWS, cursor=visit.query.get("cursor", "")
        )
        verdicts = await _verdicts(visit, asked) if visit.may("check") else None
    except MISTYPED as exc:
        refused = form.refused(exc)
        return visit.page("suppressions/person.html", status=refused.status, **{**values, "form": refused})
    values |= {"record": record, "verdicts": verdicts, "lifted_by": LIFTED_BY, "asked": asked}
    return visit.page("suppressions/person.html", **values)


async def _verdicts(visit: Visit, asked: dict[str, str]) -> list[tuple[str, Checked | None]]:
    """Whether a message of each purpose may be sent; None where nobody can tell."""
    sending = {name: asked[name] for name in _SENDING if asked[name]}
    found: list[tuple[str, Checked | None]] = []
    for purpose in PURPOSES:
        try:
            found.append(
                (purpose, await visit.api.check(asked["address"], family=asked["family"], purpose=purpose, **sending))
            )
        except UnavailableError:
            found.append((purpose, None))
    return found


async def _export(visit: Visit) -> Response:
    asked = shown(visit.query, *_EXPORTED)
    form: Literal["csv", "jsonl"] = "jsonl" if visit.query.get("format") == "jsonl" else "csv"
    pieces = visit.api.export_suppressions(format=form, **asked)
    kind = "text/csv; charset=utf-8" if form == "csv" else "application/x-ndjson"
    return await download(f"suppressions-{visit.tenant_id}.{form}", pieces, kind)


async def _of_tenant(visit: Visit) -> Response:
    """Who of a tenant's people must not be contacted, as the operator sees it."""
    asked = shown(visit.query, "kind", "standing")
    tenant = visit.request.path_params["id"]
    rows = visit.admin.suppressions(
        tenant,
        kind=asked["kind"],
        standing=asked["standing"],
        page_size=ROWS,
        cursor=visit.query.get("cursor", ""),
    )
    values: dict[str, Any] = {
        "page": await visit.first(rows),
        "asked": asked,
        "tenant": tenant,
        "words_of": {"kind": KINDS, "standing": _STANDINGS},
    }
    return visit.page("suppressions/of_tenant.html", **values)


ROUTES = (
    Page("GET", "/suppressions", _suppressions),
    Page("GET", "/suppressions/export", _export),
    Page("GET", "/tenants/{id}/suppressions", _of_tenant, side="admin"),
)
