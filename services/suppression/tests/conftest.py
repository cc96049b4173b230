"""A database of the test's own, and the whole service on real servers, in the test's own event loop."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from backhaul_common import jetstream, mongo
from backhaul_common.store_format import StoreFormat
from backhaul_local.nats_server import NatsServer
from backhaul_suppression.settings import SuppressionSettings
from backhaul_testing import broker, make

# Test folders are no packages: what several test files of this one share is found by its name.
sys.path.insert(0, str(Path(__file__).parent))

import service_rig
from service_rig import RigFactory
from store_rig import Rig

_SILENT = {"test_consumer.py", "test_lists.py"}
"""Tests of a MongoDB that says nothing need the patience that services have."""


@pytest.fixture(autouse=True)
def _patience(request: pytest.FixtureRequest) -> None:
    if request.path.name not in _SILENT:
        request.getfixturevalue("patient_mongo")


@pytest.fixture
async def rig(mongo_server: Any, mongo_database: str) -> AsyncIterator[Rig]:
    """A prepared database, and nothing that runs."""
    client = mongo.connect(mongo_server.uri)
    database = mongo.database(client, mongo_database)
    await StoreFormat(database).ensure()
    made = Rig(client, database)
    await made.store().prepare()
    yield made
    client.close()


@pytest.fixture
def service_factory(mongo_server: Any, mongo_database: str, fresh_nats: NatsServer) -> RigFactory:
    """``async with service_factory(copies=2) as service``: copies that answer, with the tenants acme and globex."""

    @asynccontextmanager
    async def create(*, copies: int = 1, **overrides: Any) -> AsyncIterator[service_rig.Rig]:
        async with AsyncExitStack() as stack:
            values: dict[str, Any] = {
                "nats_url": fresh_nats.uri,
                "mongo_uri": mongo_server.uri,
                "mongo_database": mongo_database,
                "internal_token": "0123456789abcdef" * 2,
                "log_level": "warning",
                **overrides,
            }
            settings = SuppressionSettings(**values)
            client = mongo.connect(mongo_server.uri)
            stack.callback(client.close)
            connection = await broker.connect(fresh_nats.uri)
            stack.push_async_callback(connection.close)
            await jetstream.ensure_streams(connection.jetstream(), settings)
            database = mongo.database(client, mongo_database)
            # Tests write tenants before the service has seen the database.
            await StoreFormat(database).ensure()
            made = service_rig.Rig(connection, database, settings)
            acme = make.tenant("acme")
            await made.register(acme, make.tenant("globex"))
            for _ in range(copies):
                await stack.enter_async_context(made.another())
            await made.answering(acme)
            yield made

    return create


@pytest.fixture
async def service(service_factory: RigFactory) -> AsyncIterator[service_rig.Rig]:
    """One copy with its defaults."""
    async with service_factory() as running:
        yield running
