"""Events on their way in: from what an adapter understood to what is stored and published.

An event is serialised once, as ``backhaul_proto.event.v1.Event``. The same bytes are kept in MongoDB, beside the
fields that are searched, and published to EVENTS.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple
from urllib.parse import parse_qsl

from backhaul_channels import ChannelSettings, ConversationSettings, EventKind, MalformedError, NormalizedEvent
from backhaul_channels.addresses import canonical
from backhaul_common.ids import derived_id
from backhaul_common.sizes import MAX_EVENT_BYTES
from backhaul_proto.callback.v1.callback_pb2 import Callback
from backhaul_proto.event.v1 import event_pb2

from backhaul_normalizer.model import DAY_US, DEFAULT_WINDOW_US, KIND_NAMES, NOWHERE, Fact, Origin, Place
from backhaul_normalizer.said import (
    write_error,
    write_said,
)

KIND_TO_PROTO: dict[EventKind, event_pb2.EventKind.ValueType] = {
    kind: event_pb2.EventKind.Value(f"EVENT_KIND_{kind.name}") for kind in EventKind
}

MAX_KEY = 512
"""Characters of a message id, communication id, recipient or sender; what is longer is no identifier."""

MAX_REFERENCES = 16
"""References of one message, and of an event that duplicates complete. Providers give two or three; the least stand."""

_MAX_REMEMBERED = 512


# The events of a message, and the message, have one recipient, and mostly come in one batch.
_remembered_address = lru_cache(maxsize=4096)(canonical)


def address_of(recipient: str) -> str:
    """The canonical form of an address, in which it is stored for searching."""
    return _remembered_address(recipient) if len(recipient) <= _MAX_REMEMBERED else canonical(recipient)


def message_key(registration: str, channel: str, message_id: str) -> str:
    """The id under which a message is stored."""
    return derived_id(registration, channel, message_id)


def pair_key(registration: str, address: str, sender: str) -> str:
    """By which messages and replies find each other that are between the same two: a person, by the canonical
    ``address``, and a tenant's ``sender``. Empty where one of them is not known."""
    if not address or not sender:
        return ""
    # How long it is parts the two: neither is free of line breaks.
    return derived_id("pair", registration, str(len(address)), address + address_of(sender))


def communication_key(registration: str, communication_id: str) -> str:
    """The id under which a communication's counts are stored."""
    return derived_id(registration, communication_id)


def custom_parameters(url: str, own: Collection[str] = ()) -> list[tuple[str, str]]:
    """The query parameters of a callback's URL, in their order, without the one that names the channel and without
    ``own``, those that the provider adds by itself (lower case, as an adapter's ``own_parameters``).

    Bytes that are not UTF-8 are replaced.
    """
    _, found, query = url.partition("?")
    if not found:
        return []
    return [
        (name, value)
        for name, value in parse_qsl(query.partition("#")[0], keep_blank_values=True, errors="replace")
        if (lowered := name.lower()) != "channellabel" and lowered not in own
    ]


