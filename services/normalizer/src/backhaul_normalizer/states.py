"""How far a message has come: a total order over event kinds, so that arrival order cannot matter.

A message's state is the highest-ranked kind among its events. Taking a maximum is commutative, associative and
idempotent: duplicates and reorderings end in the same state, whatever the sequence. Ranks are unique, so that a rank
names its kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from backhaul_channels import EventKind

RANK: Mapping[EventKind, int] = MappingProxyType(
    {
        # Nothing is known but that the message exists: only an unsubscription or a word that the adapter does not know
        # was ever reported of it.
        EventKind.UNKNOWN: 0,
        # A message that the person sent. Any status outranks it: some providers file a reply under the id of the
        # message that it answers.
        EventKind.INBOUND: 5,
        EventKind.QUEUED: 10,
        EventKind.INITIATED: 12,
        EventKind.SENT: 20,
        EventKind.RINGING: 22,
        # A deferral is the provider's promise to try again: later than sent, earlier than any end.
        EventKind.DEFERRED: 30,
        # Ends that come before the message left the provider.
        EventKind.DUPLICATE_BLOCKED: 40,
        EventKind.BLOCKED_CREDIT: 41,
        EventKind.CANCELED: 42,
        EventKind.REJECTED: 43,
        EventKind.EXPIRED: 44,
        EventKind.FAILED: 45,
        # Ends that come from the carrier.
        EventKind.BUSY: 50,
        EventKind.NO_ANSWER: 51,
        EventKind.UNDELIVERED: 52,
        # A late delivery report contradicts "undelivered": carriers send both, and the handset has the last word.
        EventKind.DELIVERED: 60,
        # Mail servers accept and bounce afterwards: an asynchronous bounce takes "delivered" back.
        EventKind.BOUNCED: 65,
        # What a person does proves delivery, whatever a server said before.
        EventKind.ANSWERED: 68,
        EventKind.COMPLETED: 69,
        EventKind.READ: 70,
        EventKind.OPENED: 72,
        EventKind.CLICKED: 80,
        EventKind.COMPLAINED: 90,
    }
)
"""Kinds that move a message. Those that are absent (subscribed, unsubscribed) tell of the person, not the message."""

OUTBOUND = frozenset(EventKind) - {
    EventKind.UNKNOWN,
    EventKind.INBOUND,
    EventKind.SUBSCRIBED,
    EventKind.UNSUBSCRIBED,
}
"""Kinds that only happen to what was sent, so that a person may answer it."""

FULFILMENT: Mapping[EventKind, str] = MappingProxyType(
    {
        EventKind.UNKNOWN: "",
        EventKind.INBOUND: "",
        EventKind.QUEUED: "Queued",
        EventKind.INITIATED: "Queued",
        EventKind.SENT: "Sent",
        EventKind.RINGING: "Sent",
        EventKind.DEFERRED: "Sent",
        EventKind.DUPLICATE_BLOCKED: "Failed",
        EventKind.BLOCKED_CREDIT: "Failed",
        EventKind.CANCELED: "Failed",
        EventKind.REJECTED: "Failed",
        EventKind.EXPIRED: "Failed",
        EventKind.FAILED: "Failed",
        EventKind.BUSY: "Undelivered",
        EventKind.NO_ANSWER: "Undelivered",
        EventKind.UNDELIVERED: "Undelivered",
        EventKind.DELIVERED: "Delivered",
        EventKind.BOUNCED: "Undelivered",
        EventKind.ANSWERED: "Delivered",
        EventKind.COMPLETED: "Delivered",
        EventKind.READ: "Delivered",
        EventKind.OPENED: "Delivered",
        EventKind.CLICKED: "Delivered",
        EventKind.COMPLAINED: "Delivered",
    }
)
"""What a state counts as for the sender. Empty: it is not counted."""

FULFILMENT_STATES = ("Queued", "Sent", "Delivered", "Undelivered", "Failed", "InvalidNumber")

_UNSUCCESSFUL = frozenset({"Failed", "Undelivered"})


def place_of(kind: EventKind) -> int:
    """Of two events of one time the one with the lesser place comes first. Providers' times are often whole seconds."""
    return RANK.get(kind, -1)


def next_state(state: EventKind, kind: EventKind) -> EventKind:
    """The state of a message in ``state`` after an event of ``kind``. Defined for every pair; never moves back."""
    rank = RANK.get(kind)
    return kind if rank is not None and rank > RANK[state] else state


def fulfilment_of(state: EventKind, *, invalid_recipient: bool) -> str:
    """What a message in ``state`` counts as. An error that says the number can never receive makes it InvalidNumber."""
    fulfilment = FULFILMENT[state]
    return "InvalidNumber" if invalid_recipient and fulfilment in _UNSUCCESSFUL else fulfilment
