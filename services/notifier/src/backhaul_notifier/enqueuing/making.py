"""The documents of deliveries, made of messages of EVENTS and NOTICES: see ``documents``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from backhaul_common.documents import Document
from backhaul_common.feed import StreamMessage
from backhaul_common.ids import derived_id
from backhaul_common.logs import get_logger
from backhaul_common.names import EVENTS_STREAM, NOTICES_STREAM
from backhaul_proto.event.v1.event_pb2 import Event, EventBatch
from backhaul_proto.notice.v1.notice_pb2 import Notice
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from google.protobuf.message import DecodeError

from backhaul_notifier.catalogue.types import OF_SUBSCRIPTIONS, SWITCHES
from backhaul_notifier.documents import ALERT, delivery_id
from backhaul_notifier.enqueuing.sharing import ROW_BYTES, SPENT_AT_ONCE, Share
from backhaul_notifier.holding.switches import Switch
from backhaul_notifier.model import Subscription

MAX_ROWS: Final = 2000
MAX_BYTES: Final = 4 << 20
"""Deliveries, and bytes of their payloads, that are stored in one transaction: a few tenths of a second of its six."""

EVENTS_OF_A_MESSAGE: Final = 100_000
"""More than fit into one: of an event that is serialised no byte is for free."""

Of = Callable[[str], Collection[Subscription]]
"""The subscriptions of a registration."""

_log = get_logger(component="enqueuer")


@dataclass(slots=True)
class Part:
    """What is stored in one transaction.

    ``rows`` are documents by their ids, without the time at which they begin to wait; ``position`` is how far the
    stream is told with them, ``stored_at_us`` when it stored the latest message, and ``again`` whether some may have
    been told before. ``tenants`` are those of the subscriptions, by registration; ``alerts`` are endpoints that may not
    be there yet, with their subscriptions; ``switches`` say what is disabled from then on.
    """

    position: int
    stored_at_us: int = 0
    again: bool = False
    rows: dict[bytes, Document] = field(default_factory=dict)
    tenants: dict[str, str] = field(default_factory=dict)
    alerts: dict[str, Subscription] = field(default_factory=dict)
    switches: list[Switch] = field(default_factory=list)
    traceparents: dict[str, None] = field(default_factory=dict)
    """Of what is told, in order."""
    parked: dict[str, int] = field(default_factory=dict)
    """Tenants by their queue paths that are told apart, each from the position behind which nothing of it is told."""
    bytes: int = 0

    def is_full(self, max_bytes: int) -> bool:
        return len(self.rows) + len(self.switches) >= MAX_ROWS or self.bytes >= max_bytes


def parts_of_events(messages: Sequence[StreamMessage], after: int, of: Of, share: Share) -> Iterator[Part]:
    """What messages of EVENTS bring to those who subscribed, in order and in parts; ``after`` is the position before
    them. A part that ends within a message leaves the position in front of it: what is told once more is met by its id.
    Who is parked within a message is told all of it apart.

    It looks at subscriptions, and at who is parked, when a part is asked for.
    """
    part, most = Part(after), share.max_bytes
    parked: set[str] = set()
    for message in messages:
        if message.path in parked or share.passes_over(message):
            part.position = message.stream_seq
            continue
        batch = EventBatch()
        try:
            batch.ParseFromString(message.data)
        except DecodeError:
            # Only a program that is not Backhaul can have written it.
            _log.error("not_an_event_batch", subject=message.subject, stream_seq=message.stream_seq)
            batch.Clear()
        part.stored_at_us = message.stored_at_us
        part.again = part.again or message.again
        spent = 0
        for row, subscription, traceparent in _of_batch(batch, message, of):
            if part.is_full(most):
                yield part
                part = Part(part.position, message.stored_at_us, message.again)
            _put(part, row, subscription, traceparent)
            spent += len(row["payload"]) + ROW_BYTES
            if spent >= SPENT_AT_ONCE:
                if share.spend(message, spent):
                    part.parked[message.path] = message.stream_seq - 1
                    break
                spent = 0
        else:
            if share.spend(message, spent):
                part.parked[message.path] = message.stream_seq
        parked.update(part.parked)
        part.position = message.stream_seq
    yield part


def parts_of_notices(messages: Sequence[StreamMessage], after: int, of: Of, share: Share) -> Iterator[Part]:
    """The same of NOTICES, each of whose messages is one. They are few and small, so nobody is parked."""
    part = Part(after)
    for message in messages:
        if part.is_full(share.max_bytes):
            yield part
            part = Part(part.position)
        part.stored_at_us = message.stored_at_us
        part.again = part.again or message.again
        try:
            notice = Notice.FromString(message.data)
        except DecodeError:
            _log.error("not_a_notice", subject=message.subject, stream_seq=message.stream_seq)
        else:
            if notice.type in SWITCHES:
                _add_switch(part, notice)
            if subscriptions := of(notice.registration):
                _add_notice(part, notice, message, subscriptions)
        part.position = message.stream_seq
    yield part


_Made = tuple[Document, Subscription, str]
"""A row, whom it is for, and the ``traceparent`` of what it tells."""


def _of_batch(batch: EventBatch, message: StreamMessage, of: Of) -> Iterator[_Made]:
    position, stored_at_us = message.stream_seq, message.stored_at_us
    for index, event in enumerate(batch.events):
        begun = [each for each in of(event.registration) if each.has_begun(EVENTS_STREAM, position, stored_at_us)]
        if begun:
            yield from _of_event(event, position * EVENTS_OF_A_MESSAGE + index, begun)


def _of_event(event: Event, order: int, subscriptions: Collection[Subscription]) -> Iterator[_Made]:
    told = [(one, types[0], False) for one in subscriptions if (types := one.matcher.types(event))]
    if not event.communication_id:
        told += [(one, types[0], True) for one in subscriptions if (types := one.matcher.types_if_known(event))]
    if not told:
        return
    whole = event.SerializeToString() if any(_wants_raw(subscription) for subscription, _, _ in told) else b""
    # It may be a hundred times the rest, and is stored for each subscription.
    event.ClearField("raw")
    payload = event.SerializeToString()
    for subscription, type_, open_ in told:
        row = _row(subscription, type_, event.id, event.revision, whole if _wants_raw(subscription) else payload, order)
        # Of one that is not readable it is said later whether it wants this; its order is not known either. So it is
        # of what may be of a communication that is asked for.
        _about(row, event.channel, event.message_id, event.communication_id)
        if key := _key(subscription.definition.ordering, event):
            row["key"] = key
        if open_:
            row["unsure"] = True
        yield row, subscription, event.traceparent


def _add_notice(part: Part, notice: Notice, message: StreamMessage, subscriptions: Collection[Subscription]) -> None:
    about = notice.about
    for subscription in subscriptions:
        endpoints = {}
        begun = subscription.has_begun(NOTICES_STREAM, message.stream_seq, message.stored_at_us)
        if begun and (types := subscription.matcher.types(notice)):
            endpoints[subscription.id] = types[0]
        if subscription.id == about.reference and _is_told_to_people(notice, subscription):
            endpoints[ALERT + subscription.id] = notice.type
            part.alerts[ALERT + subscription.id] = subscription
        for endpoint, type_ in endpoints.items():
            order = message.stream_seq * EVENTS_OF_A_MESSAGE
            row = _row(subscription, type_, notice.id, 0, message.data, order)
            row |= {"_id": delivery_id(endpoint, notice.id, 0), "subscription": endpoint, "notice": True}
            _about(row, about.channel, about.message_id, about.communication_id)
            _put(part, row, subscription, notice.traceparent)


def _add_switch(part: Part, notice: Notice) -> None:
    disabled, at_us = SWITCHES[notice.type], notice.occurred_at_us
    communication_id = notice.about.communication_id
    part.switches.append(Switch(notice.tenant_id, notice.registration, communication_id, disabled, at_us))
    part.tenants[notice.registration] = notice.tenant_id


def _wants_raw(subscription: Subscription) -> bool:
    """Whether it may tell what the provider itself sent."""
    return subscription.definition.payload.with_raw or not subscription.readable


def _is_told_to_people(notice: Notice, subscription: Subscription) -> bool:
    """Whether a notice about a subscription goes to people by mail: to those that it names itself, or that the
    subscription names."""
    befell = notice.type.startswith(OF_SUBSCRIPTIONS) and len(subscription.definition.alert_addresses) > 0
    return befell or len(notice.notify) > 0


def _row(subscription: Subscription, type_: str, event_id: str, revision: int, payload: bytes, order: int) -> Document:
    return {
        "_id": delivery_id(subscription.id, event_id, revision),
        "registration": subscription.registration,
        "subscription": subscription.id,
        "type": type_,
        "event_id": event_id,
        "revision": revision,
        "payload": payload,
        "order": order,
        "state": "waiting",
        "attempts": 0,
        **({} if subscription.readable else {"unsure": True}),
    }


def _about(row: Document, channel: str, message_id: str, communication_id: str) -> None:
    if channel:
        row["channel"] = channel
    if message_id:
        row["message_id"] = message_id
    if communication_id:
        row["communication_id"] = communication_id


def _key(ordering: int, event: Event) -> bytes:
    if ordering == pb.ORDERING_MESSAGE and event.message_id:
        return bytes.fromhex(derived_id("message", event.channel, event.message_id))
    if ordering == pb.ORDERING_RECIPIENT and event.recipient:
        return bytes.fromhex(derived_id("recipient", str(event.recipient_family), event.recipient))
    return b""


def _put(part: Part, row: Document, subscription: Subscription, traceparent: str) -> None:
    if row["_id"] in part.rows:
        return  # The stream has it twice, and the first place counts.
    part.rows[row["_id"]] = row
    part.tenants[subscription.registration] = subscription.tenant
    part.bytes += len(row["payload"])
    if traceparent:
        part.traceparents[traceparent] = None
