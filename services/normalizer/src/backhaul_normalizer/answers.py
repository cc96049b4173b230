"""Messages and communications as they are answered over gRPC, of what is stored of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backhaul_channels import EventKind as EventKindName
from backhaul_common.documents import Document
from backhaul_common.vocabulary import Words, pascal
from backhaul_proto.event.v1.event_pb2 import ErrorClass, EventKind
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb

from backhaul_normalizer.counts import unique_of
from backhaul_normalizer.states import FULFILMENT_STATES

KINDS = Words(EventKind.DESCRIPTOR)
ERROR_CLASSES = Words(ErrorClass.DESCRIPTOR)
FULFILMENT = Words(pb.FulfilmentState.DESCRIPTOR, pascal)


def fulfilment_answer(counts: Mapping[str, int]) -> list[pb.FulfilmentCount]:
    """How many there are in each fulfilment state, zeros included."""
    return [pb.FulfilmentCount(state=FULFILMENT.number(name), count=counts.get(name, 0)) for name in FULFILMENT_STATES]


def communication_answer(row: Document) -> pb.Communication:
    """The counts of a communication; see ``stats.communication``."""
    return pb.Communication(
        id=row["communication_id"],
        fulfilment=fulfilment_answer(row.get("fulfilment", {})),
        events=[
            pb.EventCount(kind=KINDS.number(name), count=count)
            for name, count in sorted(row.get("events", {}).items())
            if count
        ],
        messages=row["messages"],
        created_at_us=row["created_at_us"],
        last_event_at_us=row["last_event_at_us"],
        engagement=_engagement(row.get("events", {}), row.get("by_machine", {}), row.get("unique", {})),
        replies=_replies(row.get("replies", {})),
        errors=[pb.MessageErrorCount(**one) for one in row.get("errors", ())],
    )


def message_answer(row: Document) -> pb.Message:
    """A message, as ``messages.message_of`` gives it."""
    return pb.Message(
        channel=row["channel"],
        message_id=row["message_id"],
        provider=row["provider"],
        state=KINDS.number(row["state"]),
        fulfilment_state=FULFILMENT.number(row["fulfilment"]),
        recipient=row["recipient"],
        sender=row["sender"],
        communication_id=row["communication_id"],
        error_code=row["error_code"],
        error_text=row["error_text"],
        error_class=ERROR_CLASSES.number(row.get("error_class", "")),
        error_url=row.get("error_url", ""),
        event_count=row["event_count"] - sum(row.get("duplicates", {}).values()),
        created_at_us=row["created_at_us"],
        last_event_at_us=row["last_event_at_us"],
        engagement=_engagement(row["kinds"], row.get("by_machine", {}), unique_of(row)),
        references=row.get("references", ()),
    )


def _engagement(kinds: Mapping[str, int], by_machine: Mapping[str, int], unique: Mapping[str, int]) -> pb.Engagement:
    opened, clicked = EventKindName.OPENED.value, EventKindName.CLICKED.value
    return pb.Engagement(
        opened=kinds.get(opened, 0) - by_machine.get(opened, 0),
        opened_by_machine=by_machine.get(opened, 0),
        unique_opened=unique.get(opened, 0),
        clicked=kinds.get(clicked, 0) - by_machine.get(clicked, 0),
        clicked_by_machine=by_machine.get(clicked, 0),
        unique_clicked=unique.get(clicked, 0),
    )


def _replies(counts: Mapping[str, Any]) -> pb.ReplyCounts:
    return pb.ReplyCounts(
        all=counts.get("all", 0),
        stop=counts.get("stop", 0),
        start=counts.get("start", 0),
        help=counts.get("help", 0),
        survey_response=counts.get("survey_response", 0),
        templates=[
            pb.TemplateCount(name=name, count=count)
            for name, count in sorted(counts.get("templates", {}).items())
            if count
        ],
    )
