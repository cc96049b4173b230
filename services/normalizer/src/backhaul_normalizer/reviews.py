"""What a tenant decides about replies that are likely opt-outs.

A decision is a revision of the event, with what follows from it: in one transaction with the counts and with the row of
the outbox by which it is published, so that a crash leaves all of it or nothing. No callback takes it back (``merge``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Literal

import msgspec
from backhaul_channels import Consent, ConsentAction, ConsentBy, Review
from backhaul_common import mongo, outbox
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.fence import Living, living
from backhaul_common.ids import is_derived_id
from backhaul_common.names import EVENTS_STREAM, NORMALIZER_OUTBOX, events_subject, queue_path_key
from backhaul_common.tenants import Tenant
from backhaul_proto.event.v1.event_pb2 import Event, EventBatch

from backhaul_normalizer.attribution import Settled
from backhaul_normalizer.model import KIND_NAMES, Fact
from backhaul_normalizer.rows import stored_fact
from backhaul_normalizer.said import write_said
from backhaul_normalizer.settling import ReplyTransaction

_LARGE: tuple[Literal["raw", "attributes", "vars", "references", "text"], ...] = (
    "raw",
    "attributes",
    "vars",
    "references",
    "text",
)
"""What a decision is published without, as far as it must be for the outbox to take it; the largest first. Whoever
needs it reads the event."""


def no_reply() -> BackhaulError:
    """NOT_FOUND."""
    return BackhaulError(
        Code.NOT_FOUND, "There is no such reply.", field="id", fix="List the replies to see their ids."
    )


class MongoReviews:
    """Decides; ``on_written`` is called when there is something to be published."""

    def __init__(self, database: mongo.Database, on_written: Callable[[], None]) -> None:
        self._database = database
        self._on_written = on_written

    async def decide(self, tenant: Tenant, event_id: str, review: Review, traceparent: str) -> Document:
        """Accept or dismiss a reply; the stored event as it is then. Done twice, it is done once.

        NOT_FOUND; FAILED_PRECONDITION where it was never flagged, or is accepted and to be dismissed; UNAVAILABLE.
        """
        async with mongo.translated():
            decide = partial(_decide, tenant, event_id, review, traceparent)
            row = await mongo.in_transaction(self._database, decide)
        self._on_written()
        return row


def _decide(
    tenant: Tenant,
    event_id: str,
    review: Review,
    traceparent: str,
    database: mongo.ThreadDatabase,
    session: mongo.Session,
) -> Document:
    path = queue_path_key(tenant.queue_path)
    if living(database, session, {tenant.id}).get(tenant.id) != Living(tenant.registration, path):
        raise no_reply()
    stored = ReplyTransaction(database, session)
    row = next(iter(stored.replies([event_id])), None) if is_derived_id(event_id) else None
    if row is None or row["registration"] != tenant.registration or row["kind"] != "inbound":
        raise no_reply()
    fact = stored_fact(row)
    if fact.duplicate_of:
        raise no_reply()  # What duplicates another event is in no list, and counts for nothing.
    if fact.event.review is review:
        return row
    if fact.event.review is Review.NONE:
        raise BackhaulError(
            Code.FAILED_PRECONDITION,
            "The reply is not flagged: it is known what it says.",
            field="id",
            fix="List the flagged replies to see which are to be decided about.",
        )
    if fact.event.review is Review.ACCEPTED:
        raise BackhaulError(
            Code.FAILED_PRECONDITION,
            "The reply is accepted as an opt-out, which is published and may have been acted upon.",
            field="id",
            fix="Leave it. Whoever wants messages again says so by a word such as START.",
        )
    after = decided(fact, review)
    settled = Settled({event_id: {"payload": after.payload, "review": review.value}})
    communication_id = row.get("communication_id", "")
    settled.count(after, row, communication_id)
    stored.write(settled)
    outbox.write(database, session, NORMALIZER_OUTBOX, [_entry(after, path, communication_id, traceparent)])
    return row | settled.updates[event_id]


def decided(fact: Fact, review: Review) -> Fact:
    """The next revision of a flagged reply: an opt-out by the tenant, of when it was written, or none."""
    consent = fact.event.consent
    said = fact.event.classification
    if review is Review.ACCEPTED and said is not None:
        consent = Consent(ConsentBy.TENANT, ConsentAction.OPT_OUT, said.word, said.scope_kind, said.scope)
    elif review is Review.ACCEPTED:
        consent = Consent(ConsentBy.TENANT, ConsentAction.OPT_OUT)
    event = msgspec.structs.replace(fact.event, review=review, consent=consent)
    payload = Event.FromString(fact.payload)
    payload.revision = fact.revision + 1
    write_said(payload, event)
    return msgspec.structs.replace(fact, event=event, payload=payload.SerializeToString(), revision=fact.revision + 1)


def _entry(fact: Fact, path: str, communication_id: str, traceparent: str) -> outbox.Entry:
    origin = fact.origin
    event = Event.FromString(fact.payload)
    event.communication_id = communication_id
    batch = EventBatch(events=[event])
    for name in _LARGE:
        if batch.ByteSize() <= outbox.MAX_PAYLOAD_BYTES:
            break
        batch.events[0].ClearField(name)
    return outbox.Entry(
        id=f"{fact.id}:{fact.revision}",
        registration=origin.registration,
        path=path,
        stream=EVENTS_STREAM,
        subject=events_subject(path, origin.channel, KIND_NAMES[fact.event.kind]),
        payload=batch.SerializeToString(),
        at_us=time.time_ns() // 1000,
        traceparent=traceparent,
    )
