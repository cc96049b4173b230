"""Rows that come page by page, as iterators."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page. ``next_cursor`` leads to the next one; empty on the last page. Of events that arrived before
    ``retained_since`` some may be kept no longer; None where nothing expires."""

    rows: tuple[T, ...]
    next_cursor: str
    retained_since: datetime | None = None


class Rows(Generic[T]):
    """All rows: ``for row in rows``. A page is asked for when its first row is."""

    def __init__(self, ask: Callable[[str], Page[T]], cursor: str) -> None:
        self._ask = ask
        self._cursor = cursor

    def __iter__(self) -> Iterator[T]:
        for page in self.pages():
            yield from page.rows

    def pages(self) -> Iterator[Page[T]]:
        """The same page by page, for whoever keeps a page's ``next_cursor`` to go on later."""
        page = self._ask(self._cursor)
        yield page
        while page.next_cursor:
            page = self._ask(page.next_cursor)
            yield page


class AsyncRows(Generic[T]):
    """All rows: ``async for row in rows``. A page is asked for when its first row is."""

    def __init__(self, ask: Callable[[str], Awaitable[Page[T]]], cursor: str) -> None:
        self._ask = ask
        self._cursor = cursor

    async def __aiter__(self) -> AsyncIterator[T]:
        async for page in self.pages():
            for row in page.rows:
                yield row

    def blocking(self, wait_for: Callable[[Awaitable[Page[T]]], Page[T]]) -> Rows[T]:
        """The same rows for whoever waits for each page by ``wait_for``."""
        return Rows(lambda cursor: wait_for(self._ask(cursor)), self._cursor)

    async def pages(self) -> AsyncIterator[Page[T]]:
        """The same page by page, for whoever keeps a page's ``next_cursor`` to go on later."""
        page = await self._ask(self._cursor)
        yield page
        while page.next_cursor:
            page = await self._ask(page.next_cursor)
            yield page
