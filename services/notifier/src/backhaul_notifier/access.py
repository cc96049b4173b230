"""Which methods other systems may call, and what they need for each."""

from __future__ import annotations

from collections.abc import Mapping

from backhaul_common.accounts import Verb
from backhaul_proto.notifier.v1 import notifier_pb2

SERVICE = notifier_pb2.DESCRIPTOR.services_by_name["NotifierService"].full_name

_METHODS: Mapping[Verb, tuple[str, ...]] = {
    "deliveries": (
        "GetSubscription",
        "ListSubscriptions",
        "ListDeliveries",
        "GetDelivery",
        "GetState",
        "ListEventTypes",
    ),
    # It sends once more what its tenant was told, to the same place.
    "redeliver": ("Redeliver",),
    # It decides where everything that happens to a tenant's messages is sent.
    "subscribe": (
        "CreateSubscription",
        "UpdateSubscription",
        "DeleteSubscription",
        "PauseSubscription",
        "ResumeSubscription",
        "RotateSecret",
        "TestSubscription",
    ),
}

VERBS: Mapping[str, Verb] = {f"{SERVICE}.{method}": verb for verb, methods in _METHODS.items() for method in methods}
"""By full name."""
