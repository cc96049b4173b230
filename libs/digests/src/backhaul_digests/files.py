"""Whether a file is what its digest lists."""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from dataclasses import dataclass, field
from typing import Protocol

from backhaul_digests.findings import Problem
from backhaul_digests.line import FileEntry
from backhaul_digests.model import Chain, Finding, Subject
from backhaul_digests.ports import NotThereError, Place, Stored

DELETED = "It was deleted, as a digest says."

_PIECE = 1 << 20
_GZIP = 16 + zlib.MAX_WBITS


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


@dataclass(slots=True)
class _Sum:
    """The length and the SHA-256 of bytes that pass."""

    size: int = 0
    hash: _Hash = field(default_factory=hashlib.sha256)

    def add(self, data: bytes) -> None:
        self.size += len(data)
        self.hash.update(data)


class _Measure:
    """What a file is, of its pieces as they come. What it inflates to is looked at no further than was signed.

    Calls block, nearly all the time without Python's lock, and each for some milliseconds at most."""

    def __init__(self, entry: FileEntry) -> None:
        self._entry = entry
        self.stored = _Sum()
        self.inflated = _Sum() if entry.gzip else self.stored
        self.breaks = 0
        self.trailing = False
        self._inflating = zlib.decompressobj(_GZIP) if entry.gzip else None

    @property
    def enough(self) -> bool:
        """It is longer than what was signed: nothing that follows matters."""
        return self.stored.size > self._entry.bytes

    def add(self, piece: bytes) -> bytes:
        """Take the next piece of the file. What is returned is to be inflated."""
        self.stored.add(piece)
        if self._entry.gzip:
            return piece
        self.breaks += piece.count(b"\n")
        return b""

    def inflate(self, piece: bytes) -> bytes:
        """Inflate some of ``piece``; what is left of it."""
        if (inflating := self._inflating) is None:
            return b""
        if inflating.eof:
            self.trailing = True
            return b""
        try:
            part = inflating.decompress(piece, _PIECE)
        except zlib.error:
            self._inflating = None
            return b""
        self.inflated.add(part)
        self.breaks += part.count(b"\n")
        # A small file can inflate to any size. Beyond what was signed it is not what was signed.
        if self.inflated.size > self._entry.inflated_bytes:
            self._inflating = None
        return inflating.unused_data or inflating.unconsumed_tail

    @property
    def events(self) -> int:
        """One a line; those of an array stand between a line that opens it and one that closes it."""
        return self.breaks if self._entry.format == "jsonl" else self.breaks - 2


async def check_file(stored: Stored, chain: Chain, entry: FileEntry, *, deleted: bool) -> Finding:
    """What is found of a file that a valid digest lists. ``deleted``: a valid digest says that it may be gone."""
    place = Place(entry.destination, entry.bucket, entry.object)

    def found(problem: str = "", detail: str = "") -> Finding:
        return Finding(chain, Subject.FILE, place.name, problem, detail)

    measure = _Measure(entry)
    try:
        async for piece in stored.read(place):
            rest = await asyncio.to_thread(measure.add, piece)
            while rest:
                rest = await asyncio.to_thread(measure.inflate, rest)
            if measure.enough:
                break
    except NotThereError as exc:
        if deleted:
            return found(detail=DELETED)
        return found(Problem.NOT_FOUND, str(exc))
    return found(*_judgement(measure, entry))


def _judgement(measure: _Measure, entry: FileEntry) -> tuple[str, str]:
    """What is wrong, and in words; empty where nothing is."""
    stored, inflated = measure.stored, measure.inflated
    if measure.trailing:
        return Problem.TRAILING_DATA, "Something follows where the compressed data ends."
    if stored.size != entry.bytes:
        than = "more" if measure.enough else f"{entry.bytes - stored.size} fewer"
        return Problem.HASH, f"It was changed: it has {than} bytes than the {entry.bytes} that were signed."
    if stored.hash.hexdigest() != entry.hash_value:
        return Problem.HASH, "It was changed: its hash is not the one that was signed."
    if (inflated.size, inflated.hash.hexdigest()) != (entry.inflated_bytes, entry.inflated_hash_value):
        return Problem.INFLATED_HASH, "What it inflates to is not what was signed."
    if measure.events != entry.events:
        return Problem.COUNT, f"It holds {measure.events} events, not the {entry.events} that were signed."
    return "", ""
