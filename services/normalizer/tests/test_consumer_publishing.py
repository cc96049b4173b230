"""What of a batch is published, and published again, when a copy ends between commit and publish."""

from __future__ import annotations

from typing import Any

import pytest
from backhaul_channels import load_adapters
from backhaul_common.directory import TenantDirectory, TenantDocuments
from backhaul_common.names import (
    EVENTS_COLLECTION,
    TENANTS_COLLECTION,
)
from backhaul_normalizer.feed import feed_config
from backhaul_normalizer.model import Outgoing
from backhaul_normalizer.normalize import Normalizer
from backhaul_normalizer.store import MongoEventStore
from backhaul_proto.event.v1.event_pb2 import Event
from backhaul_testing import make, streams
from consumer_rig import FailingPublisher, facts
from normalizer_rig import RigFactory


async def test_what_was_committed_but_not_published_is_published_when_it_is_delivered_again(
    rig_factory: RigFactory, consuming: Any
) -> None:
    async with rig_factory(copies=0) as rig:
        acme = make.tenant("acme")
        await rig.register(acme)
        await rig.publish(acme, *(make.callback(acme, make.twilio(f"SM{n}", "sent")) for n in range(5)))
        # A provider's duplicate of one of them, in a message of its own.
        await rig.publish(acme, make.callback(acme, make.twilio("SM1", "sent")))
        async with consuming(rig, wrap_publisher=FailingPublisher) as publisher:
            await rig.drained()
        assert publisher.refused >= 5
        stored = {row["_id"] for row in await rig.rows(EVENTS_COLLECTION)}
        assert len(stored) == 5
        told = await streams.published_together(rig.nats)
        assert sorted(event.id for _, events in told for event in events) == sorted(stored)
        # Whoever refused them may have stored some of them.
        assert all(again for again, _ in told)


@pytest.mark.parametrize(("ack_wait_s", "anew", "late"), [(30.0, False, False), (0.0, False, True), (30.0, True, True)])
async def test_what_is_published_when_another_copy_may_have_been_first_says_so(
    rig_factory: RigFactory, consuming: Any, ack_wait_s: float, anew: bool, late: bool
) -> None:
    async with rig_factory(copies=0) as rig:
        acme = make.tenant("acme")
        await rig.register(acme)
        if not anew:
            # A consumer that is made later cannot know what another one was given, as before a restore.
            await feed_config(rig.settings).durable.ensure(rig.nats.jetstream())
        await rig.publish(acme, *(make.callback(acme, make.twilio(f"SM{n}", "sent")) for n in range(5)))
        async with consuming(rig, ack_wait_s=ack_wait_s):
            await rig.drained()
        ((again, events),) = await streams.published_together(rig.nats)
        assert (again, len(events)) == (late, 5)


async def test_what_is_known_and_what_is_new_lie_in_messages_of_their_own(rig_factory: RigFactory) -> None:
    def event(number: int, *, again: bool) -> Outgoing:
        payload = Event(id=str(number), registration="acme.1").SerializeToString()
        return Outgoing(str(number), 0, "path-acme", "twilio", "sent", payload, "acme.1", again=again)

    async with rig_factory(copies=0) as rig:
        await rig.register(make.tenant("acme"))
        publisher = await rig.publisher()
        await publisher.publish([event(number, again=number % 2 > 0) for number in range(5)], "")
        await publisher.publish([event(number, again=False) for number in range(5, 8)], "")
        await publisher.publish([event(number, again=False) for number in range(8, 10)], "", again=True)
        assert [
            (again, [one.id for one in events]) for again, events in await streams.published_together(rig.nats)
        ] == [
            (False, ["0", "2", "4"]),
            (True, ["1", "3"]),
            (False, ["5", "6", "7"]),
            (True, ["8", "9"]),
        ]


async def test_an_event_that_was_moved_and_not_published_is_published_when_what_moved_it_comes_again(
    rig_factory: RigFactory, consuming: Any
) -> None:
    async with rig_factory(copies=0) as rig:
        acme = make.tenant("acme")
        await rig.register(acme)
        bounce = {"event": "bounce", "email": "a@example.com", "timestamp": 1_700_000_009, "smtp-id": "m1@geopod"}
        mail = {**bounce, "event": "delivered", "timestamp": 1_700_000_000, "sg_message_id": "m1.recvd-1.0"}
        async with consuming(rig):
            await rig.publish(acme, make.callback(acme, make.sendgrid(bounce), channel="sendgrid"))
            await rig.drained()
        async with consuming(rig, wrap_publisher=FailingPublisher) as publisher:
            await rig.publish(acme, make.callback(acme, make.sendgrid(mail), channel="sendgrid"))
            await rig.drained()
        assert publisher.refused
        stored = {
            event.id: event for event in (Event.FromString(row["payload"]) for row in await rig.rows(EVENTS_COLLECTION))
        }
        assert sorted((event.message_id, event.revision) for event in stored.values()) == [
            ("m1.recvd-1.0", 0),
            ("m1.recvd-1.0", 1),
        ]
        latest = {event.id: event for event in sorted(await rig.published(), key=lambda event: event.revision)}
        assert latest == stored


async def test_what_two_copies_publish_of_one_message_is_never_taken_for_the_same(
    rig_factory: RigFactory, consuming: Any
) -> None:
    async with rig_factory(copies=0) as rig:
        acme = make.tenant("acme")
        await rig.register(acme)
        both = [make.callback(acme, make.twilio(sid, "sent")) for sid in ("SMx", "SMy")]
        # An earlier message that brings one of them too, and another.
        other = make.callback(acme, make.twilio("SMz", "sent"))
        first = await rig.publish(acme, other, both[0])
        await rig.publish(acme, *both)
        # A copy has published what was new to it of the first message: the second's events were another copy's, which
        # committed them and died.
        directory = TenantDirectory(TenantDocuments(rig.database[TENANTS_COLLECTION]))
        await directory.refresh()
        normalizer = Normalizer(load_adapters(), directory)
        store = MongoEventStore(rig.client, rig.database)
        await store.prepare()
        path = acme.queue_path
        await store.commit([one for each in both for one in facts(normalizer, each, first + 1, path)], [])
        committed = await store.commit(facts(normalizer, other, first, path), [])
        publisher = await rig.publisher()
        await publisher.publish(committed.outgoing, "")
        async with consuming(rig):
            await rig.drained()
        assert {event.message_id for event in await rig.published()} == {"SMx", "SMy", "SMz"}
