"""What an event says of its recipient, of consent and of replies: between the adapters' words and the protobuf."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from backhaul_channels import (
    AddressFamily,
    Classification,
    Confidence,
    Consent,
    ConsentAction,
    ConsentBy,
    ConsentScope,
    ErrorClass,
    NormalizedEvent,
    Reply,
    Review,
)
from backhaul_proto.event.v1 import event_pb2

_Word = TypeVar("_Word", bound=StrEnum)


def _numbers(words: type[_Word], values: dict[str, int], prefix: str) -> dict[_Word, int]:
    """The protobuf's number of each word; the empty one's is that of UNSPECIFIED."""
    return {word: values[f"{prefix}_{word.name if word.value else 'UNSPECIFIED'}"] for word in words}


_FAMILIES = _numbers(AddressFamily, dict(event_pb2.AddressFamily.items()), "ADDRESS_FAMILY")
_ACTIONS = _numbers(ConsentAction, dict(event_pb2.ConsentAction.items()), "CONSENT_ACTION")
_BY = _numbers(ConsentBy, dict(event_pb2.ConsentBy.items()), "CONSENT_BY")
_SCOPES = _numbers(ConsentScope, dict(event_pb2.ConsentScope.items()), "CONSENT_SCOPE")
_CONFIDENCES = _numbers(Confidence, dict(event_pb2.Confidence.items()), "CONFIDENCE")
_REVIEWS = _numbers(Review, dict(event_pb2.Review.items()), "REVIEW")
_ERROR_CLASSES = _numbers(ErrorClass, dict(event_pb2.ErrorClass.items()), "ERROR_CLASS")

_FAMILY_OF = {number: word for word, number in _FAMILIES.items()}
_ACTION_OF = {number: word for word, number in _ACTIONS.items()}
_BY_OF = {number: word for word, number in _BY.items()}
_SCOPE_OF = {number: word for word, number in _SCOPES.items()}
_CONFIDENCE_OF = {number: word for word, number in _CONFIDENCES.items()}
_REVIEW_OF = {number: word for word, number in _REVIEWS.items()}
_ERROR_CLASS_OF = {number: word for word, number in _ERROR_CLASSES.items()}


def write_said(message: event_pb2.Event, event: NormalizedEvent) -> None:
    """Set in ``message`` what ``event`` says; what it does not say is left as it is."""
    if event.recipient_family:
        message.recipient_family = _FAMILIES[event.recipient_family]  # type: ignore[assignment]  # an enum's value
    if event.sequence is not None:
        message.sequence = event.sequence
    message.missing_parameters[:] = event.missing_parameters
    message.default_parameters[:] = event.default_parameters
    consent = event.consent
    if consent is not None:
        message.consent.action = _ACTIONS[consent.action]  # type: ignore[assignment]  # as above
        message.consent.by = _BY[consent.by]  # type: ignore[assignment]  # as above
        message.consent.word = consent.word
        message.consent.scope_kind = _SCOPES[consent.scope_kind]  # type: ignore[assignment]  # as above
        message.consent.scope = consent.scope
        message.consent.only_if_opted_out = consent.only_if_opted_out
    if event.classification is not None:
        _write_classification(message.classification, event.classification)
    if event.review:
        message.review = _REVIEWS[event.review]  # type: ignore[assignment]  # as above
    reply = event.reply
    if reply is not None:
        message.reply.message_id = reply.message_id
        message.reply.payload = reply.payload
        message.reply.option = reply.option


def write_error(message: event_pb2.Event, event: NormalizedEvent) -> None:
    """Set in ``message`` what went wrong; what did not is cleared."""
    message.error_code = event.error_code
    message.error_text = event.error_text
    message.error_class = _ERROR_CLASSES[event.error_class]  # type: ignore[assignment]  # an enum's value
    message.error_url = event.error_url
    message.invalid_recipient = event.invalid_recipient


def _write_classification(told: event_pb2.Classification, said: Classification) -> None:
    told.confidence = _CONFIDENCES[said.confidence]  # type: ignore[assignment]  # an enum's value
    told.action = _ACTIONS[said.action] if said.action is not None else 0  # type: ignore[assignment]  # as above
    told.word = said.word
    told.templates[:] = said.templates
    told.survey_response = said.survey_response
    told.scope_kind = _SCOPES[said.scope_kind]  # type: ignore[assignment]  # as above
    told.scope = said.scope


def classification_of(message: event_pb2.Event) -> Classification | None:
    """What the event's text was understood to mean."""
    if not message.HasField("classification"):
        return None
    told = message.classification
    return Classification(
        _CONFIDENCE_OF.get(told.confidence, Confidence.UNKNOWN),
        _ACTION_OF.get(told.action),
        told.word,
        tuple(told.templates),
        told.survey_response,
        _SCOPE_OF.get(told.scope_kind, ConsentScope.UNKNOWN),
        told.scope,
    )


def review_of(message: event_pb2.Event) -> Review:
    """Whether a person must look at the event, or what they decided."""
    return _REVIEW_OF.get(message.review, Review.NONE)


def error_class_of(message: event_pb2.Event) -> ErrorClass:
    """What the event's error says; UNKNOWN also for a class that only a newer version knows."""
    return _ERROR_CLASS_OF.get(message.error_class, ErrorClass.UNKNOWN)


def family_of(message: event_pb2.Event) -> AddressFamily:
    """The family of the recipient's address."""
    return _FAMILY_OF.get(message.recipient_family, AddressFamily.UNKNOWN)


def consent_of(message: event_pb2.Event) -> Consent | None:
    """What the event says about consent; None also for an action that only a newer version knows."""
    told = message.consent
    action, by = _ACTION_OF.get(told.action), _BY_OF.get(told.by)
    if action is None or by is None:
        return None
    scope_kind = _SCOPE_OF.get(told.scope_kind, ConsentScope.UNKNOWN)
    return Consent(by, action, told.word, scope_kind, told.scope, told.only_if_opted_out)


def reply_of(message: event_pb2.Event) -> Reply | None:
    """What the event answers."""
    told = message.reply
    return Reply(told.message_id, told.payload, told.option) if message.HasField("reply") else None
