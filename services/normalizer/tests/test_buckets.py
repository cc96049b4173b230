"""Buckets: what grows in them, what they are found by, and two copies that fill them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from backhaul_channels import EventKind
from backhaul_common.documents import Document
from backhaul_common.names import EVENTS_COLLECTION, TENANTS_COLLECTION
from backhaul_common.store_format import StoreFormat
from backhaul_common.tenantdata import MongoTenantData
from backhaul_normalizer.buckets import MAX_EVENTS, MAX_GROWN_BYTES, MAX_MARKS, communication_mark
from backhaul_normalizer.facts import message_key
from backhaul_normalizer.model import Fact
from backhaul_normalizer.store import COUNTED, INDEXES, SEVERAL, MongoEventStore
from books import Books
from bson import encode
from layoutreads import agree, all_of, commit, newest, timeline
from normalizer_rig import Rig
from tellings import told

NOTHING: dict[str, Any] = {}


def opened(number: int, **more: Any) -> Fact:
    values = {"kind": EventKind.OPENED, "name": f"M{number}", "arrived": 100 + number, **more}
    return told(key=f"o{number}", **values)


async def buckets_of(rig: Rig) -> list[Document]:
    return await rig.database[EVENTS_COLLECTION].find().sort("_id").to_list(None)


async def test_a_payload_that_outgrows_its_bucket_keeps_its_place_in_every_list(town: Rig) -> None:
    facts, books = [opened(number, query="communicationId=c", error_code="1") for number in range(10)], Books()
    books.commit(facts)
    await commit(town, *facts)
    for size in (MAX_GROWN_BYTES + 1, MAX_GROWN_BYTES + 2, MAX_GROWN_BYTES // 2):
        grown = opened(4, query="communicationId=c", error_code="1", text="x" * size, seq=size)
        books.commit([grown])
        await commit(town, grown)
        await agree(town, books)
    # It grew twice, and each time into a bucket of its own; what is shorter tells nothing.
    held = [[slot is not None for slot in bucket["events"]] for bucket in await buckets_of(town)]
    assert held == [[*4 * [True], False, *5 * [True]], [False], [True]]
    key = message_key("acme.1", "sendgrid", "M4")
    for filters in (NOTHING, {"communication_id": "c"}, {"kind": "opened"}, {"error_code": "1"}):
        assert await all_of(town, size=3, **filters) == newest(facts), filters
    assert await all_of(town, message=key) == [facts[4].id]
    assert await timeline(town, "M4") == ([facts[4].id], False)
    assert await town.events_of("acme.1") == 10


async def test_no_read_misses_an_event_that_grows_out_of_its_bucket_meanwhile(town: Rig) -> None:
    given: dict[str, Any] = {"name": "M1", "recipient": "a@example.com", "error_code": "1"}
    await commit(town, *(opened(number, **given) for number in range(20)))

    async def grow() -> None:
        for number in range(100):
            size = MAX_GROWN_BYTES + 10 + number
            await commit(town, opened(number % 3, text="x" * size, seq=number + 2, **given))

    growing = asyncio.create_task(grow())

    async def read(**filters: Any) -> None:
        while not growing.done():
            assert len(await all_of(town, **filters)) == 20, filters

    async def read_timeline() -> None:
        while not growing.done():
            found, more = await timeline(town)
            assert (len(found), more) == (20, False)

    await asyncio.gather(growing, read_timeline(), read(address="a@example.com"), read(error_code="1"))


async def test_no_bucket_comes_near_what_mongodb_takes_as_one_document(town: Rig) -> None:
    facts, books = [opened(number) for number in range(MAX_EVENTS)], Books()
    books.commit(facts)
    await commit(town, *facts)
    for number in range(1, MAX_EVENTS):
        grown = opened(number, text="x" * (MAX_GROWN_BYTES - 500), seq=number + 2)
        books.commit([grown])
        await commit(town, grown)
    (bucket,) = await buckets_of(town)
    assert 3 << 20 < len(encode(bucket)) < 6 << 20
    await agree(town, books)
    assert await all_of(town) == newest(facts)


async def test_communications_that_change_with_each_callback_do_not_grow_a_bucket(town: Rig) -> None:
    """Of those that duplicates of one event name the least is taken, and with it goes the message."""
    other = opened(99, query="communicationId=other")
    told_of = [opened(1, query=f"communicationId=c{9999 - number}") for number in range(MAX_MARKS + 20)]
    await commit(town, told_of[0], other)
    for fact in told_of[1:]:
        await commit(town, fact)
    (bucket,) = await buckets_of(town)
    assert len(bucket["marks"]) <= MAX_MARKS
    assert {communication_mark(told_of[-1].communication_id), communication_mark("other")} <= set(bucket["marks"])
    assert await all_of(town, communication_id="other") == [other.id]
    assert await all_of(town, communication_id=told_of[-1].communication_id) == [told_of[0].id]
    assert await all_of(town, communication_id=told_of[-2].communication_id) == []


async def test_what_one_event_moved_in_several_buckets_is_published_after_a_crash(town: Rig) -> None:
    books = Books()
    waiting = [told(key=f"w{n}", name="A1", kind=EventKind.OPENED, seq=n, arrived=100 + n) for n in range(1, 6)]
    for fact in waiting:
        books.commit([fact])
        await commit(town, fact)
    assert len(await buckets_of(town)) == 5
    tells = told(key="t", name="M1", kind=EventKind.OPENED, aliases=["A1"], seq=50)
    books.commit([tells], published=False)
    died = await commit(town, tells)
    again = await commit(town, tells)
    moved = {(event.id, event.revision) for event in died.outgoing}
    assert moved == {(tells.id, 0), *((fact.id, 1) for fact in waiting)}
    assert {(event.id, event.revision) for event in again.outgoing} == moved
    assert all(event.again for event in again.outgoing)
    # What tells it again from elsewhere has brought nothing about.
    assert (await commit(town, told(key="t", name="M1", kind=EventKind.OPENED, aliases=["A1"], seq=51))).outgoing == []
    await agree(town, books)


async def test_names_that_are_told_anew_again_and_again_do_not_grow_a_bucket(town: Rig) -> None:
    """Of names that are trusted alike the one with the least key counts: each takes the event from the one before."""
    names = [f"M{number}" for number in range(MAX_MARKS + 10)]
    names.sort(key=lambda name: message_key("acme.1", "sendgrid", name), reverse=True)
    moving = told(key="w", name="A1", kind=EventKind.OPENED)
    await commit(town, moving)
    for number, name in enumerate(names):
        tells = told(key="t", name=name, kind=EventKind.OPENED, aliases=["A1"], seq=number + 2)
        await commit(town, tells)
        if not number:
            first = tells
    (bucket, *_) = await buckets_of(town)
    assert len(bucket["moved_by"]) <= MAX_MARKS
    # The last one is known to have moved it, and the first one not to be the cause of where it is.
    assert {event.id for event in (await commit(town, tells)).outgoing} == {tells.id, moving.id}
    assert {event.id for event in (await commit(town, first)).outgoing} == {first.id}


async def test_two_tenants_with_the_same_ids_have_nothing_of_each_other(town: Rig) -> None:
    mine = [opened(number, recipient="a@example.com", error_code="1") for number in range(40)]
    theirs = [opened(number, recipient="a@example.com", error_code="1", tenant="globex") for number in range(20)]
    both = [fact for pair in zip(mine, theirs, strict=False) for fact in pair]
    await commit(town, *both)
    await commit(town, *mine)
    assert {fact.id for fact in mine}.isdisjoint(fact.id for fact in theirs)
    for bucket in await buckets_of(town):
        ids = {one["id"].hex() for one in bucket["events"]}
        assert ids <= {fact.id for fact in (mine if bucket["registration"] == "acme.1" else theirs)}
    for filters in (NOTHING, {"address": "a@example.com"}, {"error_code": "1"}, {"kind": "opened"}):
        assert await all_of(town, **filters) == newest(mine), filters
        assert await all_of(town, of="globex", **filters) == newest(theirs), filters
    other = message_key("globex.1", "sendgrid", "M1")
    assert await all_of(town, message=other) == []

    data = MongoTenantData(
        town.database, StoreFormat(town.database), collections=INDEXES, counted=COUNTED, several=SEVERAL
    )
    assert ((await data.usage("acme.1"))["events"], (await data.usage("globex.1"))["events"]) == (40, 20)
    await town.database[TENANTS_COLLECTION].update_one({"_id": "acme"}, {"$set": {"status": "deleting"}})
    await data.purge("acme", "acme.1")
    left = {name: await town.database[name].distinct("registration") for name in INDEXES}
    assert {registration for found in left.values() for registration in found} == {"globex.1"}
    assert await all_of(town, of="globex") == newest(theirs)


@pytest.mark.parametrize("name", ["M1", ""])
async def test_of_two_copies_that_insert_an_event_at_once_one_finds_it_known(town: Rig, name: str) -> None:
    stores = [MongoEventStore(town.client, town.database) for _ in range(4)]
    for number in range(10):
        fact = told(key=f"{number}", name=name, kind=EventKind.OPENED, error_code="1", arrived=100 + number)
        committed = await asyncio.gather(*(store.commit([fact], []) for store in stores))
        assert [len(one.new) for one in committed].count(1) == 1
        assert [len(one.known) for one in committed].count(1) == 3
    assert len(await town.rows(EVENTS_COLLECTION)) == len(await all_of(town, error_code="1")) == 10
