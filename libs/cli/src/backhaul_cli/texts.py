"""Values as people read them. What strangers wrote may hold anything: no control character of theirs gets through."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime

_NOT_SHOWN = re.compile(
    # Controls, with one of which each escape sequence begins; then what is not to be seen, or reorders what is.
    "[\x00-\x1f\x7f-\x9f"
    "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
    "\ud800-\udfff]"
)
_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


def plain(text: str) -> str:
    """``text`` with an escape such as ``\\x1b`` in the place of what would move, hide or reorder anything."""
    return _NOT_SHOWN.sub(lambda found: _escape(ord(found[0])), text)


def plain_json(text: str) -> str:
    """JSON that means the same, likewise. Such a character stands in no JSON but in a string."""
    return _NOT_SHOWN.sub(lambda found: _json_escape(ord(found[0])), text)


def _escape(code: int) -> str:
    named = {9: "\\t", 10: "\\n", 13: "\\r"}.get(code)
    return named or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")


def _json_escape(code: int) -> str:
    if code in (10, 13, 9):
        return chr(code)  # Between the parts of a document: within strings they are escaped already.
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def shown(value: object) -> str:
    """A value in one line; empty for what is not known."""
    match value:
        case None:
            text = ""
        case bool():
            text = "yes" if value else "no"
        case float():
            text = f"{value:g}"
        case datetime():
            text = exact(value)
        case Mapping():
            text = ", ".join(f"{name}={shown(one)}" for name, one in value.items())
        case tuple() | list():
            text = ", ".join(shown(one) for one in value)
        case _:
            text = str(value)
    return plain(text)


def command(name: str, *given: object, **options: object) -> str:
    """``backhaul <name>`` as a shell takes it, whatever ``given`` and the values of ``options`` hold, which strangers
    may have named. Options are by their names (``from_`` is --from); those that are empty are left out, and True is one
    without a value."""
    said: list[str] = []
    for option, value in options.items():
        if value is not None and value is not False and value != "":
            said.append(f"--{option.rstrip('_').replace('_', '-')}")
            said += [] if value is True else [str(value)]
    words = [str(one) for one in given]
    # Behind two dashes a word is no option.
    said = [*said, "--", *words] if any(one.startswith("-") for one in words) else [*words, *said]
    return shlex.join(["backhaul", *name.split(), *said])


def exact(moment: datetime) -> str:
    """A time in UTC, to the millisecond."""
    return moment.astimezone(UTC).isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "Z")


def age(moment: datetime | None, now: datetime) -> str:
    """How long ago ``moment`` was, as short as it gets: ``42s``, ``3h``, ``17d``."""
    return "" if moment is None else span((now - moment).total_seconds())


def span(seconds: float) -> str:
    """A length of time in its largest whole unit."""
    seconds = max(seconds, 0)
    name, unit = next(((name, unit) for name, unit in _UNITS if seconds >= unit), _UNITS[-1])
    return f"{int(seconds // unit)}{name}"
