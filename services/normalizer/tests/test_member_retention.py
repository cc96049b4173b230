"""Members that are kept no longer, on a real MongoDB: what goes of them, and what their batches still tell."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import pymongo.collection
import pytest
from backhaul_channels import EventKind
from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.names import (
    BATCHES_COLLECTION,
    COMMUNICATIONS_COLLECTION,
    MEMBERS_COLLECTION,
    MESSAGES_COLLECTION,
    RETENTION_COLLECTION,
    TENANTS_COLLECTION,
)
from backhaul_common.store_format import StoreFormat
from backhaul_common.tenantdata import MongoTenantData
from backhaul_normalizer import expiry
from backhaul_normalizer.communications import ending
from backhaul_normalizer.communications.documents import batch_key
from backhaul_normalizer.hours import HOUR_US
from backhaul_normalizer.model import DAY_US, Fact
from backhaul_normalizer.store import COUNTED, INDEXES
from normalizer_rig import Rig, RigFactory
from retention_rig import end_all, keeping, number
from rosters import REGISTRATION, Copy, Rosters
from tellings import batch_of, told

KEPT = {"event": 30, "message": 60, "address": 10}


def address(member: int) -> str:
    return f"{member}@example.com"


def mail(batch_id: str, member: int, kind: EventKind = EventKind.SENT, **more: Any) -> Fact:
    now_us = time.time_ns() // 1000
    query = f"communicationId=spring&batchId={batch_id}"
    one: dict[str, Any] = {"query": query, "recipient": address(member), "arrived": now_us, "at": now_us}
    return told(kind=kind, name=f"M{batch_id}{member}", **{**one, "key": kind.value, **more})


class World:
    """Batches of the communication spring, whose mails were sent."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.rosters = Rosters(rig)
        self.now_us = time.time_ns() // 1000
        self.copy = Copy(rig, lambda: self.now_us)

    async def prepare(self, **kept: int) -> World:
        await self.rig.register(keeping("acme", **kept))
        await self.copy.store.prepare()
        await self.rosters.communication("spring")
        return self

    async def batch(self, batch_id: str, members: Sequence[int], *, complete: bool = True) -> None:
        await self.rosters.batch("spring", batch_id, at_us=self.now_us)
        for one in members:
            await self.rosters.member(self.copy, batch_id, f"k{one}", [("sendgrid", address(one))])
        key = batch_key(REGISTRATION, batch_id)
        of_batch = {"_id": {"$gt": key + bytes(12), "$lte": key + b"\xff" * 12}}
        await self.members.update_many(of_batch, {"$set": {"attributes": [["name", "Ada"]]}})
        await self.copy.store.commit(batch_of([mail(batch_id, one) for one in members]), [])
        if complete:
            await self.rosters.close(self.copy, batch_id)
            assert (await self.rosters.stored(batch_id))["status"] == "complete"

    @property
    def members(self) -> mongo.Collection:
        return self.rig.database[MEMBERS_COLLECTION]

    async def of(self, batch_id: str) -> list[Document]:
        return await self.members.find({"batch_id": batch_id}).to_list(None)

    async def told(self) -> tuple[Any, ...]:
        """What batches still tell when their members are gone."""
        return await self.rosters.counted(), await self.rig.database[BATCHES_COLLECTION].find().to_list(None)


