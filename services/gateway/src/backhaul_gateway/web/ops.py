"""What machines ask about this process: whether it lives, whether it is ready, and its metrics."""

# Annotations are not postponed here: FastAPI could not resolve those of functions that are made inside of a function.
from typing import Any

from backhaul_common.lifecycle import Readiness
from backhaul_common.metering import Metrics
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel


class HealthOut(BaseModel):
    """The process runs."""

    status: str = "ok"


class ReadyOut(BaseModel):
    """Whether the gateway can take callbacks. ``failing`` names each part that is missing, with the reason."""

    status: str
    failing: dict[str, str]


def ops_router(readiness: Readiness, metrics: Metrics) -> APIRouter:
    """The routes that machines ask about this process."""
    router = APIRouter(tags=["operations"])

    @router.get("/healthz")
    async def live() -> HealthOut:
        """200 as long as the process can answer."""
        return HealthOut()

    not_ready: dict[int | str, dict[str, Any]] = {503: {"model": ReadyOut, "description": "Not ready"}}

    @router.get("/readyz", response_model=ReadyOut, responses=not_ready)
    async def ready() -> Response:
        """200 when callbacks can be taken; 503 with what is missing."""
        failing = await readiness.failing(timeout_s=2.5)
        body = ReadyOut(status="not ready" if failing else "ready", failing=failing)
        return JSONResponse(body.model_dump(), 503 if failing else 200)

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def prometheus() -> Response:
        """Metrics in Prometheus' text format."""
        return Response(await metrics.rendered(), media_type=CONTENT_TYPE_LATEST)

    return router
