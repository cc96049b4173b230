"""Files as if nothing in them had ever been encrypted: inflated, and opened line by line with people's keys."""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from base64 import b64decode
from collections.abc import AsyncGenerator, AsyncIterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Annotated

import msgspec
from backhaul_common.errors import BackhaulError, Code
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from backhaul_audit.lines import associated
from backhaul_audit.model import FileFormat, SealedFile
from backhaul_audit.ports import People

PART_BYTES = 256 << 10
"""How much of a file is inflated at a time, and the most that is given at a time."""

MAX_BATCH_LINES = 500
"""Keys of so many lines are looked up at once."""

MAX_LINE_BYTES = 16 << 20
"""The largest event has less, with each of its letters escaped, and then encrypted."""

MAX_KEY_ID = 64
"""Characters; it has sixteen."""

_GZIP = 16 + zlib.MAX_WBITS
_ARRAY_BEGINS, _ARRAY_ENDS = b"[", b"]"
_ENCRYPTED = b',"encrypted":'
_NO_LINE = "is none that Backhaul writes"


class Decrypting:
    """Opens the lines of files."""

    def __init__(self, people: People) -> None:
        self._people = people

    async def content_of(self, file: SealedFile, stored: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
        """What is in a file that comes as it is ``stored``, in pieces of ``PART_BYTES`` at most. Of whoever is erased a
        line is as it is stored, but that its ``encrypted`` is null.

        FAILED_PRECONDITION where it is not what was sealed: before the first piece where all of it fits into one,
        otherwise in the middle where a line does not decrypt, or else before the last one. UNAVAILABLE while the keys
        are away.
        """
        content = _Content(file)
        held = b""
        async with aclosing(self._pieces(file, content, stored)) as pieces:
            async for piece in pieces:
                if held:
                    yield held
                held = piece
        # The last piece is held back until it is known to be that: no answer looks whole that is not.
        content.require_whole()
        yield held

    async def _pieces(
        self, file: SealedFile, content: _Content, stored: AsyncIterable[bytes]
    ) -> AsyncGenerator[bytes, None]:
        lines = _Lines(file)
        async for piece in stored:
            for part in content.parts(piece):
                if not file.plan.shape.encrypted:
                    yield part
                    continue
                for batch in lines.batches(part):
                    keys = await self._keys(file, batch)
                    # Some microseconds a line, for which nobody else should have to wait.
                    opened = await asyncio.to_thread(_opened, batch, keys)
                    for start in range(0, len(opened), PART_BYTES):
                        yield opened[start : start + PART_BYTES]

    async def _keys(self, file: SealedFile, batch: Sequence[_Line]) -> Mapping[str, bytes]:
        people = {line.person for line in batch if line.person is not None}
        return await self._people.by_id(file.plan.pile.registration, people) if people else {}


class _Content:
    """What a file holds, of its bytes as they come. It is looked at no further than what was sealed, to whatever size
    something else inflates."""

    def __init__(self, file: SealedFile) -> None:
        self._file = file
        self._inflating = zlib.decompressobj(_GZIP) if file.plan.shape.gzip else None
        self._size = 0
        self._hash = hashlib.sha256()

    def parts(self, piece: bytes) -> Iterator[bytes]:
        """What the next bytes hold, at most ``PART_BYTES`` at a time."""
        for part in self._inflated(piece):
            self._size += len(part)
            if self._size > self._file.content.inflated_bytes:
                raise changed(self._file, "It holds more.")
            self._hash.update(part)
            if part:
                yield part

    def require_whole(self) -> None:
        """FAILED_PRECONDITION unless all of it has come, as it was sealed."""
        unfinished = self._inflating is not None and not self._inflating.eof
        if unfinished or self._size != self._file.content.inflated_bytes:
            raise changed(self._file, "It holds less.")
        if self._hash.hexdigest() != self._file.content.inflated_sha256:
            raise changed(self._file, "It holds something else.")

    def _inflated(self, piece: bytes) -> Iterator[bytes]:
        inflating = self._inflating
        if inflating is None:
            for start in range(0, len(piece), PART_BYTES):
                yield piece[start : start + PART_BYTES]
            return
        while piece:
            if inflating.eof:
                raise changed(self._file, "Something follows where its compressed data ends.")
            try:
                part = inflating.decompress(piece, PART_BYTES)
            except zlib.error:
                raise changed(self._file, "It cannot be inflated.") from None
            yield part
            piece = inflating.unused_data or inflating.unconsumed_tail


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a file, without what stands between it and the next one. ``encrypted`` is None where the person was
    erased before the line was written, and of the brackets around an array."""

    file: SealedFile
    number: int
    text: bytes
    between: bytes
    person: str | None = None
    encrypted: str | None = None
    bound_to: list[bytes | bytearray | memoryview] = field(default_factory=list)


class _Lines:
    """Takes a file apart."""

    def __init__(self, file: SealedFile) -> None:
        self._file = file
        self._array = file.plan.shape.format is FileFormat.ARRAY
        self._number = 0
        self._begun: list[bytes] = []
        self._begun_bytes = 0

    def batches(self, part: bytes) -> Iterator[Sequence[_Line]]:
        """The lines that end in the next part of the file, so many at a time as are opened together."""
        *ends, rest = part.split(b"\n")
        if ends:
            ends[0] = b"".join([*self._begun, ends[0]])
            self._begun.clear()
            self._begun_bytes = 0
        self._begun.append(rest)
        self._begun_bytes += len(rest)
        if self._begun_bytes > MAX_LINE_BYTES:
            raise changed(self._file, f"Line {self._number + len(ends) + 1} {_NO_LINE}.")
        for start in range(0, len(ends), MAX_BATCH_LINES):
            yield [self._line(text) for text in ends[start : start + MAX_BATCH_LINES]]

    def _line(self, text: bytes) -> _Line:
        self._number += 1
        between = b"\n"
        if self._array:
            if text in (_ARRAY_BEGINS, _ARRAY_ENDS):
                return _Line(self._file, self._number, text, between)
            if text.endswith(b","):
                text, between = text[:-1], b",\n"
        try:
            read = _read(text)
            bound_to = associated(read.event.id, read.event.revision)
        except (ValueError, RecursionError):
            raise changed(self._file, f"Line {self._number} {_NO_LINE}.") from None
        return _Line(self._file, self._number, text, between, read.person, read.encrypted, bound_to)


class _Event(msgspec.Struct):
    id: str
    revision: int


class _Stored(msgspec.Struct):
    event: _Event
    person: Annotated[str, msgspec.Meta(max_length=MAX_KEY_ID)] | None
    encrypted: str | None


_read = msgspec.json.Decoder(_Stored).decode


def _opened(batch: Sequence[_Line], keys: Mapping[str, bytes]) -> bytes:
    ciphers = {person: AESSIV(key) for person, key in keys.items()}
    return b"".join([part for line in batch for part in (_plain(line, ciphers), line.between)])


def _plain(line: _Line, ciphers: Mapping[str, AESSIV]) -> bytes:
    if line.person is None or line.encrypted is None:
        return line.text
    cipher = ciphers.get(line.person)
    if cipher is None:
        before, _, _ = line.text.rpartition(_ENCRYPTED)
        return b"%b%bnull}" % (before, _ENCRYPTED)
    try:
        return cipher.decrypt(b64decode(line.encrypted, validate=True), line.bound_to)
    except (ValueError, InvalidTag):
        raise changed(line.file, f"Line {line.number} does not decrypt.") from None


def changed(file: SealedFile, what: str) -> BackhaulError:
    """The error for a file that is not what was sealed."""
    return BackhaulError(
        Code.FAILED_PRECONDITION,
        f"{file.plan.bucket}/{file.plan.key} was changed since it was sealed. {what}",
        fix="Have the bucket's owner restore it. A verification names every file that was changed.",
    )
