"""What providers are asked for, over HTTP: runs and their reports, differences, days, and how it stands."""

from __future__ import annotations

from datetime import date, datetime

from backhaul_client.calls import Call, all_of, call, given, lines, of, page_of, path, rows
from backhaul_client.paging import Page
from backhaul_client.reconciliationmodels import Day, Difference, ReconciledChannel, RunReport
from backhaul_client.transport import AsyncPart, Part

_ROOT = "/v1/reconciliation"
_PAGE = 100


class ReconciliationCalls:
    """The calls, once for both clients."""

    @call
    def channels(self) -> Call[tuple[ReconciledChannel, ...]]:
        """How it stands with each channel: whether its provider is asked, and whether anything is heard."""
        return Call(path=f"{_ROOT}/channels", answer=all_of("channels", ReconciledChannel))

    @call
    def begin(
        self, channel: str, *, from_: datetime | None = None, to: datetime | None = None, dry_run: bool = False
    ) -> Call[RunReport]:
        """Ask a channel's provider now about what was sent from ``from_`` to ``to``; without them, in the last 24
        hours. The report of a run that has just begun: ``report`` tells later what it found."""
        return Call(
            method="POST", path=f"{_ROOT}/runs", body=_wanted(channel, from_, to, dry_run), answer=of(RunReport)
        )

    @lines
    def run(
        self, channel: str, *, from_: datetime | None = None, to: datetime | None = None, dry_run: bool = False
    ) -> Call[RunReport]:
        """As ``begin``, and the report as it grows: the last one is of a run that is over. It goes on where nobody
        reads."""
        return Call(
            method="POST",
            path=f"{_ROOT}/runs",
            params=given(progress=True),
            body=_wanted(channel, from_, to, dry_run),
            answer=of(RunReport),
        )

    @call
    def report(self, report_id: str) -> Call[RunReport]:
        """The report of one run, as far as it is."""
        return Call(path=path("v1", "reconciliation", "reports", report_id), answer=of(RunReport))

    @rows
    def reports(
        self,
        *,
        channel: str = "",
        from_: datetime | None = None,
        to: datetime | None = None,
        page_size: int = _PAGE,
        cursor: str = "",
    ) -> Call[Page[RunReport]]:
        """Reports by when the runs began, newest first. ``from_`` and ``to`` bound that."""
        params = given(channel=channel, from_=from_, to=to, limit=page_size, cursor=cursor)
        return Call(path=f"{_ROOT}/reports", params=params, answer=page_of("reports", RunReport))

    @rows
    def differences(
        self,
        *,
        channel: str = "",
        kind: str = "",
        from_: datetime | None = None,
        to: datetime | None = None,
        page_size: int = _PAGE,
        cursor: str = "",
    ) -> Call[Page[Difference]]:
        """Messages about which the provider says something else, those that were found last first. ``from_`` and ``to``
        bound when they were last seen so."""
        params = given(channel=channel, kind=kind, from_=from_, to=to, limit=page_size, cursor=cursor)
        return Call(path=f"{_ROOT}/differences", params=params, answer=page_of("differences", Difference))

    @call
    def day(self, channel: str, day: date | str) -> Call[Day]:
        """The account of one day (UTC) of one channel."""
        return Call(path=path("v1", "reconciliation", "days", str(day)), params=given(channel=channel), answer=of(Day))


def _wanted(channel: str, from_: datetime | None, to: datetime | None, dry_run: bool) -> dict[str, object]:
    return {"channel": channel, **given(from_=from_, to=to), **({"dry_run": True} if dry_run else {})}


class Reconciliation(ReconciliationCalls, Part):
    """``TenantClient.reconciliation``."""


class AsyncReconciliation(ReconciliationCalls, AsyncPart):
    """``AsyncTenantClient.reconciliation``."""
