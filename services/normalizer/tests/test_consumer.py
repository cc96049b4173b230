"""What becomes of a batch when something goes wrong in its middle: real NATS and MongoDB, one part made to fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from backhaul_channels import load_adapters
from backhaul_common.directory import TenantDirectory, TenantDocuments
from backhaul_common.errors import unavailable
from backhaul_common.feed import StreamMessage
from backhaul_common.lifecycle import cancel
from backhaul_common.metrics import MESSAGES_UNOWNED, Counter, Metrics
from backhaul_common.names import (
    COMMUNICATIONS_COLLECTION,
    DEAD_LETTERS_COLLECTION,
    EVENTS_COLLECTION,
    MESSAGES_COLLECTION,
    TENANTS_COLLECTION,
    callbacks_subject,
)
from backhaul_common.tracing import Tracing
from backhaul_normalizer.committing import COMMIT_EVENTS
from backhaul_normalizer.consumer import Consumer
from backhaul_normalizer.feed import CallbacksFeed, feed_config
from backhaul_normalizer.model import Committed, Fact, Outgoing, Rejection
from backhaul_normalizer.normalize import MAX_PARTS, Normalizer
from backhaul_normalizer.ports import EventStore, Holding, Publisher
from backhaul_normalizer.settings import NormalizerSettings
from backhaul_normalizer.store import MongoEventStore
from backhaul_normalizer.unowned import Unowned
from backhaul_proto.callback.v1 import callback_pb2
from backhaul_proto.callback.v1.callback_pb2 import Callback
from backhaul_proto.event.v1.event_pb2 import Event
from backhaul_testing import make, streams
from normalizer_rig import Rig, RigFactory
from structlog.testing import capture_logs

Wrap = Callable[[Any], Any]


class FailingPublisher:
    """Publishes, but not the first time: as if the process had died between commit and publish."""

    def __init__(self, inner: Publisher) -> None:
        self._inner = inner
        self.refused = 0

    async def publish(self, events: Sequence[Outgoing], traceparent: str, *, again: bool = False) -> None:
        if not self.refused:
            self.refused = len(events)
            raise unavailable("JetStream")
        await self._inner.publish(events, traceparent, again=again)


class FailingStore:
    """Stores, but fails without hope on one message: as if MongoDB refused a document."""

    def __init__(self, inner: EventStore) -> None:
        self._inner = inner

    async def ping(self) -> None:
        await self._inner.ping()

    async def takes_writes(self) -> None:
        await self._inner.takes_writes()

    async def commit(self, facts: Sequence[Fact], rejections: Sequence[Rejection]) -> Committed:
        if any(fact.event.message_id == "SMpoison" for fact in facts):
            raise ValueError("a document that MongoDB does not take")
        return await self._inner.commit(facts, rejections)


class NothingIsHeld:
    """``Holds`` where every channel's callbacks are processed."""

    def holds(self, registration: str, channel: str, subject: str) -> bool:
        return False

    async def set_aside(self, held: Sequence[Holding]) -> Sequence[StreamMessage]:
        raise AssertionError(held)


def facts(normalizer: Normalizer, callback: Callback, stream_seq: int, queue_path: str) -> list[Fact]:
    """What a callback tells, all of which can be read."""
    told = list(normalizer.read(callback, stream_seq, queue_path))
    assert all(isinstance(one, Fact) for one in told)
    return [one for one in told if isinstance(one, Fact)]


