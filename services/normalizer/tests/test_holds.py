"""Channels whose callbacks are held: nothing of them is normalised until it goes on, and nothing is lost or counted
twice by it, on real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from backhaul_common import jetstream
from backhaul_common.fence import owners
from backhaul_common.metering import Metrics
from backhaul_common.names import (
    CALLBACKS_STREAM,
    EVENTS_COLLECTION,
    EVENTS_STREAM,
    MESSAGES_COLLECTION,
    NORMALIZER_CONSUMER,
    callbacks_subject,
    held_subject,
)
from backhaul_common.tenants import Listener, Tenant
from backhaul_normalizer import heldstream
from backhaul_normalizer.heldstream import HeldStream
from backhaul_normalizer.holds import HeldCallbacks
from backhaul_proto.callback.v1.callback_pb2 import Callback, CallbackBatch
from backhaul_testing import make
from backhaul_testing.waiting import until
from normalizer_rig import Rig, RigFactory

Row = dict[str, Any]


def changed(tenant: Tenant, processing: str, channel: str = "twilio") -> Tenant:
    """The tenant after its channel's processing was set."""
    update = {
        "channels": {**tenant.channels, channel: tenant.channels[channel].model_copy(update={"processing": processing})}
    }
    return tenant.model_copy(update={"revision": tenant.revision + 1, **update})


def story(of: Tenant, number: int = 25) -> list[Callback]:
    """Two callbacks of each of so many messages; every third comes twice."""
    callbacks = [
        make.callback(of, make.twilio(f"SM{n}", status), query=f"communicationId=c-{n % 3}")
        for n in range(number)
        for status in ("sent", "delivered")
    ]
    return callbacks + callbacks[::3]


async def held(rig: Rig, of: Tenant, channel: str = "twilio") -> int:
    """How many messages of the channel lie there held."""
    subject = held_subject(of.queue_path, channel)
    return (await jetstream.subjects(rig.nats.jetstream(), CALLBACKS_STREAM, subject)).get(subject, 0)


async def holds(rig: Rig, of: Tenant, number: int) -> None:
    async def all_held() -> bool:
        return await held(rig, of) == number

    await until(f"{number} messages that are held", all_held)


async def done(rig: Rig, *of: Tenant) -> None:
    """Return when nothing of them is held, and all is processed."""

    async def none_held() -> bool:
        return not any([await held(rig, one) for one in of])

    await until("nothing that is held", none_held)
    await rig.drained()


async def books(rig: Rig, of: Tenant) -> tuple[list[Row], list[Row], list[Row]]:
    """What is kept of a tenant, without what tells one tenant and one arrival from another."""

    def told(found: list[Row], *names: str) -> list[Row]:
        return sorted(({name: _without_zeros(row.get(name)) for name in names} for row in found), key=repr)

    own: dict[str, Any] = {"registration": of.registration}
    return (
        told(await rig.rows(EVENTS_COLLECTION, **own), "kind", "address", "communication_id"),
        told(await rig.rows(MESSAGES_COLLECTION, **own), "message_id", "state", "fulfilment", "kinds"),
        told(await rig.communications(**own), "communication_id", "events", "fulfilment", "messages"),
    )


def _without_zeros(value: Any) -> Any:
    # A state that messages went through in two batches is counted, and counts none; in one batch it is not there.
    return {key: value[key] for key in sorted(value) if value[key]} if isinstance(value, dict) else value


class Believing:
    """``Tenants`` of a copy that has heard of nothing but these."""

    def __init__(self, *tenants: Tenant) -> None:
        self._tenants = {tenant.id: tenant for tenant in tenants}

    def get(self, tenant_id: str) -> Tenant | None:
        return self._tenants.get(tenant_id)

    async def reload(self, tenant_id: str) -> Tenant | None:
        return self.get(tenant_id)

    def listen(self, listener: Listener) -> None:
        for tenant_id, tenant in self._tenants.items():
            listener(tenant_id, tenant)


async def copy_of(rig: Rig, *tenants: Tenant) -> HeldCallbacks:
    """What sets aside and resumes in a copy that believes ``tenants``; it does so when the test asks."""
    publisher = jetstream.Publisher()
    await publisher.attach(rig.nats)
    return HeldCallbacks(
        HeldStream(rig.nats, rig.nats.jetstream()),
        publisher,
        Believing(*tenants),
        partial(owners, rig.database),
        Metrics("test"),
        max_age_s=rig.settings.stream_max_age_s,
        max_waiting=1000,
    )


