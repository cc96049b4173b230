"""What providers were asked, what it brought, and where they say something else."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from backhaul_client import NotFoundError
from backhaul_client.reconciliationmodels import Day
from starlette.responses import Response

from backhaul_console.forms import REFUSED, Filled, moment_of, wrong
from backhaul_console.rendering import shown
from backhaul_console.texts import _
from backhaul_console.visits import Page, Visit

_DAYS = 14
"""On a page: each of them is a question to the API."""
_FIRST = date(2000, 1, 1)


async def _channels(visit: Visit) -> Response:
    return visit.page("reconciliation/channels.html", channels=await visit.api.reconciliation.channels())


async def _reports(visit: Visit) -> Response:
    query = shown(visit.query, "channel", "from", "to")
    found = await visit.first(
        visit.api.reconciliation.reports(
            channel=query["channel"],
            from_=moment_of("from", query["from"]),
            to=moment_of("to", query["to"]),
            page_size=50,
            cursor=visit.query.get("cursor", ""),
        )
    )
    return visit.page("reconciliation/reports.html", found=found, query=query, channels=await visit.api.channels())


async def _report(visit: Visit) -> Response:
    report = await visit.api.reconciliation.report(visit.request.path_params["report_id"])
    return visit.page("reconciliation/report.html", report=report)


async def _differences(visit: Visit) -> Response:
    query = shown(visit.query, "channel", "kind", "from", "to")
    found = await visit.first(
        visit.api.reconciliation.differences(
            channel=query["channel"],
            kind=query["kind"],
            from_=moment_of("from", query["from"]),
            to=moment_of("to", query["to"]),
            page_size=50,
            cursor=visit.query.get("cursor", ""),
        )
    )
    channels = await visit.api.channels()
    return visit.page("reconciliation/differences.html", found=found, query=query, channels=channels)


async def _days(visit: Visit) -> Response:
    channels = await visit.api.channels()
    channel = visit.query.get("channel", "").strip() or (channels[0].label if channels else "")
    today = datetime.now(UTC).date()
    last = min(_day_of(visit.query.get("last", "").strip(), today), today)
    days: list[tuple[date, Day | None]] = []
    if channel:
        for back in range(_DAYS):
            day = last - timedelta(days=back)
            try:
                days.append((day, await visit.api.reconciliation.day(channel, day)))
            except NotFoundError:
                # Nobody has asked about it.
                days.append((day, None))
    step = timedelta(days=_DAYS)
    return visit.page(
        "reconciliation/days.html",
        channels=channels,
        channel=channel,
        days=days,
        last=last,
        earlier=last - step,
        later=last + step if last < today else None,
    )


def _day_of(typed: str, default: date) -> date:
    if not typed:
        return default
    try:
        day = date.fromisoformat(typed)
    except ValueError:
        day = date.min
    if day < _FIRST:
        raise wrong("last", _("This is no day."), _("Write it like 2026-03-01."))
    return day


async def _running(visit: Visit) -> Response:
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    values = {"from": (now - timedelta(days=1)).isoformat(), "to": now.isoformat()}
    return await _asked(visit, Filled.of(channel=visit.query.get("channel", ""), **values))


async def _run(visit: Visit) -> Response:
    form = await visit.filled()
    try:
        from_, to = form.moment("from"), form.moment("to")
        if not form["confirmed"]:
            _check(form, from_, to)
            return visit.page("reconciliation/confirm.html", form=form, from_=from_, to=to)
        report = await visit.api.reconciliation.begin(
            form["channel"], from_=from_, to=to, dry_run=bool(form["dry_run"])
        )
    except REFUSED as exc:
        return await _asked(visit, form.refused(exc))
    return visit.to(f"/reconciliation/reports/{report.id}", said="run-begun")


def _check(form: Filled, from_: datetime | None, to: datetime | None) -> None:
    if not form["channel"]:
        raise wrong("channel", _("No channel is chosen."), _("Choose the one whose provider is to be asked."))
    for name, moment in (("from", from_), ("to", to)):
        if moment is None:
            raise wrong(name, _("There is no time."), _("Write it like 2026-03-01T12:30:00Z, or like 2026-03-01."))


async def _asked(visit: Visit, form: Filled) -> Response:
    channels = [(one.channel, one.channel) for one in await visit.api.reconciliation.channels()]
    return visit.page("reconciliation/run.html", status=form.status, form=form, channels=channels)


ROUTES = (
    Page("GET", "/reconciliation", _channels),
    Page("GET", "/reconciliation/reports", _reports),
    Page("GET", "/reconciliation/reports/{report_id}", _report),
    Page("GET", "/reconciliation/differences", _differences),
    Page("GET", "/reconciliation/days", _days),
    Page("GET", "/reconciliation/run", _running),
    Page("POST", "/reconciliation/run", _run),
)
