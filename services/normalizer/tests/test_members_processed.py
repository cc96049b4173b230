"""When it is said that all destinations of a member were processed, what is said, and that it is said once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from backhaul_channels import EventKind
from backhaul_common import mongo, wanted
from backhaul_common.names import MEMBERS_COLLECTION, NORMALIZER_OUTBOX, TENANTS_COLLECTION
from backhaul_normalizer.communications.relinking import GIVEN_UP_US
from backhaul_normalizer.model import Fact
from backhaul_normalizer.store import MongoEventStore
from backhaul_proto.notice.v1.notice_pb2 import Notice
from normalizer_rig import Rig
from rosters import REGISTRATION, Copy, Rosters
from tellings import ARRIVED_US, told

KINDS = {
    "q": EventKind.QUEUED,
    "s": EventKind.SENT,
    "d": EventKind.DELIVERED,
    "f": EventKind.FAILED,
}


class Sale:
    """A communication with one batch, about whose members somebody wants to hear."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.now_us = ARRIVED_US
        self.copies = [Copy(rig, lambda: self.now_us) for _ in range(2)]
        self.rosters = Rosters(rig)

    async def registered(self, *, wants: bool = True) -> Sale:
        if wants:
            await self.want(wanted.MEMBER_PROCESSED)
        await self.rosters.communication("sale")
        await self.rosters.batch("sale", "b1", at_us=ARRIVED_US)
        return self

    async def want(self, *types: str) -> None:
        def work(database: mongo.ThreadDatabase, session: mongo.Session) -> None:
            wanted.write(database, session, REGISTRATION, types)

        await mongo.in_transaction(self.rig.database, work)

    async def member(self, key: str, *addresses: str, dies: bool = False) -> None:
        await self.rosters.member(self.copies[0], "b1", key, [("sendgrid", one) for one in addresses], dies=dies)

    async def happens(self, kinds: str, address: str, copy: int = 0) -> None:
        for kind in kinds:
            await self.copies[copy].store.commit([fact_of(kind, address)], [])

    async def told(self) -> list[Notice]:
        rows = await self.rig.database[NORMALIZER_OUTBOX].find().sort("_id", 1).to_list(None)
        return [Notice.FromString(row["payload"]) for row in rows]

    async def told_of(self) -> list[str]:
        """The keys of the members that were told, sorted."""
        return sorted(attributes(notice)["member_key"] for notice in await self.told())


def fact_of(kind: str, address: str) -> Fact:
    return told(
        key=kind,
        kind=KINDS[kind],
        name=f"M {address}",
        at=ARRIVED_US + 1,
        arrived=ARRIVED_US + 1,
        recipient=address,
        query="communicationId=sale",
    )


def attributes(notice: Notice) -> dict[str, str]:
    return {one.name: one.value for one in notice.attributes}


async def test_it_is_said_when_the_last_destination_was_sent_to_or_failed(town: Rig) -> None:
    sale = await Sale(town).registered()
    await sale.member("anna", "a@example.com", "b@example.com")
    await sale.happens("qs", "a@example.com")
    await sale.happens("q", "b@example.com", copy=1)
    assert await sale.told() == []
    await sale.happens("f", "b@example.com", copy=1)
    (notice,) = await sale.told()
    assert (notice.type, notice.tenant_id, notice.registration) == ("member.processed", "acme", REGISTRATION)
    assert notice.occurred_at_us == sale.now_us
    about = notice.about
    assert (about.channel, about.communication_id, about.reference) == ("sendgrid", "sale", "b1")
    # Of the first destination.
    assert (about.message_id, about.recipient) == ("M a@example.com", "a@example.com")
    assert attributes(notice) == {"member_key": "anna", "destinations": "2", "failed": "1"}
    assert notice.text == "All destinations of a member were processed: 2, of which 1 failed."


@pytest.mark.parametrize(("kind", "failed"), [("s", "0"), ("d", "0"), ("f", "1")])
async def test_whatever_comes_afterwards_is_said_no_more(town: Rig, kind: str, failed: str) -> None:
    sale = await Sale(town).registered()
    await sale.member("anna", "a@example.com")
    await sale.happens(kind, "a@example.com")
    (notice,) = await sale.told()
    assert attributes(notice)["failed"] == failed
    await town.database[NORMALIZER_OUTBOX].delete_many({})
    await sale.happens("sdf", "a@example.com", copy=1)
    await sale.member("anna", "a@example.com", "b@example.com")
    await sale.happens("s", "b@example.com")
    assert await sale.told() == []


