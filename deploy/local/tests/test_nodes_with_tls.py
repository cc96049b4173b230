"""Three nodes of each server that speak TLS, with their clients and with each other."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import Any

import nats
import pytest
from backhaul_local.certificates import authority_path, client_context, ensure_certificates
from backhaul_local.pytest_plugin import StackFactory
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import StreamConfig
from pymongo import AsyncMongoClient
from pymongo.write_concern import WriteConcern


@pytest.mark.slow
async def test_a_node_of_each_dies_and_writing_goes_on(stack_factory: StackFactory) -> None:
    async with stack_factory(nodes=3, tls=True, services=(), start=False) as stack:
        await stack.start_servers()
        folder = stack.config.data_dir / "tls"
        ensure_certificates(stack.config.data_dir / "strangers", ["probe"])
        stranger = client_context(stack.config.data_dir / "strangers")
        stranger.load_verify_locations(authority_path(folder))
        for server in stack.nats_servers:
            route = server.config.route_port
            assert await asyncio.to_thread(_greeting, route, client_context(folder)) == b"INFO "
            assert await asyncio.to_thread(_greeting, route, stranger) == b""
        client = await nats.connect(stack.nats_url.split(","), tls=client_context(folder))
        uri = f"{stack.mongo_uri}&tls=true&tlsCAFile={authority_path(folder)}"
        proof = str(stack.config.data_dir / "mongo" / "probe.pem")
        mongo: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(uri, tlsCertificateKeyFile=proof)
        async with mongo:
            rows = mongo["t"].get_collection("rows", write_concern=WriteConcern("majority"))
            js = client.jetstream()
            await _until_done(js, StreamConfig(name="S", subjects=["s.>"], num_replicas=3))
            await js.publish("s.before", b"1")
            await rows.insert_one({"_id": 1})
            cluster = (await js.stream_info("S")).cluster
            assert cluster is not None
            assert cluster.leader in {server.name for server in stack.nats_servers}
            await stack.kill(cluster.leader)
            primary = await mongo.primary
            assert primary is not None
            [led] = [server for server in stack.mongo_servers if server.port == primary[1]]
            await led.kill()
            await _published(js, "s.after", b"2")
            await rows.insert_one({"_id": 2})
            assert (await js.stream_info("S")).state.messages == 2
            assert [row["_id"] async for row in rows.find(sort=[("_id", 1)])] == [1, 2]
        await client.close()


def _greeting(port: int, context: ssl.SSLContext) -> bytes:
    """The first word that the server says to whoever shows a certificate; empty where it says nothing."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=60) as plain,
        suppress(ssl.SSLError, ConnectionError),
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        return secured.recv(5)
    return b""


async def _until_done(js: JetStreamContext, config: StreamConfig) -> None:
    """The servers elect who makes streams, which takes a while."""
    async with asyncio.timeout(60):
        while True:
            try:
                await js.add_stream(config)
                return
            except NatsError:
                await asyncio.sleep(0.1)


async def _published(js: JetStreamContext, subject: str, data: bytes) -> None:
    """As publishers do, until there is another leader."""
    async with asyncio.timeout(60):
        while True:
            try:
                await js.publish(subject, data, timeout=1, headers={"Nats-Msg-Id": subject})
                return
            except NatsError:
                await asyncio.sleep(0.1)
