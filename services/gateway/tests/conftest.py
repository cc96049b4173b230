"""A gateway in this process, on a real port, with a real NATS and a real MongoDB behind it."""

from __future__ import annotations

import asyncio
import secrets
import ssl
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn.server
from backhaul_channels import Adapter
from backhaul_common import logs
from backhaul_common.metering import Metrics
from backhaul_common.service import Service
from backhaul_common.tracing import Tracing
from backhaul_gateway.admission import attempts, strangers
from backhaul_gateway.app import build
from backhaul_gateway.settings import GatewaySettings
from backhaul_gateway.web.server import listen, server_of
from backhaul_local.mongod import MongoServer
from backhaul_local.nats_server import NatsServer
from backhaul_testing.authority import Authority
from cryptography.fernet import Fernet
from pymongo import MongoClient

# Test folders are no packages: what several test files of this one share is found by its name.
sys.path.insert(0, str(Path(__file__).parent))

from analysed_once import analysed_once  # found by the line above
from communication_rig import CommunicationRig, communicating
from gateway_rig import ADMIN_TOKEN, GatewayFactory, Running
from suppression_rig import Rig, suppressing

_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of plain HTTP: each would read the system's certificates, which takes longer than many a test."""


class _Brisk:
    """asyncio, with a tenth of each sleep, for uvicorn."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 10)


@pytest.fixture(scope="session", autouse=True)
def _analysed_once() -> Iterator[None]:
    with analysed_once():
        yield


@pytest.fixture
def gateway_factory(
    mongo_server: MongoServer,
    mongo_database: str,
    mongo_client: MongoClient[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> GatewayFactory:
    """``async with gateway_factory(nats_url) as gateway``: the keyword arguments are settings."""
    # A test that looks at log lines has structlog capture them, which setting up logging would end.
    monkeypatch.setattr(logs, "configure", lambda *_, **__: None)
    # MongoDB is shared with other tests, and may take as long as a gateway would not wait.
    monkeypatch.setattr(strangers, "TIMEOUT_S", 10.0)
    # uvicorn looks ten times a second whether it shall end, and waits as long when it does.
    monkeypatch.setattr(uvicorn.server, "asyncio", _Brisk())
    # Tests show wrong credentials by the hundred, and from one address.
    monkeypatch.setattr(attempts, "PAUSE_S", 0.0)

    @asynccontextmanager
    async def create(
        nats_url: str,
        *,
        wait: bool = True,
        tracing: Tracing | None = None,
        adapters: Mapping[str, Adapter[Any]] | None = None,
        **overrides: Any,
    ) -> AsyncIterator[Running]:
        settings = GatewaySettings(
            **{
                "nats_url": nats_url,
                "mongo_uri": mongo_server.uri,
                "mongo_database": mongo_database,
                "gateway_port": 0,
                "gateway_admin_token": ADMIN_TOKEN,
                "secret_keys": Fernet.generate_key().decode(),
                "gateway_normalizer_target": "127.0.0.1:9",
                "gateway_suppression_target": "127.0.0.1:9",
                "gateway_audit_target": "127.0.0.1:9",
                "gateway_reconciler_target": "127.0.0.1:9",
                "gateway_notifier_target": "127.0.0.1:9",
                "gateway_shutdown_grace_s": 2,
                "gateway_leave_s": 0,
                # One line a request would bury what a failed test has to say.
                "log_level": "warning",
                **overrides,
            }
        )
        async with Service(
            "gateway", settings, buffer_while_away=False, tenant_secrets=True, tracing=tracing
        ) as service:
            listeners = listen(service, settings)
            # Most tests call by plain HTTP, and those of TLS have clients of their own.
            url = f"http://127.0.0.1:{listeners.http_port}"
            gateway = build(service, settings, origins=listeners.origins, adapters=adapters)
            server = server_of(gateway.app, settings, gateway.connections, listeners)
            serving = asyncio.create_task(server.serve(listeners.all))
            service.start()
            limits = httpx.Limits(max_connections=300, max_keepalive_connections=300)
            async with httpx.AsyncClient(base_url=url, timeout=20, limits=limits, verify=_NO_TLS) as client:
                running = Running(url, client, settings, gateway.publisher, server, mongo_client, listeners)
                try:
                    if wait:
                        await running.ready()
                    yield running
                finally:
                    gateway.streams.close()
                    server.should_exit = True
            await serving

    return create


@pytest.fixture
async def gateway(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> AsyncIterator[Running]:
    """A ready gateway with an empty stream and no tenants."""
    async with gateway_factory(fresh_nats.uri) as running:
        yield running


@pytest.fixture
def unique() -> str:
    return secrets.token_hex(4)


@pytest.fixture
async def rig(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> AsyncIterator[Rig]:
    """A gateway over a suppression service of the test's own."""
    async with suppressing(gateway_factory, fresh_nats.uri) as found:
        yield found


@pytest.fixture
async def told(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> AsyncIterator[CommunicationRig]:
    """A gateway over communications of the test's own."""
    async with communicating(gateway_factory, fresh_nats.uri) as found:
        yield found


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """It signs the certificates that a gateway shows."""
    return Authority(tmp_path)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("gateway")
