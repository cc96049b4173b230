"""TLS with certificates of both sides."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from backhaul_common import rpc
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.lifecycle import Readiness
from backhaul_common.settings import CommonSettings
from backhaul_common.tracing import Tracing
from backhaul_testing import authority
from grpc_health.v1 import health_pb2, health_pb2_grpc


class Authority(authority.Authority):
    """It issues settings."""

    def settings(
        self, name: str, address: str = "127.0.0.1", *, dns: Sequence[str] = (), uris: Sequence[str] = ()
    ) -> CommonSettings:
        """The settings of a service whose certificate this authority signed."""
        files = self.issue(name, address, dns=dns, uris=uris)
        return CommonSettings(grpc_tls_cert_file=files.cert, grpc_tls_key_file=files.key, grpc_tls_ca_file=self.file)


@dataclass
class Secured:
    """A server with TLS."""

    target: str
    authority: Authority


@pytest.fixture
async def secured(tmp_path: Path) -> AsyncIterator[Secured]:
    authority = Authority(tmp_path, "authority")
    async with AsyncExitStack() as stack:
        server = await rpc.serve(
            stack,
            authority.settings("server"),
            Tracing("test", None),
            Readiness(),
            listen="127.0.0.1:0",
            services=[],
            register=lambda _: None,
        )
        yield Secured(f"127.0.0.1:{server.port}", authority)


async def check(channel: grpc.aio.Channel) -> int:
    async with channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
    return int(answer.status)


async def test_a_client_with_a_certificate_is_served(secured: Secured) -> None:
    status = await check(rpc.connect(secured.target, secured.authority.settings("client")))
    assert status in (health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING)


async def test_a_client_without_tls_is_refused(secured: Secured) -> None:
    with pytest.raises(BackhaulError) as caught:
        await check(rpc.connect(secured.target, CommonSettings()))
    assert caught.value.code is Code.UNAVAILABLE


async def test_a_client_without_a_certificate_is_refused(secured: Secured) -> None:
    credentials = grpc.ssl_channel_credentials(root_certificates=secured.authority.file.read_bytes())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await check(grpc.aio.secure_channel(secured.target, credentials))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_client_of_another_authority_is_refused(secured: Secured, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    stranger = Authority(folder, "stranger").settings("client")
    # It trusts the server; the server does not trust it.
    settings = stranger.model_copy(update={"grpc_tls_ca_file": secured.authority.file})
    with pytest.raises(BackhaulError) as caught:
        await check(rpc.connect(secured.target, settings))
    assert caught.value.code is Code.UNAVAILABLE


async def test_a_server_of_another_authority_is_refused(secured: Secured, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    other = Authority(folder, "other")
    settings = secured.authority.settings("client").model_copy(update={"grpc_tls_ca_file": other.file})
    with pytest.raises(BackhaulError) as caught:
        await check(rpc.connect(secured.target, settings))
    assert caught.value.code is Code.UNAVAILABLE


async def test_a_server_of_another_name_is_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    async with AsyncExitStack() as stack:
        server = await rpc.serve(
            stack,
            authority.settings("server", "192.0.2.1"),
            Tracing("test", None),
            Readiness(),
            listen="127.0.0.1:0",
            services=[],
            register=lambda _: None,
        )
        with pytest.raises(BackhaulError) as caught:
            await check(rpc.connect(f"127.0.0.1:{server.port}", authority.settings("client")))
    assert caught.value.code is Code.UNAVAILABLE


_SERVER = """
import asyncio, sys
from contextlib import AsyncExitStack
from pathlib import Path
from backhaul_common import rpc
from backhaul_common.lifecycle import Readiness
from backhaul_common.settings import CommonSettings
from backhaul_common.tracing import Tracing

async def main(cert, key, authority):
    settings = CommonSettings(grpc_tls_cert_file=cert, grpc_tls_key_file=key, grpc_tls_ca_file=authority)
    async with AsyncExitStack() as stack:
        server = await rpc.serve(
            stack, settings, Tracing("test", None), Readiness(), listen="127.0.0.1:0", services=[],
            register=lambda _: None,
        )
        print(server.port, file=sys.stderr, flush=True)
        await asyncio.Event().wait()

asyncio.run(main(*map(Path, sys.argv[1:])))
"""


@pytest.mark.slow
async def test_a_flood_of_handshakes_does_not_end_a_server_whose_certificate_is_renewed(tmp_path: Path) -> None:
    """In a process of its own: what gRPC frees too early ends the process, and with it these tests."""
    authority = Authority(tmp_path, "authority")
    files = authority.issue("server")
    context = ssl.create_default_context(cafile=authority.file)
    context.load_cert_chain(*authority.issue("client"))
    context.set_alpn_protocols(["h2"])
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _SERVER,
        *files,
        authority.file,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert server.stderr is not None
        port = int(await server.stderr.readline())

        def shown() -> bytes | None:
            plain = socket.create_connection(("127.0.0.1", port), timeout=60)
            with plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as secured:
                return secured.getpeercert(binary_form=True)

        def visit() -> None:
            for _ in range(20):
                # The server turns to its certificate when somebody connects, whatever they say then.
                with ExitStack() as open_at_once:
                    for _ in range(20):
                        open_at_once.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
                    shown()

        before = await asyncio.to_thread(shown)
        for _ in range(3):
            async with asyncio.TaskGroup() as visitors:
                # By threads, since one would only make one after another.
                for _ in range(8):
                    visitors.create_task(asyncio.to_thread(visit))
                authority.issue("server")
        assert before != ssl.PEM_cert_to_DER_cert(files.cert.read_text()) == await asyncio.to_thread(shown)
        assert server.returncode is None
    finally:
        with suppress(ProcessLookupError):
            server.kill()
        await server.wait()
