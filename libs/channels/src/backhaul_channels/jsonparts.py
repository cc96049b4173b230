"""JSON bodies for any adapter: cut into verbatim parts, decode one part, read scalars out of it.

The fast way is msgspec. It refuses a whole array for one bad element: a string that holds half of a surrogate pair (an
emoji that somebody's code cut in two), a depth that no decoder follows. So where it refuses, the array is cut at its
commas and only the part at fault suffers.

How deep a decoder follows depends on the version of Python, so the limits are our own and lie far below. What a body
costs grows with its length and no faster, whatever it holds: tests compare it with a usual body's.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import Any

import msgspec

from backhaul_channels.adapter import MalformedError

_decode_any = msgspec.json.Decoder().decode
_decode_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode
# What JSON counts as white space, which is less than Python does.
_SPACE = b" \t\r\n"

MAX_DEPTH = 64
"""Arrays and objects within each other in one event. No provider's has more than four."""

MAX_CONTAINERS = 10_000
"""Arrays and objects of one event, all together. Each takes some hundred bytes of memory, and two of the body."""

MAX_PARTS = 10_000
"""Elements of one body. SendGrid's largest post, 768 KB, has some 3,000."""

# How deep an element may be that is only cut out, to become a dead letter of its own, and how many brackets and commas
# are looked at one by one, which takes some 0.4 µs each. A body of 10,000 usual events with a bad one needs 30,000.
_MAX_CUT_DEPTH = 8_192
_MAX_MARKS = 50_000

# Strings, in which brackets mean nothing, and what is neither string nor bracket. A string without its closing mark
# takes the rest of the body. No repetition gives anything back (*+), so no byte is read again within a pattern.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?+'
_FLAT = rb'[^][{}"]++|' + _STRING
# Brackets are counted, not paired. Whatever closes within two levels is passed over as a whole. Where it does not, the
# bytes up to there are read once more for each level, which is three times at most.
_PAIR = rb"[\[{](?:" + _FLAT + rb")*+[\]}]"
_NESTED = rb"[\[{](?:" + _FLAT + rb"|" + _PAIR + rb")*+[\]}]"
_NEXT_INSIDE = re.compile(rb"(?:" + _FLAT + rb"|" + _NESTED + rb")*+([][{}])", re.DOTALL)
_NEXT_AT_TOP = re.compile(rb'(?:[^][{},"]++|' + _STRING + rb"|" + _NESTED + rb")*+([][{},])", re.DOTALL)
_STRINGS = re.compile(_STRING, re.DOTALL)
# Each bracket as what it does to the depth, in signed bytes; everything else is deleted.
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_strict = json.JSONDecoder(parse_constant=_refuse_constant)


def looks_like_json(body: bytes) -> bool:
    """Whether ``body`` begins as a JSON object or array does."""
    if body[:1].isalpha():
        return False  # A form. Asked twice of each, so the short way pays.
    return body.lstrip(_SPACE)[:1] in (b"{", b"[")


def split_json(body: bytes) -> list[bytes]:
    """The elements of the JSON array ``body``, each verbatim, in order; a body that is one object is its own only part.

    An empty array has no parts. An element that is no JSON, or nested too deeply, is a part like the others, for
    ``decode_object`` to refuse. Raises MalformedError for everything else, and for more than MAX_PARTS elements.
    """
    start = body.lstrip(_SPACE)[:1]
    if start == b"{":
        return [body]
    if start != b"[":
        raise MalformedError("The body is neither a JSON array nor a JSON object.")
    try:
        raws = _decode_raws(body)
    except (msgspec.DecodeError, RecursionError):
        return _cut(body)
    if len(raws) > MAX_PARTS:
        raise _too_many()
    parts = [bytes(raw) for raw in raws]
    # Some versions of Python let msgspec follow where others do not; all of them cut such a body by the same rules.
    return _cut(body) if any(map(_refusal, parts)) else parts


def decode_object(part: bytes) -> dict[str, Any]:
    """The JSON object ``part``. Bytes that are not UTF-8 and halves of surrogate pairs are replaced.

    No string in the result holds a lone surrogate, and no number is infinite. Raises MalformedError, also for what is
    nested more than MAX_DEPTH deep or has more than MAX_CONTAINERS arrays and objects.
    """
    refusal = _refusal(part)
    if refusal:
        raise MalformedError(refusal)
    try:
        value = _decode_any(part)
    except (msgspec.DecodeError, UnicodeDecodeError):
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


def _too_many() -> MalformedError:
    return MalformedError(f"The body holds more than {MAX_PARTS} events.")


def _refusal(part: bytes) -> str:
    """Why ``part`` is too deep, or too much, to be decoded; empty for what is neither."""
    # Nearly every event has fewer brackets altogether.
    if part.count(b"[") + part.count(b"{") <= MAX_DEPTH:
        return ""
    steps = _STRINGS.sub(b"", part).translate(_STEPS, _NO_BRACKETS)
    if len(steps) > 2 * MAX_CONTAINERS:
        return f"The event holds more than {MAX_CONTAINERS} arrays and objects."
    if max(accumulate(memoryview(steps).cast("b")), default=0) > MAX_DEPTH:
        return f"The event is nested too deeply: more than {MAX_DEPTH} levels."
    return ""


def _cut(body: bytes) -> list[bytes]:
    """The elements of the array ``body``, found in linear time and without recursion.

    Brackets are counted, not paired: an element in which they do not pair is no JSON, and fails by itself.
    """
    parts: list[bytes] = []
    depth = 1
    at = start = body.index(b"[") + 1
    for _ in range(_MAX_MARKS):
        match = (_NEXT_AT_TOP if depth == 1 else _NEXT_INSIDE).match(body, at)
        if match is None:
            break
        mark, at = match[1], match.end()
        if mark in b"[{":
            depth += 1
            if depth > _MAX_CUT_DEPTH:
                raise MalformedError(
                    f"The body is nested too deeply near byte {at}: more than {_MAX_CUT_DEPTH} levels."
                )
            continue
        if mark in b"]}":
            depth -= 1
        if depth == 0 or mark == b",":
            part = body[start : match.start(1)].strip(_SPACE)
            if part:
                parts.append(part)
                if len(parts) > MAX_PARTS:
                    raise _too_many()
            elif parts or depth:
                break
            start = at
        if depth == 0:
            if mark == b"]" and not body[start:].strip(_SPACE):
                return parts
            break
    else:
        raise MalformedError(f"The body is no JSON, and holds too many brackets to find the events up to byte {at}.")
    raise MalformedError(f"The body is not valid JSON near byte {start}.")


def _decode_leniently(part: bytes) -> Any:
    try:
        value = _strict.decode(part.decode("utf-8", "replace"))
        # Written and read again: encoding with "replace" is what turns lone surrogates into question marks.
        return _decode_any(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except (msgspec.DecodeError, ValueError) as error:
        raise MalformedError("The event is not valid JSON.") from error
