"""What ``/v1/stats`` counts, as a table: a row an hour or day in which anything was counted, and a column a group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from backhaul_client import AsyncTenantClient
from backhaul_client.models import StatsRow

from backhaul_console.texts import _
from backhaul_console.words import words

MAX_GROUPS = 6
"""The largest have a column each, and all others one together: more lines cannot be told apart."""

MEASURES = {
    "events": _("Events"),
    "messages": _("Messages"),
    "events_by_machine": _("Events by machines"),
    "unique_opened": _("Messages opened"),
    "unique_clicked": _("Messages clicked"),
}
_COUNTED = {
    "": (*MEASURES,),
    "channel": (*MEASURES,),
    "communication": (*MEASURES,),
    "kind": ("events", "events_by_machine"),
    "fulfilment_state": ("messages", "unique_opened", "unique_clicked"),
}
"""What rows by each group count."""


@dataclass(frozen=True)
class Span:
    """From when to when is counted, and by what."""

    per: str
    since: datetime
    until: datetime

    @classmethod
    def of(cls, per: str, count: int, until: datetime | None = None) -> Span:
        """The ``count`` hours or days that end at ``until``; with the present hour unless given."""
        now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        if until is None:
            until = now if per == "hour" else now.replace(hour=0) + timedelta(days=bool(now.hour))
        length = timedelta(hours=count) if per == "hour" else timedelta(days=count)
        return cls(per, until - length, until)

    @property
    def step_s(self) -> int:
        """The length of an hour or a day, in seconds."""
        return 3600 if self.per == "hour" else 86400

    @property
    def starts(self) -> Sequence[datetime]:
        """When each hour or day begins."""
        step = timedelta(seconds=self.step_s)
        return [self.since + step * number for number in range((self.until - self.since) // step)]


@dataclass(frozen=True)
class Counted:
    """``rows``: when each begins, and its counts, one for each of ``names``; rows of nothing but zeros are left out."""

    span: Span
    names: Sequence[str]
    rows: Sequence[tuple[datetime, Sequence[int]]]
    grouped: bool
    """Whether the columns are parts of one number."""
    truncated: bool

    @property
    def totals(self) -> Sequence[int]:
        """Of each column."""
        return [sum(counts[number] for _start, counts in self.rows) for number in range(len(self.names))]

    @property
    def peak(self) -> tuple[datetime, int] | None:
        """When the most was counted: in the first column, or in all columns of a group together."""
        told = ((start, sum(counts) if self.grouped else counts[0]) for start, counts in self.rows)
        return max(told, key=lambda one: one[1], default=None)

    def filled(self) -> Sequence[tuple[datetime, Sequence[int]]]:
        """All hours or days, those of which nothing was counted too."""
        found = dict(self.rows)
        return [(start, found.get(start, [0] * len(self.names))) for start in self.span.starts]


def measure_of(asked: str, group: str) -> str:
    """What is counted of a group's rows: what was asked for, where they count it."""
    counted = _COUNTED[group]
    return asked if asked in counted else counted[0]


async def count(
    api: AsyncTenantClient, span: Span, *, group: str = "", measure: str = "events", channel: str = "", of: str = ""
) -> Counted:
    """Ask for what was counted in ``span``: every measure, or one by ``group``; ``of`` one communication alone."""
    stats = await api.stats(
        per="hour" if span.per == "hour" else "day",
        group_by=[group] if group else (),  # type: ignore[list-item]  # the API knows its words, and refuses others
        channel=channel,
        communication=of,
        from_=span.since,
        to=span.until,
    )
    if not group:
        rows = [(row.start, [getattr(row, name) for name in MEASURES]) for row in stats.rows]
        return Counted(span, [*MEASURES.values()], [row for row in rows if any(row[1])], False, stats.truncated)
    return _grouped(span, stats.rows, group, measure, truncated=stats.truncated)


def _grouped(span: Span, rows: Sequence[StatsRow], group: str, measure: str, *, truncated: bool) -> Counted:
    field = "communication_id" if group == "communication" else group
    by_name: dict[str | None, int] = {}
    for row in rows:
        name = getattr(row, field)
        by_name[name] = by_name.get(name, 0) + getattr(row, measure)
    largest = sorted((name for name in by_name if by_name[name]), key=lambda name: (-by_name[name], name or ""))
    shown = largest[:MAX_GROUPS]
    places = {name: number for number, name in enumerate(shown)}
    width = len(shown) + (len(largest) > len(shown))
    found: dict[datetime, list[int]] = {}
    for row in rows:
        if counted := getattr(row, measure):
            found.setdefault(row.start, [0] * width)[places.get(getattr(row, field), width - 1)] += counted
    ours = group in ("kind", "fulfilment_state")
    names = [(words(name) if ours else name) if name else _("Of no communication") for name in shown]
    if width > len(shown):
        names.append(_("All others"))
    return Counted(span, names, sorted(found.items()), True, truncated)
