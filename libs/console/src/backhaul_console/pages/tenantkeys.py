"""A tenant's keys, as the platform team gives and revokes them; and opening its pages with one for a while."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import cast

from backhaul_client import BackhaulError
from backhaul_client.own import Scope
from starlette.responses import Response

from backhaul_console.asking import asks
from backhaul_console.forms import REFUSED, Filled, wrong
from backhaul_console.pages.keys import SCOPES
from backhaul_console.pages.tenants import tenant_of
from backhaul_console.rendering import address, hour_of, segment
from backhaul_console.sessions import SessionMovedError, StoreAwayError, Tenant, without
from backhaul_console.signin import with_tenant
from backhaul_console.texts import _
from backhaul_console.visits import Page, Visit

LASTS = timedelta(hours=1)
"""How long a key lasts by which somebody of the platform team looks at a tenant's pages."""
_MARGIN = timedelta(minutes=1)
"""So that it is no more than that by the API's clock, too."""


async def _adding(visit: Visit) -> Response:
    tenant = await visit.admin.tenant(tenant_of(visit))
    return visit.page("tenants/key.html", tenant=tenant, form=Filled.of(kind="api"), scopes=SCOPES)


async def _add(visit: Visit) -> Response:
    tenant_id, form = tenant_of(visit), await visit.filled()
    try:
        if form["kind"] == "ingest":
            made = await visit.admin.add_key(tenant_id, "ingest")
        else:
            scopes = form.all("scopes")
            if not scopes:
                raise wrong("scopes", _("No scope is chosen."), _("Choose what the key opens."))
            made = await visit.admin.add_key(
                tenant_id, scopes=cast("list[Scope]", scopes), expires_at=form.moment("expires_at")
            )
    except REFUSED as exc:
        form = form.refused(exc)
        tenant = await visit.admin.tenant(tenant_id)
        return visit.page("tenants/key.html", status=form.status, tenant=tenant, form=form, scopes=SCOPES)
    return visit.page("tenants/issued.html", tenant_id=tenant_id, made=made)


async def _revoking(visit: Visit) -> Response:
    tenant, key_id = await visit.admin.tenant(tenant_of(visit)), visit.request.path_params["key_id"]
    key = next((one for one in tenant.keys if one.id == key_id), None)
    if key is None:
        return visit.to(f"/tenants/{tenant.id}")
    here = f"/tenants/{segment(tenant.id)}"
    return asks(
        visit,
        _("Revoke %(id)s of %(name)s?") % {"id": key.id, "name": tenant.name},
        _("Callbacks to addresses with this token are refused from then on. Change these at the providers first.")
        if key.kind == "ingest"
        else _("Whoever uses this key is refused from then on, and signed out of the console."),
        figures=[(_("Opens"), ", ".join(key.scopes)), (_("Last used"), hour_of(key.last_used_at))],
        action=f"{here}/keys/{segment(key.id)}/revoke",
        label=_("Revoke"),
        back=here,
    )


async def _revoke(visit: Visit) -> Response:
    await visit.admin.delete_key(tenant_of(visit), visit.request.path_params["key_id"])
    return visit.to(f"/tenants/{tenant_of(visit)}", said="revoked")


async def _open(visit: Visit) -> Response:
    """Make a key for this session alone, which the log of changes has under the visitor's name, and go there."""
    tenant_id, form = tenant_of(visit), await visit.form()
    scopes: list[Scope] = ["read", "manage"] if form.get("scope") == "manage" else ["read"]
    present = visit.session.access.tenants.get(tenant_id)
    there = address(f"/t/{tenant_id}")
    if present is not None and not present.temporary and {*scopes} <= {*present.scopes}:
        return _led(there)
    # Before a key is made, so that none is left over where the session holds no more tenants.
    placeholder = Tenant(id=tenant_id, key="", key_id="", scopes=())
    try:
        with_tenant(visit.session.access, placeholder)
    except ValueError as exc:
        return visit.page("failure.html", status=409, title=_("Not opened"), text=str(exc), details=[], trace_id="")
    made = await visit.admin.add_key(tenant_id, scopes=scopes, expires_at=datetime.now(UTC) + LASTS - _MARGIN)
    # A secret is no plain text to whoever seals the session.
    opened = Tenant(id=tenant_id, key=str(made.key), key_id=made.id, scopes=made.scopes, temporary=True)
    try:
        await visit.change(with_tenant(visit.session.access, opened))
    except (SessionMovedError, StoreAwayError):
        # Nobody has it: as where the same was done in another tab, or somebody has signed out meanwhile.
        await _forget(visit, opened)
        raise
    if present is not None and present.temporary:
        await _forget(visit, present)
    return _led(there)


async def _leave(visit: Visit) -> Response:
    """Close a tenant's pages again, and revoke the key that was made for them."""
    access, tenant_id = visit.session.access, tenant_of(visit)
    left = access.tenants.get(tenant_id)
    if left is not None:
        await visit.change(without(access, tenant_id))
        if left.temporary:
            await _forget(visit, left)
    return visit.to(f"/tenants/{tenant_id}", said="left")


async def _forget(visit: Visit, tenant: Tenant) -> None:
    try:
        await visit.admin.delete_key(tenant.id, tenant.key_id)
    except BackhaulError:
        # It expires by itself.
        return


def _led(to: str) -> Response:
    return Response(status_code=303, headers={"location": to})


ROUTES = (
    Page("GET", "/tenants/{id}/keys", _adding, side="admin"),
    Page("POST", "/tenants/{id}/keys", _add, side="admin"),
    Page("GET", "/tenants/{id}/keys/{key_id}/revoke", _revoking, side="admin"),
    Page("POST", "/tenants/{id}/keys/{key_id}/revoke", _revoke, side="admin"),
    Page("POST", "/tenants/{id}/open", _open, side="admin"),
    Page("POST", "/tenants/{id}/leave", _leave, side="admin"),
)