@pytest.fixture
def consuming(rig_factory: RigFactory, mongo_server: Any) -> Any:
    """``async with consuming(rig, wrap_store=…, wrap_publisher=…)``: a consumer with a part exchanged."""

    @asynccontextmanager
    async def run(
        rig: Rig,
        *,
        wrap_store: Wrap = lambda it: it,
        wrap_publisher: Wrap = lambda it: it,
        ack_wait_s: float = 30.0,
    ) -> AsyncIterator[Any]:
        settings: NormalizerSettings = rig.settings
        async with AsyncExitStack() as stack:
            metrics = Metrics("test")
            stack.callback(metrics.close)
            directory = TenantDirectory(TenantDocuments(rig.database[TENANTS_COLLECTION]))
            await directory.refresh()
            store = MongoEventStore(rig.client, rig.database)
            await store.prepare()
            inner = await rig.publisher()
            feed = CallbacksFeed(
                rig.nats,
                rig.nats.jetstream(),
                feed_config(settings),
                directory,
                Unowned(directory, Counter(MESSAGES_UNOWNED)),
            )
            publisher = wrap_publisher(inner)
            consumer = Consumer(
                feed,
                directory,
                Normalizer(load_adapters(), directory),
                wrap_store(store),
                publisher,
                NothingIsHeld(),
                metrics,
                Tracing("test", None),
                ack_wait_s=ack_wait_s,
            )
            for work in (feed.run(), consumer.run()):
                stack.push_async_callback(cancel, asyncio.create_task(work))
            yield publisher

    return run


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


@pytest.mark.parametrize(("ack_wait_s", "late"), [(30.0, False), (0.0, True)])
async def test_what_is_published_when_another_copy_may_have_been_first_says_so(
    rig_factory: RigFactory, consuming: Any, ack_wait_s: float, late: bool
) -> None:
    async with rig_factory(copies=0) as rig:
        acme = make.tenant("acme")
        await rig.register(acme)
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


@pytest.mark.parametrize("together", [True, False])
async def test_an_event_that_cannot_be_stored_is_found_and_filed(
    rig_factory: RigFactory, consuming: Any, together: bool
) -> None:
    async with rig_factory(copies=0) as rig:
        acme = make.tenant("acme")
        await rig.register(acme)
        bodies = [make.twilio(sid, "sent") for sid in ("SM1", "SM2", "SMpoison", "SM3")]
        callbacks = [make.callback(acme, body) for body in (*bodies, "unreadable")]
        for some in [callbacks] if together else [[one] for one in callbacks]:
            await rig.publish(acme, *some)
        async with consuming(rig, wrap_store=FailingStore):
            await rig.drained()
        stored = await rig.rows(EVENTS_COLLECTION)
        assert len(stored) == 3
        assert {event.id for event in await rig.published()} == {row["_id"] for row in stored}
        letters = {letter["reason"]: letter for letter in await rig.rows(DEAD_LETTERS_COLLECTION)}
        assert len(letters) == 2
        letter = letters["It could not be stored: ValueError."]
        assert Callback.FromString(letter["callback"]).body.decode() == bodies[2]


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


async def test_a_callback_full_of_tiny_events_takes_several_transactions(
    rig_factory: RigFactory, consuming: Any
) -> None:
    sizes: list[int] = []

    class CountingStore(FailingStore):
        async def commit(self, facts: Sequence[Fact], rejections: Sequence[Rejection]) -> Committed:
            sizes.append(len(facts))
            return await super().commit(facts, rejections)

    async with rig_factory(copies=0) as rig:
        acme = make.tenant("acme")
        await rig.register(acme)
        count = 2 * COMMIT_EVENTS + 1
        events = [{"event": "open", "timestamp": 1_790_000_000 + n, "sg_event_id": f"e{n}"} for n in range(count)]
        await rig.publish(acme, make.callback(acme, make.sendgrid(*events), channel="sendgrid"))
        async with consuming(rig, wrap_store=CountingStore):
            await rig.drained()
        assert len(await rig.rows(EVENTS_COLLECTION)) == count
        assert len(await rig.published()) == count
        assert max(sizes) <= COMMIT_EVENTS