async def publish_held(rig: Rig, of: Tenant, *callbacks: Callback) -> int:
    """Store ``callbacks`` where a copy of the normalizer sets them aside."""
    ack = await rig.nats.jetstream().publish(
        held_subject(of.queue_path, callbacks[0].channel), CallbackBatch(callbacks=callbacks).SerializeToString()
    )
    return ack.seq


async def test_what_is_held_is_processed_when_it_goes_on_as_if_it_never_had_been(rig: Rig) -> None:
    acme, globex = changed(make.tenant("acme"), "held"), make.tenant("globex")
    await rig.register(acme, globex)
    callbacks = story(acme)
    for ours, theirs in zip(callbacks, story(globex), strict=True):
        await rig.publish(acme, ours)
        await rig.publish(globex, theirs)
    # Another channel of the tenant is not held.
    mail = {
        "email": "a@example.com",
        "timestamp": 1700000000,
        "event": "open",
        "sg_event_id": "e",
        "sg_message_id": "m",
    }
    await rig.publish(acme, make.callback(acme, make.sendgrid(mail), channel="sendgrid"))
    await holds(rig, acme, len(callbacks))
    await rig.drained()
    assert [row["channel"] for row in await rig.rows(EVENTS_COLLECTION, registration="acme.1")] == ["sendgrid"]
    # What is held lies there once.
    subject = callbacks_subject(acme.queue_path, "twilio")
    assert await jetstream.subjects(rig.nats.jetstream(), CALLBACKS_STREAM, subject) == {}
    assert {event.tenant_id for event in await rig.published() if event.channel == "twilio"} == {"globex"}

    for name in (EVENTS_COLLECTION, MESSAGES_COLLECTION):
        await rig.database[name].delete_many({"registration": "acme.1"})
    await rig.register(changed(acme, "on"))
    await done(rig, acme)
    assert await books(rig, acme) == await books(rig, globex)
    assert len((await books(rig, acme))[0]) == 50
    published = [event.id for event in await rig.published() if event.tenant_id == "acme"]
    assert sorted(published) == sorted({*published})


async def test_a_channel_may_be_held_again_while_it_resumes(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heldstream.HeldStream.read, "__defaults__", (1, 2))
    acme, globex = changed(make.tenant("acme"), "held"), make.tenant("globex")
    await rig.register(acme, globex)
    for ours, theirs in zip(story(acme, 60), story(globex, 60), strict=True):
        await rig.publish(acme, ours)
        await rig.publish(globex, theirs)
    number = len(story(acme, 60))
    await holds(rig, acme, number)
    acme = changed(acme, "on")
    await rig.register(acme)

    async def some_are_processed() -> bool:
        return await rig.events_of("acme.1") > 0

    await until("the first of them", some_are_processed)
    acme = changed(acme, "held")
    await rig.register(acme)
    await rig.drained()
    left = await held(rig, acme)
    assert 0 < left < number, "it was not held in the middle"
    await rig.publish(acme, make.callback(acme, make.twilio("SMlater", "sent"), query="communicationId=c-0"))
    await rig.publish(globex, make.callback(globex, make.twilio("SMlater", "sent"), query="communicationId=c-0"))
    await holds(rig, acme, left + 1)
    await rig.register(changed(acme, "on"))
    await done(rig, acme)
    assert await books(rig, acme) == await books(rig, globex)


async def test_a_backlog_replays_and_backfills_of_a_held_channel_are_held_too(rig_factory: RigFactory) -> None:
    async with rig_factory(copies=0) as rig:
        acme = changed(make.tenant("acme"), "held")
        await rig.register(acme)
        for number, source in enumerate((1, 2, 3)):
            await rig.publish(acme, make.callback(acme, make.twilio(f"SM{number}", "sent"), source=source))
        async with rig.another():
            await holds(rig, acme, 3)
            assert await rig.rows(EVENTS_COLLECTION) == []


async def test_what_died_between_storing_it_anew_and_the_acknowledgement_counts_once(rig: Rig) -> None:
    """A copy died before it deleted what it had stored anew, when it set aside and when it resumed."""
    acme, globex = changed(make.tenant("acme"), "held"), make.tenant("globex")
    await rig.register(acme, globex)
    for ours, theirs in zip(story(acme, 3), story(globex, 3), strict=True):
        await rig.publish(globex, theirs)
        await publish_held(rig, acme, ours)
        await rig.publish(acme, ours)
    await holds(rig, acme, 2 * len(story(acme, 3)))
    acme = changed(acme, "on")
    for ours in story(acme, 3)[:2]:
        await rig.publish(acme, ours)
    await rig.register(acme)
    await done(rig, acme)
    assert await books(rig, acme) == await books(rig, globex)


