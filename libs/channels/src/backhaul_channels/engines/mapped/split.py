"""A body cut into its events, each verbatim, also where they stand deep inside of it."""

from __future__ import annotations

import re

import msgspec

from backhaul_channels.adapter import MalformedError
from backhaul_channels.engines.forms import parse_form
from backhaul_channels.engines.mapped.paths import EACH
from backhaul_channels.jsonparts import MAX_PARTS, looks_like_json, split_json

Envelope = tuple[str | int | None, ...]

_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode
_SPACE = b" \t\r\n"

# Every escape of a JSON text, so that a backslash that is escaped itself begins none. A pair of surrogates is one.
_ESCAPES = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)


def split(body: bytes, envelope: Envelope) -> list[bytes]:
    """The events of ``body``: a form, a JSON object, the elements of an array, or what stands in ``envelope``.

    Raises MalformedError where there can be none, or more than MAX_PARTS.
    """
    if not looks_like_json(body):
        return _of_form(body, envelope)
    if not envelope:
        return split_json(body)
    try:
        return _inside(body, envelope)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    except RecursionError:
        raise MalformedError("The body is nested too deeply.") from None
    # One event with half of a surrogate pair must not take the others with it.
    try:
        return _inside(_mended(body), envelope)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise MalformedError("The body is not valid JSON.") from None
    except RecursionError:
        raise MalformedError("The body is nested too deeply.") from None


def _of_form(body: bytes, envelope: Envelope) -> list[bytes]:
    if b"=" not in body:
        raise MalformedError("The body is neither JSON nor a form, or is empty; the webhook must be set to POST.")
    if body.lstrip(_SPACE)[:2] == b"--":
        raise MalformedError("The body is multipart/form-data; have the webhook sent as JSON or as a URL-encoded form.")
    if not envelope:
        return [body]
    name = envelope[0]
    text = parse_form(body).get(name) if isinstance(name, str) else None
    if text is None:
        raise _not_there(envelope)
    inner = text.encode("utf-8", "replace")
    if not looks_like_json(inner):
        raise MalformedError(f"The envelope {written(envelope)} holds no JSON.")
    return split(inner, envelope[1:])


def _inside(body: bytes, envelope: Envelope) -> list[bytes]:
    found: list[bytes | msgspec.Raw] = [body.strip(_SPACE)]
    for step in envelope:
        inner: list[bytes | msgspec.Raw] = []
        for one in found:
            _go(one, step, inner)
        found = inner
        if len(found) > MAX_PARTS:
            raise MalformedError(f"The body holds more than {MAX_PARTS} events.")
    parts: list[bytes] = []
    for one in found:
        raw = bytes(one)
        if raw[:1] == b'"':
            # Some webhooks write the events as a text within the text.
            raw = _decode_text(raw).encode("utf-8", "replace")
        if looks_like_json(raw):
            parts += split_json(raw)
        elif envelope[-1] is EACH:
            # As in any array, an element that is no event is by itself what cannot be read.
            parts.append(bytes(one))
        elif raw != b"null":
            raise MalformedError(f"What stands in the envelope {written(envelope)} is neither an object nor an array.")
    if not found:
        # An empty array is legal; a path that leads nowhere is not.
        if EACH in envelope:
            return []
        raise _not_there(envelope)
    if len(parts) > MAX_PARTS:
        raise MalformedError(f"The body holds more than {MAX_PARTS} events.")
    return parts


def _go(value: bytes | msgspec.Raw, step: str | int | None, found: list[bytes | msgspec.Raw]) -> None:
    """Adds what ``step`` leads to from ``value``; nothing where it leads nowhere."""
    start = bytes(memoryview(value)[:1])
    if isinstance(step, str):
        if start == b"{" and (inner := _decode_object(value).get(step)) is not None:
            found.append(inner)
    elif start == b"[":
        elements = _decode_array(value)
        if step is EACH:
            found += elements
        elif -len(elements) <= step < len(elements):
            found.append(elements[step])


def _not_there(envelope: Envelope) -> MalformedError:
    return MalformedError(f"The envelope {written(envelope)} is not in the body.")


def written(envelope: Envelope) -> str:
    """The envelope as a path, for people."""
    text = ""
    for step in envelope:
        text += "[]" if step is EACH else f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.removeprefix(".")


def _mended(body: bytes) -> bytes:
    """``body`` with what no decoder takes replaced: halves of surrogate pairs, and bytes that are not UTF-8."""
    halves_gone = _ESCAPES.sub(lambda match: b"?" if match[1] else match[0], body)
    return halves_gone.decode("utf-8", "replace").encode()
