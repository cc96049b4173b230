"""The REST twin of a gRPC answer: a protobuf message as the JSON that a model describes.

How a field is written follows from the message's descriptor and the model's annotation, and is worked out once:

| in the message | in the model | is written as |
|---|---|---|
| an enum | ``str`` | its word; ``unknown`` where it has none |
| an enum | ``… | None`` | its word; null where it has none |
| ``…_us`` | ``…``, or ``…_at`` | RFC 3339; null where no time is known |
| ``…_us`` | ``…_ms``, ``Of`` them | milliseconds |
| repeated enums | a list | their words |
| a string | ``str | None`` | null where it is empty |
| an optional number | ``int | None`` | null where it is absent |
| a message | a model | an object; null where it is absent and may be |
| repeated messages | a list of models | objects |
| repeated pairs of a key and a count | ``dict[str, int]`` | an object; ``Every`` gives each word of an enum a count |
| repeated pairs of two texts | ``dict[str, str]`` | an object |
| repeated pairs of a text and such pairs | ``dict[str, dict[str, str]]`` | an object of objects |
| seconds, ``…_s`` | ``…_hours``, ``Of`` them | hours |
| bytes | ``…_base64``, ``…_text`` | all of them, and what can be read of them |
| bytes | a list of pairs | lines of an HTTP head |
| bytes | ``x`` beside ``x_format``, ``Of`` them | a provider's own event, as ``rawdata`` passes it on |
| anything else | the same | as it is |

A field of the model has its namesake in the message, or names it by ``Of``, with dots where it stands in an inner one.
ValueError where it has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from operator import attrgetter
from types import MappingProxyType, NoneType
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin

import orjson
from backhaul_common.vocabulary import UNKNOWN, Words
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from pydantic import BaseModel

from backhaul_gateway.twins.rawdata import base64_of, data_of, text_of
from backhaul_gateway.twins.turns import Steps

Row = TypeVar("Row", bound=Message)

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # UTC, which is written as a Z: with a zone it would take three times as long


@dataclass(frozen=True, slots=True)
class Of:
    """Names the field of the message that a model's field shows, such as ``raw``, or ``counts.id`` of an inner one."""

    name: str


class Every:
    """Marks counts that name each word of their enum, also those that occur nowhere."""


class _OrUnknown(dict[int, str]):
    """Words by number. A look-up that finds none costs no call of Python's that one which does would pay too."""

    def __missing__(self, _: int) -> str:
        return UNKNOWN