async def test_what_was_stored_and_not_published_before_it_was_held_is_published_when_it_goes_on(
    rig_factory: RigFactory,
) -> None:
    async with rig_factory(copies=0) as rig:
        acme = make.tenant("acme")
        await rig.register(acme)
        seq = await rig.publish(acme, make.callback(acme, make.twilio("SM1", "sent")))
        async with rig.another():
            await rig.drained()
        # As if that copy had died before it published. It is delivered again, and the channel is held by then.
        await rig.nats.jetstream().delete_stream(EVENTS_STREAM)
        await jetstream.ensure_streams(rig.nats.jetstream(), rig.settings)
        await rig.nats.jetstream().delete_consumer(CALLBACKS_STREAM, NORMALIZER_CONSUMER)
        acme = changed(acme, "held")
        await rig.register(acme)
        async with rig.another():
            await holds(rig, acme, 1)
            # Set aside once more, so that it has been moved more than once.
            early = await copy_of(rig, changed(acme, "on"))
            assert await early.sweep()
            await holds(rig, acme, 1)
            await rig.register(changed(acme, "on"))
            await done(rig, acme)
            (event,) = await rig.published()
            assert (event.message_id, event.revision) == ("SM1", 0)
            (row,) = await rig.rows(EVENTS_COLLECTION)
            assert row["stream_seq"] == seq


async def test_copies_that_believe_otherwise_lose_nothing(rig: Rig) -> None:
    acme = changed(make.tenant("acme"), "held")
    await rig.register(acme)
    callbacks = story(acme)
    for one in callbacks:
        await rig.publish(acme, one)
    await holds(rig, acme, len(callbacks))
    # One copy believes that it goes on, and gives all of it to be processed; the other one sets it aside again.
    early = await copy_of(rig, changed(acme, "on"))
    assert await early.sweep()
    await holds(rig, acme, len(callbacks))
    assert await rig.rows(EVENTS_COLLECTION) == []
    # One copy has not heard that it goes on.
    late = await copy_of(rig, acme)
    await rig.register(changed(acme, "on"))
    await done(rig, acme)
    assert not await late.sweep()
    sid = "SMlate"
    await publish_held(rig, acme, make.callback(acme, make.twilio(sid, "sent")))
    assert not await late.sweep()

    async def processed() -> bool:
        return bool(await rig.rows(MESSAGES_COLLECTION, message_id=sid))

    await until("what a copy set aside that was behind", processed)
    assert len(await rig.rows(EVENTS_COLLECTION)) == 51


async def test_two_copies_resume_side_by_side(rig_factory: RigFactory) -> None:
    async with rig_factory(copies=2) as rig:
        acme, globex = changed(make.tenant("acme"), "held"), make.tenant("globex")
        await rig.register(acme, globex)
        for ours, theirs in zip(story(acme), story(globex), strict=True):
            await rig.publish(acme, ours)
            await rig.publish(globex, theirs)
        await holds(rig, acme, len(story(acme)))
        await rig.register(changed(acme, "on"))
        await done(rig, acme)
        assert await books(rig, acme) == await books(rig, globex)


async def test_what_resumes_keeps_nobody_waiting(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heldstream.HeldStream.read, "__defaults__", (1, 20))
    acme, globex = changed(make.tenant("acme"), "held"), make.tenant("globex")
    await rig.register(acme, globex)
    number = 600
    await asyncio.gather(
        *(publish_held(rig, acme, make.callback(acme, make.twilio(f"SM{n}", "sent"))) for n in range(number))
    )
    await rig.register(changed(acme, "on"))

    async def processed(of: Tenant) -> int:
        return await rig.events_of(of.registration)

    await until("the first of them", partial(processed, acme))
    await rig.publish(globex, make.callback(globex, make.twilio("SM1", "sent")))
    await until("the other tenant's", partial(processed, globex))
    assert await processed(acme) < number
    await done(rig, acme)
    assert await processed(acme) == number


