"""What ingest is measured against: routes that do the least, served as the gateway is.

``plain`` is what one writes: ``FastAPI()``, ``@app.post``, the body is read, nothing returned. ``bare`` is the least
that it can cost: FastAPI's telemetry is off, and it returns a Response, which need not be serialised. ``signed`` has no
framework: it reads a post of SendGrid's and verifies its signature.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from typing import Any

import uvicorn
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key
from fastapi import FastAPI, Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

PLAIN, BARE, SIGNED = "plain", "bare", "signed"
KEY_VARIABLE = "BENCH_EMPTY_ROUTE_KEY"
"""The variable with the public key of what ``signed`` is sent, as SendGrid shows it."""


def plain() -> FastAPI:
    """See the module."""
    app = FastAPI()

    @app.post("/api/postevents")
    async def empty(request: Request) -> None:
        await request.body()

    return with_readiness(app)


def bare() -> FastAPI:
    """See the module."""
    app = FastAPI(telemetry={"tracing": False, "metrics": False, "logs": False})

    @app.post("/api/postevents")
    async def empty(request: Request) -> Response:
        await request.body()
        return Response()

    return with_readiness(app)


def with_readiness(app: FastAPI) -> FastAPI:
    """``app`` with a route for whoever started it."""

    @app.get("/readyz")
    async def ready() -> Response:
        return Response()

    return app


def signed() -> ASGIApp:
    """See the module. What is badly signed is answered with 500."""
    key = load_der_public_key(base64.b64decode(os.environ[KEY_VARIABLE]))
    assert isinstance(key, EllipticCurvePublicKey)
    method = ECDSA(SHA256())

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if scope["method"] == "POST":
            headers = dict(scope["headers"])
            signature = base64.b64decode(headers[b"x-twilio-email-event-webhook-signature"])
            key.verify(signature, headers[b"x-twilio-email-event-webhook-timestamp"] + body, method)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    return app


def main() -> None:
    """Serve one of them."""
    makers: dict[str, Callable[[], ASGIApp]] = {PLAIN: plain, BARE: bare, SIGNED: signed}
    app: Callable[..., Any] = makers[os.environ["BENCH_EMPTY_ROUTE"]]()
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
