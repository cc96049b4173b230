"""What a tenant wants to be told: subscriptions, how they go, and all that is done with one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal, cast

import httpx
from backhaul_client import NotFoundError
from backhaul_client.notificationmodels import SigningSecret, Subscription
from starlette.responses import Response

from backhaul_console.asking import asks, shows_once
from backhaul_console.definitions import FORMS, ORDERINGS, POLICIES, empty, holds, shown, typed
from backhaul_console.forms import REFUSED, Filled, wrong
from backhaul_console.rendering import time_of
from backhaul_console.texts import _
from backhaul_console.visits import Page, Visit

_ROWS = 50
_LATEST = 10
_COUNTED = 100
_TEST_S = 150.0
"""Longer than any policy lets an attempt take."""
_MAX_REDELIVERED = 100_000
"""So far the API counts."""
_MAX_FORM_BYTES = 256 << 10
"""Certificates, and a thousand addresses."""

_WHICH = (
    ("failed", _("Recover: what has failed")),
    ("all", _("Replay: everything, also what was delivered")),
    ("never_attempted", _("Missing: what nobody has tried to send")),
)
_ABOUT = ("channel", "message_id", "communication", "event_id")


async def _list(visit: Visit) -> Response:
    rows = visit.api.subscriptions.list(page_size=_ROWS, cursor=visit.query.get("cursor", ""))
    return visit.page("subscriptions/list.html", found=await visit.first(rows))


async def _types(visit: Visit) -> Response:
    types = await visit.api.subscriptions.types()
    one = next((one for one in types if one.type == visit.query.get("type")), None)
    return visit.page("subscriptions/types.html", types=types, one=one)


async def _new(visit: Visit) -> Response:
    return await _form(visit, empty())


async def _make(visit: Visit) -> Response:
    form = await visit.filled()
    try:
        given = typed(form)
        key = form["idempotency_key"]
        made = await visit.api.subscriptions.create(**given, secret=form["secret"], idempotency_key=key)
    except REFUSED as exc:
        return await _form(visit, form.refused(exc))
    return _secrets(visit, _("%s is there, and tells from now on") % (made.name or made.id), made)


async def _edit(visit: Visit) -> Response:
    found = await _found(visit)
    if not holds(found):
        text = _("It has what the form cannot hold, such as an attribute whose name has a =. Change it by the API.")
        return asks(visit, _("Change %s") % (found.name or found.id), text, action="", label="", back=_at(found))
    return await _form(visit, shown(found), found)


async def _save(visit: Visit) -> Response:
    form, found = await visit.filled(), await _found(visit)
    try:
        await visit.api.subscriptions.replace(found.id, **typed(form), revision=form.number("revision"))
    except REFUSED as exc:
        return await _form(visit, form.refused(exc), found)
    return visit.to(_at(found), said="saved")


async def _form(visit: Visit, form: Filled, found: Subscription | None = None) -> Response:
    types = await visit.api.subscriptions.types()
    channels = await visit.api.channels()
    values: dict[str, Any] = {"forms_of": FORMS, "policies": POLICIES, "orderings": ORDERINGS}
    return visit.page(
        "subscriptions/form.html", status=form.status, form=form, found=found, types=types, channels=channels, **values
    )


async def _one(visit: Visit) -> Response:
    found = await _found(visit)
    deliveries = visit.api.deliveries
    latest = await visit.first(deliveries.list(subscription_id=found.id, page_size=_LATEST))
    failed = await visit.first(deliveries.list(subscription_id=found.id, state="failed", page_size=_COUNTED))
    values: dict[str, Any] = {"latest": latest.rows, "failed": len(failed.rows), "more": bool(failed.next_cursor)}
    return visit.page("subscriptions/one.html", found=found, **values)


async def _pausing(visit: Visit) -> Response:
    found = await _found(visit)
    return asks(
        visit,
        _("Pause %s") % (found.name or found.id),
        _("Its application is called no more. What happens meanwhile waits, and is sent once it is resumed."),
        figures=[(_("Waiting"), f"{found.standing.waiting:,}"), (_("State"), found.state)],
        action=f"{_at(found)}/pause",
        label=_("Pause it"),
        kind="primary",
        back=_at(found),
    )


async def _pause(visit: Visit) -> Response:
    return visit.to(_at(await visit.api.subscriptions.pause(_id(visit))), said="paused")


async def _resuming(visit: Visit) -> Response:
    return visit.page("subscriptions/resume.html", found=await _found(visit), form=visit.asked)


async def _resume(visit: Visit) -> Response:
    form = await visit.filled()
    try:
        found = await visit.api.subscriptions.resume(_id(visit), rate_per_s=form.number("rate_per_s"))
    except REFUSED as exc:
        form = form.refused(exc)
        return visit.page("subscriptions/resume.html", status=form.status, found=await _found(visit), form=form)
    return visit.to(_at(found), said="resumed")


async def _test(visit: Visit) -> Response:
    form, found = await visit.filled(), await _found(visit)
    visit.http.timeout = httpx.Timeout(_TEST_S)
    attempt = await visit.api.subscriptions.test(found.id, type=form["type"])
    return visit.page("subscriptions/tested.html", found=found, attempt=attempt, type=form["type"])


async def _rotating(visit: Visit) -> Response:
    return visit.page(
        "subscriptions/rotate.html", found=await _found(visit), form=Filled.of(kind="hmac", grace_s=86400)
    )


async def _rotate(visit: Visit) -> Response:
    form, found = await visit.filled(), await _found(visit)
    kind: Literal["hmac", "ed25519"] = "ed25519" if form["kind"] == "ed25519" else "hmac"
    try:
        grace_s = form.number("grace_s") if form["grace_s"] else None
        made = await visit.api.subscriptions.rotate_secret(found.id, kind=kind, grace_s=grace_s, secret=form["secret"])
    except REFUSED as exc:
        form = form.refused(exc)
        return visit.page("subscriptions/rotate.html", status=form.status, found=found, form=form)
    return _secrets(visit, _("Calls are signed with a new secret"), made)


def _secrets(visit: Visit, title: str, made: Subscription) -> Response:
    """What an answer tells once. Of a public key, or where it was told before, the subscription's own page."""
    newest = max(made.secrets, key=_made_at, default=None)
    if newest is not None and newest.secret:
        text = _("It verifies the calls, by Standard Webhooks. Keep it where your application finds it.")
        return shows_once(visit, title, [(_("Secret"), newest.secret)], text, back=_at(made))
    return visit.to(_at(made), said="saved")


