"""Replays, and dead letters by filter, which go the same way: of a tenant, for itself or for the platform team.

What concerns many is counted first, by a dry run. Its page says what it found, and from there alone it is done in
earnest: to what the dry run was asked for, as the API has kept it, and once however often it is sent.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from backhaul_client.replaymodels import Replay
from backhaul_client.replays import DeadLettersIn
from starlette.responses import Response

from backhaul_console.forms import REFUSED, Filled, wrong
from backhaul_console.rendering import segment
from backhaul_console.texts import _
from backhaul_console.visits import Page, Visit

ROWS = 50
GOING_ON = ("waiting", "running")


def place(visit: Visit) -> str:
    """Below which path a tenant's replays and dead letters are, on either side."""
    tenant = visit.request.path_params.get("id", "")
    return f"/tenants/{segment(tenant)}" if tenant else ""


async def _list(visit: Visit) -> Response:
    rows = visit.api.replays.list(page_size=ROWS, cursor=visit.query.get("cursor", ""))
    return visit.page("replays/list.html", page=await visit.first(rows))


async def _one(visit: Visit) -> Response:
    found = await _replay(visit)
    values: dict[str, Any] = {
        "replay": found,
        "going_on": found.state in GOING_ON,
        "counted": _counted(found),
        "place": place(visit),
        "tenant": visit.tenant_id or visit.request.path_params["id"],
        "may": visit.may("manage" if visit.tenant_id else "operator"),
    }
    return visit.page("replays/one.html", **values)


async def _new(visit: Visit) -> Response:
    return await _form(visit, Filled.of(channel=visit.query.get("channel", "")))


async def _form(visit: Visit, form: Filled) -> Response:
    channels = await visit.api.channels()
    return visit.page("replays/new.html", status=form.status, form=form, channels=channels)


async def _count(visit: Visit) -> Response:
    """Begin the dry run of a replay."""
    form = await visit.filled()
    try:
        from_ = form.moment("from")
        if from_ is None:
            raise wrong("from", _("It is not said from when on."), _("Give the time from which callbacks are read."))
        begun = await visit.api.replays.begin(
            form["channel"],
            from_=from_,
            to=form.moment("to") or datetime.now(UTC),
            rate_per_s=form.number("rate_per_s"),
            dry_run=True,
        )
    except REFUSED as exc:
        return await _form(visit, form.refused(exc))
    return visit.to(f"/replays/{segment(begun.id)}")


async def _begin(visit: Visit) -> Response:
    """Do what a dry run has counted."""
    counted = await _replay(visit)
    if not _counted(counted):
        raise wrong("", _("This was not counted to its end."), _("Count again, and begin from there."))
    key = f"console-{counted.id}"
    if counted.kind != "callbacks":
        begun = await fitting(visit, "discard" if counted.kind == "discard" else "replay", _asked(counted, key))
    elif visit.tenant_id and counted.channel and counted.span_from:
        begun = await visit.api.replays.begin(
            counted.channel,
            from_=counted.span_from,
            to=counted.span_to,
            rate_per_s=counted.rate_per_s,
            idempotency_key=key,
        )
    else:
        raise wrong("", _("Callbacks are replayed by their tenant."), _("Do it on the tenant's own pages."))
    return visit.to(f"{place(visit)}/replays/{segment(begun.id)}", said="begun")


async def _cancel(visit: Visit) -> Response:
    replay = visit.request.path_params["replay"]
    if visit.tenant_id:
        await visit.api.replays.cancel(replay)
    else:
        await visit.admin.cancel_replay(visit.request.path_params["id"], replay)
    return visit.to(f"{place(visit)}/replays/{segment(replay)}", said="cancelled")


async def fitting(visit: Visit, what: str, said: DeadLettersIn) -> Replay:
    """Have a tenant's open dead letters that fit sent through once more, or discarded, or only counted."""
    if visit.tenant_id:
        replays = visit.api.replays
        return await (replays.discard_dead_letters if what == "discard" else replays.replay_dead_letters)(**said)
    admin = visit.admin
    call = admin.discard_dead_letters if what == "discard" else admin.replay_dead_letters
    return await call(visit.request.path_params["id"], **said)


async def _replay(visit: Visit) -> Replay:
    replay = visit.request.path_params["replay"]
    if visit.tenant_id:
        return await visit.api.replays.get(replay)
    return await visit.admin.replay(visit.request.path_params["id"], replay)


def _counted(found: Replay) -> bool:
    return found.dry_run and found.state == "done"


def _asked(counted: Replay, key: str) -> DeadLettersIn:
    """What a dry run was asked for. Its end is always said: what came since was not counted."""
    said: DeadLettersIn = {"idempotency_key": key}
    if counted.channel:
        said["channel"] = counted.channel
    if counted.reason:
        said["reason"] = counted.reason
    if counted.span_from is not None:
        said["from_"] = counted.span_from
    if counted.span_to is not None:
        said["to"] = counted.span_to
    return said


_ONE = "/replays/{replay}"
_OF_TENANT = "/tenants/{id}/replays/{replay}"
ROUTES = (
    Page("GET", "/replays", _list),
    Page("GET", "/replays/new", _new),
    Page("POST", "/replays/new", _count),
    Page("GET", _ONE, _one),
    Page("POST", f"{_ONE}/begin", _begin),
    Page("POST", f"{_ONE}/cancel", _cancel),
    Page("GET", _OF_TENANT, _one, side="admin"),
    Page("POST", f"{_OF_TENANT}/begin", _begin, side="admin"),
    Page("POST", f"{_OF_TENANT}/cancel", _cancel, side="admin"),
)
