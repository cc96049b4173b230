"""Communications, batches and members as they are answered over gRPC, of what is stored of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backhaul_common.documents import Document
from backhaul_common.vocabulary import Words
from backhaul_proto.event.v1.event_pb2 import Attribute
from backhaul_proto.normalizer.v1 import communications_pb2 as pb
from backhaul_proto.normalizer.v1.normalizer_pb2 import Message

from backhaul_normalizer.answers import fulfilment_answer
from backhaul_normalizer.communications.documents import FINAL, PROCESSED

STATUSES = Words(pb.CommunicationStatus.DESCRIPTOR)
BATCH_STATUSES = Words(pb.BatchStatus.DESCRIPTOR)
_COMPLETES_ON = Words(pb.CompletesOn.DESCRIPTOR)
_COMPLETED_BY = Words(pb.CompletedBy.DESCRIPTOR)


def info_answer(row: Document) -> pb.CommunicationInfo:
    """A communication without its counts."""
    registered = row.get("registered")
    return pb.CommunicationInfo(
        id=row["communication_id"],
        settings=_settings(registered) if registered is not None else None,
        status=STATUSES.number(row["status"]),
        created_at_us=row["created_at_us"],
        updated_at_us=row.get("updated_at_us", 0),
        switched=[pb.Switched(**one) for one in reversed(row.get("switched", ()))],
        batches=row.get("batches", 0),
        batches_complete=row.get("complete", 0),
    )


def _settings(registered: Document) -> pb.CommunicationSettings:
    return pb.CommunicationSettings(
        name=registered["name"],
        mode=registered["mode"],
        channel=registered["channel"],
        notify=registered["notify"],
        deadline_s=registered["deadline_s"],
        completes_on=_COMPLETES_ON.number(registered["completes_on"]),
        environments=[
            pb.Environment(mode=mode, variables=_pairs(variables))
            for mode, variables in registered["environments"].items()
        ],
    )


def batch_answer(batch: Document, states: Mapping[str, int], late: int) -> pb.Batch:
    """A batch whose destinations are held in these fulfilment states, ``late`` of which came after its completion."""
    then = batch.get("at_completion")
    return pb.Batch(
        id=batch["batch_id"],
        communication_id=batch["communication_id"],
        label=batch["label"],
        status=BATCH_STATUSES.number(batch["status"]),
        completes_on=_COMPLETES_ON.number(batch["completes_on"]),
        expected_members=batch["expected_members"],
        created_at_us=batch["created_at_us"],
        deadline_at_us=batch["deadline_at_us"],
        closed_at_us=batch.get("closed_at_us", 0),
        completed_at_us=batch.get("completed_at_us", 0),
        completed_by=_COMPLETED_BY.number(batch.get("completed_by", "")),
        progress=_progress(batch["members"], batch["destinations"], states),
        at_completion=_progress(then["members"], then["destinations"], then["fulfilment"]) if then else None,
        changed_since=late,
    )


def _progress(members: int, destinations: int, states: Mapping[str, int]) -> pb.BatchProgress:
    return pb.BatchProgress(
        members=members,
        destinations=destinations,
        waiting=destinations - sum(states.values()),
        fulfilment=fulfilment_answer(states),
        processed=sum(states.get(state, 0) for state in PROCESSED),
        final=sum(states.get(state, 0) for state in FINAL),
    )


def member_answer(member: Document, messages: Mapping[bytes, Message]) -> pb.Member:
    """A member with what became of it; ``messages`` are by ``_id`` those that hold its destinations."""
    return pb.Member(
        key=member["key"],
        attributes=_pairs(member["attributes"]),
        destinations=[
            pb.Destination(
                channel=one["channel"], recipient=one["recipient"], message=messages.get(one.get("holder", b""))
            )
            for one in member["destinations"]
        ],
    )


def _pairs(pairs: Sequence[Sequence[str]]) -> list[Attribute]:
    return [Attribute(name=name, value=value) for name, value in pairs]
