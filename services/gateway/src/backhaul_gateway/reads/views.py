"""What tenants are answered about messages, events, replies and dead letters.

The models are the documentation, and what is written: each twin fills one from the normalizer's answer.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from backhaul_common.vocabulary import Words, pascal
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from pydantic import BaseModel

from backhaul_gateway.twins.pairs import NameValue
from backhaul_gateway.twins.rawdata import Format
from backhaul_gateway.twins.turns import Steps
from backhaul_gateway.twins.twin import Of, Twin

KINDS = Words(event_pb2.EventKind.DESCRIPTOR)
FULFILMENT = Words(pb.FulfilmentState.DESCRIPTOR, pascal)
DEAD_LETTER = Words(pb.DeadLetterState.DESCRIPTOR)

_ENUMS = {pb.FulfilmentState.DESCRIPTOR.full_name: FULFILMENT}


ErrorClass = Literal["hard", "suppress", "transient", "carrier", "content", "account", "channel"]
"""What an error says: see ``/v1/errors``."""


class ConsentOut(BaseModel):
    """What a person said about being contacted. ``by`` says who decided so: ``provider``; ``keyword`` where Backhaul
    read it in their text; ``tenant`` where the reply was unclear and the tenant accepted it. ``scope`` is the
    provider's id of what ``scope_kind`` names; null: it named nothing. ``only_if_opted_out``: the word (YES) opts in
    nobody else."""

    action: Literal["opt_out", "opt_in", "help"]
    by: Literal["keyword", "provider", "tenant"]
    word: str
    scope_kind: Literal["messaging_service", "group"] | None
    scope: str | None
    only_if_opted_out: bool


class ClassificationOut(BaseModel):
    """What a person's text was understood to mean; what follows from it, ``consent`` says. ``confidence`` is ``exact``
    where the whole message is a keyword, ``likely`` where a short one has it among its words, and ``provider`` where
    the provider says so; null where the text holds none. ``templates`` are the channel's that it answers."""

    confidence: Literal["likely", "exact", "provider"] | None
    action: Literal["opt_out", "opt_in", "help"] | None
    word: str
    templates: list[str]
    survey_response: bool


class AnsweredOut(BaseModel):
    """The message that a reply answers, and how that is known: by the provider's ``reference``, or as the latest one
    between the same two ``addresses``."""

    channel: str
    message_id: str
    by: Literal["reference", "addresses"] | None


class ReplyOut(BaseModel):
    """What an inbound message answers: a message, by the provider's id, and what was chosen of it."""

    message_id: str
    payload: str
    option: str


class EventOut(BaseModel):
    """One normalised fact. ``data`` is the provider's own event: its JSON as it came, a form's fields,
    or base64. ``occurred_at_basis`` says whose word ``occurred_at`` is: the provider's, or the arrival's when it gave
    none. ``review`` is of a reply that is likely an opt-out: to be looked at, or what was decided. Of two with one id
    the higher ``revision`` counts. ``batch_id`` and ``member_key`` are the sender's, as the event names them."""

    id: str
    channel: str
    provider: str
    kind: str
    provider_status: str
    message_id: str
    recipient: str
    sender: str
    communication_id: str
    batch_id: str
    member_key: str
    error_code: str
    error_text: str
    error_class: ErrorClass | None
    error_url: str | None
    text: str
    occurred_at: str | None
    occurred_at_basis: Literal["arrival", "provider"] | None
    sequence: int | None
    received_at: str | None
    source: str
    verification: str
    invalid_recipient: bool
    by_machine: bool
    recipient_family: Literal["phone", "email", "voice"] | None
    consent: ConsentOut | None
    classification: ClassificationOut | None
    review: Literal["flagged", "dismissed", "accepted"] | None
    reply: ReplyOut | None
    answered: AnsweredOut | None
    missing_parameters: list[str]
    default_parameters: list[str]
    revision: int
    references: list[str]
    vars: list[NameValue]
    attributes: list[NameValue]
    data_format: Annotated[Format, Of("raw")]
    data: Annotated[Any, Of("raw")]
    callback_id: str
    traceparent: str


class EngagementOut(BaseModel):
    """Openings and clicks, by people and by machines. ``unique_…`` counts messages: of one message, 0 or 1."""

    opened: int
    opened_by_machine: int
    unique_opened: int
    clicked: int
    clicked_by_machine: int
    unique_clicked: int


class MessageSummary(BaseModel):
    """What was sent to one recipient. ``fulfilment_state`` is null for an inbound message. ``references`` are texts by
    which it is found as well, and which other messages may share. ``batch_id`` and ``member_key`` say of which
    registered destination it is the message that counts; empty where it is of none."""

    channel: str
    message_id: str
    provider: str
    state: str
    fulfilment_state: str | None
    recipient: str
    sender: str
    communication_id: str
    batch_id: str
    member_key: str
    error_code: str
    error_text: str
    error_class: ErrorClass | None
    error_url: str | None
    event_count: int
    engagement: EngagementOut
    references: list[str]
    created_at: str | None
    last_event_at: str | None


class MessageOut(MessageSummary):
    """With its timeline, in the order of happening; ``vars`` are those of all its events there. ``expired_events`` are
    counted in the message, and kept no longer. ``deliveries`` is the path at which it is listed what your own
    applications were told of it, with every attempt."""

    vars: list[NameValue]
    timeline: list[EventOut]
    timeline_truncated: Annotated[bool, Of("truncated")]
    expired_events: int
    deliveries: str


