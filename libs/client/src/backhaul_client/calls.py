"""A call as a value, and the decorators that make a method of it for blocking and for asynchronous clients alike."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeAlias, TypeVar, overload
from urllib.parse import quote

import httpx
import msgspec

from backhaul_client.errors import UnexpectedAnswerError
from backhaul_client.models import decoded
from backhaul_client.paging import AsyncRows, Page, Rows

if TYPE_CHECKING:
    from backhaul_client.transport import AsyncPart, AsyncTransport, Part, Transport

P = ParamSpec("P")
T = TypeVar("T")


Content: TypeAlias = bytes | Iterable[bytes] | AsyncIterable[bytes]
"""What is sent as it is: all at once, or in pieces. Asynchronous clients take pieces from an asynchronous iterator."""


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T]):
    """One request, and how its answer is read. ``body`` may hold secrets, so it is not shown. ``content`` is sent as it
    is, in the place of a ``body``. ``repeatable`` says of what is sent by another method than GET that it may be
    repeated all the same: it changes nothing, or nothing more the second time. An answer may be silent for ``silent_s``
    seconds at least, where that is longer than for others. ``positions``: of a stream also what tells only how far it
    was looked."""

    path: str
    answer: Callable[[bytes], T]
    method: str = "GET"
    params: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    body: object | None = field(default=None, repr=False)
    content: Content | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = False
    silent_s: float = 0
    positions: bool = False

    @property
    def reads(self) -> bool:
        """Whether it may be repeated, since it changes nothing, or nothing more."""
        return self.method == "GET" or self.repeatable

    @property
    def cursor(self) -> str:
        """From which page on rows are asked for."""
        return str(self.params.get("cursor", ""))

    def with_cursor(self, cursor: str) -> Self:
        """The same call for the page that ``cursor`` leads to."""
        return replace(self, params={**self.params, "cursor": cursor}) if cursor else self

    def read(self, response: httpx.Response) -> T:
        """The answer's value; ``UnexpectedAnswerError`` where it has another form."""
        if not response.is_success:
            raise UnexpectedAnswerError(f"{self.method} {self.path}: status {response.status_code}")
        return self.value(response.content)

    def value(self, body: bytes) -> T:
        """What an answer's body says; ``UnexpectedAnswerError`` where it has another form."""
        try:
            return self.answer(body)
        except (ValueError, msgspec.MsgspecError) as exc:
            raise UnexpectedAnswerError(f"{self.method} {self.path}: {exc}") from exc


