"""JSON Schemas of what is told: draft 2020-12, one for each type, of the form ``full``.

A schema says what is there, and not what may not be: fields are added, and whoever checks a body by a schema of today
must take one of tomorrow. So is it with words: where a list of them may grow, they are examples.
"""

from __future__ import annotations

from typing import Any

from backhaul_notifier.catalogue.types import KINDS, EventType
from backhaul_notifier.fields import ABOUT, EVENT, TEXT, TIME, JsonSchema, nullable

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema_of(each: EventType) -> JsonSchema:
    """The schema of a body that tells one event or notice of this type."""
    return {
        "$schema": DIALECT,
        "title": each.title,
        "description": each.description,
        "type": "object",
        "properties": {
            "id": {**TEXT, "description": "Of the event or the notice: the same however often it is told."},
            "type": {"const": each.name},
            "timestamp": {**TIME, "description": "When it happened."},
            "revision": {
                "type": "integer",
                "minimum": 0,
                "description": "Grows when the event is completed and told again: of one id the highest counts.",
            },
            "data": _event_data(each) if each.of_events else _notice_data(each),
        },
        "required": ["id", "type", "timestamp", "revision", "data"],
    }


def _event_data(each: EventType) -> JsonSchema:
    schema = EVENT.schema
    words = [KINDS.word(number) for number in sorted(each.kinds)]
    if each.kinds != frozenset(KINDS.by_number):
        schema["properties"]["kind"] = {"const": words[0]} if len(words) == 1 else {**TEXT, "enum": words}
    schema["properties"]["raw_base64"] = {
        **TEXT,
        "contentEncoding": "base64",
        "description": "What the provider sent, verbatim; only where the subscription asks for it.",
    }
    return schema


def _notice_data(each: EventType) -> JsonSchema:
    properties: dict[str, Any] = {
        "id": TEXT,
        "occurred_at": nullable(TIME),
        "text": {**TEXT, "description": "For people."},
        **{name: {**TEXT, "description": says} if says else TEXT for name, says in ABOUT.items()},
        each.reference: TEXT,
        "attributes": {
            "type": "object",
            "properties": {name: {"type": "integer"} if number else TEXT for name, number in each.attributes.items()},
        },
    }
    return {"type": "object", "properties": properties, "required": list(properties)}
