"""What tenants and the platform team are answered about suppressions.

The models are the documentation, and what is written: each twin fills one from suppression's answer.
"""

from __future__ import annotations

from typing import Annotated

from backhaul_common.vocabulary import Words
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from pydantic import BaseModel

from backhaul_gateway.twins.twin import Of, Twin

FAMILIES = Words(event_pb2.AddressFamily.DESCRIPTOR)
KINDS = Words(pb.SuppressionKind.DESCRIPTOR)
ORIGINS = Words(pb.Origin.DESCRIPTOR)
SOURCES = Words(pb.Source.DESCRIPTOR)
SCOPES = Words(pb.ScopeKind.DESCRIPTOR)
PURPOSES = Words(pb.Purpose.DESCRIPTOR)
STANDINGS = Words(pb.Standing.DESCRIPTOR)


class ScopeOut(BaseModel):
    """What a suppression covers: ``all`` that reaches the address, or one ``sender``, ``messaging_service`` or
    ``group``, by its ``id``; null of ``all``."""

    kind: str
    id: str | None


class SuppressionOut(BaseModel):
    """Whether an address is suppressed for one kind of reason within one scope. A row that is not ``active`` was
    lifted, and suppresses nothing. ``since`` is when it happened at its source (of a lifted row, when it was lifted),
    ``recorded_at`` when that was heard of. Either ``event_id`` or ``author`` says by whose word. ``due_by``: by when it
    must be honoured. ``blocks`` are the purposes that it blocks. ``position`` is that of its last change."""

    id: str
    family: str
    address: str
    kind: str
    scope: ScopeOut
    active: bool
    since: str | None
    recorded_at: str | None
    origin: str
    source: str
    event_id: str | None
    author: str | None
    due_by: str | None
    blocks: list[str]
    position: int


class EvidenceOut(BaseModel):
    """Proof that a person said something, where the tenant finds it, and when the person said it."""

    source: str
    at: str | None
    reference: str
    text: str


class FactOut(BaseModel):
    """What was said about an address: by an event, or by a call. Unless it ``lifts``, it suppresses. ``author`` is
    ``key:…`` (a tenant's API key), ``service:…`` (an internal service), ``operator`` or ``backhaul``; null of an
    event. ``word`` is the keyword, or the provider's code or status."""

    id: str
    lifts: bool
    effective_at: str | None
    recorded_at: str | None
    origin: str
    source: str
    event_id: str | None
    author: str | None
    evidence: EvidenceOut | None
    channel: str
    message_id: str
    word: str
    note: str


class ChangeOut(BaseModel):
    """One change of one row: the row as it is since, and what brought it about. ``position`` counts the tenant's
    changes from 1, without gaps, in the order in which they became true here."""

    position: int
    at: str | None
    suppression: SuppressionOut
    fact: FactOut


class SuppressionPage(BaseModel):
    """The latest change first. ``next_cursor`` is null on the last page."""

    suppressions: list[SuppressionOut]
    next_cursor: Annotated[str | None, Of("next_page_token")]


class AddressOut(BaseModel):
    """All that is known of an address, in its canonical form: every row, lifted ones too, and a page of what was
    changed, the latest first."""

    address: str
    family: str
    suppressions: list[SuppressionOut]
    history: list[ChangeOut]
    next_cursor: Annotated[str | None, Of("next_page_token")]


class ChangedOut(BaseModel):
    """The row as it is now, and whether this call changed it."""

    suppression: SuppressionOut
    changed: bool


class ReactivatedOut(BaseModel):
    """The rows that were lifted; none where none was there."""

    suppressions: list[SuppressionOut]


class BlockingOut(BaseModel):
    """A row that says no: since when, and the event that says so; null where it was a call."""

    suppression_id: str
    kind: str
    scope: ScopeOut
    since: str | None
    event_id: str | None


class CheckOut(BaseModel):
    """``verdict`` is ``allowed`` or ``suppressed``; then each row that says no is in ``blocking``. Take any other word
    for *suppressed*."""

    verdict: str
    blocking: list[BlockingOut]


class ItemErrorOut(BaseModel):
    """What is wrong with one address of a batch, and how to mend it."""

    field: str
    message: str
    fix: str


class CheckResultOut(BaseModel):
    """The answer about one address of a batch. ``verdict`` is ``allowed``, ``suppressed``, or ``invalid`` with the
    ``error``: nothing is known then. Take any other word for *suppressed*."""

    correlation_id: str
    verdict: str
    blocking: list[BlockingOut]
    error: ItemErrorOut | None


class CheckBatchOut(BaseModel):
    """One result for each address, in their order."""

    results: list[CheckResultOut]


SUPPRESSIONS: Twin[pb.ListResponse] = Twin(SuppressionPage, pb.ListResponse.DESCRIPTOR)
ADDRESS: Twin[pb.GetResponse] = Twin(AddressOut, pb.GetResponse.DESCRIPTOR)
ADDED: Twin[pb.AddResponse] = Twin(ChangedOut, pb.AddResponse.DESCRIPTOR)
LIFTED: Twin[pb.LiftResponse] = Twin(ChangedOut, pb.LiftResponse.DESCRIPTOR)
REACTIVATED: Twin[pb.ReactivateResponse] = Twin(ReactivatedOut, pb.ReactivateResponse.DESCRIPTOR)
CHECKED: Twin[pb.CheckResponse] = Twin(CheckOut, pb.CheckResponse.DESCRIPTOR)
BATCH_CHECKED: Twin[pb.CheckBatchResponse] = Twin(CheckBatchOut, pb.CheckBatchResponse.DESCRIPTOR)
CHANGE: Twin[pb.Change] = Twin(ChangeOut, pb.Change.DESCRIPTOR)
