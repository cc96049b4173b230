"""Which addresses are called, and which are not."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

METADATA: Final[Sequence[str]] = (
    "169.254.169.254",  # Amazon, Google, Azure, Oracle, DigitalOcean and others.
    "169.254.170.2",  # Amazon: containers' credentials.
    "169.254.170.23",  # Amazon: pods' credentials.
    "100.100.100.200",  # Alibaba.
    "168.63.129.16",  # Azure's own services; the address is a public one.
    "192.0.0.192",  # Oracle, of old.
    "fd00:ec2::254",  # Amazon.
    "fd00:ec2::23",  # Amazon: pods' credentials.
    "fd20:ce::254",  # Google.
)
"""Where clouds hand out the credentials of the machine."""

SPECIAL: Final[Sequence[tuple[str, str]]] = (
    ("0.0.0.0/8", "unspecified"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "shared (CGNAT)"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "reserved"),
    ("192.0.2.0/24", "documentation"),
    ("192.88.99.0/24", "6to4 relay"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "benchmark"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("::/96", "IPv4-compatible"),
    ("::ffff:0:0:0/96", "IPv4-translated"),
    ("64:ff9b:1::/48", "local NAT64"),
    ("2001::/32", "Teredo"),
    ("2001:2::/48", "benchmark"),
    ("2001::/23", "reserved"),
    ("2001:db8::/32", "documentation"),
    ("2002::/16", "6to4"),
    ("3fff::/20", "documentation"),
    ("fc00::/7", "private"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
)
"""Networks that no public endpoint is in, and what they are. The first that fits says it."""

_PUBLIC_V6: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")

_METADATA: Final = frozenset(ip_address(one) for one in METADATA)
_SPECIAL: Final = tuple((ip_network(one), what) for one, what in SPECIAL)


def plain(address: Address) -> Address:
    """``address``, as the IPv4 address that it stands for if it is a mapped one."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


class Ranges:
    """What settings say of addresses, over what holds without them."""

    def __init__(self, allowed: Sequence[Network] = (), own: Sequence[Network] = ()) -> None:
        """``allowed`` are called though they would not be; ``own`` are not called though they would be. Of two that
        hold an address the narrower one counts, and ``own`` if they are one and the same."""
        self._allowed = tuple(allowed)
        self._own = tuple(own)
        # An endpoint that is an address is asked about with each call.
        self._known = lru_cache(maxsize=4096)(self._refusal)

    def refusal(self, address: Address, *, trusted: bool = False) -> str | None:
        """What ``address`` is that it is not called, such as ``loopback``; None where it is called. ``trusted``: it is
        that of a host which settings allow."""
        return self._known(address, trusted)

    def _refusal(self, address: Address, trusted: bool) -> str | None:
        address = plain(address)
        allowed = _narrowest(self._allowed, address)
        if address in _METADATA:
            # A network that is allowed as a whole was hardly allowed for the sake of the machine's credentials.
            return None if allowed == address.max_prefixlen else "metadata"
        if trusted:
            return None
        if _narrowest(self._own, address) >= max(allowed, 0):
            return "own"
        if allowed >= 0:
            return None
        if isinstance(address, IPv6Address) and address in _NAT64:
            # How a network of IPv6 alone reaches IPv4: what counts is where it leads to.
            return self._refusal(IPv4Address(int(address) & 0xFFFF_FFFF), trusted=False)
        return _kind(address)


def _kind(address: Address) -> str | None:
    """What ``address`` is; None: one of the Internet's."""
    for network, what in _SPECIAL:
        if address in network:
            return what
    return "reserved" if isinstance(address, IPv6Address) and address not in _PUBLIC_V6 else None


def _narrowest(networks: Sequence[Network], address: Address) -> int:
    """The longest prefix among those of ``networks`` that hold ``address``; -1 where none does."""
    return max((one.prefixlen for one in networks if address in one), default=-1)
