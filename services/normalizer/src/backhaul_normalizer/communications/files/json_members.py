"""Members as JSON Lines.

Nearly all lines are in order, and are decoded into what they should be. Whatever is not as expected is read once more,
with all that JSON can say: that way alone refuses, and says what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

import msgspec
from backhaul_common.lines.cutting import Cut, Cutter
from backhaul_common.lines.json_lines import NO_OBJECT, Pairs, encodable, object_of, text_of
from backhaul_common.lines.line import CUT_OFF, ERROR_COLUMNS, UNREADABLE, Line
from msgspec import UNSET, UnsetType

from backhaul_normalizer.communications.documents import MAX_ATTRIBUTES, MAX_DESTINATIONS, MAX_NAME, MAX_VALUE
from backhaul_normalizer.communications.files.members import (
    CHANNEL,
    MEMBER_KEY,
    MESSAGE_ID,
    RECIPIENT,
    Attribute,
    Destination,
    Member,
    MemberError,
    Refused,
    checked_attributes,
    checked_channel,
    checked_destinations,
    checked_id,
    checked_key,
    checked_name,
    checked_value,
    known_channel,
)
from backhaul_normalizer.facts import MAX_KEY

_ATTRIBUTES, _DESTINATIONS = "attributes", "destinations"
_MEMBER: Final = (MEMBER_KEY, _ATTRIBUTES, _DESTINATIONS)
_DESTINATION: Final = (CHANNEL, RECIPIENT, MESSAGE_ID)

_PLAIN_NUMBER = 1 << 62
"""Whole numbers nearer to 0 are written in JSON as Python writes them."""

_Value: TypeAlias = str | int | float | bool | None


class JsonMembers:
    """Reads members out of pieces. Keeps one line at most."""

    columns: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._cutter = Cutter(blank=False)

    def feed(self, piece: bytes) -> Iterator[Member | Refused]:
        """What ``piece`` completes. To be read to its end."""
        for number, raw in self._cutter.feed(piece):
            yield _expected(number, raw) or _read(Cut(number, raw))

    def end(self, *, whole: bool) -> Iterator[Member | Refused]:
        """What is left when the file has ended; where that is not its end, the last line is refused."""
        for cut in self._cutter.end():
            found = _read(cut)
            if isinstance(found, Member) and not whole:
                yield from found.refuse(CUT_OFF)
            else:
                yield found


class _ExpectedDestination(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    channel: str | UnsetType | None = UNSET
    recipient: str | UnsetType | None = UNSET
    message_id: str | UnsetType | None = UNSET


class _Expected(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    member_key: str
    attributes: dict[str, _Value] | UnsetType | None = UNSET
    destinations: list[_ExpectedDestination] | UnsetType | None = UNSET


_decode = msgspec.json.Decoder(_Expected).decode


def _expected(number: int, raw: bytes) -> Member | None:
    """The member that a line in order is; None where it has to be looked at."""
    try:
        told = _decode(raw)
        attributes = _expected_attributes(told.attributes) if told.attributes else []
        destinations = [_expected_destination(one) for one in told.destinations] if told.destinations else []
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    key = told.member_key
    identifiers = key
    if told.attributes:
        identifiers += "".join(told.attributes)
    for _, recipient, message_id in destinations:
        identifiers += recipient + message_id
    in_order = (
        0 < len(key) <= MAX_KEY
        and not key.isspace()
        and identifiers.isprintable()
        and UNREADABLE not in identifiers
        and len(attributes) <= MAX_ATTRIBUTES
        and (len(destinations) < 2 or len(set(destinations)) == len(destinations) <= MAX_DESTINATIONS)
        and _once_each(raw, told)
    )
    return Member(number, key, attributes, destinations, raw) if in_order else None


def _expected_attributes(told: Mapping[str, _Value]) -> list[Attribute]:
    """Those that are in order. ValueError where one has to be looked at."""
    attributes: list[Attribute] = []
    for name, value in told.items():
        if type(value) is str:
            text = value
        elif value is True:
            text = "true"
        elif value is False:
            text = "false"
        elif value is None:
            continue
        elif type(value) is int and -_PLAIN_NUMBER < value < _PLAIN_NUMBER:
            text = str(value)
        else:
            raise ValueError("no plain value")
        if len(text) > MAX_VALUE or not 0 < len(name) <= MAX_NAME:
            raise ValueError("too long")
        attributes.append((name, text))
    return attributes


def _expected_destination(told: _ExpectedDestination) -> Destination:
    """ValueError where it has to be looked at."""
    channel, recipient, message_id = told.channel, told.recipient or "", told.message_id or ""
    key = known_channel(channel) if channel else ""
    if key is None or len(recipient) > MAX_KEY or len(message_id) > MAX_KEY:
        raise ValueError("not in order")
    return key, recipient, message_id


def _once_each(raw: bytes, told: _Expected) -> bool:
    """Whether no name is there twice, of which a decoder keeps one: then each colon stands behind a name that was kept,
    or in a text that was. False also where that cannot be told."""
    names = 1
    if told.attributes is not UNSET:
        names += 1 + len(told.attributes or ())
    if told.destinations is not UNSET:
        names += 1
        for one in told.destinations or ():
            names += (one.channel is not UNSET) + (one.recipient is not UNSET) + (one.message_id is not UNSET)
    colons = raw.count(b":")
    if colons == names:
        return True
    # An escape may stand for a colon.
    return b"\\" not in raw and colons == names + sum(text.count(":") for text in _texts(told))


def _texts(told: _Expected) -> Iterator[str]:
    yield told.member_key
    for name, value in (told.attributes or {}).items():
        yield name
        if isinstance(value, str):
            yield value
    for one in told.destinations or ():
        yield one.recipient or ""
        yield one.message_id or ""


class _Number:
    """A number as it is written."""

    def __init__(self, text: str) -> None:
        self.text = text


def _read(cut: Cut) -> Member | Refused:
    """What any line is."""
    text = text_of(cut)
    if isinstance(text, Line):
        assert text.problem is not None  # noqa: S101  # It is a line because it is refused.
        return Refused(text, text.problem)
    pairs = object_of(text, _Number)
    if pairs is None:
        return Refused(Line(cut.number, {}, text, NO_OBJECT), NO_OBJECT)
    try:
        return _member(cut, pairs)
    except MemberError as exc:
        own = [name for name, _ in pairs if name not in ERROR_COLUMNS]
        # Of a line that a file of errors could not take apart either, its text is what counts.
        kept = None if own else next((value for name, value in pairs if name == "error_text"), None)
        return Refused(Line(cut.number, {}, kept if isinstance(kept, str) and encodable(kept) else text), exc.problem)


def _member(cut: Cut, pairs: Pairs) -> Member:
    told = _once(pairs, "", _MEMBER, ERROR_COLUMNS)
    key = checked_key(_text(told.get(MEMBER_KEY), MEMBER_KEY))
    attributes = [
        (checked_name(name, field), checked_value(_scalar(value, field), field))
        for name, value in _once(_object(told.get(_ATTRIBUTES), _ATTRIBUTES), _ATTRIBUTES).items()
        for field in [_attribute(name)]
    ]
    given = told.get(_DESTINATIONS, [])
    if not isinstance(given, list):
        raise MemberError(_DESTINATIONS, "The value is no array.", "Write the destinations in square brackets.")
    destinations = [_destination(one, f"{_DESTINATIONS}[{position}]") for position, one in enumerate(given)]
    return Member(
        cut.number,
        key,
        checked_attributes(attributes, _ATTRIBUTES),
        checked_destinations(destinations, _DESTINATIONS),
        cut.raw,
    )


def _destination(value: object, path: str) -> Destination:
    if not isinstance(value, Pairs):
        raise MemberError(path, "The value is no object.", 'Write one such as {"recipient": "+15005550006"}.')
    told = _once(value, path, _DESTINATION)
    channel, recipient, message_id = (_text(told.get(name), f"{path}.{name}") for name in _DESTINATION)
    return (
        checked_channel(channel, f"{path}.{CHANNEL}"),
        checked_id(recipient, f"{path}.{RECIPIENT}"),
        checked_id(message_id, f"{path}.{MESSAGE_ID}"),
    )


def _once(pairs: Pairs, path: str, allowed: tuple[str, ...] = (), silent: tuple[str, ...] = ()) -> dict[str, object]:
    """Values by name, without null. MemberError for a name that is there twice, or that is none of ``allowed``."""
    told: dict[str, object] = {}
    for name, value in pairs:
        if name in silent:
            continue
        if allowed and name not in allowed:
            raise MemberError(path, f"The name {name[:80]!r} is not known.", f"Take only these: {', '.join(allowed)}.")
        if name in told:
            raise MemberError(path, f"The name {name[:80]!r} is there twice.", "Name it once.")
        told[name] = value
    return {name: value for name, value in told.items() if value is not None}


def _object(value: object, field: str) -> Pairs:
    if value is None:
        return Pairs([])
    if not isinstance(value, Pairs):
        raise MemberError(field, "The value is no object.", 'Write one such as {"first_name": "Ada"}.')
    return value


def _text(value: object, field: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MemberError(field, "The value is no text.", "Write it in quotes.")
    return value


def _scalar(value: object, field: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, _Number):
        # The decoder of lines in order does not tell them apart.
        return "0" if value.text == "-0" else value.text
    if not isinstance(value, str):
        raise MemberError(field, "The value is no text, number or boolean.", "Write one value, or its JSON in quotes.")
    return value


def _attribute(name: str) -> str:
    """Where an attribute is, as far as its name can be told."""
    return f"{_ATTRIBUTES}.{name}" if 0 < len(name) <= MAX_NAME and name.isprintable() else _ATTRIBUTES
