"""Values as protobuf has them, and back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar

from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.suppression.v1 import suppression_pb2 as pb

from backhaul_client.errors import FieldError, UnexpectedAnswerError
from backhaul_client.suppression.models import (
    Actor,
    Answer,
    Blocking,
    Change,
    Evidence,
    Fact,
    Family,
    FileFormat,
    Kind,
    Origin,
    Outcome,
    Progress,
    Purpose,
    Record,
    Scope,
    ScopeKind,
    Sending,
    Source,
    Standing,
    Suppression,
    Verdict,
)

W = TypeVar("W", bound=StrEnum)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_UNKNOWN = "UNKNOWN"

ENUMS: Mapping[type[StrEnum], tuple[Any, str]] = {
    Family: (event_pb2.AddressFamily, "ADDRESS_FAMILY_"),
    Kind: (pb.SuppressionKind, "SUPPRESSION_KIND_"),
    Origin: (pb.Origin, "ORIGIN_"),
    Source: (pb.Source, "SOURCE_"),
    Purpose: (pb.Purpose, "PURPOSE_"),
    ScopeKind: (pb.ScopeKind, "SCOPE_KIND_"),
    Standing: (pb.Standing, "STANDING_"),
    Actor: (pb.Actor, "ACTOR_"),
    FileFormat: (pb.FileFormat, "FILE_FORMAT_"),
    Verdict: (pb.Verdict, "VERDICT_"),
}
"""Of each enum of words protobuf's, and what its names begin with."""

_NUMBERS: Mapping[type[StrEnum], Mapping[str, int]] = {
    words: {member: enum.Value(prefix + member.name) for member in words if prefix + member.name in enum.keys()}  # noqa: SIM118  # a wrapper of protobuf's, not a mapping
    for words, (enum, prefix) in ENUMS.items()
}
_WORDS: Mapping[type[StrEnum], Mapping[int, Any]] = {
    words: {number: member for member, number in numbers.items()} for words, numbers in _NUMBERS.items()
}


def number(words: type[StrEnum], word: str | None) -> Any:
    """The number of a word; 0 of None. ValueError for one that cannot be sent."""
    if word is None:
        return 0
    try:
        return _NUMBERS[words][word]
    except KeyError:
        raise ValueError(f"{word!r} is no {words.__name__} that can be sent.") from None


def word(words: type[W], value: int) -> W:
    """The word of a number; UNKNOWN of one that is newer than this client, or says nothing."""
    found: W | None = _WORDS[words].get(value)
    return words[_UNKNOWN] if found is None else found


def micros(moment: datetime | None) -> int:
    """Unix time in microseconds; 0 of None. ValueError for a moment without a time zone."""
    if moment is None:
        return 0
    if moment.tzinfo is None:
        raise ValueError("The time has no time zone: use datetime(…, tzinfo=UTC).")
    return (moment - _EPOCH) // _MICROSECOND


def moment(us: int) -> datetime:
    """The moment of a unix time in microseconds."""
    try:
        return _EPOCH + us * _MICROSECOND
    except OverflowError as exc:
        raise UnexpectedAnswerError(f"{us} is no time in microseconds.") from exc


def to_scope(scope: Scope) -> pb.Scope:
    """See ``Scope``."""
    return pb.Scope(kind=number(ScopeKind, scope.kind), id=scope.id)


def to_sending(sending: Sending) -> pb.Sending:
    """See ``Sending``."""
    return pb.Sending(
        purpose=number(Purpose, sending.purpose),
        sender=sending.sender,
        messaging_service=sending.messaging_service,
        group=sending.group,
    )


def to_evidence(evidence: Evidence | None) -> pb.Evidence | None:
    """See ``Evidence``."""
    if evidence is None:
        return None
    return pb.Evidence(
        source=number(Source, evidence.source),
        at_us=micros(evidence.at),
        reference=evidence.reference,
        text=evidence.text,
    )


