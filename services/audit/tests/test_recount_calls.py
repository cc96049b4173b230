"""The call Recount over a real connection, and the look-ups in a real database."""

from __future__ import annotations

from array import array
from typing import Any

import pytest
from audit_calls_rig import ACME, World, serving
from backhaul_audit.books import INDEXES
from backhaul_audit.model import EventId, PileKey
from backhaul_audit.recounting.lookups import MongoContents
from backhaul_audit.recounting.ports import KindCount, Listed, Recounted
from backhaul_common import mongo
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.ids import derived_id
from backhaul_common.names import AUDIT_CONTENTS_COLLECTION
from backhaul_digests.model import Chain
from backhaul_proto.audit.v1 import audit_pb2 as pb
from backhaul_proto.event.v1.event_pb2 import EVENT_KIND_DELIVERED, EVENT_KIND_SENT

ASKED = pb.RecountRequest(tenant_id="acme", communication_id="spring")
SLOT_US = 600_000_000


async def test_a_recount_tells_how_far_it_is_and_what_it_found() -> None:
    world = World()
    world.recounts.told = [
        Recounted(5),
        Recounted(
            events=9,
            done=True,
            kinds=[KindCount(EVENT_KIND_SENT, 5, 5, 5), KindCount(EVENT_KIND_DELIVERED, 4, 4, 1)],
            not_asked=2,
            waiting=1,
            channels_not_asked=["twilio"],
        ),
        Recounted(done=True, events=3, missing=1, missing_ids=["ab" * 16], moving=True),
    ]
    async with serving(world) as stub:
        answers = [one async for one in stub.Recount(ASKED)]
    assert answers == [
        pb.RecountResponse(events=5),
        pb.RecountResponse(
            events=9,
            done=True,
            kinds=[
                pb.KindRecount(kind=EVENT_KIND_SENT, counted=5, listed=5, audited=5),
                pb.KindRecount(kind=EVENT_KIND_DELIVERED, counted=4, listed=4, audited=1),
            ],
            not_asked=2,
            waiting=1,
            channels_not_asked=["twilio"],
            equal=True,
        ),
        pb.RecountResponse(events=3, done=True, missing=1, missing_event_ids=["ab" * 16], moving=True),
    ]
    assert world.recounts.asked == [(ACME.registration, "spring")]


@pytest.mark.parametrize("communication_id", ["", "x" * 513])
async def test_what_can_be_no_communication_is_not_asked_for(communication_id: str) -> None:
    world = World()
    async with serving(world) as stub:
        with pytest.raises(BackhaulError) as caught:
            await anext(stub.Recount(pb.RecountRequest(tenant_id="acme", communication_id=communication_id)))
    assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, "communication_id")
    assert not world.recounts.asked


async def test_a_tenant_recounts_once_at_a_time() -> None:
    world = World()
    world.recounts.told = [Recounted(1), Recounted(1, done=True)]
    world.recounts.goes_on.clear()
    async with serving(world) as stub:
        first, other = stub.Recount(ASKED), stub.Recount(pb.RecountRequest(tenant_id="globex", communication_id="a"))
        await anext(first)
        with pytest.raises(BackhaulError) as caught:
            await anext(stub.Recount(ASKED))
        assert caught.value.code is Code.RATE_LIMITED
        await anext(other)
        world.recounts.goes_on.set()
        assert [one.done async for one in first] == [True]
        # Its place is free again, and that of who leaves early, too.
        await other.aclose()
        assert len([one async for one in stub.Recount(ASKED)]) == 2


def event(name: str, revision: int = 0, *, channel: str = "twilio", at_us: int = SLOT_US) -> Listed:
    return Listed(EventId(derived_id("event", name), revision), EVENT_KIND_SENT, channel, at_us)


async def test_events_are_found_in_the_files_of_their_channel_and_ten_minutes(
    mongo_server: Any, mongo_database: str
) -> None:
    client = mongo.connect(mongo_server.uri)
    database = mongo.database(client, mongo_database)
    await mongo.make_indexes(database, INDEXES)

    async def file(of: str, chain: Chain, channel: str, *events: Listed) -> None:
        row = {
            "_id": derived_id("file", of, chain, channel, events[0].event.id),
            "registration": of,
            "pile": PileKey(of, channel, chain).id,
            "slots": sorted({one.received_at_us // SLOT_US for one in events}),
            "last_at_us": max(one.received_at_us for one in events),
            "ids": bytes.fromhex("".join(one.event.id for one in events)),
            "revisions": array("I", [one.event.revision for one in events]).tobytes(),
        }
        await database[AUDIT_CONTENTS_COLLECTION].insert_many([row])

    filler = [event(f"filler {number}") for number in range(3000)]
    late = event("late", 1, at_us=90 * SLOT_US)
    await file("acme.1", Chain.EVENTS, "twilio", *filler, event("a"), event("b", 1))
    await file("acme.1", Chain.EVENTS, "twilio", event("c"), late)
    await file("acme.1", Chain.BACKFILL, "twilio", event("d"))
    await file("acme.1", Chain.EVENTS, "sendgrid", event("e", channel="sendgrid"))
    # Somebody else's event of the same id, and one that is no file's of this channel.
    await file("globex.1", Chain.EVENTS, "twilio", event("f"))
    await file("acme.1", Chain.EVENTS, "sendgrid", event("g", channel="sendgrid"))

    wanted = [*map(event, "abcdfgh"), event("b", 1), late, event("e", channel="sendgrid")]
    found = await MongoContents(database).filed("acme.1", wanted)
    assert found == {
        one.event for one in (event("a"), event("b", 1), event("c"), event("d"), late, event("e", channel="sendgrid"))
    }
    assert await MongoContents(database).filed("acme.1", []) == set()
    client.close()
