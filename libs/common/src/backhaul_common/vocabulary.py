"""The words for an enum's values: what is stored and shown instead of ``EVENT_KIND_NO_ANSWER``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Generic, TypeVar

from google.protobuf.descriptor import EnumDescriptor

from backhaul_common.errors import BackhaulError, Code

E = TypeVar("E", bound=StrEnum)

UNKNOWN = "unknown"
"""The word for a value that is newer than this program, or that says nothing."""

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def pascal(name: str) -> str:
    """``InvalidNumber`` of INVALID_NUMBER."""
    return "".join(part.capitalize() for part in name.split("_"))


class Words:
    """The values of one enum as words, and back. The value 0 says nothing, as protobuf wants it, and has no word.

    ``spelled`` makes a word of a value's name without the enum's own: ``no_answer`` of NO_ANSWER if nothing is said.
    """

    def __init__(self, enum: EnumDescriptor, spelled: Callable[[str], str] = str.lower) -> None:
        prefix = _HUMP.sub("_", enum.name).upper() + "_"
        named = {value.number: value.name.removeprefix(prefix) for value in enum.values}
        self.by_number = {number: spelled(name) for number, name in named.items() if number}
        self.words = tuple(self.by_number.values())
        """Every word, in the order of the enum."""
        self._numbers = {word.lower(): number for number, word in self.by_number.items()}

    def word(self, number: int) -> str:
        """The value's word; ``UNKNOWN`` where it has none."""
        return self.by_number.get(number, UNKNOWN)

    def number(self, word: str) -> Any:
        """The value of a word in any case, of the enum's own type; None where there is no such word."""
        return self._numbers.get(word.lower())


class Values(Generic[E]):
    """An enum of protobuf, and the model's enum of the same words."""

    def __init__(self, descriptor: Any, enum: type[E]) -> None:
        words = Words(descriptor)
        self._by_number: Mapping[int, E] = {number: enum(word) for number, word in words.by_number.items()}
        self._numbers: Mapping[E, Any] = {value: words.number(value) for value in enum}

    def value(self, number: int, field: str) -> E | None:
        """The value; None of 0, which says nothing. INVALID_ARGUMENT, of ``field``, for what is newer than this copy or
        none at all."""
        if not number:
            return None
        value = self._by_number.get(number)
        if value is None:
            raise BackhaulError(
                Code.INVALID_ARGUMENT,
                f"{field} has no value {number}.",
                field=field,
                fix=f"Known are: {', '.join(self._by_number.values())}.",
            )
        return value

    def number(self, value: E) -> Any:
        """Its number."""
        return self._numbers[value]
