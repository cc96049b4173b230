"""What may be wrong with what a caller says, whatever is stored."""

from __future__ import annotations

from collections.abc import Iterable

from backhaul_common.errors import BackhaulError, Code, Violation

from backhaul_suppression.model import Evidence

MAX_NOTE = 512
MAX_REFERENCE = 512
MAX_EVIDENCE_TEXT = 1000
MAX_IDEMPOTENCY_KEY = 255
MAX_AUTHOR = 128

MAX_AHEAD_S = 60
"""How far a caller's clock may be ahead: what happened later than now by less than this happened now."""

_WHEN = "Pass when it happened: RFC 3339 by REST, unix time in microseconds over gRPC."


def wrong_with_texts(note: str, idempotency_key: str) -> Iterable[Violation]:
    """Of what every command has."""
    return [
        *_too_long("note", note, MAX_NOTE),
        *_too_long("idempotency_key", idempotency_key, MAX_IDEMPOTENCY_KEY),
    ]


def wrong_with_evidence(evidence: Evidence, now_us: int, *, whole: bool) -> Iterable[Violation]:
    """Of evidence. What proves a consent must be ``whole``; what comes with an opt-out may be whatever there is."""
    missing = [
        Violation(f"evidence.{field}", "It is missing.", fix)
        for field, value, fix in (
            ("at_us", evidence.at_us, "Say when the person said it."),
            ("reference", evidence.reference.strip(), "Say where the tenant finds it."),
        )
        if whole and not value
    ]
    return [
        *missing,
        *wrong_with_time("evidence.at_us", evidence.at_us, now_us),
        *_too_long("evidence.reference", evidence.reference, MAX_REFERENCE),
        *_too_long("evidence.text", evidence.text, MAX_EVIDENCE_TEXT),
    ]


def wrong_with_time(field: str, at_us: int, now_us: int) -> Iterable[Violation]:
    """Of a time, in unix time in microseconds; 0 is none."""
    if at_us < 0:
        return [Violation(field, "It is before 1970.", _WHEN)]
    if at_us > now_us + MAX_AHEAD_S * 1_000_000:
        return [Violation(field, "It is in the future.", _WHEN)]
    return []


def require_valid(violations: Iterable[Violation]) -> None:
    """INVALID_ARGUMENT that names all of ``violations``, if there are any."""
    wrong = list(violations)
    if wrong:
        message = f"{wrong[0].field}: {wrong[0].message}"
        raise BackhaulError(Code.INVALID_ARGUMENT, message, violations=wrong)


def _too_long(field: str, text: str, most: int) -> Iterable[Violation]:
    return [Violation(field, f"It has more than {most} characters.", "Shorten it.")] if len(text) > most else []
