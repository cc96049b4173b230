"""A gateway over services of the tests, all on one port: each answers of a tenant what a test gave it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from backhaul_common.errors import BackhaulError
from backhaul_common.rpc import keepalive
from backhaul_common.rpc.errors import DETAILS_KEY, to_details
from backhaul_proto.audit.v1 import audit_pb2, audit_pb2_grpc
from backhaul_proto.normalizer.v1 import normalizer_pb2, normalizer_pb2_grpc
from backhaul_proto.notifier.v1 import notifier_pb2, notifier_pb2_grpc
from backhaul_proto.reconciler.v1 import reconciler_pb2, reconciler_pb2_grpc
from backhaul_proto.suppression.v1 import suppression_pb2, suppression_pb2_grpc
from gateway_rig import GatewayFactory, Running

SERVICES: dict[str, tuple[str, Any]] = {
    "normalizer": ("ListDeadLetters", normalizer_pb2.ListDeadLettersResponse()),
    "reconciler": ("ListChannels", reconciler_pb2.ListChannelsResponse()),
    "audit": ("GetState", audit_pb2.GetStateResponse()),
    "notifier": ("GetState", notifier_pb2.GetStateResponse()),
    "suppression": ("List", suppression_pb2.ListResponse()),
}
_ADD: dict[str, Any] = {
    "normalizer": normalizer_pb2_grpc.add_NormalizerServiceServicer_to_server,
    "reconciler": reconciler_pb2_grpc.add_ReconcilerServiceServicer_to_server,
    "audit": audit_pb2_grpc.add_AuditServiceServicer_to_server,
    "notifier": notifier_pb2_grpc.add_NotifierServiceServicer_to_server,
    "suppression": suppression_pb2_grpc.add_SuppressionServiceServicer_to_server,
}
_BASES: dict[str, Any] = {
    "normalizer": normalizer_pb2_grpc.NormalizerServiceServicer,
    "reconciler": reconciler_pb2_grpc.ReconcilerServiceServicer,
    "audit": audit_pb2_grpc.AuditServiceServicer,
    "notifier": notifier_pb2_grpc.NotifierServiceServicer,
    "suppression": suppression_pb2_grpc.SuppressionServiceServicer,
}


@dataclass
class OverviewRig:
    """``answers`` are by service and tenant; ``refusals`` by service."""

    gateway: Running = field(init=False)
    answers: dict[tuple[str, str], Any] = field(default_factory=dict)
    refusals: dict[str, BackhaulError] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)

    async def overview(self, **params: Any) -> dict[str, Any]:
        answer = await self.gateway.client.get("/admin/v1/overview", params=params, headers=self.gateway.admin)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


def _servicer(rig: OverviewRig, service: str) -> Any:
    method, empty = SERVICES[service]

    async def answer(_: Any, request: Any, context: Any) -> Any:
        rig.asked[service] += 1
        if (refusal := rig.refusals.get(service)) is not None:
            await context.abort(refusal.meaning.grpc_status, refusal.message, ((DETAILS_KEY, to_details(refusal)),))
        return rig.answers.get((service, request.tenant_id), empty)

    return type(f"Fake{service}", (_BASES[service],), {method: answer})()


@asynccontextmanager
async def overseeing(factory: GatewayFactory, nats_url: str, **settings: Any) -> AsyncIterator[OverviewRig]:
    rig = OverviewRig()
    server = grpc.aio.server(options=keepalive.of_server())
    for service, add in _ADD.items():
        add(_servicer(rig, service), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    targets = {f"gateway_{service}_target": f"127.0.0.1:{port}" for service in SERVICES}
    try:
        async with factory(nats_url, **{**targets, **settings}) as rig.gateway:
            yield rig
    finally:
        await server.stop(0)
