"""A gateway over a normalizer that answers what it is told to, for the tests of reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from backhaul_client.adminmodels import NewTenant
from backhaul_common.errors import BackhaulError
from backhaul_common.rpc.errors import DETAILS_KEY, to_details
from backhaul_proto.event.v1.event_pb2 import (
    ERROR_CLASS_HARD,
    EVENT_KIND_DELIVERED,
    REVIEW_ACCEPTED,
    REVIEW_DISMISSED,
    Event,
)
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from backhaul_proto.normalizer.v1 import normalizer_pb2_grpc
from gateway_rig import GatewayFactory, Running


class FakeNormalizer(normalizer_pb2_grpc.NormalizerServiceServicer):
    """Answers with what a test gave it, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.events: list[Event] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.refusal: BackhaulError | None = None

    async def ListEvents(self, request: Any, context: Any) -> pb.ListEventsResponse:  # noqa: N802  # gRPC's name
        self.asked.append(request)
        await self.may_answer.wait()
        await self._refuse(context)
        return pb.ListEventsResponse(events=self.events)

    async def _refuse(self, context: Any) -> None:
        if self.refusal is not None:
            details = ((DETAILS_KEY, to_details(self.refusal)),)
            await context.abort(self.refusal.meaning.grpc_status, self.refusal.message, details)

    async def CountErrors(self, request: Any, context: Any) -> pb.CountErrorsResponse:  # noqa: N802  # gRPC's name
        self.asked.append(request)
        known = pb.ErrorCount(channel="twilio", provider="twilio", error_code="30006", count=3, text="A landline.")
        known.last_received_at_us, known.error_class, known.url = 1, ERROR_CLASS_HARD, "https://example.com/30006"
        return pb.CountErrorsResponse(errors=[known, pb.ErrorCount(channel="gone", error_code="1", count=1)])

    async def GetStats(self, request: Any, context: Any) -> pb.GetStatsResponse:  # noqa: N802  # gRPC's name
        self.asked.append(request)
        whole = pb.StatsRow(start_us=3_600_000_000, events=3, events_by_machine=1, messages=2, unique_opened=1)
        state = pb.StatsRow(start_us=7_200_000_000, fulfilment_state=pb.FULFILMENT_STATE_INVALID_NUMBER, messages=4)
        state.channel, state.communication_id = "twilio", "spring"
        kind = pb.StatsRow(start_us=7_200_000_000, kind=EVENT_KIND_DELIVERED, events=5)
        return pb.GetStatsResponse(rows=[whole, state, kind], truncated=True)

    async def ListMessages(self, request: Any, context: Any) -> pb.ListMessagesResponse:  # noqa: N802  # gRPC's name
        self.asked.append(request)
        return pb.ListMessagesResponse(messages=[pb.Message(message_id="SM1")])

    async def GetMessage(self, request: Any, context: Any) -> pb.GetMessageResponse:  # noqa: N802  # gRPC's name
        self.asked.append(request)
        await self._refuse(context)
        return pb.GetMessageResponse(message=pb.Message(message_id="SM1"), timeline=self.events)

    async def ReplayDeadLetter(self, request: Any, context: Any) -> pb.ReplayDeadLetterResponse:  # noqa: N802  # gRPC's name
        self.asked.append(request)
        return pb.ReplayDeadLetterResponse(dead_letter=pb.DeadLetter(id=request.id))

    async def DiscardDeadLetter(self, request: Any, context: Any) -> pb.DiscardDeadLetterResponse:  # noqa: N802  # gRPC's name
        self.asked.append(request)
        return pb.DiscardDeadLetterResponse(dead_letter=pb.DeadLetter(id=request.id))

    async def ListReplies(self, request: Any, context: Any) -> pb.ListRepliesResponse:  # noqa: N802  # gRPC's name
        self.asked.append(request)
        return pb.ListRepliesResponse(replies=self.events, next_page_token="next")

    async def AcceptReply(self, request: Any, context: Any) -> pb.AcceptReplyResponse:  # noqa: N802  # gRPC's name
        self.asked.append(request)
        return pb.AcceptReplyResponse(reply=Event(id=request.id, review=REVIEW_ACCEPTED))

    async def DismissReply(self, request: Any, context: Any) -> pb.DismissReplyResponse:  # noqa: N802  # gRPC's name
        self.asked.append(request)
        return pb.DismissReplyResponse(reply=Event(id=request.id, review=REVIEW_DISMISSED))


@asynccontextmanager
async def reading(factory: GatewayFactory, nats_url: str) -> AsyncIterator[tuple[Running, FakeNormalizer]]:
    normalizer = FakeNormalizer()  # type: ignore[abstract]  # grpc answers the other calls with UNIMPLEMENTED
    server = grpc.aio.server()
    normalizer_pb2_grpc.add_NormalizerServiceServicer_to_server(normalizer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with factory(nats_url, gateway_normalizer_target=f"127.0.0.1:{port}") as gateway:
            yield gateway, normalizer
    finally:
        normalizer.may_answer.set()
        await server.stop(0)


def headers(tenant: NewTenant) -> dict[str, str]:
    return {"X-Api-Key": tenant.api_key}
