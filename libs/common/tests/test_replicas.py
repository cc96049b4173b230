"""Copies of streams and consumers on real servers: as the setting says, also where they were there before."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator

import pytest
from backhaul_common import jetstream
from backhaul_common.feed.pull import Durable
from backhaul_common.lifecycle import cancel
from backhaul_common.names import CALLBACKS_STREAM, EVENTS_STREAM, NOTICES_STREAM
from backhaul_common.settings import CommonSettings
from backhaul_local.nats_server import NatsConfig, NatsServer, nats_cluster
from backhaul_local.ports import Hold
from backhaul_local.scratch import scratch
from backhaul_testing import broker
from backhaul_testing.waiting import until
from nats.js import JetStreamContext
from structlog.testing import capture_logs

pytestmark = [pytest.mark.servers, pytest.mark.slow]


@pytest.fixture
async def cluster() -> AsyncIterator[list[NatsServer]]:
    with scratch() as folder, Hold() as hold:
        servers = nats_cluster(
            NatsConfig(data_dir=folder / "nats", sync_always=False, password="of-everybody"), 3, hold=hold
        )
        try:
            await asyncio.gather(*(server.start() for server in servers))
            yield servers
        finally:
            for server in servers:
                server.kill_blocking()


async def _copies(js: JetStreamContext) -> set[int]:
    """How many copies the servers have of each stream and of its durable consumer, where all are up to date."""
    found = set()
    for stream in (CALLBACKS_STREAM, EVENTS_STREAM, NOTICES_STREAM):
        for info in (await js.stream_info(stream), await js.consumer_info(stream, "reader")):
            peers = (info.cluster.replicas if info.cluster is not None else None) or []
            found.add(1 + sum(bool(peer.current) for peer in peers))
    return found


async def test_an_installation_grows_by_the_setting(cluster: list[NatsServer]) -> None:
    client = await broker.connect([server.uri for server in cluster])
    js = client.jetstream()

    async def ensure(replicas: int) -> None:
        settings = CommonSettings(nats_url=cluster[0].uri, stream_replicas=replicas)

        async def done() -> bool:
            # A cluster that has no leader yet says so, and is asked again, as a service does.
            try:
                await jetstream.ensure_streams(js, settings)
                for stream in (CALLBACKS_STREAM, EVENTS_STREAM, NOTICES_STREAM):
                    await Durable(stream, "reader").ensure(js)
            except jetstream.AWAY:
                return False
            return await _copies(js) == {replicas}

        await until(f"{replicas} copies of all", done, pause_s=0.1)

    try:
        await ensure(1)
        await js.publish("callbacks.acme.twilio", b"kept")
        # What is there is copied to the other servers, by whichever service sees the setting first.
        await ensure(3)
        info = await js.stream_info(CALLBACKS_STREAM)
        assert (info.config.num_replicas, info.state.messages) == (3, 1)
        await ensure(1)
        assert (await js.stream_info(CALLBACKS_STREAM)).state.messages == 1
    finally:
        await client.close()


async def test_a_server_that_is_alone_refuses_more_copies_than_one_and_says_so(fresh_nats: NatsServer) -> None:
    client = await broker.connect(fresh_nats.uri)
    js = client.jetstream()
    alone = CommonSettings(nats_url=fresh_nats.uri)
    wanted = CommonSettings(nats_url=fresh_nats.uri, stream_replicas=3)
    try:
        for _ in ("made anew", "changed"):
            with pytest.raises(jetstream.AWAY, match=r"BACKHAUL_STREAM_REPLICAS is 3, and .*too few servers"):
                await jetstream.ensure_streams(js, wanted)
            await jetstream.ensure_streams(js, alone)
    finally:
        await client.close()


async def test_a_client_that_knows_one_server_goes_on_at_the_others(cluster: list[NatsServer]) -> None:
    """Servers name each other to clients by address alone; the credentials are those of the one that was given."""
    with capture_logs() as lines:
        client = await jetstream.connect(CommonSettings(nats_url=cluster[0].uri), "test")
        try:

            async def all_known() -> bool:
                return len(client.servers) >= len(cluster)

            await until("all servers to be known", all_known)
            assert {server.port for server in client.servers} == {server.port for server in cluster}
            assert len(client.servers) == len(cluster)
            await cluster[0].kill()

            async def elsewhere() -> bool:
                url = client.connected_url
                return client.is_connected and url is not None and url.port != cluster[0].port

            await until("another server", elsewhere)
            await client.flush(timeout=60)
        finally:
            await client.close()
    assert not [line for line in lines if "Authorization" in line.get("error", "")]


@pytest.mark.parametrize(
    ("scheme", "known"), [("tls", {"localhost", "192.0.2.1"}), ("nats", {"localhost", "192.0.2.1", "else.example.net"})]
)
async def test_with_tls_a_name_that_was_not_given_is_no_server_and_gets_no_credentials(
    scheme: str, known: set[str]
) -> None:
    """Servers are named before TLS stands, by whoever is on the way to the one that was given."""
    named = ["else.example.net:4222", "192.0.2.1:4222", "localhost:4333"]
    told = {"version": "2.15.0", "max_payload": 1024, "headers": True, "tls_required": scheme == "tls"}
    said = asyncio.Event()

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"INFO {json.dumps({**told, 'connect_urls': named})}\r\n".encode())
        await reader.read(1)  # The client's first words come after it has heard of the others.
        said.set()
        writer.close()

    server = await asyncio.start_server(tell, "localhost", 0, family=socket.AF_INET)
    port = server.sockets[0].getsockname()[1]
    client = jetstream.Connection()
    connecting = asyncio.create_task(
        jetstream.connect(CommonSettings(nats_url=f"{scheme}://u:p@localhost:{port}"), "test", client=client)
    )
    with capture_logs():
        try:
            await asyncio.wait_for(said.wait(), 60)
            assert {found.hostname for found in client.servers} == known
            assert {found.username for found in client.discovered_servers} == {"u"}
        finally:
            await cancel(connecting)
            server.close()
