"""How many events and messages there were, hour by hour or day by day: as a chart, and as a table."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from starlette.responses import Response

from backhaul_console.counting import MEASURES, Counted, Span, count, measure_of
from backhaul_console.forms import MISTYPED, wrong
from backhaul_console.rendering import shown
from backhaul_console.texts import _
from backhaul_console.visits import Page, Visit

SPANS = {
    "24h": ("hour", 24, _("24 hours, by the hour")),
    "3d": ("hour", 72, _("3 days, by the hour")),
    "7d": ("hour", 168, _("7 days, by the hour")),
    "30d": ("day", 30, _("30 days, by the day")),
    "90d": ("day", 90, _("90 days, by the day")),
    "365d": ("day", 365, _("365 days, by the day")),
}
GROUPS = {
    "": _("Nothing"),
    "channel": _("Channel"),
    "kind": _("Kind of event"),
    "fulfilment_state": _("Fulfilment state"),
    "communication": _("Communication"),
}

_YEARS = (1971, 2999)
"""Of days whose spans the API takes."""


async def _statistics(visit: Visit) -> Response:
    asked = shown(visit.query, "span", "until", "group_by", "measure", "channel", "communication")
    per, length, _label = SPANS.get(asked["span"] or "24h") or SPANS["24h"]
    group = asked["group_by"] if asked["group_by"] in GROUPS else ""
    measure = measure_of(asked["measure"], group)
    form, until, span = visit.asked, None, Span.of(per, length)
    counted = Counted(span, [*MEASURES.values()], [], False, False)
    try:
        if until := _day(asked["until"]):
            span = Span.of(per, length, until + timedelta(days=1))
        counted = await count(
            visit.api, span, group=group, measure=measure, channel=asked["channel"], of=asked["communication"]
        )
    except MISTYPED as exc:
        form = form.refused(exc)
    return visit.page(
        "statistics/page.html",
        status=form.status,
        form=form,
        asked=asked | {"group_by": group, "measure": measure if group else ""},
        counted=counted,
        channels=await visit.api.channels(),
        spans=[(name, label) for name, (_per, _length, label) in SPANS.items()],
        groups=[*GROUPS.items()],
        measures=[*MEASURES.items()],
        measure=MEASURES[measure],
        earlier=_beside(span, -1),
        later=_beside(span, 1) if until else "",
    )


def _day(typed: str) -> datetime | None:
    """The beginning of the day that was typed."""
    if not typed:
        return None
    try:
        day = date.fromisoformat(typed)
    except ValueError:
        day = date.min
    if not _YEARS[0] <= day.year <= _YEARS[1]:
        raise wrong("until", _("This is no day."), _("Write it like 2026-03-01."))
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _beside(span: Span, direction: int) -> str:
    """The last day of the span before or behind one; empty where that begins in the future."""
    length = max(timedelta(days=1), span.until - span.since)
    end = span.until + direction * length - timedelta(seconds=1)
    if end - length > datetime.now(UTC) or end.year < _YEARS[0]:
        return ""
    return f"{end:%Y-%m-%d}"


ROUTES = (Page("GET", "/statistics", _statistics),)
