"""Lists that are asked for by a form of filters, whose values stand in the page's address."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from backhaul_client import AsyncRows
from backhaul_client.moments import is_span

from backhaul_console.forms import MISTYPED, Filled, moment_of
from backhaul_console.visits import Visit

T = TypeVar("T")

PAGE_SIZE = 50
_TIMES = ("from", "to")


@dataclass(frozen=True, kw_only=True)
class Listed(Generic[T]):
    """A page of rows, and the form that asked for it. ``query`` leads to the next page: a time such as ``2h`` is what
    it was on the first one."""

    form: Filled
    query: Mapping[str, str]
    rows: Sequence[T] = ()
    cursor: str = ""


async def listed(
    visit: Visit, names: Sequence[str], ask: Callable[..., AsyncRows[T]], *, page_size: int = PAGE_SIZE
) -> Listed[T]:
    """The page of rows that the visit's address asks for, by filters of these ``names``, which ``ask`` takes. What the
    visitor can mend stands in the form; anything else is raised."""
    form = form_of(visit, names)
    try:
        asked = filters_of(form, names)
        page = await visit.first(ask(**asked, page_size=page_size, cursor=visit.query.get("cursor", "")))
    except MISTYPED as exc:
        return Listed(form=form.refused(exc), query={})
    fixed = {name: asked[f"{name}_" if name == "from" else name] for name in _TIMES if is_span(form[name])}
    query = {name: fixed[name].isoformat() if name in fixed else form[name] for name in names}
    return Listed(form=form, query=query, rows=page.rows, cursor=page.next_cursor)


def form_of(visit: Visit, names: Sequence[str]) -> Filled:
    """The form as the visit's address fills it in."""
    return Filled.of(**{name: visit.query.get(name, "") for name in names})


def filters_of(form: Filled, names: Sequence[str]) -> dict[str, Any]:
    """What of it is filled in, as the client takes it. Raises as the API would."""
    now = datetime.now(UTC)
    typed = {name: form[name] for name in names if form[name]}
    return {
        "from_" if name == "from" else name: moment_of(name, text, now) if name in _TIMES else text
        for name, text in typed.items()
    }
