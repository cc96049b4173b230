"""What the normalizer counts and lists of a communication, over gRPC."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_common.tenants import Tenant
from backhaul_proto.event.v1.event_pb2 import EVENT_KIND_INBOUND
from backhaul_proto.normalizer.v1.normalizer_pb2 import GetCommunicationRequest, ListEventsRequest

from backhaul_audit.model import EventId
from backhaul_audit.recounting.ports import Counts, Listed, Page

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; over a channel of grpc.aio the one class answers awaitables.
    from backhaul_proto.normalizer.v1.normalizer_pb2_grpc import NormalizerServiceAsyncStub

PAGE_EVENTS = 500
"""As many as the normalizer lists at once."""

_PASSED_ON = frozenset({Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.UNAVAILABLE})
"""What else the normalizer says, such as that its own read took too long, is nothing that the caller can mend."""

T = TypeVar("T")


class GrpcCommunications:
    """``Communications``."""

    def __init__(self, normalizer: NormalizerServiceAsyncStub) -> None:
        self._normalizer = normalizer

    async def counts(self, tenant: Tenant, communication_id: str) -> Counts:
        """See ``Communications``."""
        request = GetCommunicationRequest(tenant_id=tenant.id, communication_id=communication_id)
        communication = (await _answer(self._normalizer.GetCommunication(request))).communication
        counts: dict[int, int] = {one.kind: one.count for one in communication.events}
        # A reply is listed with what it answers, and counts there as a reply. Among the events it counts where its own
        # callback says, which may be another communication, or none.
        counts[EVENT_KIND_INBOUND] = communication.replies.all
        return Counts({kind: count for kind, count in counts.items() if count}, communication.created_at_us)

    async def page(self, tenant: Tenant, communication_id: str, token: str) -> Page:
        """See ``Communications``."""
        request = ListEventsRequest(
            tenant_id=tenant.id, communication_id=communication_id, page_size=PAGE_EVENTS, page_token=token
        )
        answer = await _answer(self._normalizer.ListEvents(request))
        listed = []
        for event in answer.events:
            if event.registration != tenant.registration:
                # One of the two services has not heard of it yet.
                raise BackhaulError(
                    Code.UNAVAILABLE,
                    "The tenant's id was given to another one meanwhile.",
                    fix="Ask again in some seconds.",
                    retry_after_s=5,
                )
            if not event.duplicate_of:
                key = EventId(event.id, event.revision)
                listed.append(Listed(key, event.kind, event.channel, event.received_at_us))
        return Page(listed, answer.next_page_token, answer.retained_since_us)


async def _answer(call: Awaitable[T]) -> T:
    try:
        return await call
    except BackhaulError as exc:
        if exc.code in _PASSED_ON:
            raise
        raise unavailable("The normalizer") from exc
