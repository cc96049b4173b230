"""One address' active rows as a few bytes: what ``Index`` holds ten millions of.

A value is its rows one after another: a byte of what follows, since when, the event, the scope. The usual row, which
covers everything and comes from an event, is 25 bytes; Python adds 33 to whatever its value holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from backhaul_suppression.model import Kind, Scope, ScopeKind

_KINDS, _SCOPES = tuple(Kind), tuple(ScopeKind)
_KIND_BITS, _SCOPE_BITS = 0b111, 0b11
_SCOPE_SHIFT, _EVENT_SHIFT = 3, 5
_NO_EVENT, _HEX_EVENT, _TEXT_EVENT = range(3)
_HEX_DIGITS = 32

_HEAD = Struct(">Bq")
_LENGTH = Struct(">I")


class Entry(NamedTuple):
    """An active row, of an address that is known from elsewhere."""

    kind: Kind
    scope: Scope
    since_us: int
    event_id: str = ""


def packed(entry: Entry) -> bytes:
    """The bytes of one row."""
    kind, scope, since_us, event_id = entry
    how, event = _event(event_id)
    head = _KIND_NUMBER[kind] | _SCOPE_NUMBER[scope.kind] << _SCOPE_SHIFT | how << _EVENT_SHIFT
    value = _HEAD.pack(head, since_us) + event
    return value if scope.kind is ScopeKind.ALL else value + _text(scope.id)


def packed_words(kind: str, scope_kind: str, scope: str, since_us: int, event_id: str) -> bytes:
    """``packed`` of a row as it is stored; the usual one costs a fifth. ValueError where a word is not known."""
    head = _USUAL.get(kind)
    if head is not None and scope_kind == ScopeKind.ALL:
        how, event = _event(event_id)
        return _HEAD.pack(head | how << _EVENT_SHIFT, since_us) + event
    return packed(Entry(Kind(kind), Scope(ScopeKind(scope_kind), scope), since_us, event_id))


def unpacked(value: bytes) -> Iterator[Entry]:
    """The rows of one address, in the order in which they were put."""
    at = 0
    while at < len(value):
        head, since_us = _HEAD.unpack_from(value, at)
        at += _HEAD.size
        event_id, scope_id = "", ""
        match head >> _EVENT_SHIFT:
            case how if how == _HEX_EVENT:
                event_id = value[at : at + _HEX_DIGITS // 2].hex()
                at += _HEX_DIGITS // 2
            case how if how == _TEXT_EVENT:
                event_id, at = _read(value, at)
        scope_kind = _SCOPES[head >> _SCOPE_SHIFT & _SCOPE_BITS]
        if scope_kind is not ScopeKind.ALL:
            scope_id, at = _read(value, at)
        yield Entry(_KINDS[head & _KIND_BITS], Scope(scope_kind, scope_id), since_us, event_id)


def merged(value: bytes, later: bytes) -> bytes:
    """The rows of both; of two of one kind and scope the later."""
    for entry in unpacked(later):
        value = without(value, entry.kind, entry.scope) + packed(entry)
    return value


def without(value: bytes, kind: Kind, scope: Scope) -> bytes:
    """``value`` without the row of this kind and scope, if it has one."""
    if scope.kind is not ScopeKind.ALL and _text(scope.id) not in value:
        # Of an address with many scopes most are put once, and taking all others apart each time would add up.
        return value
    return b"".join(packed(entry) for entry in unpacked(value) if (entry.kind, entry.scope) != (kind, scope))


def _event(event_id: str) -> tuple[int, bytes]:
    if not event_id:
        return _NO_EVENT, b""
    if len(event_id) == _HEX_DIGITS:
        try:
            short = bytes.fromhex(event_id)
        except ValueError:
            short = b""
        # What the shorter form would not give back as it was keeps its own.
        if short.hex() == event_id:
            return _HEX_EVENT, short
    return _TEXT_EVENT, _text(event_id)


def _text(text: str) -> bytes:
    # A lone surrogate cannot be encoded strictly; a scope or an address must be kept whatever its text is.
    data = text.encode("utf-8", "surrogatepass")
    return _LENGTH.pack(len(data)) + data


def _read(value: bytes, at: int) -> tuple[str, int]:
    (length,) = _LENGTH.unpack_from(value, at)
    at += _LENGTH.size
    return value[at : at + length].decode("utf-8", "surrogatepass"), at + length


_KIND_NUMBER = {kind: number for number, kind in enumerate(_KINDS)}
_SCOPE_NUMBER = {kind: number for number, kind in enumerate(_SCOPES)}
_USUAL: dict[str, int] = {
    kind.value: number | _SCOPE_NUMBER[ScopeKind.ALL] << _SCOPE_SHIFT for kind, number in _KIND_NUMBER.items()
}
