"""Events on their way in: from what an adapter understood to what is stored and published.

An event is serialised once, as ``backhaul_proto.event.v1.Event``. The same bytes are kept in MongoDB, beside the
fields that are searched, and published to EVENTS.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from backhaul_channels import ChannelSettings, EventKind, NormalizedEvent
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

LONGEST_KEY = 512
"""Characters of a message id, communication id, recipient or sender; what is longer is no identifier."""


class Fact(msgspec.Struct, gc=False):
    """One event, ready to be stored, folded and published.

    ``message`` is the key of its message (empty where it names none), ``stream_seq`` the position in CALLBACKS of the
    message that brought it, ``payload`` the serialised protobuf event.
    """

    id: str
    tenant: str
    channel: str
    provider: str
    kind: EventKind
    message: str
    message_id: str
    recipient: str
    sender: str
    communication_id: str
    error_code: str
    error_text: str
    invalid_recipient: bool
    occurred_at_us: int
    received_at_us: int
    stream_seq: int
    payload: bytes

    def to_document(self) -> Document:
        """What is stored: the fields that are searched or folded, and the payload. Empty fields are left out."""
        document: Document = {
            "_id": self.id,
            "tenant": self.tenant,
            "channel": self.channel,
            "kind": self.kind.value,
            "received_at_us": self.received_at_us,
            "occurred_at_us": self.occurred_at_us,
            "stream_seq": self.stream_seq,
            "payload": self.payload,
        }
        if self.message:
            document["message"] = self.message
        if self.recipient:
            document["recipient"] = self.recipient
        if self.communication_id:
            document["communication_id"] = self.communication_id
        if self.error_code:
            document["error_code"] = self.error_code
        return document


def message_key(tenant: str, channel: str, message_id: str) -> str:
    """The id under which a message is stored."""
    return derived_id(tenant, channel, message_id)


def communication_key(tenant: str, communication_id: str) -> str:
    """The id under which a communication's counts are stored."""
    return derived_id(tenant, communication_id)


def custom_parameters(url: str) -> list[tuple[str, str]]:
    """The query parameters of a callback's URL, without the one that names the channel, in their order."""
    _, found, query = url.partition("?")
    if not found:
        return []
    return [
        (name, value)
        for name, value in parse_query_string(query.partition("#")[0].encode(), "&")
        if name.lower() != "channellabel"
    ]


def join(parameters: Sequence[tuple[str, str]], keys: Sequence[str]) -> str:
    """The communication that ``parameters`` name: the value of the first of ``keys`` that is present and not empty."""
    if not parameters:
        return ""
    by_name: dict[str, str] = {}
    for name, value in parameters:
        if value:
            by_name.setdefault(name.lower(), value)
    for key in keys:
        value = by_name.get(key.lower(), "")
        if value and len(value) <= LONGEST_KEY:
            return value
    return ""


def fact(
    callback: Callback,
    part: bytes,
    event: NormalizedEvent,
    settings: ChannelSettings,
    url_parameters: Sequence[tuple[str, str]],
    stream_seq: int,
) -> Fact:
    """Put together what the callback, the adapter and the channel's settings say of one event."""
    tenant, channel = callback.tenant_id, callback.channel
    # What the sender gave to the message is nearer to it than what stands in the callback's URL, so it comes first.
    parameters = [*event.vars, *url_parameters] if url_parameters else event.vars
    event_id = derived_id(tenant, channel, callback.provider, event.key)
    communication_id = join(parameters, settings.communication_keys)
    occurred_at_us = event.occurred_at_us or callback.received_at_us
    message = event_pb2.Event(
        id=event_id,
        tenant_id=tenant,
        channel=channel,
        provider=callback.provider,
        kind=KIND_TO_PROTO[event.kind],
        provider_status=event.provider_status,
        message_id=event.message_id,
        recipient=event.recipient,
        sender=event.sender,
        communication_id=communication_id,
        error_code=event.error_code,
        error_text=event.error_text,
        occurred_at_us=occurred_at_us,
        received_at_us=callback.received_at_us,
        source=callback.source,
        verification=callback.verification,
        text=event.text,
        raw=part,
        callback_id=callback.id,
        traceparent=callback.traceparent,
        invalid_recipient=event.invalid_recipient,
    )
    # Made where they belong: a list of attributes that is handed over is made first and copied then, at twice the cost.
    add = message.vars.add
    for name, value in parameters:
        add(name=name, value=value)
    add = message.attributes.add
    for name, value in event.attributes:
        add(name=name, value=value)
    return Fact(
        id=event_id,
        tenant=tenant,
        channel=channel,
        provider=callback.provider,
        kind=event.kind,
        message=message_key(tenant, channel, event.message_id) if event.message_id else "",
        message_id=event.message_id,
        recipient=event.recipient,
        sender=event.sender,
        communication_id=communication_id,
        error_code=event.error_code,
        error_text=event.error_text,
        invalid_recipient=event.invalid_recipient,
        occurred_at_us=occurred_at_us,
        received_at_us=callback.received_at_us,
        stream_seq=stream_seq,
        payload=message.SerializeToString(),
    )
