"""Members in JSON Lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec
from backhaul_common.errors import Violation

from backhaul_normalizer.communications.membership import ToldDestination, ToldMember


class Read(NamedTuple):
    """A line that was read: the member that it tells of, or why it tells of none."""

    number: int
    text: bytes
    member: ToldMember | None
    problem: Violation | None = None


class _Destination(msgspec.Struct):
    channel: str = ""
    recipient: str = ""
    message_id: str = ""


class _Member(msgspec.Struct):
    member_key: str
    attributes: dict[str, str] = {}
    destinations: list[_Destination] = []


_decode = msgspec.json.Decoder(_Member).decode


class JsonLines:
    """Reads members out of pieces that are cut anywhere."""

    def __init__(self) -> None:
        self._rest = b""
        self._number = 0

    def feed(self, piece: bytes) -> Iterator[Read]:
        """The lines that ``piece`` completes. To be read to its end."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            yield from self._read(line)

    def end(self) -> Iterator[Read]:
        """What is left when the file has ended."""
        yield from self._read(self._rest)

    def _read(self, line: bytes) -> Iterator[Read]:
        self._number += 1
        if not line.strip():
            return
        try:
            told = _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            problem = Violation("", str(exc), "Write a JSON object with member_key, attributes and destinations.")
            yield Read(self._number, line, None, problem)
            return
        destinations = tuple(ToldDestination(one.channel, one.recipient, one.message_id) for one in told.destinations)
        yield Read(self._number, line, ToldMember(told.member_key, tuple(told.attributes.items()), destinations))

    def error(self, read: Read, problem: Violation) -> bytes:
        """The line of a file of errors."""
        said = {
            "error_line": str(read.number),
            "error_field": problem.field,
            "error_message": problem.message,
            "error_fix": problem.fix,
            "error_text": read.text.decode("utf-8", "replace"),
        }
        return msgspec.json.encode(said) + b"\n"
