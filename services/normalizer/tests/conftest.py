"""A whole normalizer on real servers, in the test's own event loop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from backhaul_common import jetstream, mongo
from backhaul_common.lifecycle import cancel
from backhaul_common.rpc import connect
from backhaul_common.store_format import StoreFormat
from backhaul_local.nats_server import NatsServer
from backhaul_local.ports import Hold
from backhaul_normalizer import app
from backhaul_normalizer.settings import NormalizerSettings
from backhaul_normalizer.store import MongoEventStore
from backhaul_proto.normalizer.v1.normalizer_pb2_grpc import NormalizerServiceStub
from backhaul_proto.normalizer.v1.records_pb2_grpc import RecordServiceStub
from backhaul_proto.normalizer.v1.replays_pb2_grpc import ReplayServiceStub
from backhaul_proto.tenantdata.v1.tenantdata_pb2_grpc import TenantDataServiceStub
from backhaul_testing import broker, make

# Test folders are no packages: what several test files of this one share is found by its name.
sys.path.insert(0, str(Path(__file__).parent))

from consumer_rig import consuming_with
from normalizer_rig import Rig, RigFactory

_SILENT = {"test_silence.py"}
"""Tests of a MongoDB that says nothing need the patience that services have."""


@pytest.fixture(autouse=True)
def _patience(request: pytest.FixtureRequest) -> None:
    if request.path.name not in _SILENT:
        request.getfixturevalue("patient_mongo")


@pytest.fixture
def rig_factory(mongo_server: Any, mongo_database: str, fresh_nats: NatsServer) -> RigFactory:
    """``async with rig_factory(normalizer_batch_bytes=…) as rig``."""

    @asynccontextmanager
    async def create(*, copies: int = 1, **overrides: Any) -> AsyncIterator[Rig]:
        async with AsyncExitStack() as stack:
            hold = stack.enter_context(Hold())
            port, *others = hold.choose(max(1, copies))
            values: dict[str, Any] = {
                "nats_url": fresh_nats.uri,
                "mongo_uri": mongo_server.uri,
                "mongo_database": mongo_database,
                "normalizer_grpc_listen": f"127.0.0.1:{port}",
                "log_level": "warning",
                **overrides,
            }
            settings = NormalizerSettings(**values)
            client = mongo.connect(mongo_server.uri)
            stack.callback(client.close)
            connection = await broker.connect(fresh_nats.uri)
            stack.push_async_callback(connection.close)
            await jetstream.ensure_streams(connection.jetstream(), settings)
            # Tests write tenants before a normalizer has seen the database.
            await StoreFormat(mongo.database(client, mongo_database)).ensure()
            for own_port in (port, *others)[:copies]:
                stop = asyncio.Event()
                own = settings.model_copy(update={"normalizer_grpc_listen": f"127.0.0.1:{own_port}"})
                task = asyncio.create_task(app.run(own, stop))
                stack.push_async_callback(cancel, task)
                stack.callback(stop.set)
            channel = connect(f"127.0.0.1:{port}", settings)
            stack.push_async_callback(channel.close)
            if copies:
                await asyncio.wait_for(channel.channel_ready(), 60)
            yield Rig(
                connection,
                mongo.database(client, mongo_database),
                client,
                settings,
                cast(Any, NormalizerServiceStub(channel)),
                TenantDataServiceStub(channel),
                cast(Any, RecordServiceStub(channel)),
                cast(Any, ReplayServiceStub(channel)),
            )

    return create


@pytest.fixture
async def rig(rig_factory: RigFactory) -> AsyncIterator[Rig]:
    """A running normalizer with its defaults."""
    async with rig_factory() as running:
        yield running


@pytest.fixture
async def town(rig_factory: RigFactory) -> AsyncIterator[Rig]:
    """A store that no normalizer writes but the test, and the tenants acme and globex, as ``told`` knows them."""
    async with rig_factory(copies=0) as rig:
        await rig.register(*(make.tenant(of).model_copy(update={"queue_path": of}) for of in ("acme", "globex")))
        await MongoEventStore(rig.client, rig.database).prepare()
        yield rig


@pytest.fixture
def consuming() -> Any:
    """``async with consuming(rig, wrap_store=…, wrap_publisher=…)``: a consumer with a part exchanged."""
    return consuming_with
