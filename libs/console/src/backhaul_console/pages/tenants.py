"""The platform team's tenants: finding one, making one, changing and deleting one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple, cast

from backhaul_client import Page as Rows
from backhaul_client.adminmodels import Tenant
from starlette.responses import Response

from backhaul_console.asking import asks
from backhaul_console.forms import REFUSED, Filled, wrong
from backhaul_console.rendering import segment
from backhaul_console.texts import _
from backhaul_console.visits import Page, Visit

LOOKED_AT = 500
"""Among how many tenants one page looks for a text."""
_ROWS = 50


async def _list(visit: Visit) -> Response:
    text, cursor = visit.query.get("q", "").strip(), visit.query.get("cursor", "")
    if not text:
        found = await visit.first(visit.admin.tenants(page_size=_ROWS, cursor=cursor))
        return visit.page("tenants/list.html", text="", tenants=found.rows, next_cursor=found.next_cursor, looked=0)
    found, looked = await fitting(visit.admin.tenants(page_size=_ROWS, cursor=cursor).pages(), text)
    return visit.page("tenants/list.html", text=text, tenants=found.rows, next_cursor=found.next_cursor, looked=looked)


async def fitting(pages: AsyncIterator[Rows[Tenant]], text: str) -> tuple[Rows[Tenant], int]:
    """Who has ``text`` in a name, as one page, and among how many it was looked for. As a cursor leads behind a whole
    page alone, it may be more than a page, and is less than two."""
    tenants: list[Tenant] = []
    looked, cursor = 0, ""
    async for page in pages:
        cursor = page.next_cursor
        looked += len(page.rows)
        tenants += [one for one in page.rows if _has(one, text.casefold())]
        if looked >= LOOKED_AT or len(tenants) >= _ROWS:
            break
    return Rows(tuple(tenants), cursor), looked


def _has(tenant: Tenant, text: str) -> bool:
    return any(text in one.casefold() for one in (tenant.id, tenant.name, tenant.queue_path))


async def _one(visit: Visit) -> Response:
    tenant = await visit.admin.tenant(tenant_of(visit))
    return visit.page("tenants/one.html", tenant=tenant, groups=GROUPS, at=_at, opened=_opened(visit, tenant.id))


def _opened(visit: Visit, tenant_id: str) -> bool:
    return tenant_id in visit.session.access.tenants


def tenant_of(visit: Visit) -> str:
    """The tenant that an address names."""
    return str(visit.request.path_params["id"])


def _at(tenant: Tenant, name: str) -> object:
    """What a setting of ``GROUPS`` is now."""
    value: Any = tenant
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _rate(form: Filled, name: str) -> float:
    try:
        return float(form[name])
    except ValueError:
        raise wrong(name, _("This is no number."), _("Type digits, with a point where it needs one.")) from None


def _count(form: Filled, name: str) -> int:
    return form.number(name)


def _count_or_default(form: Filled, name: str) -> int | None:
    return form.number(name) if form[name] else None


def _text(form: Filled, name: str) -> str:
    return form[name]


def _time(form: Filled, name: str) -> object:
    return form.moment(name)


Read = Callable[[Filled, str], object]

GROUPS: tuple[tuple[str, tuple[tuple[str, str, Read], ...]], ...] = (
    (
        _("Limits"),
        (
            ("limits.requests_per_second", _("Callbacks a second"), _rate),
            ("limits.burst", _("Callbacks at once"), _count),
            ("limits.max_body_bytes", _("Bytes of a callback at most"), _count),
            ("limits.reads_per_second", _("Reads a second"), _rate),
            ("limits.read_burst", _("Reads at once"), _count),
            ("limits.concurrent_reads", _("Reads that are answered at the same time"), _count),
            ("limits.overdraft_callbacks", _("Callbacks held over the limit"), _count_or_default),
        ),
    ),
    (
        _("Kept for days"),
        (
            ("retention.event_retention_days", _("Events"), _count),
            ("retention.message_retention_days", _("Messages"), _count),
            ("retention.address_retention_days", _("Addresses"), _count),
            ("audit.retention_days", _("Audit files"), _count),
        ),
    ),
    (
        _("Opt-outs"),
        (
            ("suppression.revocation_scope", _("What a STOP covers"), _text),
            ("suppression.topic_since", _("By topic since"), _time),
            ("suppression.whatsapp", _("What is said on WhatsApp"), _text),
        ),
    ),
)
"""The settings, named as the API names them, and how each is read from a form."""

_KEPT = ("retention.", "audit.")
"""Of these nothing is for ever, which a form and the API say as 0."""


def _filled(tenant: Tenant) -> Filled:
    texts = {"name": tenant.name}
    for _title, settings in GROUPS:
        for name, _label, _read in settings:
            value = _at(tenant, name)
            texts[name] = ("0" if name.startswith(_KEPT) else "") if value is None else typed(value)
    return Filled({**{name: [text] for name, text in texts.items()}, **{f"was.{n}": [t] for n, t in texts.items()}})


def _wanted(form: Filled) -> dict[str, Any]:
    """What is to be changed: what was typed differs from what the form showed. What somebody else has changed since
    stays so."""
    wanted: dict[str, Any] = {}
    if form["name"] != form["was.name"]:
        wanted["name"] = form["name"]
    for _title, settings in GROUPS:
        for name, _label, read in settings:
            if form[name] != form[f"was.{name}"]:
                group, _dot, field = name.partition(".")
                wanted.setdefault(group, {})[field] = read(form, name)
    return wanted


def typed(value: object) -> str:
    """A setting as somebody would type it: no more digits than it has, and a time with its zone."""
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value).removesuffix(".0")


async def _settings(visit: Visit) -> Response:
    tenant = await visit.admin.tenant(tenant_of(visit))
    return visit.page("tenants/settings.html", tenant=tenant, groups=GROUPS, form=_filled(tenant))


_DELETES = {
    "retention.event_retention_days": _(
        "Events that arrived longer ago are deleted, with what the provider sent and what people wrote."
    ),
    "retention.message_retention_days": _(
        "Messages of which nothing was told for longer are deleted, and members of batches that have been complete for "
        "longer. What is counted stays."
    ),
    "retention.address_retention_days": _(
        "Who messages went to and came from is deleted, where they were first heard of longer ago."
    ),
    "audit.retention_days": _("Audit files that are older are deleted, each as a whole."),
}
"""What a smaller number does. None of it comes back."""


class _Less(NamedTuple):
    name: str
    label: str
    now: str
    then: str


def _shorter(form: Filled, wanted: Mapping[str, Any], tenant: Tenant) -> list[_Less]:
    """Of what is to be changed, what would be kept for fewer days than now, and nobody has agreed to. What was agreed
    to is of the number that was shown: where somebody has changed it since, it is asked about anew."""
    found = []
    for _title, settings in GROUPS:
        for name, label, _read in settings:
            group, _dot, field = name.partition(".")
            if name not in _DELETES or field not in wanted.get(group, {}):
                continue
            now, then = cast("int | None", _at(tenant, name)) or 0, cast("int", wanted[group][field])
            if then and (not now or then < now) and form[f"agreed.{name}"] != str(now):
                found.append(_Less(name, label, str(now), str(then)))
    return found


def _asked(visit: Visit, form: Filled, found: Sequence[_Less]) -> Response:
    agreed = [(f"agreed.{one.name}", one.now) for one in found]
    again = {"form_token", *(name for name, _now in agreed)}
    typed_in = [(name, text) for name, texts in form.values.items() if name not in again for text in texts]
    return asks(
        visit,
        _("Keep it for fewer days?"),
        *(_DELETES[one.name] for one in found),
        _("What is deleted does not come back."),
        action=f"/tenants/{segment(tenant_of(visit))}/settings",
        label=_("Save, and delete it"),
        back=f"/tenants/{segment(tenant_of(visit))}",
        fields=[*typed_in, *agreed],
        figures=[(one.label, f"{_('for ever') if one.now == '0' else one.now} → {one.then}") for one in found],
    )


async def _change(visit: Visit) -> Response:
    tenant_id, form = tenant_of(visit), await visit.filled()
    try:
        wanted = _wanted(form)
        if found := _shorter(form, wanted, await visit.admin.tenant(tenant_id)):
            return _asked(visit, form, found)
        await visit.admin.change_tenant(tenant_id, **wanted)
    except REFUSED as exc:
        tenant = await visit.admin.tenant(tenant_id)
        form = form.refused(exc)
        return visit.page("tenants/settings.html", status=form.status, tenant=tenant, groups=GROUPS, form=form)
    return visit.to(f"/tenants/{tenant_id}", said="saved")


async def _new(visit: Visit) -> Response:
    return visit.page("tenants/new.html", form=Filled({}))


async def _create(visit: Visit) -> Response:
    form = await visit.filled()
    try:
        made = await visit.admin.create_tenant(form["id"], name=form["name"], queue_path=form["queue_path"])
    except REFUSED as exc:
        form = form.refused(exc)
        return visit.page("tenants/new.html", status=form.status, form=form)
    return visit.page("tenants/made.html", made=made)


async def _suspending(visit: Visit) -> Response:
    tenant = await visit.admin.tenant(tenant_of(visit))
    here = f"/tenants/{segment(tenant.id)}"
    return asks(
        visit,
        _("Suspend %s?") % tenant.name,
        _("Calls by its keys and tokens are refused, and everything is kept."),
        _("Callbacks of its channels are held for a while, and stored when it is active again."),
        figures=[(_("Keys and tokens"), len(tenant.keys)), (_("Channels"), len(tenant.channels))],
        fields=[("status", "suspended")],
        action=f"{here}/status",
        label=_("Suspend"),
        back=here,
    )


async def _set_status(visit: Visit) -> Response:
    status = (await visit.form()).get("status")
    if status not in ("active", "suspended"):
        raise wrong("status", _("There is no such status."), _("Use the buttons of the tenant's page."))
    await visit.admin.change_tenant(tenant_of(visit), status=cast("Literal['active', 'suspended']", status))
    return visit.to(f"/tenants/{tenant_of(visit)}", said="saved")


async def _deleting(visit: Visit) -> Response:
    return visit.page("tenants/delete.html", tenant=await visit.admin.tenant(tenant_of(visit)), form=Filled({}))


async def _delete(visit: Visit) -> Response:
    tenant_id, form = tenant_of(visit), await visit.filled()
    try:
        if form["id"] != tenant_id:
            raise wrong("id", _("This is not the tenant's id."), _("Type it exactly as it stands above."))
        # The registration is that of the tenant which the page told of, and no other life of its id.
        purge, life = form["purge"] == "yes", form["registration"]
        left = await visit.admin.delete_tenant(tenant_id, purge=purge, registration=life)
    except REFUSED as exc:
        form = form.refused(exc)
        tenant = await visit.admin.tenant(tenant_id)
        return visit.page("tenants/delete.html", status=form.status, tenant=tenant, form=form)
    if left is None:
        return visit.to("/tenants", said="deleted")
    return visit.to(f"/tenants/{tenant_id}", said="deleting")


def fields_of(form: Filled, names: Mapping[str, Read]) -> dict[str, object]:
    """What was typed into these fields, without those that were left empty."""
    return {name.rpartition(".")[2]: read(form, name) for name, read in names.items() if form[name]}


rate_of, count_of = _rate, _count

ROUTES = (
    Page("GET", "/tenants", _list, side="admin"),
    Page("GET", "/new-tenant", _new, side="admin"),
    Page("POST", "/new-tenant", _create, side="admin"),
    Page("GET", "/tenants/{id}", _one, side="admin"),
    Page("GET", "/tenants/{id}/settings", _settings, side="admin"),
    Page("POST", "/tenants/{id}/settings", _change, side="admin"),
    Page("GET", "/tenants/{id}/suspend", _suspending, side="admin"),
    Page("POST", "/tenants/{id}/status", _set_status, side="admin"),
    Page("GET", "/tenants/{id}/delete", _deleting, side="admin"),
    Page("POST", "/tenants/{id}/delete", _delete, side="admin"),
)
