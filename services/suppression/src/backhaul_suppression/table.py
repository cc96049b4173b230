"""The rows of one registration and family: a dictionary that never holds anybody up for long."""

from __future__ import annotations

MAX_WHOLE = 16_384
"""Addresses in one dictionary. A dictionary that grows is copied, with everything else standing still: 10,000,000 would
take a second. So what has more is kept in ``PARTS`` dictionaries, which grow one by one."""

PARTS = 256


class Table:
    """Rows as bytes (``entries``) by canonical address. One thread writes; others may read meanwhile."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[dict[str, bytes]] = [{}]

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __contains__(self, text: object) -> bool:
        parts = self._parts
        return text in parts[hash(text) % len(parts)]

    def get(self, text: str) -> bytes | None:
        """The rows of an address, or None."""
        parts = self._parts
        return parts[hash(text) % len(parts)].get(text)

    def put(self, text: str, rows: bytes) -> None:
        """An address has these rows now; without any it is forgotten."""
        parts = self._parts
        part = parts[hash(text) % len(parts)]
        if not rows:
            part.pop(text, None)
            return
        part[text] = rows
        if len(parts) == 1 and len(part) > MAX_WHOLE:
            self._parts = _split(part)

    def parts(self) -> list[dict[str, bytes]]:
        """What it is made of, for whoever lets go of it one by one: that takes its time, too."""
        return self._parts


def _split(whole: dict[str, bytes]) -> list[dict[str, bytes]]:
    parts: list[dict[str, bytes]] = [{} for _ in range(PARTS)]
    for text, rows in whole.items():
        parts[hash(text) % PARTS][text] = rows
    return parts
