"""The tenant directory over a real MongoDB and a real NATS."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import nats
import pytest
from backhaul_common import mongo
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.lifecycle import cancel
from backhaul_common.names import TENANT_CHANGED_SUBJECT
from backhaul_common.tenants import Channel, Credential, Tenant, TenantDirectory
from backhaul_local.mongod import MongoServer
from backhaul_local.nats_server import NatsServer
from pymongo.errors import OperationFailure
from structlog.testing import capture_logs

NOW = datetime(2026, 3, 1, 12, 0, 0, 123000, tzinfo=UTC)


def tenant(tenant_id: str = "acme", revision: int = 1, *, created: datetime = NOW, **values: Any) -> Tenant:
    return Tenant(
        id=tenant_id,
        # One created at another time is another registration.
        registration=f"{tenant_id}.{created:%H%M%S}",
        name=values.pop("name", tenant_id),
        queue_path=values.pop("queue_path", tenant_id),
        revision=revision,
        created_at=created,
        updated_at=NOW,
        **values,
    )


@pytest.fixture
def client(mongo_server: MongoServer) -> Iterator[mongo.Client]:
    made = mongo.connect(mongo_server.uri)
    yield made
    made.close()


@pytest.fixture
def collection(client: mongo.Client, mongo_database: str) -> mongo.Collection:
    return mongo.database(client, mongo_database)["tenants"]


async def store(collection: mongo.Collection, value: Tenant) -> None:
    await collection.replace_one({"_id": value.id}, value.to_document(), upsert=True)


async def until(condition: Callable[[], bool], longest_s: float = 5) -> None:
    async with asyncio.timeout(longest_s):
        while not condition():  # what is looked at is plain values, on purpose
            await asyncio.sleep(0.005)


async def test_a_tenant_comes_back_as_it_was_stored(collection: mongo.Collection) -> None:
    full = tenant(
        queue_path="ACME-Corp",
        credentials=(Credential(id="0" * 12, kind="api", digest="d", created_at=NOW),),
        channels={
            "outbound-delivery": Channel(
                label="Outbound Delivery",
                key="outbound-delivery",
                provider="twilio",
                secrets=("gAAA",),
                settings={"vars": ["a"], "n": 1},
                updated_at=NOW,
            )
        },
    )
    await store(collection, full)
    # What a newer copy of a service wrote besides does not disturb.
    await collection.update_one({"_id": "acme"}, {"$set": {"new_field": 1, "channels.outbound-delivery.new": 2}})
    stored = await collection.find_one({"_id": "acme"})
    assert stored is not None
    assert stored["queue_path_key"] == "acme-corp"
    known = Tenant.from_document(stored)
    assert known.channels["outbound-delivery"].model_extra == {"new": 2}
    without = known.channels["outbound-delivery"].model_dump(exclude={"new"})
    assert {**known.model_dump(), "channels": {"outbound-delivery": without}} == full.model_dump()


async def test_a_refresh_brings_changes_and_takes_away_what_is_gone(collection: mongo.Collection) -> None:
    directory = TenantDirectory(collection)
    with pytest.raises(BackhaulError) as caught:
        await directory.check()
    assert caught.value.code is Code.UNAVAILABLE
    await directory.refresh()
    await directory.check()
    assert directory.tenants == {}

    await store(collection, tenant())
    await store(collection, tenant("globex"))
    await directory.refresh()
    assert set(directory.tenants) == {"acme", "globex"}
    await store(collection, tenant(revision=2, status="suspended"))
    await collection.delete_one({"_id": "globex"})
    await directory.refresh()
    assert set(directory.tenants) == {"acme"}
    assert directory.tenants["acme"].status == "suspended"
    assert directory.get("globex") is None
    with pytest.raises(TypeError):
        directory.tenants["x"] = tenant()  # type: ignore[index]  # that it is refused is the point


async def test_listeners_hear_of_those_that_are_there_and_of_each_change_once(collection: mongo.Collection) -> None:
    directory = TenantDirectory(collection)
    await store(collection, tenant())
    await directory.refresh()
    heard: list[tuple[str, int | None]] = []
    directory.listen(lambda tenant_id, value: heard.append((tenant_id, value.revision if value else None)))
    assert heard == [("acme", 1)]
    await directory.refresh()
    await directory.reload("acme")
    await directory.reload("nobody")
    assert heard == [("acme", 1)]
    await store(collection, tenant(revision=2))
    assert (await directory.reload("acme")) == tenant(revision=2)
    await collection.delete_one({"_id": "acme"})
    assert await directory.reload("acme") is None
    await directory.refresh()
    assert heard == [("acme", 1), ("acme", 2), ("acme", None)]


async def test_while_the_database_is_away_the_last_known_tenants_stay(collection: mongo.Collection) -> None:
    directory = TenantDirectory(collection)
    await store(collection, tenant())
    await directory.refresh()
    away = mongo.connect("mongodb://127.0.0.1:9/?replicaSet=rs0", timeout_ms=100)
    directory._collection = mongo.database(away, "x")["tenants"]
    for attempt in (directory.refresh(), directory.reload("acme")):
        with pytest.raises(BackhaulError) as caught:
            await attempt
        assert caught.value.code is Code.UNAVAILABLE
    assert set(directory.tenants) == {"acme"}
    await directory.check()
    away.close()


async def test_one_unreadable_tenant_keeps_no_other_from_being_served(collection: mongo.Collection) -> None:
    directory = TenantDirectory(collection)
    await store(collection, tenant())
    await directory.refresh()
    await collection.update_one({"_id": "acme"}, {"$set": {"status": "of-a-later-version", "revision": 2}})
    await collection.insert_one({"_id": "broken", "name": "hunter2", "queue_path": ["hunter2"]})
    await store(collection, tenant("globex"))
    with capture_logs() as lines:
        await directory.refresh()
    await directory.check()
    assert set(directory.tenants) == {"acme", "globex"}
    assert directory.tenants["acme"].revision == 1
    assert {line["tenant"] for line in lines} == {"acme", "broken"}
    assert "hunter2" not in str(lines)


class _Held:
    """The real collection, whose reads reach the database when they are begun and whose answers can be held back.

    So that two reads overtake each other when the test says so: no server does that on request.
    """

    def __init__(self, collection: mongo.Collection) -> None:
        self.collection = collection
        self.release = asyncio.Event()
        self.read = asyncio.Event()

    async def _hold(self) -> None:
        self.read.set()
        await self.release.wait()

    async def find_one(self, query: dict[str, Any]) -> Any:
        document = await self.collection.find_one(query)
        await self._hold()
        return document

    async def find(self, query: dict[str, Any]) -> Any:
        documents = await self.collection.find(query).to_list(None)
        await self._hold()
        for document in documents:
            yield document


async def _overtaken(
    directory: TenantDirectory,
    collection: mongo.Collection,
    slow: Callable[[], Awaitable[Any]],
    meanwhile: Callable[[], Awaitable[Any]],
) -> None:
    """Begin ``slow``, let it read, do ``meanwhile``, and only then let ``slow`` go on with what it read."""
    held = _Held(collection)
    directory._collection = held  # type: ignore[assignment]  # the two methods that the directory uses
    task = asyncio.ensure_future(slow())
    async with asyncio.timeout(5):
        await held.read.wait()
    directory._collection = collection
    await meanwhile()
    held.release.set()
    await task


async def test_a_slow_read_never_brings_back_an_older_revision(collection: mongo.Collection) -> None:
    directory = TenantDirectory(collection)
    await store(collection, tenant())
    await directory.refresh()

    for revision, slow in ((2, directory.refresh), (3, lambda: directory.reload("acme"))):

        async def suspend(revision: int = revision) -> None:
            await store(collection, tenant(revision=revision))
            await directory.reload("acme")

        await _overtaken(directory, collection, slow, suspend)
        assert directory.tenants["acme"].revision == revision


async def test_a_refresh_does_not_drop_a_tenant_that_appeared_meanwhile(collection: mongo.Collection) -> None:
    directory = TenantDirectory(collection)

    async def register() -> None:
        await store(collection, tenant("new"))
        await directory.reload("new")

    await _overtaken(directory, collection, directory.refresh, register)
    assert set(directory.tenants) == {"new"}


async def test_a_slow_read_does_not_bring_back_the_dead(collection: mongo.Collection) -> None:
    directory = TenantDirectory(collection)

    async def delete() -> None:
        await collection.delete_one({"_id": "acme"})
        await directory.reload("acme")

    for slow in (directory.refresh, lambda: directory.reload("acme")):
        await store(collection, tenant())
        await directory.refresh()
        await _overtaken(directory, collection, slow, delete)
        assert directory.tenants == {}


async def test_a_registration_anew_wins_over_its_predecessor(collection: mongo.Collection) -> None:
    directory = TenantDirectory(collection)
    later = NOW + timedelta(seconds=5)
    await store(collection, tenant(revision=7))
    await directory.refresh()

    async def register_anew() -> None:
        await store(collection, tenant(revision=1, created=later))
        await directory.reload("acme")

    await _overtaken(directory, collection, directory.refresh, register_anew)
    assert (directory.tenants["acme"].revision, directory.tenants["acme"].created_at) == (1, later)

    # And one that the slow read saw as gone.
    await collection.delete_one({"_id": "acme"})
    await _overtaken(directory, collection, directory.refresh, register_anew)
    assert directory.tenants["acme"].created_at == later


async def test_what_is_remembered_of_the_dead_is_forgotten(collection: mongo.Collection) -> None:
    directory = TenantDirectory(collection)
    for number in range(5):
        await directory.reload(f"never-was-{number}")
    await directory.refresh()
    assert directory._believed == {}


async def test_a_change_message_refreshes_at_once(collection: mongo.Collection, fresh_nats: NatsServer) -> None:
    connection = await nats.connect(fresh_nats.uri)
    directory = TenantDirectory(collection, refresh_s=3600)
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
    directory = TenantDirectory(collection, refresh_s=0.05)
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
    directory = TenantDirectory(collection, refresh_s=0.02)
    with capture_logs():
        running = asyncio.create_task(directory.run())
        await until(lambda: directory._synced)
        # A view that divides by zero fails every read of it, with an error that is not transient.
        database = collection.database
        await database.command("create", "bad", viewOn="tenants", pipeline=[{"$project": {"x": {"$divide": [1, 0]}}}])
        await store(collection, tenant())
        directory._collection = database["bad"]
        with pytest.raises(OperationFailure):
            await directory.refresh()
        await asyncio.sleep(0.1)
        assert not running.done()
        directory._collection = collection
        await store(collection, tenant(revision=2))
        await until(lambda: getattr(directory.get("acme"), "revision", 0) == 2)
        await cancel(running)


async def test_a_full_read_knows_that_nobody_has_a_queue_path(collection: mongo.Collection) -> None:
    directory = TenantDirectory(collection)
    await store(collection, tenant("acme", queue_path="Acme-Corp"))
    # A tenant that this copy cannot read has its path all the same.
    await store(collection, tenant("newer", queue_path="newer"))
    await collection.update_one({"_id": "newer"}, {"$set": {"status": "of a newer version"}})
    assert not directory.nobody_has("gone", 0)
    since = directory.reads_begun
    await directory.reload("acme")  # Reading one tenant tells nothing of the others.
    assert not directory.nobody_has("gone", since)
    await directory.refresh()
    assert directory.nobody_has("gone", since)
    assert not directory.nobody_has("acme-corp", since)
    assert not directory.nobody_has("newer", since)
    # Only reads that began later count.
    assert not directory.nobody_has("gone", directory.reads_begun)
    await collection.delete_one({"_id": "acme"})
    since = directory.reads_begun
    await directory.refresh()
    assert directory.nobody_has("acme-corp", since)


async def test_of_two_full_reads_the_one_that_began_later_counts(
    collection: mongo.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = TenantDirectory(collection)
    find = collection.find
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> Any:
        documents = await find({}).to_list(None)
        asked.set()
        await go_on.wait()
        for document in documents:
            yield document

    monkeypatch.setattr(collection, "find", lambda _: slow())
    early = asyncio.create_task(directory.refresh())
    await asked.wait()
    monkeypatch.setattr(collection, "find", find)
    await store(collection, tenant("acme"))
    await directory.refresh()
    go_on.set()
    await early
    assert not directory.nobody_has("acme", 0)
