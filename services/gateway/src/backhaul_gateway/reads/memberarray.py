"""A JSON array of members, taken apart as it comes: what is checked and stored member by member need not be held."""

from __future__ import annotations

import codecs
import json
from collections.abc import AsyncIterator, Iterator

from backhaul_common.errors import BackhaulError, Code

from backhaul_gateway.reads.streaming import MAX_LINE_BYTES, Body
from backhaul_gateway.twins.turns import Steps
from backhaul_gateway.web.problems import MALFORMED_BODY, HttpError

MAX_MEMBERS = 100_000
"""Of one body."""

MAX_ARRAY_BYTES = 64 << 20
"""Of one body."""

_STEP_BYTES = 32 << 10
"""How much is taken apart in one turn. What ends in the middle of a member is read once more, with what follows."""

# Numbers are looked at by whoever takes the members, and may be longer than Python makes one of.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)
_BLANKS = " \t\n\r"
_GOES_ON = ("", ".", "e", "E")
"""What may stand behind a number that has come in part: nothing yet, or what begins its next part."""


async def lines_of(body: Body) -> AsyncIterator[bytes]:
    """The members of ``body``, ``[…]`` or ``{"members": […]}``, as JSON Lines, in pieces that end with lines.

    Of a body that is none, or too long, ``failure`` is set, and what stood before that is given.
    """
    array = MemberArray()
    gathered = bytearray()
    try:
        async for piece in body.pieces():
            gathered += piece
            while len(gathered) >= _STEP_BYTES:
                step = bytes(gathered[:_STEP_BYTES])
                del gathered[:_STEP_BYTES]
                if lines := b"".join(array.lines(step)):
                    yield lines
        if lines := b"".join(array.lines(bytes(gathered), last=True)):
            yield lines
    except BackhaulError as exc:
        body.failure = exc
        raise


class MemberArray:
    """Finds the members in pieces of an array."""

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._at = 0
        self._last = False
        self._found = self._members()

    def lines(self, piece: bytes, *, last: bool = False) -> Iterator[bytes]:
        """The members that end in the next piece, a line each. Raises BackhaulError where it is no such array."""
        try:
            self._text = self._text[self._at :] + self._utf8.decode(piece, last)
        except UnicodeDecodeError:
            raise _malformed() from None
        self._at = 0
        self._last = last
        for line in self._found:
            if line is None:
                return
            yield line

    def _members(self) -> Iterator[bytes | None]:
        """Each member, and None wherever more of the text is needed."""
        if not (begin := (yield from self._next())):
            raise _malformed()
        if begin not in "[{":
            raise _unfit("body", "The body is no array and no object.")
        in_object = (yield from self._take("[{")) == "{"
        if in_object:
            yield from self._name()
            if (yield from self._next()) not in ("[", ""):
                raise _unfit("members", "It is no array.")
            yield from self._take("[")
        count = 0
        mark = (yield from self._take("]")) if (yield from self._next()) == "]" else ","
        while mark == ",":
            if count == MAX_MEMBERS:
                raise _too_many()
            value = yield from self._value(f"members[{count}]")
            count += 1
            # A line's end stands between the parts of a value alone: within a text it is escaped.
            yield value.replace("\r", " ").replace("\n", " ").encode() + b"\n"
            mark = yield from self._take(",]")
        if in_object and (yield from self._take(",}")) == ",":
            yield from self._name(taken=True)
        if (yield from self._next()):
            raise _malformed()

    def _name(self, *, taken: bool = False) -> Steps[None]:
        """The name in front of the members; where they are ``taken`` already, there is no other."""
        if not taken and (yield from self._next()) == "}":
            raise _unfit("members", "There are no members.")
        try:
            name = json.loads((yield from self._value("body")))
        except ValueError:
            raise _malformed() from None
        if not isinstance(name, str):
            raise _malformed()
        yield from self._take(":")
        if taken or name != "members":
            raise _unfit(name[:64], f"There is no field {name[:64]!r} here, or it is there twice.")

    def _value(self, field: str) -> Steps[str]:
        """The text of the next value, which is named ``field`` where it has no end."""
        yield from self._next()
        while True:
            end = self._end_of_value()
            if end and (self._last or self._text[end : end + 1] not in _GOES_ON):
                value = self._text[self._at : end]
                self._at = end
                return value
            if self._last:
                raise _malformed()
            if len(self._text) - self._at > MAX_LINE_BYTES:
                raise _unfit(field, f"It is no JSON, or longer than {MAX_LINE_BYTES >> 10} KiB.")
            yield

    def _end_of_value(self) -> int:
        try:
            return _DECODER.raw_decode(self._text, self._at)[1]
        except (ValueError, RecursionError):
            return 0

    def _take(self, marks: str) -> Steps[str]:
        """The next mark, which must be one of ``marks``."""
        mark = yield from self._next()
        if not mark or mark not in marks:
            raise _malformed()
        self._at += 1
        return mark

    def _next(self) -> Steps[str]:
        """The next character that is no blank, which stays there; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _BLANKS:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if self._last:
                return ""
            yield


def _malformed() -> BackhaulError:
    return HttpError(MALFORMED_BODY, "The body is not valid JSON.", field="body", fix="Send a JSON array of members.")


def _unfit(field: str, message: str) -> BackhaulError:
    return BackhaulError(
        Code.INVALID_ARGUMENT, message, field=field, fix='Send an array of objects, or {"members": […]} with it.'
    )


def _too_many() -> BackhaulError:
    return BackhaulError(
        Code.INVALID_ARGUMENT,
        f"There are more than {MAX_MEMBERS:,} members.",
        field="members",
        fix=f"Send {MAX_MEMBERS:,} at most at once, or a file of them. The first ones are stored; repeat them or not.",
    )
