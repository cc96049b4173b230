"""What deliveries weigh that are in memory: an event may have half a megabyte, and thousands may wait for an endpoint
that takes none."""

from __future__ import annotations

from typing import Final

from backhaul_notifier.model import Delivery

MEMORY: Final = 64 << 20
"""Bytes that all endpoints of a copy may have in memory of what waits. While it is sent, each is there some three
times: as it was stored, as it was read, and as it is written."""

LEAST: Final = 1 << 20
"""What each may have, whatever others have."""

_BESIDE: Final = 1 << 10
"""What a delivery takes beside its payload."""


class Memory:
    """That of a copy. Each endpoint may have half of what the others leave: so who comes next finds some, too."""

    def __init__(self, most: int = MEMORY, least: int = LEAST) -> None:
        self.used = 0
        self._most = most
        self._least = least

    def room(self, mine: int) -> int:
        """What an endpoint that has ``mine`` bytes may have beside them."""
        return max(self._least, (self._most - (self.used - mine)) // 2) - mine


class Weight:
    """What of one endpoint is in memory, by the deliveries' ids."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._of: dict[bytes, int] = {}
        self._bytes = 0

    @property
    def room(self) -> int:
        """Bytes of deliveries that may be read now."""
        return self._memory.room(self._bytes)

    def __contains__(self, id_: bytes) -> bool:
        return id_ in self._of

    def add(self, delivery: Delivery) -> None:
        """It is in memory."""
        if delivery.id not in self._of:
            self._of[delivery.id] = weight = weight_of(delivery)
            self._bytes += weight
            self._memory.used += weight

    def drop(self, id_: bytes) -> None:
        """It is not any more."""
        weight = self._of.pop(id_, 0)
        self._bytes -= weight
        self._memory.used -= weight

    def clear(self) -> None:
        """None is."""
        self._memory.used -= self._bytes
        self._of.clear()
        self._bytes = 0


def weight_of(delivery: Delivery) -> int:
    """Bytes."""
    return len(delivery.payload) + _BESIDE
