"""A notifier of the tests, on a real port: it answers what a test gave it, and keeps what it was asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
from backhaul_client.adminmodels import NewTenant
from backhaul_common.errors import BackhaulError
from backhaul_common.rpc import keepalive
from backhaul_common.rpc.errors import DETAILS_KEY, to_details
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from backhaul_proto.notifier.v1 import notifier_pb2_grpc
from gateway_rig import GatewayFactory, Running

AT_US, AT = 1_700_000_000_000_000, "2023-11-14T22:13:20.000000Z"
SUBSCRIPTION_ID, DELIVERY_ID = "sub_" + "5f" * 12, "5b" * 16


def _answering(method: str) -> Any:
    async def answer(self: FakeNotifier, request: Any, context: Any) -> Any:
        self.asked.append(request)
        if self.refusal is not None:
            refusal = self.refusal
            await context.abort(refusal.meaning.grpc_status, refusal.message, ((DETAILS_KEY, to_details(refusal)),))
        return self.answers[method]

    return answer


class FakeNotifier:
    """``answers`` are by the name of a call."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.answers: dict[str, Any] = {}
        self.refusal: BackhaulError | None = None


for _method in pb.DESCRIPTOR.services_by_name["NotifierService"].methods:
    setattr(FakeNotifier, _method.name, _answering(_method.name))


@dataclass
class NotifierRig:
    """A gateway over a notifier, and a tenant."""

    gateway: Running
    notifier: FakeNotifier
    tenant: NewTenant

    @property
    def headers(self) -> dict[str, str]:
        return {"X-Api-Key": self.tenant.api_key}

    async def get(self, path: str, **params: Any) -> httpx.Response:
        return await self.gateway.client.get(f"/v1{path}", params=params, headers=self.headers)

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """A request with a body, or with none."""
        content = {} if body is None else {"json": body}
        return await self.gateway.client.request(method, f"/v1{path}", headers={**self.headers, **headers}, **content)


@asynccontextmanager
async def notifying(factory: GatewayFactory, nats_url: str, **settings: Any) -> AsyncIterator[NotifierRig]:
    notifier = FakeNotifier()
    server = grpc.aio.server(options=keepalive.of_server())
    notifier_pb2_grpc.add_NotifierServiceServicer_to_server(notifier, server)  # type: ignore[arg-type]  # made above
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with factory(nats_url, gateway_notifier_target=f"127.0.0.1:{port}", **settings) as gateway:
            yield NotifierRig(gateway, notifier, await gateway.tenant())
    finally:
        await server.stop(0)
