"""Lines as the facts that they are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeVar

from backhaul_common.errors import BackhaulError, Code, Violation
from backhaul_common.ids import derived_id
from backhaul_common.lines.line import UNREADABLE, Line
from backhaul_common.tenants import SuppressionSettings

from backhaul_suppression.addresses import address_of, scope_id, spellings
from backhaul_suppression.files import times
from backhaul_suppression.files.columns import STANDING
from backhaul_suppression.messages import MAX_SCOPE_ID
from backhaul_suppression.model import (
    EVERYTHING,
    Address,
    Evidence,
    Fact,
    Family,
    Kind,
    Origin,
    RowKey,
    Scope,
    ScopeKind,
    Source,
    Target,
)
from backhaul_suppression.rules import wrong_with_scope
from backhaul_suppression.validity import MAX_AHEAD_S, MAX_NOTE, MAX_REFERENCE

_UNREADABLE = re.compile(rf"[\x00-\x1f\x7f-\x9f{UNREADABLE}]")

_LAST, _LAST_BUT_ONE = "ffffffff", "fffffffe"
"""Begin the ids of imported facts, and of those whose lines tell no time. Of two facts of one moment the lower id
counts, and a list that says again when somebody said something must not take the place of what they said, nor of what
an earlier list did without a time: an export that comes home changes nothing."""

Word = TypeVar("Word", bound=StrEnum)


class LineError(Exception):
    """Nothing is made of a line, and why."""

    def __init__(self, problem: Violation) -> None:
        super().__init__(problem.message)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Defaults:
    """Whose list it is, and what holds for lines that do not say it themselves.

    ``operator``: it is sent in the operator's name, who alone may suppress for legal reasons. ``effective_at_us`` 0 is
    the time of the line's first import. ``now_us`` is now. ``settings`` are the tenant's.
    """

    tenant_id: str
    registration: str
    now_us: int
    kind: Kind = Kind.MANUAL
    family: Family | None = None
    scope: Scope = EVERYTHING
    effective_at_us: int = 0
    operator: bool = False
    author: str = ""
    traceparent: str = ""
    settings: SuppressionSettings = field(default_factory=SuppressionSettings)


def fact_of(line: Line, defaults: Defaults) -> Fact | None:
    """The fact that a line is; None for a row that was lifted, which an import leaves alone. LineError.

    Its id depends on which row it is about and from when on, so the same line is the same fact whenever it is sent. Of
    a line without a time the id has none: what it said the first time counts for ever.
    """
    if line.problem is not None:
        raise LineError(line.problem)
    values = line.values
    standing = values.get(STANDING, "active").strip().lower()
    if standing not in ("active", "lifted"):
        raise _wrong(STANDING, f"{standing[:80]!r} is no standing.", "Write active or lifted.")
    family = _word(Family, "family", values) or defaults.family
    text = _readable("address", values)
    try:
        address = address_of(defaults.registration, text, family)
    except BackhaulError as exc:
        if exc.code is not Code.INVALID_ARGUMENT:
            raise
        raise LineError(exc.violations[0] if exc.violations else Violation("address", exc.message)) from exc
    kind = _word(Kind, "kind", values) or defaults.kind
    if kind is Kind.LEGAL and not defaults.operator:
        raise _wrong("kind", "Only the operator suppresses for legal reasons.", "Write manual.")
    scope = _scope(values, defaults.scope)
    if (wrong := wrong_with_scope(kind, scope)) is not None:
        raise _wrong("scope_kind", wrong.message, wrong.fix)
    at_us = _effective_at(values, defaults)
    source = _word(Source, "source", values) or Source.FILE
    reference = _text("reference", values, MAX_REFERENCE)
    note = _text("note", values, MAX_NOTE)
    target = Target(kind, scope)
    # The clock of whoever wrote the list may be ahead. Until that time no START would be heard.
    effective_at_us = min(at_us or defaults.now_us, defaults.now_us)
    if standing == "lifted":
        return None
    return Fact(
        id=_id(address, target, at_us),
        tenant_id=defaults.tenant_id,
        address=address,
        lifts=False,
        targets=(target,),
        effective_at_us=effective_at_us,
        recorded_at_us=defaults.now_us,
        origin=Origin.IMPORT,
        source=source,
        author=defaults.author,
        evidence=Evidence(source, effective_at_us, reference) if reference else None,
        note=note,
        traceparent=defaults.traceparent,
    )


def facts_of(line: Line, defaults: Defaults) -> Sequence[Fact]:
    """``fact_of``, and the same about every other address that the tenant's setting takes for the same one, each as the
    line would be that names it: a list may name both. LineError."""
    fact = fact_of(line, defaults)
    if fact is None:
        return ()
    first, *others = spellings(fact.address, defaults.settings)
    (target,) = fact.targets
    at_us = _effective_at(line.values, defaults)
    return [fact, *(replace(fact, id=_id(other, target, at_us), address=other) for other in others if other != first)]


def _id(address: Address, target: Target, at_us: int) -> str:
    """The id of a line's fact; ``at_us`` 0 where it tells no time."""
    begin = _LAST if at_us else _LAST_BUT_ONE
    return begin + derived_id("import", RowKey(address, target.kind, target.scope).id, str(at_us))[len(begin) :]


