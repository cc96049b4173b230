"""A pile becomes the bytes of a file. For a thread: nearly all of it happens without Python's lock."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from isal import isal_zlib

from backhaul_audit import contents
from backhaul_audit.model import Content, FileFormat, Shape
from backhaul_audit.plans import separator_of

_LEVEL = 2
"""Smaller files than zlib's fastest level makes, for a fifth of its time."""

_GZIP_WINDOW = 31
"""The largest window with a gzip header, which then has neither a name nor a time."""


@dataclass(frozen=True, slots=True)
class Made:
    """A file: its bytes in pieces, and what is said of it."""

    pieces: Sequence[bytes]
    content: Content


def compressor() -> isal_zlib.Compress:
    """What makes gzip of a file's bytes."""
    return isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP_WINDOW)


def shape(content: contents.Content, of: Shape) -> Made:
    """The file of ``content``. The same content inflates to the same bytes; compressed they may differ by version."""
    inflated = hashlib.sha256()
    inflated_bytes = 0
    pieces: list[bytes] = []
    compress = compressor() if of.gzip else None
    for piece in _written(content, of):
        inflated.update(piece)
        inflated_bytes += len(piece)
        stored_piece = compress.compress(piece) if compress is not None else piece
        if stored_piece:
            pieces.append(stored_piece)
    stored = inflated
    if compress is not None:
        pieces.append(compress.flush())
        stored = hashlib.sha256()
        for piece in pieces:
            stored.update(piece)
    return Made(
        pieces,
        Content(
            events=content.events,
            bytes=sum(map(len, pieces)),
            sha256=stored.hexdigest(),
            inflated_bytes=inflated_bytes,
            inflated_sha256=inflated.hexdigest(),
            first_at_us=content.first_at_us,
            last_at_us=content.last_at_us,
        ),
    )


def _written(content: contents.Content, of: Shape) -> Iterator[bytes]:
    separator = separator_of(of)
    array = of.format is FileFormat.ARRAY
    if array:
        yield b"[\n"
    last = len(content.pieces) - 1
    for index, piece in enumerate(content.pieces):
        yield piece
        if index < last:
            yield separator
    yield b"\n]\n" if array else b"\n"