async def test_a_callback_full_of_rubbish_is_one_dead_letter(rig_factory: RigFactory, consuming: Any) -> None:
    async with rig_factory(copies=0) as rig:
        acme = make.tenant("acme")
        await rig.register(acme)
        some, many, more = ("[" + ",".join(map(str, range(n))) + "]" for n in (3, 101, MAX_PARTS + 1))
        for body in (some, many, more):
            await rig.publish(acme, make.callback(acme, body, channel="sendgrid"))
        async with consuming(rig):
            await rig.drained()
        letters = [
            (Callback.FromString(letter["callback"]).body.decode(), letter["reason"])
            for letter in await rig.rows(DEAD_LETTERS_COLLECTION)
        ]
        assert {"0", "1", "2", many, more} == {body for body, _ in letters}
        assert len(letters) == 5
        assert next(reason for body, reason in letters if body == many).startswith("101 of its events cannot be read.")
        assert str(MAX_PARTS) in next(reason for body, reason in letters if body == more)


async def test_a_duplicate_tells_what_the_first_did_not(rig_factory: RigFactory, consuming: Any) -> None:
    async with rig_factory(copies=0) as rig:
        acme = make.tenant("acme")
        await rig.register(acme)
        plain = make.callback(acme, make.twilio("SM1", "sent"))
        named = make.callback(acme, make.twilio("SM1", "sent"), query="communicationId=spring")
        async with consuming(rig):
            for one in (plain, named, plain):
                await rig.publish(acme, one)
                await rig.drained()
            # The same in one batch.
            await rig.publish(
                acme,
                make.callback(acme, make.twilio("SM2", "sent")),
                make.callback(acme, make.twilio("SM2", "sent"), query="communicationId=spring"),
            )
            await rig.drained()
        assert [row["communication_id"] for row in await rig.rows(MESSAGES_COLLECTION)] == ["spring"] * 2
        (communication,) = await rig.rows(COMMUNICATIONS_COLLECTION)
        assert communication["messages"] == 2
        assert communication["fulfilment"] == {"Sent": 2}
        assert communication["events"] == {"sent": 2}


async def test_a_backlog_of_one_tenant_does_not_delay_another(rig_factory: RigFactory) -> None:
    # A buffer that holds one message: all the others of the backlog are parked, and read again.
    async with rig_factory(copies=0, normalizer_tenant_bytes=16 * 1024, normalizer_batch_bytes=64 * 1024) as rig:
        acme, globex = make.tenant("acme"), make.tenant("globex")
        await rig.register(acme, globex)
        for start in range(0, 10_000, 50):
            callbacks = [make.callback(acme, make.twilio(f"SM{n}", "sent")) for n in range(start, start + 50)]
            await rig.publish(acme, *callbacks)
        await rig.publish(globex, make.callback(globex, make.twilio("SM1", "sent")))
        events = rig.database[EVENTS_COLLECTION]
        async with rig.another():
            async with asyncio.timeout(10):
                while not await events.count_documents({"registration": "globex.1"}):
                    await asyncio.sleep(0.01)  # MongoDB has no event for it that costs less than asking.
            ahead = await events.count_documents({"registration": "acme.1"})
            assert ahead < 5_000  # Globex came last, and was served while most of Acme's backlog was not.
            await rig.drained(timeout_s=60)
        assert await events.count_documents({"registration": "acme.1"}) == 10_000
        assert len(await rig.published()) == 10_001


async def test_what_is_parked_survives_the_end_of_who_parked_it(rig_factory: RigFactory) -> None:
    async with rig_factory(copies=0, normalizer_tenant_bytes=1024, normalizer_ack_wait_s=1) as rig:
        acme = make.tenant("acme")
        await rig.register(acme)
        for start in range(0, 2_000, 10):
            await rig.publish(
                acme, *(make.callback(acme, make.twilio(f"SM{n}", "sent")) for n in range(start, start + 10))
            )
        events = rig.database[EVENTS_COLLECTION]
        async with rig.another():
            async with asyncio.timeout(10):
                while not await events.estimated_document_count():
                    await asyncio.sleep(0.01)  # As above.
        assert await events.count_documents({}) < 2_000
        async with rig.another():
            await rig.drained(timeout_s=60)
        assert await events.count_documents({}) == 2_000
        # Whoever is stopped between commit and publish leaves it to the next, who may group the events otherwise.
        published = await rig.published()
        assert len({event.id for event in published}) == 2_000
        assert {event.revision for event in published} == {0}


