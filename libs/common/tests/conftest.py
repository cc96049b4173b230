"""What the library's tests share."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from backhaul_common import mongo
from backhaul_common.jetstream import Publisher
from backhaul_local.mongod import MongoServer
from backhaul_local.nats_server import NatsServer
from backhaul_testing import broker
from nats.aio.client import Client
from structlog.testing import capture_logs

# Test folders are no packages: what several test files of this one share is found by its name.
sys.path.insert(0, str(Path(__file__).parent))

from access_rig import World
from feed_rig import feeding_from
from test_rpc_tls import Authority


@pytest.fixture
async def client(fresh_nats: NatsServer) -> AsyncIterator[Client]:
    """A connection to a server of the test's own."""
    client = await broker.connect(fresh_nats.uri)
    yield client
    await client.close()


@pytest.fixture
async def publisher(client: Client) -> Publisher:
    """Publishes over that connection."""
    publisher = Publisher()
    await publisher.attach(client)
    return publisher


@pytest.fixture
def accounts(mongo_server: MongoServer, mongo_database: str) -> Iterator[mongo.Collection]:
    client = mongo.connect(mongo_server.uri)
    yield mongo.database(client, mongo_database)["services"]
    client.close()


@pytest.fixture
def collection(mongo_server: MongoServer, mongo_database: str) -> Iterator[mongo.Collection]:
    """The tenants' documents, of which there are none yet."""
    client = mongo.connect(mongo_server.uri)
    yield mongo.database(client, mongo_database)["tenants"]
    client.close()


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
async def world(request: Any, accounts: mongo.Collection, tmp_path: Path) -> AsyncIterator[World]:
    made = World(accounts, Authority(tmp_path, "authority") if request.param else None)
    with capture_logs():
        async with made.stack:
            await made.directory.refresh()
            await made.start()
            yield made


@pytest.fixture
async def secured(accounts: mongo.Collection, tmp_path: Path) -> AsyncIterator[World]:
    made = World(accounts, Authority(tmp_path, "authority"))
    with capture_logs():
        async with made.stack:
            await made.directory.refresh()
            await made.start()
            yield made


@pytest.fixture
async def plain(accounts: mongo.Collection) -> AsyncIterator[World]:
    made = World(accounts, None)
    with capture_logs():
        async with made.stack:
            await made.directory.refresh()
            await made.start()
            yield made


@pytest.fixture
def feeding(fresh_nats: NatsServer) -> Any:
    """``async with feeding(config) as fed``; the same broker each time."""
    return partial(feeding_from, fresh_nats)
