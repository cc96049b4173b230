"""TLS of clients: the certificate, which may change at any time, and handshakes, before which nobody is a client."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path

from backhaul_common.lifecycle import cancel, keep_running
from backhaul_common.logs import get_logger
from backhaul_common.metrics import CERTIFICATE_EXPIRES, CERTIFICATE_REFUSED, Metrics
from backhaul_common.pauses import pauses
from cryptography import x509

from backhaul_gateway.admission.attempts import network_of

LOOK_S = 2.0
"""How often the files are looked at. They may be links that are moved, on whatever file system a secret is mounted by,
which tells nobody of a change."""

MAX_HANDSHAKES = 512
"""Handshakes of one port at a time. Beyond, the oldest of the address that has most is ended: an honest one takes two
ways there and back, and one host that only connects shuts nobody out."""

HANDSHAKE_S = 10.0

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2. Those of 1.3 are of this kind all: a key of its own for each connection, and authenticated encryption."""


class UnfitError(ValueError):
    """A certificate that cannot be served; the text says why, and names the file."""


@dataclass(frozen=True, slots=True)
class _Served:
    """What handshakes are answered with, and from when to when it is valid, in Unix time."""

    context: ssl.SSLContext
    begins: float
    ends: float

    def is_valid(self, now: float) -> bool:
        return self.begins <= now < self.ends

    @property
    def told(self) -> dict[str, str]:
        """For log lines."""
        return {"valid_until": datetime.fromtimestamp(self.ends, UTC).isoformat()}


