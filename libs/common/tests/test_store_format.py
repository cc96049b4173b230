"""The store's format: a new database is given the number, another number is refused, and nothing is written then."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from backhaul_common import mongo, names
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.lifecycle import cancel
from backhaul_common.store_format import STORE_FORMAT, StoreFormat
from backhaul_local.mongod import MongoServer
from structlog.testing import capture_logs

META = names.META_COLLECTION
OWN = {"_id": "format", "number": STORE_FORMAT}


@pytest.fixture
def client(mongo_server: MongoServer) -> Iterator[mongo.Client]:
    made = mongo.connect(mongo_server.uri)
    yield made
    made.close()


@pytest.fixture
def database(client: mongo.Client, mongo_database: str) -> mongo.Database:
    return mongo.database(client, mongo_database)


async def number(database: mongo.Database) -> Document | None:
    return await database[META].find_one({})


async def test_an_empty_database_is_given_the_number_and_is_known_from_then_on(database: mongo.Database) -> None:
    await StoreFormat(database).ensure()
    assert await number(database) == OWN
    await database[names.TENANTS_COLLECTION].insert_one({"_id": "acme"})
    await StoreFormat(database).ensure()
    assert await number(database) == OWN


async def test_what_others_keep_in_the_database_is_no_format(database: mongo.Database) -> None:
    await database["somebodys"].insert_one({})
    await StoreFormat(database).ensure()
    assert await number(database) == OWN


@pytest.mark.parametrize("collection", sorted(names.STORE_COLLECTIONS))
async def test_a_database_without_a_number_is_refused_and_left_as_it_is(
    database: mongo.Database, collection: str
) -> None:
    await database.create_collection(collection)
    for _ in range(2):
        with pytest.raises(BackhaulError, match="has no format number") as refused:
            await StoreFormat(database).ensure()
        assert refused.value.code is Code.FAILED_PRECONDITION
        assert database.name in refused.value.message
        assert "make clean" in refused.value.fix
    assert await database.list_collection_names() == [collection]


@pytest.mark.parametrize("other", [1, STORE_FORMAT + 1, str(STORE_FORMAT), None])
async def test_another_number_is_refused_and_left_as_it_is(database: mongo.Database, other: object) -> None:
    await database[META].insert_one({"_id": "format", "number": other})
    with pytest.raises(BackhaulError, match=f"the format number {other!r}; .* format {STORE_FORMAT} only") as refused:
        await StoreFormat(database).ensure()
    assert refused.value.code is Code.FAILED_PRECONDITION
    assert await number(database) == {"_id": "format", "number": other}
    assert await database.list_collection_names() == [META]


async def test_services_that_start_together_on_an_empty_database_agree(
    client: mongo.Client, mongo_database: str
) -> None:
    for round_ in range(10):
        database = mongo.database(client, f"{mongo_database}_{round_}")

        async def start(at: mongo.Database = database) -> None:
            await StoreFormat(at).ensure()
            # What a service does next, while others may still be looking.
            await at[names.TENANTS_COLLECTION].create_index("queue_path_key")

        try:
            await asyncio.gather(*(start() for _ in range(8)))
            assert await database[META].find({}).to_list(None) == [OWN]
        finally:
            await client.drop_database(database.name)


async def test_who_finds_anothers_collections_first_finds_its_number_too(
    database: mongo.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = StoreFormat(database)
    look = database.list_collection_names

    async def overtaken() -> list[str]:
        await StoreFormat(mongo.database(database.client, database.name)).ensure()
        await database[names.TENANTS_COLLECTION].insert_one({"_id": "acme"})
        return await look()

    monkeypatch.setattr(database, "list_collection_names", overtaken)
    await late.ensure()
    assert await number(database) == OWN


@pytest.mark.timed
async def test_a_refusal_is_said_once_and_over_when_the_database_is(
    client: mongo.Client, database: mongo.Database
) -> None:
    await database[META].insert_one({"_id": "format", "number": 1})
    store_format = StoreFormat(database)
    worked = asyncio.Event()

    async def work() -> None:
        worked.set()

    with capture_logs() as lines:
        running = asyncio.create_task(store_format.run())
        waiting = asyncio.create_task(store_format.then(work))
        try:
            # Three rounds: after 0.1, 0.3 and 0.7 seconds.
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(running), 1.0)
            assert not worked.is_set()
            assert [(line["event"], line["log_level"]) for line in lines] == [("store_not_usable", "error")]
            assert "format number 1" in lines[0]["reason"]
            await client.drop_database(database.name)
            await asyncio.wait_for(running, 10)
            await asyncio.wait_for(waiting, 1)
        finally:
            await cancel(running)
            await cancel(waiting)
    assert worked.is_set()
    assert await number(database) == OWN


def test_every_collection_has_its_part_in_the_format() -> None:
    own = {value for name, value in vars(names).items() if name.endswith(("_COLLECTION", "_OUTBOX"))}
    assert own == names.STORE_COLLECTIONS | {META}
