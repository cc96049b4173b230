"""A tenant's API keys and ingest tokens: what opens what, and since when nobody used it."""

from __future__ import annotations

from typing import Any, Literal, cast, get_args

from backhaul_client.own import Scope
from starlette.responses import Response

from backhaul_console.asking import asks, shows_once
from backhaul_console.forms import REFUSED, Filled, wrong
from backhaul_console.rendering import hour_of
from backhaul_console.texts import _
from backhaul_console.visits import Page, Visit

SCOPES = (
    ("read", _("read: messages, events, channels and all else that is shown")),
    ("manage", _("manage: keys, channels, subscriptions, dead letters")),
    ("send", _("send: communications, batches and sends")),
    ("check", _("check: whether an address may be contacted")),
    ("ingest", _("ingest: callbacks of providers")),
)
assert {scope for scope, _text in SCOPES} == {*get_args(Scope)}  # noqa: S101  # a scope more is a row more


async def _list(visit: Visit) -> Response:
    return await _shown(visit, Filled.of(kind="api"))


async def _shown(visit: Visit, form: Filled) -> Response:
    keys = sorted(await visit.api.keys(), key=lambda one: one.created_at, reverse=True)
    values: dict[str, Any] = {"keys": keys, "form": form, "scopes": SCOPES, "own": _own(visit)}
    return visit.page("keys/list.html", status=form.status, **values)


async def _add(visit: Visit) -> Response:
    form = await visit.filled()
    kind: Literal["api", "ingest"] = "ingest" if form["kind"] == "ingest" else "api"
    try:
        scopes = cast("list[Scope]", form.all("scopes")) if kind == "api" else None
        if scopes == []:
            raise wrong("scopes", _("The key would open nothing."), _("Tick what it opens."))
        issued = await visit.api.add_key(kind, scopes=scopes, expires_at=form.moment("expires_at"))
    except REFUSED as exc:
        return await _shown(visit, form.refused(exc))
    if issued.kind == "api":
        text = _("Programs send it as the header X-Api-Key.")
        return shows_once(visit, _("A new API key"), [(_("Key"), issued.key)], text, back="/keys")
    secrets = [(_("Token"), issued.key)]
    secrets += [(one.label, one.callback_url) for one in issued.addresses]
    secrets += [(_("%s, for access tokens") % one.label, one.token_url) for one in issued.addresses if one.token_url]
    text = _("Paste the address of each channel at its provider. Tokens from before stay good until they are revoked.")
    return shows_once(visit, _("A new ingest token"), secrets, text, back="/keys")


async def _revoking(visit: Visit) -> Response:
    key_id = visit.request.path_params["id"]
    key = next((one for one in await visit.api.keys() if one.id == key_id), None)
    if key is None:
        return visit.to("/keys", said="gone")
    ingest = key.kind == "ingest"
    text = (
        _("Providers whose address has this token are refused from then on: what they do not send again is lost.")
        if ingest
        else _("Whoever uses this key is refused from then on. The console closes the pages that are open with it.")
    )
    own = (
        [_("You are signed in with this key: these pages close, and your session ends if nothing else is open in it.")]
        if key.id == _own(visit)
        else []
    )
    return asks(
        visit,
        _("Revoke %s") % key.id,
        text,
        *own,
        figures=[
            (_("Opens"), ", ".join(key.scopes)),
            (_("Last used"), hour_of(key.last_used_at) if key.last_used_at else _("not yet")),
        ],
        action=f"/keys/{key.id}/revoke",
        label=_("Revoke it"),
        back="/keys",
    )


async def _revoke(visit: Visit) -> Response:
    await visit.api.delete_key(visit.request.path_params["id"])
    return visit.to("/keys", said="revoked")


def _own(visit: Visit) -> str:
    return visit.tenant_of.key_id if visit.tenant_of is not None else ""


ROUTES = (
    Page("GET", "/keys", _list),
    Page("POST", "/keys", _add),
    Page("GET", "/keys/{id}/revoke", _revoking),
    Page("POST", "/keys/{id}/revoke", _revoke),
)
