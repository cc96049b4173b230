"""What the tests of the notifier find beside them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop
from backhaul_common import mongo
from backhaul_common.store_format import StoreFormat
from backhaul_local.nats_server import NatsServer

# Test folders are no packages: what several test files of this one share is found by its name.
sys.path.insert(0, str(Path(__file__).parent))


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop of the deployed service, on which connections end, and fail, in other ways than on asyncio's own."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def deliveries(mongo_server: Any, mongo_database: str) -> AsyncIterator[Any]:
    """Two tenants with subscriptions, and nothing that runs: a ``deliveries_rig.DeliveriesRig``."""
    from deliveries_rig import DeliveriesRig

    client = mongo.connect(mongo_server.uri)
    database = mongo.database(client, mongo_database)
    await StoreFormat(database).ensure()
    rig = DeliveriesRig(database)
    await rig.prepare()
    yield rig
    await mongo.close(client)


@pytest.fixture
async def deliveries_stub(deliveries: Any) -> AsyncIterator[Any]:
    """What ``deliveries`` answers over gRPC."""
    from deliveries_rig import serving_deliveries

    async with serving_deliveries(deliveries) as stub:
        yield stub


@pytest.fixture
async def enqueuing(mongo_server: Any, mongo_database: str, fresh_nats: NatsServer) -> AsyncIterator[Any]:
    """Streams, a database with two tenants, and nobody who enqueues: an ``enqueuing_rig.Rig``."""
    from enqueuing_rig import rig_at

    async with rig_at(fresh_nats.uri, mongo_server.uri, mongo_database) as rig:
        yield rig


@pytest.fixture
async def site(mongo_server: Any, mongo_database: str, nats_url: str) -> AsyncIterator[Any]:
    """The whole service, which does not run yet: a ``site_rig.Site``."""
    from site_rig import site_at

    async with site_at(mongo_server.uri, mongo_database, nats_url) as site:
        yield site