def answer(address: str, result: pb.CheckResponse | pb.CheckResult) -> Answer:
    """The answer about ``address``. UnexpectedAnswerError for a verdict that this client does not know: whatever it
    means, it is not "allowed"."""
    verdict: Verdict | None = _WORDS[Verdict].get(result.verdict)
    if verdict is Verdict.ALLOWED and not result.blocking:
        # What most answers are.
        return Answer(address=address, verdict=verdict, correlation_id=getattr(result, "correlation_id", ""))
    if verdict is None or verdict is Verdict.ALLOWED:
        raise UnexpectedAnswerError(f"The verdict {result.verdict} with {len(result.blocking)} rows that block.")
    error = None
    if isinstance(result, pb.CheckResult) and result.HasField("error"):
        error = FieldError(result.error.field, result.error.message, result.error.fix)
    return Answer(
        address=address,
        verdict=verdict,
        blocking=tuple(_blocking(row) for row in result.blocking),
        correlation_id=getattr(result, "correlation_id", ""),
        error=error,
    )


def suppression(row: pb.Suppression) -> Suppression:
    """See ``Suppression``."""
    return Suppression(
        id=row.id,
        family=word(Family, row.family),
        address=row.address,
        kind=word(Kind, row.kind),
        scope=_scope(row.scope),
        active=row.active,
        since=moment(row.since_us),
        recorded_at=moment(row.recorded_at_us),
        origin=word(Origin, row.origin),
        source=word(Source, row.source),
        event_id=row.event_id,
        author=row.author,
        due_by=moment(row.due_by_us) if row.due_by_us else None,
        blocks=tuple(word(Purpose, purpose) for purpose in row.blocks),
        position=row.position,
    )


def change(sent: pb.Change) -> Change:
    """See ``Change``."""
    return Change(
        position=sent.position,
        suppression=suppression(sent.suppression),
        fact=_fact(sent.fact),
        at=moment(sent.at_us),
    )


def outcome(sent: pb.AddResponse | pb.LiftResponse, idempotency_key: str) -> Outcome:
    """See ``Outcome``."""
    return Outcome(suppression=suppression(sent.suppression), changed=sent.changed, idempotency_key=idempotency_key)


def record(sent: pb.GetResponse) -> Record:
    """See ``Record``."""
    return Record(
        address=sent.address,
        family=word(Family, sent.family),
        suppressions=tuple(suppression(row) for row in sent.suppressions),
        history=tuple(change(one) for one in sent.history),
        next_cursor=sent.next_page_token,
    )


def progress(sent: pb.ImportResponse) -> Progress:
    """See ``Progress``."""
    return Progress(
        lines=sent.lines, changed=sent.changed, unchanged=sent.unchanged, refused=sent.refused, done=sent.done
    )


def _scope(scope: pb.Scope) -> Scope:
    return Scope(word(ScopeKind, scope.kind) if scope.kind else ScopeKind.ALL, scope.id)


def _blocking(row: pb.Blocking) -> Blocking:
    return Blocking(
        suppression_id=row.suppression_id,
        kind=word(Kind, row.kind),
        scope=_scope(row.scope),
        since=moment(row.since_us),
        event_id=row.event_id,
    )


def _fact(fact: pb.Fact) -> Fact:
    evidence = None
    if fact.HasField("evidence"):
        evidence = Evidence(
            source=word(Source, fact.evidence.source),
            at=moment(fact.evidence.at_us),
            reference=fact.evidence.reference,
            text=fact.evidence.text,
        )
    return Fact(
        id=fact.id,
        lifts=fact.lifts,
        effective_at=moment(fact.effective_at_us),
        recorded_at=moment(fact.recorded_at_us),
        origin=word(Origin, fact.origin),
        source=word(Source, fact.source),
        event_id=fact.event_id,
        author=fact.author,
        evidence=evidence,
        channel=fact.channel,
        message_id=fact.message_id,
        word=fact.word,
        note=fact.note,
    )