def _made_at(secret: SigningSecret) -> datetime:
    return secret.created_at or datetime.min.replace(tzinfo=UTC)


async def _redelivering(visit: Visit) -> Response:
    return await _asked_for(visit, visit.asked)


async def _asked_for(visit: Visit, form: Filled) -> Response:
    values: dict[str, Any] = {"found": await _found(visit), "form": form, "which": _WHICH}
    return visit.page("subscriptions/redeliver.html", status=form.status, **values)


async def _count(visit: Visit) -> Response:
    """How many it would be, and a form for exactly these."""
    form, found = await visit.filled(), await _found(visit)
    try:
        chosen = _chosen(form)
        count = (await visit.api.subscriptions.redeliver(found.id, **chosen, dry_run=True)).deliveries
    except REFUSED as exc:
        return await _asked_for(visit, form.refused(exc))
    # What comes from now on was not counted, so it is not meant.
    until = chosen["to"]
    fields = [(name, form[name]) for name in ("which", "rate_per_s", "types", *_ABOUT) if form[name]]
    fields += [("from", chosen["from_"].isoformat()), ("to", until.isoformat())]
    texts = [dict(_WHICH)[chosen["which"]] + "."]
    if found.state != "active":
        texts.append(_("The subscription is %s: they are sent when it is resumed.") % found.state)
    if not count:
        texts.append(_("There is nothing to send."))
    return asks(
        visit,
        _("Send again: %s") % (found.name or found.id),
        *texts,
        figures=[
            (_("Deliveries"), f"{count:,}{'+' if count >= _MAX_REDELIVERED else ''}"),
            (_("Made from"), time_of(chosen["from_"])),
            (_("Made before"), time_of(until)),
            (_("Calls a second"), chosen["rate_per_s"] or _("as fast as the subscription is")),
        ],
        fields=fields,
        action=f"{_at(found)}/redeliver/now" if count else "",
        label=_("Send them again"),
        kind="primary",
        back=f"{_at(found)}/redeliver",
    )


