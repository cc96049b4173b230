"""``GET /v1/stats``: how many events and messages there were, by the hour or the day."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import channel_key
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from backhaul_gateway.reads.callers import By, Callers
from backhaul_gateway.reads.views import FULFILMENT
from backhaul_gateway.twins.twin import Twin
from backhaul_gateway.web.filters import Filter, microseconds
from backhaul_gateway.web.moments import Moment

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; grpc.aio's channels make the one class answer awaitables.
    from backhaul_proto.normalizer.v1.normalizer_pb2_grpc import NormalizerServiceAsyncStub

_HOUR_US = 3600 * 1_000_000

_UNASKED_HOURS = {"hour": 24, "day": 30 * 24}
"""How long a span is whose beginning is not given."""

_GROUPS = {
    "channel": pb.STATS_GROUP_CHANNEL,
    "kind": pb.STATS_GROUP_KIND,
    "fulfilment_state": pb.STATS_GROUP_FULFILMENT_STATE,
    "communication": pb.STATS_GROUP_COMMUNICATION,
}


class StatsRowOut(BaseModel):
    """What was counted in the hour, or on the day of UTC, that begins at ``start``. What the rows are not grouped by is
    null; so is the communication of what belongs to none.

    An event counts in the hour in which it happened; if its time is more than 400 days before its arrival, or one
    behind it, in the hour of that. A message counts in the hour in which it was sent, as far as is known. Rows by kind
    count ``events``, rows by fulfilment state ``messages``; whoever asks for both gets rows of both.
    ``events_by_machine`` are those of ``events`` that no person made, openings and clicks. ``unique_opened`` and
    ``unique_clicked`` are messages of that hour that a person opened or clicked, at any time."""

    start: str | None
    channel: str | None
    kind: str | None
    fulfilment_state: str | None
    communication_id: str | None
    events: int
    events_by_machine: int
    messages: int
    unique_opened: int
    unique_clicked: int


class StatsOut(BaseModel):
    """By time, then by group. Where nothing was counted there is no row. ``truncated``: there are more than these
    10,000."""

    rows: list[StatsRowOut]
    truncated: bool


STATS: Twin[pb.GetStatsResponse] = Twin(
    StatsOut, pb.GetStatsResponse.DESCRIPTOR, {pb.FulfilmentState.DESCRIPTOR.full_name: FULFILMENT}
)


class StatsRoutes:
    """What was counted of a tenant's events."""

    def __init__(self, callers: Callers, normalizer: NormalizerServiceAsyncStub) -> None:
        self._written = callers.written
        self._normalizer = normalizer

    def add_to(self, router: APIRouter) -> None:
        """Add the method below under its path."""
        get = partial(router.add_api_route, methods=["GET"])
        get("/stats", self.get_stats, response_model=StatsOut)

    async def get_stats(
        self,
        by: By,
        per: Literal["hour", "day"] = "hour",
        group_by: Annotated[
            Filter,
            Query(description=f"Any of {', '.join(_GROUPS)}, with commas between them.", examples=["channel,kind"]),
        ] = "",
        channel: Annotated[Filter, Query(description="A label. Only what is of this channel is counted.")] = "",
        communication: Annotated[Filter, Query(description="An id. Only what belongs to it is counted.")] = "",
        from_: Annotated[
            Moment | None,
            Query(
                alias="from",
                description="RFC 3339, at a full hour; inclusive. Unless given a day before `to`; by the day, 30.",
            ),
        ] = None,
        to: Annotated[
            Moment | None,
            Query(description="RFC 3339, at a full hour; exclusive. The end of the present hour unless given."),
        ] = None,
    ) -> Response:
        """How many events and messages there were, hour by hour or day by day, by UTC.

        At most 31 days by the hour, and 800 by the day. 504 where rows by communication are of more than can be summed
        up in time: narrow the span, or name one communication.
        """
        # The first hour that there is counts as full, whatever was said of the time before it.
        to_us = max(_HOUR_US, microseconds(to) or (microseconds(datetime.now(UTC)) // _HOUR_US + 1) * _HOUR_US)
        from_us = max(_HOUR_US, microseconds(from_) or to_us - _UNASKED_HOURS[per] * _HOUR_US)
        answer = await self._normalizer.GetStats(
            pb.GetStatsRequest(
                tenant_id=by.tenant.id,
                from_us=from_us,
                to_us=to_us,
                per=pb.STATS_PER_DAY if per == "day" else pb.STATS_PER_HOUR,
                group_by=_groups(group_by),
                channel=channel_key(channel),
                communication_id=communication,
            )
        )
        return await self._written(STATS, answer)


def _groups(text: str) -> list[pb.StatsGroup.ValueType]:
    words = [word.strip() for word in text.split(",")] if text else []
    for word in words:
        if word not in _GROUPS:
            raise BackhaulError(
                Code.INVALID_ARGUMENT,
                f"{word[:64]!r} is nothing that rows are grouped by.",
                field="group_by",
                fix=f"Use any of: {', '.join(_GROUPS)}.",
            )
    return [_GROUPS[word] for word in dict.fromkeys(words)]
