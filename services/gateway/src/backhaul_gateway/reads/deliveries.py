"""``/v1/deliveries`` over the notifier: what was told, what became of each attempt, and once more."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from fastapi import APIRouter, Path, Query, Response

from backhaul_gateway.reads.callers import By, Callers
from backhaul_gateway.reads.subscriptions import SAY_AGAIN, redelivered
from backhaul_gateway.twins.subscriptioncalls import in_words_of_http
from backhaul_gateway.twins.subscriptions import (
    DELIVERIES,
    DELIVERY,
    REDELIVERED,
    STATES,
    DeliveryPage,
    DeliveryWithHistoryOut,
    RedeliveredOut,
)
from backhaul_gateway.web.filters import Cursor, Filter, From, Limit, To, microseconds, number_of, one_of
from backhaul_gateway.web.openapi import problems
from backhaul_gateway.web.parameters import paged

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; grpc.aio's channels make the one class answer awaitables.
    from backhaul_proto.notifier.v1.notifier_pb2_grpc import NotifierServiceAsyncStub

_DeliveryId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="The delivery's id.")]


class DeliveryRoutes:
    """What was told to a tenant's applications."""

    def __init__(self, callers: Callers, notifier: NotifierServiceAsyncStub) -> None:
        self._written = callers.written
        self._notifier = notifier

    def add_to(self, router: APIRouter) -> None:
        """Add each method below under its path."""
        get = partial(router.add_api_route, methods=["GET"])
        get("/deliveries", self.list_deliveries, response_model=DeliveryPage)
        one = "/deliveries/{delivery_id}"
        get(one, self.get_delivery, response_model=DeliveryWithHistoryOut, responses=problems(404))
        again = redelivered("It is sent again, as soon as its subscription sends.")
        post = partial(router.add_api_route, methods=["POST"], status_code=202)
        post(f"{one}/redeliver", self.redeliver, response_model=RedeliveredOut, responses=again)

    async def list_deliveries(
        self,
        by: By,
        subscription_id: Filter = "",
        state: Annotated[str, one_of(STATES)] = "",
        type: Filter = "",  # noqa: A002  # the parameter's public name
        event_id: Filter = "",
        channel: Filter = "",
        message_id: Annotated[Filter, Query(description="The id of one message; needs channel too.")] = "",
        communication: Filter = "",
        never_attempted: Annotated[bool, Query(description="Only what nobody has tried to send.")] = False,
        undelivered: Annotated[bool, Query(description="Only what waits, is held, or has failed.")] = False,
        reason: Annotated[
            Filter, Query(description="Why the latest attempt failed: `503`, `5xx`, `timeout`, or `tls_*`, say.")
        ] = "",
        history: Annotated[bool, Query(description="Each with its attempts; limit is 50 at most then.")] = False,
        from_: From = None,
        to: To = None,
        limit: Limit = 50,
        cursor: Cursor = "",
    ) -> Response:
        """Deliveries, newest first. ``from`` and ``to`` bound when they were made, which is when it was heard of."""
        request = pb.ListDeliveriesRequest(
            tenant_id=by.tenant.id,
            subscription_id=subscription_id,
            state=number_of(STATES, state, "state"),
            type=type,
            event_id=event_id,
            message_id=message_id,
            channel=channel,
            communication_id=communication,
            never_attempted=never_attempted,
            undelivered=undelivered,
            reason=reason,
            with_history=history,
            from_us=microseconds(from_),
            to_us=microseconds(to),
            page_size=limit,
            page_token=cursor,
        )
        with in_words_of_http():
            answer = await paged(self._notifier.ListDeliveries(request))
        return await self._written(DELIVERIES, answer)

    async def get_delivery(self, by: By, delivery_id: _DeliveryId) -> Response:
        """One delivery, with its attempts."""
        with in_words_of_http(of="delivery_id"):
            answer = await self._notifier.GetDelivery(pb.GetDeliveryRequest(tenant_id=by.tenant.id, id=delivery_id))
        return await self._written(DELIVERY, answer)

    async def redeliver(self, by: By, delivery_id: _DeliveryId) -> Response:
        """Have one delivery sent again, whatever became of it, under the same ``webhook-id``."""
        with in_words_of_http(of="delivery_id", unanswered=SAY_AGAIN):
            answer = await self._notifier.Redeliver(
                pb.RedeliverRequest(tenant_id=by.tenant.id, delivery_id=delivery_id)
            )
        return await self._written(REDELIVERED, answer, 202)
