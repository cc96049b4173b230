"""What the messages of one subject take, as far as one gateway has seen them."""

from __future__ import annotations

from collections import deque

_MAX_BLOCKS = 64
_ALIKE = 2.0
"""Messages that follow each other and differ by less than this factor are counted together."""


class Sizes:
    """Sizes in the order of storing. A stream loses its oldest messages first, so what is left has the newest sizes.

    Kept as numbers of alike ones in a row, so that it takes little for a million messages, and does not take a few
    large ones for the many small ones that were there before.
    """

    __slots__ = ("_blocks", "_count", "_total")

    def __init__(self) -> None:
        self._blocks: deque[list[float]] = deque()
        """Number and bytes of each, the oldest first."""
        self._count = 0.0
        self._total = 0.0

    def add(self, size: int) -> None:
        """One more message takes ``size`` bytes."""
        self._count += 1
        self._total += size
        if self._blocks:
            count, total = self._blocks[-1]
            if total < size * count * _ALIKE and size * count < total * _ALIKE:
                self._blocks[-1] = [count + 1, total + size]
                return
        self._blocks.append([1, size])
        if len(self._blocks) > _MAX_BLOCKS:
            self._coarsen()

    def keep(self, count: int) -> None:
        """Only the newest ``count`` messages are left, at most."""
        while self._blocks and self._count > count:
            excess = self._count - count
            held, total = self._blocks[0]
            if held <= excess:
                self._blocks.popleft()
                gone, lost = held, total
            else:
                gone, lost = excess, total * excess / held
                self._blocks[0] = [held - gone, total - lost]
            self._count -= gone
            self._total -= lost

    @property
    def average(self) -> float:
        """Bytes of one message; there must have been one."""
        return self._total / self._count

    def _coarsen(self) -> None:
        """Count pairs of the older half together: what is oldest is the first to go."""
        blocks = list(self._blocks)
        half = len(blocks) // 2 // 2 * 2
        pairs = zip(blocks[:half:2], blocks[1:half:2], strict=True)
        self._blocks = deque([*([a + c, b + d] for (a, b), (c, d) in pairs), *blocks[half:]])
