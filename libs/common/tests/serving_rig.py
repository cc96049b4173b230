"""A gRPC server as tests start it: over loopback, with nothing set."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
from backhaul_common import rpc
from backhaul_common.lifecycle import Readiness
from backhaul_common.settings import CommonSettings
from backhaul_common.tracing import Tracing

SETTINGS = CommonSettings()


async def served(
    stack: AsyncExitStack,
    *services: str,
    register: Callable[[grpc.aio.Server], None] = lambda _: None,
    readiness: Readiness | None = None,
    settings: CommonSettings = SETTINGS,
    listen: str = "127.0.0.1:0",
    **options: Any,
) -> rpc.Server:
    """A server of ``services`` that ends with ``stack``. ``options`` are the others of ``rpc.serve``."""
    return await rpc.serve(
        stack,
        settings,
        Tracing("test", None),
        readiness if readiness is not None else Readiness(),
        listen=listen,
        services=services,
        register=register,
        **options,
    )
