"""Doors, certificates, a proxy, and names."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from backhaul_notifier.door.client import Door
from backhaul_notifier.door.names import LookupFailedError
from backhaul_notifier.door.outcome import Request
from backhaul_notifier.door.ranges import Address
from backhaul_notifier.door.settings import DoorSettings
from backhaul_testing.endpoints import LOOPBACK, Behaviour, Call, Endpoint, endpoint
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["LOOPBACK", "Behaviour", "Call", "Endpoint", "endpoint"]
"""What the tests have from here and is everybody's."""


class Hanging:
    """Names whose lookups end when the test ends, and known ones. Each call takes the next of a name's answers, and the
    last one stays."""

    def __init__(self, answers: Mapping[str, Sequence[Sequence[str]]]) -> None:
        self._answers = {name: list(given) for name, given in answers.items()}
        self.asked: list[str] = []
        self.hanging = asyncio.Event()
        self._never = asyncio.Event()

    async def addresses(self, host: str) -> Sequence[Address]:
        self.asked.append(host)
        if host.startswith("hang."):
            self.hanging.set()
            await self._never.wait()
        answers = self._answers.get(host)
        if not answers:
            raise LookupFailedError(f"DNS knows no address of {host}.")
        return [ip_address(one) for one in (answers.pop(0) if len(answers) > 1 else answers[0])]

    async def close(self) -> None:
        self._never.set()


@asynccontextmanager
async def door(
    resolver: Hanging | None = None, *, now: Callable[[], float] = time.time, **settings: object
) -> AsyncIterator[Door]:
    """One that may call loopback, by http."""
    given = {"notifier_plain_http": True, "notifier_allowed_networks": "127.0.0.0/8", **settings}
    made = Door(DoorSettings.model_validate(given), resolver=resolver or Hanging({}), now=now)
    try:
        yield made
    finally:
        await made.close()


def post(url: str, **more: object) -> Request:
    return Request(**{"method": "POST", "url": url, "body": b"{}", "timeout_s": 20.0, **more})  # type: ignore[arg-type]  # as each test has it


class ConnectProxy:
    """Tunnels by CONNECT, unless ``answer`` is what it says instead."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.answer: bytes | None = None
        self.port = 0
        self.hanging = asyncio.Event()
        self.ended = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def asked(self) -> list[str]:
        """What was to be connected to."""
        return [head.split(" ")[1] for head in self.heads]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            if self.answer is not None:
                writer.write(self.answer)
                await writer.drain()
                if not self.answer:
                    self.hanging.set()
                    await self.ended.wait()
                return
            host, _, port = head.split(" ")[1].rpartition(":")
            there = await asyncio.open_connection(host.strip("[]"), int(port))
            self._writers.add(there[1])
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = asyncio.create_task(self._pass(there[0], writer))
            self._tasks.add(back)
            await self._pass(reader, there[1])
            await back
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    @staticmethod
    async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()

    def close(self) -> None:
        self.ended.set()
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def connect_proxy() -> AsyncIterator[ConnectProxy]:
    made = ConnectProxy()
    server = await asyncio.start_server(made.serve, LOOPBACK, 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        made.close()


@dataclass(frozen=True)
class Issued:
    """PEM."""

    certificate: str
    key: str


class Authority:
    """An authority of its own, and what it issues."""

    def __init__(self, name: str = "Test authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        usage = x509.KeyUsage(
            digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        certificate = (
            self._begun(self._name, self._key, 1)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(self._identifier, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.pem = certificate.public_bytes(serialization.Encoding.PEM).decode()

    def issue(self, *names: str, days: int = 1) -> Issued:
        """A certificate for servers and clients, that ended long ago if ``days`` are below 0."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives: list[x509.GeneralName] = []
        for name in names:
            try:
                alternatives.append(x509.IPAddress(ip_address(name)))
            except ValueError:
                alternatives.append(x509.DNSName(name))
        certificate = (
            self._begun(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]), key, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._identifier), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Issued(certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode())

    def _begun(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
        end = datetime.now(UTC) + timedelta(days=days)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(end - timedelta(days=10))
            .not_valid_after(end)
        )


def server_tls(folder: Path, issued: Issued, clients: Authority | None = None) -> ssl.SSLContext:
    """A server's. ``clients``: whose certificates clients must show."""
    file = folder / "server.pem"
    file.write_text(issued.certificate + issued.key, "utf-8")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=clients.pem)
    return context