@lru_cache(maxsize=1024)
def _lowered(keys: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(key.lower() for key in keys)


def _first(found: Mapping[str, str], keys: tuple[str, ...]) -> str:
    """The value of the first of ``keys`` that is there and can be an id."""
    for key in _lowered(keys):
        value = found.get(key, "")
        if value and len(value) <= MAX_KEY:
            return value
    return ""


class _Named(NamedTuple):
    """What a message is of, by the sender's ids."""

    communication_id: str
    place: Place


_UNNAMED = _Named("", NOWHERE)


def _named(event: NormalizedEvent, parameters: Sequence[tuple[str, str]], settings: ChannelSettings) -> _Named:
    """What the message of an event is of, in whose callback's URL ``parameters`` stand.

    What the sender itself says of the message comes first. What it gave to the message is nearer to it than what stands
    in the URL. What the channel gives by default comes last, whatever its key, and names a communication only: a batch
    or a member that all messages had in common would be none.
    """
    own = event.communication_id, event.batch_id, event.member_key
    if not event.vars and not parameters:
        return _Named(own[0], Place(*own[1:])) if any(own) else _UNNAMED
    given = event.vars
    if event.default_parameters:
        given = [pair for pair in given if pair[0] not in event.default_parameters]
    # Backwards, so that of two of one name the first stands.
    found = {name.lower(): value for name, value in reversed(parameters) if value}
    for name, value in reversed(given):
        if value:
            found[name.lower()] = value
    communication_id = own[0] or _first(found, settings.communication_keys)
    if not communication_id and event.default_parameters:
        defaults = {name.lower(): value for name, value in reversed(event.vars) if value}
        communication_id = _first(defaults, settings.communication_keys)
    batch_id = own[1] or _first(found, settings.batch_keys)
    member_key = own[2] or _first(found, settings.member_keys)
    return _Named(communication_id, Place(batch_id, member_key) if batch_id or member_key else NOWHERE)


def is_default(fact: Fact, communication_id: str) -> bool:
    """Whether ``fact`` names that communication by a default of its channel alone."""
    event = fact.event
    if not event.default_parameters or not communication_id:
        return False
    values = {value for name, value in event.vars if name not in event.default_parameters}
    values.update(value for _, value in fact.origin.parameters)
    return communication_id not in values


def _url_vars(url: str, own: Collection[str]) -> tuple[list[tuple[str, str]], bytes]:
    """The custom parameters of a callback's URL, and the same as serialised fields of an event."""
    parameters = custom_parameters(url, own)
    event = event_pb2.Event()
    for name, value in parameters:
        event.vars.add(name=name, value=value)
    return parameters, event.SerializeToString()


# A campaign's callbacks all come to one URL. Long ones are not kept, so that nobody can fill the memory with them.
_remembered_url_vars = lru_cache(maxsize=4096)(_url_vars)


@lru_cache(maxsize=4096)
def _of_channel(tenant_id: str, registration: str, channel: str, provider: str) -> bytes:
    """What all events of a channel have in common, serialised."""
    event = event_pb2.Event(tenant_id=tenant_id, registration=registration, channel=channel, provider=provider)
    return event.SerializeToString()


def origin(
    callback: Callback,
    stream_seq: int,
    path: str,
    own_parameters: frozenset[str],
    *,
    url_is_signed: bool,
    once: frozenset[EventKind] = frozenset(),
) -> Origin:
    """What the events of ``callback`` have in common; ``own_parameters``, ``url_is_signed`` and ``once`` are its
    adapter's."""
    url = callback.url
    vars_of = _remembered_url_vars if len(url) <= _MAX_REMEMBERED else _url_vars
    parameters, encoded_parameters = vars_of(url, own_parameters)
    where = callback.tenant_id, callback.registration, callback.channel, callback.provider
    tenant_id, registration, channel, provider = where
    received_at_us, verification = callback.received_at_us, callback.verification
    common = event_pb2.Event(
        received_at_us=received_at_us,
        source=callback.source,
        verification=verification,
        callback_id=callback.id,
        traceparent=callback.traceparent,
    )
    arrival = event_pb2.Event(occurred_at_us=received_at_us, occurred_at_basis=event_pb2.TIME_BASIS_ARRIVAL)
    return Origin(
        tenant_id,
        registration,
        path,
        channel,
        provider,
        verification,
        received_at_us,
        stream_seq,
        url_is_signed,
        parameters,
        _of_channel(*where) + common.SerializeToString() + encoded_parameters,
        arrival.SerializeToString(),
        bytes((verification,)) + (encoded_parameters if url_is_signed else b""),
        once,
        callback.source,
    )


def _says_more(event: NormalizedEvent) -> bool:
    """Whether ``write_said`` has anything to write; most events only have a family."""
    return bool(
        event.recipient_family
        or event.sequence is not None
        or event.consent is not None
        or event.reply is not None
        or event.classification is not None
        or event.missing_parameters
        or event.default_parameters
    )


def _told(event_id: str, part: bytes, event: NormalizedEvent, named: _Named) -> bytes:
    """The fields of an event that its part of the callback tells, serialised."""
    message = event_pb2.Event(
        id=event_id,
        kind=KIND_TO_PROTO[event.kind],
        provider_status=event.provider_status,
        message_id=event.message_id,
        recipient=event.recipient,
        sender=event.sender,
        communication_id=named.communication_id,
        raw=part,
    )
    if named.place is not NOWHERE:
        message.batch_id, message.member_key = named.place
    if event.occurred_at_us is not None:
        message.occurred_at_us = event.occurred_at_us
        message.occurred_at_basis = event_pb2.TIME_BASIS_PROVIDER
    if event.error_code or event.error_text or event.invalid_recipient or event.error_class:
        write_error(message, event)
    if event.text:
        message.text = event.text
    if event.by_machine:
        message.by_machine = True
    if _says_more(event):
        write_said(message, event)
    if event.references:
        message.references.extend(event.references)
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
    return message.SerializeToString()


def fact(origin: Origin, part: bytes, event: NormalizedEvent, settings: ChannelSettings) -> Fact:
    """Put together what the callback, the adapter and the channel's settings say of one event. Raises MalformedError
    for one that no stream takes."""
    once = event.kind in origin.once and event.message_id != ""
    where = origin.registration, origin.channel, origin.provider
    name = event.message_id
    # What happens to a message once is known by that, whatever key it came under. How long the name is parts it from
    # the key: neither is free of line breaks.
    event_id = (
        derived_id("once", *where, KIND_NAMES[event.kind], name)
        if once
        else derived_id(*where, str(len(name)), name + event.key)
    )
    named = _named(event, origin.parameters, settings)
    own = _told(event_id, part, event, named)
    # A protobuf message is its fields one after another, so two halves put together are a whole.
    payload = own + origin.payload if event.occurred_at_us is not None else own + origin.payload + origin.arrival
    if len(payload) > MAX_EVENT_BYTES:
        raise MalformedError(f"As an event it has {len(payload)} bytes; at most {MAX_EVENT_BYTES} are kept of one.")
    key = message_key(origin.registration, origin.channel, event.message_id) if event.message_id else ""
    # Whoever holds one signed request may post it again with another query, where the signature leaves that out.
    told = named if origin.url_is_signed or not origin.parameters else _named(event, (), settings)
    return Fact(
        event_id,
        origin,
        event,
        key,
        named.communication_id,
        event.occurred_at_us if event.occurred_at_us is not None else origin.received_at_us,
        payload,
        blake2b(own + origin.told + (b"further" if event.provisional else b""), digest_size=8).digest(),
        told.communication_id,
        key if event.provisional else "",
        once=once,
        window_us=_window_us(settings) if event.kind is EventKind.INBOUND else DEFAULT_WINDOW_US,
        batch_id=named.place.batch_id,
        member_key=named.place.member_key,
        told_place=told.place,
    )


def _window_us(settings: ChannelSettings) -> int:
    return settings.replies.window_days * DAY_US if isinstance(settings, ConversationSettings) else DEFAULT_WINDOW_US
