"""The FastAPI application: the routers behind the edge, and what every one of them has."""

from __future__ import annotations

from collections.abc import Iterable

from backhaul_common.lifecycle import Readiness
from backhaul_common.metering import Metrics
from fastapi import APIRouter, FastAPI
from starlette.convertors import Convertor, register_url_convertor

from backhaul_gateway.web import problems
from backhaul_gateway.web.docs import docs_router
from backhaul_gateway.web.guard import Guard
from backhaul_gateway.web.openapi import openapi_of
from backhaul_gateway.web.ops import ops_router


class _AnyText(Convertor[str]):
    """The rest of a path: Starlette's own ends at a line break, and ids may have one."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("path", _AnyText())


def application_of(
    routers: Iterable[APIRouter], guard: Guard, version: str, readiness: Readiness, metrics: Metrics
) -> FastAPI:
    """The application with ``routers``, the routes for operators, and the documentation of all of them; each route
    behind ``guard``."""
    app = FastAPI(
        title="Backhaul gateway",
        version=version,
        description="Callbacks of channel providers in, message states out.",
        redirect_slashes=False,
        # FastAPI encodes the document anew for each request, and its pages load scripts from elsewhere.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        # Spans, metrics and logs are made where they belong; FastAPI's own would double them, on the hot path too.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    for router in (*routers, ops_router(readiness, metrics), docs_router(openapi_of(app))):
        # A router's routes have its prefix, its dependencies and its answers already. Included, each would be analysed
        # once more, when the first request comes: that takes longer than all else of a start.
        app.router.routes.extend(router.routes)
    guard.protect(app.routes)
    problems.answer_errors_of(app)
    return app
