"""Events and notices as JSON objects: which fields they have, how each is read, and what a schema says of it.

The fields of an event are those that the public API shows of it, under the same names and in the same words. What is
left out is what only Backhaul needs (the trace), and the provider's own event, which is told when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from backhaul_common.times import time_of
from backhaul_common.vocabulary import UNKNOWN, Words
from backhaul_proto.callback.v1 import callback_pb2
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.event.v1.event_pb2 import Event
from google.protobuf.message import Message

JsonSchema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """One field. ``source`` is the message's own; ``read`` makes JSON of its value. Without ``read`` the value is as it
    is. A field that a message may leave out is null where it does; one that is ``needed`` must not be left out."""

    name: str
    source: str
    schema: JsonSchema
    read: Callable[[Any], Any] | None = None
    needed: bool = False

    def blank(self, message_type: type[Message]) -> Any:
        """What it is in a message that says nothing."""
        if self.needed or message_type.DESCRIPTOR.fields_by_name[self.source].has_presence:
            return None
        value = getattr(message_type(), self.source)
        return self.read(value) if self.read else value


class NoWordError(Exception):
    """A value has no word, and the field must have one: what holds it says nothing that can be told."""


@dataclass(frozen=True)
class Shape:
    """An object of ``fields``, in their order, made of messages of one type."""

    message_type: type[Message]
    fields: Sequence[Field]
    _blank: Mapping[str, Any] = field(init=False)
    _by_number: Mapping[int, tuple[str, Callable[[Any], Any] | None]] = field(init=False)
    _needed: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        known = self.message_type.DESCRIPTOR.fields_by_name
        by_number = {known[each.source].number: (each.name, each.read) for each in self.fields}
        object.__setattr__(self, "_blank", {each.name: each.blank(self.message_type) for each in self.fields})
        object.__setattr__(self, "_by_number", by_number)
        object.__setattr__(self, "_needed", [each.name for each in self.fields if each.needed])

    def of(self, message: Message) -> dict[str, Any]:
        """What ``message`` is written from; what is in it is not to be changed. NoWordError."""
        made = dict(self._blank)
        # Most fields of an event are empty. Those that are not are read, which takes a third of reading all.
        for descriptor, value in message.ListFields():
            if (known := self._by_number.get(descriptor.number)) is not None:
                name, read = known
                made[name] = read(value) if read else value
        if self._needed and any(made[name] is None for name in self._needed):
            raise NoWordError
        return made

    @property
    def schema(self) -> JsonSchema:
        """What a schema says of it. Every field is always there."""
        return {
            "type": "object",
            "properties": {each.name: each.schema for each in self.fields},
            "required": [each.name for each in self.fields],
        }


def nullable(schema: JsonSchema) -> JsonSchema:
    """``schema``, or null."""
    if isinstance(schema.get("type"), str):
        more = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
        return {**schema, "type": [schema["type"], "null"], **more}
    return {"anyOf": [schema, {"type": "null"}]}


TEXT: JsonSchema = {"type": "string"}
TIME: JsonSchema = {"type": "string", "format": "date-time"}
_TEXTS: JsonSchema = {"type": "array", "items": TEXT}
_PAIRS: JsonSchema = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"name": TEXT, "value": TEXT},
        "required": ["name", "value"],
    },
    "description": "Names may repeat.",
}


def _text(name: str, says: str = "") -> Field:
    return Field(name, name, {**TEXT, "description": says} if says else TEXT)


def _flag(name: str) -> Field:
    return Field(name, name, {"type": "boolean"})


def _text_or_none(name: str) -> Field:
    return Field(name, name, nullable(TEXT), lambda text: text or None)


def _at(name: str, says: str = "") -> Field:
    schema = nullable(TIME)
    return Field(name, f"{name}_us", {**schema, "description": says} if says else schema, time_of)


def _word(name: str, words: Words) -> Field:
    """A word of a list that may grow."""
    by_number = words.by_number
    schema = {**TEXT, "examples": list(words.words)}
    return Field(name, name, schema, lambda number: by_number.get(number, UNKNOWN))


def _word_or_none(name: str, words: Words) -> Field:
    return Field(name, name, nullable({**TEXT, "enum": list(words.words)}), words.by_number.get)


def _needed_word(name: str, words: Words) -> Field:
    def read(number: int) -> str:
        word = words.by_number.get(number)
        if word is None:
            raise NoWordError
        return word

    return Field(name, name, {**TEXT, "enum": list(words.words)}, read, needed=True)


def _list(name: str) -> Field:
    return Field(name, name, _TEXTS, list)


def _pairs(name: str) -> Field:
    get = attrgetter("name", "value")

    def read(rows: Any) -> list[dict[str, str]]:
        return [{"name": key, "value": value} for key, value in map(get, rows)]

    return Field(name, name, _PAIRS, read)


def _inner(name: str, shape: Shape) -> Field:
    def read(message: Message) -> dict[str, Any] | None:
        try:
            return shape.of(message)
        except NoWordError:
            return None

    return Field(name, name, nullable(shape.schema), read)


def _words(enum: Any) -> Words:
    return Words(enum.DESCRIPTOR)


_ACTIONS = _words(event_pb2.ConsentAction)

EVENT = Shape(Event, (
    _text("id", "The same however often the event is told."),
    _text("channel", "The channel's key."),
    _text("provider"),
    _word("kind", _words(event_pb2.EventKind)),
    _text("provider_status", "The provider's own word."),
    _text("message_id"),
    _text("recipient", "The person's address."),
    _text("sender", "The tenant's own address or number."),
    _text("communication_id", "As far as it was known when the event was published."),
    _text("batch_id"),
    _text("member_key"),
    _text("error_code", "As the provider spells it."),
    _text("error_text"),
    _word_or_none("error_class", _words(event_pb2.ErrorClass)),
    _text_or_none("error_url"),
    _text("text", "Of what a person wrote."),
    _at("occurred_at"),
    _word_or_none("occurred_at_basis", _words(event_pb2.TimeBasis)),
    Field("sequence", "sequence", nullable({"type": "integer"})),
    _at("received_at"),
    _word("source", _words(callback_pb2.Source)),
    _word("verification", _words(callback_pb2.Verification)),
    _flag("invalid_recipient"),
    _flag("by_machine"),
    _word_or_none("recipient_family", _words(event_pb2.AddressFamily)),
    _inner(
        "consent",
        Shape(event_pb2.Consent, (
            _needed_word("action", _ACTIONS),
            _needed_word("by", _words(event_pb2.ConsentBy)),
            _text("word"),
            _word_or_none("scope_kind", _words(event_pb2.ConsentScope)),
            _text_or_none("scope"),
            _flag("only_if_opted_out"),
        )),
    ),
    _inner(
        "classification",
        Shape(event_pb2.Classification, (
            _word_or_none("confidence", _words(event_pb2.Confidence)),
            _word_or_none("action", _ACTIONS),
            _text("word"),
            _list("templates"),
            _flag("survey_response"),
        )),
    ),
    _word_or_none("review", _words(event_pb2.Review)),
    _inner("reply", Shape(event_pb2.Reply, (_text("message_id"), _text("payload"), _text("option")))),
    _inner(
        "answered",
        Shape(event_pb2.Answered, (
            _text("channel"),
            _text("message_id"),
            _word_or_none("by", _words(event_pb2.AnsweredBy)),
        )),
    ),
    _list("missing_parameters"),
    _list("default_parameters"),
    Field("revision", "revision", {"type": "integer", "description": "Of two with one id the higher one counts."}),
    _list("references"),
    _pairs("vars"),
    _pairs("attributes"),
    _text("callback_id"),
))  # fmt: skip
"""An event's ``data``."""

ABOUT: Mapping[str, str] = {
    "channel": "The channel's key.",
    "communication_id": "",
    "message_id": "",
    "recipient": "The person's address.",
    "event_id": "The event that brought it about.",
}
"""What every notice's ``data`` has of what it is about; empty where it does not apply. Its ``reference`` stands under a
name that the notice's type tells."""
