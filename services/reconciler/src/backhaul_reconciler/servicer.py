"""gRPC to runs, reports, differences, days and standings, and back; nothing is decided here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Protocol

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import channel_key
from backhaul_common.pages import span_of
from backhaul_common.places import Places
from backhaul_common.tenants import Tenant
from backhaul_proto.reconciler.v1 import reconciler_pb2 as pb
from backhaul_proto.reconciler.v1.reconciler_pb2_grpc import ReconcilerServiceServicer

from backhaul_reconciler.answers import (
    DIFFERENCE_KINDS,
    channel_message,
    day_message,
    difference_message,
    report_message,
)
from backhaul_reconciler.days import MongoDays
from backhaul_reconciler.differences import MongoDifferences
from backhaul_reconciler.following import Following
from backhaul_reconciler.ports import Calls
from backhaul_reconciler.reports import MongoReports
from backhaul_reconciler.standings import Standings
from backhaul_reconciler.validation import channel_of, day_of, run_span_of

MAX_FOLLOWED_OF_TENANT, MAX_FOLLOWED = 10, 100
"""Each reads its report twice a second."""


class Tenants(Protocol):
    """Who is served."""

    async def require(self, tenant_id: str) -> Tenant:
        """The tenant. NOT_FOUND; UNAVAILABLE."""
        ...


class ReconcilerServicer(ReconcilerServiceServicer):
    """``backhaul_proto.reconciler.v1.ReconcilerService``. Errors are BackhaulErrors; the server's edge translates."""

    def __init__(
        self,
        tenants: Tenants,
        calls: Calls,
        following: Following,
        *,
        reports: MongoReports,
        differences: MongoDifferences,
        days: MongoDays,
        standings: Standings,
        now_us: Callable[[], int],
    ) -> None:
        self._tenants = tenants
        self._calls = calls
        self._following = following
        self._reports = reports
        self._differences = differences
        self._days = days
        self._standings = standings
        self._now_us = now_us
        self._followed = Places("runs that are followed", of_tenant=MAX_FOLLOWED_OF_TENANT, of_all=MAX_FOLLOWED)

    async def Run(self, request: pb.RunRequest, context: Any) -> AsyncIterator[pb.RunResponse]:
        """How far a run is, and last its whole report. It goes on when nobody listens any more."""
        tenant = await self._tenants.require(request.tenant_id)
        channel = channel_of(tenant, request.channel)
        span = run_span_of(request.from_us, request.to_us, self._now_us())
        with self._followed.taken(tenant.registration):
            report_id = await self._calls.ask(tenant, channel, span, dry_run=request.dry_run)
            async with aclosing(self._following.run(tenant.registration, report_id)) as told:
                async for report in told:
                    yield pb.RunResponse(report=report_message(report))

    async def GetReport(self, request: pb.GetReportRequest, context: Any) -> pb.GetReportResponse:
        """One report."""
        registration = await self._registration(request.tenant_id)
        return pb.GetReportResponse(report=report_message(await self._following.require(registration, request.id)))

    async def ListReports(self, request: pb.ListReportsRequest, context: Any) -> pb.ListReportsResponse:
        """Reports, newest first."""
        rows, token = await self._reports.page(
            await self._registration(request.tenant_id),
            channel_key(request.channel),
            span_of(request.from_us, request.to_us),
            request.page_size,
            request.page_token,
        )
        return pb.ListReportsResponse(reports=map(report_message, rows), next_page_token=token)

    async def ListDifferences(self, request: pb.ListDifferencesRequest, context: Any) -> pb.ListDifferencesResponse:
        """Differences; what was found last comes first."""
        tenant = await self._tenants.require(request.tenant_id)
        channel = channel_key(request.channel)
        rows, token = await self._differences.page(
            tenant.registration,
            channel,
            DIFFERENCE_KINDS.value(request.kind, "kind"),
            span_of(request.from_us, request.to_us),
            request.page_size,
            request.page_token,
        )
        full = (
            []
            if request.page_token
            else await self._differences.full(tenant.registration, [channel] if channel else sorted(tenant.channels))
        )
        return pb.ListDifferencesResponse(
            differences=map(difference_message, rows), next_page_token=token, full_channels=full
        )

    async def GetDay(self, request: pb.GetDayRequest, context: Any) -> pb.GetDayResponse:
        """The account of one day."""
        tenant = await self._tenants.require(request.tenant_id)
        channel, day = channel_of(tenant, request.channel), day_of(request.day)
        found = await self._days.get(tenant.registration, channel, day)
        if found is None:
            raise BackhaulError(
                Code.NOT_FOUND,
                "The day was not compared.",
                field="day",
                fix="A day is compared from two days later on, while its channel is asked; none is from before that. "
                "A run over it backfills it all the same.",
            )
        return pb.GetDayResponse(day=day_message(channel, found))

    async def ListChannels(self, request: pb.ListChannelsRequest, context: Any) -> pb.ListChannelsResponse:
        """How it stands with a tenant's channels."""
        standings = await self._standings.of(await self._tenants.require(request.tenant_id))
        return pb.ListChannelsResponse(channels=map(channel_message, standings))

    async def _registration(self, tenant_id: str) -> str:
        return (await self._tenants.require(tenant_id)).registration
