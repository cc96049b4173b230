"""What providers were asked, what it brought, and where they say something else."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from backhaul_client import NotFoundError, RateLimitedError, UnavailableError
from backhaul_client.reconciliationmodels import Day
from starlette.responses import Response

from backhaul_console.filtering import listed
from backhaul_console.forms import MISTYPED, REFUSED, Filled, wrong
from backhaul_console.texts import _
from backhaul_console.visits import Page, Visit

_DAYS = 14
"""On a page: each of them is a question to the API."""
_FIRST = date(2000, 1, 1)


async def _channels(visit: Visit) -> Response:
    return visit.page("reconciliation/channels.html", channels=await visit.api.reconciliation.channels())


async def _reports(visit: Visit) -> Response:
    found = await listed(visit, ("channel", "from", "to"), visit.api.reconciliation.reports)
    return visit.page(
        "reconciliation/reports.html",
        status=found.form.status,
        found=found,
        form=found.form,
        channels=await visit.api.channels(),
    )


async def _report(visit: Visit) -> Response:
    report = await visit.api.reconciliation.report(visit.request.path_params["report_id"])
    return visit.page("reconciliation/report.html", report=report)


async def _differences(visit: Visit) -> Response:
    found = await listed(visit, ("channel", "kind", "from", "to"), visit.api.reconciliation.differences)
    return visit.page(
        "reconciliation/differences.html",
        status=found.form.status,
        found=found,
        form=found.form,
        channels=await visit.api.channels(),
    )


async def _days(visit: Visit) -> Response:
    channels = await visit.api.channels()
    channel = visit.query.get("channel", "").strip() or (channels[0].label if channels else "")
    form, today = visit.asked, datetime.now(UTC).date()
    try:
        last = min(_day_of(form["last"], today), today)
    except MISTYPED as exc:
        form, last = form.refused(exc), today
    days: list[tuple[date, Day | None]] = []
    if channel and form.error is None:
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
        status=form.status,
        form=form if form["last"] else Filled.of(last=last.isoformat()),
        channels=channels,
        channel=channel,
        days=days,
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
    first = {"from": (now - timedelta(days=1)).isoformat(), "to": now.isoformat()}
    asked = {name: visit.query.get(name, "") or first.get(name, "") for name in ("channel", "from", "to", "dry_run")}
    return await _asked(visit, Filled.of(**asked))


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
    if from_ is not None and to is not None and to <= from_:
        raise wrong("to", _("It ends before it begins."), _("Give a later time than that from which on."))


async def _asked(visit: Visit, form: Filled) -> Response:
    try:
        channels = [(one.channel, one.channel) for one in await visit.api.reconciliation.channels()]
    except (RateLimitedError, UnavailableError):
        if form.error is None:
            raise
        # It was refused for that very reason, and is to be sent again as it is.
        channels = [(form["channel"], form["channel"])]
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
