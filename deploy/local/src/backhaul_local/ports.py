"""Loopback ports: choosing free ones, and saying who is in the way of a wanted one."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum

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
    """Keeps every session on this machine from choosing ``ports``, also while nothing listens on them.

    The clients of a server that was killed look for it on its port. Another session's server that had chosen it
    meanwhile would take what they send, acknowledge it, and forget it with its test. A port is held by its namesake of
    UDP, which no server here uses, and which the system gives back with the process. What somebody else holds already
    stays theirs.
    """

    def __init__(self, ports: Iterable[int]) -> None:
        self._sockets: list[socket.socket] = []
        for port in ports:
            namesake = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                namesake.bind((LOOPBACK, port))
            except OSError:
                namesake.close()
            else:
                self._sockets.append(namesake)

    def release(self) -> None:
        """They may be chosen again."""
        while self._sockets:
            self._sockets.pop().close()


def _is_held(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return True
        return False


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


def choose_ports(
    count: int, band: Band = Band.SERVICES, *, companion_offset: int = 0, avoid: Collection[int] = ()
) -> list[int]:
    """Return ``count`` different ports that are free and that nobody holds; with an offset, port + offset is so too.

    None of them, nor of those at the offset, is in ``avoid``: ports that are spoken for and not listened on yet.
    """
    # Chosen at random, not in sequence: two test sessions on one machine must not race for the same ports.
    candidates = random.sample(band.value, k=len(band.value))
    chosen: list[int] = []
    for port in candidates:
        if len(chosen) == count:
            break
        wanted = {port, port + companion_offset}
        if wanted.isdisjoint(avoid) and all(is_free(one) and not _is_held(one) for one in wanted):
            chosen.append(port)
    if len(chosen) < count:
        raise LocalStackError(f"No {count} free ports between {band.value.start} and {band.value.stop} on {LOOPBACK}.")
    return chosen


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
