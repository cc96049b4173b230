"""Questions at once, and the memory that requests may take."""

from __future__ import annotations

from math import ceil

from backhaul_common.limits import TokenBucket


class Reads:
    """What a tenant may ask for: a rate, and a number of questions that are being answered at once."""

    __slots__ = ("_at_once", "_bucket", "_under_way")

    def __init__(self, bucket: TokenBucket, at_once: int) -> None:
        self._bucket = bucket
        self._at_once = at_once
        # Shared with what ``adjusted`` makes: whoever began before a change ends after it.
        self._under_way = [0]

    def begin(self) -> float:
        """0 when the question may be answered now, and ``end`` is to be called then; else the seconds to wait."""
        if self._under_way[0] >= self._at_once:
            return 1.0
        wait_s = self._bucket.take()
        if not wait_s:
            self._under_way[0] += 1
        return wait_s

    def end(self) -> None:
        """A question that was begun is answered."""
        self._under_way[0] -= 1

    def adjusted(self, rate: float, burst: int, at_once: int) -> Reads:
        """The same with other limits; what is spent and what is under way stays so."""
        reads = Reads(self._bucket.adjusted(rate, burst), at_once)
        reads._under_way = self._under_way
        return reads


class MemoryBudget:
    """Bytes of bodies that are held, from their arrival until they are answered.

    A tenant may hold as much as is then still free: half of the budget when it is alone, a third each when two fill it.
    However much one sends, there is room for the others.
    """

    __slots__ = ("_held", "_limit", "used")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: dict[str, int] = {}
        self.used = 0
        """Bytes held now, of all tenants."""

    def take(self, tenant_id: str, size: int) -> bool:
        """Whether ``size`` bytes more may be held; if so they are, until they are given back."""
        used = self.used + size
        held = self._held.get(tenant_id, 0) + size
        if held > self._limit - used:
            return False
        self.used = used
        self._held[tenant_id] = held
        return True

    def give_back(self, tenant_id: str, size: int) -> None:
        """``size`` bytes that were taken are held no longer."""
        self.used -= size
        held = self._held[tenant_id] - size
        if held:
            self._held[tenant_id] = held
        else:
            del self._held[tenant_id]


def retry_after(seconds: float) -> int:
    """The value of a Retry-After header: whole seconds, at least 1."""
    return max(1, ceil(seconds))
