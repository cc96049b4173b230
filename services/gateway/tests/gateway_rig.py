"""What the gateway's tests share: a running gateway, and how they talk to it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import httpx
import uvicorn
from backhaul_client import AsyncAdminClient, LimitsIn
from backhaul_client.adminmodels import NewTenant
from backhaul_gateway.ingest.publisher import GroupCommitPublisher
from backhaul_gateway.settings import GatewaySettings
from backhaul_gateway.web.server import Listeners
from backhaul_proto.callback.v1.callback_pb2 import Callback, CallbackBatch
from backhaul_testing import broker
from backhaul_testing.twilio import TwilioSimulator
from backhaul_testing.wire import read_answer
from fastapi.routing import APIRoute
from nats.js.errors import NotFoundError
from pymongo import MongoClient

ADMIN_TOKEN = "admin-token-0123456789"
TWILIO_TOKEN = "twilio-auth-token"
SILENCE_S = 0.5
"""A connection that stays open is read until nothing more has come for so long."""

FORM = {"MessageSid": "SM1", "MessageStatus": "delivered", "To": "+15558675310", "AccountSid": "AC1"}


def sign(url: str, fields: dict[str, str], token: str = TWILIO_TOKEN) -> str:
    """Twilio's signature of a form under ``url`` as it is written here, user and password included."""
    return TwilioSimulator(token).sign(url + "".join(name + fields[name] for name in sorted(fields)))


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
    return (await read_answer(reader)).status


@dataclass
class Running:
    """A running gateway."""

    url: str
    client: httpx.AsyncClient
    settings: GatewaySettings
    publisher: GroupCommitPublisher
    server: uvicorn.Server
    mongo: MongoClient[dict[str, Any]]
    listeners: Listeners
    admin: dict[str, str] = field(default_factory=lambda: {"Authorization": f"Bearer {ADMIN_TOKEN}"})

    form = FORM
    secret = TWILIO_TOKEN
    # What its answers are looked at with comes along.
    sign = staticmethod(sign)
    problem = staticmethod(problem_of)
    status_of = staticmethod(status_of)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def tenants(self) -> Any:
        return self.mongo[self.settings.mongo_database]["tenants"]

    @property
    def routes(self) -> list[APIRoute]:
        """What the application answers, but for callbacks."""
        edge: Any = self.server.config.app
        return [route for route in edge.app.routes if isinstance(route, APIRoute)]

    async def ready(self) -> None:
        await self.until_status("/readyz", lambda status: status == 200)

    async def until_status(
        self, path: str, wanted: Callable[[int], bool], headers: Mapping[str, str] | None = None
    ) -> None:
        """Ask until the status is one that is ``wanted``: seen from outside, there is nothing else to wait for."""
        async with asyncio.timeout(60):
            while not wanted((await self.client.get(path, headers=headers)).status_code):  # as above
                await asyncio.sleep(0.02)

    async def until_waiting(self, count: int) -> None:
        """Return when that many callbacks wait for JetStream."""
        async with asyncio.timeout(60):
            while self.publisher.waiting < count:  # a number of the publisher, which has no event
                await asyncio.sleep(0.01)

    async def tenant(
        self, tenant_id: str = "acme", *, queue_path: str = "", limits: LimitsIn | None = None
    ) -> NewTenant:
        platform = AsyncAdminClient(self.url, ADMIN_TOKEN, http=self.client)
        return await platform.create_tenant(
            tenant_id, name=tenant_id, queue_path=queue_path or tenant_id, limits=limits
        )

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
        tenant: NewTenant | None,
        path: str = "/api/postevents?channelLabel=Twilio",
        form: dict[str, str] | None = None,
        *,
        signature: str | None = None,
        headers: Mapping[str, str] | None = None,
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
        client = await broker.connect(self.settings.nats_url.split(","))
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

    async def raw(self, data: bytes, *, half_close: bool = False, one: bool = False) -> bytes:
        """Write bytes to the port and read until the server hangs up or, having answered, is silent for a while; with
        ``one`` no further than one answer that says how long it is, which misses what should not follow."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        answer = b""
        try:
            writer.write(data)
            await writer.drain()
            if half_close:
                writer.write_eof()
            async with asyncio.timeout(60) as patience:
                while not (one and _whole(answer)) and (chunk := await reader.read(65536)):
                    answer += chunk
                    patience.reschedule(asyncio.get_running_loop().time() + SILENCE_S)
        except (TimeoutError, ConnectionError):
            pass
        finally:
            writer.close()
        return answer


def _whole(answer: bytes) -> bool:
    """Whether it says how long it is, and is all there."""
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?im)^content-length: *(\d+)\r?$", head)
    return bool(end and length and len(body) >= int(length[1]))


GatewayFactory = Callable[..., AbstractAsyncContextManager[Running]]


async def outcomes(gateway: Running) -> dict[str, int]:
    """How many requests were counted under each outcome."""
    text = (await gateway.client.get("/metrics")).text
    found = re.findall(r'^backhaul_gateway_callbacks_total\{.*outcome="(\w+)".*\} ([0-9.]+)$', text, re.MULTILINE)
    return {outcome: int(float(count)) for outcome, count in found}
