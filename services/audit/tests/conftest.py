"""What the tests of audit find beside them."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from backhaul_common import jetstream, mongo
from backhaul_common.store_format import StoreFormat
from backhaul_local.nats_server import NatsServer
from backhaul_local.object_store import ObjectStoreServer
from backhaul_testing import broker

# Test folders are no packages: what several test files of this one share is found by its name.
sys.path.insert(0, str(Path(__file__).parent))

from filing_rig import KEY, Rig


@pytest.fixture
async def filing(
    mongo_server: Any, mongo_database: str, fresh_nats: NatsServer, s3_server: ObjectStoreServer, tmp_path: Path
) -> AsyncIterator[Rig]:
    """Servers with a bucket of the test's own, and no copy that runs yet. Copies are killed at the end."""
    from backhaul_audit.settings import AuditSettings
    from buckets_rig import client_at

    s3 = client_at(s3_server)
    bucket = mongo_database.replace("_", "-")
    s3.make_bucket(bucket)
    environment = {
        "BACKHAUL_NATS_URL": fresh_nats.uri,
        "BACKHAUL_MONGO_URI": mongo_server.uri,
        "BACKHAUL_MONGO_DATABASE": mongo_database,
        "BACKHAUL_INTERNAL_TOKEN": "0123456789abcdef" * 2,
        "BACKHAUL_SECRET_KEYS": KEY,
        "BACKHAUL_OBJECT_STORE_ENDPOINT": s3_server.uri,
        "BACKHAUL_OBJECT_STORE_ACCESS_KEY": s3_server.config.access_key,
        "BACKHAUL_OBJECT_STORE_SECRET_KEY": s3_server.config.secret_key,
        "BACKHAUL_OBJECT_STORE_BUCKET": bucket,
        "BACKHAUL_AUDIT_GRPC_LISTEN": "127.0.0.1:0",
        "BACKHAUL_AUDIT_MAX_FILE_AGE_S": "1",
    }
    client = mongo.connect(mongo_server.uri)
    database = mongo.database(client, mongo_database)
    await StoreFormat(database).ensure()
    connection = await broker.connect(fresh_nats.uri)
    values: dict[str, Any] = {
        "nats_url": fresh_nats.uri,
        "internal_token": "0123456789abcdef" * 2,
        "secret_keys": KEY,
    }
    await jetstream.ensure_streams(connection.jetstream(), AuditSettings(**values))
    rig = Rig(connection, database, s3, bucket, environment, tmp_path)
    try:
        yield rig
    finally:
        rig.stop_all()
        await connection.close()
        client.close()


@pytest.fixture
async def digesting(mongo_server: Any, mongo_database: str, s3_server: ObjectStoreServer) -> AsyncIterator[Any]:
    """An installation that makes digests: a ``digests_rig.Rig``."""
    from buckets_rig import bucket_at, folder
    from digests_rig import Rig as DigestsRig

    client = mongo.connect(mongo_server.uri)
    database = mongo.database(client, mongo_database)
    await StoreFormat(database).ensure()
    with bucket_at(s3_server) as bucket:
        rig = DigestsRig(database, bucket, folder())
        await rig.prepare()
        yield rig
        rig.metrics.close()
    client.close()
