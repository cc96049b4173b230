"""How an event is written into a file: the same bytes for the same event, whenever and by whichever copy.

What a line is never depends on a clock, on settings other than the file's shape, or on other events. Nothing that a
provider can send keeps a line from being one JSON object in UTF-8 without a line break.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from backhaul_channels.engines.forms import parse_raw
from backhaul_common.times import time_of
from backhaul_common.vocabulary import Words
from backhaul_proto.event.v1.event_pb2 import Event
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

FORM, TEXT, BASE64 = "_form", "_text", "_base64"
"""Names in lines of what is no JSON object: a form's original, a text, and bytes that are no UTF-8."""

_is_json = msgspec.json.Decoder(msgspec.Raw).decode
"""Reads past a whole value without making anything of it. Raises where it is no JSON."""

_encode = msgspec.json.Encoder().encode

_BLANKS = b" \t\r\n"
_FORM = re.compile(rb"""[^=&\x00-\x20"<>\\^`{}\x7f-\xff][^\x00-\x20"<>\\^`{}\x7f-\xff]*""")
"""What a form can be made of: no blanks, and nothing that only other notations have."""
_LEFT_OUT = frozenset({"raw", "traceparent"})
"""Fields of an event that are no part of what happened, or stand beside it."""


class Lines:
    """Writes lines. With ``with_event`` the normalised event stands beside the provider's own."""

    def __init__(self) -> None:
        self._normalised = _writer(Event.DESCRIPTOR)

    def of(self, events: Iterable[Event], *, with_event: bool) -> list[bytes]:
        """A line each, without the line break."""
        if with_event:
            return [self._both(event) for event in events]
        return [provided(event.raw) for event in events]

    def _both(self, event: Event) -> bytes:
        return b'{"event":%b,"raw":%b}' % (_encode(self._normalised(event)), provided(event.raw))


def provided(raw: bytes) -> bytes:
    """The provider's own event.

    A JSON object is as it came, but for line breaks, which can only stand between its tokens. A form is an object of
    its fields, a list where a name is repeated, and the whole of it. Anything else is a text, or base64.
    """
    if raw[:1] == b"{" or raw.lstrip(_BLANKS)[:1] == b"{":
        try:
            _is_json(raw)
            if not raw.isascii():
                raw.decode()  # Strings are not looked into above.
        except (ValueError, RecursionError):
            return _other(raw)
        return raw.translate(None, b"\r\n") if b"\n" in raw or b"\r" in raw else raw
    if b"=" in raw and _FORM.fullmatch(raw):
        return _form(raw)
    return _other(raw)


def associated(event_id: str, revision: int) -> list[bytes | bytearray | memoryview]:
    """What an encrypted line is bound to: it is no other event's, and no other revision's."""
    return [event_id.encode(), str(revision).encode("ascii")]


def _form(raw: bytes) -> bytes:
    fields: dict[str, Any] = {}
    for name_bytes, value_bytes in parse_raw(raw):
        name, value = name_bytes.decode("utf-8", "replace"), value_bytes.decode("utf-8", "replace")
        present = fields.get(name)
        if present is None:
            fields[name] = value
        elif isinstance(present, list):
            present.append(value)
        else:
            fields[name] = [present, value]
    # Last, and in place of a field that calls itself so: that one is still in it.
    fields[FORM] = raw.decode("ascii")
    return _encode(fields)


def _other(raw: bytes) -> bytes:
    try:
        return _encode({TEXT: raw.decode()})
    except UnicodeDecodeError:
        return _encode({BASE64: base64.b64encode(raw).decode("ascii")})


def _writer(descriptor: Descriptor) -> Callable[[Any], Mapping[str, Any]]:
    """What makes an object of a message: snake_case, words of enums, RFC 3339 times, null where nothing is known."""
    fields = [
        (field.name.removesuffix("_us"), field.name, _converter(field), field.has_presence)
        for field in descriptor.fields
        if field.name not in _LEFT_OUT
    ]

    def write(message: Message) -> Mapping[str, Any]:
        return {
            shown: None if optional and not message.HasField(name) else convert(getattr(message, name))
            for shown, name, convert, optional in fields
        }

    return write


def _converter(field: FieldDescriptor) -> Callable[[Any], Any]:
    convert = _converter_of_one(field)
    if field.is_repeated:
        return lambda values: [convert(value) for value in values]
    return convert


def _converter_of_one(field: FieldDescriptor) -> Callable[[Any], Any]:
    if field.message_type is not None:
        return _writer(field.message_type)
    if field.enum_type is not None:
        return wording(field.enum_type)
    return time_of if field.name.endswith("_us") else lambda value: value


def wording(enum: EnumDescriptor) -> Callable[[int], str | None]:
    """What makes a word of a value's number; None of 0."""
    words = Words(enum)
    return lambda number: words.word(number) if number else None
