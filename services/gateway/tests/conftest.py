"""A gateway in this process, on a real port, with a real NATS and a real MongoDB behind it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import nats
import pytest
import uvicorn
from backhaul_channels import Adapter
from backhaul_common import logs
from backhaul_common.service import Service
from backhaul_common.tracing import Tracing
from backhaul_gateway.app import build
from backhaul_gateway.ingest.publisher import GroupCommitPublisher
from backhaul_gateway.settings import GatewaySettings
from backhaul_gateway.web.server import listen, server_of
from backhaul_local.mongod import MongoServer
from backhaul_local.nats_server import NatsServer
from backhaul_proto.callback.v1.callback_pb2 import Callback, CallbackBatch
from cryptography.fernet import Fernet
from nats.js.errors import NotFoundError
from pymongo import MongoClient

# Test folders are no packages: what several test files of this one share is found by its name.
sys.path.insert(0, str(Path(__file__).parent))

ADMIN_TOKEN = "admin-token-0123456789"
TWILIO_TOKEN = "twilio-auth-token"
FORM = {"MessageSid": "SM1", "MessageStatus": "delivered", "To": "+15558675310", "AccountSid": "AC1"}


def sign(url: str, fields: dict[str, str], token: str = TWILIO_TOKEN) -> str:
    """Twilio's signature of a form."""
    text = url + "".join(key + value for key, value in sorted(fields.items()))
    return base64.b64encode(hmac.new(token.encode(), text.encode(), hashlib.sha1).digest()).decode()


def problem_of(answer: httpx.Response, status: int, field: str | None = None) -> dict[str, Any]:
    """The problem document of an answer, after a look at its shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert {"type", "title", "detail", "code", "errors"} <= problem.keys()
    if field is not None:
        assert field in [error["field"] for error in problem["errors"]], problem
        assert all(error["fix"] for error in problem["errors"])
    return problem


async def status_of(reader: asyncio.StreamReader) -> int:
    """Read one answer of a connection, the body too, and return its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    await reader.readexactly(int(length[1]) if length else 0)
    return int(head[9:12])


@dataclass
class Tenant:
    """A registered tenant's credentials."""

    id: str
    api_key: str
    ingest_token: str


