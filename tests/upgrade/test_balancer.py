"""Two gateways behind HAProxy, with the settings that compose.yaml has for it: one is replaced, or dies, under load."""

from __future__ import annotations

import asyncio
import csv
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import pytest
import yaml
from backhaul_gateway.settings import GatewaySettings
from backhaul_local.ports import Hold
from backhaul_local.scratch import scratch
from backhaul_local.service import service_spec
from backhaul_local.stack import Stack, StackConfig
from backhaul_testing.waiting import until
from faults.account import settle
from faults.storm_stack import be_called
from simulators.load import Load
from simulators.people import Town

COMPOSE = Path(__file__).parents[2] / "deploy" / "compose"
GATEWAYS = ("gateway", "gateway-2")
pytestmark = [
    pytest.mark.faults,
    pytest.mark.slow,
    pytest.mark.timeout(300),
]
needs_haproxy = pytest.mark.skipif(
    shutil.which("haproxy") is None, reason="there is no HAProxy here (Debian: apt install haproxy)"
)


class Balancer:
    """haproxy.cfg in ``folder``, as it is but for where everything is; ``url`` is where it takes requests."""

    def __init__(self, folder: Path, gateways: dict[str, int]) -> None:
        self._hold = Hold()
        self.port, self._stats_port = self._hold.choose(2)
        self.url = f"http://127.0.0.1:{self.port}"
        self._config = folder / "haproxy.cfg"
        self._log = folder / "haproxy.log"
        config = (COMPOSE / "haproxy.cfg").read_text()
        moved = {"bind :8000": f"bind 127.0.0.1:{self.port}", "bind :8404": f"bind 127.0.0.1:{self._stats_port}"}
        moved |= {f" {name} {name}:8080": f" {name} 127.0.0.1:{port}" for name, port in gateways.items()}
        for of_compose, here in moved.items():
            assert config.count(of_compose) == 1, of_compose
            config = config.replace(of_compose, here)
        self._config.write_text(config)

    @asynccontextmanager
    async def running(self, **env: str) -> AsyncIterator[None]:
        """While it has all gateways."""
        program = ["haproxy", "-db", "-f", str(self._config)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(program, stdout=log, stderr=log, env=os.environ | env)  # noqa: ASYNC220, S603  # of this machine, with our own file
        try:
            await self.has(*GATEWAYS)
            yield
        finally:
            self._process.terminate()
            self._process.wait(60)

    async def is_up(self, gateway: str) -> bool:
        """Whether it sends requests there."""
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            try:
                answer = await http.get(f"http://127.0.0.1:{self._stats_port}/;csv")
            except httpx.ConnectError:
                if self._process.poll() is not None:
                    raise AssertionError(f"HAProxy has ended: {self._log.read_text()}") from None
                return False  # It has only just been started.
        rows = csv.DictReader(answer.text.removeprefix("# ").splitlines())
        return {row["svname"]: row["status"] for row in rows if row["pxname"] == "gateways"}[gateway] == "UP"

    async def has(self, *gateways: str) -> None:
        for gateway in gateways:
            await until(f"HAProxy has {gateway}", partial(self.is_up, gateway))


class Toy:
    """A gateway that is ready, and answers callbacks by 200, or dies of each once it has read from it."""

    def __init__(self, *, dies: bool = False) -> None:
        self.asked = 0
        self.forwarded: list[str] = []
        self._dies = dies

    @asynccontextmanager
    async def listening(self, port: int) -> AsyncIterator[None]:
        async with await asyncio.start_server(self._serve, "127.0.0.1", port):
            yield

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"GET /readyz "):
            self.asked += 1
            self.forwarded = re.findall(r"^x-forwarded-\w+: .*$", head.decode(), re.IGNORECASE | re.MULTILINE)
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            assert length is not None
            await reader.read(1) if self._dies else await reader.readexactly(int(length[1]))
        if head.startswith(b"GET /readyz ") or not self._dies:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()


