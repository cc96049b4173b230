"""Loopback ports: choosing free ones, and saying who is in the way of a wanted one."""

from __future__ import annotations

import random
import socket
import weakref
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Self

import psutil

from backhaul_local.errors import LocalStackError, PortInUseError

LOOPBACK = "127.0.0.1"


class Band(Enum):
    """Where free ports are looked for, one range for each kind of process, so that those of one stack never coincide.

    All lie below Linux's ephemeral range (32768 and up): a server that is killed and started again on its port must
    not find that an outgoing connection has borrowed that port in between. The last one also leaves room for the
    second port that SeaweedFS derives by adding 10000.
    """

    SERVICES = range(12_000, 15_000)
    MONGO = range(15_000, 16_500)
    NATS = range(16_500, 18_000)
    S3 = range(18_000, 22_500)


@dataclass(frozen=True)
class PortClaim:
    """A port that is about to be listened on, with what it is for and how to choose another."""

    port: int
    purpose: str
    remedy: str = ""


class Hold:
    """Ports that no other process here chooses meanwhile: from their choice on, also while nothing listens on them.

    A port that is free when it is chosen need not be so when its server starts: others choose side by side. And the
    clients of a server that was killed look for it on its port: another session's server that had chosen it meanwhile
    would take what they send, acknowledge it, and forget it with its test. So a port is held by its namesake of UDP,
    which no server here uses, of which only one process can have it, and which the system takes back from one that is
    killed. They are given back at the end of a ``with``, or else with the last reference to this.
    """

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        weakref.finalize(self, _close, self._sockets)

    def choose(
        self, count: int, band: Band = Band.SERVICES, *, companion_offset: int = 0, avoid: Collection[int] = ()
    ) -> list[int]:
        """Hold and return ``count`` different ports that are free; with an offset, port + offset is so too, and held.

        None of them, nor of those at the offset, is in ``avoid``: ports that are spoken for and held by nobody.
        """
        # At random, not in sequence: others would have to be passed over one by one.
        candidates = random.sample(band.value, k=len(band.value))
        chosen: list[int] = []
        for port in candidates:
            if len(chosen) == count:
                break
            wanted = {port, port + companion_offset}
            if wanted.isdisjoint(avoid) and self._take(wanted):
                chosen.append(port)
        if len(chosen) < count:
            between = f"between {band.value.start} and {band.value.stop}"
            raise LocalStackError(f"No {count} free ports {between} on {LOOPBACK}.")
        return chosen

    def keep(self, ports: Iterable[int]) -> None:
        """Hold ``ports``, which somebody else has chosen. What is held already stays with whoever holds it."""
        self._sockets += [namesake for port in ports if (namesake := _namesake(port)) is not None]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        _close(self._sockets)

    def _take(self, ports: Collection[int]) -> bool:
        """Hold all of ``ports``, or none of them."""
        held: list[socket.socket] = []
        for port in ports:
            namesake = _namesake(port)
            if namesake is not None:
                held.append(namesake)
            # Looked at when it is held: until then a server of somebody else may be about to listen on it.
            if namesake is None or not is_free(port):
                _close(held)
                return False
        self._sockets += held
        return True


def _namesake(port: int) -> socket.socket | None:
    """A socket that holds ``port``; None where there is one already."""
    namesake = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        namesake.bind((LOOPBACK, port))
    except OSError:
        namesake.close()
        return None
    return namesake


def _close(sockets: list[socket.socket]) -> None:
    while sockets:
        sockets.pop().close()


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections in TIME_WAIT of a predecessor are not in the way, a listener is.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def holder_of(port: int) -> str | None:
    """Describe the process that listens on the port, as far as this user may see it; None when unknown."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:  # macOS shows other processes' sockets to root only.
        return None
    for connection in connections:
        if connection.status != psutil.CONN_LISTEN or not connection.laddr or connection.laddr.port != port:
            continue
        if connection.pid is None:  # Another user's process: the socket is visible, its owner is not.
            return None
        try:
            command = " ".join(psutil.Process(connection.pid).cmdline())
        except psutil.Error:
            command = ""
        return f"process {connection.pid}" + (f" ({_shorten(command)})" if command else "")
    return None


def ensure_free(claims: Iterable[PortClaim]) -> None:
    """Raise `PortInUseError` that names every claimed port in use, so that all of them can be dealt with at once."""
    conflicts: list[str] = []
    for claim in claims:
        if is_free(claim.port):
            continue
        holder = holder_of(claim.port) or "another process"
        remedy = f" {claim.remedy}" if claim.remedy else ""
        conflicts.append(f"Port {claim.port} ({claim.purpose}) is taken by {holder}.{remedy}")
    if conflicts:
        raise PortInUseError("\n".join(conflicts))


def accepts_connections(port: int, *, timeout: float = 0.5) -> bool:
    """Whether something accepts a TCP connection on this loopback port; `timeout` in seconds."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=timeout).close()
    except OSError:
        return False
    return True


def _shorten(text: str, limit: int = 120) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