async def test_what_is_held_of_a_channel_that_is_deleted_is_processed(rig: Rig) -> None:
    acme = changed(make.tenant("acme"), "held")
    await rig.register(acme)
    await rig.publish(acme, make.callback(acme, make.twilio("SM1", "sent")))
    await holds(rig, acme, 1)
    left = {"sendgrid": acme.channels["sendgrid"]}
    await rig.register(acme.model_copy(update={"channels": left, "revision": acme.revision + 1}))
    await done(rig, acme)
    assert [row["message_id"] for row in await rig.rows(MESSAGES_COLLECTION)] == ["SM1"]


@pytest.mark.parametrize("gone", ["deleting", "deleted", "registered anew"])
async def test_nothing_is_made_of_what_is_held_of_a_tenant_that_is_deleted(rig: Rig, gone: str) -> None:
    acme, globex = changed(make.tenant("acme"), "held"), changed(make.tenant("globex"), "held")
    await rig.register(acme, globex)
    await rig.publish(acme, make.callback(acme, make.twilio("SM1", "sent")))
    await rig.publish(globex, make.callback(globex, make.twilio("SM2", "sent")))
    await holds(rig, acme, 1)
    await holds(rig, globex, 1)
    if gone == "deleting":
        await rig.register(changed(acme, "on").model_copy(update={"status": "deleting"}))
    else:
        await rig.database["tenants"].delete_one({"_id": "acme"})
        await rig.nats.publish("backhaul.tenants.changed", b"acme")
    if gone == "registered anew":
        await rig.register(make.tenant("acme").model_copy(update={"registration": "acme.2"}))
    await rig.register(changed(globex, "on"))
    await done(rig, globex)
    assert [row["message_id"] for row in await rig.rows(MESSAGES_COLLECTION)] == ["SM2"]


async def test_what_is_held_does_not_get_too_old(rig_factory: RigFactory) -> None:
    async with rig_factory(stream_max_age_s=3) as rig:
        acme = changed(make.tenant("acme"), "held")
        await rig.register(acme)
        for n in range(3):
            await rig.publish(acme, make.callback(acme, make.twilio(f"SM{n}", "sent")))
        await holds(rig, acme, 3)
        stream = HeldStream(rig.nats, rig.nats.jetstream())

        async def positions() -> set[int]:
            return {one.stream_seq for one in await stream.read(held_subject(acme.queue_path, "twilio"))}

        # Stored anew three times, they are older than the stream keeps anything.
        first = last = await positions()
        for _ in range(3):

            async def anew(before: set[int] = last) -> set[int] | None:
                now = await positions()
                return now if len(now) == 3 and not now & before else None

            last = await until("all of them stored anew", anew)
        assert (await rig.nats.jetstream().stream_info(CALLBACKS_STREAM)).state.first_seq > max(first)
        assert await rig.rows(EVENTS_COLLECTION) == []
        await rig.register(changed(acme, "on"))
        await done(rig, acme)
        assert len(await rig.rows(EVENTS_COLLECTION)) == 3


async def test_a_stream_without_room_delays_what_should_be_held_and_nobody_else(rig_factory: RigFactory) -> None:
    async with rig_factory(copies=0, stream_max_bytes=64 << 10) as rig:
        acme, globex = changed(make.tenant("acme"), "held"), make.tenant("globex")
        await rig.register(acme, globex)
        padding = "x" * 3000
        numbers = await _fill(rig, acme, padding, leave=8 << 10)
        await rig.publish(globex, make.callback(globex, make.twilio("SM1", "sent")))
        async with rig.another():

            async def others() -> bool:
                return bool(await rig.rows(MESSAGES_COLLECTION, registration="globex.1"))

            await until("the other tenant's", others)
            await holds(rig, acme, len(numbers))
            await rig.register(changed(acme, "on"))
            await done(rig, acme)
            found = await rig.rows(MESSAGES_COLLECTION, registration="acme.1")
            assert {row["message_id"] for row in found} == {*numbers}


async def _fill(rig: Rig, of: Tenant, padding: str, *, leave: int) -> Sequence[str]:
    """Store callbacks until the stream has room for no more than ``leave`` bytes; their messages."""
    numbers: list[str] = []
    js = rig.nats.jetstream()
    while (await js.stream_info(CALLBACKS_STREAM)).state.bytes < rig.settings.stream_max_bytes - leave:
        numbers.append(f"SM{len(numbers)}")
        await rig.publish(of, make.callback(of, make.twilio(numbers[-1], "sent", Padding=padding)))
    return numbers