async def _redeliver(visit: Visit) -> Response:
    form = await visit.filled()
    try:
        await visit.api.subscriptions.redeliver(_id(visit), **_chosen(form))
    except REFUSED as exc:
        return await _asked_for(visit, form.refused(exc))
    return visit.to(f"/subscriptions/{_id(visit)}", said="sent-again")


def _chosen(form: Filled) -> dict[str, Any]:
    """What the client's ``redeliver`` takes. Raises as the API would."""
    from_ = form.moment("from")
    if from_ is None:
        raise wrong("from", _("From when on is not said."), _("Write a time, such as 2026-03-01T12:30:00Z."))
    which = form["which"] if form["which"] in dict(_WHICH) else "failed"
    return {
        "which": cast("Any", which),
        "from_": from_.astimezone(UTC),
        "to": (form.moment("to") or datetime.now(UTC)).astimezone(UTC),
        "types": form.lines("types"),
        "rate_per_s": form.number("rate_per_s"),
        **{name: form[name] for name in _ABOUT},
    }


async def _deleting(visit: Visit) -> Response:
    found = await _found(visit)
    return asks(
        visit,
        _("Delete %s") % (found.name or found.id),
        _("Its deliveries go with it: what waits is never sent, and its history can be read no more."),
        figures=[
            (_("Waiting"), f"{found.standing.waiting:,}"),
            (_("Held"), f"{found.standing.held:,}"),
            (_("State"), found.state),
        ],
        action=f"{_at(found)}/delete",
        label=_("Delete it"),
        back=_at(found),
    )


async def _delete(visit: Visit) -> Response:
    try:
        await visit.api.subscriptions.delete(_id(visit))
    except NotFoundError:
        return visit.to("/subscriptions", said="gone")
    return visit.to("/subscriptions", said="deleted")


async def _found(visit: Visit) -> Subscription:
    return await visit.api.subscriptions.get(_id(visit))


def _id(visit: Visit) -> str:
    return str(visit.request.path_params["id"])


def _at(found: Subscription) -> str:
    return f"/subscriptions/{found.id}"


_ONE = "/subscriptions/{id}"
ROUTES = (
    Page("GET", "/subscriptions", _list),
    Page("GET", "/subscriptions/types", _types),
    Page("GET", "/subscriptions/new", _new),
    Page("POST", "/subscriptions/new", _make, max_body=_MAX_FORM_BYTES),
    Page("GET", _ONE, _one),
    Page("GET", f"{_ONE}/edit", _edit),
    Page("POST", f"{_ONE}/edit", _save, max_body=_MAX_FORM_BYTES),
    Page("GET", f"{_ONE}/pause", _pausing),
    Page("POST", f"{_ONE}/pause", _pause),
    Page("GET", f"{_ONE}/resume", _resuming),
    Page("POST", f"{_ONE}/resume", _resume),
    Page("POST", f"{_ONE}/test", _test),
    Page("GET", f"{_ONE}/rotate", _rotating),
    Page("POST", f"{_ONE}/rotate", _rotate),
    Page("GET", f"{_ONE}/redeliver", _redelivering),
    Page("POST", f"{_ONE}/redeliver", _count),
    Page("POST", f"{_ONE}/redeliver/now", _redeliver),
    Page("GET", f"{_ONE}/delete", _deleting),
    Page("POST", f"{_ONE}/delete", _delete),
)
