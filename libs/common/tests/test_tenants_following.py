"""How the tenant directory hears of changes, over a real MongoDB and a real NATS: by a word, or by looking again."""

from __future__ import annotations

import asyncio

import pytest
from backhaul_common import mongo
from backhaul_common.directory import TenantDirectory, TenantDocuments
from backhaul_common.lifecycle import cancel
from backhaul_common.names import TENANT_CHANGED_SUBJECT
from backhaul_local.nats_server import NatsServer
from backhaul_testing import broker
from pymongo.errors import OperationFailure
from structlog.testing import capture_logs
from tenants_rig import Moving, store, tenant, until


async def test_a_change_message_refreshes_at_once(collection: mongo.Collection, fresh_nats: NatsServer) -> None:
    connection = await broker.connect(fresh_nats.uri)
    directory = TenantDirectory(TenantDocuments(collection), refresh_s=3600)
    await store(collection, tenant("early"))
    await directory.follow(connection)
    assert set(directory.tenants) == {"early"}
    await store(collection, tenant())
    await connection.publish(TENANT_CHANGED_SUBJECT, b"acme")
    await until(lambda: directory.get("acme") is not None)
    await collection.delete_one({"_id": "acme"})
    await connection.publish(TENANT_CHANGED_SUBJECT, b"acme")
    await until(lambda: directory.get("acme") is None)
    # Nonsense, and a tenant that cannot be read, do not stop it.
    await collection.insert_one({"_id": "broken"})
    await store(collection, tenant("later"))
    with capture_logs() as lines:
        for payload in (b"", b"\xff\xfe", b"$where", b"broken", b"later"):
            await connection.publish(TENANT_CHANGED_SUBJECT, payload)
        await until(lambda: directory.get("later") is not None)
    assert [line["tenant"] for line in lines] == ["broken"]
    await connection.close()


async def test_a_message_that_was_missed_is_healed(collection: mongo.Collection) -> None:
    directory = TenantDirectory(TenantDocuments(collection), refresh_s=0.05)
    running = asyncio.create_task(directory.run())
    try:
        await until(lambda: directory._synced)
        await store(collection, tenant())
        await until(lambda: directory.get("acme") is not None)
        await collection.delete_one({"_id": "acme"})
        await until(lambda: directory.get("acme") is None)
    finally:
        await cancel(running)


async def test_it_goes_on_after_failures(collection: mongo.Collection) -> None:
    directory = TenantDirectory(documents := Moving(collection), refresh_s=0.02)
    with capture_logs() as lines:
        running = asyncio.create_task(directory.run())
        await until(lambda: directory._synced)
        # A view that divides by zero fails every read of it, with an error that is not transient.
        database = collection.database
        await database.command("create", "bad", viewOn="tenants", pipeline=[{"$project": {"x": {"$divide": [1, 0]}}}])
        await store(collection, tenant())
        documents.move(database["bad"])
        with pytest.raises(OperationFailure):
            await directory.refresh()
        await until(lambda: bool(lines))  # Its own read failed as well.
        assert not running.done()
        documents.move(collection)
        await store(collection, tenant(revision=2))
        await until(lambda: getattr(directory.get("acme"), "revision", 0) == 2)
        await cancel(running)
