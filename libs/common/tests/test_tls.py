"""Certificates towards servers: what is shown, whom is believed, and what happens when files are replaced."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import nats.errors
import pytest
from backhaul_common import jetstream, mongo, rpc
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.jetstream import Connection
from backhaul_common.lifecycle import cancel
from backhaul_common.settings import CommonSettings, MongoSettings, NatsSettings, ObjectStoreSettings
from backhaul_common.tls import ClientContext
from backhaul_common.tracing import Tracing
from backhaul_local.certificates import authority_path, certificate_path, ensure_certificates, key_path
from backhaul_local.mongod import MongoServer
from backhaul_local.nats_server import NatsServer
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import SecretStr, ValidationError
from pymongo.errors import ServerSelectionTimeoutError

NAMES = ("audit", "server")


def files(folder: Path) -> dict[str, Any]:
    return {
        "grpc_tls_cert_file": certificate_path(folder, "audit"),
        "grpc_tls_key_file": key_path(folder, "audit"),
        "grpc_tls_ca_file": authority_path(folder),
    }


@dataclass
class Listener:
    """A server that asks for certificates, and ends each connection when it has seen one."""

    port: int = 0
    shown: list[bytes] = field(default_factory=list)
    seen: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def take(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with self.seen:
            self.shown.append(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
            self.seen.notify_all()
        writer.transport.abort()  # Otherwise it would wait for the other side's farewell, beyond the test's end.

    async def nth(self, number: int) -> bytes:
        async with self.seen, asyncio.timeout(60):
            await self.seen.wait_for(lambda: len(self.shown) >= number)
        return self.shown[-1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ensure_certificates(tmp_path / "tls", NAMES)
    return tmp_path / "tls"


@pytest.fixture
async def listener(folder: Path) -> AsyncIterator[Listener]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority_path(folder))
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(certificate_path(folder, "server"), key_path(folder, "server"))
    made = Listener()
    async with await asyncio.start_server(made.take, "127.0.0.1", 0, ssl=context) as server:
        made.port = server.sockets[0].getsockname()[1]
        yield made


async def visit(listener: Listener, context: ssl.SSLContext) -> None:
    number = len(listener.shown) + 1
    _, writer = await asyncio.open_connection("127.0.0.1", listener.port, ssl=context, server_hostname="server")
    await listener.nth(number)
    writer.transport.abort()


def now(folder: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate_path(folder, "audit").read_text())


async def test_the_next_connection_shows_the_renewed_certificate(folder: Path, listener: Listener) -> None:
    context = ClientContext(CommonSettings(**files(folder)))
    await visit(listener, context)
    first = await listener.nth(1)
    assert first == now(folder)
    ensure_certificates(folder, ["audit"], renew=True)
    await visit(listener, context)
    assert await listener.nth(2) == now(folder) != first


async def test_a_certificate_without_its_key_leaves_what_there_was(folder: Path, listener: Listener) -> None:
    context = ClientContext(CommonSettings(**files(folder)))
    first, key = now(folder), key_path(folder, "audit").read_bytes()
    ensure_certificates(folder, ["audit"], renew=True)
    renewed = key_path(folder, "audit").read_bytes()
    key_path(folder, "audit").write_bytes(key)  # As if it were still to be replaced.
    await visit(listener, context)
    assert await listener.nth(1) == first
    key_path(folder, "audit").unlink()
    await visit(listener, context)
    assert await listener.nth(2) == first
    key_path(folder, "audit").write_bytes(renewed)
    await visit(listener, context)
    assert await listener.nth(3) == now(folder)


async def test_a_certificate_that_is_over_leaves_one_that_is_valid(folder: Path, listener: Listener) -> None:
    context, first = ClientContext(CommonSettings(**files(folder))), now(folder)
    ensure_certificates(folder, ["audit"], renew=True, valid=timedelta(seconds=-1))
    await visit(listener, context)
    assert await listener.nth(1) == first != now(folder)


async def test_an_authority_that_was_replaced_is_not_believed_any_more(
    folder: Path, listener: Listener, tmp_path: Path
) -> None:
    context = ClientContext(CommonSettings(**files(folder)))
    await visit(listener, context)
    ensure_certificates(tmp_path / "other", NAMES)
    for path in (tmp_path / "other").iterdir():
        shutil.copy(path, folder)
    with pytest.raises(ssl.SSLCertVerificationError):
        await visit(listener, context)


async def test_a_server_of_another_name_is_not_believed(folder: Path, listener: Listener) -> None:
    context = ClientContext(CommonSettings(**files(folder)))
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        await asyncio.open_connection("127.0.0.1", listener.port, ssl=context, server_hostname="audit")
    assert listener.shown == []


async def test_a_grpc_channel_shows_the_renewed_certificate(folder: Path, listener: Listener) -> None:
    async with rpc.connect(f"127.0.0.1:{listener.port}", CommonSettings(**files(folder))) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for number, renew in enumerate((False, True), 1):
            ensure_certificates(folder, ["audit"], renew=renew)
            with pytest.raises(BackhaulError) as caught:
                await stub.Check(health_pb2.HealthCheckRequest(), timeout=60)
            assert caught.value.code is Code.UNAVAILABLE
            assert await listener.nth(number) == now(folder)
            async with listener.seen:
                listener.shown[number:] = []  # It may have been tried once more.


async def test_traces_are_exported_with_a_certificate(
    folder: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenTelemetry's own variables are enough."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name, value in {
        "ENDPOINT": f"https://127.0.0.1:{listener.port}",
        "CERTIFICATE": str(authority_path(folder)),
        "CLIENT_CERTIFICATE": str(certificate_path(folder, "audit")),
        "CLIENT_KEY": str(key_path(folder, "audit")),
    }.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
    tracing = Tracing.from_environment("audit")
    with tracing.span("work"):
        pass
    closing = asyncio.create_task(asyncio.to_thread(tracing.close))
    assert await listener.nth(1) == now(folder)
    await closing


async def test_nats_without_tls_is_refused(folder: Path, nats_server: NatsServer) -> None:
    settings = NatsSettings(nats_url=nats_server.uri, tls_servers="nats", **files(folder))
    client = Connection()
    connecting = asyncio.create_task(jetstream.connect(settings, "test", client=client))
    async with asyncio.timeout(60):
        while client.last_error is None:
            await asyncio.sleep(0.01)
    with pytest.raises(ConnectionError, match="does not demand TLS"):
        jetstream.require_connected(client)
    await cancel(connecting)
    await client.close()
    bare = Connection()
    with pytest.raises(nats.errors.Error, match="does not demand TLS"):
        await bare.connect(nats_server.uri.replace("nats://", "tls://"), allow_reconnect=False)
    await bare.close()


async def test_mongodb_without_tls_is_refused(folder: Path, mongo_server: MongoServer) -> None:
    client = mongo.connect(mongo_server.uri, timeout_ms=1000, tls=ClientContext(CommonSettings(**files(folder))))
    with pytest.raises(ServerSelectionTimeoutError):
        await client.admin.command("ping")
    client.close()


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (NatsSettings, {"tls_servers": "nats,kafka"}, "no server kafka; there are nats, mongodb, object-store"),
        (
            MongoSettings,
            {"tls_servers": "mongodb", "mongo_uri": SecretStr("mongodb://a/?replicaSet=rs0&tlsInsecure=true")},
            "BACKHAUL_MONGO_URI has options for TLS",
        ),
        (
            ObjectStoreSettings,
            {
                "tls_servers": "object-store",
                "object_store_endpoint": "http://minio:9000",
                "object_store_access_key": SecretStr("a"),
                "object_store_secret_key": SecretStr("b"),
            },
            "must begin with https://",
        ),
    ],
)
def test_settings_that_contradict_each_other_stop_the_start(
    kind: type[NatsSettings], given: dict[str, Any], said: str, folder: Path
) -> None:
    with pytest.raises(ValidationError, match=said):
        kind(**files(folder), **given)


def test_tls_needs_a_certificate() -> None:
    with pytest.raises(ValidationError, match="BACKHAUL_TLS_SERVERS needs BACKHAUL_GRPC_TLS_CERT_FILE"):
        NatsSettings(tls_servers="nats")


def test_a_mongo_uri_may_say_that_there_is_tls(folder: Path) -> None:
    uri = SecretStr("mongodb://a/?tls=true&authMechanism=MONGODB-X509")
    assert MongoSettings(tls_servers="mongodb", mongo_uri=uri, **files(folder)).servers_with_tls() == {"mongodb"}
