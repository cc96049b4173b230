"""What the API answers, as values.

Fields that a newer service adds are ignored. Kinds, states and other words are plain texts, so that a new word is no
error: compare them with those that you know, and pass over the rest. Times are in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class Secret(str):
    """A text that does not show itself in logs: ``str`` in every way but for its ``repr``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('…')"


class Pair(msgspec.Struct, frozen=True):
    """One custom parameter, attribute or header; names may repeat."""

    name: str
    value: str


class Consent(msgspec.Struct, frozen=True, kw_only=True):
    """What a person said about being contacted. ``by`` says who decided so: ``provider``; ``keyword`` where Backhaul
    read it in their text; ``tenant`` where the reply was unclear and the tenant accepted it. ``scope`` is the
    provider's id of what ``scope_kind`` names; None: it named nothing. ``only_if_opted_out``: the word opts in nobody
    else."""

    action: str
    by: str
    word: str
    scope_kind: str | None
    scope: str | None
    only_if_opted_out: bool


class Classification(msgspec.Struct, frozen=True, kw_only=True):
    """What a person's text was understood to mean: ``confidence`` is ``exact``, ``likely`` or ``provider``, and None
    where the text holds no keyword. ``templates`` are the channel's that it answers."""

    confidence: str | None
    action: str | None
    word: str
    templates: tuple[str, ...]
    survey_response: bool


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """The message that a reply answers. ``by`` is ``reference`` or ``addresses``: how that is known."""

    channel: str
    message_id: str
    by: str | None


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What an inbound message answers: a message, by the provider's id, and what was chosen of it."""

    message_id: str
    payload: str
    option: str


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One fact that a provider told. Of two with one ``id`` the higher ``revision`` counts. ``data`` is the provider's
    own event: its JSON, a form's fields, or base64, as ``data_format`` says. ``review`` of a reply that is likely an
    opt-out is ``flagged``, ``dismissed`` or ``accepted``."""

    id: str
    channel: str
    provider: str
    kind: str
    provider_status: str
    message_id: str
    recipient: str
    sender: str
    communication_id: str
    batch_id: str = ""
    member_key: str = ""
    error_code: str
    error_text: str
    error_class: str | None
    error_url: str | None
    text: str
    occurred_at: datetime | None
    occurred_at_basis: str | None
    sequence: int | None
    received_at: datetime | None
    source: str
    verification: str
    invalid_recipient: bool
    by_machine: bool
    revision: int
    references: tuple[str, ...]
    vars: tuple[Pair, ...]
    attributes: tuple[Pair, ...]
    recipient_family: str | None
    consent: Consent | None
    classification: Classification | None
    review: str | None
    reply: Reply | None
    answered: Answered | None
    missing_parameters: tuple[str, ...]
    default_parameters: tuple[str, ...]
    data_format: str
    data: Any
    callback_id: str
    traceparent: str


class Engagement(msgspec.Struct, frozen=True, kw_only=True):
    """Openings and clicks, by people and by machines. ``unique_…`` counts messages: of one message, 0 or 1."""

    opened: int
    opened_by_machine: int
    unique_opened: int
    clicked: int
    clicked_by_machine: int
    unique_clicked: int


class MessageSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What was sent to one recipient. ``fulfilment_state`` is None for what counts as nothing, such as a reply."""

    channel: str
    message_id: str
    provider: str
    state: str
    fulfilment_state: str | None
    recipient: str
    sender: str
    communication_id: str
    batch_id: str = ""
    member_key: str = ""
    error_code: str
    error_text: str
    error_class: str | None
    error_url: str | None
    event_count: int
    engagement: Engagement
    references: tuple[str, ...]
    created_at: datetime | None
    last_event_at: datetime | None


class Message(MessageSummary, frozen=True, kw_only=True):
    """With its timeline, in the order of happening; ``vars`` are those of all its events there. ``expired_events`` are
    counted in the message, and kept no longer. ``deliveries`` is the path at which it is listed what was told of it."""

    vars: tuple[Pair, ...]
    timeline: tuple[Event, ...]
    timeline_truncated: bool
    expired_events: int = 0
    deliveries: str = ""


class ReplyCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Replies that answer a sending's messages. Each counts in ``all``, and for the class of its keyword, each of its
    templates (by name) and as a survey response where it is one; what is only likely, once it is accepted."""

    all: int
    stop: int
    start: int
    help: int
    survey_response: int
    templates: Mapping[str, int]


class Communication(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one sending: messages by fulfilment state, events by kind."""

    id: str
    fulfilment: Mapping[str, int]
    events: Mapping[str, int]
    messages: int
    engagement: Engagement
    replies: ReplyCounts
    created_at: datetime | None
    last_event_at: datetime | None


class ErrorCount(msgspec.Struct, frozen=True, kw_only=True):
    """How often a channel reported an error code, and what it means. ``error_class`` is None, and ``text`` empty, where
    the code is not known; ``provider`` is empty where the channel is gone."""

    channel: str
    provider: str
    error_code: str
    count: int
    last_received_at: datetime | None
    text: str
    error_class: str | None
    url: str | None


class ErrorCounts(msgspec.Struct, frozen=True, kw_only=True):
    """The most frequent first. Of what arrived before ``retained_since`` some may be kept no longer, and is not
    counted; None where nothing expires."""

    errors: tuple[ErrorCount, ...]
    retained_since: datetime | None = None


class StatsRow(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted in the hour, or on the day of UTC, that begins at ``start``. What was not grouped by is None; so
    is the communication of what belongs to none. Rows by kind count events, rows by fulfilment state messages."""

    start: datetime
    channel: str | None
    kind: str | None
    fulfilment_state: str | None
    communication_id: str | None
    events: int
    events_by_machine: int
    messages: int
    unique_opened: int
    unique_clicked: int


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """By time, then by group; ``truncated``: there are more."""

    rows: tuple[StatsRow, ...]
    truncated: bool


class DeadLetterSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What could not be read, and why. ``state`` is ``open``, ``replayed`` or ``discarded``."""

    id: str
    channel: str
    provider: str
    state: str
    reason: str
    occurrences: int
    first_seen_at: datetime | None
    last_seen_at: datetime | None


class Callback(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's request as it arrived. ``body_base64`` is exact, ``body_text`` what can be read of it."""

    id: str
    method: str
    url: str
    headers: tuple[Pair, ...]
    body_base64: str
    body_text: str
    received_at: datetime | None
    source: str
    verification: str
    traceparent: str


class DeadLetter(DeadLetterSummary, frozen=True, kw_only=True):
    """With its callback, whose body is cut down to the part that was refused."""

    callback: Callback | None


class PreviewVerification(msgspec.Struct, frozen=True, kw_only=True):
    """What a channel's verification says of a callback. ``result`` is ``verified``, ``credential``, ``refused``,
    ``off``, ``observed_invalid`` or ``handshake``; ``code`` and ``detail`` say what speaks against it."""

    mode: str
    result: str
    code: str | None
    detail: str | None


class PreviewAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider would be answered. ``body`` is None of a handshake, whose answer is not shown."""

    status: int
    content_type: str | None
    body: str | None


class PreviewPart(msgspec.Struct, frozen=True, kw_only=True):
    """What one part of a callback would become: an event; nothing, for the reason ``ignored``; or a dead letter, for
    the reason ``dead_letter``."""

    event: Event | None
    ignored: str | None
    dead_letter: str | None


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """What would become of a callback; ``parts`` are in the order of its body."""

    verification: PreviewVerification
    answer: PreviewAnswer
    parts: tuple[PreviewPart, ...]
    truncated: bool


def decoded(body: bytes | msgspec.Raw, kind: type[T]) -> T:
    """The ``kind`` that a JSON body holds; msgspec.MsgspecError where it does not."""
    return msgspec.json.decode(body, type=kind, dec_hook=_secret)


def _secret(kind: type, value: object) -> Any:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise TypeError(f"a {kind.__name__} was expected, which {type(value).__name__} is not")
