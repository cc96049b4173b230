"""What proxies say of a request's client: its address, for the log, and how it called them. Nothing that must hold is
decided by it, since a proxy's word may be wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from backhaul_gateway.settings import Network

_MEMORY = 1024


def said_https(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether anybody says that it was called by https: a proxy, trusted or not, or the client itself."""
    words = [value for name, value in headers if name == b"x-forwarded-proto"]
    return bool(words) and words[-1].rpartition(b",")[2].strip().lower() == b"https"


class ClientAddress:
    """Finds the address of a request's client.

    Where the peer is a proxy in one of the ``trusted`` networks, its ``X-Forwarded-For`` is read from the right. The
    first address there that lies in no trusted network is the client's.
    """

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = tuple(trusted)
        self._known: dict[str, bool] = {}

    def of(self, scope: Mapping[str, Any], headers: Iterable[tuple[bytes, bytes]]) -> str:
        """The address, or an empty text where there is none."""
        client = scope.get("client")
        address: str = client[0] if client else ""
        if not self._trusted or not self._is_trusted(address):
            return address
        forwarded = b",".join([value for name, value in headers if name == b"x-forwarded-for"]).decode("latin-1")
        for hop in reversed([part.strip() for part in forwarded.split(",") if part.strip()]):
            address = hop[:64]
            if not self._is_trusted(address):
                break
        return address

    def says_https(self, scope: Mapping[str, Any], headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether a trusted proxy says that it was called by https. The last word is the nearest proxy's."""
        client = scope.get("client")
        return bool(self._trusted) and self._is_trusted(client[0] if client else "") and said_https(headers)

    def _is_trusted(self, address: str) -> bool:
        known = self._known.get(address)
        if known is None:
            try:
                parsed = ip_address(address)
                known = any(parsed in network for network in self._trusted)
            except ValueError:
                known = False
            if len(self._known) >= _MEMORY:
                self._known.clear()
            self._known[address] = known
        return known
