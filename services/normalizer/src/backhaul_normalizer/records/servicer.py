"""gRPC to what a provider's API tells, and to what channels do; nothing is decided here."""

from __future__ import annotations

from typing import Any

from backhaul_proto.normalizer.v1 import records_pb2 as pb
from backhaul_proto.normalizer.v1.records_pb2_grpc import RecordServiceServicer

from backhaul_normalizer.activity import Activity
from backhaul_normalizer.answers import KINDS
from backhaul_normalizer.ports import KnownTenants
from backhaul_normalizer.records.comparing import Comparisons
from backhaul_normalizer.records.verdicts import Compared
from backhaul_normalizer.silence import silent_since_us


class RecordServicer(RecordServiceServicer):
    """``backhaul_proto.normalizer.v1.RecordService``. Errors are BackhaulErrors, which the edge translates."""

    def __init__(self, tenants: KnownTenants, comparisons: Comparisons, activity: Activity) -> None:
        self._tenants = tenants
        self._comparisons = comparisons
        self._activity = activity

    async def CompareRecords(self, request: pb.CompareRecordsRequest, context: Any) -> pb.CompareRecordsResponse:
        """What each record would change."""
        found = await self._comparisons.of(request.tenant_id, request.channel, request.records, request.read_at_us)
        return pb.CompareRecordsResponse(comparisons=map(_comparison, found))

    async def ListActivity(self, request: pb.ListActivityRequest, context: Any) -> pb.ListActivityResponse:
        """When something was last sent and heard, and what is silent."""
        tenant = await self._tenants.require(request.tenant_id)
        rows = await self._activity.of(tenant.registration)
        return pb.ListActivityResponse(
            channels=[
                pb.ChannelActivity(
                    channel=row["channel"],
                    heard_at_us=row.get("heard_at_us", 0),
                    sent_at_us=row.get("sent_at_us", 0),
                    unanswered_since_us=row.get("unanswered_since_us", 0),
                    silent_since_us=silent_since_us(row, tenant.channels.get(row["channel"])),
                )
                for row in rows
            ]
        )


def _comparison(one: Compared) -> pb.Comparison:
    return pb.Comparison(
        verdict=one.verdict,
        message_id=one.message_id,
        message_known=one.message_known,
        told_state=KINDS.number(one.told_state),
        told_error_code=one.told_error_code,
        stored_state=KINDS.number(one.stored_state),
        stored_error_code=one.stored_error_code,
        state_after=KINDS.number(one.state_after),
        occurred_at_us=one.occurred_at_us,
        heard_at_us=one.heard_at_us,
        reason=one.reason,
    )
