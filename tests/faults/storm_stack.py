"""Two copies of every service, on lines that can be cut, silent and slow; and their trouble."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from backhaul_local.service import ServiceSpec, default_services
from backhaul_local.stack import Stack, StackConfig
from backhaul_testing.lines import Balancer, Line, Route
from faults import filed
from faults.storm_schedule import Fault, Planned

if TYPE_CHECKING:
    from pathlib import Path

    from backhaul_local.member import Member
    from backhaul_local.service import Service

LATENCY_S, BYTES_PER_S = 0.15, 200_000.0
"""What is slow takes so much longer for each piece, and carries so much of it."""

READY_S = 120.0
_SERVERS = {"mongod": "MONGO_URI", "nats": "NATS_URL", "s3": "OBJECT_STORE_ENDPOINT"}
_CALLED = re.compile(r"\{(\w+)_grpc\}")

ENV = {
    **filed.ENV,
    "BACKHAUL_AUDIT_MAX_FILE_EVENTS": "200",
    "BACKHAUL_AUDIT_MAX_FILE_AGE_S": "2",
    "BACKHAUL_AUDIT_DIGEST_EVERY_S": "5",
    "BACKHAUL_SUPPRESSION_ACK_WAIT_S": "3",
}


@dataclass(frozen=True, slots=True)
class Happened:
    """A fault as it was: when it began and ended, as unix times in seconds."""

    planned: Planned
    began: float
    ended: float


@dataclass
class Storm:
    """``address`` is that of the gateways, for whoever calls them. ``happened`` is what was done."""

    stack: Stack
    lines: dict[str, Line]
    address: str
    happened: list[Happened] = field(default_factory=list)

    @cached_property
    def targets(self) -> list[str]:
        """The names of everything that can be in trouble."""
        return [member.name for member in self.stack.members]

    async def carry_out(self, plan: Sequence[Planned]) -> None:
        """Make everything happen at its time; return when all is over, and everything is ready."""
        began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for planned in plan:
                group.create_task(self._happen(planned, began))
        await self.ready()

    async def ready(self) -> None:
        """Return when everything is ready. Raises EndedError where something has ended that nobody killed."""
        for member in self.stack.members:
            if not member.running:
                raise member.ended()
        await asyncio.gather(*(member.wait_ready(READY_S) for member in self.stack.members))

    async def _happen(self, planned: Planned, began: float) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(began + planned.at - loop.time())  # The plan says when.
        member, line = self.stack.member(planned.target), self.lines[planned.target]
        if not member.running:
            raise member.ended()
        at = time.time()
        await _begin(planned.fault, member, line)
        await asyncio.sleep(planned.lasts_s)
        if planned.fault is Fault.KILLED:
            # Not until it is ready: what it needs may be in trouble itself.
            member.launch()
        elif planned.fault is Fault.FROZEN:
            member.resume()
        else:
            line.mend()
        self.happened.append(Happened(planned, at, time.time()))


async def _begin(fault: Fault, member: Member, line: Line) -> None:
    match fault:
        case Fault.KILLED:
            await member.kill()
        case Fault.FROZEN:
            member.pause()
        case Fault.CUT:
            line.cut()
        case Fault.SILENT:
            line.go_silent()
        case Fault.SLOW:
            line.slow_down(LATENCY_S, BYTES_PER_S)


@asynccontextmanager
async def storm(folder: Path, origins: Mapping[str, str]) -> AsyncIterator[Storm]:
    """Everything runs in ``folder``, and is ready. ``origins`` are where providers' APIs are instead."""
    env = {**ENV, "BACKHAUL_RECONCILER_ORIGINS": json.dumps(origins)}
    stack = Stack(StackConfig(data_dir=folder, services=two_of_each(default_services()), env=env))
    async with AsyncExitStack() as open_:
        lines = {member.name: Line() for member in stack.members}

        async def before(*routes: Route) -> int:
            return (await open_.enter_async_context(Balancer(*routes))).port

        for service in stack.services:
            own = lines[service.name]
            for name, setting in _SERVERS.items():
                service.env[f"BACKHAUL_{setting}"] = await _through(stack, before, name, lines[name], own)
            for called in called_by(service):
                copies = [stack.service(called), stack.service(f"{called}-2")]
                port = await before(*(Route(copy.ports["grpc"], (own, lines[copy.name])) for copy in copies))
                call(service, copies[0].ports["grpc"], port)
        gateways = [stack.service("gateway"), stack.service("gateway-2")]
        port = await before(*(Route(one.ports["http"], (lines[one.name],)) for one in gateways))
        address = f"http://127.0.0.1:{port}"
        be_called(stack.services, address)
        await open_.enter_async_context(_running(stack))
        yield Storm(stack, lines, address)


@asynccontextmanager
async def _running(stack: Stack) -> AsyncIterator[None]:
    await stack.start()
    try:
        yield
    finally:
        # Its data is about to be removed, so there is nothing that an orderly end would save.
        await stack.kill_all()


async def _through(stack: Stack, before: Any, name: str, *lines: Line) -> str:
    """The address of a server, behind ``lines``."""
    server = {"mongod": stack.mongo, "nats": stack.nats, "s3": stack.s3}[name]
    assert server is not None
    port = await before(Route(server.port, lines))
    address: str = server.uri.replace(f"127.0.0.1:{server.port}", f"127.0.0.1:{port}")
    # Otherwise whoever asks the replica set where it is goes there, past the line.
    return re.sub("replicaSet=[^&]+", "directConnection=true", address)


def two_of_each(services: Sequence[ServiceSpec]) -> list[ServiceSpec]:
    """Each copy of a service follows the other, so that whoever calls both starts last."""
    return [copy for spec in services for copy in (spec, replace(spec, name=f"{spec.name}-2"))]


def called_by(service: Service) -> list[str]:
    """The services that it calls."""
    return sorted({name for value in service.spec.env.values() for name in _CALLED.findall(value)})


def be_called(services: Sequence[Service], address: str) -> None:
    """Have the gateways tell others that they are at ``address``."""
    for service in services:
        for setting in ("GATEWAY", "NOTIFIER"):
            if f"BACKHAUL_{setting}_PUBLIC_BASE_URL" in service.env:
                service.env[f"BACKHAUL_{setting}_PUBLIC_BASE_URL"] = address


def call(service: Service, port: int, instead: int) -> None:
    """Have it call another port than that of another service."""
    for setting, value in service.env.items():
        if setting.startswith("BACKHAUL_") and setting.endswith(("_TARGET", "_TARGETS")):
            service.env[setting] = value.replace(f"127.0.0.1:{port}", f"127.0.0.1:{instead}")
