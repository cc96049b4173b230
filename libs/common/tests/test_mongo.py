"""MongoDB: what is worth another try, transactions against a real replica set."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from backhaul_common import mongo
from backhaul_common.directory import TenantDirectory, TenantDocuments
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_common.fence import owners
from backhaul_common.names import TENANTS_COLLECTION
from backhaul_local.mongod import MongoServer
from backhaul_testing.proxy import SilentProxy
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    DuplicateKeyError,
    InvalidOperation,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)


@pytest.fixture
def client(mongo_server: MongoServer) -> Iterator[mongo.Client]:
    made = mongo.connect(mongo_server.uri)
    yield made
    made.close()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port where nobody listens, for as long as the test runs: bound, so that nobody else gets it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


@pytest.mark.parametrize(
    ("exc", "transient"),
    [
        (AutoReconnect("gone"), True),
        (ServerSelectionTimeoutError("nobody"), True),
        (OperationFailure("stepping down", 189), True),
        (OperationFailure("cursor not found", 43), True),
        (OperationFailure("killed by an operator", 11601), True),
        (OperationFailure("unable to read from a snapshot", 246), True),
        (OperationFailure("temporarily unavailable", 365), True),
        (OperationFailure("x", 1, {"errorLabels": ["TransientTransactionError"]}), True),
        (OperationFailure("x", 1, {"errorLabels": ["UnknownTransactionCommitResult"]}), True),
        (OperationFailure("x", 1, {"errorLabels": ["RetryableWriteError"]}), True),
        (OperationFailure("bad query", 2), False),
        (OperationFailure("no code"), False),
        (DuplicateKeyError("taken", 11000), False),
        (BulkWriteError({"writeErrors": [{"code": 11000}]}), False),
        (InvalidOperation("closed"), False),
        (unavailable("NATS"), True),
        (BackhaulError(Code.CONFLICT, "taken"), False),
        (ValueError("x"), False),
        (asyncio.CancelledError(), False),
    ],
)
def test_what_may_succeed_later(exc: BaseException, transient: bool) -> None:
    assert mongo.is_transient(exc) is transient


@pytest.mark.timed
@pytest.mark.slow
async def test_away_is_unavailable_and_within_the_timeout(closed_port: int) -> None:
    client = mongo.connect(f"mongodb://127.0.0.1:{closed_port}/?replicaSet=rs0", timeout_ms=200)
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(BackhaulError) as caught:
        await mongo.ping(client)
    assert caught.value.code is Code.UNAVAILABLE
    assert caught.value.retry_after_s
    assert "127.0.0.1" not in str(caught.value)
    with pytest.raises(BackhaulError, match="The tenants are away"):
        async with mongo.translated("The tenants are away, that"):
            await mongo.database(client, "x")["y"].find_one({})
    assert loop.time() - began < 4
    client.close()


async def test_other_errors_come_through(client: mongo.Client, mongo_database: str) -> None:
    collection = mongo.database(client, mongo_database)["things"]
    await mongo.ping(client)
    async with mongo.translated():
        await collection.insert_one({"_id": 1})
    with pytest.raises(DuplicateKeyError):
        async with mongo.translated():
            await collection.insert_one({"_id": 1})
    with pytest.raises(KeyError):
        async with mongo.translated():
            raise KeyError


async def test_writes_wait_for_the_majority(client: mongo.Client, mongo_database: str) -> None:
    database = mongo.database(client, mongo_database)
    collection = database["things"]
    assert collection.write_concern.document["w"] == "majority"
    assert collection.read_concern.level == "majority"
    assert collection.codec_options.tz_aware


async def test_a_conflict_of_two_transactions_is_retried(client: mongo.Client, mongo_database: str) -> None:
    """Two writers that both read before either wrote: without the retry one of the two increments would fail."""
    database = mongo.database(client, mongo_database)
    await database["counters"].insert_one({"_id": "c", "n": 0})
    both_have_read = threading.Barrier(2, timeout=60)
    runs = [0, 0]

    async def increment(writer: int) -> int:
        def work(plain: mongo.ThreadDatabase, session: mongo.Session) -> int:
            runs[writer] += 1
            document = plain["counters"].find_one({"_id": "c"}, session=session)
            assert document is not None
            if runs[writer] == 1:
                both_have_read.wait()
            plain["counters"].update_one({"_id": "c"}, {"$set": {"n": document["n"] + 1}}, session=session)
            return int(document["n"]) + 1

        return await mongo.in_transaction(database, work)

    async with asyncio.timeout(60):
        results = await asyncio.gather(increment(0), increment(1))
    assert sorted(results) == [1, 2]
    assert sum(runs) >= 3
    assert await database["counters"].find_one({"_id": "c"}) == {"_id": "c", "n": 2}


async def test_a_transaction_is_at_the_primary_whatever_the_connection_string_prefers(
    mongo_server: MongoServer, mongo_database: str
) -> None:
    mark = "&" if "?" in mongo_server.uri else "/?"
    client = mongo.connect(f"{mongo_server.uri}{mark}readPreference=secondaryPreferred")
    try:
        database = mongo.database(client, mongo_database)
        await database["numbers"].insert_one({"_id": 1})

        def read(plain: mongo.ThreadDatabase, session: mongo.Session) -> Any:
            return plain["numbers"].find_one({"_id": 1}, session=session)

        assert await mongo.in_transaction(database, read) == {"_id": 1}
    finally:
        client.close()


async def test_a_transaction_that_fails_leaves_nothing(client: mongo.Client, mongo_database: str) -> None:
    database = mongo.database(client, mongo_database)
    await database["things"].insert_one({"_id": "before"})

    def work(plain: mongo.ThreadDatabase, session: mongo.Session) -> None:
        plain["things"].insert_one({"_id": "inside"}, session=session)
        raise BackhaulError(Code.FAILED_PRECONDITION, "no")

    with pytest.raises(BackhaulError, match="no"):
        await mongo.in_transaction(database, work)
    assert await database["things"].count_documents({}) == 1


async def test_a_transaction_that_is_cancelled_comes_to_its_end(client: mongo.Client, mongo_database: str) -> None:
    database = mongo.database(client, mongo_database)
    things = database["things"]
    await things.insert_one({"_id": "x", "n": 0})
    loop, written, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def work(plain: mongo.ThreadDatabase, session: mongo.Session) -> None:
        plain["things"].update_one({"_id": "x"}, {"$set": {"n": 1}}, session=session)
        loop.call_soon_threadsafe(written.set)
        go_on.wait(10)

    task = asyncio.create_task(mongo.in_transaction(database, work))
    await written.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    # All or nothing, and no lock is left: another writer waits for no more than the commit.
    async with asyncio.timeout(60):
        await things.update_one({"_id": "x"}, {"$inc": {"n": 10}})
    assert await things.find_one({"_id": "x"}) == {"_id": "x", "n": 11}


@pytest.mark.timed
async def test_a_transaction_over_a_silent_connection_ends_and_leaves_no_lock(
    mongo_server: MongoServer, mongo_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mongo, "STATEMENTS_S", 1.0)
    monkeypatch.setattr(mongo, "COMMIT_S", 3.0)
    loop = asyncio.get_running_loop()
    async with SilentProxy(mongo_server.port) as proxy:
        client = mongo.connect(f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true")
        database = mongo.database(client, mongo_database)
        await database["things"].insert_one({"_id": "x", "n": 0})
        tries: list[float] = []

        def work(plain: mongo.ThreadDatabase, session: mongo.Session) -> None:
            tries.append(time.monotonic())
            plain["things"].update_one({"_id": "x"}, {"$inc": {"n": 1}}, session=session)
            loop.call_soon_threadsafe(proxy.go_silent)
            silent.wait(5)
            plain["things"].update_one({"_id": "x"}, {"$inc": {"n": 1}}, session=session)

        silent = threading.Event()
        went = proxy.go_silent

        def go_silent() -> None:
            went()
            silent.set()
            # Only the connections that are there stay silent: the abort can take another.
            loop.call_later(0.2, proxy.speak_to_newcomers)

        monkeypatch.setattr(proxy, "go_silent", go_silent)
        began = loop.time()
        with pytest.raises(PyMongoError) as caught:
            await mongo.in_transaction(database, work)
        assert mongo.is_transient(caught.value)
        assert loop.time() - began < 3.5
        assert len(tries) == 1
        # The server was told: another writer need not wait for the end of its patience, which is a minute here.
        own = mongo.connect(mongo_server.uri)
        async with asyncio.timeout(2):
            await mongo.database(own, mongo_database)["things"].update_one({"_id": "x"}, {"$inc": {"n": 10}})
        assert await mongo.database(own, mongo_database)["things"].find_one({"_id": "x"}) == {"_id": "x", "n": 10}
        own.close()
        client.close()


@pytest.mark.slow
async def test_a_transaction_that_outlives_the_servers_patience_may_be_tried_again(
    mongo_server: MongoServer, client: mongo.Client, mongo_database: str
) -> None:
    database = mongo.database(client, mongo_database)
    await database["things"].insert_one({"_id": "x"})

    def work(plain: mongo.ThreadDatabase, session: mongo.Session) -> None:
        plain["things"].update_one({"_id": "x"}, {"$set": {"n": 1}}, session=session)
        # The server looks now and then for transactions that are too old, and ends what runs in them.
        list(plain["things"].find({"$where": "sleep(5000) || true"}, session=session))

    with mongo_server.transactions_live(1), pytest.raises(OperationFailure) as caught:
        await mongo.in_transaction(database, work)
    assert not caught.value.has_error_label("TransientTransactionError")
    assert mongo.is_transient(caught.value)
    assert await database["things"].find_one({"_id": "x"}) == {"_id": "x"}


@pytest.mark.parametrize("what", ["a ping", "owners", "one tenant", "all tenants"])
async def test_nothing_waits_long_for_a_silent_connection(
    mongo_server: MongoServer, monkeypatch: pytest.MonkeyPatch, mongo_database: str, what: str
) -> None:
    monkeypatch.setattr(mongo, "PING_S", 0.3)
    monkeypatch.setattr(mongo, "OPERATION_S", 0.3)
    async with SilentProxy(mongo_server.port) as proxy:
        client = mongo.connect(f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true")
        database = mongo.database(client, mongo_database)
        directory = TenantDirectory(TenantDocuments(database[TENANTS_COLLECTION]))
        ask: dict[str, Callable[[], Awaitable[object]]] = {
            "a ping": lambda: mongo.ping(client),
            "owners": lambda: owners(database, ["acme"]),
            "one tenant": lambda: directory.reload("acme"),
            "all tenants": directory.refresh,
        }
        await ask[what]()
        proxy.go_silent()
        async with asyncio.timeout(60):
            with pytest.raises(BackhaulError) as caught:
                await ask[what]()
        assert caught.value.code is Code.UNAVAILABLE
        client.close()


async def test_the_limit_of_transactions_is_the_servers(client: mongo.Client, mongo_server: MongoServer) -> None:
    with mongo_server.transactions_live(7):
        assert await mongo.transaction_lifetime_s(client, 60) == 7


class Refusing:
    """A client, as far as it is used, whose server refuses to tell."""

    def __init__(self, refusal: Exception) -> None:
        self._refusal = refusal

    @property
    def admin(self) -> Refusing:
        return self

    async def command(self, _: Document) -> Document:
        raise self._refusal


@pytest.mark.parametrize("code", [13, 72, 8000])
async def test_a_server_that_may_not_be_asked_is_taken_to_be_as_it_was_said(code: int) -> None:
    refusing: Any = Refusing(OperationFailure("not authorized, or no such parameter", code))
    assert await mongo.transaction_lifetime_s(refusing, 42) == 42


@pytest.mark.parametrize("refusal", [AutoReconnect("gone"), OperationFailure("stepping down", 189)])
async def test_a_server_that_is_away_is_not_taken_for_anything(refusal: Exception) -> None:
    refusing: Any = Refusing(refusal)
    with pytest.raises(BackhaulError) as caught:
        await mongo.transaction_lifetime_s(refusing, 42)
    assert caught.value.code is Code.UNAVAILABLE
