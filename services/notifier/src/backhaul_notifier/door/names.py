"""Looks up names, each for a few seconds only: what is dialled is checked whenever it is dialled."""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Final, Protocol

import aiodns

from backhaul_notifier.door.ranges import Address

KNOWN_S, UNKNOWN_S = 10.0, 2.0
"""For how long an answer is kept, and a failure."""

MAX_NAMES: Final = 10_000

_TRY_S, _TRIES = 2.0, 3


class LookupFailedError(Exception):
    """The name has no address, or nobody says which; the sentence says so."""


class Resolver(Protocol):
    """Asks DNS."""

    async def addresses(self, host: str) -> Sequence[Address]:
        """All addresses of a name. Raises LookupFailedError."""

    async def close(self) -> None:
        """Ask no more."""


class Dns:
    """As the machine is configured, hosts file included. It takes no thread: whoever has names that are never answered
    keeps nobody waiting but their own deliveries."""

    def __init__(self) -> None:
        self._dns: Final = aiodns.DNSResolver(timeout=_TRY_S, tries=_TRIES)

    async def addresses(self, host: str) -> Sequence[Address]:
        """See ``Resolver``."""
        try:
            found = await self._dns.getaddrinfo(host, type=socket.SOCK_STREAM, family=socket.AF_UNSPEC)
        except aiodns.error.DNSError as exc:
            if exc.args and exc.args[0] in (aiodns.error.ARES_ENOTFOUND, aiodns.error.ARES_ENODATA):
                raise LookupFailedError(f"DNS knows no address of {host}.") from exc
            raise LookupFailedError(f"DNS gave no answer for {host}.") from exc
        return [
            ip_address(node.addr[0].decode() if isinstance(node.addr[0], bytes) else node.addr[0])
            for node in found.nodes
        ]

    async def close(self) -> None:
        """See ``Resolver``."""
        await self._dns.close()


class Names:
    """Addresses of names; each is looked up once for all who ask at the same time."""

    def __init__(self, resolver: Resolver, clock: Callable[[], float]) -> None:
        """``clock`` gives seconds that only grow."""
        self._resolver = resolver
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, Sequence[Address] | LookupFailedError]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Sequence[Address]]] = {}

    async def addresses(self, host: str) -> Sequence[Address]:
        """See ``Resolver``."""
        if (known := self._known.get(host)) is not None and known[0] > self._clock():
            if isinstance(known[1], LookupFailedError):
                raise LookupFailedError(*known[1].args)
            return known[1]
        if (asking := self._asking.get(host)) is None:
            asking = self._asking[host] = asyncio.create_task(self._ask(host))
            asking.add_done_callback(lambda task: self._asked(host, task))
        # Whoever gives up waiting takes the answer from nobody else.
        return await asyncio.shield(asking)

    async def close(self) -> None:
        """Ask no more."""
        for task in list(self._asking.values()):
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
        await self._resolver.close()

    async def _ask(self, host: str) -> Sequence[Address]:
        try:
            found = await self._resolver.addresses(host)
        except LookupFailedError as exc:
            self._keep(host, UNKNOWN_S, LookupFailedError(*exc.args))
            raise
        self._keep(host, KNOWN_S, found)
        return found

    def _keep(self, host: str, for_s: float, answer: Sequence[Address] | LookupFailedError) -> None:
        self._known[host] = (self._clock() + for_s, answer)
        self._known.move_to_end(host)
        if len(self._known) > MAX_NAMES:
            self._known.popitem(last=False)

    def _asked(self, host: str, task: asyncio.Task[Sequence[Address]]) -> None:
        del self._asking[host]
        if not task.cancelled():
            # Nobody may be waiting any more, and then nobody else would look at it.
            task.exception()
