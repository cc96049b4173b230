"""What the normalizer has heard, over gRPC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from backhaul_proto.event.v1.event_pb2 import Event
from backhaul_proto.normalizer.v1.normalizer_pb2 import ListEventsRequest

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; over a channel of grpc.aio the one class answers awaitables.
    from backhaul_proto.normalizer.v1.normalizer_pb2_grpc import NormalizerServiceAsyncStub


class GrpcArrivals:
    """``Arrivals``."""

    def __init__(self, normalizer: NormalizerServiceAsyncStub) -> None:
        self._normalizer = normalizer

    async def of(
        self, tenant_id: str, recipient: str, since_us: int, size: int, token: str
    ) -> tuple[Sequence[Event], str]:
        """See ``Arrivals``."""
        answer = await self._normalizer.ListEvents(
            ListEventsRequest(
                tenant_id=tenant_id,
                recipient=recipient,
                from_us=max(0, since_us),
                page_size=size,
                page_token=token,
            )
        )
        return answer.events, answer.next_page_token
