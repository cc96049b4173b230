"""Facts, rows and changes as documents, and back. An empty value is no field.

A change holds the row and the fact as they were then: whoever follows changes needs no second read, and the history
stays what it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from backhaul_common.documents import Document

from backhaul_suppression.model import (
    Address,
    Change,
    Evidence,
    Fact,
    Family,
    Kind,
    Origin,
    Row,
    RowKey,
    Scope,
    ScopeKind,
    Source,
    Target,
)
from backhaul_suppression.standing import Standing

COUNTER = "all"
"""The document that counts the changes of all tenants. No registration is called so: each has a dot."""

_FACT_TEXTS = ("event_id", "author", "channel", "message_id", "word", "note", "traceparent")
_ROW_TEXTS = ("event_id", "author")


def rows_of(fact: Fact) -> dict[str, RowKey]:
    """The rows that ``fact`` is about, by id, in the order of its targets."""
    keys = [RowKey(fact.address, target.kind, target.scope) for target in fact.targets]
    return {key.id: key for key in keys}


def fact_document(fact: Fact, rows: Iterable[str]) -> Document:
    """What is stored of ``fact``, which is about ``rows``."""
    registration, family, address = fact.address
    return {
        "_id": fact.id,
        "registration": registration,
        "family": family.value,
        "address": address,
        "rows": list(rows),
        **_said(fact),
    }


def to_fact(document: Mapping[str, Any]) -> Fact:
    """The fact of a document."""
    return _fact(document, document["_id"], _address(document))


def row_document(row_id: str, standing: Standing) -> Document:
    """What is stored of how a row stands. Where there is none, it is what must be known if there ever will be one."""
    registration, family, address = standing.key.address
    document: Document = {"_id": row_id, "registration": registration, "family": family.value, "address": address}
    document |= _key_fields(standing.key) if standing.row is None else _row_fields(standing.row)
    if standing.lift is not None:
        document["lift"] = list(standing.lift)
    if standing.last is not None:
        document["last"] = list(standing.last)
    if standing.unsettled:
        document["unsettled"] = standing.unsettled
    return document


def to_row(document: Mapping[str, Any]) -> Row:
    """The row of a document."""
    return _row(document, _address(document))


def to_standing(document: Mapping[str, Any]) -> Standing:
    """The row of a document, if it is one, and what it tells of the facts behind it."""
    row = to_row(document) if is_row(document) else None
    key = row.key if row is not None else _key(document, _address(document))
    lift, last = _order(document.get("lift")), _order(document.get("last"))
    return Standing(key, row, lift, last, document.get("unsettled", 0))


def is_row(document: Mapping[str, Any]) -> bool:
    """Whether it is a row, or only what must be known if there ever will be one."""
    return "active" in document


def change_document(change: Change) -> Document:
    """What is stored of ``change``."""
    registration, family, address = change.row.key.address
    return {
        "_id": change.seq,
        "registration": registration,
        "position": change.position,
        "family": family.value,
        "address": address,
        "at_us": change.at_us,
        "row": _row_fields(change.row),
        "fact": {"id": change.fact.id, **_said(change.fact)},
    }


def to_change(document: Mapping[str, Any]) -> Change:
    """The change of a document."""
    address = _address(document)
    fact = document["fact"]
    return Change(
        seq=document["_id"],
        position=document["position"],
        row=_row(document["row"], address),
        fact=_fact(fact, fact["id"], address),
        at_us=document["at_us"],
    )


def _address(document: Mapping[str, Any]) -> Address:
    return Address(document["registration"], Family(document["family"]), document["address"])


def _order(stored: list[Any] | None) -> tuple[int, str] | None:
    return (stored[0], stored[1]) if stored else None


def _said(fact: Fact) -> Document:
    document: Document = {
        "tenant": fact.tenant_id,
        "lifts": fact.lifts,
        "targets": [[target.kind.value, target.scope.kind.value, target.scope.id] for target in fact.targets],
        "effective_at_us": fact.effective_at_us,
        "recorded_at_us": fact.recorded_at_us,
        "origin": fact.origin.value,
        "source": fact.source.value,
        "revision": fact.revision,
    }
    for name in _FACT_TEXTS:
        if value := getattr(fact, name):
            document[name] = value
    if fact.evidence is not None:
        said = fact.evidence
        document["evidence"] = {
            "source": said.source.value,
            "at_us": said.at_us,
            "reference": said.reference,
            "text": said.text,
        }
    return document


def _fact(document: Mapping[str, Any], fact_id: str, address: Address) -> Fact:
    said = document.get("evidence")
    return Fact(
        id=fact_id,
        tenant_id=document["tenant"],
        address=address,
        lifts=document["lifts"],
        targets=tuple(Target(Kind(kind), Scope(ScopeKind(of), text)) for kind, of, text in document["targets"]),
        effective_at_us=document["effective_at_us"],
        recorded_at_us=document["recorded_at_us"],
        origin=Origin(document["origin"]),
        source=Source(document["source"]),
        revision=document["revision"],
        evidence=said and Evidence(Source(said["source"]), said["at_us"], said["reference"], said["text"]),
        **{name: document.get(name, "") for name in _FACT_TEXTS},
    )


def _row_fields(row: Row) -> Document:
    document: Document = {
        **_key_fields(row.key),
        "active": row.active,
        "since_us": row.since_us,
        "fact": row.fact_id,
        "recorded_at_us": row.recorded_at_us,
        "origin": row.origin.value,
        "source": row.source.value,
        "due_by_us": row.due_by_us,
        "position": row.position,
    }
    for name in _ROW_TEXTS:
        if value := getattr(row, name):
            document[name] = value
    return document


def _row(document: Mapping[str, Any], address: Address) -> Row:
    return Row(
        key=_key(document, address),
        active=document["active"],
        since_us=document["since_us"],
        fact_id=document["fact"],
        recorded_at_us=document["recorded_at_us"],
        origin=Origin(document["origin"]),
        source=Source(document["source"]),
        event_id=document.get("event_id", ""),
        author=document.get("author", ""),
        due_by_us=document["due_by_us"],
        position=document["position"],
    )


def _key_fields(key: RowKey) -> Document:
    return {"kind": key.kind.value, "scope_kind": key.scope.kind.value, "scope": key.scope.id}


def _key(document: Mapping[str, Any], address: Address) -> RowKey:
    return RowKey(address, Kind(document["kind"]), Scope(ScopeKind(document["scope_kind"]), document["scope"]))