class call(Generic[P, T]):  # noqa: N801  # used as a decorator
    """``@call`` on a method that returns a ``Call[T]``: blocking clients return T, asynchronous ones await it."""

    def __init__(self, build: Callable[Concatenate[Any, P], Call[T]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, client: Transport | Part, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: AsyncTransport | AsyncPart, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    def __get__(self, client: Transport | Part | AsyncTransport | AsyncPart | None, owner: type) -> Any:
        if client is None:
            return self

        def send(*args: P.args, **kwargs: P.kwargs) -> T | Coroutine[Any, Any, T]:
            return client.send(self._build(client, *args, **kwargs))

        return update_wrapper(send, self._build)


class series(Generic[T]):  # noqa: N801  # used as a decorator
    """``@series(together)`` on a method that yields ``Call[T]``: they are sent one after the other, each when the one
    before is answered, and what they answer is put ``together``."""

    def __init__(self, together: Callable[[Sequence[T]], T]) -> None:
        self._together = together

    def __call__(self, build: Callable[Concatenate[Any, P], Iterator[Call[T]]]) -> _Series[P, T]:
        return _Series(build, self._together)


class _Series(Generic[P, T]):
    def __init__(
        self, build: Callable[Concatenate[Any, P], Iterator[Call[T]]], together: Callable[[Sequence[T]], T]
    ) -> None:
        self._build = build
        self._together = together
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, client: Transport, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: AsyncTransport, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    def __get__(self, client: Transport | AsyncTransport | None, owner: type) -> Any:
        if client is None:
            return self

        def send(*args: P.args, **kwargs: P.kwargs) -> T | Coroutine[Any, Any, T]:
            calls = self._build(client, *args, **kwargs)
            return client.series(calls, self._together)

        return update_wrapper(send, self._build)


class rows(Generic[P, T]):  # noqa: N801  # used as a decorator
    """``@rows`` on a method that returns a ``Call[Page[T]]``: the rows of all pages, asked for as they are needed."""

    def __init__(self, build: Callable[Concatenate[Any, P], Call[Page[T]]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, client: Transport | Part, owner: type) -> Callable[P, Rows[T]]: ...
    @overload
    def __get__(self, client: AsyncTransport | AsyncPart, owner: type) -> Callable[P, AsyncRows[T]]: ...
    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    def __get__(self, client: Transport | Part | AsyncTransport | AsyncPart | None, owner: type) -> Any:
        if client is None:
            return self

        def iterate(*args: P.args, **kwargs: P.kwargs) -> Rows[T] | AsyncRows[T]:
            first = self._build(client, *args, **kwargs)
            return client.rows(first)

        return update_wrapper(iterate, self._build)


class pieces(Generic[P]):  # noqa: N801  # used as a decorator
    """``@pieces`` on a method that returns a ``Call[bytes]``: the answer piece by piece, as large as it may be."""

    def __init__(self, build: Callable[Concatenate[Any, P], Call[bytes]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, client: Transport | Part, owner: type) -> Callable[P, Iterator[bytes]]: ...
    @overload
    def __get__(self, client: AsyncTransport | AsyncPart, owner: type) -> Callable[P, AsyncIterator[bytes]]: ...
    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    def __get__(self, client: Transport | Part | AsyncTransport | AsyncPart | None, owner: type) -> Any:
        if client is None:
            return self

        def iterate(*args: P.args, **kwargs: P.kwargs) -> Iterator[bytes] | AsyncIterator[bytes]:
            return client.pieces(self._build(client, *args, **kwargs))

        return update_wrapper(iterate, self._build)


class lines(Generic[P, T]):  # noqa: N801  # used as a decorator
    """``@lines`` on a method that returns a ``Call[T]``: a T for each line of the answer, as they come."""

    def __init__(self, build: Callable[Concatenate[Any, P], Call[T]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, client: Transport | Part, owner: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, client: AsyncTransport | AsyncPart, owner: type) -> Callable[P, AsyncIterator[T]]: ...
    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    def __get__(self, client: Transport | Part | AsyncTransport | AsyncPart | None, owner: type) -> Any:
        if client is None:
            return self

        def iterate(*args: P.args, **kwargs: P.kwargs) -> Iterator[T] | AsyncIterator[T]:
            return client.lines(self._build(client, *args, **kwargs))

        return update_wrapper(iterate, self._build)


class Lines(Generic[T]):
    """Takes pieces of an answer apart into lines."""

    def __init__(self, asked: Call[T]) -> None:
        self._asked = asked
        self._begun: list[bytes] = []

    def of(self, piece: bytes) -> Iterator[T]:
        """The lines that end in the next piece; ``UnexpectedAnswerError`` where one has another form."""
        *whole, rest = piece.split(b"\n")
        for line in whole:
            yield self._asked.value(b"".join([*self._begun, line]))
            self._begun.clear()
        self._begun.append(rest)


def of(kind: type[T]) -> Callable[[bytes], T]:
    """Reads an answer that is one ``kind``."""
    return lambda body: decoded(body, kind)


class _Paged(msgspec.Struct):
    next_cursor: str | None = None
    retained_since: datetime | None = None


def page_of(name: str, kind: type[T]) -> Callable[[bytes], Page[T]]:
    """Reads a page whose rows, of ``kind``, stand under ``name``."""

    def read(body: bytes) -> Page[T]:
        parts = decoded(body, dict[str, msgspec.Raw])
        if name not in parts:
            raise ValueError(f"there is no {name}")
        found: tuple[T, ...] = decoded(parts[name], tuple[kind, ...])  # type: ignore[valid-type]  # known when it runs
        paged = decoded(body, _Paged)
        return Page(found, paged.next_cursor or "", paged.retained_since)

    return read


def all_of(name: str, kind: type[T]) -> Callable[[bytes], tuple[T, ...]]:
    """Reads rows that come without pages."""
    page = page_of(name, kind)
    return lambda body: page(body).rows


def nothing(_: bytes) -> None:
    """Reads an answer without content."""


def entry(name: str, number: int, given: T, example: str) -> T:
    """``given``, the entry ``number`` of the argument ``name``. TypeError where it is no mapping: the entries of a text
    are characters, and those of one mapping alone are its keys."""
    if not isinstance(given, Mapping):
        raise TypeError(
            f"{name}[{number}] is of type {type(given).__name__}: pass a list, or another iterable, of dicts such as "
            f"{example}."
        )
    return given


def path(*parts: str) -> str:
    """A path with each of ``parts`` escaped; ValueError for an empty one, which would lead elsewhere."""
    if not all(parts):
        raise ValueError("An id or a label is empty.")
    # A segment of dots alone would be taken for a step upwards, by clients and by proxies.
    return "/" + "/".join(part.replace(".", "%2E") if not part.strip(".") else quote(part, safe="") for part in parts)


def given(**params: str | int | bool | datetime | None) -> dict[str, str]:
    """The parameters that say something, as they are sent: None and empty texts are left out. A trailing underscore
    of a name, which keeps it apart from a keyword, is dropped."""
    return {name.rstrip("_"): _text(name, value) for name, value in params.items() if value not in (None, "")}


def _text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return aware(name.rstrip("_"), value).astimezone(UTC).isoformat()
    return str(value)


def aware(name: str, value: datetime) -> datetime:
    """``value``, which is to be sent as ``name``. ValueError where it has no time zone."""
    if value.tzinfo is None:
        raise ValueError(f"{name} has no time zone: use datetime(…, tzinfo=UTC).")
    return value
