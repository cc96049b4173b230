"""What ingest is measured against: an empty FastAPI route that reads the body, served as the gateway is.

``plain`` is what one writes: ``FastAPI()``, ``@app.post``, nothing returned. ``bare`` is the least that it can cost:
FastAPI's telemetry is off, and it returns a Response, which need not be serialised.
"""

from __future__ import annotations

import os

import uvicorn
from fastapi import FastAPI, Request, Response

PLAIN, BARE = "plain", "bare"


def plain() -> FastAPI:
    """See the module."""
    app = FastAPI()

    @app.post("/api/postevents")
    async def empty(request: Request) -> None:
        await request.body()

    return app


def bare() -> FastAPI:
    """See the module."""
    app = FastAPI(telemetry={"tracing": False, "metrics": False, "logs": False})

    @app.post("/api/postevents")
    async def empty(request: Request) -> Response:
        await request.body()
        return Response()

    return app


def main() -> None:
    """Serve one of the two."""
    app = {PLAIN: plain, BARE: bare}[os.environ["BENCH_EMPTY_ROUTE"]]()

    @app.get("/readyz")
    async def ready() -> Response:
        """For whoever started this."""
        return Response()

    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(os.environ["BENCH_EMPTY_ROUTE_PORT"]),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=4096,
    )


if __name__ == "__main__":
    main()
