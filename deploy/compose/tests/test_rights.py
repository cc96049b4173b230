"""What each service may do in MongoDB and NATS is no more than its code names; ``test_tls.py`` has it do all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rights
import servers
from backhaul_common import names
from backhaul_common.jetstream import Connection
from backhaul_local.mongod import MongoConfig, MongoServer
from backhaul_local.nats_server import NatsConfig, NatsServer
from backhaul_local.ports import accepts_connections
from backhaul_local.scratch import scratch
from pymongo import MongoClient
from pymongo.errors import OperationFailure

ROOT = Path(__file__).resolve().parents[3]
PASSWORDS = {name: f"password-of-{name}" for name in (*rights.SERVICES, servers.ADMIN)}
DATABASE = "backhaul"


class BareMongo(MongoServer):
    """A mongod that asks for credentials, and is neither a replica set nor has any user yet."""

    def probe(self) -> str | None:
        return None if accepts_connections(self.port) else "no connection"


class NatsWithUsers(NatsServer):
    def _config_text(self) -> str:
        store = str(self.config.data_dir / "jetstream")
        return rights.nats_config(PASSWORDS, listen=f"127.0.0.1:{self.port}", store=store)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with scratch() as made:
        yield made


@pytest.fixture(scope="module")
def mongo(folder: Path) -> Iterator[MongoServer]:
    server = BareMongo(MongoConfig(data_dir=folder / "mongo", password="any: it makes mongod ask"))
    server.start_blocking()
    try:
        for _ in range(2):  # The second time changes nothing.
            servers.prepare_mongo(server.port, f"127.0.0.1:{server.port}", DATABASE, PASSWORDS)
        yield server
    finally:
        server.kill_blocking()


@pytest.fixture(scope="module")
def broker(folder: Path) -> Iterator[NatsServer]:
    server = NatsWithUsers(NatsConfig(data_dir=folder / "nats", user="audit", password=PASSWORDS["audit"]))
    server.start_blocking()
    try:
        yield server
    finally:
        server.kill_blocking()


def mongo_uri(server: MongoServer, service: str) -> str:
    return f"mongodb://{service}:{PASSWORDS[service]}@127.0.0.1:{server.port}/?replicaSet=rs0&authSource=admin"


def nats_url(server: NatsServer, service: str) -> str:
    return f"nats://{service}:{PASSWORDS[service]}@127.0.0.1:{server.port}"


@pytest.mark.servers
@pytest.mark.parametrize("service", rights.SERVICES)
def test_what_a_service_does_not_name_is_closed_to_it(service: str, mongo: MongoServer) -> None:
    allowed = {*rights.RIGHTS[service].collections, *rights.COMMON_READS, names.META_COLLECTION}
    client: MongoClient[dict[str, Any]] = MongoClient(mongo_uri(mongo, service))
    with client:
        for collection in names.STORE_COLLECTIONS - allowed:
            with pytest.raises(OperationFailure, match="not authorized"):
                client[DATABASE][collection].find_one()
        for collection in allowed - {*rights.RIGHTS[service].collections}:
            with pytest.raises(OperationFailure, match="not authorized"):
                client[DATABASE][collection].delete_one({})
        with pytest.raises(OperationFailure, match="not authorized"):
            client.drop_database(DATABASE)
        # Whoever may log a change writes an entry and completes it, and deletes none.
        log = client[DATABASE][names.CHANGES_COLLECTION]
        if rights.RIGHTS[service].logs:
            log.insert_one({"_id": service})
            assert log.update_one({"_id": service}, {"$set": {"status": 200}}).matched_count == 1
            with pytest.raises(OperationFailure, match="not authorized"):
                log.delete_one({"_id": service})


@pytest.mark.servers
async def test_nobody_but_who_writes_a_stream_publishes_to_it(broker: NatsServer) -> None:
    """Whoever publishes to ``callbacks.>`` stores callbacks that count as verified."""
    refused: dict[str, set[str]] = {}
    subjects = {f"{stream.lower()}.>": f"{stream.lower()}.acme.one" for stream in names.STREAMS}
    for service in rights.SERVICES:
        errors: list[str] = []
        said_all = asyncio.Event()

        async def note(error: Exception, errors: list[str] = errors, said_all: asyncio.Event = said_all) -> None:
            errors.append(str(error).lower())
            if "the.end" in errors[-1]:
                said_all.set()

        client = Connection()
        await client.connect(nats_url(broker, service), error_cb=note)
        for subject in (*subjects.values(), "$JS.API.STREAM.DELETE.CALLBACKS", "the.end"):  # Nobody may say the last.
            await client.publish(subject, b"")
        async with asyncio.timeout(60):
            await said_all.wait()
        await client.close()
        refused[service] = {one for one in (*subjects.values(), "stream.delete") if any(one in said for said in errors)}
    for service, of in rights.RIGHTS.items():
        wanted = {example for pattern, example in subjects.items() if pattern not in of.publishes}
        assert refused[service] == wanted | {"stream.delete"}


def test_the_rows_name_what_the_code_names() -> None:
    """Each collection is written by one service, and is one that its source names."""
    named = [collection for of in rights.RIGHTS.values() for collection in of.collections]
    assert sorted(named) == sorted(names.STORE_COLLECTIONS - {names.META_COLLECTION})
    by_value = {value: name for name, value in vars(names).items() if isinstance(value, str)}
    for service, of in rights.RIGHTS.items():
        source = "".join(path.read_text() for path in (ROOT / "services" / service / "src").rglob("*.py"))
        for value in (*of.collections, *of.consumes):
            if service != "gateway" or value not in names.STREAMS:  # It names the streams together.
                assert by_value[value] in source, f"{service} does not name {by_value[value]}."