class MessagePage(BaseModel):
    """Newest first. ``next_cursor`` is null on the last page."""

    messages: list[MessageSummary]
    next_cursor: Annotated[str | None, Of("next_page_token")]


class EventPage(BaseModel):
    """Newest arrival first. ``next_cursor`` is null on the last page. Of what arrived before ``retained_since`` some
    may be kept no longer; null where nothing expires."""

    events: list[EventOut]
    next_cursor: Annotated[str | None, Of("next_page_token")]
    retained_since: str | None


class ReplyCountsOut(BaseModel):
    """Replies that answer a sending's messages. Each counts in ``all``, and for the class of its keyword, each of its
    templates and as a survey response where it is one; what is only likely, once it is accepted."""

    all: int
    stop: int
    start: int
    help: int
    survey_response: int
    templates: dict[str, int]


class ReplyPage(BaseModel):
    """Newest arrival first. ``next_cursor`` is null on the last page."""

    replies: list[EventOut]
    next_cursor: Annotated[str | None, Of("next_page_token")]


class ErrorCountOut(BaseModel):
    """How often a channel reported an error code in the span that was asked for, and what it means. ``error_class``:
    ``hard`` (the address will never work), ``suppress`` (the person wants no messages), ``transient`` (another try may
    work), ``carrier``, ``content``, ``account`` (the network, what was sent, or the sender's own set-up is the reason),
    ``channel`` (not on this channel, which says nothing about the person). Null, and an empty text: the code is not
    known. ``provider`` is the one that the channel has now, empty where the channel is gone."""

    channel: str
    provider: str
    error_code: str
    count: int
    last_received_at: str | None
    text: str
    error_class: ErrorClass | None
    url: str | None


class ErrorCountsOut(BaseModel):
    """The most frequent first, 1,000 at most. Of what arrived before ``retained_since`` some may be kept no longer, and
    is not counted; null where nothing expires."""

    errors: list[ErrorCountOut]
    retained_since: str | None


class DeadLetterSummary(BaseModel):
    """What could not be read, and why."""

    id: str
    channel: str
    provider: str
    state: str
    reason: str
    occurrences: int
    first_seen_at: str | None
    last_seen_at: str | None


class CallbackOut(BaseModel):
    """A provider's request as it arrived; ``body_base64`` is exact, ``body_text`` what can be read of it."""

    id: str
    method: str
    url: str
    headers: list[NameValue]
    body_base64: str
    body_text: str
    received_at: str | None
    source: str
    verification: str
    traceparent: str


class DeadLetterOut(DeadLetterSummary):
    """With the callback, its body cut down to the part that was refused."""

    callback: CallbackOut | None


class DeadLetterPage(BaseModel):
    """Newest first. ``next_cursor`` is null on the last page."""

    dead_letters: list[DeadLetterSummary]
    next_cursor: Annotated[str | None, Of("next_page_token")]


class PreviewPartOut(BaseModel):
    """What one part of a callback would become: an event, as ``/v1/events`` would show it; nothing, as it is understood
    and kept nowhere, for this reason; or a dead letter, for this reason. One of the three is there."""

    event: EventOut | None
    ignored: str | None
    dead_letter: str | None


class PreviewPartsOut(BaseModel):
    """In the order of the body; 1,000 at most, and 4 MiB of events."""

    parts: list[PreviewPartOut]
    truncated: bool


def _all_vars(answer: pb.GetMessageResponse) -> Steps[list[dict[str, str]]]:
    """The custom parameters of all events, each once."""
    union: dict[tuple[str, str], None] = {}
    for event in answer.timeline:
        for pair in event.vars:
            union[pair.name, pair.value] = None
        yield
    return [{"name": name, "value": value} for name, value in union]


def _path_of_deliveries(answer: pb.GetMessageResponse) -> Steps[str]:
    """By the message's own id, where it was asked for by a reference."""
    yield
    query = {"channel": answer.message.channel, "message_id": answer.message.message_id, "history": "true"}
    return f"/v1/deliveries?{urlencode(query)}"


MESSAGE: Twin[pb.GetMessageResponse] = Twin(
    MessageOut,
    pb.GetMessageResponse.DESCRIPTOR,
    _ENUMS,
    inside="message",
    computed={"vars": _all_vars, "deliveries": _path_of_deliveries},
)
MESSAGES: Twin[pb.ListMessagesResponse] = Twin(MessagePage, pb.ListMessagesResponse.DESCRIPTOR, _ENUMS)
EVENTS: Twin[pb.ListEventsResponse] = Twin(EventPage, pb.ListEventsResponse.DESCRIPTOR, _ENUMS)
ERRORS: Twin[pb.CountErrorsResponse] = Twin(ErrorCountsOut, pb.CountErrorsResponse.DESCRIPTOR, _ENUMS)
PREVIEW: Twin[pb.PreviewCallbackResponse] = Twin(PreviewPartsOut, pb.PreviewCallbackResponse.DESCRIPTOR, _ENUMS)
REPLIES: Twin[pb.ListRepliesResponse] = Twin(ReplyPage, pb.ListRepliesResponse.DESCRIPTOR, _ENUMS)
ONE_EVENT: Twin[event_pb2.Event] = Twin(EventOut, event_pb2.Event.DESCRIPTOR, _ENUMS)
DEAD_LETTERS: Twin[pb.ListDeadLettersResponse] = Twin(DeadLetterPage, pb.ListDeadLettersResponse.DESCRIPTOR, _ENUMS)
ONE_DEAD_LETTER: Twin[pb.DeadLetter] = Twin(DeadLetterOut, pb.DeadLetter.DESCRIPTOR, _ENUMS)
