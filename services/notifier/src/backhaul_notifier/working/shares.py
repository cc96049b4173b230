"""Whose endpoint may have how many calls under way: the door has a bounded number of connections, for all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection


class Shares:
    """Of ``limit`` calls each tenant has at most ``limit`` divided by the tenants that have any and one more, and of
    these each of its endpoints as much again: whoever comes next finds room at once, however many calls of others
    hang."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._calls: dict[str, Counter[str]] = {}
        self._of_tenant: Counter[str] = Counter()
        self._total = 0
        self._waiting: dict[str, dict[str, Callable[[], None]]] = {}

    @property
    def used(self) -> int:
        """Calls that are under way."""
        return self._total

    def full(self) -> Collection[str]:
        """Tenants of which no further call may begin now, since they have their share."""
        return [tenant for tenant in self._calls if not self._has_room(tenant)]

    def take(self, tenant: str, endpoint: str, wake: Callable[[], None]) -> bool:
        """Whether a call of ``tenant``'s ``endpoint`` may begin; it is then counted until ``give``. Otherwise ``wake``
        is called once, when one may."""
        if self._may_begin(tenant, endpoint):
            self._calls.setdefault(tenant, Counter())[endpoint] += 1
            self._of_tenant[tenant] += 1
            self._total += 1
            return True
        self._waiting.setdefault(tenant, {})[endpoint] = wake
        return False

    def leave(self, tenant: str, endpoint: str) -> None:
        """``endpoint`` begins no call any more: whoever waits behind it is woken in its place."""
        waiting = self._waiting.get(tenant, {})
        if waiting.pop(endpoint, None) is not None and not waiting:
            del self._waiting[tenant]

    def give(self, tenant: str, endpoint: str) -> None:
        """A call of ``endpoint`` has ended."""
        self._total -= 1
        self._of_tenant[tenant] -= 1
        calls = self._calls[tenant]
        calls[endpoint] -= 1
        if not calls[endpoint]:
            del calls[endpoint]
        if not calls:
            del self._calls[tenant], self._of_tenant[tenant]
        if self._waiting:
            self._pass_on()

    def _share(self) -> int:
        """Calls of one tenant."""
        return max(1, self._limit // (len(self._calls) + 1))

    def _has_room(self, tenant: str) -> bool:
        # Not by subscript: a Counter is asked for whoever has none as well.
        return self._total < self._limit and self._of_tenant.get(tenant, 0) < self._share()

    def _may_begin(self, tenant: str, endpoint: str) -> bool:
        if not self._has_room(tenant):
            return False
        calls = self._calls.get(tenant)
        return not calls or calls.get(endpoint, 0) < max(1, self._share() // (len(calls) + 1))

    def _pass_on(self) -> None:
        """Wake one of each tenant that has room now: whether it still wants it is its own affair, and the next call
        that ends wakes the next one."""
        for tenant in [one for one in self._waiting if self._has_room(one)]:
            waiting = self._waiting[tenant]
            endpoint = next((one for one in waiting if self._may_begin(tenant, one)), None)
            if endpoint is None:
                continue
            wake = waiting.pop(endpoint)
            if not waiting:
                del self._waiting[tenant]
            wake()
