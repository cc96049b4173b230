"""Events on their way in: from what an adapter understood to what is stored and published.

An event is serialised once, as ``backhaul_proto.event.v1.Event``. The same bytes are kept in MongoDB, beside the
fields that are searched, and published to EVENTS.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache

import msgspec
from backhaul_channels import ChannelSettings, EventKind, MalformedError, NormalizedEvent
from backhaul_common.ids import derived_id
from backhaul_common.mongo import Document
from backhaul_proto.callback.v1.callback_pb2 import Callback
from backhaul_proto.event.v1 import event_pb2
from fast_query_parsers import parse_query_string

KIND_TO_PROTO: dict[EventKind, event_pb2.EventKind.ValueType] = {
    kind: event_pb2.EventKind.Value(f"EVENT_KIND_{kind.name}") for kind in EventKind
}
KIND_FROM_PROTO: dict[event_pb2.EventKind.ValueType, EventKind] = {
    number: kind for kind, number in KIND_TO_PROTO.items()
}

KIND_NAMES: dict[EventKind, str] = {kind: str(kind.value) for kind in EventKind}

LONGEST_KEY = 512
"""Characters of a message id, communication id, recipient or sender; what is longer is no identifier."""

LARGEST_EVENT = 512 << 10
"""Bytes of a serialised event. Providers' are a few KB; a message of NATS takes 1 MB where nobody set max_payload."""

_LONGEST_REMEMBERED = 512


class Origin(msgspec.Struct, gc=False):
    """What all events of one callback have in common, worked out once.

    ``stream_seq`` is the position in CALLBACKS of the message that brought it; ``payload`` the serialised protobuf
    fields that each of its events ends with.
    """

    tenant: str
    registration: str
    channel: str
    provider: str
    received_at_us: int
    stream_seq: int
    parameters: list[tuple[str, str]]
    payload: bytes


class Fact(msgspec.Struct, gc=False):
    """One event, ready to be stored, folded and published.

    ``message`` is the key of its message (empty where it names none), ``payload`` the serialised protobuf event.
    """

    id: str
    origin: Origin
    event: NormalizedEvent
    message: str
    communication_id: str
    occurred_at_us: int
    payload: bytes

    def to_document(self) -> Document:
        """What is stored: the fields that are searched or folded, and the payload. Empty fields are left out."""
        origin, event = self.origin, self.event
        document: Document = {
            "_id": self.id,
            "registration": origin.registration,
            "channel": origin.channel,
            "kind": KIND_NAMES[event.kind],
            "received_at_us": origin.received_at_us,
            "occurred_at_us": self.occurred_at_us,
            "stream_seq": origin.stream_seq,
            "payload": self.payload,
        }
        if self.message:
            document["message"] = self.message
        if event.recipient:
            document["recipient"] = event.recipient
        if self.communication_id:
            document["communication_id"] = self.communication_id
        if event.error_code:
            document["error_code"] = event.error_code
        return document


def message_key(registration: str, channel: str, message_id: str) -> str:
    """The id under which a message is stored."""
    return derived_id(registration, channel, message_id)


def communication_key(registration: str, communication_id: str) -> str:
    """The id under which a communication's counts are stored."""
    return derived_id(registration, communication_id)


def custom_parameters(url: str, own: Collection[str] = ()) -> list[tuple[str, str]]:
    """The query parameters of a callback's URL, in their order, without the one that names the channel and without
    ``own``, those that the provider adds by itself (lower case, as an adapter's ``own_parameters``)."""
    _, found, query = url.partition("?")
    if not found:
        return []
    return [
        (name, value)
        for name, value in parse_query_string(query.partition("#")[0].encode(), "&")
        if (lowered := name.lower()) != "channellabel" and lowered not in own
    ]


def join(parameters: Sequence[tuple[str, str]], keys: Sequence[str]) -> str:
    """The communication that ``parameters`` name: the value of the first of ``keys`` that is present and not empty."""
    if not parameters:
        return ""
    found = {name.lower(): value for name, value in reversed(parameters) if value}
    for key in keys:
        value = found.get(key.lower(), "")
        if value and len(value) <= LONGEST_KEY:
            return value
    return ""


def _url_vars(url: str, own: Collection[str]) -> tuple[list[tuple[str, str]], bytes]:
    """The custom parameters of a callback's URL, and the same as serialised fields of an event."""
    parameters = custom_parameters(url, own)
    event = event_pb2.Event()
    for name, value in parameters:
        event.vars.add(name=name, value=value)
    return parameters, event.SerializeToString()


# A campaign's callbacks all come to one URL. Long ones are not kept, so that nobody can fill the memory with them.
_remembered_url_vars = lru_cache(maxsize=4096)(_url_vars)


def origin(callback: Callback, stream_seq: int, own_parameters: frozenset[str]) -> Origin:
    """What the events of ``callback`` have in common; ``own_parameters`` are its adapter's."""
    url = callback.url
    vars_of = _remembered_url_vars if len(url) <= _LONGEST_REMEMBERED else _url_vars
    parameters, encoded_parameters = vars_of(url, own_parameters)
    common = event_pb2.Event(
        tenant_id=callback.tenant_id,
        registration=callback.registration,
        channel=callback.channel,
        provider=callback.provider,
        received_at_us=callback.received_at_us,
        source=callback.source,
        verification=callback.verification,
        callback_id=callback.id,
        traceparent=callback.traceparent,
    )
    return Origin(
        callback.tenant_id,
        callback.registration,
        callback.channel,
        callback.provider,
        callback.received_at_us,
        stream_seq,
        parameters,
        common.SerializeToString() + encoded_parameters,
    )


def fact(origin: Origin, part: bytes, event: NormalizedEvent, settings: ChannelSettings) -> Fact:
    """Put together what the callback, the adapter and the channel's settings say of one event. Raises MalformedError
    for one that no stream takes."""
    # What the sender gave to the message is nearer to it than what stands in the callback's URL, so it comes first.
    parameters = [*event.vars, *origin.parameters] if event.vars else origin.parameters
    event_id = derived_id(origin.registration, origin.channel, origin.provider, event.key)
    communication_id = join(parameters, settings.communication_keys)
    occurred_at_us = event.occurred_at_us or origin.received_at_us
    message = event_pb2.Event(
        id=event_id,
        kind=KIND_TO_PROTO[event.kind],
        provider_status=event.provider_status,
        message_id=event.message_id,
        recipient=event.recipient,
        sender=event.sender,
        communication_id=communication_id,
        occurred_at_us=occurred_at_us,
        raw=part,
    )
    if event.error_code or event.error_text or event.invalid_recipient:
        message.error_code = event.error_code
        message.error_text = event.error_text
        message.invalid_recipient = event.invalid_recipient
    if event.text:
        message.text = event.text
    # Made where they belong: attributes that are handed over in a list are made first and then copied, at twice the
    # cost.
    if event.vars:
        add = message.vars.add
        for name, value in event.vars:
            add(name=name, value=value)
    if event.attributes:
        add = message.attributes.add
        for name, value in event.attributes:
            add(name=name, value=value)
    # A protobuf message is its fields one after another, so two halves put together are a whole.
    payload = message.SerializeToString() + origin.payload
    if len(payload) > LARGEST_EVENT:
        raise MalformedError(f"As an event it has {len(payload)} bytes; at most {LARGEST_EVENT} are kept of one.")
    return Fact(
        event_id,
        origin,
        event,
        message_key(origin.registration, origin.channel, event.message_id) if event.message_id else "",
        communication_id,
        occurred_at_us,
        payload,
    )
