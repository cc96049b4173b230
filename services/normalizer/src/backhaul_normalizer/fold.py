"""Events into message states and communication counts: pure, and the same for every order of arrival.

Every field of a message but ``created_at_us``, which only says when it was first heard of, is a maximum, a minimum or a
sum over its distinct events, so folding commutes. The counts of
a communication are sums over its messages; each fold says by how much they change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from backhaul_channels import EventKind
from backhaul_common.mongo import Document

from backhaul_normalizer.facts import KIND_NAMES, Fact, communication_key
from backhaul_normalizer.states import fulfilment_of, next_state

_KINDS = {kind.value: kind for kind in EventKind}


class CommunicationDelta:
    """By how much the counts of one communication change."""

    __slots__ = ("communication_id", "events", "first_us", "fulfilment", "last_us", "messages", "registration")

    def __init__(self, registration: str, communication_id: str) -> None:
        self.registration = registration
        self.communication_id = communication_id
        self.messages = 0
        self.fulfilment: dict[str, int] = {}
        self.events: dict[str, int] = {}
        self.first_us = 0
        self.last_us = 0

    def add_message(self, message: Document, sign: int) -> None:
        """Count ``message`` with all its events in (+1) or out (-1)."""
        self.messages += sign
        fulfilment = message["fulfilment"]
        if fulfilment:
            self.fulfilment[fulfilment] = self.fulfilment.get(fulfilment, 0) + sign
        for kind, count in message["kinds"].items():
            self.events[kind] = self.events.get(kind, 0) + sign * count
        self.seen(message["created_at_us"], message["last_event_at_us"])

    def seen(self, first_us: int, last_us: int) -> None:
        """Widen the span of time in which something happened."""
        self.first_us = min(self.first_us or first_us, first_us)
        self.last_us = max(self.last_us, last_us)

    def to_update(self) -> Document:
        """The update command's entry that applies it; creates the document where it is missing."""
        increments = {"messages": self.messages}
        increments.update({f"fulfilment.{name}": n for name, n in self.fulfilment.items() if n})
        increments.update({f"events.{name}": n for name, n in self.events.items() if n})
        return {
            "q": {"_id": communication_key(self.registration, self.communication_id)},
            "u": {
                "$inc": increments,
                "$min": {"created_at_us": self.first_us},
                "$max": {"last_event_at_us": self.last_us},
                "$setOnInsert": {"registration": self.registration, "communication_id": self.communication_id},
            },
            "upsert": True,
        }


class Fold:
    """What a batch of new events changes. ``messages`` are whole documents as they must be stored."""

    def __init__(self, known: Mapping[str, Document]) -> None:
        """``known``: the stored documents, by id, of the messages that the events belong to."""
        self._known = known
        self.messages: dict[str, Document] = {}
        self.communications: dict[tuple[str, str], CommunicationDelta] = {}

    def add(self, facts: Iterable[Fact], duplicates: Iterable[Fact] = ()) -> Fold:
        """Fold ``facts``, each of which is counted for the first time, and work out the communications' changes.

        ``duplicates`` are events that have been counted before, or are in ``facts``. They may tell of their message
        what the first of them did not (the same status comes by two ways, and only one names the communication).
        """
        for fact in facts:
            if fact.message:
                message = self.messages.get(fact.message)
                if message is None:
                    known = self._known.get(fact.message)
                    message = _copy(known) if known is not None else _new_message(fact)
                    self.messages[fact.message] = message
                _learn(message, fact)
                _count(message, fact)
            elif fact.communication_id:
                delta = self._communication(fact.origin.registration, fact.communication_id)
                kind = KIND_NAMES[fact.event.kind]
                delta.events[kind] = delta.events.get(kind, 0) + 1
                delta.seen(fact.origin.received_at_us, fact.occurred_at_us)
        for fact in duplicates:
            self._add_duplicate(fact)
        for key, message in self.messages.items():
            message["fulfilment"] = fulfilment_of(
                _KINDS[message["state"]], invalid_recipient=message["invalid_recipient"]
            )
            before = self._known.get(key)
            # The whole message moves: its old self out of where it counted, its new self in where it counts now.
            if before is not None and before["communication_id"]:
                self._communication(before["registration"], before["communication_id"]).add_message(before, -1)
            if message["communication_id"]:
                self._communication(message["registration"], message["communication_id"]).add_message(message, +1)
        return self

    def _add_duplicate(self, fact: Fact) -> None:
        message = self.messages.get(fact.message)
        if message is not None:
            _learn(message, fact)
            return
        known = self._known.get(fact.message)
        if known is not None:
            message = _copy(known)
            _learn(message, fact)
            # Nearly all duplicates tell nothing new, and then there is nothing to write.
            if message != known:
                self.messages[fact.message] = message

    def _communication(self, registration: str, communication_id: str) -> CommunicationDelta:
        delta = self.communications.get((registration, communication_id))
        if delta is None:
            delta = CommunicationDelta(registration, communication_id)
            self.communications[registration, communication_id] = delta
        return delta


def _copy(message: Document) -> Document:
    copied = dict(message)
    copied["kinds"] = dict(message["kinds"])
    return copied


def _new_message(fact: Fact) -> Document:
    return {
        "_id": fact.message,
        "registration": fact.origin.registration,
        "channel": fact.origin.channel,
        "message_id": fact.event.message_id,
        "provider": fact.origin.provider,
        "state": EventKind.UNKNOWN.value,
        "fulfilment": "",
        "recipient": "",
        "sender": "",
        "communication_id": "",
        "error_code": "",
        "error_text": "",
        "invalid_recipient": False,
        "kinds": {},
        "event_count": 0,
        "created_at_us": fact.origin.received_at_us,
        "last_event_at_us": 0,
    }


def _learn(message: Document, fact: Fact) -> None:
    """All that an event tells of its message. However often it is learned, the message is the same."""
    event = fact.event
    kind, name = event.kind, KIND_NAMES[event.kind]
    if name == message["state"]:
        # Two events of the deciding kind that differ in their error: the greater one stands, whichever came first.
        message["invalid_recipient"], message["error_code"], message["error_text"] = max(
            (message["invalid_recipient"], message["error_code"], message["error_text"]),
            (event.invalid_recipient, event.error_code, event.error_text),
        )
    elif next_state(_KINDS[message["state"]], kind) is kind:
        message["state"] = name
        message["error_code"] = event.error_code
        message["error_text"] = event.error_text
        message["invalid_recipient"] = event.invalid_recipient
    # A provider reports one recipient, sender and communication a message. Where two events disagree, the least wins:
    # any rule will do that does not depend on which came first.
    for field, value in (
        ("recipient", event.recipient),
        ("sender", event.sender),
        ("communication_id", fact.communication_id),
    ):
        if value and value != message[field] and (not message[field] or value < message[field]):
            message[field] = value
    message["last_event_at_us"] = max(message["last_event_at_us"], fact.occurred_at_us)


def _count(message: Document, fact: Fact) -> None:
    kinds, name = message["kinds"], KIND_NAMES[fact.event.kind]
    kinds[name] = kinds.get(name, 0) + 1
    message["event_count"] += 1
