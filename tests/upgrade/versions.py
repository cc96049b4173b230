"""The services of two versions on the same servers: of each copy the one or the other runs, at the same ports."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from backhaul_local.member import start_timeout_s
from backhaul_local.service import Service, ServiceSpec, default_services
from backhaul_local.stack import Stack, StackConfig
from backhaul_testing.lines import Balancer, Line, Route
from faults.storm_stack import ENV, be_called, call, called_by, two_of_each

ORDER = ("audit", "suppression", "notifier", "reconciler", "normalizer", "gateway")
"""Whoever reads before whoever writes, and whoever is called before whoever calls, as CONTRIBUTING.md has it. Back it
is the other way round."""

READY_S = 120.0

Before = Callable[[str, str], Awaitable[int]]
"""The port of a balancer before the copies of a service, given its name and that of its port."""


@dataclass(frozen=True)
class Versions:
    """``before`` has the services of the version before, ``after`` those of this one, and the servers of both.

    ``lines`` are how the copies are reached by those that call them, ``address`` is that of the gateways.
    """

    before: Stack
    after: Stack
    lines: Mapping[str, Line]
    address: str

    async def swap(self, copy: str, to: Stack) -> None:
        """End the copy that runs, as a deployment does, and start that of ``to`` in its place, where it has one."""
        other = self.before if to is self.after else self.after
        if copy in names(other):
            running = other.service(copy)
            if not await running.stop():
                raise AssertionError(f"{copy} did not end by itself: {running.log_path}")
        if copy in names(to):
            service = to.service(copy)
            service.launch()
            await service.wait_ready()

    def connect_anew(self, name: str) -> None:
        """Have its callers connect again, and so to both copies: they have all gone to the one that ran meanwhile."""
        for copy in (name, f"{name}-2"):
            self.lines[copy].cut()
            self.lines[copy].mend()


def installed(folder: Path) -> tuple[ServiceSpec, ...]:
    """The services of the version that lies in ``folder``, with what they need."""
    python = str(folder / ".venv" / "bin" / "python")
    return tuple(replace(spec, python=python) for spec in default_services(folder / "services"))


def names(stack: Stack) -> list[str]:
    """Its services' names."""
    return [service.name for service in stack.services]


@asynccontextmanager
async def both(
    folder: Path, earlier: Sequence[ServiceSpec], later: Sequence[ServiceSpec], origins: Mapping[str, str]
) -> AsyncIterator[Versions]:
    """The servers run in ``folder``, and two copies of each service of ``earlier``; those of ``later`` have not been
    started. Nothing is left running."""
    env = {**ENV, "BACKHAUL_RECONCILER_ORIGINS": json.dumps(origins)}
    config = StackConfig(
        data_dir=folder,
        env=env,
        services=two_of_each(later),
        start_timeout=start_timeout_s(os.environ, default=READY_S),
    )
    after = Stack(replace(config, log_dir=folder / "logs" / "after"))
    olds = two_of_each(earlier)
    before = Stack(
        replace(
            config,
            log_dir=folder / "logs" / "before",
            services=olds,
            ports={f"{spec.name}_{port}": after.port(spec.name, port) for spec in olds for port in spec.ports},
            nats_url=after.nats_url,
            mongo_uri=after.mongo_uri,
            object_store=after.object_store,
        )
    )
    async with AsyncExitStack() as open_:
        lines = {service.name: Line() for service in after.services}

        async def before_copies_of(name: str, port: str) -> int:
            copies = (after.service(name), after.service(f"{name}-2"))
            routes = (Route(copy.ports[port], (lines[copy.name],)) for copy in copies)
            return (await open_.enter_async_context(Balancer(*routes))).port

        await _balance([*before.services, *after.services], after, before_copies_of)
        address = f"http://127.0.0.1:{await before_copies_of('gateway', 'http')}"
        be_called([*before.services, *after.services], address)
        try:
            await after.start_servers()
            await before.start_services()
            yield Versions(before, after, lines, address)
        finally:
            # Its data is about to be removed, so there is nothing that an orderly end would save.
            await before.kill_all()
            await after.kill_all()


async def _balance(services: Sequence[Service], after: Stack, before_copies_of: Before) -> None:
    """Have each of ``services`` call all copies of those that it calls."""
    ports: dict[str, int] = {}
    for service in services:
        for called in called_by(service):
            if called not in ports:
                ports[called] = await before_copies_of(called, "grpc")
            call(service, after.port(called, "grpc"), ports[called])
