"""What a transaction wrote into the outbox is published once it committed, and not otherwise. On real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import suppress

import pytest
from backhaul_common import mongo, outbox
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.jetstream import Publisher, ensure_streams
from backhaul_common.lifecycle import cancel, keep_running
from backhaul_common.names import NOTICES_STREAM, notices_of
from backhaul_common.notices import entry, notice_id
from backhaul_common.outbox import MAX_PAYLOAD_BYTES, Entry, Outbox
from backhaul_common.settings import CommonSettings
from backhaul_local.mongod import MongoServer
from backhaul_local.nats_server import NatsServer
from backhaul_proto.notice.v1.notice_pb2 import Notice
from backhaul_testing import broker
from nats.aio.client import Client
from nats.js.api import StreamConfig

OUTBOX = "test_outbox"
LIVING = {"acme": "acme.1", "globex": "globex.1"}


class Site:
    """A database, a broker, and what publishes from one to the other."""

    def __init__(self, client: Client, database: mongo.Database) -> None:
        self.js = client.jetstream()
        self.client = client
        self.database = database
        self.owners = dict(LIVING)

    async def asked(self, paths: Collection[str]) -> Mapping[str, str]:
        return {path: registration for path, registration in self.owners.items() if path in paths}

    async def copy(self) -> Outbox:
        publisher = Publisher()
        await publisher.attach(self.client)
        return Outbox(self.database, OUTBOX, publisher, self.asked, sweep_s=0.05)

    async def write(self, *entries: Entry, then: Exception | None = None) -> None:
        def work(database: mongo.ThreadDatabase, session: mongo.Session) -> None:
            outbox.write(database, session, OUTBOX, entries)
            if then is not None:
                raise then

        await mongo.in_transaction(self.database, work)

    async def waiting(self) -> int:
        return await self.database[OUTBOX].count_documents({})

    async def published(self, path: str = "acme") -> list[str]:
        """The occasions of the notices under ``path``, in their order."""
        info = await self.js.stream_info(NOTICES_STREAM)
        found: list[str] = []
        for seq in range(1, info.state.last_seq + 1):
            message = await self.js.get_msg(NOTICES_STREAM, seq)
            assert message.subject is not None
            if message.subject.startswith(notices_of(path).removesuffix(">")):
                found.append(Notice.FromString(message.data or b"").text)
        return found


def told(occasion: str, *, at_us: int = 0, path: str = "acme", registration: str = "") -> Entry:
    registration = registration or LIVING[path]
    notice = Notice(
        id=notice_id(registration, "test.told", occasion),
        registration=registration,
        type="test.told",
        text=occasion,
        occurred_at_us=at_us,
        traceparent="00-trace",
    )
    return entry(notice, path)


@pytest.fixture
async def site(mongo_server: MongoServer, mongo_database: str, fresh_nats: NatsServer) -> AsyncIterator[Site]:
    client = await broker.connect(fresh_nats.uri)
    await ensure_streams(client.jetstream(), CommonSettings(nats_url=fresh_nats.uri))
    mongo_client = mongo.connect(mongo_server.uri)
    database = mongo.database(mongo_client, mongo_database)
    await database[OUTBOX].create_indexes(outbox.INDEXES)
    yield Site(client, database)
    await client.close()
    mongo_client.close()


async def test_a_row_is_there_if_the_transaction_committed(site: Site) -> None:
    with pytest.raises(KeyError):
        await site.write(told("never"), then=KeyError())
    assert await site.waiting() == 0
    await site.write(told("later", at_us=2), told("first", at_us=1), told("other", at_us=3, path="globex"))
    await site.write(told("first", at_us=1))  # Once more, as where a batch is delivered again.
    assert await site.waiting() == 3
    copy = await site.copy()
    assert not await copy.publish_some()
    assert await site.published() == ["first", "later"]
    assert await site.published("globex") == ["other"]
    assert await site.waiting() == 0
    message = await site.js.get_msg(NOTICES_STREAM, 1)
    assert message.subject == "notices.acme.test.told"
    assert message.headers == {
        "Nats-Msg-Id": told("first").id,
        "Nats-Expected-Stream": NOTICES_STREAM,
        "traceparent": "00-trace",
    }


async def test_what_was_published_and_not_deleted_is_published_under_the_same_id(site: Site) -> None:
    copy = await site.copy()
    await site.write(told("a"))
    (row,) = await site.database[OUTBOX].find({}).to_list(None)
    await copy.publish_some()
    await site.database[OUTBOX].insert_one(row)  # As if the process had died before it deleted the row.
    await (await site.copy()).publish_some()
    assert await site.published() == ["a"]
    assert await site.waiting() == 0


async def test_copies_publish_each_row_once_and_in_order(site: Site) -> None:
    copies = [await site.copy() for _ in range(3)]
    running = [asyncio.create_task(copy.run()) for copy in copies]
    occasions = [f"{number:03}" for number in range(250)]
    try:
        for number, occasion in enumerate(occasions):
            await site.write(told(occasion, at_us=number))
            copies[number % 2].written()
        async with asyncio.timeout(60):
            while await site.waiting():
                await asyncio.sleep(0.01)
    finally:
        await asyncio.gather(*(cancel(task) for task in running))
    assert await site.published() == occasions


async def test_a_sweep_finds_what_nobody_told_of(site: Site) -> None:
    running = asyncio.create_task((await site.copy()).run())
    await site.write(*(told(f"{number:03}", at_us=number) for number in range(150)))
    try:
        async with asyncio.timeout(60):
            while await site.waiting():
                await asyncio.sleep(0.01)
    finally:
        await cancel(running)
    assert await site.published() == [f"{number:03}" for number in range(150)]


async def test_nothing_is_published_of_who_is_gone(site: Site) -> None:
    await site.write(told("a"), told("b", path="globex"))
    site.owners["acme"] = "acme.2"  # Deleted, and somebody else has the queue path.
    await (await site.copy()).publish_some()
    assert await site.published() == []
    assert await site.published("globex") == ["b"]
    assert await site.waiting() == 0


async def test_a_copy_that_slept_asks_again_whose_the_rows_are(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "_ASKED_FOR_S", 0)  # However short it sleeps, it sleeps for too long.
    await site.write(told("a"), told("b", path="globex"))

    async def asked_then_slept(paths: Collection[str]) -> Mapping[str, str]:
        found = await site.asked(paths)
        site.owners["acme"] = "acme.2"  # While it sleeps the tenant is deleted, and somebody has its queue path.
        return found

    publisher = Publisher()
    await publisher.attach(site.client)
    await Outbox(site.database, OUTBOX, publisher, asked_then_slept).publish_some()
    assert await site.published() == []
    assert await site.published("globex") == ["b"]
    assert await site.waiting() == 0


async def test_what_the_broker_does_not_take_now_waits_and_what_it_never_takes_holds_up_nobody(
    site: Site, fresh_nats: NatsServer
) -> None:
    await site.js.delete_stream(NOTICES_STREAM)
    await site.js.add_stream(StreamConfig(name=NOTICES_STREAM, subjects=["notices.>"], max_msg_size=2000))
    large = Entry("large", "acme.1", "acme", NOTICES_STREAM, "notices.acme.test.told", bytes(3000), 2)
    await site.write(told("a", at_us=1), large, told("b", at_us=3))
    copy = await site.copy()
    fresh_nats.pause()
    running = asyncio.create_task(keep_running("outbox", copy.run))
    with suppress(TimeoutError):
        async with asyncio.timeout(0.3):
            await asyncio.shield(running)
    assert await site.waiting() == 3
    fresh_nats.resume()
    try:
        async with asyncio.timeout(60):
            while await site.waiting():
                await asyncio.sleep(0.01)
    finally:
        await cancel(running)
    assert await site.published() == ["a", "b"]


async def test_while_the_broker_is_away_it_says_so(site: Site, fresh_nats: NatsServer) -> None:
    copy = Outbox(site.database, OUTBOX, Publisher(), site.asked)
    assert not await copy.publish_some()
    await site.write(told("a"))
    with pytest.raises(BackhaulError) as caught:
        await copy.publish_some()
    assert caught.value.code is Code.UNAVAILABLE
    assert await site.waiting() == 1


def test_an_entry_is_bounded_and_a_type_is_two_words() -> None:
    with pytest.raises(ValueError, match="at most 65536 bytes"):
        entry(Notice(id="1", registration="acme.1", type="test.told", text="x" * MAX_PAYLOAD_BYTES), "acme")
    for wrong in ("", "told", "test.told.again", "Test.told", "test.*", "test.", "a b.c"):
        with pytest.raises(ValueError, match="two words"):
            entry(Notice(type=wrong), "acme")
