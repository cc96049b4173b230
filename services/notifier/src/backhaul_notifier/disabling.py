"""What the normalizer knows of communications, and what a policy does to one there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.logs import get_logger
from backhaul_proto.event.v1.event_pb2 import Event
from backhaul_proto.normalizer.v1 import communications_pb2
from backhaul_proto.notice.v1.notice_pb2 import Notice

from backhaul_notifier.catalogue.types import SWITCHES
from backhaul_notifier.holding.switches import Switch
from backhaul_notifier.model import Delivery, Subscription

if TYPE_CHECKING:
    # The asynchronous stubs exist in the type stubs only; over a channel of grpc.aio the one class answers awaitables.
    from backhaul_proto.normalizer.v1.communications_pb2_grpc import CommunicationServiceAsyncStub

MAX_REASON: Final = 400
"""Characters; the normalizer takes a little more."""

_NOTHING_TO_DISABLE = frozenset({Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION})


class GrpcCommunications:
    """``ports.Communications``."""

    def __init__(
        self,
        communications: CommunicationServiceAsyncStub,
        communication_of: Callable[[Subscription, Event | Notice], Awaitable[str]],
        noted: Callable[[Switch], Awaitable[None]],
    ) -> None:
        """``communication_of`` knows what something is of that does not say it itself; ``noted`` writes down whether a
        communication is disabled."""
        self._communications = communications
        self._communication_of = communication_of
        self._noted = noted
        self._log = get_logger(component="disabling")

    async def of(self, subscription: Subscription, delivery: Delivery) -> str:
        """See ``Communications``."""
        return await self._communication_of(subscription, delivery.said)

    async def disable(self, subscription: Subscription, delivery: Delivery, text: str) -> None:
        """See ``Communications``."""
        if delivery.type in SWITCHES:
            return  # That it was disabled is not said on its behalf.
        communication_id = await self._communication_of(subscription, delivery.said)
        if not communication_id:
            return
        request = communications_pb2.DisableCommunicationRequest(
            tenant_id=subscription.tenant,
            communication_id=communication_id,
            reason=text[:MAX_REASON],
            author=subscription.id,
            subscription_id=subscription.id,
        )
        try:
            answer = await self._communications.DisableCommunication(request)
        except BackhaulError as exc:
            if exc.code not in _NOTHING_TO_DISABLE:
                raise
            # The tenant, or all that was known of the communication, is gone by now.
            self._log.warning(
                "communication_not_disabled", tenant=subscription.tenant, subscription=subscription.id, error=str(exc)
            )
            return
        # The notice says the same, a moment later, in which more would be sent.
        for latest in answer.communication.switched[:1]:
            await self._noted(
                Switch(subscription.tenant, subscription.registration, communication_id, latest.disabled, latest.at_us)
            )
