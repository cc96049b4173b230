"""Audit files of a tenant, the digests that sign them, and where an event lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backhaul_client.adminmodels import Channel
from starlette.responses import Response

from backhaul_console.filtering import listed
from backhaul_console.forms import wrong
from backhaul_console.rendering import shown
from backhaul_console.streaming import Streamed, beginning, download
from backhaul_console.texts import _
from backhaul_console.visits import Page, Visit

MAX_SHOWN_BYTES = 32 << 10
"""Of a file, on a page: the rest is in its download."""

_SWITCH_OF_RPI = "save_email_events"
_MAX_DIGITS = 18
_LASTING_S = (900, 3600, 86400, 604800)
"""What a link may be good for."""


def filing(channels: Sequence[Channel]) -> list[str]:
    """Labels of the channels whose events are filed: it is switched on for each."""
    return [one.label for one in channels if one.settings.get(_SWITCH_OF_RPI) or _audit_of(one).get("enabled")]


def _audit_of(channel: Channel) -> Mapping[str, Any]:
    audit = channel.settings.get("audit")
    return audit if isinstance(audit, dict) else {}


async def _files(visit: Visit) -> Response:
    found = await listed(visit, ("channel", "chain", "from", "to"), visit.api.audit_files)
    channels = await visit.api.channels()
    values = {"found": found, "form": found.form, "channels": channels, "filing": filing(channels)}
    return visit.page("audits/files.html", status=found.form.status, **values)


async def _file(visit: Visit) -> Response:
    file = await visit.api.audit_file(visit.request.path_params["file_id"])
    return visit.page("audits/file.html", file=file, link=None, lasting=_LASTING_S)


async def _link(visit: Visit) -> Response:
    # The address is a credential: it is on this answer alone, and in no address of the console.
    file_id, form = visit.request.path_params["file_id"], await visit.form()
    asked = form.get("valid_s", "")
    link = await visit.api.link_audit_file(file_id, valid_s=int(asked) if asked in map(str, _LASTING_S) else 900)
    return visit.page("audits/file.html", file=await visit.api.audit_file(file_id), link=link, lasting=_LASTING_S)


async def _text(visit: Visit) -> Response:
    file = await visit.api.audit_file(visit.request.path_params["file_id"])
    content, more = await beginning(visit.api.audit_content(file.id, decrypted=True), MAX_SHOWN_BYTES)
    if more:
        # Cut behind a whole line, where there is one.
        content = content[: content.rfind(b"\n") + 1] or content
    return visit.page("audits/text.html", file=file, text=content.decode(errors="replace"), more=more)


async def _content(visit: Visit) -> Streamed:
    file = await visit.api.audit_file(visit.request.path_params["file_id"])
    decrypted = bool(visit.query.get("decrypted"))
    name = file.name.removesuffix(".gz") if decrypted else file.name
    return await download(name, visit.api.audit_content(file.id, decrypted=decrypted))


async def _digests(visit: Visit) -> Response:
    query = shown(visit.query, "chain")
    chain = query["chain"] or "events"
    found = await visit.first(visit.api.audit_digests(chain=chain, page_size=50, cursor=visit.query.get("cursor", "")))
    heads, keys = await visit.api.audit_heads(), await visit.api.audit_keys()
    return visit.page("audits/digests.html", found=found, chain=chain, heads=heads, keys=keys)


async def _digest(visit: Visit) -> Response:
    chain, typed = visit.request.path_params["chain"], visit.request.path_params["number"]
    if not typed.isascii() or not typed.isdecimal() or len(typed) > _MAX_DIGITS:
        raise wrong("number", _("This is no number of a digest."), _("Choose one of the list."))
    number = int(typed)
    content = await visit.api.audit_digest(chain, number)
    if visit.query.get("download"):
        headers = {"content-disposition": f'attachment; filename="digest-{number}.json"'}
        return Response(content, media_type="application/octet-stream", headers=headers)
    said, _line, signature = content.partition(b"\n")
    return visit.page(
        "audits/digest.html",
        chain=chain,
        number=number,
        signed=said[:MAX_SHOWN_BYTES].decode(errors="replace"),
        more=len(said) > MAX_SHOWN_BYTES,
        signature=signature.decode(errors="replace"),
    )


async def _proof(visit: Visit) -> Response:
    event_id = visit.query.get("event_id", "").strip()
    proofs = await visit.api.prove_event(event_id) if event_id else None
    return visit.page("audits/proof.html", event_id=event_id, proofs=proofs)


def chain_of(visit: Visit) -> str:
    """The chain that an address asks for; empty for all of them."""
    chain = visit.query.get("chain", "").strip()
    if chain not in ("", "events", "backfill"):
        raise wrong("chain", _("There is no such chain."), _("Choose events or backfill."))
    return chain


ROUTES = (
    Page("GET", "/audits", _files),
    Page("GET", "/audits/files/{file_id}", _file),
    Page("POST", "/audits/files/{file_id}", _link),
    Page("GET", "/audits/files/{file_id}/text", _text),
    Page("GET", "/audits/files/{file_id}/content", _content),
    Page("GET", "/audits/digests", _digests),
    Page("GET", "/audits/digests/{chain}/{number}", _digest),
    Page("GET", "/audits/proof", _proof),
)
