"""What tenants are answered about communications, their batches, and these batches' members.

The models are the documentation, and what is written: each twin fills one from the normalizer's answer.
"""

from __future__ import annotations

from typing import Annotated

from backhaul_common.vocabulary import Words
from backhaul_proto.normalizer.v1 import communications_pb2 as pb
from backhaul_proto.normalizer.v1 import normalizer_pb2
from pydantic import BaseModel

from backhaul_gateway.reads.views import FULFILMENT, EngagementOut, MessageSummary, ReplyCountsOut
from backhaul_gateway.twins.twin import Every, Of, Twin

COMPLETES_ON = Words(pb.CompletesOn.DESCRIPTOR)
STATUS = Words(pb.CommunicationStatus.DESCRIPTOR)
BATCH_STATUS = Words(pb.BatchStatus.DESCRIPTOR)

_ENUMS = {normalizer_pb2.FulfilmentState.DESCRIPTOR.full_name: FULFILMENT}


class RegisteredOut(BaseModel):
    """What a sender has told of a communication. ``environments`` are variables by mode, and ``mode`` says which of
    them hold. ``deadline_hours`` is from a batch's registration to its deadline. ``completes_on`` says when a closed
    batch is complete: ``processed``, each destination was sent or failed; ``final``, each has a message in a state
    other than Queued and Sent."""

    name: str
    mode: str
    channel: str
    notify: list[str]
    deadline_hours: Annotated[float, Of("deadline_s")]
    completes_on: str
    environments: dict[str, dict[str, str]]


class SwitchedOut(BaseModel):
    """That it was disabled, or enabled again: why, by whom, and when."""

    disabled: bool
    reason: str
    author: str
    at: str | None


class BatchProgressOut(BaseModel):
    """How far a batch is. Each destination counts once: in its message's fulfilment state, or as ``waiting``, where no
    message is known or it has none. ``processed`` were sent or failed; ``final`` are in a state other than Queued and
    Sent."""

    members: int
    destinations: int
    waiting: int
    fulfilment: Annotated[dict[str, int], Every]
    processed: int
    final: int


class BatchOut(BaseModel):
    """A part of a communication that is completed by itself. ``status`` is ``open``, ``closed`` or ``complete``;
    ``completed_by`` is ``condition`` or ``deadline``. Without ``expected_members`` it is closed by a call.
    ``at_completion`` is the progress as it was then, and ``changed_since`` how often the state of a destination changed
    afterwards."""

    id: str
    communication_id: str
    label: str
    status: str
    completes_on: str
    expected_members: int | None
    created_at: str | None
    deadline: Annotated[str | None, Of("deadline_at_us")]
    closed_at: str | None
    completed_at: str | None
    completed_by: str | None
    progress: BatchProgressOut
    at_completion: BatchProgressOut | None
    changed_since: int


class MessageErrorOut(BaseModel):
    """How many of its messages have that error code; ``/v1/errors`` says what it means."""

    channel: str
    error_code: str
    count: int


class CommunicationSummary(BaseModel):
    """A communication without its counts. ``registered`` is null of one that events alone have named. ``status`` is
    ``active``; ``complete``, where it has batches, and each is; or ``disabled``. ``switched`` are the latest 20 times
    that it was disabled or enabled, newest first."""

    id: str
    registered: Annotated[RegisteredOut | None, Of("settings")]
    status: str
    created_at: str | None
    updated_at: str | None
    batch_count: Annotated[int, Of("batches")]
    batches_complete: int
    switched: list[SwitchedOut]


class CommunicationOut(BaseModel):
    """All that is known of a communication. ``fulfilment`` has all six states, ``events`` the kinds that occurred to
    its messages, ``errors`` its messages by their error's code, the most frequent first, 100 at most. ``batches`` are
    the newest 100; ``more_batches``: ``/v1/batches`` has more."""

    id: Annotated[str, Of("communication.id")]
    registered: Annotated[RegisteredOut | None, Of("communication.settings")]
    status: Annotated[str, Of("communication.status")]
    fulfilment: Annotated[dict[str, int], Every]
    events: dict[str, int]
    messages: int
    engagement: EngagementOut
    replies: ReplyCountsOut
    errors: list[MessageErrorOut]
    batches: list[BatchOut]
    more_batches: bool
    batch_count: Annotated[int, Of("communication.batches")]
    batches_complete: Annotated[int, Of("communication.batches_complete")]
    switched: Annotated[list[SwitchedOut], Of("communication.switched")]
    created_at: Annotated[str | None, Of("communication.created_at_us")]
    updated_at: Annotated[str | None, Of("communication.updated_at_us")]
    last_event_at: str | None


class CommunicationPage(BaseModel):
    """Newest first. ``next_cursor`` is null on the last page."""

    communications: list[CommunicationSummary]
    next_cursor: Annotated[str | None, Of("next_page_token")]


class BatchPage(BaseModel):
    """Newest first. ``next_cursor`` is null on the last page."""

    batches: list[BatchOut]
    next_cursor: Annotated[str | None, Of("next_page_token")]


class DestinationOut(BaseModel):
    """One message to one person. ``message`` is the one that counts for it, null while none is known."""

    channel: str
    recipient: str
    message: MessageSummary | None


class MemberOut(BaseModel):
    """One person of a batch, by the sender's own key."""

    member_key: Annotated[str, Of("key")]
    attributes: dict[str, str]
    destinations: list[DestinationOut]


class BatchMembersOut(BatchOut):
    """A batch with its members, in an order of no meaning that never changes. ``next_cursor`` is null behind the last
    one."""

    members: list[MemberOut]
    next_cursor: str | None


COMMUNICATION: Twin[pb.DescribeCommunicationResponse] = Twin(
    CommunicationOut, pb.DescribeCommunicationResponse.DESCRIPTOR, _ENUMS, inside="counts"
)
COMMUNICATIONS: Twin[pb.ListCommunicationsResponse] = Twin(
    CommunicationPage, pb.ListCommunicationsResponse.DESCRIPTOR, _ENUMS
)
ONE_COMMUNICATION: Twin[pb.CommunicationInfo] = Twin(CommunicationSummary, pb.CommunicationInfo.DESCRIPTOR, _ENUMS)
BATCHES: Twin[pb.ListBatchesResponse] = Twin(BatchPage, pb.ListBatchesResponse.DESCRIPTOR, _ENUMS)
ONE_BATCH: Twin[pb.Batch] = Twin(BatchOut, pb.Batch.DESCRIPTOR, _ENUMS)
MEMBER: Twin[pb.Member] = Twin(MemberOut, pb.Member.DESCRIPTOR, _ENUMS)
