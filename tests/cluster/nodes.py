"""Three nodes of each server, two copies of each service, and load balancers before these: one house to break."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from backhaul_local.pytest_plugin import StackFactory
from backhaul_local.service import ServiceSpec, default_services
from backhaul_local.stack import Stack
from backhaul_testing import broker
from backhaul_testing.proxy import End, SilentProxy
from backhaul_testing.waiting import until
from faults import filed, receivers
from nats.errors import Error as NatsError
from nats.js.api import ClusterInfo
from nats.js.client import JetStreamContext
from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

NODES = 3
STREAMS = {"CALLBACKS", "EVENTS", "NOTICES"}

_SECOND = "-2"
_PORT = re.compile(r"\{(\w+)_(grpc|http)\}")
_PRIMARY, _SECONDARY = 1, 2


class Balancer(SilentProxy):
    """A port before all copies of a service: whoever connects gets the next one that listens."""

    def __init__(self) -> None:
        super().__init__(0)
        self.ports: list[int] = []

    async def server(self, port: int = 0) -> End:
        """See Proxy."""
        self.ports.append(self.ports.pop(0))
        for own in [port] if port else self.ports:
            with suppress(ConnectionRefusedError):
                return await super().server(own)
        raise ConnectionRefusedError


@dataclass(frozen=True)
class House:
    """``url`` is where providers and tenants call the gateways."""

    stack: Stack
    url: str
    copies: Mapping[str, tuple[str, str]]
    """The names of the copies in the stack, by service."""

    async def leader(self, stream: str) -> str:
        """The NATS server that leads ``stream``, once all three have all of everything."""
        connection = await broker.connect(self.stack.nats_url)
        try:
            js = connection.jetstream()

            async def probe() -> bool:
                with suppress(NatsError, OSError):
                    return all([_whole(cluster) async for _, cluster in _parts(js)])
                return False

            await until("every stream and consumer on all nodes", probe, pause_s=0.2)
            cluster = (await js.stream_info(stream)).cluster
            assert cluster is not None
            assert cluster.leader
            return cluster.leader
        finally:
            await connection.close()

    async def moved(self, stream: str, former: str) -> None:
        """Return when another server than ``former`` leads ``stream``."""
        others = [server.uri for server in self.stack.nats_servers if server.name != former]
        connection = await broker.connect(others)
        try:

            async def probe() -> bool:
                with suppress(NatsError, OSError):
                    cluster = (await connection.jetstream().stream_info(stream)).cluster
                    return cluster is not None and cluster.leader not in (None, "", former)
                return False

            await until(f"another leader of {stream}", probe, pause_s=0.1)
        finally:
            await connection.close()

    async def replicas(self) -> dict[str, int]:
        """How many copies the servers have of each stream and of each durable consumer (``EVENTS/audit``)."""
        connection = await broker.connect(self.stack.nats_url)
        try:
            found = {}
            async for name, cluster in _parts(connection.jetstream()):
                assert cluster is not None
                found[name] = len(cluster.replicas or ()) + 1
            return found
        finally:
            await connection.close()

    async def mongods(self) -> tuple[str, list[str]]:
        """The primary and the secondaries, once all three take part."""
        names = {f"127.0.0.1:{server.port}": server.name for server in self.stack.mongo_servers}
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(self.stack.mongo_uri)

        async def probe() -> dict[str, int] | None:
            with suppress(PyMongoError):
                status = await client.admin.command("replSetGetStatus")
                states = {names[member["name"]]: member["state"] for member in status["members"]}
                return states if sorted(states.values()) == [_PRIMARY, _SECONDARY, _SECONDARY] else None
            return None

        async with client:
            states = await until("a whole replica set", probe, pause_s=0.2)
        [primary] = [name for name, state in states.items() if state == _PRIMARY]
        return primary, [name for name in states if name != primary]


async def _parts(js: JetStreamContext) -> AsyncIterator[tuple[str, ClusterInfo | None]]:
    """Streams and durable consumers. What readers by position have is made anew where it is lost."""
    for name in sorted(STREAMS):
        yield name, (await js.stream_info(name)).cluster
        for consumer in await js.consumers_info(name):
            if consumer.config.durable_name:
                yield f"{name}/{consumer.name}", consumer.cluster


def _whole(cluster: ClusterInfo | None) -> bool:
    return (
        cluster is not None
        and bool(cluster.leader)
        and len(cluster.replicas or ()) == NODES - 1
        and all(peer.current and not peer.offline for peer in cluster.replicas or ())
    )


@asynccontextmanager
async def three_nodes(stack_factory: StackFactory) -> AsyncIterator[House]:
    """It runs, and is killed at the end: there is nothing that an orderly one would save."""
    services = default_services()
    async with AsyncExitStack() as opened:
        balancers = {
            (spec.name, port): await opened.enter_async_context(Balancer())
            for spec in services
            for port in (spec.grpc_port, spec.http_port)
            if port
        }
        specs = [_balanced(spec, {place: balancer.port for place, balancer in balancers.items()}) for spec in services]
        stack = await opened.enter_async_context(
            stack_factory(
                nodes=NODES,
                services=(*specs, *(replace(spec, name=spec.name + _SECOND) for spec in specs)),
                env={**receivers.ENV, **filed.ENV, "BACKHAUL_AUDIT_DIGEST_EVERY_S": "5"},
                with_object_store=True,
                start=False,
            )
        )
        copies = {spec.name: (spec.name, spec.name + _SECOND) for spec in services}
        for (name, port), balancer in balancers.items():
            balancer.ports = [stack.port(copy, port) for copy in copies[name]]
        opened.push_async_callback(stack.kill_all)
        await stack.start()
        yield House(stack, f"http://127.0.0.1:{balancers['gateway', 'http'].port}", copies)


def _balanced(spec: ServiceSpec, ports: Mapping[tuple[str, str], int]) -> ServiceSpec:
    """``spec`` with the ports of balancers where it names other services, and where callers find it."""
    env = {name: _PORT.sub(lambda found: str(ports[found[1], found[2]]), value) for name, value in spec.env.items()}
    if spec.name == "gateway":
        env["BACKHAUL_GATEWAY_PUBLIC_BASE_URL"] = f"http://127.0.0.1:{ports['gateway', 'http']}"
    return replace(spec, env=env)
