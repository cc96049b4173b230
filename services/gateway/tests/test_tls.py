"""What is agreed on with clients of HTTPS, and peers that agree on nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from alone import Process, started
from backhaul_common.certificates import Files as CertificateFiles
from backhaul_gateway.web.tls import TlsDoor, server_context
from backhaul_local.ports import Hold
from backhaul_testing.authority import Authority, Files
from cryptography import x509
from structlog.testing import capture_logs

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
GREETING = b"welcome"


def serial(cert: Path | bytes) -> int:
    pem = cert if isinstance(cert, bytes) else cert.read_bytes()
    return x509.load_pem_x509_certificate(pem).serial_number


@dataclass
class Alone:
    """A gateway's process with HTTPS."""

    process: Process
    port: int
    authority: Authority
    peers: list[asyncio.StreamWriter] = field(default_factory=list)

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority.file))

    async def connect(self, context: ssl.SSLContext | None = None) -> Peer:
        async with asyncio.timeout(60):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context or self.context())
        self.peers.append(writer)
        return Peer(reader, writer)

    async def misses(self, count: int) -> None:
        """Return when so many handshakes have failed, as the gateway counts them: at the end of each."""
        async with asyncio.timeout(60):
            while await self.process.ended("handshake") < count:
                await asyncio.sleep(0.02)
        assert await self.process.ended("handshake") == count


@dataclass
class Peer:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def get(self) -> bytes:
        """The status of a request."""
        self.writer.write(GET)
        async with asyncio.timeout(60):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await self.reader.readexactly(length)
        return head[9:12]

    @property
    def tls(self) -> ssl.SSLObject:
        found: ssl.SSLObject = self.writer.get_extra_info("ssl_object")
        return found

    @property
    def serial(self) -> int:
        """Of the certificate that it was shown."""
        return x509.load_der_x509_certificate(self.tls.getpeercert(binary_form=True) or b"").serial_number


@asynccontextmanager
async def alone(
    tmp_path: Path, authority: Authority, files: Files, *, head_timeout_s: float = 20, max_connections: int = 4000
) -> AsyncIterator[Alone]:
    with Hold() as hold:
        (port,) = hold.choose(1)
        async with started(
            tmp_path,
            https_port=port,
            tls_cert_file=files.cert,
            tls_key_file=files.key,
            head_timeout_s=head_timeout_s,
            max_connections=max_connections,
        ) as process:
            gateway = Alone(process, port, authority)
            try:
                yield gateway
            finally:
                for writer in gateway.peers:
                    writer.transport.abort()
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()


