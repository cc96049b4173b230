"""Events as rows: what is stored of a fact, and the fact that a row tells again."""

from __future__ import annotations

from backhaul_channels import EventKind, NormalizedEvent
from backhaul_common.documents import Document
from backhaul_proto.event.v1 import event_pb2

from backhaul_normalizer.facts import KIND_TO_PROTO, address_of, message_key, pair_key
from backhaul_normalizer.model import DEFAULT_WINDOW_US, KIND_NAMES, Fact, Origin, Place
from backhaul_normalizer.said import classification_of, consent_of, error_class_of, family_of, reply_of, review_of

_KIND_FROM_PROTO: dict[event_pb2.EventKind.ValueType, EventKind] = {
    number: kind for kind, number in KIND_TO_PROTO.items()
}


def event_document(fact: Fact, communication_id: str) -> Document:
    """What is stored of ``fact``: the fields that are searched, folded or ordered by, and the payload. Empty fields are
    left out.

    ``communication_id`` is that of the event's message.
    """
    origin, event = fact.origin, fact.event
    document: Document = {
        "_id": fact.id,
        "registration": origin.registration,
        "channel": origin.channel,
        "kind": KIND_NAMES[event.kind],
        "received_at_us": origin.received_at_us,
        "occurred_at_us": fact.occurred_at_us,
        "stream_seq": origin.stream_seq,
        "digest": fact.digest,
        "payload": fact.payload,
    }
    if fact.message:
        document["message"] = fact.message
    if fact.alias:
        document["alias"] = fact.alias
    if fact.once:
        document["once"] = True
    if fact.duplicate_of:
        document["duplicate_of"] = fact.duplicate_of
    if event.recipient:
        document["address"] = address_of(event.recipient)
    if communication_id:
        document["communication_id"] = communication_id
    if event.error_code:
        document["error_code"] = event.error_code
    if event.by_machine:
        document["by_machine"] = True
    if event.sequence is not None:
        document["sequence"] = event.sequence
    if event.kind is EventKind.INBOUND:
        # What else it waits for is found when it is settled.
        document["waits_for"] = waits_for(fact)
        document["window_us"] = fact.window_us
        if event.review:
            document["review"] = event.review.value
    return document


def waits_for(fact: Fact) -> list[str]:
    """The keys of messages, and the pair, by which a reply is found when one of them changes."""
    event, origin = fact.event, fact.origin
    referred = event.reply.message_id if event.reply is not None else ""
    keys = {
        fact.message,
        message_key(origin.registration, origin.channel, referred) if referred else "",
        pair_key(origin.registration, address_of(event.recipient), event.sender),
    }
    return sorted(keys - {""})


def stored_fact(row: Document) -> Fact:
    """The fact of a stored event. Its ``vars`` are all that it has, those of the URL among them."""
    told = event_pb2.Event.FromString(row["payload"])
    return Fact(
        told.id,
        Origin(
            told.tenant_id,
            told.registration,
            "",
            told.channel,
            told.provider,
            told.verification,
            told.received_at_us,
            row["stream_seq"],
            False,
            [],
            b"",
            b"",
            b"",
            source=told.source,
        ),
        NormalizedEvent(
            kind=_KIND_FROM_PROTO.get(told.kind, EventKind.UNKNOWN),
            key="",
            provider_status=told.provider_status,
            message_id=told.message_id,
            recipient=told.recipient,
            sender=told.sender,
            occurred_at_us=told.occurred_at_us if told.occurred_at_basis == event_pb2.TIME_BASIS_PROVIDER else None,
            error_code=told.error_code,
            error_text=told.error_text,
            text=told.text,
            invalid_recipient=told.invalid_recipient,
            provisional="alias" in row,
            by_machine=told.by_machine,
            recipient_family=family_of(told),
            sequence=told.sequence if told.HasField("sequence") else None,
            consent=consent_of(told),
            reply=reply_of(told),
            error_class=error_class_of(told),
            error_url=told.error_url,
            classification=classification_of(told),
            review=review_of(told),
            missing_parameters=list(told.missing_parameters),
            default_parameters=list(told.default_parameters),
            references=list(told.references),
            vars=[(pair.name, pair.value) for pair in told.vars],
            attributes=[(pair.name, pair.value) for pair in told.attributes],
        ),
        row.get("message", ""),
        told.communication_id,
        told.occurred_at_us,
        row["payload"],
        row["digest"],
        told.communication_id,
        row.get("alias", ""),
        told.revision,
        revised_seqs=row.get("revised_seqs", ()),
        left=row.get("left", ()),
        once=row.get("once", False),
        duplicate_of=told.duplicate_of,
        window_us=row.get("window_us", DEFAULT_WINDOW_US),
        stored_communication_id=row.get("communication_id", ""),
        batch_id=told.batch_id,
        member_key=told.member_key,
        told_place=Place(told.batch_id, told.member_key),
    )
