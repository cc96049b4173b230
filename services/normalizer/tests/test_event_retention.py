"""Events that are kept no longer, on a real MongoDB: what goes, what stays, and what reads say of it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from backhaul_channels import EventKind
from backhaul_common import mongo
from backhaul_common.names import ENTRIES_COLLECTION, EVENTS_COLLECTION, MESSAGES_COLLECTION, RETENTION_COLLECTION
from backhaul_normalizer import expiry, timelines
from backhaul_normalizer.model import DAY_US, Fact
from backhaul_normalizer.reads import MongoReads
from backhaul_normalizer.refs import MAX_REFS
from backhaul_normalizer.store import MongoEventStore
from backhaul_normalizer.writing import Commands
from backhaul_proto.callback.v1.callback_pb2 import VERIFICATION_OBSERVED_INVALID
from backhaul_proto.event.v1.event_pb2 import EVENT_KIND_BOUNCED, EVENT_KIND_CLICKED
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from books import Books
from normalizer_rig import RigFactory
from retention_rig import copy_of, end_all, keeping, number
from storedbooks import stored_books
from tellings import batch_of, correspondence, story, told
from test_purge import tenant_data


async def test_whole_buckets_go_with_their_entries_and_of_one_tenant_alone(rig_factory: RigFactory) -> None:
    async with rig_factory(copies=0) as rig:
        await rig.register(keeping("acme", event=30), keeping("globex"))
        store = MongoEventStore(rig.client, rig.database)
        await store.prepare()
        for tenant in ("acme", "globex"):
            bounced = [
                told(key=str(n), kind=EventKind.BOUNCED, name=f"M{n}", error_code="511", tenant=tenant)
                for n in range(100)
            ]
            await store.commit(batch_of(bounced), [])
        await end_all(rig, in_days=29)
        assert (await rig.events_of("acme.1"), await rig.events_of("globex.1")) == (100, 100)
        await end_all(rig, in_days=31)
        assert (await rig.events_of("acme.1"), await rig.events_of("globex.1")) == (0, 100)
        assert await number(rig, ENTRIES_COLLECTION, registration="acme.1") == 0
        assert await number(rig, ENTRIES_COLLECTION, registration="globex.1") == 100
        assert await number(rig, MESSAGES_COLLECTION, registration="acme.1") == 100


async def test_what_was_processed_late_is_kept_as_if_it_came_then(rig_factory: RigFactory) -> None:
    async with rig_factory(copies=0) as rig:
        await rig.register(keeping("acme", event=30))
        store = MongoEventStore(rig.client, rig.database)
        await store.prepare()
        held_us = time.time_ns() // 1000 - 300 * DAY_US
        await store.commit([told(arrived=held_us)], [])
        await end_all(rig, in_days=0)
        assert await rig.events_of("acme.1") == 1


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_comes_after_expiries_the_store_agrees_with_the_books(
    rig_factory: RigFactory, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311  # an order that can be repeated, no secret
    facts = [fact for n in range(4) for fact in (*story(n), *correspondence(n))]
    left = chance.sample(facts, len(facts)) + chance.sample(facts, len(facts) // 2)
    books = Books()
    async with rig_factory(copies=0) as rig:
        await rig.register(keeping("acme", event=30))
        store = MongoEventStore(rig.client, rig.database)
        await store.prepare()
        while left:
            size = chance.randint(1, 8)
            batch, left = left[:size], left[size:]
            batch = [fact for fact in batch if fact.id not in books.forgotten_rows]
            if batch:
                made = books.commit(batch)
                committed = await store.commit(batch_of(batch), [])
                assert {fact.id for fact in committed.new} == {fact.id for fact in made.new}
            if chance.random() < 0.3:
                await end_all(rig, in_days=31)
                books.expire(list(books.event_rows))
        found = await stored_books(rig)
    assert found.state() == books.state()


@pytest.mark.parametrize("way", [0, 1], ids=["also of where it is", "of the name alone"])
async def test_an_expired_event_is_known_though_its_name_leads_elsewhere_now(rig_factory: RigFactory, way: int) -> None:
    """It was moved to A1 and stays there, since nothing is left of it that could move on with its name."""

    def clicked(seq: int) -> Fact:
        return told(key="1", kind=EventKind.CLICKED, name="S1", seq=seq, verification=VERIFICATION_OBSERVED_INVALID)

    async with rig_factory(copies=0) as rig:
        await rig.register(keeping("acme", event=30))
        store = MongoEventStore(rig.client, rig.database)
        await store.prepare()
        books = Books()
        for batch in (
            [clicked(1)],
            [told(key="2", name="A1", aliases=["S1"], seq=2, verification=VERIFICATION_OBSERVED_INVALID)],
            [told(key="3", kind=EventKind.OPENED, name="M2", aliases=["A1", "S1"][way:], seq=3)],
            [clicked(4)],
        ):
            books.commit(batch)
            await store.commit(batch_of(batch), [])
            if len(books.event_rows) == 2:
                await end_all(rig, in_days=31)
                books.expire(list(books.event_rows))
        found = await stored_books(rig)
    assert found.state() == books.state()
    assert sum(row["kinds"].get("clicked", 0) for row in found.message_rows.values()) == 1


async def test_reads_after_an_expiry(rig_factory: RigFactory) -> None:
    async with rig_factory() as rig:
        await rig.register(keeping("acme", event=30), keeping("globex"))
        store = MongoEventStore(rig.client, rig.database)
        person: dict[str, Any] = {"recipient": "a@example.com", "query": "communicationId=spring"}
        for tenant in ("acme", "globex"):
            told_before = [
                told(key="1", kind=EventKind.BOUNCED, name="M1", error_code="511", tenant=tenant, **person),
                told(key="2", kind=EventKind.INBOUND, name="R1", provisional=False, tenant=tenant, **person),
                told(key="3", kind=EventKind.OPENED, name="", tenant=tenant, **person),
            ]
            await store.commit(batch_of(told_before), [])
        began_us = time.time_ns() // 1000
        await end_all(rig, in_days=31)
        for tenant in ("acme", "globex"):
            late = told(key="4", kind=EventKind.CLICKED, name="M1", seq=9, tenant=tenant, **person)
            await store.commit([late], [])

        async def read(tenant: str) -> tuple[list[int], list[int]]:
            """The kinds of a timeline, and the numbers of what lists have."""
            one = await rig.stub.GetMessage(pb.GetMessageRequest(tenant_id=tenant, channel="sendgrid", message_id="M1"))
            assert one.message.event_count == 2
            assert len(one.timeline) + one.expired_events == 2
            numbers = []
            for filters in FILTERS:
                listed = await rig.stub.ListEvents(pb.ListEventsRequest(tenant_id=tenant, **filters))
                numbers.append(len(listed.events))
                if tenant == "acme":
                    # By the clock of this copy, or as the other one noted it whose clock is ahead.
                    ahead_us = listed.retained_since_us + 30 * DAY_US - began_us
                    assert 0 <= ahead_us <= 31 * DAY_US + time.time_ns() // 1000 - began_us
                else:
                    assert listed.retained_since_us == 0
            counted = await rig.stub.CountErrors(pb.CountErrorsRequest(tenant_id=tenant))
            assert bool(counted.retained_since_us) == (tenant == "acme")
            replies = await rig.stub.ListReplies(pb.ListRepliesRequest(tenant_id=tenant))
            numbers += [len(counted.errors), len(replies.replies)]
            return [event.kind for event in one.timeline], numbers

        assert await read("acme") == ([EVENT_KIND_CLICKED], [1, 1, 1, 0, 1, 0, 0, 0])
        assert await read("globex") == ([EVENT_KIND_BOUNCED, EVENT_KIND_CLICKED], [4, 4, 4, 1, 2, 1, 1, 1])
        for tenant in ("acme", "globex"):
            spring = await rig.stub.GetCommunication(
                pb.GetCommunicationRequest(tenant_id=tenant, communication_id="spring")
            )
            counts = {one.kind: one.count for one in spring.communication.events}
            assert counts[EVENT_KIND_BOUNCED] == counts[EVENT_KIND_CLICKED] == 1


FILTERS: list[dict[str, Any]] = [
    {},
    {"recipient": "a@example.com"},
    {"communication_id": "spring"},
    {"error_code": "511"},
    {"channel": "sendgrid", "message_id": "M1"},
    {"kind": EVENT_KIND_BOUNCED},
]


async def test_a_long_timeline_says_how_many_are_gone(rig_factory: RigFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timelines, "MAX_TIMELINE", 10)
    async with rig_factory(copies=0) as rig:
        await rig.register(keeping("acme", event=30))
        store = MongoEventStore(rig.client, rig.database)
        await store.prepare()

        def opened(numbers: range) -> list[Fact]:
            return [told(key=str(n), kind=EventKind.OPENED, name="M1", at=n, seq=n) for n in numbers]

        for start in range(1, MAX_REFS + 61, 20):
            await store.commit(opened(range(start, start + 20)), [])
        gone = await number(rig, ENTRIES_COLLECTION)
        assert gone >= 40
        await end_all(rig, in_days=31)
        assert await number(rig, ENTRIES_COLLECTION) == 0
        stored = await rig.events_of("acme.1")
        assert stored == 0
        (message,) = await rig.rows(MESSAGES_COLLECTION)
        before = message["event_count"]
        assert before >= MAX_REFS + 40
        for more, shown in ((3, 3), (20, 10)):
            await store.commit(opened(range(1000 + before, 1000 + before + more)), [])
            found = await MongoReads(rig.database).message("acme.1", "sendgrid", "M1")
            assert found is not None
            assert len(found.events) == shown
            assert found.more == (shown < more)
            assert found.expired + await rig.events_of("acme.1") == found.message["event_count"]
            await end_all(rig, in_days=31)


async def test_copies_that_end_the_same_while_batches_change_it(
    rig_factory: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "MAX_BUCKETS", 2)
    facts = [fact for n in range(20) for fact in (*story(n), *correspondence(n))]
    plain = Books()
    plain.commit(facts)
    async with rig_factory(copies=0) as rig:
        await rig.register(keeping("acme", event=30))
        store = MongoEventStore(rig.client, rig.database)
        await store.prepare()

        async def commit() -> None:
            for start in range(0, len(facts), 10):
                await store.commit(batch_of(facts[start : start + 10]), [])

        committing = asyncio.create_task(commit())
        while not committing.done():
            await asyncio.gather(*(end_all(rig, in_days=31) for _ in range(2)))
        await committing
        await end_all(rig, in_days=31)
        assert await number(rig, EVENTS_COLLECTION) == await number(rig, ENTRIES_COLLECTION) == 0
        messages = await rig.rows(MESSAGES_COLLECTION)
    # Each event of a message was counted once, whatever of it was there.
    counted = sum(row["event_count"] for row in messages)
    assert counted == sum(row["event_count"] for row in plain.message_rows.values())


async def test_a_slice_that_fails_leaves_all_of_it_and_keeps_no_other_tenant_waiting(
    rig_factory: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig_factory(copies=0) as rig:
        await rig.register(keeping("acme", event=30), keeping("globex", event=30))
        store = MongoEventStore(rig.client, rig.database)
        await store.prepare()
        for tenant in ("acme", "globex"):
            await store.commit([told(kind=EventKind.BOUNCED, error_code="511", tenant=tenant)], [])
        (bucket,) = await rig.database[EVENTS_COLLECTION].find({"registration": "acme.1"}).to_list(None)
        delete = Commands.delete

        def failing(self: Commands, collection: str, ids: Sequence[bytes]) -> None:
            if bucket["_id"] in ids:
                raise BrokenPipeError
            delete(self, collection, ids)

        with monkeypatch.context() as patched:
            patched.setattr(Commands, "delete", failing)
            await end_all(rig, in_days=31)
        for registration, left in (("acme.1", 1), ("globex.1", 0)):
            assert await number(rig, ENTRIES_COLLECTION, registration=registration) == left
            assert await rig.events_of(registration) == left
        await end_all(rig, in_days=31)
        assert await number(rig, ENTRIES_COLLECTION) == await rig.events_of("acme.1") == 0


async def test_nothing_ends_of_a_tenant_that_is_being_deleted_or_that_says_otherwise_now(
    rig_factory: RigFactory,
) -> None:
    async with rig_factory(copies=0) as rig:
        store = MongoEventStore(rig.client, rig.database)
        await store.prepare()
        tenant = keeping("acme", event=30)
        await rig.register(tenant)
        await store.commit([told()], [])
        owner = expiry.Owner("acme", "acme.1")

        async def end() -> expiry.Slice:
            due_us = time.time_ns() // 1000 + 31 * DAY_US
            return await mongo.in_transaction(rig.database, partial(expiry.end_events, owner, due_us, expiry.START))

        for other in (keeping("acme"), keeping("acme", event=60), tenant.model_copy(update={"status": "deleting"})):
            await rig.register(other)
            assert await end() == expiry.NOTHING
        await rig.register(tenant.model_copy(update={"registration": "acme.2"}))
        assert await end() == expiry.NOTHING
        await rig.register(tenant)
        assert await end() == expiry.Slice(1, None)
        await rig.register(tenant.model_copy(update={"status": "deleting"}))
        assert await tenant_data(rig).purge("acme", "acme.1") > 0
        assert await number(rig, RETENTION_COLLECTION) == 0
        assert await end() == expiry.NOTHING
        assert await number(rig, RETENTION_COLLECTION) == 0


async def test_since_when_events_are_there_does_not_move_back(rig_factory: RigFactory) -> None:
    async with rig_factory(copies=0) as rig:
        store = MongoEventStore(rig.client, rig.database)
        await store.prepare()
        await rig.register(keeping("acme", event=30))
        await store.commit([told()], [])
        copy = await end_all(rig, in_days=100)
        short_us = copy.retained.since_us(keeping("acme", event=30))
        assert copy.retained.since_us(keeping("acme", event=90)) == copy.retained.since_us(keeping("acme"))
        assert abs(copy.retained.since_us(keeping("acme")) - short_us) < DAY_US // 24
        assert copy.retained.since_us(keeping("globex")) == 0
        another = copy_of(rig)
        assert another.retained.since_us(keeping("acme")) == 0
        await another.retained.load()
        assert another.retained.since_us(keeping("acme")) > 0