class NoWordError(Exception):
    """An enum's value has no word, and the model allows words only."""


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of a model, with the one of the message that it shows, and the way there."""

    name: str
    path: str
    source: FieldDescriptor
    kind: Any
    nullable: bool
    every: bool


class Twin(Generic[Row]):
    """Writes messages of one type as the JSON that ``model`` describes, in its order, in steps.

    ``enums`` are the words of enums that are not spelled in lower case, by full name. Fields that the message does not
    have are looked for in its field ``inside``. ``computed`` are those that a function of the message works out.
    """

    def __init__(
        self,
        model: type[BaseModel],
        message: Descriptor,
        enums: Mapping[str, Words] = MappingProxyType({}),
        *,
        inside: str = "",
        computed: Mapping[str, Callable[[Row], Steps[Any]]] = MappingProxyType({}),
    ) -> None:
        self.model = model
        self._enums = enums
        self._names = tuple(model.model_fields)
        self._converted: list[tuple[int, Callable[[Any], Any]]] = []
        self._asked: list[tuple[int, Callable[[Row], Any]]] = []
        self._stepped: list[Callable[[Row, list[Any]], Steps[None]]] = []
        paths = []
        for index, name in enumerate(self._names):
            if name in computed:
                paths.append("DESCRIPTOR")  # Whatever is there stands in for what is put in its place.
                self._stepped.append(_computing(index, computed[name]))
                continue
            field = _field(model, name, message, inside)
            paths.append(field.path)
            self._add(index, field)
        get = attrgetter(*paths)
        self._get: Callable[[Row], Any] = get if len(paths) > 1 else lambda row: (get(row),)

    def json(self, message: Row) -> Steps[bytes]:
        """The JSON of ``message``."""
        values = self._values(message)
        for steps in self._stepped:
            yield from steps(message, values)
        return orjson.dumps(dict(zip(self._names, values)))  # noqa: B905  # there is a value for each name

    def _values(self, message: Row) -> list[Any]:
        values = list(self._get(message))
        for index, convert in self._converted:
            values[index] = convert(values[index])
        for index, ask in self._asked:
            values[index] = ask(message)
        return values

    def _object(self, message: Row) -> dict[str, Any]:
        """What a message without steps is encoded from."""
        return dict(zip(self._names, self._values(message)))  # noqa: B905  # there is a value for each name

    def _add(self, index: int, field: _Field) -> None:
        source = field.source
        if source.type == FieldDescriptor.TYPE_BYTES:
            self._add_bytes(index, field)
        elif source.is_repeated and source.message_type is not None:
            self._add_rows(index, field)
        elif source.is_repeated and source.enum_type is not None:
            self._converted.append((index, _listed(self._word(source.enum_type, field))))
        elif source.is_repeated:
            self._converted.append((index, list))
        elif source.message_type is not None:
            self._add_message(index, field)
        elif source.enum_type is not None:
            self._converted.append((index, self._word(source.enum_type, field)))
        elif source.name.endswith("_us"):
            self._converted.append((index, _milliseconds if field.name.endswith("_ms") else time_of))
        elif source.name.endswith("_s") and field.name.endswith("_hours"):
            self._converted.append((index, _hours))
        elif field.nullable and source.has_presence:
            self._asked.append((index, _if_present(field)))
        elif field.nullable:
            self._converted.append((index, _text_or_none))

    def _add_message(self, index: int, field: _Field) -> None:
        twin: Twin[Any] = Twin(field.kind, _type_of(field.source), self._enums)
        present = _if_present(field)

        def steps(row: Row, values: list[Any]) -> Steps[None]:
            inner = present(row)
            values[index] = None if inner is None else orjson.Fragment((yield from twin.json(inner)))

        def ask(row: Row) -> dict[str, Any] | None:
            inner = present(row)
            try:
                return None if inner is None else twin._object(inner)
            except NoWordError:
                return None

        if not field.nullable:
            self._converted.append((index, twin._object))
        elif twin._stepped:
            self._stepped.append(steps)
        else:
            self._asked.append((index, ask))

    def _add_rows(self, index: int, field: _Field) -> None:
        if get_origin(field.kind) is dict:
            self._converted.append((index, self._counts(field)))
            return
        twin: Twin[Any] = Twin(get_args(field.kind)[0], _type_of(field.source), self._enums)
        names, get = twin._names, twin._get

        def pairs(rows: Iterable[Any]) -> list[dict[str, Any]]:
            return [dict(zip(names, values)) for values in map(get, rows)] if rows else []  # noqa: B905  # made of the same names

        def steps(_: Row, values: list[Any]) -> Steps[None]:
            encoded = []
            for row in values[index]:
                encoded.append(orjson.Fragment((yield from twin.json(row))))
                yield
            values[index] = encoded

        if twin._converted or twin._asked or twin._stepped:
            self._stepped.append(steps)
        else:
            self._converted.append((index, pairs))

    def _add_bytes(self, index: int, field: _Field) -> None:
        of_format = self._names.index(f"{field.name}_format") if f"{field.name}_format" in self._names else None

        def data(_: Row, values: list[Any]) -> Steps[None]:
            assert of_format is not None  # noqa: S101  # it is used for nothing else
            values[of_format], text = yield from data_of(values[index])
            values[index] = orjson.Fragment(text)

        def exact(_: Row, values: list[Any]) -> Steps[None]:
            values[index] = orjson.Fragment((yield from base64_of(values[index])))

        def readable(_: Row, values: list[Any]) -> Steps[None]:
            values[index] = orjson.Fragment((yield from text_of(values[index])))

        if of_format is not None:
            self._stepped.append(data)
        elif field.name.endswith("_base64"):
            self._stepped.append(exact)
        elif field.name.endswith("_text"):
            self._stepped.append(readable)
        elif get_origin(field.kind) is list:
            self._converted.append((index, _head_lines))
        elif not field.name.endswith("_format"):
            raise ValueError(f"{self.model.__name__}.{field.name}: nothing says how these bytes are shown")

    def _word(self, enum: EnumDescriptor, field: _Field) -> Callable[[int], str | None]:
        words = self._words(enum)
        if field.nullable:
            return words.by_number.get
        if get_origin(field.kind) is not Literal:
            return _OrUnknown(words.by_number).__getitem__

        def word(number: int) -> str:
            if number not in words.by_number:
                raise NoWordError
            return words.by_number[number]

        return word

    def _counts(self, field: _Field) -> Callable[[Iterable[Any]], dict[str, Any]]:
        key, count = _type_of(field.source).fields
        if key.enum_type is None:
            return _pairs(field.source)
        words = self._words(key.enum_type)
        each = dict.fromkeys(words.words, 0) if field.every else {}

        def counts(pairs: Iterable[Any]) -> dict[str, int]:
            found = dict(each)
            for pair in pairs:
                word = words.word(getattr(pair, key.name))
                found[word] = found.get(word, 0) + getattr(pair, count.name)
            return found

        return counts

    def _words(self, enum: EnumDescriptor) -> Words:
        return self._enums.get(enum.full_name) or Words(enum)


def _computing(index: int, compute: Callable[[Row], Steps[Any]]) -> Callable[[Row, list[Any]], Steps[None]]:
    def steps(row: Row, values: list[Any]) -> Steps[None]:
        values[index] = yield from compute(row)

    return steps


def time_of(microseconds: int) -> str | None:
    """RFC 3339 with microseconds; None where no time is known, or none that a calendar has."""
    if not microseconds:
        return None
    try:
        return (_EPOCH + timedelta(microseconds=microseconds)).isoformat(timespec="microseconds") + "Z"
    except OverflowError:
        return None


def _field(model: type[BaseModel], name: str, message: Descriptor, inside: str) -> _Field:
    info = model.model_fields[name]
    named = next((mark.name for mark in info.metadata if isinstance(mark, Of)), "")
    candidates = [named] if named else [name, f"{name}_us", name.removesuffix("_base64"), name.removesuffix("_text")]
    for candidate in candidates:
        source = _source(message, candidate)
        if source is not None:
            path = candidate
            break
    else:
        outer = message.fields_by_name.get(inside)
        if outer is None:
            raise ValueError(f"{model.__name__}.{name} shows nothing that {message.full_name} has")
        found = _field(model, name, _type_of(outer), "")
        return replace(found, path=f"{inside}.{found.path}")
    options = [option for option in get_args(info.annotation) if option is not NoneType]
    nullable = NoneType in get_args(info.annotation)
    kind = options[0] if nullable else info.annotation
    return _Field(name, path, source, kind, nullable, any(mark is Every for mark in info.metadata))


def _source(message: Descriptor, path: str) -> FieldDescriptor | None:
    """The field at ``path``, which has dots where it leads into inner messages; None where there is none."""
    name, _, rest = path.partition(".")
    found = message.fields_by_name.get(name)
    return _source(_type_of(found), rest) if rest and found is not None else found


def _type_of(source: FieldDescriptor) -> Descriptor:
    assert source.message_type is not None  # noqa: S101  # asked for fields that hold messages only
    return source.message_type


def _listed(word: Callable[[int], str | None]) -> Callable[[Iterable[int]], list[str | None]]:
    return lambda numbers: [word(number) for number in numbers]


def _if_present(field: _Field) -> Callable[[Message], Any]:
    outer, _, name = field.path.rpartition(".")
    holder: Callable[[Message], Any] = attrgetter(outer) if outer else lambda row: row

    def ask(row: Message) -> Any:
        held = holder(row)
        return getattr(held, name) if held.HasField(name) else None

    return ask


def _pairs(source: FieldDescriptor) -> Callable[[Iterable[Any]], dict[str, Any]]:
    key, value = _type_of(source).fields
    if value.message_type is None:
        return lambda pairs: {getattr(pair, key.name): getattr(pair, value.name) for pair in pairs}
    inner = _pairs(value)
    return lambda pairs: {getattr(pair, key.name): inner(getattr(pair, value.name)) for pair in pairs}


def _hours(seconds: int) -> float:
    return seconds / 3600


def _milliseconds(microseconds: int) -> float:
    return microseconds / 1000


def _text_or_none(text: str) -> str | None:
    return text or None


def _head_lines(head: bytes) -> list[dict[str, str]]:
    lines = []
    for line in head.decode("latin-1").split("\r\n"):
        name, colon, value = line.partition(": ")
        if colon:
            lines.append({"name": name, "value": value})
    return lines