async def test_members_of_complete_batches_lose_who_they_are_and_go_and_the_counts_stay(
    rig_factory: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "MAX_MEMBERS", 2)
    monkeypatch.setattr(ending, "MAX_BATCHES", 2)
    async with rig_factory(copies=0) as rig:
        world = await World(rig).prepare(**KEPT)
        for batch_id, members in {"b1": range(5), "b2": range(5, 9), "b3": range(9, 10), "b4": range(0)}.items():
            await world.batch(batch_id, members)
        await world.batch("open", range(20, 23), complete=False)
        before, as_registered = await world.told(), await world.of("open")
        assert before[0] == {"b1": {"Sent": 5}, "b2": {"Sent": 4}, "b3": {"Sent": 1}, "b4": {}, "open": {"Sent": 3}}
        await end_all(rig, in_days=9)
        assert await number(rig, MEMBERS_COLLECTION, address_expired=True) == 0

        await end_all(rig, in_days=11)
        for batch_id in ("b1", "b2", "b3"):
            for member in await world.of(batch_id):
                (destination,) = member["destinations"]
                assert (destination["recipient"], destination["address"]) == ("", "")
                assert destination["holder"]
                assert (member["attributes"], len(member["found_by"]), member["key"][0]) == ([], 1, "k")
        assert [len(await world.of(batch_id)) for batch_id in ("b1", "b2", "b3")] == [5, 4, 1]
        assert await world.of("open") == as_registered
        position = await rig.database[RETENTION_COLLECTION].find_one()
        await end_all(rig, in_days=11)
        assert await rig.database[RETENTION_COLLECTION].find_one() == position  # Nothing is looked at twice.

        await end_all(rig, in_days=61)
        assert {one["batch_id"] for one in await world.members.find().to_list(None)} == {"open"}
        assert await world.of("open") == as_registered
        assert await world.told() == before
        # A message stays with the member whom it is for.
        left = await rig.database[MESSAGES_COLLECTION].find().to_list(None)
        assert sorted(one["message_id"] for one in left) == ["Mopen20", "Mopen21", "Mopen22"]


async def test_whose_days_are_without_end_keeps_members(rig_factory: RigFactory) -> None:
    async with rig_factory(copies=0) as rig:
        world = await World(rig).prepare(event=30)
        await world.batch("b1", range(3))
        before = await world.of("b1")
        await end_all(rig, in_days=1000)
        assert await world.of("b1") == before


@pytest.mark.parametrize(("in_days", "left"), [(11, 3), (61, 0)])
async def test_messages_stay_with_members_who_are_kept_no_longer(
    rig_factory: RigFactory, in_days: int, left: int
) -> None:
    async with rig_factory(copies=0) as rig:
        world = await World(rig).prepare(**KEPT)
        for batch_id in ("b1", "pair"):
            await world.rosters.batch("spring", batch_id, at_us=world.now_us)
        for one in range(2):
            await world.rosters.member(world.copy, "b1", f"k{one}", [("sendgrid", address(one))])
        both = [("sendgrid", "a@example.com"), ("sendgrid", "b@example.com")]
        await world.rosters.member(world.copy, "pair", "both", both)
        await Copy(rig, lambda: world.now_us + 2 * HOUR_US).completing.pass_deadlines()
        # Sent long after the batches' deadlines, messages have their own addresses when members have theirs no longer.
        at_us = world.now_us + (in_days - 5) * DAY_US
        late: dict[str, Any] = {"arrived": at_us, "at": at_us}
        query = "communicationId=spring&batchId=pair&memberKey=both"
        first = partial(mail, "pair", 7, recipient="a@example.com", query=query, **late)
        second = partial(mail, "pair", 8, recipient="b@example.com", query=query, **late)
        third = partial(mail, "b1", 0, **late)
        await world.copy.store.commit(batch_of([first(), second(), third()]), [])
        assert await world.rosters.counted() == {"b1": {"Sent": 1}, "pair": {"Sent": 2}}
        await end_all(rig, in_days=in_days)
        assert await number(rig, MEMBERS_COLLECTION) == left
        assert await number(rig, MESSAGES_COLLECTION, address={"$exists": True}) == 3

        # What has them linked anew leaves them where they are, and what comes later counts there.
        earlier = {"at": at_us - HOUR_US}
        again = [make(kind=EventKind.QUEUED, **{**late, **earlier}) for make in (third, second)]
        await world.copy.store.commit(batch_of(again), [])
        assert await number(rig, MESSAGES_COLLECTION, first_at_us=at_us - HOUR_US) == 2
        await world.rosters.batch("spring", "b9", at_us=world.now_us)
        for one in range(2):
            await world.rosters.member(world.copy, "b9", f"k{one}", [("sendgrid", address(one))])
        assert await world.rosters.counted() == {"b1": {"Sent": 1}, "pair": {"Sent": 2}, "b9": {}}
        await world.copy.store.commit(batch_of([third(kind=EventKind.DELIVERED), second(kind=EventKind.DELIVERED)]), [])
        assert await world.rosters.counted() == {"b1": {"Delivered": 1}, "pair": {"Sent": 1, "Delivered": 1}, "b9": {}}