@dataclass
class Opened:
    """A door of this process, behind which everybody is greeted."""

    port: int
    context: ssl.SSLContext
    missed: list[str]

    async def enter(self, host: str = "127.0.0.1") -> None:
        """Come from that address, agree, and be greeted."""
        async with self.connected(host) as (reader, writer):
            await self.agree(reader, writer)

    async def agree(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(60):
            await writer.start_tls(self.context, server_hostname="127.0.0.1")
            assert await reader.readexactly(len(GREETING)) == GREETING

    @asynccontextmanager
    async def connected(self, host: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(host, 0))
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


class Greeter(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(GREETING)


@asynccontextmanager
async def door_of(listener: socket.socket, authority: Authority, *, most: int = 512) -> AsyncIterator[Opened]:
    files = authority.issue("gateway")
    missed: list[str] = []
    with listener:
        listener.bind(("127.0.0.1", 0))
        certificate = CertificateFiles(server_context, *files)
        door = TlsDoor(listener, Greeter, certificate, missed.append, handshake_s=60, shutdown_s=60, most=most)
        door.open(64)
        context = ssl.create_default_context(cafile=str(authority.file))
        try:
            yield Opened(listener.getsockname()[1], context, missed)
        finally:
            await door.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # of another thread, which has no event
            await asyncio.sleep(0.02)


def test_only_ciphers_that_keep_the_past_secret_are_allowed(authority: Authority) -> None:
    """Whatever the key is: one of RSA could be used without a key of the connection's own."""
    context = server_context(*authority.issue("gateway"))
    ciphers = context.get_ciphers()
    assert {cipher["protocol"] for cipher in ciphers} == {"TLSv1.2", "TLSv1.3"}
    assert all(cipher["aead"] for cipher in ciphers)
    assert {cipher["kea"] for cipher in ciphers if cipher["protocol"] == "TLSv1.2"} == {"kx-ecdhe"}
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.slow
async def test_what_is_agreed_on(tmp_path: Path, authority: Authority) -> None:
    async with alone(tmp_path, authority, authority.issue("gateway")) as gateway:
        modern = gateway.context()
        modern.set_alpn_protocols(["h2", "http/1.1"])
        peer = await gateway.connect(modern)
        assert (peer.tls.version(), peer.tls.selected_alpn_protocol()) == ("TLSv1.3", "http/1.1")
        assert await peer.get() == b"200"
        older = gateway.context()
        older.maximum_version = ssl.TLSVersion.TLSv1_2
        peer = await gateway.connect(older)
        cipher, _, _ = peer.tls.cipher() or ("", "", 0)
        assert cipher.startswith("ECDHE-")
        assert cipher.endswith(("GCM-SHA256", "GCM-SHA384", "CHACHA20-POLY1305"))
        assert await peer.get() == b"200"
        # The certificate's key is elliptic: with it nothing but ECDHE could be agreed on, whatever was allowed.
        for count, ciphers in enumerate(("ECDHE+AES:!AESGCM:!AESCCM", "ECDHE+AESCCM", "aNULL:@SECLEVEL=0"), start=1):
            weak = gateway.context()
            weak.maximum_version = ssl.TLSVersion.TLSv1_2
            weak.set_ciphers(ciphers)
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await gateway.connect(weak)
            # It is the gateway that refuses it, and not this side, which would not even have asked.
            await gateway.misses(count)
        ancient = gateway.context()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            ancient.minimum_version = ssl.TLSVersion.TLSv1
            ancient.maximum_version = ssl.TLSVersion.TLSv1_1
        ancient.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await gateway.connect(ancient)
        await gateway.misses(4)


@pytest.mark.slow
async def test_a_new_certificate_is_shown_to_whoever_connects_next(tmp_path: Path, authority: Authority) -> None:
    """And open connections go on, with the old one."""
    files = authority.issue("gateway")
    async with alone(tmp_path, authority, files) as gateway:
        before, old = await gateway.connect(), serial(files.cert)
        assert before.serial == old
        assert await before.get() == b"200"
        authority.issue("gateway")
        new = serial(files.cert)
        assert new != old
        await until(lambda: bool(gateway.process.events("certificate_loaded")))
        after = await gateway.connect()
        assert after.serial == new
        assert await before.get() == await after.get() == b"200"
        # One that cannot be served changes nothing but a metric, and a line.
        files.cert.write_text("nothing")
        await until(lambda: bool(gateway.process.events("certificate_refused")))
        assert await gateway.process.metric("backhaul_certificate_refused") == 1
        assert (await gateway.connect()).serial == new
        assert await before.get() == b"200"
        assert (await gateway.process.get("/readyz")).json()["failing"].keys().isdisjoint({"certificate", "tls"})


@pytest.mark.slow
async def test_a_start_with_a_wrong_certificate_names_the_setting(tmp_path: Path, authority: Authority) -> None:
    files = authority.issue("gateway")
    files.key.write_bytes(authority.issue("another").key.read_bytes())
    with pytest.raises(AssertionError, match="BACKHAUL_GATEWAY_TLS_CERT_FILE: cannot serve the certificate"):
        async with alone(tmp_path, authority, files):
            pass


@pytest.mark.slow
async def test_peers_that_agree_on_nothing_take_nobodys_place(tmp_path: Path, authority: Authority) -> None:
    """Of 600 that only connect, or stop in the middle, the oldest give way; the others are ended in time."""
    async with alone(tmp_path, authority, authority.issue("gateway"), head_timeout_s=2, max_connections=64) as gateway:
        process, secure = gateway.process, gateway.port
        hello = bytes.fromhex("16030100c8010000c403")
        flood = []
        for number in range(600):
            reader, writer = await asyncio.open_connection("127.0.0.1", secure)
            writer.write(b"" if number % 2 else hello)
            flood.append((reader, writer))
            if number % 100 == 99:
                # Others are served meanwhile, by either port.
                assert await (await gateway.connect()).get() == b"200"
                assert (await process.get("/healthz")).status_code == 200

        async def ended(reader: asyncio.StreamReader) -> None:
            with contextlib.suppress(ConnectionError):
                await reader.read()

        async with asyncio.timeout(60):
            await asyncio.gather(*(ended(reader) for reader, _ in flood))
        for _, writer in flood:
            writer.close()
        assert await process.ended("handshake") + await process.ended("room") == len(flood)
        # They were no connections yet, of which there may be 64.
        assert await process.ended("refused") == 0
        assert await (await gateway.connect()).get() == b"200"
        assert process.events("connections_at_limit") == []


class Faulty(socket.socket):
    """A listener that fails once, by what nobody expects of it."""

    failed = False

    def accept(self) -> tuple[socket.socket, Any]:
        if not self.failed:
            self.failed = True
            raise RuntimeError("nobody expects this")
        return super().accept()


async def test_a_door_that_fails_is_opened_again(authority: Authority) -> None:
    async with door_of(Faulty(), authority) as door:
        with capture_logs() as logs:
            await door.enter()
    [line] = logs
    assert (line["event"], line["task"], line["log_level"]) == ("task_failed", "tls", "error")


async def test_whoever_has_most_handshakes_gives_way(authority: Authority) -> None:
    """And not whoever came first: one host that only connects, however often, shuts nobody out."""
    most, flood = 8, 40
    async with door_of(socket.socket(), authority, most=most) as door, contextlib.AsyncExitStack() as stack:
        honest = await stack.enter_async_context(door.connected("127.0.0.2"))
        silent = await stack.enter_async_context(door.connected("127.0.0.3"))
        crowd = [await stack.enter_async_context(door.connected("127.0.0.1")) for _ in range(flood)]
        await until(lambda: len(door.missed) >= 2 + flood - most)
        await door.agree(*honest)
        # Of those of one address the oldest; the newest of them are still waited for.
        for reader, _ in crowd[: 2 + flood - most]:
            async with asyncio.timeout(60):
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
        await door.agree(*crowd[-1])
        await door.agree(*silent)
        assert door.missed == ["room"] * (2 + flood - most)


@pytest.mark.slow
async def test_whoever_mistakes_the_port_is_told_or_let_go(tmp_path: Path, authority: Authority) -> None:
    async with alone(tmp_path, authority, authority.issue("gateway")) as gateway:
        process = gateway.process
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(GET)
        async with asyncio.timeout(60):
            with contextlib.suppress(ConnectionError):
                assert b"200 OK" not in await reader.read()
        writer.close()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", process.port, ssl=gateway.context())
        # Whoever goes in the middle of a handshake, or resets the connection.
        _, gone_one = await asyncio.open_connection("127.0.0.1", gateway.port)
        gone_one.write(b"\x16\x03\x01")
        gone_one.close()
        _, reset = await asyncio.open_connection("127.0.0.1", gateway.port)
        reset.transport.abort()
        # One that does not trust the certificate, and says so.
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", gateway.port, ssl=ssl.create_default_context())
        assert await (await gateway.connect()).get() == b"200"
        await gateway.misses(4)
        lines = process.log.read_text()
        assert "Traceback" not in lines
        assert '"level": "error"' not in lines.replace('"level":"error"', '"level": "error"')
        assert await process.metric("backhaul_gateway_connections") >= 1