@dataclass
class Running:
    """A running gateway."""

    url: str
    client: httpx.AsyncClient
    settings: GatewaySettings
    publisher: GroupCommitPublisher
    server: uvicorn.Server
    mongo: MongoClient[dict[str, Any]]
    admin: dict[str, str] = field(default_factory=lambda: {"Authorization": f"Bearer {ADMIN_TOKEN}"})

    form = FORM
    secret = TWILIO_TOKEN
    # Test modules cannot import this file (it is one of many of its name), so its functions come with the fixture.
    sign = staticmethod(sign)
    problem = staticmethod(problem_of)
    status_of = staticmethod(status_of)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def tenants(self) -> Any:
        return self.mongo[self.settings.mongo_database]["tenants"]

    async def ready(self) -> None:
        await self.until_status("/readyz", lambda status: status == 200)

    async def until_status(
        self, path: str, wanted: Callable[[int], bool], headers: dict[str, str] | None = None
    ) -> None:
        """Ask until the status is one that is ``wanted``: seen from outside, there is nothing else to wait for."""
        async with asyncio.timeout(20):
            while not wanted((await self.client.get(path, headers=headers)).status_code):  # as above
                await asyncio.sleep(0.02)

    async def until_waiting(self, count: int) -> None:
        """Return when that many callbacks wait for JetStream."""
        async with asyncio.timeout(2.5):
            while self.publisher.waiting < count:  # a number of the publisher, which has no event
                await asyncio.sleep(0.01)

    async def tenant(self, tenant_id: str = "acme", *, queue_path: str = "", **body: Any) -> Tenant:
        answer = await self.client.post(
            "/admin/v1/tenants",
            headers=self.admin,
            json={"id": tenant_id, "name": tenant_id, "queue_path": queue_path or tenant_id, **body},
        )
        assert answer.status_code == 201, answer.text
        made = answer.json()
        return Tenant(made["id"], made["api_key"], made["ingest_token"])

    async def channel(self, tenant_id: str = "acme", label: str = "Twilio", **body: Any) -> httpx.Response:
        answer = await self.client.put(
            f"/admin/v1/tenants/{tenant_id}/channels/{label}",
            headers=self.admin,
            json={"secrets": [TWILIO_TOKEN], **body},
        )
        assert answer.status_code in (200, 201), answer.text
        return answer

    async def post(
        self,
        tenant: Tenant | None,
        path: str = "/api/postevents?channelLabel=Twilio",
        form: dict[str, str] | None = None,
        *,
        signature: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """A callback as Twilio posts it, signed unless a signature is given."""
        fields = FORM if form is None else form
        return await self.client.post(
            path,
            content=urlencode(fields),
            headers={
                "Content-Type": "application/x-www-form-urlencoded",
                "X-Twilio-Signature": sign(self.url + path, fields) if signature is None else signature,
                **({"X-Api-Key": tenant.api_key} if tenant is not None else {}),
                **(headers or {}),
            },
        )

    async def stored(self) -> list[list[Callback]]:
        """The stream's messages, each with its callbacks."""
        client = await nats.connect(self.settings.nats_url.split(","))
        try:
            js = client.jetstream()
            state = (await js.stream_info("CALLBACKS")).state
            found: list[list[Callback]] = []
            if not state.messages:
                return found
            for seq in range(state.first_seq, state.last_seq + 1):
                try:
                    message = await js.get_msg("CALLBACKS", seq)
                except NotFoundError:
                    continue  # A trial of the gateway's, which it deletes again.
                found.append(list(CallbackBatch.FromString(message.data or b"").callbacks))
            return found
        finally:
            await client.close()

    async def raw(self, data: bytes, *, half_close: bool = False) -> bytes:
        """Write bytes to the port and read until the server hangs up or is silent for half a second."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        answer = b""
        try:
            writer.write(data)
            await writer.drain()
            if half_close:
                writer.write_eof()
            async with asyncio.timeout(0.5):
                while chunk := await reader.read(65536):
                    answer += chunk
        except (TimeoutError, ConnectionError):
            pass
        finally:
            writer.close()
        return answer


GatewayFactory = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def gateway_factory(mongo_server: MongoServer, mongo_database: str, monkeypatch: pytest.MonkeyPatch) -> GatewayFactory:
    """``async with gateway_factory(nats_url) as gateway``: the keyword arguments are settings."""
    # A test that looks at log lines has structlog capture them, which setting up logging would end.
    monkeypatch.setattr(logs, "configure", lambda *_, **__: None)

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
                "gateway_shutdown_grace_s": 2,
                # One line a request would bury what a failed test has to say.
                "log_level": "warning",
                **overrides,
            }
        )
        async with Service(
            "gateway", settings, buffer_while_away=False, tenant_secrets=True, tracing=tracing
        ) as service:
            listeners = listen(service.stack, settings)
            url = f"http://127.0.0.1:{listeners[0].getsockname()[1]}"
            gateway = build(
                service, settings, public_base_url=settings.gateway_public_base_url or url, adapters=adapters
            )
            server = server_of(gateway.app, settings, gateway.connections)
            serving = asyncio.create_task(server.serve(listeners))
            service.start()
            mongo: MongoClient[dict[str, Any]] = service.stack.enter_context(MongoClient(mongo_server.uri))
            limits = httpx.Limits(max_connections=300, max_keepalive_connections=300)
            async with httpx.AsyncClient(base_url=url, timeout=20, limits=limits) as client:
                running = Running(url, client, settings, gateway.publisher, server, mongo)
                try:
                    if wait:
                        await running.ready()
                    yield running
                finally:
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
