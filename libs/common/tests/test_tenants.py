"""The tenant directory over a real MongoDB and a real NATS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from backhaul_common import mongo
from backhaul_common.directory import TenantDirectory, TenantDocuments
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.lifecycle import cancel
from backhaul_common.names import TENANT_CHANGED_SUBJECT
from backhaul_common.revisioned import Head
from backhaul_common.tenants import Channel, Credential, Tenant
from backhaul_local.mongod import MongoServer
from backhaul_local.nats_server import NatsServer
from backhaul_testing import broker
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
    directory = TenantDirectory(TenantDocuments(collection))
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
    directory = TenantDirectory(TenantDocuments(collection))
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


class Moving(TenantDocuments):
    """The documents, now here and now elsewhere."""

    def move(self, collection: mongo.Collection) -> None:
        super().__init__(collection)


async def test_while_the_database_is_away_the_last_known_tenants_stay(
    collection: mongo.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = TenantDirectory(documents := Moving(collection))
    await store(collection, tenant())
    await directory.refresh()
    away = mongo.connect("mongodb://127.0.0.1:9/?replicaSet=rs0")
    monkeypatch.setattr(mongo, "OPERATION_S", 0.3)  # It is this that ends the search for a server.
    documents.move(mongo.database(away, "x")["tenants"])
    for attempt in (directory.refresh(), directory.reload("acme")):
        with pytest.raises(BackhaulError) as caught:
            await attempt
        assert caught.value.code is Code.UNAVAILABLE
    assert set(directory.tenants) == {"acme"}
    await directory.check()
    away.close()


async def test_one_unreadable_tenant_keeps_no_other_from_being_served(collection: mongo.Collection) -> None:
    directory = TenantDirectory(TenantDocuments(collection))
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


class Held(TenantDocuments):
    """The real documents, which are read when the reading is begun and can be held back then.

    So that two reads overtake each other when the test says so: no server does that on request.
    """

    def __init__(self, collection: mongo.Collection) -> None:
        super().__init__(collection, secrets=True)
        self.holding = False
        self.release = asyncio.Event()
        self.has_read = asyncio.Event()

    async def _hold(self) -> None:
        if self.holding:
            self.holding = False
            self.has_read.set()
            await self.release.wait()

    async def read(self, tenant_ids: Sequence[str]) -> dict[str, Any]:
        found = await super().read(tenant_ids)
        await self._hold()
        return found

    async def heads(self) -> AsyncIterator[list[Head]]:
        found = [heads async for heads in super().heads()]
        await self._hold()
        for heads in found:
            yield heads

    async def overtake(self, slow: Callable[[], Awaitable[Any]], meanwhile: Callable[[], Awaitable[Any]]) -> None:
        """Begin ``slow``, let it read, do ``meanwhile``, and only then let ``slow`` go on with what it read."""
        self.holding = True
        self.release.clear()
        self.has_read.clear()
        task = asyncio.ensure_future(slow())
        async with asyncio.timeout(5):
            await self.has_read.wait()
        await meanwhile()
        self.release.set()
        await task


async def test_a_slow_read_never_brings_back_an_older_revision(collection: mongo.Collection) -> None:
    documents = Held(collection)
    directory = TenantDirectory(documents)
    await store(collection, tenant())
    await directory.refresh()

    for revision, slow in ((2, directory.refresh), (3, lambda: directory.reload("acme"))):

        async def suspend(revision: int = revision) -> None:
            await store(collection, tenant(revision=revision))
            await directory.reload("acme")

        await documents.overtake(slow, suspend)
        assert directory.tenants["acme"].revision == revision


async def test_a_refresh_does_not_drop_a_tenant_that_appeared_meanwhile(collection: mongo.Collection) -> None:
    documents = Held(collection)
    directory = TenantDirectory(documents)

    async def register() -> None:
        await store(collection, tenant("new"))
        await directory.reload("new")

    await documents.overtake(directory.refresh, register)
    assert set(directory.tenants) == {"new"}


async def test_a_slow_read_does_not_bring_back_the_dead(collection: mongo.Collection) -> None:
    documents = Held(collection)
    directory = TenantDirectory(documents)

    async def delete() -> None:
        await collection.delete_one({"_id": "acme"})
        await directory.reload("acme")

    for slow in (directory.refresh, lambda: directory.reload("acme")):
        await store(collection, tenant())
        await directory.refresh()
        await documents.overtake(slow, delete)
        assert directory.tenants == {}


async def test_a_registration_anew_wins_over_its_predecessor(collection: mongo.Collection) -> None:
    documents = Held(collection)
    directory = TenantDirectory(documents)
    later = NOW + timedelta(seconds=5)
    await store(collection, tenant(revision=7))
    await directory.refresh()

    async def register_anew() -> None:
        await store(collection, tenant(revision=1, created=later))
        await directory.reload("acme")

    await documents.overtake(directory.refresh, register_anew)
    assert (directory.tenants["acme"].revision, directory.tenants["acme"].created_at) == (1, later)

    # And one that the slow read saw as gone.
    await collection.delete_one({"_id": "acme"})
    await documents.overtake(directory.refresh, register_anew)
    assert directory.tenants["acme"].created_at == later


async def test_what_is_remembered_of_the_dead_is_forgotten(collection: mongo.Collection) -> None:
    directory = TenantDirectory(TenantDocuments(collection))
    for number in range(5):
        await directory.reload(f"never-was-{number}")
    await directory.refresh()
    assert directory._believed == {}


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


async def test_a_full_read_knows_that_nobody_has_a_queue_path(collection: mongo.Collection) -> None:
    directory = TenantDirectory(TenantDocuments(collection))
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


async def test_of_two_full_reads_the_one_that_began_later_counts(collection: mongo.Collection) -> None:
    documents = Held(collection)
    directory = TenantDirectory(documents)

    async def register() -> None:
        await store(collection, tenant("acme"))
        await directory.refresh()

    await documents.overtake(directory.refresh, register)
    assert not directory.nobody_has("acme", 0)
    assert set(directory.tenants) == {"acme"}


async def test_a_read_that_began_before_a_look_at_all_does_not_take_away_what_that_saw(
    collection: mongo.Collection,
) -> None:
    documents = Held(collection)
    directory = TenantDirectory(documents)
    await store(collection, tenant())
    await directory.refresh()
    await collection.delete_one({"_id": "acme"})

    async def restore_and_look() -> None:
        await store(collection, tenant())
        await directory.refresh()

    # What the look at all believed of a tenant counts, although it had no need to read it.
    await documents.overtake(lambda: directory.reload("acme"), restore_and_look)
    assert set(directory.tenants) == {"acme"}


async def test_a_tenant_that_is_gone_between_the_look_and_the_reading_is_gone(collection: mongo.Collection) -> None:
    documents = Held(collection)
    directory = TenantDirectory(documents)
    await store(collection, tenant())
    await directory.refresh()
    await store(collection, tenant(revision=2))

    async def delete() -> None:
        await collection.delete_one({"_id": "acme"})

    await documents.overtake(directory.refresh, delete)
    assert directory.tenants == {}


@pytest.fixture
async def reads(collection: mongo.Collection) -> AsyncIterator[Callable[[], Awaitable[list[tuple[bool, int, int]]]]]:
    """What the server was asked of the collection since the last time: whether for some tenants only, and the documents
    and bytes that it returned."""
    database = collection.database
    asked = {"ns": f"{database.name}.tenants", "op": {"$in": ["query", "getmore", "command"]}}
    await database.command({"profile": 1, "filter": asked})
    seen = 0

    async def since() -> list[tuple[bool, int, int]]:
        nonlocal seen
        entries = [entry async for entry in database["system.profile"].find({}).sort("$natural", 1)]
        new, seen = entries[seen:], len(entries)
        return [
            (
                "filter" in entry["command"] and bool(entry["command"]["filter"]),
                entry["nreturned"],
                entry["responseLength"],
            )
            for entry in new
        ]

    yield since
    await database.command("profile", 0)


async def test_only_what_changed_is_read(
    collection: mongo.Collection, reads: Callable[[], Awaitable[list[tuple[bool, int, int]]]]
) -> None:
    count = 1200
    channel = Channel(label="t", key="twilio", provider="twilio", secrets=("s" * 200,), updated_at=NOW)
    credential = Credential(id="0" * 12, kind="api", digest="d" * 64, created_at=NOW)
    full: dict[str, Any] = {"credentials": (credential,), "channels": {"twilio": channel}}
    await collection.insert_many([tenant(f"t{n}", **full).to_document() for n in range(count)])
    directory = TenantDirectory(TenantDocuments(collection, secrets=True))
    await directory.refresh()
    assert len(directory.tenants) == count
    first = await reads()
    assert sum(returned for some, returned, _ in first if some) == count

    await directory.refresh()
    looks = await reads()
    assert not any(some for some, _, _ in looks)
    assert sum(returned for _, returned, _ in looks) == count
    # Of no tenant more than what tells whether it has changed.
    assert sum(size for _, _, size in looks) < count * 150

    await store(collection, tenant("t1", revision=2, **full))
    await store(collection, tenant("t2", created=NOW + timedelta(seconds=1), **full))
    await store(collection, tenant("new", **full))
    await collection.delete_one({"_id": "t3"})
    await collection.update_one({"_id": "t4"}, {"$set": {"status": "of a newer version", "revision": 2}})
    heard: list[str] = []
    directory.listen(lambda tenant_id, _: heard.append(tenant_id))
    heard.clear()
    await directory.refresh()
    assert sorted(heard) == ["new", "t1", "t2", "t3"]
    assert [returned for some, returned, _ in await reads() if some] == [4]
    # One that this copy cannot read may be mended by hand any time, which no revision tells.
    await directory.refresh()
    assert [returned for some, returned, _ in await reads() if some] == [1]
    await collection.update_one({"_id": "t4"}, {"$set": {"status": "suspended"}})
    await directory.refresh()
    assert directory.tenants["t4"].status == "suspended"


async def test_without_need_no_secret_leaves_the_database(collection: mongo.Collection) -> None:
    full = tenant(
        credentials=(Credential(id="0" * 12, kind="api", digest="hunter2", created_at=NOW),),
        channels={
            "twilio": Channel(
                label="t",
                key="twilio",
                provider="twilio",
                secrets=("hunter2",),
                pull_credentials="hunter2",
                audit_credentials="hunter2",
                settings={"n": 1},
                updated_at=NOW,
            )
        },
    )
    await store(collection, full)
    await collection.update_one({"_id": "acme"}, {"$set": {"channels.twilio.of_a_newer_version": "hunter2"}})
    # Whatever a document is like that is no tenant, the others are read.
    odd: list[dict[str, Any]] = [{}, {"channels": 7}, {"channels": {"x": "y"}}, {"channels": None}]
    await collection.insert_many([{"_id": name, **document} for name, document in zip("abcd", odd, strict=True)])
    documents = TenantDocuments(collection)
    assert "hunter2" not in str(await documents.read(["acme", "a", "b", "c", "d"]))
    directory = TenantDirectory(documents)
    with capture_logs() as lines:
        await directory.refresh()
    assert {line["tenant"] for line in lines} == {"a", "b", "c", "d"}
    known = directory.tenants["acme"]
    assert (known.credentials, known.channels["twilio"].secrets) == ((), ())
    assert known.channels["twilio"].settings == {"n": 1}
    whole = TenantDirectory(TenantDocuments(collection, secrets=True))
    with capture_logs():
        await whole.refresh()
    channel = whole.tenants["acme"].channels["twilio"]
    assert (channel.secrets, channel.pull_credentials) == (("hunter2",), "hunter2")
    assert channel.audit_credentials == "hunter2"
    assert whole.tenants["acme"].credentials == full.credentials
