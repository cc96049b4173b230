"""Messages and addresses that are kept no longer, on a real MongoDB."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

import pymongo.collection
import pytest
from backhaul_channels import EventKind
from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.names import (
    COUNTS_COLLECTION,
    ENTRIES_COLLECTION,
    EVENTS_COLLECTION,
    JOINS_COLLECTION,
    MESSAGES_COLLECTION,
    RETENTION_COLLECTION,
)
from backhaul_normalizer import expiry
from backhaul_normalizer import store as writing_store
from backhaul_normalizer.hours import HOUR_US
from backhaul_normalizer.model import DAY_US, Fact
from backhaul_normalizer.reads import MongoReads
from backhaul_normalizer.store import MongoEventStore
from books import answered_by
from normalizer_rig import Rig, RigFactory
from retention_rig import end_all, keeping, number
from storedbooks import stored_books
from tellings import batch_of, correspondence, story, told

NO_SPAN = (0, 0)


async def prepared(rig: Rig) -> MongoEventStore:
    store = MongoEventStore(rig.client, rig.database)
    await store.prepare()
    return store


async def found_for(rig: Rig, address: str) -> tuple[int, int]:
    """How many messages and events a list by recipient has."""
    reads = MongoReads(rig.database)
    messages, _ = await reads.messages("acme.1", {"address": address}, NO_SPAN, 50, "")
    events, _ = await reads.events("acme.1", {"address": address}, NO_SPAN, 50, "")
    return len(messages), len(events)


async def test_messages_go_with_their_names_and_what_they_counted_stays(
    rig_factory: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "MAX_MESSAGES", 2)
    async with rig_factory(copies=0) as rig:
        await rig.register(keeping("acme", event=30, message=60), keeping("globex"))
        store = await prepared(rig)
        arrived = time.time_ns() // 1000
        for tenant in ("acme", "globex"):
            for n in range(5):
                one: dict[str, Any] = {"tenant": tenant, "query": "communicationId=spring", "arrived": arrived}
                await store.commit([told(key=f"{n}", name=f"M{n}", aliases=[f"A{n}"], **one)], [])
                await store.commit([told(key=f"{n}o", kind=EventKind.OPENED, name=f"A{n}", seq=2, **one)], [])
        before = await stored_books(rig)
        assert await number(rig, JOINS_COLLECTION, registration="acme.1") > 0
        await end_all(rig, in_days=59)
        assert (await rig.events_of("acme.1"), await number(rig, MESSAGES_COLLECTION, registration="acme.1")) == (0, 5)
        await end_all(rig, in_days=61)
        for collection in (MESSAGES_COLLECTION, JOINS_COLLECTION):
            assert await number(rig, collection, registration="acme.1") == 0
            assert await number(rig, collection, registration="globex.1") >= 5
        assert await number(rig, COUNTS_COLLECTION, registration="acme.1") > 0
        assert await number(rig, MESSAGES_COLLECTION) == 5
        assert (await stored_books(rig)).totals() == before.totals()


async def test_a_message_stays_as_long_as_anything_of_it(rig_factory: RigFactory) -> None:
    now_us = time.time_ns() // 1000
    later: dict[str, Any] = {"arrived": now_us, "at": now_us + 20 * DAY_US}
    never: dict[str, Any] = {"arrived": now_us, "at": now_us + 90_000 * DAY_US}
    between: dict[str, Any] = {"recipient": "+4915112345678", "sender": "+4930123456"}
    async with rig_factory(copies=0) as rig:
        await rig.register(keeping("acme", event=30, message=30))
        store = await prepared(rig)
        await store.commit([told(name="Mheard", key="h", kind=EventKind.SENT, **later)], [])
        await store.commit([told(name="Mfuture", key="f", kind=EventKind.SENT, **never)], [])
        sent = told(name="Msent", key="s", kind=EventKind.SENT, arrived=now_us, at=now_us, **between)
        await store.commit([sent], [])
        await end_all(rig, in_days=31)
        # Of the one it was heard later, by its provider; what is to be in a far future is not believed.
        assert {row["message_id"] for row in await rig.rows(MESSAGES_COLLECTION)} == {"Mheard"}
        await store.commit([sent], [])
        wrote = told(
            name="R1",
            key="r",
            kind=EventKind.INBOUND,
            arrived=now_us + 6 * DAY_US,
            at=now_us + 6 * DAY_US,
            provisional=False,
            **between,
        )
        await store.commit([wrote], [])
        await end_all(rig, in_days=32)
        kept = {row["message_id"] for row in await rig.rows(MESSAGES_COLLECTION)}
        # The reply is not due yet, nor is what it answers.
        assert kept == {"Mheard", "Msent", "R1"}
        (reply,) = [row for row in (await stored_books(rig)).event_rows.values() if row["kind"] == "inbound"]
        assert answered_by(reply)[1] == "Msent"
        await end_all(rig, in_days=90)
        assert await number(rig, MESSAGES_COLLECTION) == await number(rig, ENTRIES_COLLECTION) == 0


async def test_addresses_go_before_messages_and_do_not_come_back(
    rig_factory: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "MAX_MESSAGES", 2)
    person: dict[str, Any] = {"recipient": "a@example.com", "sender": "shop@example.com"}
    async with rig_factory(copies=0) as rig:
        await rig.register(keeping("acme", event=30, address=10), keeping("globex"))
        store = await prepared(rig)
        for tenant in ("acme", "globex"):
            sent = [
                told(key=f"{n}", kind=EventKind.SENT, name=f"M{n}", arrived=100 + n % 2, tenant=tenant, **person)
                for n in range(7)
            ]
            wrote = [
                told(key=f"r{n}", kind=EventKind.INBOUND, name=f"R{n}", provisional=False, tenant=tenant, **person)
                for n in range(3)
            ]
            await store.commit(batch_of([*sent, *wrote]), [])
        assert await found_for(rig, "a@example.com") == (10, 10)
        await end_all(rig, in_days=11)
        assert await found_for(rig, "a@example.com") == (0, 0)
        for name in ("recipient", "address", "sender", "pair"):
            assert await number(rig, MESSAGES_COLLECTION, **{name: {"$exists": True}, "registration": "acme.1"}) == 0
        assert await number(rig, ENTRIES_COLLECTION, address={"$exists": True}, registration="acme.1") == 0
        assert await number(rig, MESSAGES_COLLECTION, address="a@example.com", registration="globex.1") == 10
        # What is told of them later, and a whole folding anew, brings nothing back.
        await store.commit([told(key="c", kind=EventKind.CLICKED, name="M1", seq=3, **person)], [])
        await store.commit([told(key="1", kind=EventKind.SENT, name="M1", seq=4, text="more", **person)], [])
        (message,) = [row for row in await rig.rows(MESSAGES_COLLECTION) if row["message_id"] == "M1"][:1]
        assert (message["kinds"], message["recipient"], message["sender"]) == ({"sent": 1, "clicked": 1}, "", "")
        assert await rig.events_of("acme.1") == 11


async def test_what_comes_late_loses_its_addresses_too(rig_factory: RigFactory) -> None:
    now_us = time.time_ns() // 1000
    async with rig_factory(copies=0) as rig:
        await rig.register(keeping("acme", address=10))
        store = await prepared(rig)

        async def sent(name: str, days_ago: int) -> None:
            arrived = now_us - days_ago * DAY_US
            await store.commit([told(key=name, name=name, arrived=arrived, recipient="a@example.com")], [])

        await sent("M1", 20)
        await end_all(rig, in_days=0)
        before = await rig.database[RETENTION_COLLECTION].find_one()
        await end_all(rig, in_days=0)
        assert await rig.database[RETENTION_COLLECTION].find_one() == before  # Nothing is looked at twice.
        # It was held until now.
        await sent("M2", 300)
        await sent("M3", 1)
        assert await found_for(rig, "a@example.com") == (2, 2)
        await end_all(rig, in_days=0)
        assert await found_for(rig, "a@example.com") == (1, 1)


async def test_what_is_of_today_and_of_whoever_keeps_addresses_takes_no_position_back(rig_factory: RigFactory) -> None:
    now_us = time.time_ns() // 1000
    async with rig_factory(copies=0) as rig:
        await rig.register(keeping("acme", address=10), keeping("globex"))
        store = await prepared(rig)
        for tenant, days_ago in (("acme", 0), ("acme", 8), ("globex", 300)):
            await store.commit([told(name=f"M{days_ago}", arrived=now_us - days_ago * DAY_US, tenant=tenant)], [])
        assert await number(rig, RETENTION_COLLECTION) == 0
        await store.commit([told(name="M300", arrived=now_us - 300 * DAY_US)], [])
        assert await number(rig, RETENTION_COLLECTION, registration="acme.1") == 1


async def test_a_reply_that_comes_late_loses_its_address_too(rig_factory: RigFactory) -> None:
    now_us = time.time_ns() // 1000
    async with rig_factory(copies=0) as rig:
        await rig.register(keeping("acme", address=10))
        store = await prepared(rig)

        async def wrote(key: str, days_ago: int, **more: Any) -> None:
            at_us = now_us - days_ago * DAY_US
            one: dict[str, Any] = {"kind": EventKind.INBOUND, "arrived": at_us, "recipient": "a@example.com"}
            await store.commit([told(key=key, name="R1", provisional=False, **one, **more)], [])

        await wrote("r1", 20)
        await end_all(rig, in_days=0)
        # Another one of a message that is known, and more of one that is.
        await wrote("r2", 300)
        await wrote("r1", 20, seq=2, text="more")
        assert await number(rig, ENTRIES_COLLECTION, address="a@example.com") == 2
        await end_all(rig, in_days=0)
        assert await number(rig, ENTRIES_COLLECTION, address="a@example.com") == 0


async def test_addresses_that_are_written_while_they_are_gone_past_are_looked_at_again(
    rig_factory: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_us = time.time_ns() // 1000
    loop = asyncio.get_running_loop()
    async with rig_factory(copies=0) as rig:
        await rig.register(keeping("acme", address=10))
        store = await prepared(rig)
        await store.commit([told(name="M1", arrived=now_us - 12 * DAY_US, recipient="a@example.com")], [])
        tries: list[list[Document]] = []

        def passed(*args: Any) -> list[Document]:
            made = expiry.come_late(*args)
            if not tries:
                # In the midst of the commit, which has read what is stored and written most of its own.
                end = partial(expiry.end_addresses, expiry.Owner("acme", "acme.1"), now_us, expiry.START)
                asyncio.run_coroutine_threadsafe(mongo.in_transaction(rig.database, end), loop).result(10)
            tries.append(made)
            return made

        monkeypatch.setattr(writing_store, "come_late", passed)
        await store.commit([told(name="M2", arrived=now_us - 20 * DAY_US, recipient="b@example.com")], [])
        assert len(tries) == 2
        await end_all(rig, in_days=0)
        assert await number(rig, MESSAGES_COLLECTION, address={"$exists": True}) == 0


async def test_a_reply_keeps_what_it_answers_when_nobody_could_find_it_any_more(rig_factory: RigFactory) -> None:
    async with rig_factory(copies=0) as rig:
        await rig.register(keeping("acme", event=30, address=10))
        store = await prepared(rig)
        facts = correspondence(1)
        await store.commit(batch_of(facts[:-1]), [])
        before = await stored_books(rig)
        await end_all(rig, in_days=11)
        # More is told of a reply, so it is settled anew.
        committed = await store.commit([facts[-1]], [])
        assert committed.revisions > 0
        after = await stored_books(rig)

    def answers(books: Any) -> dict[str, tuple[str, str, int]]:
        return {key: answered_by(row) for key, row in books.event_rows.items() if row["kind"] == "inbound"}

    assert answers(after) == answers(before)
    assert after.reply_totals() == before.reply_totals()


async def test_copies_that_end_messages_while_batches_change_them(
    rig_factory: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "MAX_MESSAGES", 3)
    facts: list[Fact] = [fact for n in range(15) for fact in (*story(n), *correspondence(n))]
    async with rig_factory(copies=0) as rig:
        await rig.register(keeping("acme", event=30, message=30, address=10))
        store = await prepared(rig)

        async def commit() -> None:
            for start in range(0, len(facts), 10):
                await store.commit(batch_of(facts[start : start + 10]), [])

        committing = asyncio.create_task(commit())
        while not committing.done():
            await asyncio.gather(*(end_all(rig, in_days=31) for _ in range(2)))
        await committing
        await end_all(rig, in_days=31)
        assert [await number(rig, name) for name in (MESSAGES_COLLECTION, ENTRIES_COLLECTION)] == [0, 0]
        assert await rig.events_of("acme.1") == 0


async def test_what_is_due_is_found_by_indexes(rig_factory: RigFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "MAX_BUCKETS", 5)
    monkeypatch.setattr(expiry, "MAX_MESSAGES", 5)
    asked: list[tuple[str, Document, list[tuple[str, int]], int]] = []
    async with rig_factory(copies=0) as rig:
        await rig.register(keeping("acme", event=30, message=30, address=10))
        store = await prepared(rig)
        for n in range(20):
            arrived = (n + 1) * HOUR_US
            wrote = told(key=f"r{n}", kind=EventKind.INBOUND, name=f"R{n}", provisional=False, arrived=arrived)
            await store.commit([told(key=f"{n}", name=f"M{n}", arrived=arrived), wrote], [])
        find = pymongo.collection.Collection.find

        def noted(self: Any, query: Document, *args: Any, **options: Any) -> Any:
            if "sort" in options:
                asked.append((self.name, query, options["sort"], options["limit"]))
            return find(self, query, *args, **options)

        monkeypatch.setattr(pymongo.collection.Collection, "find", noted)
        for end in (expiry.end_addresses, expiry.end_events, expiry.end_messages):
            due_us = time.time_ns() // 1000 + 31 * DAY_US
            await mongo.in_transaction(rig.database, partial(end, expiry.Owner("acme", "acme.1"), due_us, expiry.START))
        monkeypatch.undo()
        assert [name for name, *_ in asked] == [
            MESSAGES_COLLECTION,
            ENTRIES_COLLECTION,
            EVENTS_COLLECTION,
            MESSAGES_COLLECTION,
        ]
        for name, query, order, limit in asked:
            command: Document = {"find": name, "filter": query, "sort": dict(order), "limit": limit}
            plan = await rig.database.command({"explain": command, "verbosity": "executionStats"})
            done = plan["executionStats"]
            assert done["totalDocsExamined"] == done["nReturned"] == 5, (query, plan["queryPlanner"]["winningPlan"])
