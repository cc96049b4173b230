"""Templates, and how values look in them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from backhaul_console.texts import TRANSLATIONS
from backhaul_console.words import words

ROOT = "/console"

NOTHING = "\N{EN DASH}"
"""Where there is no value."""

_MOMENT = re.compile(r"\b[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
"""As the API writes one in a sentence."""

GOOD = frozenset(
    {
        "ok",
        "OK",
        "delivered",
        "read",
        "active",
        "succeeded",
        "on",
        "enforce",
        "Delivered",
        "Opened",
        "Clicked",
        "closed",
        "complete",
    }
)
BAD = frozenset(
    {
        "error",
        "Error",
        "failed",
        "Failed",
        "undelivered",
        "bounced",
        "dropped",
        "suppressed",
        "Suppressed",
        "away",
        "open",
        "failing",
        "credentials_refused",
        "silent",
        "Undelivered",
        "InvalidNumber",
    }
)
WARNING = frozenset(
    {
        "warning",
        "held",
        "paused",
        "waiting",
        "retrying",
        "observe",
        "flagged",
        "deferred",
        "suspended",
        "disabled",
        "no_credentials",
    }
)


def environment() -> Environment:
    """The templates of this package. A name that a page was not given is an error, and every value is text and never
    markup."""
    made = Environment(
        loader=PackageLoader("backhaul_console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n", "jinja2.ext.loopcontrols"],
        auto_reload=False,
    )
    made.install_gettext_translations(TRANSLATIONS, newstyle=True)  # type: ignore[attr-defined]  # of the i18n extension
    made.filters.update(
        time=time_of,
        day=day_of,
        hour=hour_of,
        number=number,
        json=pretty,
        mood=mood,
        segment=segment,
        seconds=seconds,
        words=words,
        web=web,
        times=times,
    )
    made.globals.update(root=ROOT, asset=asset, address=address)
    return made


def time_of(at: datetime | None) -> Markup:
    """A moment, as every page shows it: UTC, and what the visitor chose where there is JavaScript."""
    if at is None:
        return Markup("<span class=none>{}</span>").format(NOTHING)
    utc = at.astimezone(UTC)
    exact = utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}">{:%Y-%m-%d %H:%M:%S}\N{NO-BREAK SPACE}UTC</time>').format(exact, utc)


def times(text: str | None) -> Markup:
    """A text of the API, with the moments in it as every page shows them."""
    return Markup(_MOMENT.sub(_time_in, escape(text or "")))  # noqa: S704  # it is escaped, and times are markup


def _time_in(found: re.Match[str]) -> str:
    try:
        return time_of(datetime.fromisoformat(found[0]))
    except ValueError:
        return found[0]


def day_of(at: datetime) -> str:
    """A moment's day, by UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d}"


def hour_of(at: datetime | None) -> str:
    """A moment that is known to the hour, by UTC."""
    return NOTHING if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:00} UTC"


def number(value: float | None) -> str:
    """A count for people; a dash where it is not known."""
    return NOTHING if value is None else f"{value:,}"


def seconds(value: float) -> str:
    """A span of time in the unit that people would use."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms"


def pretty(value: Any) -> str:
    """JSON over several lines, names and texts as they are."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def mood(word: str | None) -> str:
    """``good``, ``bad``, ``warning`` or ``plain``: how a state is coloured. The word itself always stands beside it."""
    if word in GOOD:
        return "good"
    if word in BAD:
        return "bad"
    return "warning" if word in WARNING else "plain"


def segment(text: str) -> str:
    """A text of strangers as one part of a path."""
    return quote(text, safe="")


def web(url: str | None) -> str:
    """An address that a provider told, where it leads to a web page; empty for anything else, such as a script."""
    return url if url and url.startswith(("https://", "http://")) else ""


def address(path: str, **query: object) -> str:
    """An address of the console. What is empty, None or False is left out of the query."""
    given = {name: value for name, value in query.items() if value is not None and value is not False and value != ""}
    return f"{ROOT}{path}" + (f"?{urlencode(given)}" if given else "")


@cache
def asset(name: str) -> str:
    """The address of a file of ``static/``, which changes with its content: browsers may keep it for ever."""
    content = files("backhaul_console").joinpath("static", name).read_bytes()
    return f"{ROOT}/static/{hashlib.sha256(content).hexdigest()[:16]}/{name}"


def shown(params: Mapping[str, str], *names: str) -> dict[str, str]:
    """Of an address's query what a form of the page shows again."""
    return {name: params.get(name, "").strip() for name in names}
