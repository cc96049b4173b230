"""Everything speaks TLS with certificates of one authority, and under no more rights than its own certificate gives."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import nats.errors
import pytest
import rights
import servers
from backhaul_client import AsyncAdminClient
from backhaul_common import mongo, names
from backhaul_common.jetstream import Connection
from backhaul_common.settings import CommonSettings
from backhaul_common.tls import ClientContext
from backhaul_local.certificates import (
    authority_path,
    certificate_and_key,
    certificate_path,
    client_context,
    ensure_certificates,
    key_path,
)
from backhaul_local.demo import show
from backhaul_local.demo_audit import ENV
from backhaul_local.demo_reconciliation import origins
from backhaul_local.demo_screen import Screen
from backhaul_local.demo_story import Story
from backhaul_local.files import write_private
from backhaul_local.mongod import MongoConfig, MongoServer
from backhaul_local.nats_server import NatsConfig, NatsServer, tls_of_nats
from backhaul_local.ports import accepts_connections
from backhaul_local.scratch import scratch
from backhaul_local.stack import Stack, StackConfig
from backhaul_proto.tenantdata.v1.tenantdata_pb2 import PurgeTenantRequest
from backhaul_proto.tenantdata.v1.tenantdata_pb2_grpc import TenantDataServiceStub
from backhaul_testing.apis.twilio import TwilioApi
from backhaul_testing.receiver import Receiver
from backhaul_testing.waiting import until
from pymongo import MongoClient
from pymongo.errors import OperationFailure

pytestmark = [pytest.mark.slow, pytest.mark.servers]

PASSWORDS = {name: f"password-of-{name}" for name in (*rights.SERVICES, servers.ADMIN)}
DATABASE = "backhaul"
GRPC = ("normalizer", "suppression", "audit", "reconciler", "notifier")


class MongoWithCertificates(MongoServer):
    """It is neither a replica set nor has any user yet."""

    def probe(self) -> str | None:
        return None if accepts_connections(self.port) else "no connection"


class NatsWithCertificates(NatsServer):
    def _config_text(self) -> str:
        assert self.config.tls_dir is not None
        store = str(self.config.data_dir / "jetstream")
        tls = tls_of_nats(self.config.tls_dir, maps=True)
        return rights.nats_config(PASSWORDS, listen=f"127.0.0.1:{self.port}", store=store, tls=tls)

    def probe(self) -> str | None:
        return None if accepts_connections(self.port) else "no connection"


class Site:
    """A stack with TLS everywhere, and strangers with certificates of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tls = folder / "stack" / "tls"
        ensure_certificates(self.tls, ("mongo", "probe", *rights.SERVICES), servers=("nats", "s3"))
        self.strangers = folder / "strangers"
        ensure_certificates(self.strangers, rights.SERVICES)
        # What was valid once, of the right authority.
        self.expired = folder / "expired"
        self.expired.mkdir()
        for name in ("ca.pem", "ca.key"):
            write_private(self.expired / name, (self.tls / name).read_text())
        ensure_certificates(self.expired, rights.SERVICES, valid=timedelta(minutes=-1))
        self.mongo = MongoWithCertificates(
            MongoConfig(data_dir=folder / "mongo", password="any: it makes mongod ask", tls_dir=self.tls)
        )
        self.nats = NatsWithCertificates(NatsConfig(data_dir=folder / "nats", tls_dir=self.tls))
        self.api = TwilioApi()
        own = {
            name: {
                "BACKHAUL_MONGO_URI": self.mongo_uri,
                "BACKHAUL_NATS_URL": self.nats_url(name),
                "BACKHAUL_TLS_SERVERS": "nats,mongodb,object-store",
            }
            for name in rights.SERVICES
        }
        own["audit"] |= ENV
        own["reconciler"] |= origins(self.api)
        self.stack = Stack(
            StackConfig(
                data_dir=folder / "stack",
                nats_url=self.nats.uri,
                mongo_uri=self.mongo_uri,
                service_env=own,
                log_level="info",
                start_timeout=300,
                tls=True,
            )
        )

    @property
    def mongo_uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.mongo.port}/?replicaSet=rs0&authMechanism=MONGODB-X509"

    def nats_url(self, service: str) -> str:
        return f"nats://{service}:{PASSWORDS[service]}@127.0.0.1:{self.nats.port}"

    def start_servers(self) -> None:
        self.mongo.start_blocking()
        self.nats.start_blocking()
        both = self.folder / "both.pem"
        write_private(both, certificate_and_key(self.tls, "probe"))
        options = {"tlsCAFile": str(authority_path(self.tls)), "tlsCertificateKeyFile": str(both)}
        for again in (False, True):
            servers.prepare_mongo(self.mongo.port, f"127.0.0.1:{self.mongo.port}", DATABASE, PASSWORDS, options)
            if not again:  # As an installation has it that had no TLS before.
                with servers._client(self.mongo.port, options, PASSWORDS[servers.ADMIN]) as admin:
                    admin.admin.command("createUser", "gateway", pwd=PASSWORDS["gateway"], roles=["backhaul-gateway"])

    def settings(self, folder: Path, service: str) -> CommonSettings:
        """Those of a client that shows what lies in ``folder``, and believes this site's authority."""
        return CommonSettings(
            grpc_tls_cert_file=certificate_path(folder, service),
            grpc_tls_key_file=key_path(folder, service),
            grpc_tls_ca_file=authority_path(self.tls),
            tls_servers="nats,mongodb",
        )

    def ports(self) -> dict[str, int]:
        """Of all that speaks TLS; S3 asks clients for no certificate, as tenants follow links."""
        assert self.stack.s3 is not None
        services = {name: self.stack.port(name, "grpc") for name in GRPC}
        return {"nats": self.nats.port, "mongo": self.mongo.port, "s3": self.stack.s3.port, **services}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with scratch() as folder:
        made = Site(folder)
        try:
            made.start_servers()
            asyncio.run(made.stack.start())
            yield made
        finally:
            asyncio.run(made.stack.kill_all())
            made.nats.kill_blocking()
            made.mongo.kill_blocking()


