"""Who changed what of a tenant: each change as the difference that it made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import msgspec
from backhaul_client import AsyncRows, NotFoundError
from backhaul_client.changes import Change
from markupsafe import escape
from starlette.responses import Response

from backhaul_console.filtering import Listed, listed
from backhaul_console.texts import _
from backhaul_console.visits import Page, Visit

_FILTERS = ("author", "action", "application", "from", "to")
ROWS = 25
"""Each has a table of its own."""
_SHOWN = 300
"""Characters of a value, or of a field's path, in a list."""
_MAX_OPEN = 12
"""Fields of a change that are seen at once; more are behind a click."""
_ROOM, _A_ROW = 2_500, 120
"""Bytes that the differences of one change may take of a page of ``ROWS``, and what a row of them takes beside its
texts."""
_NO_VALUE = object()


async def _list(visit: Visit) -> Response:
    return shown(visit, await listed(visit, _FILTERS, visit.api.changes, page_size=ROWS))


def shown(visit: Visit, found: Listed[Change]) -> Response:
    """The page of a list of changes."""
    return visit.page(
        "changes/list.html",
        status=found.form.status,
        form=found.form,
        found=found,
        rows=[(change, *bounded(differences(change.before, change.after))) for change in found.rows],
        shown=_MAX_OPEN,
    )


async def _whole(visit: Visit) -> Response:
    return await whole(visit, visit.api.changes)


async def whole(visit: Visit, ask: Callable[..., AsyncRows[Change]]) -> Response:
    """All of one change as JSON. The API lists changes alone, so it is looked for at its time."""
    at = visit.asked.moment("at")
    async for change in ask(from_=at, to=at + timedelta(seconds=1) if at else None):
        if change.id == visit.query.get("id"):
            return Response(msgspec.json.format(msgspec.json.encode(change), indent=2), media_type="application/json")
    raise NotFoundError(status=404, code="not_found", detail=_("There is no such change."))


def differences(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """What is another before and after: the field's path, and both values, of which one is empty where there was none.
    Where only one side is known, all of it."""
    old, new = dict(_leaves("", before or {})), dict(_leaves("", after or {}))
    paths = [*new, *(path for path in old if path not in new)]
    found = [(path, old.get(path, _NO_VALUE), new.get(path, _NO_VALUE)) for path in paths]
    return [
        (_cut(path), _text(was), _text(is_))
        for path, was, is_ in found
        if (_text(was), _text(is_)) != ("", "") and was != is_
    ]


def bounded(found: Sequence[tuple[str, str, str]]) -> tuple[Sequence[tuple[str, str, str]], int]:
    """As many of a change's differences as have room on a page beside those of the others, and how many more there
    are."""
    room = _ROOM
    for number, row in enumerate(found):
        room -= _A_ROW + sum(len(escape(text)) for text in row)
        if room < 0 and number:
            return found[:number], len(found) - number
    return found, 0


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, part in value.items():
            yield from _leaves(f"{path}.{name}" if path else str(name), part)
    elif isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
        for number, part in enumerate(value):
            yield from _leaves(f"{path}[{number}]", part)
    elif path:
        yield path, value


def _text(value: Any) -> str:
    if value is _NO_VALUE or value is None:
        return ""
    if isinstance(value, list):
        text = ", ".join(map(str, value)) or "[]"
    else:
        text = str(value).lower() if isinstance(value, bool) else str(value)
    return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


ROUTES = (
    Page("GET", "/changes", _list),
    Page("GET", "/changes/whole", _whole),
)
