"""What is said of people: that they must not be contacted, or may be again; one by one, or by a list."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Literal
from uuid import uuid4

import msgspec
from backhaul_client import BackhaulError, UnreachableError
from backhaul_client.suppressionmodels import ImportProgress
from backhaul_client.suppressions import ConsentedIn, EvidenceIn, LiftedIn, SuppressedIn
from starlette.responses import Response

from backhaul_console.files import MAX_BESIDE_BYTES, Upload
from backhaul_console.forms import REFUSED, Filled, wrong
from backhaul_console.pages.suppressions import FAMILIES, KINDS, SCOPES
from backhaul_console.rendering import segment
from backhaul_console.texts import _
from backhaul_console.visits import Page, Visit

SOURCES = ("web", "agent", "email", "voice", "letter", "api", "file")
MAX_FILE_BYTES = 1 << 30
"""As the API takes."""
_MAX_TOLD = 256 << 10
"""Characters of refused lines that are kept to show them."""
_REFUSED_SHOWN = 100
_ABOUT = ("address", "family", "kind", "scope.kind", "scope.id")


async def _adding(visit: Visit) -> Response:
    kind = "manual" if visit.tenant_id else "legal"
    return _page(visit, "add", _with_key(visit, kind=kind, source="api" if visit.tenant_id else ""))


async def _add(visit: Visit) -> Response:
    form = await visit.filled()
    try:
        said: SuppressedIn = {
            **_said(form),
            "source": form["source"],
            "effective_at": form.moment("effective_at"),
            "evidence": _evidence(form),
        }
        if visit.tenant_id:
            found = await visit.api.suppress(form["address"], form["kind"], **said)
        else:
            found = await visit.admin.suppress(_tenant(visit), form["address"], kind=form["kind"], **said)
    except REFUSED as exc:
        return _page(visit, "add", form.refused(exc))
    return _done(visit, form, "suppressed" if found.changed else "unchanged")


async def _lifting(visit: Visit) -> Response:
    return _page(visit, "lift", _with_key(visit, kind="manual" if visit.tenant_id else "legal"))


async def _lift(visit: Visit) -> Response:
    form = await visit.filled()
    try:
        if visit.tenant_id:
            said: ConsentedIn = {**_said(form), "evidence": _evidence(form)}
            found = await visit.api.lift_suppression(form["address"], form["kind"], **said)
        else:
            found = await visit.admin.lift_suppression(
                _tenant(visit), form["address"], kind=form["kind"], **_said(form)
            )
    except REFUSED as exc:
        return _page(visit, "lift", form.refused(exc))
    return _done(visit, form, "lifted" if found.changed else "unchanged")


async def _reactivating(visit: Visit) -> Response:
    return _page(visit, "reactivate", _with_key(visit))


async def _reactivate(visit: Visit) -> Response:
    form = await visit.filled()
    try:
        found = await visit.api.reactivate(
            form["address"], family=form["family"], note=form["note"], idempotency_key=form["key"]
        )
    except REFUSED as exc:
        return _page(visit, "reactivate", form.refused(exc))
    return _done(visit, form, "lifted" if found.suppressions else "unchanged")


async def _importing(visit: Visit) -> Response:
    return _import_page(visit, Filled.of())


async def _import(visit: Visit) -> Response:
    """Take over a list: the file goes on to the API as it comes from the browser."""
    upload = Upload(visit.request)
    form = Filled.of()
    try:
        await upload.begin()
        form = Filled({name: [value] for name, value in upload.fields.items()})
        if not upload.name:
            raise wrong("file", _("No file was chosen."), _("Choose a list as CSV or JSON Lines."))
        found, errors = await _taken(visit, upload, form)
    except REFUSED as exc:
        await upload.rest()
        return _import_page(visit, form.refused(exc))
    except BackhaulError:
        await upload.rest()
        raise
    refused = [*_refused_lines(upload.name, errors)]
    return visit.page("suppressions/imported.html", name=upload.name, found=found, refused=refused)


async def _taken(visit: Visit, upload: Upload, form: Filled) -> tuple[ImportProgress, str]:
    """How far the list was at its end, and the first of the lines that were refused."""
    last, errors = None, ""
    async for last in visit.api.following_import(
        upload.pieces(),
        format=_format_of(upload.name),
        kind=form["kind"],
        family=form["family"],
        scope_kind=form["scope_kind"],
        scope_id=form["scope_id"],
        effective_at=form.moment("effective_at"),
    ):
        if len(errors) < _MAX_TOLD:
            errors += last.errors
    if last is None or not last.done:
        raise UnreachableError("the import broke off")
    return last, errors


def _format_of(name: str) -> Literal["csv", "jsonl"]:
    return "jsonl" if name.lower().endswith((".jsonl", ".ndjson")) else "csv"


def _refused_lines(name: str, errors: str) -> Iterator[Mapping[str, str]]:
    """The first lines that were refused, of a file of errors that may be cut off."""
    whole = errors[: errors.rfind("\n") + 1]
    if _format_of(name) == "csv":
        rows: Iterator[Mapping[str, Any]] = iter(csv.DictReader(io.StringIO(whole, newline="")))
    else:
        rows = (msgspec.json.decode(line, type=dict[str, Any]) for line in whole.splitlines())
    with suppress(csv.Error, msgspec.MsgspecError):
        for row, _count in zip(rows, range(_REFUSED_SHOWN), strict=False):
            yield {
                said: str(row.get(said) or "")
                for said in ("error_line", "error_field", "error_message", "error_fix", "address")
            }


def _import_page(visit: Visit, form: Filled) -> Response:
    values: dict[str, Any] = {"form": form, "kinds": _kinds(visit), "families": FAMILIES, "scopes": SCOPES}
    return visit.page("suppressions/import.html", status=form.status, **values)


def _with_key(visit: Visit, **first: str) -> Filled:
    """The form as a link asks for it, under a key of its own: sent twice, it is done once."""
    given = {name: visit.query.get(name, "") or first.get(name, "") for name in (*_ABOUT, *first)}
    return Filled.of(**given, key=uuid4().hex)


def _said(form: Filled) -> LiftedIn:
    return {
        "family": form["family"],
        "scope_kind": form["scope.kind"],
        "scope_id": form["scope.id"],
        "note": form["note"],
        "idempotency_key": form["key"],
    }


def _evidence(form: Filled) -> EvidenceIn | None:
    """The proof, where any of it was typed: what is missing then is named by the API."""
    said: EvidenceIn = {}
    if form["evidence.source"]:
        said["source"] = form["evidence.source"]
    if (at := form.moment("evidence.at")) is not None:
        said["at"] = at
    if form["evidence.reference"]:
        said["reference"] = form["evidence.reference"]
    if form["evidence.text"]:
        said["text"] = form["evidence.text"]
    return said or None


def _page(visit: Visit, name: str, form: Filled) -> Response:
    values: dict[str, Any] = {
        "form": form,
        "kinds": _kinds(visit),
        "families": FAMILIES,
        "scopes": SCOPES,
        "sources": SOURCES,
        "tenant": visit.tenant_id or _tenant(visit),
        "place": _place(visit),
    }
    return visit.page(f"suppressions/{name}.html", status=form.status, **values)


def _kinds(visit: Visit) -> tuple[str, ...]:
    return tuple(kind for kind in KINDS if kind != "legal" or not visit.tenant_id)


def _tenant(visit: Visit) -> str:
    return str(visit.request.path_params["id"])


def _place(visit: Visit) -> str:
    return "/suppressions" if visit.tenant_id else f"/tenants/{segment(_tenant(visit))}/suppressions"


def _done(visit: Visit, form: Filled, said: str) -> Response:
    if visit.tenant_id:
        return visit.to("/suppressions", address=form["address"], family=form["family"], said=said)
    return visit.to(_place(visit), kind=form["kind"], said=said)


_OF_TENANT = "/tenants/{id}/suppressions"
ROUTES = (
    Page("GET", "/suppressions/add", _adding),
    Page("POST", "/suppressions/add", _add),
    Page("GET", "/suppressions/lift", _lifting),
    Page("POST", "/suppressions/lift", _lift),
    Page("GET", "/suppressions/reactivate", _reactivating),
    Page("POST", "/suppressions/reactivate", _reactivate),
    Page("GET", "/suppressions/import", _importing),
    Page("POST", "/suppressions/import", _import, max_body=MAX_FILE_BYTES + MAX_BESIDE_BYTES, takes_file=True),
    Page("GET", f"{_OF_TENANT}/add", _adding, side="admin"),
    Page("POST", f"{_OF_TENANT}/add", _add, side="admin"),
    Page("GET", f"{_OF_TENANT}/lift", _lifting, side="admin"),
    Page("POST", f"{_OF_TENANT}/lift", _lift, side="admin"),
)
