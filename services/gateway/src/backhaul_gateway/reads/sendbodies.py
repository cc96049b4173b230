"""The body of ``POST /v1/sends``: the JSON of each send in it, and how the document describes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from backhaul_channels.sends import MAX_SENDS, Send
from backhaul_common.errors import BackhaulError, Code

from backhaul_gateway.web.problems import MALFORMED_BODY, HttpError

LINES = ("application/x-ndjson", "application/jsonl")

_MANY_COMMAS = 14 * MAX_SENDS
"""Fields of as many sends as there may be, without attributes. What has more commas is looked at before it is cut."""

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?+', re.DOTALL)
_INNERMOST = re.compile(rb"\{[^{}]*+\}")
_DEPTH = 2
"""Objects within each other: a send, and its attributes."""


class _Wrapped(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    sends: list[msgspec.Raw]


_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_wrapped = msgspec.json.Decoder(_Wrapped).decode


def parts_of(body: bytes, content_type: str) -> Sequence[bytes | msgspec.Raw]:
    """The JSON of each send: lines where ``content_type`` says so, else the elements of an array, or of ``sends`` in an
    object. INVALID_ARGUMENT for too many, and for what is neither."""
    if content_type.partition(";")[0].strip().lower() in LINES:
        if body.count(b"\n") > 2 * MAX_SENDS:
            raise _too_many()
        parts: Sequence[bytes | msgspec.Raw] = [line for line in body.split(b"\n") if line.strip()]
    else:
        if body.count(b",") > _MANY_COMMAS and _elements(body) > MAX_SENDS:
            raise _too_many()
        parts = _elements_of(body)
    if len(parts) > MAX_SENDS:
        raise _too_many()
    return parts


def _elements_of(body: bytes) -> list[msgspec.Raw]:
    is_array = body.lstrip()[:1] == b"["
    try:
        return _decode_array(body) if is_array else _decode_wrapped(body).sends
    except msgspec.ValidationError as exc:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            f"{exc}.",
            field="sends",
            fix='Send an array of sends, {"sends": […]}, or a send a line as application/x-ndjson.',
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise HttpError(
            MALFORMED_BODY, "The body is not valid JSON.", field="body", fix="Send a JSON array of sends."
        ) from None


def _elements(body: bytes) -> int:
    """About how many elements the outermost array has. Cutting costs some hundred nanoseconds for each, and callbacks
    wait meanwhile; this costs a fraction."""
    # Without the first bracket, lest the whole of it is one object.
    left = _STRING.sub(b"", body).lstrip()[1:]
    for _ in range(_DEPTH):
        left = _INNERMOST.sub(b"", left)
    return left.count(b",") + 1


def _too_many() -> BackhaulError:
    return BackhaulError(
        Code.INVALID_ARGUMENT,
        f"There are more than {MAX_SENDS:,} sends.",
        field="sends",
        fix=f"Send at most {MAX_SENDS:,} at once.",
    )


def _documented() -> dict[str, Any]:
    (_,), components = msgspec.json.schema_components([Send])
    schema = components["Send"]
    properties = schema["properties"]
    del properties["idempotency"]
    status = components["SendStatus"]
    properties["status"] = {"type": "string", "enum": status["enum"], "default": "sent", "description": _STATUS}
    properties["sent_at"] = {"type": "string", "format": "date-time", "description": "Left out, the time of arrival."}
    for name, text in _DESCRIPTIONS.items():
        properties[name]["description"] = text
    one = {**schema, "description": "One message to one person.", "required": ["channel"]}
    array = {"type": "array", "maxItems": MAX_SENDS, "items": one}
    wrapped = {"type": "object", "required": ["sends"], "properties": {"sends": array}, "additionalProperties": False}
    lines = {"schema": {"type": "string", "description": "A send a line."}}
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"anyOf": [array, wrapped]}}, **dict.fromkeys(LINES, lines)},
        }
    }


_STATUS = "`refused`: by the provider, at once, as its API's error says. `not_generated`: it could not be made."
_DESCRIPTIONS = {
    "channel": "The label of a channel, in any case.",
    "message_id": "The provider's id of the message. Of what was sent, required.",
    "communication": "What it belongs to, by your id.",
    "batch": "The batch of the communication.",
    "member": "The member of the communication whom it is for.",
    "id": "Your own id of this send: what is told of it twice counts once.",
    "error_code": "The provider's code of why it was refused.",
}

DOCUMENTED = _documented()
"""The body for the OpenAPI document, since the route reads it by itself."""