async def test_copies_that_end_members_at_once_while_messages_change(
    rig_factory: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "MAX_MEMBERS", 2)
    async with rig_factory(copies=0) as rig:
        world = await World(rig).prepare(**KEPT)
        for number_of in range(4):
            await world.batch(f"b{number_of}", range(10 * number_of, 10 * number_of + 6))

        async def deliver() -> None:
            for member in [10 * of + one for of in range(4) for one in range(6)]:
                await world.copy.store.commit([mail(f"b{member // 10}", member, EventKind.DELIVERED)], [])

        delivering = asyncio.create_task(deliver())
        while not delivering.done():
            await asyncio.gather(*(end_all(rig, in_days=20) for _ in range(2)))
        await delivering
        await asyncio.gather(*(end_all(rig, in_days=61) for _ in range(3)))
        assert await number(rig, MEMBERS_COLLECTION) == 0
        assert await world.rosters.counted() == {f"b{one}": {"Delivered": 6} for one in range(4)}


def tenant_data(rig: Rig) -> MongoTenantData:
    return MongoTenantData(rig.database, StoreFormat(rig.database), collections=INDEXES, counted=COUNTED)


async def test_nothing_of_a_tenant_who_is_deleted_stays_though_members_end_at_that_moment(
    rig_factory: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "MAX_MEMBERS", 1)
    async with rig_factory(copies=0) as rig:
        world = await World(rig).prepare(**KEPT)
        await world.batch("b1", range(9))
        await world.batch("open", range(9, 12), complete=False)
        kept = set(await rig.database.list_collection_names())
        assert kept >= {COMMUNICATIONS_COLLECTION, BATCHES_COLLECTION, MEMBERS_COLLECTION}
        ends = [asyncio.create_task(end_all(rig, in_days=61)) for _ in range(2)]
        async with asyncio.timeout(60):
            while await number(rig, RETENTION_COLLECTION) == 0:  # nothing tells of a slice's end
                await asyncio.sleep(0)
        deleting = {"$set": {"status": "deleting"}}
        await rig.database[TENANTS_COLLECTION].update_one({"_id": "acme"}, deleting)
        # What began before that is awaited, as whoever deletes a tenant does.
        await asyncio.gather(*ends)
        assert await tenant_data(rig).purge("acme", REGISTRATION) > 0
        await end_all(rig, in_days=61)
        for name in await rig.database.list_collection_names():
            if name != TENANTS_COLLECTION:
                assert await number(rig, name, registration=REGISTRATION) == 0, name
                assert await number(rig, name, registration={"$exists": True}) == 0, name
        assert await number(rig, MEMBERS_COLLECTION) == await number(rig, BATCHES_COLLECTION) == 0


async def test_a_tenant_who_has_only_registered_something_has_data(rig_factory: RigFactory) -> None:
    async with rig_factory(copies=0) as rig:
        world = await World(rig).prepare()
        await world.rosters.batch("spring", "b1", at_us=world.now_us)
        assert (await tenant_data(rig).usage(REGISTRATION))["communications"] == 1


async def test_members_that_are_due_are_found_by_indexes(
    rig_factory: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "MAX_MEMBERS", 4)
    asked: list[tuple[str, Document, list[tuple[str, int]], int]] = []
    async with rig_factory(copies=0) as rig:
        world = await World(rig).prepare(**KEPT)
        for batch_id in ("b1", "b2", "b3"):
            await world.batch(batch_id, range(3))
        find = pymongo.collection.Collection.find

        def noted(self: Any, query: Document, *args: Any, **options: Any) -> Any:
            if "sort" in options:
                asked.append((self.name, query, options["sort"], options["limit"]))
            return find(self, query, *args, **options)

        monkeypatch.setattr(pymongo.collection.Collection, "find", noted)
        due_us = time.time_ns() // 1000 + 61 * DAY_US
        owner = expiry.Owner("acme", REGISTRATION)
        for end in (ending.end_member_addresses, ending.end_members):
            for _ in range(2):
                await mongo.in_transaction(rig.database, partial(end, owner, due_us, expiry.START))
        monkeypatch.undo()
        assert {name for name, *_ in asked} == {BATCHES_COLLECTION, MEMBERS_COLLECTION}
        for name, query, order, limit in asked:
            command: Document = {"find": name, "filter": query, "sort": dict(order), "limit": limit}
            done = (await rig.database.command({"explain": command, "verbosity": "executionStats"}))["executionStats"]
            assert done["totalDocsExamined"] <= max(done["nReturned"], 3), (query, done)
