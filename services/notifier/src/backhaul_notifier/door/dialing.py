"""Dials: looks up, checks what was found, and connects to exactly that, through the egress proxy where there is one."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address
from typing import Final, TypeVar

import aiohappyeyeballs

from backhaul_notifier.door.names import LookupFailedError, Names
from backhaul_notifier.door.outcome import DoorError, Failure
from backhaul_notifier.door.ranges import Address, Ranges
from backhaul_notifier.door.target import Target

MAX_DIALLED: Final = 3
"""Addresses of one name that are tried, of each of both families."""

MAX_PROXY_ANSWER_BYTES: Final = 16_384

_NEXT_S: Final = 0.25
"""When the next address is tried while one has not answered yet (RFC 8305)."""

P = TypeVar("P", bound=asyncio.Protocol)


class Stage(Enum):
    """How far an attempt has come, and what it means if its time is over there."""

    WAITING = (Failure.NO_ROOM, "No connection became free in time: this process has all that it may have, or is busy.")
    RESOLVING = (Failure.DNS_FAILED, "DNS gave no answer in time.")
    PROXY = (Failure.PROXY_FAILED, "The egress proxy did not connect in time.")
    CONNECTING = (Failure.CONNECT_TIMEOUT, "The endpoint did not take the connection in time.")
    TLS = (Failure.TLS_FAILED, "The endpoint did not agree on TLS in time.")
    ANSWERING = (Failure.TIMEOUT, "The endpoint did not answer in time.")


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy that is asked to CONNECT. ``credentials`` are name and password."""

    host: str
    port: int
    credentials: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Which endpoints may be dialled, beside their addresses. ``hosts`` may have any address; no ``ports``: all."""

    plain_http: bool = False
    ports: frozenset[int] = frozenset()
    hosts: frozenset[str] = frozenset()


class Dialer:
    """Connects to targets."""

    def __init__(self, names: Names, ranges: Ranges, limits: Limits, proxy: Proxy | None = None) -> None:
        self._names = names
        self._ranges = ranges
        self._limits = limits
        self._proxy = proxy

    def require(self, target: Target) -> None:
        """Raises DoorError where ``target`` will not be dialled whatever DNS says."""
        if target.scheme == "http" and not self._limits.plain_http:
            raise DoorError(Failure.URL_REFUSED, "The endpoint is called by https:// only.")
        if self._limits.ports and target.port not in self._limits.ports:
            raise DoorError(Failure.URL_REFUSED, f"Endpoints on port {target.port} are not called.")
        if target.address is not None and (what := self._ranges.refusal(target.address)) is not None:
            raise _refused(target, [what])

    async def connect(
        self, factory: Callable[[], P], target: Target, tls: ssl.SSLContext | None, at: Callable[[Stage], None]
    ) -> P:
        """A connection to ``target``, TLS agreed on where there is a ``tls``; ``at`` is told of each stage. Raises
        DoorError."""
        at(Stage.RESOLVING)
        addresses = await self.allowed(target)
        if self._proxy is None:
            sock = await self._dial(addresses, target, at)
        else:
            sock = await self._tunnel(self._proxy, addresses, target, at)
        try:
            at(Stage.TLS)
            # The name is the target's whatever was dialled, and checked against the certificate.
            _, made = await asyncio.get_running_loop().create_connection(
                factory, sock=sock, ssl=tls, server_hostname=None if tls is None else target.host
            )
        except ssl.SSLCertVerificationError as exc:
            raise DoorError(
                Failure.TLS_FAILED, f"The certificate of {target.host} is not valid: {exc.verify_message}."
            ) from exc
        except ssl.SSLError as exc:
            reason = (exc.reason or "unknown").replace("_", " ").lower()
            raise DoorError(Failure.TLS_FAILED, f"TLS with {target.host} failed: {reason}.") from exc
        except OSError as exc:
            raise DoorError(
                Failure.TLS_FAILED, f"{target.host} ended the connection before TLS was agreed on."
            ) from exc
        return made

    async def allowed(self, target: Target) -> Sequence[Address]:
        """What of ``target`` may be dialled; at least one. Raises DoorError."""
        trusted = target.host in self._limits.hosts
        if target.address is not None:
            found: Sequence[Address] = [target.address]
        else:
            try:
                found = await self._names.addresses(target.host)
            except LookupFailedError as exc:
                raise DoorError(Failure.DNS_FAILED, str(exc)) from exc
        refusals = [self._ranges.refusal(one, trusted=trusted) for one in found]
        allowed = [one for one, refusal in zip(found, refusals, strict=True) if refusal is None]
        if not allowed:
            raise _refused(target, [one for one in refusals if one is not None])
        # One family may lead nowhere from here, however many addresses are of it.
        tried = {family: [one for one in allowed if one.version == family][:MAX_DIALLED] for family in (4, 6)}
        return [one for one in allowed if one in tried[one.version]]

    async def _dial(self, addresses: Sequence[Address], target: Target, at: Callable[[Stage], None]) -> socket.socket:
        at(Stage.CONNECTING)
        try:
            return await _connected(addresses, target.port)
        except TimeoutError as exc:
            raise DoorError(*Stage.CONNECTING.value) from exc
        except OSError as exc:
            if exc.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EADDRNOTAVAIL):
                raise DoorError(Failure.NO_ROOM, "This process may have no further connection.") from exc
            raise DoorError(
                Failure.CONNECT_FAILED,
                f"{target.host} does not take connections on port {target.port}: {_said(exc)}.",
            ) from exc

    async def _tunnel(
        self, proxy: Proxy, addresses: Sequence[Address], target: Target, at: Callable[[Stage], None]
    ) -> socket.socket:
        """The proxy is given the address that was checked: a name it would look up again. It is asked to CONNECT for
        plain HTTP, too, since it had to put that address in the place of the Host header otherwise."""
        at(Stage.PROXY)
        *others, last = addresses
        for address in others:
            with suppress(DoorError):
                return await self._through(proxy, address, target)
        return await self._through(proxy, last, target)

    async def _through(self, proxy: Proxy, address: Address, target: Target) -> socket.socket:
        sock = await self._to_proxy(proxy)
        try:
            await self._ask_proxy(proxy, sock, address, target)
        except BaseException:
            sock.close()
            raise
        return sock

    async def _to_proxy(self, proxy: Proxy) -> socket.socket:
        try:
            try:
                found: Sequence[Address] = [ip_address(proxy.host)]
            except ValueError:
                found = await self._names.addresses(proxy.host)
            return await _connected(found, proxy.port)
        except (LookupFailedError, OSError) as exc:
            raise DoorError(Failure.PROXY_FAILED, "The egress proxy cannot be reached.") from exc

    @staticmethod
    async def _ask_proxy(proxy: Proxy, sock: socket.socket, address: Address, target: Target) -> None:
        loop = asyncio.get_running_loop()
        place = f"[{address}]:{target.port}" if address.version == 6 else f"{address}:{target.port}"
        shown = ""
        if proxy.credentials is not None:
            shown = f"Proxy-Authorization: Basic {b64encode(':'.join(proxy.credentials).encode()).decode()}\r\n"
        answer = b""
        try:
            await loop.sock_sendall(sock, f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{shown}\r\n".encode())
            while b"\r\n\r\n" not in answer:
                if len(answer) > MAX_PROXY_ANSWER_BYTES:
                    raise DoorError(Failure.PROXY_FAILED, "The egress proxy's answer is too long.")
                if not (more := await loop.sock_recv(sock, 4096)):
                    raise DoorError(Failure.PROXY_FAILED, "The egress proxy hung up without an answer.")
                answer += more
        except OSError as exc:
            raise DoorError(Failure.PROXY_FAILED, f"The egress proxy failed: {_said(exc)}.") from exc
        head, _, beyond = answer.partition(b"\r\n\r\n")
        status = re.match(rb"HTTP/1\.[01] ([0-9]{3})", head)
        if status is None:
            raise DoorError(Failure.PROXY_FAILED, "The egress proxy answered with something that is no HTTP.")
        if not status[1].startswith(b"2"):
            raise _by_proxy(int(status[1]), head.decode("latin-1").lower(), target)
        if beyond:
            raise DoorError(Failure.PROTOCOL_ERROR, f"{target.host} spoke before it was spoken to.")


_ENDPOINTS: Final = (
    # RFC 9209, and Squid's own word for it.
    (r"proxy-status:[^\r\n]*;\s*error=\"?connection_timeout", Failure.CONNECT_TIMEOUT),
    (r"proxy-status:[^\r\n]*;\s*error=\"?(connection_refused|destination_unavailable)", Failure.CONNECT_FAILED),
    (r"x-squid-error:\s*err_connect_fail", Failure.CONNECT_FAILED),
)


def _by_proxy(status: int, head: str, target: Target) -> DoorError:
    """Who has failed if the proxy did not connect: the endpoint only where the proxy says so in an agreed way."""
    for pattern, failure in _ENDPOINTS:
        if re.search(pattern, head):
            return DoorError(
                failure, f"{target.host} takes no connections on port {target.port}, says the egress proxy."
            )
    return DoorError(Failure.PROXY_FAILED, f"The egress proxy did not connect: it answered with status {status}.")


def _refused(target: Target, what: Sequence[str]) -> DoorError:
    """What the addresses are, and not which: names of a network's inside are not to be looked up by whoever asks."""
    if target.address is not None:
        return DoorError(Failure.ADDRESS_REFUSED, f"{target.host} is a {what[0]} address: those are not called.")
    kinds = " or ".join(dict.fromkeys(what)) or "unknown"
    return DoorError(Failure.ADDRESS_REFUSED, f"{target.host} leads to a {kinds} address: those are not called.")


async def _connected(addresses: Sequence[Address], port: int) -> socket.socket:
    infos: list[tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]] = [
        (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (str(one), port, 0, 0))
        if one.version == 6
        else (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (str(one), port))
        for one in addresses
    ]
    return await aiohappyeyeballs.start_connection(infos, happy_eyeballs_delay=_NEXT_S, interleave=1)


def _said(exc: OSError) -> str:
    """The system's words for it, without any address."""
    return os.strerror(exc.errno).lower() if exc.errno else "no connection"
