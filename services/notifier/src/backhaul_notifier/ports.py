"""What the parts of the notifier need of each other, and of what lies outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from backhaul_common.tenants import Tenant

from backhaul_notifier.model import Attempted, Delivery, Subscription


class Tenants(Protocol):
    """Who is served."""

    async def require(self, tenant_id: str) -> Tenant:
        """The tenant. NOT_FOUND; UNAVAILABLE."""
        ...


def always() -> bool:
    """Of what is sent whoever else may be at work, such as a test."""
    return True


class Caller(Protocol):
    """Makes one call of one delivery, or of several that go together, and never raises for what the endpoint does."""

    async def call(
        self,
        subscription: Subscription,
        deliveries: Sequence[Delivery],
        webhook_id: str,
        may_send: Callable[[], bool] = always,
    ) -> Attempted:
        """Send ``deliveries``, by the subscription as it is now. ``may_send`` is asked right before each request to the
        endpoint, of which there may be several: whoever stood still in between must not make it any more."""
        ...


class Subscriptions(Protocol):
    """The subscriptions in memory, and what Backhaul itself decides about one."""

    def get(self, id_: str) -> Subscription | None:
        """The one with this endpoint's id; None where it is not there."""
        ...

    async def pause(self, subscription: Subscription, text: str) -> None:
        """Backhaul pauses it, as ``text`` says, and says so in a notice. UNAVAILABLE."""
        ...

    async def disable(self, subscription: Subscription, text: str) -> None:
        """Backhaul disables it, as ``text`` says, and says so in a notice. UNAVAILABLE."""
        ...


class Communications(Protocol):
    """What is known of communications, and what a policy does to one."""

    async def of(self, subscription: Subscription, delivery: Delivery) -> str:
        """The communication that the delivery is of, as far as that is known by now; empty where it is of none.
        UNAVAILABLE, and whatever else the normalizer answers."""
        ...

    async def disable(self, subscription: Subscription, delivery: Delivery, text: str) -> None:
        """Disable the communication that the delivery is of, where it is of one. UNAVAILABLE."""
        ...
