"""A reconciler of the tests, on a real port: it answers what a test gave it, and keeps what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from backhaul_client.adminmodels import NewTenant
from backhaul_common.errors import BackhaulError
from backhaul_common.rpc import keepalive
from backhaul_common.rpc.errors import DETAILS_KEY, to_details
from backhaul_proto.reconciler.v1 import reconciler_pb2 as pb
from backhaul_proto.reconciler.v1 import reconciler_pb2_grpc
from gateway_rig import GatewayFactory, Running

REPORT_ID = "5b5f3c1e" * 4
RUNNING = pb.Report(
    id=REPORT_ID,
    channel="twilio",
    cause=pb.CAUSE_CALL,
    state=pb.RUN_STATE_RUNNING,
    from_us=1_700_000_000_000_000,
    to_us=1_700_000_001_000_000,
    counts=pb.Counts(seen=3, known=1, missing=2, requests=4),
    began_at_us=1_700_000_002_000_000,
)
RUNNING_SHOWN: dict[str, Any] = {
    "id": REPORT_ID,
    "channel": "twilio",
    "cause": "call",
    "state": "running",
    "text": None,
    "asked_from": "2023-11-14T22:13:20.000000Z",
    "asked_to": "2023-11-14T22:13:21.000000Z",
    "dry_run": False,
    "counts": {
        "seen": 3,
        "known": 1,
        "missing": 2,
        "better": 0,
        "unreadable": 0,
        "differing": 0,
        "open": 0,
        "unknown_to_provider": 0,
        "requests": 4,
    },
    "began_at": "2023-11-14T22:13:22.000000Z",
    "ended_at": None,
}
ENDED = pb.Report()
ENDED.CopyFrom(RUNNING)
ENDED.state, ENDED.text, ENDED.ended_at_us = pb.RUN_STATE_STOPPED, "Refused.", 1_700_000_003_000_000
ENDED_SHOWN = {**RUNNING_SHOWN, "state": "stopped", "text": "Refused.", "ended_at": "2023-11-14T22:13:23.000000Z"}


class FakeReconciler(reconciler_pb2_grpc.ReconcilerServiceServicer):
    """``answers`` are by the name of a call; ``reports`` are those of a run."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.answers: dict[str, Any] = {}
        self.reports: list[pb.Report] = []
        self.refusal: BackhaulError | None = None
        self.breaks: BackhaulError | None = None
        """What a run's answers end with."""
        self.hangs = False
        """Whether a run goes on behind its answers."""
        self.hanging = asyncio.Event()
        """Set while one does."""
        self.ended = asyncio.Event()
        """Set when a run's client has left it."""

    async def _answer(self, name: str, request: Any, context: Any) -> Any:
        self.asked.append(request)
        await _abort(context, self.refusal)
        return self.answers[name]

    async def Run(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        self.asked.append(request)
        await _abort(context, self.refusal)
        try:
            for report in self.reports:
                yield pb.RunResponse(report=report)
            if self.hangs:
                self.hanging.set()
                await asyncio.Event().wait()
            await _abort(context, self.breaks)
        finally:
            self.ended.set()

    async def GetReport(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        return await self._answer("GetReport", request, context)

    async def ListReports(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        return await self._answer("ListReports", request, context)

    async def ListDifferences(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        return await self._answer("ListDifferences", request, context)

    async def GetDay(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        return await self._answer("GetDay", request, context)

    async def ListChannels(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        return await self._answer("ListChannels", request, context)


async def _abort(context: Any, error: BackhaulError | None) -> None:
    if error is not None:
        await context.abort(error.meaning.grpc_status, error.message, ((DETAILS_KEY, to_details(error)),))


@dataclass
class ReconcilerRig:
    """A gateway over a reconciler, and a tenant."""

    gateway: Running
    reconciler: FakeReconciler
    tenant: NewTenant

    @property
    def headers(self) -> dict[str, str]:
        return {"X-Api-Key": self.tenant.api_key}

    async def get(self, path: str, **params: Any) -> Any:
        return await self.gateway.client.get(f"/v1/reconciliation{path}", params=params, headers=self.headers)

    async def run(self, body: Any, **params: Any) -> Any:
        path = "/v1/reconciliation/runs"
        return await self.gateway.client.post(path, json=body, params=params, headers=self.headers)


@asynccontextmanager
async def reconciling(factory: GatewayFactory, nats_url: str, **settings: Any) -> AsyncIterator[ReconcilerRig]:
    reconciler = FakeReconciler()
    server = grpc.aio.server(options=keepalive.of_server())
    reconciler_pb2_grpc.add_ReconcilerServiceServicer_to_server(reconciler, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with factory(nats_url, gateway_reconciler_target=f"127.0.0.1:{port}", **settings) as gateway:
            yield ReconcilerRig(gateway, reconciler, await gateway.tenant())
    finally:
        await server.stop(0)
