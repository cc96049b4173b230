"""What ingest is measured against: an empty FastAPI route that reads the body, served as the gateway is.

The harder baseline on purpose: it returns a Response, which FastAPI need not serialise, and leaves telemetry off.
"""

from __future__ import annotations

import os

import uvicorn
from fastapi import FastAPI, Request, Response

app = FastAPI(telemetry={"tracing": False, "metrics": False, "logs": False})


@app.post("/api/postevents")
async def empty(request: Request) -> Response:
    """Read the body and answer."""
    await request.body()
    return Response()


@app.get("/readyz")
async def ready() -> Response:
    """For whoever started this."""
    return Response()


if __name__ == "__main__":
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