async def test_everything_works(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo, with all its checks, while nobody was refused anything."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority_path(site.tls)))  # The demo's own look into the bucket.
    assert site.stack.object_store is not None
    with site.api:
        async with Receiver() as receiver, httpx.AsyncClient(timeout=60.0, verify=client_context(site.tls)) as http:
            platform = AsyncAdminClient(site.stack.gateway_url, site.stack.admin_token, http=http)
            store = site.stack.object_store
            checks = await show(Story(site.stack.gateway_url, http, platform, store, site.api, receiver), Screen())
    logs = [site.nats.log_path, *(site.folder / "stack" / "logs").glob("*.log")]
    said = "".join(path.read_text() for path in logs)
    # How soon says how busy the machine is.
    assert [check for check in checks if not check.holds and not check.expected.startswith("within")] == []
    refused = re.findall(r"^.*(?:[Vv]iolation|not authorized|requires authentication).*$", said, re.MULTILINE)
    assert refused == []


HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
_BODY = b"\x10hello\0\1\0\0\0\2$db\0\6\0\0\0admin\0\0"
_DOCUMENT = (len(_BODY) + 4).to_bytes(4, "little") + _BODY
_MESSAGE = (1).to_bytes(4, "little") + bytes(4) + (2013).to_bytes(4, "little") + bytes(4) + b"\0" + _DOCUMENT
FIRST_WORDS = {
    "nats": b'CONNECT {"verbose":false}\r\nPING\r\n',
    "mongo": (len(_MESSAGE) + 4).to_bytes(4, "little") + _MESSAGE,
    "s3": b"GET / HTTP/1.0\r\n\r\n",
}
"""By which each protocol gets an answer; what is not here speaks gRPC."""


def answer(site: Site, server: str, context: ssl.SSLContext | None) -> bytes:
    """What ``server`` says to who speaks first, with ``context`` over TLS; OSError where it breaks the connection off,
    and EOFError where it ends it without a word."""
    with socket.create_connection(("127.0.0.1", site.ports()[server]), timeout=60) as plain:
        if server == "nats":
            plain.makefile("rb", buffering=0).readline()  # It greets in plain words, and demands TLS then.
        if context is not None and server in GRPC:
            context.set_alpn_protocols(["h2"])
        over = plain if context is None else context.wrap_socket(plain, server_hostname="127.0.0.1")
        with over:
            over.sendall(FIRST_WORDS.get(server, HTTP2))
            if said := over.recv(4096):
                return said
            raise EOFError


def shows(site: Site, folder: Path | None, name: str) -> ssl.SSLContext:
    """Of a client that believes this site's authority, and shows the certificate of ``name`` in ``folder``."""
    context = ssl.create_default_context(cafile=authority_path(site.tls))
    if folder is not None:
        context.load_cert_chain(certificate_path(folder, name), key_path(folder, name))
    return context


@pytest.mark.parametrize("server", ["nats", "mongo", *GRPC])
def test_who_has_no_good_certificate_is_refused(site: Site, server: str) -> None:
    assert answer(site, server, shows(site, site.tls, "audit"))
    for folder, name in (
        (None, ""),
        (site.strangers, "audit"),
        (site.expired, "audit"),
        (site.tls, "nats"),  # A server's, which is no client.
    ):
        with pytest.raises((OSError, EOFError)) as caught:
            answer(site, server, shows(site, folder, name))
        assert not isinstance(caught.value, TimeoutError), (folder, name)


@pytest.mark.parametrize("server", ["nats", "mongo", "s3", *GRPC])
def test_plain_words_are_not_answered(site: Site, server: str) -> None:
    try:
        said = answer(site, server, None)
    except (ConnectionError, EOFError):
        return
    # Some say in words what is wrong.
    assert said.startswith(b"HTTP/1.0 400" if server == "s3" else b"-ERR" if server == "nats" else b"\x15"), said


def test_no_service_takes_the_certificate_of_another_for_a_servers(site: Site) -> None:
    """Each server's certificate has its own name, by which clients know it."""
    for server in ("s3", *GRPC):
        context = shows(site, site.tls, "gateway")
        with (
            socket.create_connection(("127.0.0.1", site.ports()[server]), timeout=60) as plain,
            pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"),
        ):
            context.wrap_socket(plain, server_hostname="mongo")


async def test_a_certificate_of_no_service_opens_nothing(site: Site) -> None:
    context = shows(site, site.tls, "probe")
    client = Connection()
    with pytest.raises(nats.errors.Error, match="Authorization"):
        await client.connect(site.nats_url("gateway"), tls=context, allow_reconnect=False)
    connected = mongo.connect(site.mongo_uri, tls=context)
    with pytest.raises(OperationFailure) as caught:
        await connected[DATABASE][names.TENANTS_COLLECTION].find_one()
    assert caught.value.code in (11, 18)
    connected.close()
    pair = [path(site.tls, "probe").read_bytes() for path in (key_path, certificate_path)]
    credentials = grpc.ssl_channel_credentials(authority_path(site.tls).read_bytes(), *pair)
    for name in GRPC:
        options = [("grpc.enable_http_proxy", 0)]
        async with grpc.aio.secure_channel(f"127.0.0.1:{site.ports()[name]}", credentials, options) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await TenantDataServiceStub(channel).PurgeTenant(PurgeTenantRequest(tenant_id="acme"), timeout=60)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED, name


@pytest.mark.parametrize("service", rights.SERVICES)
async def test_a_certificate_opens_what_is_its_services(site: Site, service: str) -> None:
    client = mongo.connect(site.mongo_uri, tls=ClientContext(site.settings(site.tls, service)))
    database = client[DATABASE]
    allowed = {*rights.RIGHTS[service].collections, *rights.COMMON_READS, names.META_COLLECTION}
    for collection in sorted(allowed):
        await database[collection].find_one()
    for collection in sorted(names.STORE_COLLECTIONS - allowed):
        with pytest.raises(OperationFailure, match="not authorized"):
            await database[collection].find_one()
    client.close()


@pytest.mark.parametrize("password", ["audit", "gateway"])
async def test_a_certificate_and_a_password_are_of_one_service(site: Site, password: str) -> None:
    """Who has the gateway's password, and not its certificate, stores no callbacks."""
    context = shows(site, site.tls, "audit")
    client = Connection()
    if password == "audit":
        await client.connect(site.nats_url(password), tls=context, allow_reconnect=False)
        await client.flush()
        await client.close()
        return
    with pytest.raises(nats.errors.Error, match="Authorization"):
        await client.connect(site.nats_url(password), tls=context, allow_reconnect=False)
    with_password: MongoClient[dict[str, Any]] = MongoClient(
        "127.0.0.1",
        site.mongo.port,
        username=password,
        password=PASSWORDS[password],
        tls=True,
        tlsCAFile=str(authority_path(site.tls)),
        tlsCertificateKeyFile=str(site.folder / "both.pem"),
    )
    with with_password, pytest.raises(OperationFailure, match="Authentication failed"):
        with_password[DATABASE].list_collection_names()


async def test_renewed_certificates_are_taken_up(site: Site) -> None:
    """By services with their next connection; by the servers with a restart, and everybody finds back."""
    before = {name: shown_by(site, name) for name in GRPC}
    ensure_certificates(site.tls, ("mongo", "probe", *rights.SERVICES), servers=("nats", "s3"), renew=True)
    for name in GRPC:
        shown = shown_by(site, name)
        assert shown != before[name], name
        assert shown == ssl.PEM_cert_to_DER_cert(certificate_path(site.tls, name).read_text()), name
    said = {service.name: service.log_path.stat().st_size for service in site.stack.services}
    for server in (site.nats, site.mongo):
        await server.restart()

    async def found_back() -> bool:
        return all(
            b"nats_reconnected" in service.log_path.read_bytes()[said[service.name] :]
            for service in site.stack.services
        )

    await until("all are connected to NATS again", found_back)
    await asyncio.gather(*(service.wait_ready() for service in site.stack.services))


def shown_by(site: Site, service: str) -> bytes:
    context = shows(site, site.tls, "gateway")
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", site.ports()[service]), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname=service) as encrypted,
    ):
        shown = encrypted.getpeercert(binary_form=True)
        assert shown is not None
        return shown
