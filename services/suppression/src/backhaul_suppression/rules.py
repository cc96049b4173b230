"""What each kind of suppression blocks, and who may lift it. Tables, and how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from itertools import product
from typing import Final, NamedTuple

from backhaul_common.errors import Violation

from backhaul_suppression.model import Evidence, Kind, Purpose, Row, Scope, ScopeKind, Sending

_ANY = frozenset(Purpose)
_MARKETING = frozenset({Purpose.MARKETING})

BLOCKS: Final[Mapping[Kind, frozenset[Purpose]]] = {
    Kind.STOP: _ANY,
    Kind.UNSUBSCRIBE: _MARKETING,
    Kind.COMPLAINT: _MARKETING,
    Kind.HARD_BOUNCE: _ANY,
    Kind.INVALID_ADDRESS: _ANY,
    Kind.PROVIDER_BLOCK: _ANY,
    Kind.MANUAL: _ANY,
    Kind.LEGAL: _ANY,
}
"""Which purposes each kind blocks. A question without a purpose is about any, so every kind blocks it."""


class Who(StrEnum):
    """Who lifts, and by what."""

    # The person's own word, in an event: START, a resubscription.
    RECIPIENT = "recipient"
    # The provider's word, in an event.
    PROVIDER = "provider"
    # A message that was delivered after all.
    DELIVERY = "delivery"
    # The tenant's call ``Lift``.
    TENANT = "tenant"
    # The tenant's, or the operator's, call ``Reactivate``.
    REACTIVATE = "reactivate"
    # The operator's call ``Lift``.
    OPERATOR = "operator"


class Lifting(StrEnum):
    """Whether somebody may lift something."""

    YES = "yes"
    WITH_EVIDENCE = "with_evidence"
    NO = "no"


class Rule(NamedTuple):
    """The rule of one kind: its name, which refusals tell, and what it says."""

    name: str
    text: str


RULES: Final[Mapping[Kind, Rule]] = {
    Kind.STOP: Rule(
        "stop_by_recipient",
        "A STOP is lifted by the person's own START, or by the tenant with evidence that the person consents.",
    ),
    Kind.UNSUBSCRIBE: Rule(
        "unsubscribe_by_recipient",
        "An unsubscription is lifted by the person, who subscribes again, or by the tenant with evidence that the "
        "person consents.",
    ),
    Kind.COMPLAINT: Rule(
        "complaint_by_recipient", "A complaint is lifted by the person alone, in an event by which they opt in."
    ),
    Kind.HARD_BOUNCE: Rule(
        "hard_bounce_by_delivery", "A hard bounce is lifted by a later delivery to the address, or by Reactivate."
    ),
    Kind.INVALID_ADDRESS: Rule(
        "invalid_address_by_delivery",
        "An invalid address is lifted by a later delivery to the address, or by Reactivate.",
    ),
    Kind.PROVIDER_BLOCK: Rule(
        "provider_block_by_provider",
        "A provider's block is lifted when the provider acts upon the person's START; that of one sender or messaging "
        "service also by a later delivery from it.",
    ),
    Kind.MANUAL: Rule(
        "manual_by_tenant", "What the tenant suppressed is lifted by Lift, of the tenant or the operator."
    ),
    Kind.LEGAL: Rule(
        "legal_by_operator",
        "What was suppressed for legal reasons is lifted by whoever runs Backhaul, and nobody else.",
    ),
}

EVIDENCE_BEFORE: Final = Rule(
    "evidence_after_suppression",
    "The evidence is of a time before the suppression: whoever consented then has said no since.",
)

_MAY: Final[Mapping[tuple[Kind, Who], Lifting]] = {
    (Kind.STOP, Who.RECIPIENT): Lifting.YES,
    (Kind.STOP, Who.TENANT): Lifting.WITH_EVIDENCE,
    (Kind.UNSUBSCRIBE, Who.RECIPIENT): Lifting.YES,
    (Kind.UNSUBSCRIBE, Who.TENANT): Lifting.WITH_EVIDENCE,
    (Kind.COMPLAINT, Who.RECIPIENT): Lifting.YES,
    (Kind.HARD_BOUNCE, Who.DELIVERY): Lifting.YES,
    (Kind.HARD_BOUNCE, Who.REACTIVATE): Lifting.YES,
    (Kind.INVALID_ADDRESS, Who.DELIVERY): Lifting.YES,
    (Kind.INVALID_ADDRESS, Who.REACTIVATE): Lifting.YES,
    (Kind.PROVIDER_BLOCK, Who.PROVIDER): Lifting.YES,
    (Kind.PROVIDER_BLOCK, Who.DELIVERY): Lifting.YES,
    (Kind.MANUAL, Who.TENANT): Lifting.YES,
    (Kind.MANUAL, Who.OPERATOR): Lifting.YES,
    (Kind.LEGAL, Who.OPERATOR): Lifting.YES,
}

LIFTING: Final[Mapping[tuple[Kind, Who], Lifting]] = {pair: _MAY.get(pair, Lifting.NO) for pair in product(Kind, Who)}
"""Whether each may lift each kind: total. Nobody lifts what is not said here that they may."""


_COVERS: Final[Mapping[Kind, frozenset[ScopeKind]]] = {
    Kind.COMPLAINT: frozenset({ScopeKind.ALL}),
    Kind.PROVIDER_BLOCK: frozenset({ScopeKind.ALL, ScopeKind.SENDER, ScopeKind.MESSAGING_SERVICE}),
}
"""What those kinds cover that events alone lift: no provider blocks a group, and nobody complains of one sender alone.
Whoever said so would suppress for ever."""


def wrong_with_scope(kind: Kind, scope: Scope) -> Violation | None:
    """Why no call and no list may suppress for ``kind`` in this scope: nobody could lift it. None where they may."""
    covers = _COVERS.get(kind)
    if covers is None or scope.kind in covers:
        return None
    fits = " or ".join(one for one in ScopeKind if one in covers)
    return Violation(
        "scope.kind",
        f"No event ever lifts a {kind} of one {scope.kind.replace('_', ' ')}, and nobody else may.",
        f"Name the scope {fits}, or another kind: manual is the tenant's to lift.",
    )


def refusal(kind: Kind, who: Who, evidence: Evidence | None = None, row: Row | None = None) -> Rule | None:
    """The rule by which ``who`` may not lift ``row`` of ``kind``; None if they may. ``row`` is the one as it is now."""
    may = LIFTING[kind, who]
    if may is Lifting.YES:
        return None
    if may is Lifting.NO or evidence is None or evidence.at_us <= 0 or not evidence.reference.strip():
        return RULES[kind]
    if row is not None and row.active and evidence.at_us < row.since_us:
        return EVIDENCE_BEFORE
    return None


def lifted_by(who: Who) -> frozenset[Kind]:
    """What ``who`` lifts without evidence."""
    return frozenset(kind for kind in Kind if LIFTING[kind, who] is Lifting.YES)


def blocks(kind: Kind, scope: Scope, sending: Sending) -> bool:
    """Whether an active row of this kind and scope says no to ``sending``."""
    if sending.purpose is not None and sending.purpose not in BLOCKS[kind]:
        return False
    match scope.kind:
        case ScopeKind.ALL:
            return True
        case ScopeKind.SENDER:
            asked = sending.sender
        case ScopeKind.MESSAGING_SERVICE:
            asked = sending.messaging_service
        case ScopeKind.GROUP:
            asked = sending.group
    return asked is None or asked == scope.id
