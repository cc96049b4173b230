"""JSON bodies for any adapter: cut into verbatim parts, decode one part, read scalars out of it.

The fast way is msgspec. It refuses a whole array for one string that holds half of a surrogate pair (an emoji that
somebody's code cut in two), so where it refuses, the standard library's scanner cuts the array and only the part at
fault suffers.
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
_SPACE_BYTES = b" \t\r\n"
_SPACE = re.compile(r"[ \t\r\n]*")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


# Cutting needs no values; as floats, numbers of any length pass, and the part that holds one is judged by itself.
_scan = json.JSONDecoder(parse_int=float).raw_decode
_strict = json.JSONDecoder(parse_constant=_refuse_constant)


def looks_like_json(body: bytes) -> bool:
    """Whether ``body`` begins as a JSON object or array does."""
    return body.lstrip(_SPACE_BYTES)[:1] in (b"{", b"[")


def split_json(body: bytes) -> list[bytes]:
    """The elements of the JSON array ``body``, each verbatim, in order; a body that is one object is its own only part.

    An empty array has no parts. Raises MalformedError for everything else.
    """
    start = body.lstrip(_SPACE_BYTES)[:1]
    if start == b"{":
        return [body]
    if start != b"[":
        raise MalformedError("The body is neither a JSON array nor a JSON object.")
    try:
        return [bytes(part) for part in _decode_raws(body)]
    except (msgspec.DecodeError, RecursionError):
        return _split_leniently(body)


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


def _split_leniently(body: bytes) -> list[bytes]:
    # surrogateescape carries bytes that are not UTF-8 through the text and back, so that parts stay verbatim.
    text = body.decode("utf-8", "surrogateescape")
    parts: list[bytes] = []
    position = _after_space(text, _after_space(text, 0) + 1)
    try:
        while True:
            _, end = _scan(text, position)
            parts.append(text[position:end].encode("utf-8", "surrogateescape"))
            position = _after_space(text, end)
            if text[position : position + 1] != ",":
                break
            position = _after_space(text, position + 1)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"The body is not valid JSON near character {position}.") from error
    if text[position:].rstrip(" \t\r\n") != "]":
        raise MalformedError(f"The body is not valid JSON near character {position}.")
    return parts


def _decode_leniently(part: bytes) -> Any:
    try:
        value = _strict.decode(part.decode("utf-8", "replace"))
        # Written and read again: encoding with "replace" is what turns lone surrogates into question marks.
        return _decode_any(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise MalformedError("The event is not valid JSON.") from error


def _after_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position
