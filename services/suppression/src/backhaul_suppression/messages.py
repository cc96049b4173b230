"""Values to protobuf and back. What comes from outside is checked here for what the contract itself says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.vocabulary import Values
from backhaul_proto.event.v1.event_pb2 import AddressFamily
from backhaul_proto.suppression.v1 import suppression_pb2 as pb

from backhaul_suppression import addresses, rules
from backhaul_suppression.model import (
    EVERYTHING,
    Blocked,
    Change,
    Evidence,
    Fact,
    Family,
    Kind,
    Origin,
    Purpose,
    Row,
    Scope,
    ScopeKind,
    Sending,
    Source,
)

MAX_SCOPE_ID = 256
"""Characters of a sender's, a messaging service's or a group's id."""

FAMILIES = Values(AddressFamily.DESCRIPTOR, Family)
KINDS = Values(pb.SuppressionKind.DESCRIPTOR, Kind)
ORIGINS = Values(pb.Origin.DESCRIPTOR, Origin)
SOURCES = Values(pb.Source.DESCRIPTOR, Source)
SCOPE_KINDS = Values(pb.ScopeKind.DESCRIPTOR, ScopeKind)
PURPOSES = Values(pb.Purpose.DESCRIPTOR, Purpose)

_ANY_SENDING = Sending()
_SENDING: tuple[tuple[ScopeKind, Literal["sender", "messaging_service", "group"]], ...] = (
    (ScopeKind.SENDER, "sender"),
    (ScopeKind.MESSAGING_SERVICE, "messaging_service"),
    (ScopeKind.GROUP, "group"),
)
"""The fields of ``Sending`` behind the purpose, in their order."""

_ACTIVE: Mapping[int, bool | None] = {
    pb.STANDING_UNSPECIFIED: True,
    pb.STANDING_ACTIVE: True,
    pb.STANDING_LIFTED: False,
    pb.STANDING_ANY: None,
}


def active_of(standing: int) -> bool | None:
    """Whether rows are asked for that are active; None for any. INVALID_ARGUMENT, of ``standing``."""
    if standing not in _ACTIVE:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            f"standing has no value {standing}.",
            field="standing",
            fix="Known are: active, lifted, any.",
        )
    return _ACTIVE[standing]


def sending_of(request: pb.CheckRequest | pb.CheckBatchRequest | pb.CheckStreamRequest) -> Sending:
    """What is to be sent. INVALID_ARGUMENT names the field."""
    if not request.HasField("sending"):
        return _ANY_SENDING
    sending = request.sending
    ids = [
        _id_of(kind, getattr(sending, name), f"sending.{name}") if sending.HasField(name) else None
        for kind, name in _SENDING
    ]
    return Sending(PURPOSES.value(sending.purpose, "sending.purpose"), *ids)


def scope_of(scope: pb.Scope) -> Scope:
    """The scope; everything where it says nothing. INVALID_ARGUMENT names the field."""
    kind = SCOPE_KINDS.value(scope.kind, "scope.kind")
    if kind is None or kind is ScopeKind.ALL:
        if scope.id:
            raise BackhaulError(
                Code.INVALID_ARGUMENT,
                "A scope that is everything has no id.",
                field="scope.id",
                fix="Leave it out, or name the kind of scope.",
            )
        return EVERYTHING
    if not scope.id.strip():
        raise BackhaulError(
            Code.INVALID_ARGUMENT, f"A scope of one {kind} needs its id.", field="scope.id", fix="Name it."
        )
    return Scope(kind, _id_of(kind, scope.id, "scope.id"))


def _id_of(kind: ScopeKind, text: str, field: str) -> str:
    if len(text) > MAX_SCOPE_ID:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            f"{field} has more than {MAX_SCOPE_ID} characters.",
            field=field,
            fix="Pass the id as the provider or the tenant has it.",
        )
    return addresses.scope_id(kind, text)


def evidence_of(request: pb.AddRequest | pb.LiftRequest) -> Evidence | None:
    """The evidence, None where there is none. INVALID_ARGUMENT names the field."""
    if not request.HasField("evidence"):
        return None
    evidence = request.evidence
    source = SOURCES.value(evidence.source, "evidence.source")
    if source is None or source is Source.EVENT:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            "evidence.source is missing, or is event, which callers do not have.",
            field="evidence.source",
            fix="Say where the person said it: web, agent, email, voice, letter, api or file.",
        )
    return Evidence(source, evidence.at_us, evidence.reference, evidence.text)


def scope_message(scope: Scope) -> pb.Scope:
    """The message of a scope."""
    return pb.Scope(kind=SCOPE_KINDS.number(scope.kind), id=scope.id)


def blocking_message(blocked: Blocked) -> pb.Blocking:
    """The message of a row that says no."""
    return pb.Blocking(
        suppression_id=blocked.id,
        kind=KINDS.number(blocked.kind),
        scope=scope_message(blocked.scope),
        since_us=blocked.since_us,
        event_id=blocked.event_id,
    )


def suppression_message(row: Row) -> pb.Suppression:
    """The message of a row."""
    key = row.key
    return pb.Suppression(
        id=key.id,
        family=FAMILIES.number(key.address.family),
        address=key.address.text,
        kind=KINDS.number(key.kind),
        scope=scope_message(key.scope),
        active=row.active,
        since_us=row.since_us,
        recorded_at_us=row.recorded_at_us,
        origin=ORIGINS.number(row.origin),
        source=SOURCES.number(row.source),
        event_id=row.event_id,
        author=row.author,
        due_by_us=row.due_by_us,
        blocks=[PURPOSES.number(purpose) for purpose in sorted(rules.BLOCKS[key.kind])],
        position=row.position,
    )


def fact_message(fact: Fact) -> pb.Fact:
    """The message of a fact."""
    return pb.Fact(
        id=fact.id,
        lifts=fact.lifts,
        effective_at_us=fact.effective_at_us,
        recorded_at_us=fact.recorded_at_us,
        origin=ORIGINS.number(fact.origin),
        source=SOURCES.number(fact.source),
        event_id=fact.event_id,
        author=fact.author,
        evidence=_evidence_message(fact.evidence) if fact.evidence is not None else None,
        channel=fact.channel,
        message_id=fact.message_id,
        word=fact.word,
        note=fact.note,
    )


def change_message(change: Change) -> pb.Change:
    """The message of a change."""
    return pb.Change(
        position=change.position,
        suppression=suppression_message(change.row),
        fact=fact_message(change.fact),
        at_us=change.at_us,
    )


def _evidence_message(evidence: Evidence) -> pb.Evidence:
    return pb.Evidence(
        source=SOURCES.number(evidence.source),
        at_us=evidence.at_us,
        reference=evidence.reference,
        text=evidence.text,
    )
