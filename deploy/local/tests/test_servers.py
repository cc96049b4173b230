"""Each real server: what was acknowledged is still there after kill -9, on the same port."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from backhaul_local.errors import LocalStackError, PortInUseError, StartError
from backhaul_local.mongod import MongoConfig, MongoServer, mongo_replica_set
from backhaul_local.nats_server import NatsConfig, NatsServer
from backhaul_local.object_store import ObjectStoreConfig, ObjectStoreServer
from backhaul_local.ports import LOOPBACK, Band, Hold, is_free
from backhaul_testing import broker
from backhaul_testing.waiting import until
from minio import Minio
from nats.js.api import StreamConfig
from pymongo import MongoClient
from pymongo.errors import PyMongoError

pytestmark = pytest.mark.slow


@pytest.fixture
async def mongod(data_dir: Path) -> AsyncIterator[MongoServer]:
    server = MongoServer(MongoConfig(data_dir=data_dir / "mongo"))
    await server.start()
    yield server
    await server.kill()


@pytest.fixture
def s3(data_dir: Path) -> Iterator[ObjectStoreServer]:
    server = ObjectStoreServer(ObjectStoreConfig(data_dir=data_dir / "s3"))
    server.start_blocking()
    yield server
    server.kill_blocking()


def count_documents(uri: str) -> int:
    client: MongoClient[dict[str, Any]] = MongoClient(uri, serverSelectionTimeoutMS=5_000)
    with client:
        return client.kept.documents.count_documents({})


def insert_document(uri: str) -> None:
    client: MongoClient[dict[str, Any]] = MongoClient(uri, serverSelectionTimeoutMS=5_000)
    with client:
        client.kept.documents.insert_one({"said": "acknowledged"})


async def test_mongod_keeps_what_it_acknowledged(mongod: MongoServer) -> None:
    uri, first_pid = mongod.uri, mongod.pid
    insert_document(uri)
    await mongod.kill()
    assert not mongod.running
    assert mongod.returncode == -9
    await mongod.start()
    assert (mongod.uri, mongod.pid == first_pid) == (uri, False)
    assert count_documents(uri) == 1
    insert_document(uri)
    assert await mongod.stop(), "SIGTERM must be enough"
    await mongod.start()
    assert count_documents(uri) == 2


async def test_mongod_lets_go_of_what_was_dropped_when_its_history_is_over(data_dir: Path) -> None:
    server = MongoServer(MongoConfig(data_dir=data_dir / "mongo", history_s=1))
    await server.start()
    client: MongoClient[dict[str, Any]] = MongoClient(server.uri)

    def open_files() -> int:
        return len(os.listdir(f"/proc/{server.pid}/fd"))

    async def few_are_open() -> bool:
        client.kept.documents.insert_one({})  # Its clock is that of its writes.
        return open_files() < before + 20

    try:
        with client:
            client.kept.documents.insert_one({})
            before = open_files()
            for number in range(50):
                client.dropped[f"c{number}"].create_index("a")
            assert open_files() >= before + 100
            client.drop_database("dropped")
            await until("files of dropped collections closed", few_are_open, pause_s=0.2)
    finally:
        await server.kill()


async def test_three_mongods_elect_another_primary_and_lose_nothing(data_dir: Path) -> None:
    with Hold() as hold:
        nodes = mongo_replica_set(MongoConfig(data_dir=data_dir / "mongo", password="of-a-test"), 3, hold=hold)
        try:
            await asyncio.gather(*(node.start() for node in nodes))
            assert [node.name for node in nodes] == ["mongod", "mongod-2", "mongod-3"]
            uri = nodes[0].uri
            client: MongoClient[dict[str, Any]] = MongoClient(uri, w="majority")
            with client:
                client.kept.documents.insert_one({"said": "acknowledged"})
                assert client.primary == (LOOPBACK, nodes[0].port)
                await nodes[0].kill()

                async def written() -> bool:
                    try:
                        client.kept.documents.insert_one({"said": "acknowledged"})
                    except PyMongoError:
                        return False
                    return True

                await until("another primary", written)
                assert client.kept.documents.count_documents({}) == 2
            await nodes[0].start()
        finally:
            for node in nodes:
                node.kill_blocking()


async def test_mongod_data_may_move_to_another_port(mongod: MongoServer) -> None:
    insert_document(mongod.uri)
    await mongod.stop()
    moved = MongoServer(dataclasses.replace(mongod.config, port=0))
    await moved.start()
    try:
        assert moved.port != mongod.port
        assert count_documents(moved.uri) == 1
    finally:
        await moved.kill()


async def test_mongod_transactions_work(mongod: MongoServer) -> None:
    client: MongoClient[dict[str, Any]] = MongoClient(mongod.uri)
    with client, client.start_session() as session, session.start_transaction():
        client.kept.documents.insert_one({"in": "a transaction"}, session=session)
    assert count_documents(mongod.uri) == 1


@pytest.mark.parametrize("sync_always", [True, False])
async def test_jetstream_keeps_what_it_acknowledged(data_dir: Path, sync_always: bool) -> None:
    server = NatsServer(NatsConfig(data_dir=data_dir / 'a "quoted" folder', sync_always=sync_always))
    await server.start()
    try:
        uri = server.uri
        client = await broker.connect(uri)
        await client.jetstream().add_stream(StreamConfig(name="KEPT", subjects=["kept.>"]))
        # Near the limit, so that the size that was asked for is in effect too.
        await client.jetstream().publish("kept.a", b"x" * 7_900_000)
        await client.close()
        await server.kill()
        await server.restart()
        assert server.uri == uri
        client = await broker.connect(uri)
        assert (await client.jetstream().stream_info("KEPT")).state.messages == 1
        await client.close()
        assert await server.stop()
    finally:
        await server.kill()


def test_object_store_keeps_what_it_acknowledged(s3: ObjectStoreServer) -> None:
    config = s3.config
    client = Minio(s3.uri.removeprefix("http://"), config.access_key, config.secret_key, secure=False)
    client.put_object(config.bucket, "kept", BytesIO(b"acknowledged"), 12)
    s3.kill_blocking()
    s3.start_blocking()
    with client.get_object(config.bucket, "kept") as answer:
        assert answer.read() == b"acknowledged"
    assert [item.object_name for item in client.list_objects(config.bucket)] == ["kept"], "the probe left something"
    assert s3.stop_blocking()
    assert all(is_free(claim.port) for claim in s3.claims())
    assert list(s3.config.data_dir.rglob("*.sock")) == []


def test_servers_that_choose_side_by_side_choose_different_ports(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Everybody has the same luck, and nobody listens yet.
    monkeypatch.setattr("random.sample", lambda candidates, k: list(candidates)[:k])
    servers = [NatsServer(NatsConfig(data_dir=data_dir)) for _ in range(40)]
    with ThreadPoolExecutor(len(servers)) as choosers:
        ports = list(choosers.map(lambda server: server.port, servers))
    assert len(set(ports)) == len(servers)


def test_nobody_else_is_given_the_port_of_a_server_that_was_killed(fresh_nats: NatsServer) -> None:
    others = set(Band.NATS.value) - {fresh_nats.port}
    fresh_nats.kill_blocking()
    assert is_free(fresh_nats.port)
    with Hold() as hold, pytest.raises(LocalStackError, match="No 1 free ports"):
        hold.choose(1, Band.NATS, avoid=others)
    fresh_nats.start_blocking()


def test_a_port_may_be_chosen_again_when_its_server_is_given_up(data_dir: Path) -> None:
    server = NatsServer(NatsConfig(data_dir=data_dir / "nats"))
    server.start_blocking()
    port = server.port
    server.kill_blocking()
    others = set(Band.NATS.value) - {port}
    del server
    gc.collect()
    with Hold() as hold:
        assert hold.choose(1, Band.NATS, avoid=others) == [port]


def sockets_of(s3: ObjectStoreServer) -> list[Path]:
    ports = {str(claim.port) for claim in s3.claims()}
    found = Path("/tmp").glob("seaweedfs-*.sock")  # noqa: S108  # where SeaweedFS puts them.
    return [path for path in found if path.stem.rpartition("-")[2] in ports]


def test_killed_object_store_leaves_no_sockets(s3: ObjectStoreServer) -> None:
    assert sockets_of(s3) != []
    s3.kill_blocking()
    assert sockets_of(s3) == []


async def test_next_start_removes_the_sockets_of_one_whose_owner_was_killed(s3: ObjectStoreServer) -> None:
    os.kill(s3.pid, signal.SIGKILL)  # As the system does when `up` itself is killed: nobody cleans up.
    await s3.wait_exit()
    assert sockets_of(s3) != []
    following = ObjectStoreServer(s3.config)
    await following.start()
    try:
        assert sockets_of(s3) == []
        assert sockets_of(following) != []
    finally:
        await following.kill()


@pytest.mark.parametrize("port", [8_333, 18_333, 28_333, 0])
def test_ports_of_the_object_store_never_clash(data_dir: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def unlucky(candidates: Sequence[int], k: int) -> list[int]:
        return sorted(candidates, key=lambda candidate: candidate % 10_000 != 8_333)

    monkeypatch.setattr("random.sample", unlucky)
    claimed = [claim.port for claim in ObjectStoreServer(ObjectStoreConfig(data_dir=data_dir, port=port)).claims()]
    assert len(claimed) == len(set(claimed)) == 10


async def test_port_in_the_way_is_named_with_its_holder(data_dir: Path, fresh_nats: NatsServer) -> None:
    second = NatsServer(NatsConfig(data_dir=data_dir, port=fresh_nats.port))
    with pytest.raises(PortInUseError) as caught:
        await second.start()
    assert f"Port {fresh_nats.port} (NATS)" in str(caught.value)
    assert f"process {fresh_nats.pid} (" in str(caught.value)
    assert "nats-server" in str(caught.value)
    assert "BACKHAUL_NATS_URL" in str(caught.value)
    assert not second.running


async def test_death_at_the_start_shows_the_log(data_dir: Path) -> None:
    server = NatsServer(NatsConfig(data_dir=data_dir, max_payload="nonsense"))
    with pytest.raises(StartError) as caught:
        await server.start()
    assert "nats ended while starting (exit code 1)" in str(caught.value)
    assert "nats.conf:3" in str(caught.value), "the server's own words must be there"
    assert str(server.log_path) in str(caught.value)


async def test_paused_server_can_be_resumed_and_stopped(fresh_nats: NatsServer) -> None:
    fresh_nats.pause()
    async with asyncio.timeout(60):
        # The kernel stops one thread after another, and one that still runs may answer.
        while fresh_nats.probe() is None:
            await asyncio.sleep(0.01)
    fresh_nats.resume()
    assert fresh_nats.probe() is None
    fresh_nats.pause()
    assert await fresh_nats.stop(), "a paused process must get to see the request to stop"


async def test_starting_twice_is_refused(fresh_nats: NatsServer) -> None:
    with pytest.raises(LocalStackError, match="already running"):
        await fresh_nats.start()
    assert fresh_nats.running
