"""JSON bodies for any adapter: cut into verbatim parts, decode one part, read scalars out of it.

The fast way is msgspec. It refuses a whole array for one bad element: a string that holds half of a surrogate pair (an
emoji that somebody's code cut in two), a depth that no decoder follows. So where it refuses, the array is cut at its
commas and only the part at fault suffers.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from backhaul_channels.adapter import MalformedError

_decode_any = msgspec.json.Decoder().decode
_decode_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode
# What JSON counts as white space, which is less than Python does.
_SPACE = b" \t\r\n"
# All that matters for cutting: brackets and commas, and strings, in which they mean nothing. A string without its
# closing quotation mark takes the rest of the body, and no repetition gives anything back: no byte is read twice.
_MARKS = re.compile(rb'[][{},]|"[^"\\]*+(?:\\.[^"\\]*+)*+"?+', re.DOTALL)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_strict = json.JSONDecoder(parse_constant=_refuse_constant)


def looks_like_json(body: bytes) -> bool:
    """Whether ``body`` begins as a JSON object or array does."""
    return body.lstrip(_SPACE)[:1] in (b"{", b"[")


def split_json(body: bytes) -> list[bytes]:
    """The elements of the JSON array ``body``, each verbatim, in order; a body that is one object is its own only part.

    An empty array has no parts. An element that is no JSON is a part like the others, for ``decode_object`` to refuse.
    Raises MalformedError for everything else.
    """
    start = body.lstrip(_SPACE)[:1]
    if start == b"{":
        return [body]
    if start != b"[":
        raise MalformedError("The body is neither a JSON array nor a JSON object.")
    try:
        return [bytes(part) for part in _decode_raws(body)]
    except (msgspec.DecodeError, RecursionError):
        return _cut(body)


def decode_object(part: bytes) -> dict[str, Any]:
    """The JSON object ``part``. Bytes that are not UTF-8 and halves of surrogate pairs are replaced.

    No string in the result holds a lone surrogate, and no number is infinite. Raises MalformedError.
    """
    try:
        value = _decode_any(part)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = _decode_leniently(part)
    if not isinstance(value, dict):
        raise MalformedError("An event must be a JSON object.")
    return value


def scalar_text(value: object) -> str | None:
    """A JSON scalar as text (``true``, ``1.5``, the string itself); None for null, arrays and objects."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return None


def _cut(body: bytes) -> list[bytes]:
    """The elements of the array ``body``, found in linear time and without recursion.

    Brackets are counted, not paired: an element in which they do not pair is no JSON, and fails by itself.
    """
    parts: list[bytes] = []
    depth = start = 0
    for match in _MARKS.finditer(body):
        mark = match[0]
        if mark in (b"[", b"{"):
            depth += 1
            if depth == 1:
                start = match.end()
        elif mark in (b"]", b"}"):
            depth -= 1
        if depth == 0 or (depth == 1 and mark == b","):
            part = body[start : match.start()].strip(_SPACE)
            if part:
                parts.append(part)
            elif parts or depth:
                break
            start = match.end()
        if depth == 0:
            if mark == b"]" and not body[start:].strip(_SPACE):
                return parts
            break
    raise MalformedError(f"The body is not valid JSON near byte {start}.")


def _decode_leniently(part: bytes) -> Any:
    try:
        value = _strict.decode(part.decode("utf-8", "replace"))
        # Written and read again: encoding with "replace" is what turns lone surrogates into question marks.
        return _decode_any(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except RecursionError as error:
        raise MalformedError("The event is nested too deeply.") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise MalformedError("The event is not valid JSON.") from error
