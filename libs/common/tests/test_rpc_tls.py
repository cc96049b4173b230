"""TLS with certificates of both sides."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from backhaul_common import rpc
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.lifecycle import Readiness
from backhaul_common.settings import CommonSettings
from backhaul_common.tracing import Tracing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc


class Authority:
    """A certificate authority of this test's own."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = folder / f"{name}.pem"
        certificate = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, name: str, address: str = "127.0.0.1", *, dns: Sequence[str] = (), uris: Sequence[str] = ()
    ) -> CommonSettings:
        """The settings of a service whose certificate this authority signed."""
        names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(address))]
        names += [x509.DNSName(one) for one in dns] + [x509.UniformResourceIdentifier(one) for one in uris]
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key.public_key())
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        cert_file, key_file = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return CommonSettings(grpc_tls_cert_file=cert_file, grpc_tls_key_file=key_file, grpc_tls_ca_file=self.file)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(hours=1))
        )


@dataclass
class Secured:
    """A server with TLS."""

    target: str
    authority: Authority


@pytest.fixture
async def secured(tmp_path: Path) -> AsyncIterator[Secured]:
    authority = Authority(tmp_path, "authority")
    async with AsyncExitStack() as stack:
        server = await rpc.serve(
            stack,
            authority.issue("server"),
            Tracing("test", None),
            Readiness(),
            listen="127.0.0.1:0",
            services=[],
            register=lambda _: None,
        )
        yield Secured(f"127.0.0.1:{server.port}", authority)


async def check(channel: grpc.aio.Channel) -> int:
    async with channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
    return int(answer.status)


async def test_a_client_with_a_certificate_is_served(secured: Secured) -> None:
    status = await check(rpc.connect(secured.target, secured.authority.issue("client")))
    assert status in (health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING)


async def test_a_client_without_tls_is_refused(secured: Secured) -> None:
    with pytest.raises(BackhaulError) as caught:
        await check(rpc.connect(secured.target, CommonSettings()))
    assert caught.value.code is Code.UNAVAILABLE


async def test_a_client_without_a_certificate_is_refused(secured: Secured) -> None:
    credentials = grpc.ssl_channel_credentials(root_certificates=secured.authority.file.read_bytes())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await check(grpc.aio.secure_channel(secured.target, credentials))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_client_of_another_authority_is_refused(secured: Secured, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    stranger = Authority(folder, "stranger").issue("client")
    # It trusts the server; the server does not trust it.
    settings = stranger.model_copy(update={"grpc_tls_ca_file": secured.authority.file})
    with pytest.raises(BackhaulError) as caught:
        await check(rpc.connect(secured.target, settings))
    assert caught.value.code is Code.UNAVAILABLE


async def test_a_server_of_another_authority_is_refused(secured: Secured, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    other = Authority(folder, "other")
    settings = secured.authority.issue("client").model_copy(update={"grpc_tls_ca_file": other.file})
    with pytest.raises(BackhaulError) as caught:
        await check(rpc.connect(secured.target, settings))
    assert caught.value.code is Code.UNAVAILABLE


async def test_a_server_of_another_name_is_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    async with AsyncExitStack() as stack:
        server = await rpc.serve(
            stack,
            authority.issue("server", "192.0.2.1"),
            Tracing("test", None),
            Readiness(),
            listen="127.0.0.1:0",
            services=[],
            register=lambda _: None,
        )
        with pytest.raises(BackhaulError) as caught:
            await check(rpc.connect(f"127.0.0.1:{server.port}", authority.issue("client")))
    assert caught.value.code is Code.UNAVAILABLE
