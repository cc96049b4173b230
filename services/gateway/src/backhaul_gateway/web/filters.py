"""What several routes ask by: filters, spans of time, and positions in pages."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.vocabulary import Words
from fastapi import Query
from pydantic import AfterValidator

from backhaul_gateway.admission.refusals import UNENCODABLE
from backhaul_gateway.web.moments import Moment
from backhaul_gateway.web.parameters import with_plus

_LATEST = datetime(9999, 1, 1, tzinfo=UTC)
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


def _encodable(value: str) -> str:
    if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(UNENCODABLE)
    return value


Text = Annotated[str, AfterValidator(_encodable)]
Filter = Annotated[Text, Query(max_length=512)]
Address = Annotated[
    Text,
    AfterValidator(with_plus),
    Query(max_length=512, description="An address. A plus that was not escaped, and thus came as a blank, is a plus."),
]
Limit = Annotated[int, Query(ge=1, le=500)]
Cursor = Annotated[Text, Query(max_length=2048, description="next_cursor of the page before.")]
From = Annotated[Moment | None, Query(alias="from", description="RFC 3339; inclusive.")]
To = Annotated[Moment | None, Query(description="RFC 3339; exclusive.")]


def one_of(words: Words) -> Any:
    """A parameter that takes one of ``words``, or none."""
    lower = [word.lower() for word in words.words]
    return Query(max_length=64, description=f"One of: {', '.join(lower)}.", json_schema_extra={"enum": ["", *lower]})


def number_of(words: Words, word: str, field: str) -> Any:
    """The value that ``word`` stands for; 0, which filters nothing, of none. INVALID_ARGUMENT names ``field``."""
    if not word:
        return 0
    number = words.number(word)
    if number is None:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            f"{word[:64]!r} is no value of {field}.",
            field=field,
            fix=f"Use one of: {', '.join(words.words).lower()}.",
        )
    return number


def microseconds(moment: datetime | None) -> int:
    """Unix time in microseconds; a time without an offset is UTC. 0 means no bound."""
    if moment is None:
        return 0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    bounded = min(max(moment, _EARLIEST), _LATEST)
    delta = bounded - _EARLIEST
    # 0 would mean no bound; the first microsecond is close enough to the epoch.
    return max(1, (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds)
