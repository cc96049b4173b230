"""``GET /v1/events/stream`` as Python has it: an iterator that comes back by itself to where it was."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, Generic, NamedTuple, ParamSpec, Self, overload

import msgspec

from backhaul_client.calls import Call, of
from backhaul_client.errors import UnavailableError, UnexpectedAnswerError, UnreachableError, problem_named
from backhaul_client.models import Event

if TYPE_CHECKING:
    from backhaul_client.transport import AsyncTransport, Transport

P = ParamSpec("P")

LAST_EVENT_ID = "Last-Event-ID"
SILENT_S = 45.0
"""A stream says every 15 s that it is there."""
AGAIN_S = 0.5
"""Between the end of a connection and the next one."""


class Followed(NamedTuple):
    """An event of a stream; or none, with the words that say what may be ``missed`` before the next one; or neither,
    where ``positions`` were asked for. Whoever passes ``id`` as ``after`` goes on behind it."""

    id: str
    event: Event | None = None
    missed: str = ""


class _Said(msgspec.Struct):
    message: str = ""
    code: str = ""


class followed(Generic[P]):  # noqa: N801  # used as a decorator
    """``@followed`` on a method that returns a ``Call[Event]``: the events of a stream, without an end."""

    def __init__(self, build: Callable[Concatenate[Any, P], Call[Event]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, client: Transport, owner: type) -> Callable[P, Iterator[Followed]]: ...
    @overload
    def __get__(self, client: AsyncTransport, owner: type) -> Callable[P, AsyncIterator[Followed]]: ...
    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    def __get__(self, client: Transport | AsyncTransport | None, owner: type) -> Any:
        if client is None:
            return self

        def iterate(*args: P.args, **kwargs: P.kwargs) -> Iterator[Followed] | AsyncIterator[Followed]:
            return client.follow(Following(self._build(client, *args, **kwargs)))

        return update_wrapper(iterate, self._build)


class Following:
    """How far a stream is read, over all its connections."""

    def __init__(self, asked: Call[Event]) -> None:
        self._asked = asked
        self._said = replace(asked, answer=of(_Said))  # type: ignore[arg-type]  # another answer of the same request
        self._last_id = asked.headers.get(LAST_EVENT_ID, "")
        self._rest = b""
        self._came = True

    def connection(self) -> Call[Event]:
        """What to ask for next. ``UnexpectedAnswerError`` where nothing has come since the last time."""
        if not self._came:
            raise UnexpectedAnswerError(f"{self._asked.method} {self._asked.path}: an empty stream")
        self._rest, self._came = b"", False
        headers = {**self._asked.headers, **({LAST_EVENT_ID: self._last_id} if self._last_id else {})}
        return replace(self._asked, headers=headers)

    def ended(self, reason: Exception) -> None:
        """Raises ``reason`` where nothing has come on this connection, which was tried often enough."""
        if not self._came:
            raise reason

    def of(self, piece: bytes) -> Iterator[Followed]:
        """What ends in the next piece. Raises what the service says of why it ends the stream."""
        *blocks, self._rest = (self._rest + piece).split(b"\n\n")
        for block in blocks:
            self._came = True
            name, data, placed = b"", [], False
            for line in block.split(b"\n"):
                what, _, value = line.partition(b": ")
                if what == b"id":
                    self._last_id, placed = value.decode("latin-1"), True
                elif what == b"event":
                    name = value
                elif what == b"data":
                    data.append(value)
            if data:
                yield self._read(name, b"\n".join(data))
            elif placed and self._asked.positions:
                yield Followed(self._last_id)

    def _read(self, name: bytes, data: bytes) -> Followed:
        if not name:
            return Followed(self._last_id, self._asked.value(data))
        said: Any = self._said.value(data)
        if name == b"end":
            raise problem_named(said.code, said.message)
        return Followed(self._last_id, missed=said.message)


PASSES = (UnreachableError, UnavailableError)
"""Behind what a stream goes on."""
