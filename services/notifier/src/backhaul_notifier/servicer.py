"""gRPC to the parts of the service: subscriptions, deliveries, and the types of what can be told."""

from __future__ import annotations

from typing import Any

from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from backhaul_proto.notifier.v1.notifier_pb2_grpc import NotifierServiceServicer

from backhaul_notifier.servicer_deliveries import DeliveryCalls
from backhaul_notifier.servicer_subscriptions import SubscriptionCalls
from backhaul_notifier.servicer_types import TypeCalls


class NotifierServicer(NotifierServiceServicer):
    """``backhaul_proto.notifier.v1.NotifierService``. Errors are BackhaulErrors; the server's edge translates."""

    def __init__(self, subscriptions: SubscriptionCalls, deliveries: DeliveryCalls, types: TypeCalls) -> None:
        self._subscriptions = subscriptions
        self._deliveries = deliveries
        self._types = types

    async def CreateSubscription(
        self, request: pb.CreateSubscriptionRequest, context: Any
    ) -> pb.CreateSubscriptionResponse:
        """A new subscription, with its secret."""
        return await self._subscriptions.create(request)

    async def GetSubscription(self, request: pb.GetSubscriptionRequest, context: Any) -> pb.GetSubscriptionResponse:
        """One subscription."""
        return await self._subscriptions.get(request)

    async def ListSubscriptions(
        self, request: pb.ListSubscriptionsRequest, context: Any
    ) -> pb.ListSubscriptionsResponse:
        """Subscriptions, oldest first."""
        return await self._subscriptions.list(request)

    async def UpdateSubscription(
        self, request: pb.UpdateSubscriptionRequest, context: Any
    ) -> pb.UpdateSubscriptionResponse:
        """Another definition."""
        return await self._subscriptions.update(request)

    async def DeleteSubscription(
        self, request: pb.DeleteSubscriptionRequest, context: Any
    ) -> pb.DeleteSubscriptionResponse:
        """Its end."""
        return await self._subscriptions.delete(request)

    async def PauseSubscription(
        self, request: pb.PauseSubscriptionRequest, context: Any
    ) -> pb.PauseSubscriptionResponse:
        """Nothing more is sent."""
        return await self._subscriptions.pause(request)

    async def ResumeSubscription(
        self, request: pb.ResumeSubscriptionRequest, context: Any
    ) -> pb.ResumeSubscriptionResponse:
        """What waits is sent."""
        return await self._subscriptions.resume(request)

    async def RotateSecret(self, request: pb.RotateSecretRequest, context: Any) -> pb.RotateSecretResponse:
        """Another secret."""
        return await self._subscriptions.rotate(request)

    async def TestSubscription(self, request: pb.TestSubscriptionRequest, context: Any) -> pb.TestSubscriptionResponse:
        """Sends a sample, once."""
        return await self._subscriptions.test(request)

    async def ListDeliveries(self, request: pb.ListDeliveriesRequest, context: Any) -> pb.ListDeliveriesResponse:
        """Deliveries, newest first."""
        return await self._deliveries.list(request)

    async def GetDelivery(self, request: pb.GetDeliveryRequest, context: Any) -> pb.GetDeliveryResponse:
        """One delivery with its attempts."""
        return await self._deliveries.get(request)

    async def Redeliver(self, request: pb.RedeliverRequest, context: Any) -> pb.RedeliverResponse:
        """Have deliveries sent again."""
        return await self._deliveries.redeliver(request)

    async def GetState(self, request: pb.GetStateRequest, context: Any) -> pb.GetStateResponse:
        """How it goes with all that a tenant is told."""
        return await self._subscriptions.state(request)

    async def ListEventTypes(self, request: pb.ListEventTypesRequest, context: Any) -> pb.ListEventTypesResponse:
        """Every type, with its schema and an example."""
        return await self._types.list(request)
