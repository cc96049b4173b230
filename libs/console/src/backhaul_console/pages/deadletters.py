"""What could not be read: looked at, tried out, sent through once more, or closed; one, or all that fit."""

from __future__ import annotations

from base64 import b64decode
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from backhaul_client.models import Callback, DeadLetter, Preview
from backhaul_client.replays import DeadLettersIn
from starlette.responses import Response

from backhaul_console.asking import asks
from backhaul_console.forms import REFUSED, Filled
from backhaul_console.pages.replays import ROWS, fitting, place
from backhaul_console.rendering import segment, shown
from backhaul_console.texts import _
from backhaul_console.visits import Page, Visit

MAX_SHOWN = 16_000
"""Characters of a body that a page shows, and lets be edited: three forms of it stay below what a page may have."""
_PARTS = 20
_STATES = ("open", "replayed", "discarded")


async def _list(visit: Visit) -> Response:
    asked = shown(visit.query, "channel", "state")
    state = asked["state"] or "open"
    rows = visit.api.dead_letters(
        channel=asked["channel"],
        state="" if state == "any" else state,
        page_size=ROWS,
        cursor=visit.query.get("cursor", ""),
    )
    values: dict[str, Any] = {
        "page": await visit.first(rows),
        "channels": await visit.api.channels(),
        "asked": {**asked, "state": state},
    }
    return visit.page("deadletters/list.html", **values)


async def _one(visit: Visit) -> Response:
    letter = await _letter(visit)
    return _shown(visit, letter, _first(letter))


async def _preview(visit: Visit) -> Response:
    """What would become of a callback, as it came or with changes."""
    letter, form = await _letter(visit), await visit.filled()
    callback = letter.callback
    if callback is None:
        return _shown(visit, letter, form)
    came = b64decode(callback.body_base64)
    edited = _plain(form["body"])
    # A form changes line ends, which a signature is over: what nobody has edited is looked at as it came.
    body = came if not edited or edited == _plain(callback.body_text) else edited.encode()
    try:
        found = await visit.api.preview(letter.channel, body=body, headers=form.headers(), query=form["query"])
    except REFUSED as exc:
        return _shown(visit, letter, form.refused(exc))
    return _shown(visit, letter, form, found, changed=body is not came)


async def _body(visit: Visit) -> Response:
    """The callback's body as it came, as a file: no browser is to make anything of it."""
    letter = await _letter(visit)
    content = b64decode(letter.callback.body_base64) if letter.callback is not None else b""
    headers = {"content-disposition": 'attachment; filename="callback.bin"'}
    return Response(content, media_type="application/octet-stream", headers=headers)


async def _replay(visit: Visit) -> Response:
    letter = await visit.api.replay_dead_letter(visit.request.path_params["letter"])
    return visit.to(f"/dead-letters/{segment(letter.id)}", said="sent-through")


async def _discarding(visit: Visit) -> Response:
    letter = await _letter(visit)
    here = f"/dead-letters/{segment(letter.id)}"
    return asks(
        visit,
        _("Discard this dead letter?"),
        _("It is closed without being processed, and is not opened again. What its callback told becomes no event."),
        letter.reason,
        figures=[(_("Dead letter"), letter.id[:8]), (_("Channel"), letter.channel)],
        action=f"{here}/discard",
        label=_("Discard it"),
        back=here,
    )


async def _discard(visit: Visit) -> Response:
    letter = await visit.api.discard_dead_letter(visit.request.path_params["letter"])
    return visit.to(f"/dead-letters/{segment(letter.id)}", said="discarded")


async def _fitting(visit: Visit) -> Response:
    return _fit(visit, Filled.of(**shown(visit.query, "channel", "reason", "from", "to")))


async def _count(visit: Visit) -> Response:
    """Count which dead letters fit. What is done then is on the page of that count."""
    form = await visit.filled()
    try:
        said: DeadLettersIn = {"dry_run": True, "to": form.moment("to") or datetime.now(UTC)}
        if form["channel"]:
            said["channel"] = form["channel"]
        if form["reason"]:
            said["reason"] = form["reason"]
        if (from_ := form.moment("from")) is not None:
            said["from_"] = from_
        counting = await fitting(visit, form["what"], said)
    except REFUSED as exc:
        return _fit(visit, form.refused(exc))
    return visit.to(f"{place(visit)}/replays/{segment(counting.id)}")


def _fit(visit: Visit, form: Filled) -> Response:
    tenant = visit.tenant_id or visit.request.path_params["id"]
    return visit.page("deadletters/fitting.html", status=form.status, form=form, place=place(visit), tenant=tenant)


async def _letter(visit: Visit) -> DeadLetter:
    return await visit.api.dead_letter(visit.request.path_params["letter"])


def _shown(
    visit: Visit, letter: DeadLetter, form: Filled, preview: Preview | None = None, *, changed: bool = False
) -> Response:
    callback = letter.callback
    text = callback.body_text if callback is not None else ""
    values: dict[str, Any] = {
        "letter": letter,
        "callback": callback,
        "text": text[:MAX_SHOWN],
        "cut": len(text) > MAX_SHOWN,
        "editable": callback is not None and _editable(callback),
        "form": form,
        "preview": preview,
        "parts_shown": preview.parts[:_PARTS] if preview is not None else (),
        "changed": changed,
    }
    return visit.page("deadletters/one.html", status=form.status, **values)


def _first(letter: DeadLetter) -> Filled:
    """The form before anybody edits it: the callback as it came."""
    callback = letter.callback
    if callback is None:
        return Filled.of()
    headers: dict[str, str] = {}
    for header in callback.headers:
        headers[header.name] = f"{headers[header.name]}, {header.value}" if header.name in headers else header.value
    query = [(name, value) for name, value in parse_qsl(urlsplit(callback.url).query) if name.lower() != "channellabel"]
    return Filled.of(
        body=callback.body_text if _editable(callback) else "",
        headers="\n".join(f"{name}: {value}" for name, value in headers.items()),
        query=urlencode(query),
    )


def _editable(callback: Callback) -> bool:
    """Whether a form can hold the body: it is text, and not too long for one."""
    text = callback.body_text
    whole = len(text) <= MAX_SHOWN and text.encode() == b64decode(callback.body_base64)
    return whole and all(character.isprintable() or character in "\r\n\t" for character in text)


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


_ONE = "/dead-letters/{letter}"
_OF_TENANT = "/tenants/{id}/dead-letters"
ROUTES = (
    Page("GET", "/dead-letters", _list),
    Page("GET", "/dead-letters/fitting", _fitting),
    Page("POST", "/dead-letters/fitting", _count),
    Page("GET", _ONE, _one),
    Page("GET", f"{_ONE}/body", _body),
    Page("POST", f"{_ONE}/preview", _preview),
    Page("POST", f"{_ONE}/replay", _replay),
    Page("GET", f"{_ONE}/discard", _discarding),
    Page("POST", f"{_ONE}/discard", _discard),
    Page("GET", _OF_TENANT, _fitting, side="admin"),
    Page("POST", _OF_TENANT, _count, side="admin"),
)
