"""Pages of what a store has of a registration, newest first: each row once, whatever arrives while they are read.

A page ends behind a row, and the next begins there: at that row's time and id, which never change. Its token says so.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pymongo
from pymongo import DESCENDING
from pymongo.errors import ExecutionTimeout

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_common.sizes import PAGE_BYTES

DEFAULT_ROWS = 50
MAX_ROWS = 500

_MAX_TIME_US = 1 << 62
"""MongoDB's integers have 64 bits."""

_BATCH_ROWS = 64
"""What MongoDB sends at a time, 16 MB at most: a default page is one such answer."""

_ANSWERED_S = 1.0
"""Within so long the server says that it has stopped."""


class TooLongError(Exception):
    """MongoDB looked at rows for as long as it was allowed to, and did not find enough."""


@dataclass(frozen=True, slots=True)
class Query:
    """A question for a page.

    ``time_field`` is in microseconds, and set once. ``span`` bounds it, from inclusive to exclusive; 0 leaves an end
    open. Of ``filters``, those with an empty value do not filter. ``only`` is a further condition. ``size`` is 1 to
    MAX_ROWS, 0 is DEFAULT_ROWS. ``token`` is that of the page before, or empty. ``without`` is a field to leave out.
    ``binary_ids`` says that ids are bytes, and not text.
    """

    collection: str
    time_field: str
    registration: str
    filters: Mapping[str, Any] = field(default_factory=dict)
    span: tuple[int, int] = (0, 0)
    size: int = 0
    token: str = ""
    without: str = ""
    only: Document = field(default_factory=dict)
    binary_ids: bool = False

    @property
    def filtered_by(self) -> Sequence[str]:
        """The filters that have a value."""
        return [name for name, value in self.filters.items() if value]

    def condition(self) -> Document:
        """What MongoDB is asked. INVALID_ARGUMENT names ``page_token`` where it is none of ours."""
        conditions: list[Document] = [
            {"registration": self.registration, **{name: self.filters[name] for name in self.filtered_by}}
        ]
        if self.only:
            conditions.append(self.only)
        if self.span[0]:
            conditions.append({self.time_field: {"$gte": self.span[0]}})
        if self.span[1]:
            conditions.append({self.time_field: {"$lt": self.span[1]}})
        if (before := self.before()) is not None:
            at_us, text = before
            last_id = bytes_in(text) if self.binary_ids else text
            conditions.append({self.time_field: {"$lte": at_us}})
            conditions.append({"$or": [{self.time_field: {"$lt": at_us}}, {"_id": {"$lt": last_id}}]})
        return {"$and": conditions}

    def before(self) -> tuple[int, str] | None:
        """The position of the page before; None where this is the first. INVALID_ARGUMENT names ``page_token``."""
        return position_in(self.token) if self.token else None

    def rows(self) -> int:
        """How many rows are asked for. INVALID_ARGUMENT names ``page_size``."""
        if self.size and not 1 <= self.size <= MAX_ROWS:
            raise BackhaulError(
                Code.INVALID_ARGUMENT, f"A page has 1 to {MAX_ROWS} rows.", field="page_size", fix="Ask for fewer."
            )
        return self.size or DEFAULT_ROWS


async def page(database: mongo.Database, query: Query, *, within_s: float) -> tuple[list[Document], str]:
    """The rows, and the token of the next page, which is empty on the last.

    TooLongError after ``within_s``, however many are found by then; UNAVAILABLE while MongoDB is away.
    """
    rows, more = await first(
        database,
        query.collection,
        query.condition(),
        [(query.time_field, DESCENDING), ("_id", DESCENDING)],
        query.rows(),
        without=query.without,
        within_s=within_s,
    )
    if not more:
        return rows, ""
    last_id = rows[-1]["_id"]
    return rows, token_of(rows[-1][query.time_field], last_id.hex() if query.binary_ids else last_id)


async def first(
    database: mongo.Database,
    collection: str,
    condition: Document,
    order: Sequence[tuple[str, int]],
    size: int,
    *,
    within_s: float,
    without: str = "",
) -> tuple[list[Document], bool]:
    """The first ``size`` rows, fewer where they would have more than PAGE_BYTES; and whether there are more.

    Raises as ``page`` does.
    """
    rows: list[Document] = []
    total = 0
    cursor = database[collection].find(
        condition,
        {without: 0} if without else None,
        sort=order,
        limit=size + 1,
        batch_size=_BATCH_ROWS,
        # Whoever asked may be gone by then. The server must stop all the same.
        max_time_ms=max(1, round(within_s * 1000)),
    )
    async with mongo.translated():
        try:
            # Over a connection that went silent, the driver would wait for longer than anybody who asks.
            async with asyncio.timeout(within_s + _ANSWERED_S):
                async for row in cursor:
                    total += _size(row)
                    if len(rows) == size or (rows and total > PAGE_BYTES):
                        return rows, True
                    rows.append(row)
        except ExecutionTimeout as exc:
            raise TooLongError from exc
        except TimeoutError as exc:
            raise unavailable("MongoDB") from exc
        finally:
            with pymongo.timeout(_ANSWERED_S):
                await cursor.close()
    return rows, False


def _size(value: object) -> int:
    """About how large what is stored is, by its texts and bytes."""
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list) else 0


def span_of(from_us: int, to_us: int) -> tuple[int, int]:
    """A span of time, 0 for an open end. INVALID_ARGUMENT names the field that is none."""
    for name, value in (("from_us", from_us), ("to_us", to_us)):
        if not 0 <= value < _MAX_TIME_US:
            raise BackhaulError(
                Code.INVALID_ARGUMENT, f"{name} is no time.", field=name, fix="Pass unix time in microseconds."
            )
    return from_us, to_us


def token_of(at_us: int, row_id: str) -> str:
    """The token of the page that begins behind a row of that time and id."""
    return base64.urlsafe_b64encode(f"{at_us}:{row_id}".encode()).decode("ascii")


def position_in(token: str) -> tuple[int, str]:
    """The time and the id in a token. INVALID_ARGUMENT names ``page_token`` where it is none of ours."""
    try:
        at_us, _, row_id = (
            base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True).decode().partition(":")
        )
        position = int(at_us), row_id
    except (ValueError, binascii.Error):
        position = -1, ""
    # A larger number cannot come from a page of ours.
    if not 0 <= position[0] < _MAX_TIME_US or not position[1]:
        raise _no_token()
    return position


def bytes_in(text: str) -> bytes:
    """An id that is written in hex in a token. INVALID_ARGUMENT names ``page_token`` where it is none."""
    try:
        return bytes.fromhex(text)
    except ValueError as exc:
        raise _no_token() from exc


def _no_token() -> BackhaulError:
    return BackhaulError(
        Code.INVALID_ARGUMENT,
        "The page token is not one that an earlier page gave.",
        field="page_token",
        fix="Pass next_page_token of the page before, unchanged, or none to begin.",
    )