async def test_nothing_is_said_where_nobody_wants_it(town: Rig) -> None:
    sale = await Sale(town).registered(wants=False)
    await sale.member("anna", "a@example.com")
    await sale.happens("s", "a@example.com")
    assert await sale.told() == []
    await sale.want(wanted.MEMBER_PROCESSED)
    await sale.member("bert", "b@example.com")
    # Anna was processed before anybody wanted to know.
    await sale.happens("d", "a@example.com")
    await sale.happens("s", "b@example.com")
    assert await sale.told_of() == ["bert"]
    await sale.want()
    await sale.member("cleo", "c@example.com")
    await sale.happens("s", "c@example.com")
    assert await sale.told_of() == ["bert"]


async def test_it_is_said_where_messages_were_there_before_the_member(town: Rig) -> None:
    sale = await Sale(town).registered()
    await sale.happens("s", "a@example.com")
    await sale.happens("q", "b@example.com")
    await sale.member("anna", "a@example.com")
    await sale.member("bert", "b@example.com")
    assert await sale.told_of() == ["anna"]


async def test_it_is_said_where_whoever_added_the_member_died(town: Rig) -> None:
    sale = await Sale(town).registered()
    await sale.happens("s", "a@example.com")
    await sale.member("anna", "a@example.com", dies=True)
    assert await sale.told() == []
    sale.now_us += GIVEN_UP_US + 1
    await sale.copies[1].relinking.look()
    assert await sale.told_of() == ["anna"]


async def test_it_is_said_where_whoever_linked_the_member_died_before_he_said_it(town: Rig) -> None:
    """What links is a transaction of its own, and so is what tells."""
    sale = await Sale(town).registered(wants=False)
    await sale.happens("s", "a@example.com")
    await sale.member("anna", "a@example.com", dies=True)
    member = await town.database[MEMBERS_COLLECTION].find_one({"key": "anna"})
    assert member is not None
    await sale.copies[0].consequences.of_members(member["_id"][:16], [member["_id"]])
    await sale.want(wanted.MEMBER_PROCESSED)
    sale.now_us += GIVEN_UP_US + 1
    await sale.copies[1].relinking.look()
    assert await sale.told_of() == ["anna"]


async def test_it_is_said_by_whoever_gets_the_callback_again_after_a_crash(town: Rig) -> None:
    sale = await Sale(town).registered()
    await sale.member("anna", "a@example.com")
    await sale.happens("q", "a@example.com")
    died_after_the_commit = MongoEventStore(town.client, town.database)
    await died_after_the_commit.commit([fact_of("s", "a@example.com")], [])
    assert await sale.told() == []
    await sale.happens("s", "a@example.com", copy=1)
    assert await sale.told_of() == ["anna"]


async def test_it_is_said_once_of_each_where_two_copies_process_both_destinations_at_once(town: Rig) -> None:
    sale = await Sale(town).registered()
    keys = [f"p{number:02}" for number in range(24)]
    for key in keys:
        await sale.member(key, f"{key}a@example.com", f"{key}b@example.com")

    async def process(copy: int, side: str, some: Iterable[str]) -> None:
        for key in some:
            await sale.copies[copy].store.commit([fact_of("s", f"{key}{side}@example.com")], [])

    await asyncio.gather(process(0, "a", keys), process(1, "b", keys))
    assert await sale.told_of() == keys


async def test_several_of_one_commit_are_said_together(town: Rig) -> None:
    sale = await Sale(town).registered()
    keys = [f"p{number:03}" for number in range(300)]
    for key in keys:
        await sale.member(key, f"{key}@example.com")
    await sale.copies[0].store.commit([fact_of("s", f"{key}@example.com") for key in keys], [])
    assert await sale.told_of() == keys


async def test_nothing_is_said_of_a_tenant_who_is_being_deleted(town: Rig) -> None:
    sale = await Sale(town).registered()
    await sale.member("anna", "a@example.com", dies=True)
    await sale.happens("q", "a@example.com")
    died_after_the_commit = MongoEventStore(town.client, town.database)
    await died_after_the_commit.commit([fact_of("s", "a@example.com")], [])
    await town.database[TENANTS_COLLECTION].update_one({"_id": "acme"}, {"$set": {"status": "deleting"}})
    member = await town.database[MEMBERS_COLLECTION].find_one({"key": "anna"})
    assert member is not None
    await sale.copies[0].consequences.of_members(member["_id"][:16], [member["_id"]])
    assert await sale.told() == []
