"""What is left of an event where the person is erased: enough for states, counts and timelines to stay right.

Pure. docs/decisions/0038 tells why nothing is deleted.
"""

from __future__ import annotations

from backhaul_proto.event.v1.event_pb2 import Event

_LEFT = frozenset({
    "id", "tenant_id", "registration", "channel", "provider", "kind", "provider_status", "message_id",
    "communication_id", "error_code", "error_class", "occurred_at_us", "occurred_at_basis", "received_at_us", "source",
    "verification", "invalid_recipient", "revision", "by_machine", "references", "recipient_family", "consent",
    "duplicate_of", "sequence", "classification", "missing_parameters", "default_parameters", "answered", "batch_id",
    "member_key",
})  # fmt: skip
"""Fields of an event that say what happened, and ids. Its reply keeps the id that it refers to."""


def without_person(payload: bytes) -> bytes:
    """A serialised event without what is personal; the same where nothing is."""
    event = Event.FromString(payload)
    person = event.recipient.rpartition(":")[2].strip().lstrip("+").casefold()
    for field, _ in event.ListFields():
        if field.name not in _LEFT and field.name != "reply":
            event.ClearField(field.name)  # type: ignore[arg-type]  # its own field
    if event.HasField("reply"):
        event.reply.ClearField("payload")
        event.reply.ClearField("option")
    if person and person in event.provider_status.casefold():
        event.ClearField("provider_status")
    return event.SerializeToString()


def is_erased(payload: bytes) -> bool:
    """Whether it is a serialised event of somebody who is erased: every other one says which callback brought it. It
    is not published any more: whoever has it has what they kept of it, and to others it tells nothing."""
    event = Event.FromString(payload)
    return not event.callback_id and not event.raw