async def post_in_pieces(port: int, size: int) -> bytes:
    """The status line that a callback gets whose body comes after its head, in two pieces."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /in/token HTTP/1.1\r\nHost: gateways\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
    for piece in (head.encode(), b"x" * (size // 2), b"x" * (size - size // 2)):
        writer.write(piece)
        await writer.drain()
        # Nothing tells when HAProxy has read it: too short a pause lets pass what fails here.
        await asyncio.sleep(0.1)
    async with asyncio.timeout(60):
        answer = await reader.readline()
    writer.close()
    return answer


@needs_haproxy
async def test_a_callback_that_comes_in_pieces_is_sent_to_the_other_gateway_too() -> None:
    mortal, other = Toy(dies=True), Toy()
    with scratch() as folder, Hold() as hold:
        ports = dict(zip(GATEWAYS, hold.choose(2), strict=True))
        balancer = Balancer(folder, ports)
        async with (
            mortal.listening(ports["gateway"]),
            other.listening(ports["gateway-2"]),
            balancer.running(),
        ):
            for _ in range(4):
                assert b" 200 " in await post_in_pieces(balancer.port, 64 << 10)
    assert mortal.asked > 0
    assert other.asked == 4


@needs_haproxy
@pytest.mark.parametrize("of_a_proxy", [False, True])
async def test_whence_a_callback_comes_is_said_by_the_balancer_or_by_a_proxy_before_it(of_a_proxy: bool) -> None:
    toys = Toy(), Toy()
    said = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
    with scratch() as folder, Hold() as hold:
        ports = dict(zip(GATEWAYS, hold.choose(2), strict=True))
        balancer = Balancer(folder, ports)
        async with (
            toys[0].listening(ports["gateway"]),
            toys[1].listening(ports["gateway-2"]),
            balancer.running(**{"TLS_PROXY": "127.0.0.0/8"} if of_a_proxy else {}),
            httpx.AsyncClient(trust_env=False, timeout=60) as http,
        ):
            await http.post(f"{balancer.url}/in/token", headers=said, content=b"x")
    forwarded = [one.strip().lower() for toy in toys for one in toy.forwarded]
    before = [f"{name.lower()}: {value}" for name, value in said.items()] if of_a_proxy else []
    assert forwarded == [*before, "x-forwarded-for: 127.0.0.1"]


@needs_haproxy
@pytest.mark.timed  # HAProxy has to notice within what a gateway waits.
async def test_gateways_are_replaced_and_killed_and_every_callback_is_answered_200() -> None:
    gateway = service_spec("gateway")
    absent = ("suppression_", "audit_", "reconciler_", "notifier_")
    of_compose = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]["gateway"]["environment"]
    leaving = {name: of_compose[name] for name in ("BACKHAUL_GATEWAY_LEAVE_S", "BACKHAUL_GATEWAY_SHUTDOWN_GRACE_S")}
    env = {name: value for name, value in gateway.env.items() if not any(one in value for one in absent)} | leaving
    gateways = [replace(gateway, name=name, env=env) for name in GATEWAYS]
    with scratch() as folder:
        stack = Stack(StackConfig(data_dir=folder, services=[service_spec("normalizer"), *gateways]))
        balancer = Balancer(folder, {name: stack.port(name, "http") for name in GATEWAYS})
        be_called(stack.services, balancer.url)
        try:
            await stack.start()
            async with balancer.running(), Town(balancer.url, stack.admin_token) as town:
                tenant = await town.platform.register()
                async with Load([tenant], connections=4) as load:
                    for name in GATEWAYS:
                        await load.more(20)
                        assert await stack.service(name).stop()
                        await load.more(20)
                        await stack.service(name).start()
                        await balancer.has(name)
                    await stack.service("gateway").kill()
                    await load.more(20)
                    await stack.service("gateway").start()
                assert not load.failures
                assert (await settle(stack, load, tenant)).events
        finally:
            await stack.kill_all()


def test_compose_has_what_haproxy_is_told_of() -> None:
    containers = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]
    config = (COMPOSE / "haproxy.cfg").read_text()
    assert re.findall(r"^  server (\S+) (\S+)$", config, re.MULTILINE) == [(name, f"{name}:8080") for name in GATEWAYS]
    one, other = (containers[name] for name in GATEWAYS)
    assert one["environment"] == other["environment"]
    assert one["volumes"][0] == other["volumes"][0]
    # A spool is one gateway's alone.
    assert one["volumes"][1] != other["volumes"][1]
    grace = float(one["stop_grace_period"].removesuffix("s"))
    leave, end = (float(one["environment"][f"BACKHAUL_GATEWAY_{name}_S"]) for name in ("LEAVE", "SHUTDOWN_GRACE"))
    http_request = re.search(r"^  timeout http-request (\d+)s$", config, re.MULTILINE)
    assert http_request is not None
    # The gateway's own limit ends a connection sooner where nothing is between.
    assert int(http_request[1]) > GatewaySettings.model_fields["gateway_head_timeout_s"].default
    inter = re.search(r" inter (\d+)ms fastinter (\d+)ms fall 2 ", config)
    assert inter is not None
    assert sum(map(int, inter.groups())) / 1000 < leave < leave + end < grace
