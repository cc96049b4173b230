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
    counted in the message, and kept no longer."""

    vars: tuple[Pair, ...]
    timeline: tuple[Event, ...]
    timeline_truncated: bool
    expired_events: int = 0


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


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """The service is accessible."""

    status: str
    version: str


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One part that a channel depends on. ``state`` is ``OK`` or ``Error``; ``detail`` says what is wrong."""

    state: str
    detail: str | None = None


class ObjectStoragePart(Part, frozen=True, kw_only=True):
    """Object storage; in Error where it is not configured."""

    configured: bool


class CallbacksPart(Part, frozen=True, kw_only=True):
    """When the channel's last callback was stored; None where the log holds none."""

    last_seen_at: datetime | None


class ProcessingPart(Part, frozen=True, kw_only=True):
    """Whether callbacks are processed as they come (``on``) or ``held``, and since when. ``held_messages`` are stored
    messages, each of one callback or several, that wait; None while nobody knows."""

    mode: str
    held_since: datetime | None
    held_messages: int | None


class AuditPart(Part, frozen=True, kw_only=True):
    """The channel's audit files, where its settings ask for them (``asked``). ``waiting_since`` is when the first event
    arrived that lies in no file yet; what was published before ``read_to`` lies in files, or will at once;
    ``weaknesses`` say what the bucket was seen not to hold to; ``locked_files`` are over their time and held by locks,
    the last one until ``locked_until``."""

    asked: bool
    waiting_since: datetime | None
    read_to: datetime | None
    weaknesses: tuple[str, ...]
    locked_files: int
    locked_until: datetime | None


class VerificationPart(Part, frozen=True, kw_only=True):
    """``refused`` counts requests whose signature was bad, at this process of the gateway since it started."""

    mode: str
    secret_count: int
    refused: int


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """Every part of a channel's state."""

    queue: Part
    store: Part
    object_storage: ObjectStoragePart
    callbacks: CallbacksPart
    processing: ProcessingPart
    audit: AuditPart
    verification: VerificationPart


class ChannelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """``Error`` when any part is."""

    state: str
    channel: str
    provider: str
    parts: Parts


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant may ask of the gateway."""

    requests_per_second: float
    burst: int
    max_body_bytes: int
    reads_per_second: float
    read_burst: int
    concurrent_reads: int


class SuppressionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How far a tenant's people mean it when they opt out. ``revocation_scope`` is ``all`` or ``topic``, from
    ``topic_since`` on; ``whatsapp`` is ``apart`` or ``phone``."""

    revocation_scope: str
    topic_since: datetime | None
    whatsapp: str


class AuditRetention(msgspec.Struct, frozen=True, kw_only=True):
    """For how many days a tenant's audit files are kept; None is for ever."""

    retention_days: int | None


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """For how many days a tenant's events, messages and their addresses are kept; None is for ever."""

    event_retention_days: int | None = None
    message_retention_days: int | None = None
    address_retention_days: int | None = None


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A credential without its text. ``kind`` is ``api`` or ``ingest``."""

    id: str
    kind: str
    created_at: datetime


class ChannelAddress(msgspec.Struct, frozen=True, kw_only=True):
    """The addresses of a channel with a new ingest token in them, to be pasted at its provider. ``token_url`` is None
    for a provider that asks for no access tokens."""

    label: str
    callback_url: Secret
    token_url: Secret | None


class IssuedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A new credential. ``key`` is never shown again, nor are the ``addresses`` with it, if it is an ingest token."""

    id: str
    kind: str
    key: Secret
    addresses: tuple[ChannelAddress, ...]


class ServiceLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a service may ask of one copy of a service: checks are counted by address, everything else by call."""

    requests_per_second: float
    burst: int
    checks_per_second: float
    checks_burst: int
    concurrent_streams: int


class ServiceToken(msgspec.Struct, frozen=True, kw_only=True):
    """A service's token, without its text. ``expires_at`` is None where it does not expire."""

    id: str
    created_at: datetime
    expires_at: datetime | None


class IssuedServiceToken(ServiceToken, frozen=True, kw_only=True):
    """A new token. ``token`` is never shown again."""

    token: Secret


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """Another system that may call Backhaul's services over gRPC. ``tenants`` are ids, or ``*``; without ``purposes``
    it may ask for any."""

    id: str
    name: str
    disabled: bool
    tenants: tuple[str, ...]
    verbs: tuple[str, ...]
    purposes: tuple[str, ...]
    certificates: tuple[str, ...]
    limits: ServiceLimits
    tokens: tuple[ServiceToken, ...]
    revision: int
    created_at: datetime
    updated_at: datetime


class NewService(Service, frozen=True, kw_only=True):
    """A new service. ``token`` is never shown again."""

    token: Secret


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's channel without its secrets. ``callback_url`` is what to paste at the provider, with an ingest token
    in the place of ``{ingest_token}``; ``token_url`` is where the provider asks for access tokens, if it does."""

    label: str
    key: str
    provider: str
    secret_count: int
    has_pull_credentials: bool
    has_audit_credentials: bool
    settings: Mapping[str, Any]
    verification: str
    processing: str
    held_since: datetime | None
    callback_url: str
    token_url: str | None
    updated_at: datetime


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant. ``registration`` is one life of its id, and stands in each of its events."""

    id: str
    registration: str
    name: str
    queue_path: str
    status: str
    deleting_since: datetime | None
    limits: Limits
    suppression: SuppressionSettings
    audit: AuditRetention
    retention: Retention = Retention()
    keys: tuple[Key, ...]
    channels: tuple[Channel, ...]
    revision: int
    created_at: datetime
    updated_at: datetime


class NewTenant(Tenant, frozen=True, kw_only=True):
    """With its first credentials, which are never shown again."""

    api_key: Secret
    ingest_token: Secret


def decoded(body: bytes | msgspec.Raw, kind: type[T]) -> T:
    """The ``kind`` that a JSON body holds; msgspec.MsgspecError where it does not."""
    return msgspec.json.decode(body, type=kind, dec_hook=_secret)


def _secret(kind: type, value: object) -> Any:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise TypeError(f"a {kind.__name__} was expected, which {type(value).__name__} is not")
