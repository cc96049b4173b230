"""Query parameters: unknown names are refused, and a plus that a URL turned into a blank becomes a plus again."""

from __future__ import annotations

import difflib
import re
from collections.abc import Awaitable
from functools import lru_cache
from typing import TypeVar
from urllib.parse import parse_qsl, unquote_plus

from backhaul_common.errors import BackhaulError, Code, Violation
from fastapi import Request
from fastapi.dependencies.models import Dependant

Page = TypeVar("Page")

_ANY_CASE = frozenset({"channellabel", "includemembers"})
"""Parameters whose names may be written in any case, as they may in the addresses that providers are given and other
systems keep."""

_MAX_PARAMETERS = 100
_MAX_NAMED = 10
_MAX_REMEMBERED = 512
_PLUS = re.compile(r"(^|:) (?=[0-9])")


def known_parameters(request: Request) -> None:
    """INVALID_ARGUMENT, naming each parameter of the query that the request's route does not have."""
    query: bytes = request.scope["query_string"]
    if not query:
        return
    if query.count(b"&") >= _MAX_PARAMETERS:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            f"The query has more than {_MAX_PARAMETERS} parameters.",
            field="query",
            fix="Leave out what is no parameter here.",
        )
    # FastAPI's record of what a route reads. It is not documented, and was read from FastAPI 0.165.
    dependant: Dependant = request.scope["route"].dependant
    names = [field.alias for field in dependant.query_params]
    errors = []
    for name in dict.fromkeys(name for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True)):
        if name in names or (name.lower() in _ANY_CASE and any(name.lower() == own.lower() for own in names)):
            continue
        shown = name[:64]
        close = difflib.get_close_matches(shown.lower(), names, n=1)
        if close:
            fix = f"Did you mean {close[0]}?"
        else:
            fix = f"Use one of: {', '.join(names)}." if names else "Leave the query out."
        errors.append(Violation(shown, f"There is no parameter {shown!r} here.", fix))
        if len(errors) == _MAX_NAMED:
            break
    if errors:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            f"The query holds what is no parameter here: {errors[0].field!r}.",
            violations=errors,
        )


def with_plus(address: str) -> str:
    """``address`` with a plus wherever a plus came as a blank. In a query, a plus that is not escaped means a blank.

    A phone number may begin with a plus, also behind a scheme such as ``whatsapp:``. An e-mail address may have one
    anywhere before the @, and has no blanks.
    """
    if "@" in address:
        local, _, domain = address.rpartition("@")
        return f"{local.replace(' ', '+')}@{domain}"
    return _PLUS.sub(r"\1+", address)


async def paged(call: Awaitable[Page]) -> Page:
    """The page that ``call`` brings. A page_token that a service refuses is named ``cursor``, as in ``/v1``."""
    try:
        return await call
    except BackhaulError as exc:
        if exc.field != "page_token":
            raise
        raise BackhaulError(
            exc.code,
            "The cursor is none that an earlier page gave.",
            field="cursor",
            fix="Send next_cursor of the page before, unchanged, or no cursor to begin.",
        ) from None


def label_of(query: bytes) -> str:
    """The value of the first channelLabel parameter (name in any case), decoded; empty when there is none."""
    return _remembered_label(query) if len(query) <= _MAX_REMEMBERED else _find_label(query)


def _find_label(query: bytes) -> str:
    for pair in query.split(b"&"):
        name, _, value = pair.partition(b"=")
        if len(name) >= 12 and unquote_plus(name.decode("latin-1")).lower() == "channellabel":
            return unquote_plus(value.decode("latin-1")).strip()
    return ""


# All callbacks of a campaign come to one address. Long queries are not kept, so that nobody fills the memory with them.
_remembered_label = lru_cache(maxsize=4096)(_find_label)
