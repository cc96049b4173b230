"""The endpoints by which people are told by mail what befell a subscription, as whoever works endpoints sees them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from backhaul_proto.notifier.v1 import notifier_pb2 as pb

from backhaul_notifier.documents import ALERT, is_alert, subscription_of
from backhaul_notifier.model import Subscription
from backhaul_notifier.schedules import STANDARD


class WithAlerts:
    """Finds subscriptions, and, by the ids of endpoints for alerts, what stands for one: mail to its alert addresses.

    It is active whatever the subscription is, and has a policy of its own that disables nothing: what people are told
    is that the subscription's own way has failed.
    """

    def __init__(self, get: Callable[[str], Subscription | None]) -> None:
        """``get`` finds one that is not deleted."""
        self._get = get
        self._made: dict[str, Subscription] = {}

    def get(self, endpoint: str) -> Subscription | None:
        """What the deliveries of an endpoint are told by, the same object while it has not changed; None where there
        is none."""
        if not is_alert(endpoint):
            return self._get(endpoint)
        subscription = self._get(subscription_of(endpoint))
        if subscription is None:
            return None
        made = self._made.get(endpoint)
        if made is None:
            made = self._made[endpoint] = _alerting(subscription)
        return made

    def changed(self, id_: str, _: Subscription | None) -> None:
        """A subscription has changed, or is gone: what was made of it is, too."""
        self._made.pop(ALERT + id_, None)


def _alerting(subscription: Subscription) -> Subscription:
    definition = subscription.definition
    return replace(
        subscription,
        id=ALERT + subscription.id,
        definition=pb.Definition(
            name=definition.name,
            mail=pb.MailDestination(addresses=definition.alert_addresses),
            ordering=pb.ORDERING_NONE,
        ),
        state="active",
        state_text="",
        policy=STANDARD,
    )