def _effective_at(values: Mapping[str, str], defaults: Defaults) -> int:
    """0 where neither the line nor the defaults say it."""
    if "effective_at" not in values:
        return defaults.effective_at_us
    try:
        at_us = times.microseconds(values["effective_at"])
    except ValueError:
        at_us = 0
    if at_us <= 0:
        raise _wrong(
            "effective_at",
            f"{values['effective_at'][:80]!r} is no time.",
            "Write it with its zone, as 2026-01-31T12:00:00Z, or a day in UTC, as 2026-01-31.",
        )
    if at_us > defaults.now_us + MAX_AHEAD_S * 1_000_000:
        raise _wrong("effective_at", "The time is yet to come.", "Import the line when its time has come.")
    return at_us


def _scope(values: Mapping[str, str], default: Scope) -> Scope:
    kind = _word(ScopeKind, "scope_kind", values)
    text = _readable("scope", values)
    if kind is None:
        if text:
            raise _wrong("scope_kind", "The line names a scope, and not what it is.", "Write what the scope is.")
        return default
    if kind is ScopeKind.ALL:
        if text:
            raise _wrong("scope", "The scope all has no id.", "Leave scope empty, or write another scope_kind.")
        return EVERYTHING
    if not text:
        raise _wrong("scope", f"The line does not name the {kind.replace('_', ' ')}.", "Write its id.")
    if len(text) > MAX_SCOPE_ID:
        raise _wrong("scope", f"The scope has more than {MAX_SCOPE_ID} characters.", "Check the id.")
    return Scope(kind, scope_id(kind, text))


def _word(words: type[Word], field: str, values: Mapping[str, str]) -> Word | None:
    text = values.get(field, "").strip().lower()
    if not text:
        return None
    try:
        return words(text)
    except ValueError:
        raise _wrong(field, f"{text[:80]!r} is no {field}.", f"Write one of these: {', '.join(words)}.") from None


def _readable(field: str, values: Mapping[str, str]) -> str:
    text = values.get(field, "").strip()
    if _UNREADABLE.search(text):
        raise _wrong(
            field, "It holds characters that cannot be read or cannot be seen.", "Write it anew, without copying it."
        )
    return text


def _text(field: str, values: Mapping[str, str], limit: int) -> str:
    text = values.get(field, "")
    if len(text) > limit:
        raise _wrong(field, f"It has more than {limit} characters.", "Shorten it.")
    return text


def _wrong(field: str, message: str, fix: str) -> LineError:
    return LineError(Violation(field, message, fix))
