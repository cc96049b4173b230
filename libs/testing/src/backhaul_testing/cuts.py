"""Files that come in pieces which are cut anywhere, for tests of whoever reads them."""

from __future__ import annotations

from collections.abc import Sequence


def cut_at(content: bytes, cuts: Sequence[int]) -> list[bytes]:
    """``content`` in pieces, one more than there are ``cuts``, whose numbers may be any."""
    ends = sorted(cut % (len(content) + 1) for cut in cuts)
    return [content[begin:end] for begin, end in zip([0, *ends], [*ends, len(content)], strict=True)]


def ways_to_cut(content: bytes, cuts: Sequence[int]) -> list[list[bytes]]:
    """``content`` whole, in pieces, and byte by byte: whoever reads it makes the same of each."""
    return [[content], cut_at(content, cuts), cut_at(content, range(len(content)))]
