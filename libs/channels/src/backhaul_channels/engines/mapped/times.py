"""Times as webhooks write them, in unix microseconds."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from email.utils import parsedate_to_datetime
from zoneinfo import ZoneInfo

from backhaul_channels.engines.times import MAX_TIME, microseconds_of

_LAST_US = 253_402_300_799_999_999

_UNITS = {"unix_s": 1_000_000, "unix_ms": 1_000, "unix_us": 1}
WORDS = ("auto", "iso8601", "rfc2822", *_UNITS)

# What a number counts is guessed from the year that it would be: dates are written as numbers too (20261126021537).
_FIRST_S, _LAST_S = 946_684_800, 4_102_444_800
_NUMBER = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,9})?", re.ASCII)

# Names of zones are ambiguous, and what depends on the locale is different on another machine.
_DIRECTIVES = frozenset("YymdHIMSfpzbBaAj%")
_INCOMPLETE = "A time that is written so has no year, month or day."
_REFERENCE = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)

ToMicroseconds = Callable[[object], int]
"""Unix microseconds of a scalar of a document. Raises ValueError for what is no time, or none between 1970 and 9999."""


def zone_of(name: str) -> tzinfo:
    """The zone of that name in the IANA's list. Raises ValueError."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError("There is no such time zone. Use a name of the IANA's list, such as Europe/Berlin.") from None


def check_format(text: str) -> str:
    """``text`` if it is a format of time. Raises ValueError, which says what to write."""
    if text in WORDS:
        return text
    if "%" not in text:
        raise ValueError(f"Use one of {', '.join(WORDS)}, or a format such as %Y-%m-%d %H:%M:%S.")
    used = re.findall(r"%(.?)", text, re.DOTALL)
    unknown = sorted({f"%{one}" for one in used if one not in _DIRECTIVES or not one})
    if unknown:
        raise ValueError(f"{', '.join(unknown)} cannot be used. Known are %{', %'.join(sorted(_DIRECTIVES))}.")
    if not {"Y", "y"} & set(used):
        # Python warns of a day without a year from 3.13 on, and will refuse it.
        raise ValueError(_INCOMPLETE)
    try:
        read_back = datetime.strptime(_REFERENCE.strftime(text), text)  # noqa: DTZ007  # only its date is looked at.
    except (ValueError, re.error):
        raise ValueError("No time that is written so can be read. Use each directive once.") from None
    if read_back.date() != _REFERENCE.date():
        raise ValueError(_INCOMPLETE)
    return text


def reader_of(text: str, zone: tzinfo) -> ToMicroseconds:
    """What reads times of the format ``text``, which ``check_format`` has passed. A time without an offset is of
    ``zone``; where clocks are set back, the first of two equal times is meant."""
    unit = _UNITS.get(text)
    if unit is not None:
        return lambda value: _of_number(value, unit)
    if text == "auto":
        return lambda value: _guess(value, zone)
    if text == "iso8601":
        return lambda value: _of_moment(datetime.fromisoformat(_text(value)), zone)
    if text == "rfc2822":
        return lambda value: _of_moment(_rfc2822(_text(value)), zone)
    return lambda value: _of_moment(datetime.strptime(_text(value), text), zone)  # noqa: DTZ007  # the zone is added.


def _guess(value: object, zone: tzinfo) -> int:
    if type(value) is int or type(value) is float or _NUMBER.fullmatch(_text(value)):
        number = float(value) if type(value) is str else value
        for unit in _UNITS.values():
            if _FIRST_S <= number * unit / 1_000_000 < _LAST_S:  # type: ignore[operator]  # a number by now.
                return _of_number(value, unit)
        raise ValueError("no time between the years 2000 and 2100, whichever unit it counts")
    text = _text(value)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = _rfc2822(text)
    return _of_moment(moment, zone)


def _text(value: object) -> str:
    if type(value) is not str:
        raise ValueError("no text")
    text = value.strip()
    if not text or len(text) > MAX_TIME:
        raise ValueError("empty, or too long")
    return text


def _rfc2822(text: str) -> datetime:
    try:
        return parsedate_to_datetime(text)
    except (TypeError, IndexError, OverflowError, AttributeError) as error:
        raise ValueError("no date") from error


def _of_number(value: object, unit: int) -> int:
    # bool is an int to Python, and no time to anybody.
    if type(value) is int:
        microseconds = value * unit
    elif type(value) is float:
        microseconds = round(value * unit) if 0 <= value <= _LAST_US else -1
    else:
        text = _text(value)
        if not _NUMBER.fullmatch(text):
            raise ValueError("no number")
        whole, _, fraction = text.partition(".")
        microseconds = int(whole) * unit + (round(int(fraction) * unit / 10 ** len(fraction)) if fraction else 0)
    return _bounded(microseconds)


def _of_moment(moment: datetime, zone: tzinfo) -> int:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    try:
        return _bounded(microseconds_of(moment))
    except OverflowError as error:
        raise ValueError("beyond the calendar") from error


def _bounded(microseconds: int) -> int:
    if not 0 < microseconds <= _LAST_US:
        raise ValueError("not between the years 1970 and 9999")
    return microseconds
