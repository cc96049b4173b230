"""Another copy of a service of the stack, on ports of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from backhaul_local.ports import Hold
from backhaul_local.service import Service
from installation import Installation


@asynccontextmanager
async def another(site: Installation, name: str) -> AsyncIterator[Service]:
    """Another copy of the service ``name``, ready; it has ended afterwards. Only `site.stack`'s own are metered."""
    first = site.stack.service(name)
    hold = Hold()
    ports = dict(zip(first.ports, hold.choose(len(first.ports)), strict=True))
    numbers = {str(first.ports[port]): str(number) for port, number in ports.items()}
    env = {
        key: _with_port(value, numbers) if key.endswith(("_LISTEN", "_PORT")) else value
        for key, value in first.env.items()
    }
    copy = Service(first.spec, ports=ports, env=env, log_path=site.folder / f"{name}-copy.log", hold=hold)
    await copy.start()
    try:
        yield copy
    finally:
        await copy.stop()


def _with_port(value: str, numbers: dict[str, str]) -> str:
    host, colon, port = value.rpartition(":")
    return f"{host}{colon}{numbers.get(port, port)}"