class Certificate:
    """The certificate that is served. New handshakes get the new one; connections that are open keep theirs."""

    def __init__(
        self,
        cert_file: Path,
        key_file: Path,
        metrics: Metrics,
        *,
        now: Callable[[], float] = time.time,
        look_s: float = LOOK_S,
    ) -> None:
        """UnfitError where the files hold nothing that can be served. One that has expired can: who does not look at
        that, or only asks whether the gateway is ready, is still answered."""
        self._cert_file = cert_file
        self._key_file = key_file
        self._now = now
        self._look_s = look_s
        self._log = get_logger(component="certificate")
        self._seen = self._read()
        self._served = self._load(self._seen)
        self._doubt = ""
        """Why the last look found the files unfit. One file may be replaced already and the other not yet."""
        self._refusal = ""
        """The same, once two looks in a row have found it."""
        if not self._served.is_valid(now()):
            self._log.error("certificate_not_valid", file=str(cert_file), **self._served.told)
        metrics.gauge(CERTIFICATE_EXPIRES, lambda: self._served.ends)
        metrics.gauge(CERTIFICATE_REFUSED, lambda: float(bool(self._refusal)))

    @property
    def context(self) -> ssl.SSLContext:
        """For the next handshake."""
        return self._served.context

    async def watch(self) -> None:
        """Look at the files until cancelled."""
        while True:
            await asyncio.sleep(self._look_s)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Serve what the files hold, if it has changed and is fit; otherwise say so once, and go on as before.

        What is unfit is tried again at each look: it may become valid, or become readable, while the files stay.
        """
        try:
            seen = self._read()
            found = None if seen == self._seen else self._fit(seen)
        except UnfitError as error:
            self._refuse(str(error))
            return
        self._doubt = self._refusal = ""
        if found is not None:
            self._seen, self._served = seen, found
            self._log.info("certificate_loaded", **found.told)

    def _refuse(self, why: str) -> None:
        doubt, self._doubt = self._doubt, why
        if doubt == why != self._refusal:
            self._refusal = why
            self._log.error("certificate_refused", error=why, **self._served.told)

    def _fit(self, seen: bytes) -> _Served:
        found, now = self._load(seen), self._now()
        if not found.is_valid(now) and self._served.is_valid(now):
            when = "not valid yet" if now < found.begins else "no longer valid"
            raise UnfitError(f"{self._cert_file}: it is {when}, and the one that is served is valid")
        return found

    def _read(self) -> bytes:
        parts = []
        for path in (self._cert_file, self._key_file):
            try:
                parts.append(path.read_bytes())
            except OSError as exc:
                raise UnfitError(f"{path}: {exc.strerror}") from exc
        # The key itself is not kept here.
        return sha256(b"\0".join(parts)).digest() + parts[0]

    def _load(self, seen: bytes) -> _Served:
        try:
            leaf = x509.load_pem_x509_certificates(seen[sha256().digest_size :])[0]
            begins, ends = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            # Without a passphrase at hand OpenSSL would ask for one on the terminal.
            context.load_cert_chain(self._cert_file, self._key_file, password="")
        except (OSError, ValueError, x509.InvalidVersion) as exc:
            # OpenSSL's own words, which hold nothing of the files.
            raise UnfitError(f"{self._cert_file} and {self._key_file}: {exc}") from exc
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS)
        context.set_alpn_protocols(["http/1.1"])
        context.options |= ssl.OP_NO_RENEGOTIATION
        return _Served(context, begins, ends)


class TlsDoor:
    """A port of TLS: takes connections, and hands those on whose handshake succeeds.

    A server of the event loop's own would neither count handshakes nor give one up for another: whoever only connects
    could have all files that the gateway may open.
    """

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        certificate: Certificate,
        missed: Callable[[str], None],
        *,
        handshake_s: float,
        shutdown_s: float,
        most: int = MAX_HANDSHAKES,
    ) -> None:
        """``listener`` is bound; ``protocol`` makes what the connection is handed to; ``missed`` counts a
        handshake that led to none, by its reason. ``handshake_s`` bounds each, and
        ``shutdown_s`` the end of a connection: until all is sent, and the peer has said that it is done."""
        self._listener = listener
        self._protocol = protocol
        self._certificate = certificate
        self._missed = missed
        self._handshake_s = handshake_s
        self._shutdown_s = shutdown_s
        self._most = most
        self._greeting: dict[str, dict[asyncio.Task[None], None]] = {}
        """By the peer's network, and the oldest first."""
        self._count = 0
        self._taking: asyncio.Task[None] | None = None
        self._log = get_logger(component="tls")

    def open(self, backlog: int) -> None:
        """Begin to take connections."""
        self._listener.listen(backlog)
        self._listener.setblocking(False)
        self._taking = asyncio.create_task(keep_running("tls", self._take), name="tls")

    async def close(self) -> None:
        """Take no more of them, and end the handshakes; connections that were handed on are not touched."""
        for task in [self._taking, *(task for tasks in self._greeting.values() for task in tasks)]:
            if task is not None:
                await cancel(task)

    async def _take(self) -> None:
        loop = asyncio.get_running_loop()
        waits = pauses(0.01, 1.0)
        while True:
            try:
                connection, address = await loop.sock_accept(self._listener)
            except OSError as exc:
                # Its peer is gone already, or no file can be opened, which does not end at once.
                self._log.warning("connection_not_taken", error=repr(exc))
                await asyncio.sleep(next(waits))
                continue
            waits = pauses(0.01, 1.0)
            if self._count >= self._most:
                self._make_room()
            peer = network_of(address[0])
            task = asyncio.create_task(self._greet(connection), name="handshake")
            self._greeting.setdefault(peer, {})[task] = None
            self._count += 1
            task.add_done_callback(partial(self._leave, peer))
            # Handshakes go on while a flood of connections is taken.
            await asyncio.sleep(0)

    def _make_room(self) -> None:
        # Where several have as many, the one that has had any for longest.
        peer, tasks = max(self._greeting.items(), key=lambda item: len(item[1]))
        oldest = next(iter(tasks))
        self._leave(peer, oldest)
        self._missed("room")
        oldest.cancel()

    def _leave(self, peer: str, task: asyncio.Task[None]) -> None:
        tasks = self._greeting.get(peer, {})
        if task in tasks:
            del tasks[task]
            self._count -= 1
        if not tasks:
            self._greeting.pop(peer, None)

    async def _greet(self, connection: socket.socket) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(
                self._protocol,
                connection,
                ssl=self._certificate.context,
                ssl_handshake_timeout=self._handshake_s,
                ssl_shutdown_timeout=self._shutdown_s,
            )
        except OSError:
            # No TLS, none that is safe, none in time, or nobody there any more: the peer's affair.
            self._missed("handshake")
            connection.close()
        except asyncio.CancelledError:
            connection.close()
            raise
