"""Reads the address of an endpoint as strictly as one that others chose must be: there is one way to understand it, and
what is dialled and shown to the endpoint are one and the same."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final
from urllib.parse import quote

import idna

from backhaul_notifier.door.outcome import RequestError
from backhaul_notifier.door.ranges import Address, plain

MAX_URL: Final = 8_192
"""Characters, as of an address that is made of a template."""

_REMEMBERED: Final = 512
"""Characters of an address that is remembered with what was read of it."""

_PARTS: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(\?[^#]*)?(#.*)?", re.DOTALL)
_UNSAFE: Final = re.compile(r"[\x00-\x20\x7f\\\u0080-\u009f\u2028\u2029\u00a0\ufeff]")
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"0x[0-9a-f]*|[0-9]+")
_ASCII: Final = "".join(map(chr, range(0x21, 0x7F)))


@dataclass(frozen=True, slots=True)
class Target:
    """``host`` is a name in lower case and ASCII, or an address as it is usually written. ``rest`` is the path with
    the query, ``/`` at least. ``authority`` is host and port as a request names them."""

    scheme: str
    host: str
    port: int
    rest: str
    address: Address | None
    """What ``host`` is if it is no name."""
    authority: str
    url: str
    """The whole of it, as it is called."""


_PORTS: Final = {"http": 80, "https": 443}


def read_target(url: str) -> Target:
    """What ``url`` leads to. Raises RequestError."""
    # Those that variables have made long are each called once or twice.
    return _remembered(url) if len(url) <= _REMEMBERED else _read(url)


def _read(url: str) -> Target:
    if len(url) > MAX_URL:
        raise RequestError(f"The address has more than {MAX_URL} characters.")
    if _UNSAFE.search(url):
        raise RequestError("The address holds a blank, a backslash or a control character: percent-encode it.")
    match = _PARTS.fullmatch(url)
    if match is None:
        raise RequestError("The address is no URL: it begins with https:// and a host.")
    scheme, authority, path, query, _ = match.groups(default="")
    scheme = scheme.lower()
    if scheme not in _PORTS:
        raise RequestError("The address begins neither with https:// nor with http://.")
    if "@" in authority:
        raise RequestError("The address holds a name or a password: give them as credentials of their own.")
    given_host, given_port = _split(authority)
    host, address = _host(given_host)
    port = _port(given_port, scheme)
    # What is ASCII already stays as it was given, percent signs included.
    rest = quote((path or "/") + query, safe=_ASCII)
    shown = f"[{host}]" if ":" in host else host
    given = shown if port == _PORTS[scheme] else f"{shown}:{port}"
    return Target(scheme, host, port, rest, address, given, f"{scheme}://{given}{rest}")


_remembered = lru_cache(maxsize=4096)(_read)


def _split(authority: str) -> tuple[str, str]:
    if authority.startswith("["):
        host, bracket, port = authority.partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise RequestError("The address has a bracket that is not closed, or other than a port behind it.")
        return host + bracket, port[1:]
    host, _, port = authority.partition(":")
    if ":" in port:
        raise RequestError("The host has several colons: an IPv6 address stands in brackets, as [2001:db8::1].")
    return host, port


def _port(given: str, scheme: str) -> int:
    if not given:
        return _PORTS[scheme]
    if not (given.isascii() and given.isdigit()) or len(given) > 5 or not 0 < int(given) < 65536:
        raise RequestError("The port is none: it is a number from 1 to 65535.")
    return int(given)


def _host(given: str) -> tuple[str, Address | None]:
    if given.startswith("["):
        if "%" in given:
            raise RequestError("The address names a network interface (a zone), which is never called.")
        try:
            address = plain(IPv6Address(given[1:-1]))
        except AddressValueError as exc:
            raise RequestError("What stands in brackets is no IPv6 address.") from exc
        return str(address), address
    name = _ascii(given).removesuffix(".")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        address = _ipv4(labels)
        return str(address), address
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise RequestError("The host is no name that can be looked up: letters, digits and hyphens between dots.")
    return name, None


def _ascii(given: str) -> str:
    """In lower case, with what stands for an ASCII letter, digit or dot in its place."""
    if given.isascii():
        return given.lower()
    try:
        return idna.encode(given, uts46=True, transitional=False).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError) as exc:
        raise RequestError("The host is no internationalised name that can be looked up.") from exc


def _ipv4(labels: list[str]) -> IPv4Address:
    """As browsers and resolvers read it: up to four numbers, decimal, octal or hexadecimal."""
    if len(labels) > 4:
        raise RequestError("The host ends in a number and is no IPv4 address: it has more than four parts.")
    numbers = [_number(label) for label in labels]
    *first, last = numbers
    if any(one > 255 for one in first) or last >= 256 ** (5 - len(numbers)):
        raise RequestError("The host ends in a number and is no IPv4 address: a part of it is too large.")
    return IPv4Address(sum(one << 8 * (3 - at) for at, one in enumerate(first)) + last)


def _number(label: str) -> int:
    digits, base = (label[2:] or "0", 16) if label.startswith("0x") else (label, 8 if label.startswith("0") else 10)
    try:
        # What int() takes beside digits, such as a sign or an underscore, is no part of a number here.
        return int(digits, base) if len(label) <= 20 and _NUMBER.fullmatch(label) else int("")
    except ValueError as exc:
        raise RequestError("The host ends in a number and is no IPv4 address: a part of it is no number.") from exc
