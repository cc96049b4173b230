"""Which methods other systems may call, and what they need for each."""

from __future__ import annotations

from collections.abc import Mapping

from backhaul_common.accounts import Verb
from backhaul_common.changelog import Logged, logged
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

_DEFINED = (
    "name types filter.channels filter.communication_ids filter.error_codes filter.kinds http.method http.url "
    "mail.every_minutes payload policy ordering rate_per_s concurrency"
)
_PRIVATE = "filter.attributes http.headers http.credentials mail.addresses alert_addresses"
_DEFINITION = " ".join(f"definition.{name}" for name in _DEFINED.split())
_HIDDEN = " ".join(f"definition.{name}" for name in _PRIVATE.split())
_REDELIVERED = (
    "delivery_id subscription_id which from_us to_us types rate_per_s dry_run "
    "channel message_id communication_id event_id"
)

LOGGED: Mapping[str, Logged | None] = {
    f"{SERVICE}.{method}": kept
    for method, kept in {
        "Redeliver": logged("delivery", _REDELIVERED),
        "CreateSubscription": logged("subscription", f"{_DEFINITION} validate_only", f"{_HIDDEN} secret"),
        "UpdateSubscription": logged("subscription", f"id {_DEFINITION} revision validate_only", _HIDDEN),
        "DeleteSubscription": logged("subscription", "id"),
        "PauseSubscription": logged("subscription", "id"),
        "ResumeSubscription": logged("subscription", "id rate_per_s"),
        "RotateSecret": logged("subscription", "id kind grace_s", "secret"),
        # A sample is sent once.
        "TestSubscription": None,
    }.items()
}
"""What the log of changes keeps of each by which something is changed; None where nothing is."""
