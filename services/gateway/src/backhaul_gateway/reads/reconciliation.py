"""``/v1/reconciliation`` over the reconciler: what providers were asked for, what it brought, and where both sides
differ."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from backhaul_common.errors import unavailable
from backhaul_proto.reconciler.v1 import reconciler_pb2 as pb
from fastapi import APIRouter, Path, Query, Request, Response

from backhaul_gateway.reads.callers import By, Callers
from backhaul_gateway.reads.streaming import answers_of, begun
from backhaul_gateway.twins.reconciliation import (
    CHANNELS,
    DAY,
    DIFFERENCES,
    KINDS,
    REPORT,
    REPORTS,
    DayOut,
    DifferencePage,
    ReconciledChannelsOut,
    RunIn,
    RunReportOut,
    RunReportPage,
)
from backhaul_gateway.twins.renaming import renamed
from backhaul_gateway.twins.turns import finished
from backhaul_gateway.web.filters import Cursor, Filter, From, Limit, Text, To, microseconds, number_of, one_of
from backhaul_gateway.web.openapi import problems
from backhaul_gateway.web.parameters import paged

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; grpc.aio's channels make the one class answer awaitables.
    from backhaul_proto.reconciler.v1.reconciler_pb2_grpc import ReconcilerServiceAsyncStub

LINES = "application/x-ndjson"
_REPORTS = "/v1/reconciliation/reports"
_UNANSWERED = "It may have begun, or not: look for it among the reports before you send this again."

_ReportId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="The report's id.")]
_OneChannel = Annotated[Text, Query(min_length=1, max_length=512, description="The channel's label.")]
_Day = Annotated[
    str, Path(pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}$", description="A day of UTC.", examples=["2026-11-25"])
]


def _run() -> dict[int | str, dict[str, Any]]:
    line = RunReportOut.model_json_schema(ref_template="#/components/schemas/{model}")
    # The model itself brings them into the document.
    del line["$defs"]
    return {
        200: {
            "description": "With ``progress``: the report as it grows, a line whenever it has changed. The last line "
            "is of a run that is over; an answer without one was cut off, and the run goes on.",
            "content": {LINES: {"schema": line}},
        },
        202: {
            "description": "It begins. Its report is at the address in Location.",
            "model": RunReportOut,
            "headers": {"Location": {"description": "The report's path.", "schema": {"type": "string"}}},
        },
        **problems(400, 404, 409),
    }


class ReconciliationRoutes:
    """What the reconciler knows of a tenant's channels, and runs that are asked for."""

    def __init__(self, callers: Callers, reconciler: ReconcilerServiceAsyncStub) -> None:
        self._written = callers.written
        self._reconciler = reconciler

    def add_to(self, router: APIRouter) -> None:
        """Add each method below under its path."""
        get = partial(router.add_api_route, methods=["GET"])
        get("/reconciliation/channels", self.list_channels, response_model=ReconciledChannelsOut)
        get("/reconciliation/reports", self.list_reports, response_model=RunReportPage)
        one = "/reconciliation/reports/{report_id}"
        get(one, self.get_report, response_model=RunReportOut, responses=problems(404))
        get("/reconciliation/differences", self.list_differences, response_model=DifferencePage)
        get("/reconciliation/days/{day}", self.get_day, response_model=DayOut, responses=problems(404))
        post = partial(router.add_api_route, methods=["POST"], status_code=202)
        post("/reconciliation/runs", self.run, response_class=Response, responses=_run())

    async def list_channels(self, by: By) -> Response:
        """How it stands with each channel: whether its provider is asked, and whether anything is heard of what is
        sent on it."""
        answer = await self._reconciler.ListChannels(pb.ListChannelsRequest(tenant_id=by.tenant.id))
        return await self._written(CHANNELS, answer)

    async def list_reports(
        self, by: By, channel: Filter = "", from_: From = None, to: To = None, limit: Limit = 50, cursor: Cursor = ""
    ) -> Response:
        """Reports of runs by when they began, newest first. They are kept for 90 days."""
        request = pb.ListReportsRequest(
            tenant_id=by.tenant.id,
            channel=channel,
            from_us=microseconds(from_),
            to_us=microseconds(to),
            page_size=limit,
            page_token=cursor,
        )
        return await self._written(REPORTS, await paged(self._reconciler.ListReports(request)))

    async def get_report(self, by: By, report_id: _ReportId) -> Response:
        """The report of one run, as far as it is."""
        with _in_words_of_http():
            answer = await self._reconciler.GetReport(pb.GetReportRequest(tenant_id=by.tenant.id, id=report_id))
        return await self._written(REPORT, answer.report)

    async def list_differences(
        self,
        by: By,
        channel: Filter = "",
        kind: Annotated[str, one_of(KINDS)] = "",
        from_: From = None,
        to: To = None,
        limit: Limit = 50,
        cursor: Cursor = "",
    ) -> Response:
        """Messages about which the provider and Backhaul say something else, those that were found last first. ``from``
        and ``to`` bound when they were last seen so. They go by themselves when both sides are equal again."""
        request = pb.ListDifferencesRequest(
            tenant_id=by.tenant.id,
            channel=channel,
            kind=number_of(KINDS, kind, "kind"),
            from_us=microseconds(from_),
            to_us=microseconds(to),
            page_size=limit,
            page_token=cursor,
        )
        return await self._written(DIFFERENCES, await paged(self._reconciler.ListDifferences(request)))

    async def get_day(self, by: By, day: _Day, channel: _OneChannel) -> Response:
        """The account of one day of one channel: whether all that the provider lists is known here, in the same
        states."""
        request = pb.GetDayRequest(tenant_id=by.tenant.id, channel=channel, day=day)
        return await self._written(DAY, (await self._reconciler.GetDay(request)).day)

    async def run(
        self,
        request: Request,
        by: By,
        body: RunIn,
        progress: Annotated[bool, Query(description="Answer JSON Lines until the run is over.")] = False,
    ) -> Response:
        """Ask a channel's provider about a span of time now. The answer is the report of a run that begins; with
        ``progress`` it is told until the run is over, which may take as long as the provider's limits make it. The run
        goes on when nobody reads. 409 where the channel is not asked at all, or such a run is under way."""
        told = self._told(body.request(by.tenant.id))
        if progress:
            return await begun(_lines(told), LINES, watched=request)
        async with aclosing(told):
            report = await anext(told)
        response = await self._written(REPORT, report, 202)
        response.headers["location"] = f"{_REPORTS}/{report.id}"
        return response

    async def _told(self, request: pb.RunRequest) -> AsyncGenerator[pb.Report, None]:
        """The report as it grows. UNAVAILABLE where it breaks off."""
        over = False
        with _in_words_of_http(unanswered=_UNANSWERED):
            async with answers_of(self._reconciler.Run(request)) as answers:
                async for answer in answers:
                    over = answer.report.state != pb.RUN_STATE_RUNNING
                    yield answer.report
            if not over:
                raise unavailable("The reconciler")


@contextmanager
def _in_words_of_http(*, unanswered: str = "") -> Iterator[None]:
    """Around a call: what it refuses is named as the request has it."""
    names = {"from_us": "from", "to_us": "to", "id": "report_id"}
    with renamed(names, texts={"from_us": "from", "to_us": "to"}, unanswered=unanswered):
        yield


async def _lines(reports: AsyncGenerator[pb.Report, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(reports):
        async for report in reports:
            yield finished(REPORT.json(report)) + b"\n"
