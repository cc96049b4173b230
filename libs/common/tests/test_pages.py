"""Pages over a real MongoDB."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator

import pytest
from backhaul_common import mongo, pages
from backhaul_common.errors import BackhaulError, Code
from backhaul_local.mongod import MongoServer
from backhaul_testing.proxy import SilentProxy

ROWS = "rows"
LONG_S = 10.0


@pytest.fixture
def database(mongo_server: MongoServer, mongo_database: str) -> Iterator[mongo.Database]:
    client = mongo.connect(mongo_server.uri)
    yield mongo.database(client, mongo_database)
    client.close()


def query(**asked: object) -> pages.Query:
    return pages.Query(ROWS, "at_us", "acme.1", **asked)  # type: ignore[arg-type]  # each test names its own


async def fill(database: mongo.Database, rows: range, at_us: int | None = None, registration: str = "acme.1") -> None:
    await database[ROWS].insert_many(
        {
            "_id": f"{registration} {row:04}",
            "registration": registration,
            "at_us": at_us or row + 1,
            "even": row % 2 == 0,
            "body": b"x" * 1000,
        }
        for row in rows
    )


async def read(database: mongo.Database, size: int = 7) -> list[str]:
    """All ids, page by page; between two pages a newer row arrives."""
    found: list[str] = []
    token, newer = "", 9000
    while True:
        rows, token = await pages.page(database, query(size=size, token=token), within_s=LONG_S)
        found += [row["_id"] for row in rows]
        if not token:
            return found
        await fill(database, range(newer, newer + 1))
        newer += 1


@pytest.mark.parametrize("at_us", [None, 5], ids=["each at its time", "all at one time"])
async def test_every_row_comes_once_newest_first_while_others_arrive(database: mongo.Database, at_us: int) -> None:
    await fill(database, range(40), at_us)
    await fill(database, range(9), registration="globex.1")
    assert await read(database) == [f"acme.1 {row:04}" for row in range(39, -1, -1)]


async def test_a_span_filters_and_what_is_left_out(database: mongo.Database) -> None:
    await fill(database, range(20))
    asked = query(span=(5, 9), filters={"even": True, "body": ""}, only={"_id": {"$ne": "acme.1 0004"}}, without="body")
    rows, token = await pages.page(database, asked, within_s=LONG_S)
    assert ([row["_id"] for row in rows], token) == (["acme.1 0006"], "")
    assert "body" not in rows[0]
    assert asked.filtered_by == ["even"]


async def test_a_page_ends_before_it_is_too_large(database: mongo.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(database, range(10))
    monkeypatch.setattr(pages, "PAGE_BYTES", 3500)
    rows, token = await pages.page(database, query(), within_s=LONG_S)
    assert (len(rows), bool(token)) == (3, True)
    nested = {"$set": {"body": "", "more": {"of": [["x", "y" * 1000]]}}}
    await database[ROWS].update_many({}, nested)
    assert len((await pages.page(database, query(), within_s=LONG_S))[0]) == 3
    monkeypatch.setattr(pages, "PAGE_BYTES", 1)
    rows, token = await pages.page(database, query(size=2, token=token), within_s=LONG_S)
    # One row comes at least, or nobody would ever see it.
    assert [row["_id"] for row in rows] == ["acme.1 0006"]


async def test_the_server_ends_what_takes_too_long(database: mongo.Database) -> None:
    await fill(database, range(20))
    slow = {"$where": "function() { sleep(100); return false; }"}
    with pytest.raises(pages.TooLongError):
        await pages.page(database, query(only=slow), within_s=0.15)


async def test_a_database_that_says_nothing_is_away_in_time(
    mongo_server: MongoServer, database: mongo.Database
) -> None:
    await fill(database, range(200))
    async with SilentProxy(mongo_server.port) as proxy:
        client = mongo.connect(f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true")
        behind = mongo.database(client, database.name)
        assert len((await pages.page(behind, query(), within_s=LONG_S))[0]) == pages.DEFAULT_ROWS
        proxy.go_silent()
        with pytest.raises(BackhaulError) as caught:
            async with asyncio.timeout(3.0):
                await pages.page(behind, query(), within_s=0.5)
        assert caught.value.code is Code.UNAVAILABLE
        proxy.speak()
        assert len((await pages.page(behind, query(size=200), within_s=LONG_S))[0]) == 200
        await mongo.close(client)


@pytest.mark.parametrize("position", [b"1", b"1:", b":a", b"-1:a", b"a:b", b"%d:a" % 2**64, b"\xff"])
def test_a_position_that_no_page_ended_at_is_refused(position: bytes) -> None:
    token = base64.urlsafe_b64encode(position).decode()
    with pytest.raises(BackhaulError) as caught:
        query(token=token).condition()
    assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, "page_token")


@pytest.mark.parametrize("token", ["x", "é", "a b="])
def test_a_token_of_nobodys_is_refused(token: str) -> None:
    with pytest.raises(BackhaulError) as caught:
        query(token=token).condition()
    assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, "page_token")


def test_the_number_of_rows_is_bounded() -> None:
    assert [query(size=size).rows() for size in (0, 1, pages.MAX_ROWS)] == [pages.DEFAULT_ROWS, 1, pages.MAX_ROWS]
    for size in (-1, pages.MAX_ROWS + 1):
        with pytest.raises(BackhaulError) as caught:
            query(size=size).rows()
        assert caught.value.field == "page_size"
