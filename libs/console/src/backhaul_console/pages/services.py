"""Service accounts: other systems that may call Backhaul's services over gRPC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.responses import Response

from backhaul_console.asking import asks
from backhaul_console.forms import REFUSED, Filled
from backhaul_console.pages.tenants import Read, count_of, fields_of, rate_of, typed
from backhaul_console.rendering import segment
from backhaul_console.texts import _
from backhaul_console.visits import Page, Visit

VERBS = (
    "check", "read", "add", "lift", "import", "export", "watch", "audit", "verify", "erase", "reports", "reconcile",
    "deliveries", "redeliver", "subscribe",
)  # fmt: skip
PURPOSES = ("marketing", "transactional")
LIMITS: tuple[tuple[str, str, Read], ...] = (
    ("limits.requests_per_second", _("Calls a second"), rate_of),
    ("limits.burst", _("Calls at once"), count_of),
    ("limits.checks_per_second", _("Addresses checked a second"), rate_of),
    ("limits.checks_burst", _("Addresses checked at once"), count_of),
    ("limits.concurrent_streams", _("Open streams"), count_of),
)
_OFFERED: dict[str, Any] = {
    "verbs": [(verb, verb) for verb in VERBS],
    "purposes": [(purpose, purpose) for purpose in PURPOSES],
    "limits": LIMITS,
}


async def _list(visit: Visit) -> Response:
    found = await visit.first(visit.admin.services(page_size=50, cursor=visit.query.get("cursor", "")))
    return visit.page("services/list.html", found=found)


def _id(visit: Visit) -> str:
    return str(visit.request.path_params["id"])


async def _one(visit: Visit) -> Response:
    return visit.page("services/one.html", service=await visit.admin.service(_id(visit)), limits=LIMITS)


def _tenants(form: Filled, name: str) -> list[str]:
    return form[name].replace(",", " ").split()


_LISTS: dict[str, Callable[[Filled, str], list[str]]] = {
    "tenants": _tenants,
    "verbs": Filled.all,
    "purposes": Filled.all,
    "certificates": Filled.lines,
}
"""The lists, named as the API names them, and how each is read from a form."""


def _asked(form: Filled) -> dict[str, Any]:
    return {
        "name": form["name"],
        **{name: read(form, name) for name, read in _LISTS.items()},
        "limits": fields_of(form, {name: read for name, _label, read in LIMITS}),
    }


def _wanted(form: Filled) -> dict[str, Any]:
    """What is to be changed, as with a tenant: what somebody else has changed since the form was shown stays so."""
    wanted: dict[str, Any] = {}
    if form["name"] != form["was.name"]:
        wanted["name"] = form["name"]
    for name, read_list in _LISTS.items():
        if {*(typed_now := read_list(form, name))} != {*read_list(form, f"was.{name}")}:
            wanted[name] = typed_now
    limits = {name: read for name, _label, read in LIMITS if form[name] != form[f"was.{name}"]}
    return {**wanted, "limits": fields_of(form, limits)}


async def _new(visit: Visit) -> Response:
    return visit.page("services/form.html", form=Filled({}), service=None, **_OFFERED)


async def _create(visit: Visit) -> Response:
    form = await visit.filled()
    try:
        made = await visit.admin.create_service(
            form["id"], **_asked(form), token_expires_at=form.moment("token_expires_at")
        )
    except REFUSED as exc:
        form = form.refused(exc)
        return visit.page("services/form.html", status=form.status, form=form, service=None, **_OFFERED)
    return visit.page("services/token.html", service_id=made.id, token=made.token, expires_at=made.tokens[0].expires_at)


async def _changing(visit: Visit) -> Response:
    service = await visit.admin.service(_id(visit))
    limits = {name: [typed(getattr(service.limits, name.partition(".")[2]))] for name, _label, _read in LIMITS}
    shown = {
        "name": [service.name],
        "tenants": [" ".join(service.tenants)],
        "verbs": service.verbs,
        "purposes": service.purposes,
        "certificates": ["\n".join(service.certificates)],
        **limits,
    }
    form = Filled({**shown, **{f"was.{name}": values for name, values in shown.items()}})
    return visit.page("services/form.html", form=form, service=service, **_OFFERED)


async def _change(visit: Visit) -> Response:
    form = await visit.filled()
    try:
        await visit.admin.change_service(_id(visit), **_wanted(form))
    except REFUSED as exc:
        form, service = form.refused(exc), await visit.admin.service(_id(visit))
        return visit.page("services/form.html", status=form.status, form=form, service=service, **_OFFERED)
    return visit.to(f"/services/{_id(visit)}", said="saved")


async def _disabling(visit: Visit) -> Response:
    service = await visit.admin.service(_id(visit))
    here = f"/services/{segment(service.id)}"
    return asks(
        visit,
        _("Disable %s") % service.name,
        _("Every call of it is refused while it is disabled, and its streams end at once."),
        figures=[(_("Tokens"), len(service.tokens)), (_("Certificates"), len(service.certificates))],
        action=f"{here}/disabled",
        fields=[("disabled", "yes")],
        label=_("Disable"),
        back=here,
    )


async def _disable(visit: Visit) -> Response:
    await visit.admin.change_service(_id(visit), disabled=(await visit.form()).get("disabled") == "yes")
    return visit.to(f"/services/{_id(visit)}", said="saved")


async def _adding(visit: Visit) -> Response:
    return visit.page("services/tokens.html", service=await visit.admin.service(_id(visit)), form=Filled({}))


async def _add(visit: Visit) -> Response:
    form = await visit.filled()
    try:
        made = await visit.admin.add_service_token(
            _id(visit), expires_at=form.moment("expires_at"), others_expire_at=form.moment("others_expire_at")
        )
    except REFUSED as exc:
        form, service = form.refused(exc), await visit.admin.service(_id(visit))
        return visit.page("services/tokens.html", status=form.status, form=form, service=service)
    return visit.page("services/token.html", service_id=_id(visit), token=made.token, expires_at=made.expires_at)


async def _ending(visit: Visit) -> Response:
    """Asks before a token is revoked, or the service is deleted."""
    service = await visit.admin.service(_id(visit))
    here, token = f"/services/{segment(service.id)}", visit.request.path_params.get("token_id", "")
    if token:
        return asks(
            visit,
            _("Revoke the token %(id)s of %(name)s?") % {"id": token, "name": service.name},
            _("Whoever shows it is refused from then on."),
            action=f"{here}/tokens/{segment(token)}/revoke",
            label=_("Revoke"),
            back=here,
        )
    return asks(
        visit,
        _("Delete %s?") % service.name,
        _("Whatever it shows is refused from then on, its certificates too. What it has added stays."),
        _("This cannot be taken back."),
        figures=[(_("Tokens"), len(service.tokens))],
        action=f"{here}/delete",
        label=_("Delete for ever"),
        back=here,
    )


async def _revoke(visit: Visit) -> Response:
    await visit.admin.delete_service_token(_id(visit), visit.request.path_params["token_id"])
    return visit.to(f"/services/{_id(visit)}", said="revoked")


async def _delete(visit: Visit) -> Response:
    await visit.admin.delete_service(_id(visit))
    return visit.to("/services", said="deleted")


_ONE = "/services/{id}"

ROUTES = (
    Page("GET", "/services", _list, side="admin"),
    Page("GET", "/new-service", _new, side="admin"),
    Page("POST", "/new-service", _create, side="admin"),
    Page("GET", _ONE, _one, side="admin"),
    Page("GET", f"{_ONE}/settings", _changing, side="admin"),
    Page("POST", f"{_ONE}/settings", _change, side="admin"),
    Page("GET", f"{_ONE}/disabled", _disabling, side="admin"),
    Page("POST", f"{_ONE}/disabled", _disable, side="admin"),
    Page("GET", f"{_ONE}/tokens", _adding, side="admin"),
    Page("POST", f"{_ONE}/tokens", _add, side="admin"),
    Page("GET", f"{_ONE}/tokens/{{token_id}}/revoke", _ending, side="admin"),
    Page("POST", f"{_ONE}/tokens/{{token_id}}/revoke", _revoke, side="admin"),
    Page("GET", f"{_ONE}/delete", _ending, side="admin"),
    Page("POST", f"{_ONE}/delete", _delete, side="admin"),
)
