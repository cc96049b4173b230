"""A provider's own event as it is shown: passed on byte for byte where that is safe, base64 where it is not.

What is stored came from outside. It is looked at and never built up in memory: a megabyte of JSON takes milliseconds to
check, and a hundred times as long to parse and write again.
"""

from __future__ import annotations

import base64
import codecs
import re
from itertools import accumulate
from typing import Any, Literal
from urllib.parse import parse_qsl

import msgspec
import orjson

from backhaul_gateway.twins.turns import Steps

Format = Literal["json", "form", "base64"]

DEEPEST = 64
"""Levels of arrays and objects in each other that are passed on as JSON: whoever reads the answer has a stack too."""

MAX_NUMBER = 4300
"""Characters of a number that are passed on; Python's own limit for reading an integer."""

MAX_FIELD = 64 << 10
"""Characters of a form's field that are taken apart. No provider posts a longer one, and decoding it is one step."""

_PIECE = 16 << 10
"""Bytes that one step looks at."""
_FORM_PIECE = 4 << 10
"""The same of a form, which is taken apart for it."""
_FIELDS = 1000
"""Fields that one step writes."""
_BASE64_PIECE = 48 << 10
"""Bytes of one step; three of them become four characters, so pieces must be multiples of three."""

_OPENS = 1
_CLOSES = 255
_STEP = bytes(_OPENS if byte in b"[{" else _CLOSES for byte in range(256))
"""Brackets as signed bytes: 1 goes a level down, -1 up again."""
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")

_LONG_NUMBER = re.compile(rb"(?<![0-9])[0-9]{200}|[eE][+-]?[0-9]{3}")
"""What every number has that is beyond a double's range, and few others."""
_NUMBER = re.compile(rb"[0-9.eE+-]+")


def data_of(raw: bytes) -> Steps[tuple[Format, bytes]]:
    """A provider's event for people, as JSON: its own text when it is JSON, an object of its fields when it is a form,
    and otherwise a string with its base64.

    Numbers that JSON does not have or a double cannot hold, nesting that would exhaust the stack of whoever reads the
    answer, and text that is not UTF-8 are not passed on as data.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if text.lstrip()[:1] in ("{", "["):
        if (yield from _is_safe(raw)):
            return "json", raw.strip(b" \t\r\n")
    elif "=" in text and (fields := (yield from _form(text))) is not None:
        return "form", fields
    return "base64", (yield from base64_of(raw))


def base64_of(data: bytes) -> Steps[bytes]:
    """``data`` as a JSON string of its base64."""
    pieces = [b'"']
    for start in range(0, len(data), _BASE64_PIECE):
        pieces.append(base64.b64encode(data[start : start + _BASE64_PIECE]))
        yield
    pieces.append(b'"')
    return b"".join(pieces)


def text_of(data: bytes) -> Steps[bytes]:
    """``data`` as a JSON string of what can be read of it as UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pieces = [b'"']
    for start in range(0, len(data), _PIECE):
        pieces.append(orjson.dumps(decoder.decode(data[start : start + _PIECE]))[1:-1])
        yield
    pieces.append(orjson.dumps(decoder.decode(b"", final=True))[1:])
    return b"".join(pieces)


def _is_safe(raw: bytes) -> Steps[bool]:
    """Whether ``raw`` is JSON that any reader can take. It is UTF-8 and begins with a bracket."""
    # Escapes stand in strings only. Without them, a quotation mark begins or ends one.
    text = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    depth = 0
    inside = False
    unfinished = b""
    for start in range(0, len(text), _PIECE):
        parts = text[start : start + _PIECE].split(b'"')
        outside = unfinished + b'"'.join(parts[1::2] if inside else parts[::2])
        inside = inside != (len(parts) % 2 == 0)
        steps = memoryview(outside[len(unfinished) :].translate(_STEP, _NO_BRACKETS)).cast("b")
        if max(accumulate(steps, initial=depth)) > DEEPEST:
            return False
        depth += sum(steps)
        if _LONG_NUMBER.search(outside) and not all(_is_readable(token) for token in _NUMBER.findall(outside)):
            return False
        # A number may go on in the next piece.
        unfinished = b"" if inside else outside[len(outside.rstrip(b"0123456789.eE+-")) :]
        yield
    try:
        # Looks whether it is JSON, lone surrogates included, and makes nothing of it.
        msgspec.json.decode(raw, type=msgspec.Raw)
    except (ValueError, RecursionError):
        return False
    return True


def _is_readable(number: bytes) -> bool:
    """Whether readers can take the number. What is none is for the parser to refuse."""
    if len(number) > MAX_NUMBER:
        return False
    try:
        return number.lstrip(b"-").isdigit() or abs(float(number)) != float("inf")
    except ValueError:
        return True


def _form(text: str) -> Steps[bytes | None]:
    """A form's fields; of a name that is there several times, all values in order. None when it is no provider's."""
    fields: dict[str, Any] = {}
    start = 0
    while start < len(text):
        end = text.find("&", start + _FORM_PIECE)
        end = len(text) if end < 0 else end
        if end - start > _FORM_PIECE + MAX_FIELD:
            return None
        for name, value in parse_qsl(text[start:end], keep_blank_values=True, errors="replace"):
            if name not in fields:
                fields[name] = value
            elif isinstance(fields[name], list):
                fields[name].append(value)
            else:
                fields[name] = [fields[name], value]
        start = end + 1
        yield
    items = list(fields.items())
    pieces = []
    for first in range(0, len(items), _FIELDS):
        pieces.append(orjson.dumps(dict(items[first : first + _FIELDS]))[1:-1])
        yield
    return b"{" + b",".join(pieces) + b"}"
