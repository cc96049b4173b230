"""Whoever shows wrong credentials again and again is answered slowly.

Only the refusal waits. A credential is always looked at, at once, and a valid one is never kept waiting, whatever its
address has shown before: many may come from one address, and a proxy's is that of all.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from ipaddress import IPv6Address, ip_address

from backhaul_common.limits import TokenBucket

FREE = 20
"""Refusals of an address that are answered at once."""
FREE_PER_SECOND = 0.5
PAUSE_S = 1.0
MAX_WAITING = 100
"""Refusals that wait at once. Beyond, the connection ends with the answer, so that each guess costs a new one."""
MAX_ADDRESSES = 4096
"""Remembered, the latest."""


class WrongCredentials:
    """Holds up the refusals of those who have been refused often."""

    def __init__(self, clock: Callable[[], float], pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """``clock`` runs in seconds; ``pause`` waits for so many."""
        self._clock = clock
        self._pause = pause
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()
        self._waiting = 0

    async def refused(self, address: str) -> bool:
        """Call before ``address`` is told 401. Whether its connection may go on."""
        if not self._bucket(network_of(address)).take():
            return True
        if self._waiting >= MAX_WAITING:
            return False
        self._waiting += 1
        try:
            await self._pause(PAUSE_S)
        finally:
            self._waiting -= 1
        return True

    def _bucket(self, network: str) -> TokenBucket:
        bucket = self._buckets.get(network)
        if bucket is None:
            if len(self._buckets) >= MAX_ADDRESSES:
                self._buckets.popitem(last=False)
            bucket = self._buckets[network] = TokenBucket(FREE_PER_SECOND, FREE, self._clock)
        else:
            self._buckets.move_to_end(network)
        return bucket


def network_of(address: str) -> str:
    """What one peer has: an address, or of IPv6 the 64 bits that are one network's."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    # A socket of both families gives the older one's addresses in this form.
    return str(parsed.ipv4_mapped or parsed.exploded[:19])
