"""What an event says of its recipient, of consent and of replies: between the adapters' words and the protobuf."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from backhaul_channels import AddressFamily, Consent, ConsentAction, ConsentBy, ConsentScope, NormalizedEvent, Reply
from backhaul_proto.event.v1 import event_pb2

_Word = TypeVar("_Word", bound=StrEnum)


def _numbers(words: type[_Word], values: dict[str, int], prefix: str) -> dict[_Word, int]:
    """The protobuf's number of each word; the empty one's is that of UNSPECIFIED."""
    return {word: values[f"{prefix}_{word.name if word.value else 'UNSPECIFIED'}"] for word in words}


_FAMILIES = _numbers(AddressFamily, dict(event_pb2.AddressFamily.items()), "ADDRESS_FAMILY")
_ACTIONS = _numbers(ConsentAction, dict(event_pb2.ConsentAction.items()), "CONSENT_ACTION")
_BY = _numbers(ConsentBy, dict(event_pb2.ConsentBy.items()), "CONSENT_BY")
_SCOPES = _numbers(ConsentScope, dict(event_pb2.ConsentScope.items()), "CONSENT_SCOPE")

_FAMILY_OF = {number: word for word, number in _FAMILIES.items()}
_ACTION_OF = {number: word for word, number in _ACTIONS.items()}
_BY_OF = {number: word for word, number in _BY.items()}
_SCOPE_OF = {number: word for word, number in _SCOPES.items()}


def write_said(message: event_pb2.Event, event: NormalizedEvent) -> None:
    """Set in ``message`` what ``event`` says; what it does not say is left as it is."""
    if event.recipient_family:
        message.recipient_family = _FAMILIES[event.recipient_family]  # type: ignore[assignment]  # an enum's value
    consent = event.consent
    if consent is not None:
        message.consent.action = _ACTIONS[consent.action]  # type: ignore[assignment]  # as above
        message.consent.by = _BY[consent.by]  # type: ignore[assignment]  # as above
        message.consent.word = consent.word
        message.consent.scope_kind = _SCOPES[consent.scope_kind]  # type: ignore[assignment]  # as above
        message.consent.scope = consent.scope
    reply = event.reply
    if reply is not None:
        message.reply.message_id = reply.message_id
        message.reply.payload = reply.payload
        message.reply.option = reply.option


def family_of(message: event_pb2.Event) -> AddressFamily:
    """The family of the recipient's address."""
    return _FAMILY_OF.get(message.recipient_family, AddressFamily.UNKNOWN)


def consent_of(message: event_pb2.Event) -> Consent | None:
    """What the event says about consent; None also for an action that only a newer version knows."""
    told = message.consent
    action, by = _ACTION_OF.get(told.action), _BY_OF.get(told.by)
    if action is None or by is None:
        return None
    return Consent(by, action, told.word, _SCOPE_OF.get(told.scope_kind, ConsentScope.UNKNOWN), told.scope)


def reply_of(message: event_pb2.Event) -> Reply | None:
    """What the event answers."""
    told = message.reply
    return Reply(told.message_id, told.payload, told.option) if message.HasField("reply") else None
