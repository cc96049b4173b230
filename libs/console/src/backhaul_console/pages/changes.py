"""Who changed what of a tenant: each change as the difference that it made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from backhaul_client import Page as Rows
from backhaul_client.changes import Change
from starlette.responses import Response

from backhaul_console.forms import REFUSED
from backhaul_console.visits import Page, Visit

_ROWS = 25
"""Each has a table of its own."""
_SHOWN = 300
"""Characters of a value, in a list."""
_MAX_OPEN = 12
"""Fields of a change that are seen at once; more are behind a click."""
_NO_VALUE = object()


async def _list(visit: Visit) -> Response:
    form = visit.asked
    filters: dict[str, Any] = {name: form[name] for name in ("author", "action", "application")}
    try:
        times: dict[str, Any] = {"from_": form.moment("from"), "to": form.moment("to")}
        rows = visit.api.changes(page_size=_ROWS, cursor=form["cursor"], **filters, **times)
        found = await visit.first(rows)
    except REFUSED as exc:
        form, found = form.refused(exc), Rows[Change]((), "")
    return visit.page(
        "changes/list.html",
        status=form.status,
        form=form,
        rows=[(change, differences(change.before, change.after)) for change in found.rows],
        next_cursor=found.next_cursor,
        shown=_MAX_OPEN,
        query={**filters, "from": form["from"], "to": form["to"]},
    )


def differences(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """What is another before and after: the field's path, and both values, of which one is empty where there was none.
    Where only one side is known, all of it."""
    old, new = dict(_leaves("", before or {})), dict(_leaves("", after or {}))
    paths = [*new, *(path for path in old if path not in new)]
    found = [(path, old.get(path, _NO_VALUE), new.get(path, _NO_VALUE)) for path in paths]
    return [
        (path, _text(was), _text(is_))
        for path, was, is_ in found
        if (_text(was), _text(is_)) != ("", "") and was != is_
    ]


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
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


ROUTES = (Page("GET", "/changes", _list),)