async def test_two_copies_share_the_work_and_count_once(rig_factory: RigFactory) -> None:
    async with rig_factory(copies=2, normalizer_batch_bytes=16 * 1024, normalizer_pull_messages=4) as rig:
        acme = make.tenant("acme")
        await rig.register(acme)
        # All on one communication, and each message's events spread over several batches: as much conflict as can be.
        for status in ("queued", "sent", "delivered", "sent"):
            for start in range(0, 200, 20):
                await rig.publish(
                    acme,
                    *(
                        make.callback(acme, make.twilio(f"SM{n}", status), query="communicationId=c")
                        for n in range(start, start + 20)
                    ),
                )
        await rig.drained(timeout_s=60)
        (row,) = await rig.rows("communications")
        assert row["messages"] == 200
        assert {name: count for name, count in row["fulfilment"].items() if count} == {"Delivered": 200}
        assert row["events"] == {"queued": 200, "sent": 200, "delivered": 200}


async def test_what_is_merged_of_two_callbacks_and_cannot_be_stored_is_a_dead_letter(
    rig_factory: RigFactory, consuming: Any
) -> None:
    tenant = make.tenant("acme")
    async with rig_factory(copies=0) as rig:
        await rig.register(tenant)
        forged = make.callback(
            tenant, make.twilio("SMpoison", "sent"), verification=callback_pb2.VERIFICATION_OBSERVED_INVALID
        )
        genuine = make.callback(tenant, make.twilio("SMpoison", "sent", ErrorCode="1"))
        await rig.publish(tenant, forged)
        await rig.publish(tenant, genuine)
        async with consuming(rig, wrap_store=FailingStore):
            await rig.drained()
        (letter,) = await rig.rows(DEAD_LETTERS_COLLECTION)
        assert Callback.FromString(letter["callback"]).id == genuine.id


async def test_a_channel_that_this_copy_has_not_heard_of_is_looked_up(rig_factory: RigFactory, consuming: Any) -> None:
    """How a callback is read is a setting of its channel, and the word of a new one may be lost on its way."""
    tenant = make.tenant("acme", sendgrid={"message_id_from": ["order"]})
    twilio_alone = {"twilio": tenant.channels["twilio"]}
    async with rig_factory(copies=0) as rig:
        await rig.register(tenant.model_copy(update={"channels": twilio_alone}))
        async with consuming(rig):
            await rig.database[TENANTS_COLLECTION].replace_one(
                {"_id": "acme"}, tenant.model_copy(update={"revision": 2}).to_document()
            )
            mail = make.sendgrid(
                {"event": "open", "email": "a@example.com", "timestamp": 1, "sg_event_id": "1", "order": "7"}
            )
            await rig.publish(tenant, make.callback(tenant, mail, channel="sendgrid"))
            await rig.drained()
        (message,) = await rig.rows(MESSAGES_COLLECTION)
        assert message["message_id"] == "7:a@example.com"


async def test_what_is_no_batch_of_callbacks_is_said_and_passed_over(rig_factory: RigFactory, consuming: Any) -> None:
    acme = make.tenant("acme")
    async with rig_factory(copies=0) as rig:
        await rig.register(acme)
        ack = await rig.nats.jetstream().publish(callbacks_subject(acme.queue_path, "twilio"), b"\xff\xff no protobuf")
        await rig.publish(acme, make.callback(acme, make.twilio("SM1", "sent")))
        with capture_logs() as lines:
            async with consuming(rig):
                await rig.drained()
        assert [row["message_id"] for row in await rig.rows(MESSAGES_COLLECTION)] == ["SM1"]
    (line,) = [line for line in lines if line["event"] == "not_a_callback_batch"]
    assert (line["stream_seq"], line["path"], line["log_level"]) == (ack.seq, acme.queue_path, "error")
