"""When something was last sent and heard on a tenant's channels, as the normalizer knows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_proto.normalizer.v1 import records_pb2 as pb

from backhaul_reconciler.standings import Activity

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; over a channel of grpc.aio the one class answers awaitables.
    from backhaul_proto.normalizer.v1.records_pb2_grpc import RecordServiceAsyncStub


class GrpcActivities:
    """``Activities``."""

    def __init__(self, normalizer: RecordServiceAsyncStub) -> None:
        self._normalizer = normalizer

    async def of(self, tenant_id: str) -> Mapping[str, Activity]:
        """See ``Activities``."""
        try:
            answer = await self._normalizer.ListActivity(pb.ListActivityRequest(tenant_id=tenant_id))
        except BackhaulError as exc:
            if exc.code in (Code.NOT_FOUND, Code.UNAVAILABLE):
                raise
            # What else it says is nothing that the caller can mend.
            raise unavailable("The normalizer") from exc
        return {one.channel: Activity(one.sent_at_us, one.silent_since_us) for one in answer.channels}
