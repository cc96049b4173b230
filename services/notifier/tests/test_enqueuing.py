"""What happened becomes deliveries that wait: for whom, of what, in which order."""

from __future__ import annotations

import asyncio
from typing import cast

from backhaul_common.names import (
    DELIVERIES_DUE_SUBJECT,
    ENDPOINTS_COLLECTION,
    EVENTS_STREAM,
    NOTICES_STREAM,
    SWITCHED_COLLECTION,
    TENANTS_COLLECTION,
)
from backhaul_common.tenants import Tenant
from backhaul_notifier.documents import delivery_id
from backhaul_notifier.model import Delivery
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.event.v1.event_pb2 import AddressFamily, Event
from backhaul_proto.notice.v1.notice_pb2 import About, Notice
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from backhaul_testing import make
from backhaul_testing.waiting import until
from enqueuing_rig import ACME, OTHER, Rig, event, ids, now_us, wanting
from nats.aio.msg import Msg


def notice(name: str, type_: str = "suppression.added", **about: str) -> Notice:
    return Notice(
        id=name, tenant_id=ACME.id, registration=ACME.registration, type=type_, occurred_at_us=7, about=About(**about)
    )


async def test_an_event_waits_for_each_who_wants_it_with_its_own_bytes(enqueuing: Rig) -> None:
    all_, some = await enqueuing.subscribe("*"), await enqueuing.subscribe("message.delivered", name="b")
    before = now_us()
    copy = await enqueuing.start()
    delivered, read = event("1", communication_id="spring", revision=3), event("2", "read", message_id="")
    first, last = await enqueuing.publish(delivered), await enqueuing.publish(read)
    await enqueuing.told_up_to(last)
    row, other = await enqueuing.deliveries(all_)
    at_us = row.pop("due_at_us")
    assert before - 1000 < at_us < now_us() + 1000
    assert row == {
        "_id": delivery_id(all_, delivered.id, 3),
        "registration": ACME.registration,
        "subscription": all_,
        "type": "message.delivered",
        "event_id": delivered.id,
        "revision": 3,
        "payload": delivered.SerializeToString(),
        "channel": "twilio",
        "message_id": "SM1",
        "communication_id": "spring",
        "order": first * 100_000,
        "state": "waiting",
        "attempts": 0,
        "created_at_us": at_us,
    }
    assert Event.FromString(other["payload"]) == read
    assert {"message_id", "communication_id", "key", "notice", "ends_at"}.isdisjoint(other)
    assert Delivery.of(other).key == b""
    assert await enqueuing.events_of(some) == ids([delivered])
    assert copy.counts.enqueued.value("acme", "message.delivered") == 2
    endpoint = await enqueuing.endpoint(all_)
    assert (endpoint["due_at_us"], endpoint["told"]) == (at_us, 2)


async def test_what_the_provider_sent_waits_only_for_who_asks_for_it(enqueuing: Rig) -> None:
    """It may be a hundred times what is told, and would be stored for each of fifty subscriptions."""
    newer = wanting("message.delivered") | {"policy": {"kind": "POLICY_KIND_TOMORROWS"}}
    asking = wanting("message.delivered") | {"payload": {"form": "PAYLOAD_FORM_FULL", "with_raw": True}}
    known = await enqueuing.subscribe("message.delivered", name="a")
    asks = await enqueuing.subscribe(definition=asking, name="b")
    of_tomorrow = await enqueuing.subscribe(definition=newer, name="c")
    await enqueuing.start()
    said = event("1", raw=b"x" * 1000)
    await enqueuing.told_up_to(await enqueuing.publish(said))
    payloads = {id_: [row["payload"] for row in await enqueuing.deliveries(id_)] for id_ in (known, asks, of_tomorrow)}
    whole = said.SerializeToString()
    said.ClearField("raw")
    assert payloads == {known: [said.SerializeToString()], asks: [whole], of_tomorrow: [whole]}


async def test_who_cannot_read_a_subscription_has_everything_wait_for_it(enqueuing: Rig) -> None:
    newer = wanting("message.delivered") | {"policy": {"kind": "POLICY_KIND_TOMORROWS"}}
    of_tomorrow = await enqueuing.subscribe(definition=newer)
    known = await enqueuing.subscribe("message.delivered", name="b")
    deleted = await enqueuing.subscribe(definition=newer, name="c", deleted=True)
    await enqueuing.start()
    delivered, read = event("1"), event("2", "read")
    await enqueuing.publish(delivered)
    told = notice("n1")
    await enqueuing.told_up_to(await enqueuing.publish_notice(told), NOTICES_STREAM)
    await enqueuing.told_up_to(await enqueuing.publish(read))
    rows = await enqueuing.deliveries(of_tomorrow)
    assert {row["event_id"] for row in rows} == {delivered.id, read.id, told.id}
    assert all(row["unsure"] for row in rows)
    (row,) = await enqueuing.deliveries(known)
    assert "unsure" not in row
    assert not await enqueuing.deliveries(deleted)
    assert (await enqueuing.endpoint(of_tomorrow))["told"] == 3


async def test_what_names_no_communication_waits_for_who_asks_for_one(enqueuing: Rig) -> None:
    """It may be known later: whoever is to send it looks."""
    asking = wanting("message.delivered") | {"filter": {"communication_ids": ["spring"]}}
    asks = await enqueuing.subscribe(definition=asking)
    all_ = await enqueuing.subscribe("message.delivered", name="b")
    await enqueuing.start()
    open_, theirs, ours = event("1"), event("2", communication_id="autumn"), event("3", communication_id="spring")
    of_none, of_another_type = event("4", message_id=""), event("5", "read")
    completed = event("1", communication_id="spring", revision=1)
    said = [open_, theirs, ours, of_none, of_another_type, completed]
    for each in said:
        last = await enqueuing.publish(each)
    await enqueuing.told_up_to(last)
    rows = [(row["event_id"], row["revision"], row.get("unsure", False)) for row in await enqueuing.deliveries(asks)]
    assert rows == [(open_.id, 0, True), (ours.id, 0, False), (completed.id, 1, False)]
    assert not any("unsure" in row for row in await enqueuing.deliveries(all_))
    assert len(await enqueuing.deliveries(all_)) == 5


async def test_batches_of_many_tenants_are_told_to_their_own_in_order(enqueuing: Rig) -> None:
    mine, theirs = await enqueuing.subscribe("*"), await enqueuing.subscribe("*", of=OTHER)
    ours, others = [], []
    for number in range(40):
        ours.append([event(f"{number}.{place}") for place in range(3)])
        others.append([event(f"{number}.{place}", of=OTHER) for place in range(2)])
        await enqueuing.publish(*ours[-1])
        last = await enqueuing.publish(*others[-1], of=OTHER)
    nobodys = event("x")
    nobodys.registration = "gone.1"
    last = await enqueuing.publish(nobodys)
    await enqueuing.start()
    await enqueuing.told_up_to(last)
    assert await enqueuing.events_of(mine) == ids([one for some in ours for one in some])
    assert await enqueuing.events_of(theirs) == ids([one for some in others for one in some])
    assert {row["registration"] for row in await enqueuing.deliveries(theirs)} == {OTHER.registration}


async def test_keys_are_of_what_order_was_asked_for(enqueuing: Rig) -> None:
    by_message = await enqueuing.subscribe("*", ordering=pb.ORDERING_MESSAGE)
    by_person = await enqueuing.subscribe("*", name="b", ordering=pb.ORDERING_RECIPIENT)
    by_none = await enqueuing.subscribe("*", name="c")
    said = [
        event("1"),
        event("2", message_id="SM1"),
        event("3", message_id="SM1", channel="sendgrid"),
        event("4", recipient="+15005550002", message_id=""),
        event("5", recipient=""),
        event("6"),
    ]
    said[-1].recipient_family = AddressFamily.ADDRESS_FAMILY_VOICE
    last = await enqueuing.publish(*said)
    told = await enqueuing.publish_notice(notice("n1", message_id="SM1", channel="twilio"))
    await enqueuing.start()
    await enqueuing.told_up_to(last)
    await enqueuing.told_up_to(told, NOTICES_STREAM)

    async def keys(subscription: str) -> list[bytes | None]:
        rows = await enqueuing.deliveries(subscription)
        by_event = {row["event_id"]: row.get("key") for row in rows}
        return [by_event[one.id] for one in said] + [by_event["n1"]]

    one, two, three, four, five, _, of_notice = await keys(by_message)
    assert one == two
    assert one is not None
    assert len(one) == 16
    assert len({one, three, five}) == 3
    assert (four, of_notice) == (None, None)
    one, two, three, four, five, of_call, of_notice = await keys(by_person)
    assert one == two == three
    assert None not in (four, of_call)
    assert len({one, four, of_call}) == 3
    assert (five, of_notice) == (None, None)
    assert set(await keys(by_none)) == {None}


async def test_a_notice_waits_as_its_message_and_never_for_the_one_it_is_of(enqueuing: Rig) -> None:
    mine, second = await enqueuing.subscribe("*"), await enqueuing.subscribe("*", name="b")
    copy = await enqueuing.start()
    about = {"channel": "twilio", "message_id": "SM1", "communication_id": "spring"}
    said, own = notice("n1", **about), notice("n2", "subscription.paused", reference=mine)
    first = await enqueuing.publish_notice(said)
    await enqueuing.told_up_to(await enqueuing.publish_notice(own), NOTICES_STREAM)
    (row,) = await enqueuing.deliveries(mine)
    assert {row["event_id"] for row in await enqueuing.deliveries(second)} == {"n1", "n2"}
    assert row["notice"] is True
    assert (row["payload"], row["type"], row["order"]) == (said.SerializeToString(), said.type, first * 100_000)
    assert (row["event_id"], row["revision"], row["_id"]) == ("n1", 0, delivery_id(mine, "n1", 0))
    assert {name: row[name] for name in about} == about
    assert Delivery.of(row).notice
    assert copy.counts.enqueued.value("acme", "suppression.added") == 2


async def test_what_happened_before_a_subscription_is_not_told_and_what_waits_for_a_paused_one_is(
    enqueuing: Rig,
) -> None:
    await enqueuing.publish(event("before"))
    await enqueuing.publish_notice(notice("n before"))
    await asyncio.sleep(0.002)  # The clock of its creation is finer than a millisecond, and the stream's as well.
    fresh = await enqueuing.subscribe("*", created_at_us=now_us())
    paused = await enqueuing.subscribe("*", name="b", state="paused")
    disabled = await enqueuing.subscribe("*", name="c", state="disabled")
    deleted = await enqueuing.subscribe("*", name="d", deleted=True)
    last, last_notice = await enqueuing.publish(event("after")), await enqueuing.publish_notice(notice("n after"))
    await enqueuing.start()
    await enqueuing.told_up_to(last)
    await enqueuing.told_up_to(last_notice, NOTICES_STREAM)
    events, notices = ids([event("before"), event("after")]), [("n before", 0), ("n after", 0)]
    assert set(await enqueuing.events_of(fresh)) == {events[1], notices[1]}
    for one in (paused, disabled):
        assert set(await enqueuing.events_of(one)) == {*events, *notices}
    assert await enqueuing.events_of(deleted) == []


async def test_a_subscription_begins_at_a_position_whatever_the_clocks_say(enqueuing: Rig) -> None:
    """Its creation is by the notifier's clock, and what is stored by the broker's."""
    before = await enqueuing.publish(event("before"))
    notice_before = await enqueuing.publish_notice(notice("n before"))
    begins = {EVENTS_STREAM: before, NOTICES_STREAM: notice_before}
    ahead = await enqueuing.subscribe("*", created_at_us=now_us() + 60_000_000, begins=begins)
    behind = await enqueuing.subscribe("*", name="b", created_at_us=now_us() - 60_000_000, begins=begins)
    # The streams were lost since then, and made anew.
    lost = {stream: position + 1_000_000 for stream, position in begins.items()}
    anew = await enqueuing.subscribe("*", name="c", created_at_us=now_us() - 86_400_000_000, begins=lost)
    last, last_notice = await enqueuing.publish(event("after")), await enqueuing.publish_notice(notice("n after"))
    await enqueuing.start()
    await enqueuing.told_up_to(last)
    await enqueuing.told_up_to(last_notice, NOTICES_STREAM)
    after = {(event("after").id, 0), ("n after", 0)}
    for one in (ahead, behind):
        assert set(await enqueuing.events_of(one)) == after
    assert set(await enqueuing.events_of(anew)) == after | {(event("before").id, 0), ("n before", 0)}


async def test_what_is_unknown_or_cannot_be_read_holds_nothing_up(enqueuing: Rig) -> None:
    mine = await enqueuing.subscribe("*")
    await enqueuing.publish(data=b"\xff none")
    await enqueuing.publish()
    new = event("new")
    new.kind = cast("event_pb2.EventKind.ValueType", 9999)
    said = event("known")
    last = await enqueuing.publish(new, said)
    subject = f"notices.{ACME.queue_path}.suppression.added"
    await enqueuing.nats.jetstream().publish(subject, b"\xff none")
    told = await enqueuing.publish_notice(notice("n1"))
    await enqueuing.publish_notice(notice("n2", "later.added"))
    await enqueuing.start()
    await enqueuing.told_up_to(last)
    await enqueuing.told_up_to(told + 1, NOTICES_STREAM)
    assert {row["event_id"]: row["type"] for row in await enqueuing.deliveries(mine)} == {
        said.id: "message.delivered",
        "n1": "suppression.added",
        "n2": "later.added",
    }


async def test_whoever_works_is_woken_after_what_waits_is_there(enqueuing: Rig) -> None:
    one, two = await enqueuing.subscribe("*"), await enqueuing.subscribe("*", of=OTHER)
    await enqueuing.subscribe("message.read", name="b")
    woken: list[set[str]] = []
    there: list[int] = []

    async def wake(message: Msg) -> None:
        there.append(len(await enqueuing.deliveries()))
        woken.append(set(message.data.decode().split()))

    await enqueuing.nats.subscribe(DELIVERIES_DUE_SUBJECT, cb=wake)
    await enqueuing.nats.flush()
    await enqueuing.publish(event("1"))
    last = await enqueuing.publish(event("2", of=OTHER), of=OTHER)
    await enqueuing.start(EVENTS_STREAM)
    await enqueuing.told_up_to(last)

    async def both() -> bool:
        return bool(woken) and set.union(*woken) == {one, two}

    await until("both to be woken", both)
    assert there[-1] == 2


async def test_when_something_is_due_only_becomes_earlier(enqueuing: Rig) -> None:
    mine, later = await enqueuing.subscribe("*"), await enqueuing.subscribe("*", name="b")
    endpoints = enqueuing.database[ENDPOINTS_COLLECTION]
    await endpoints.update_one({"_id": mine}, {"$set": {"due_at_us": 5, "owner": "copy"}})
    await endpoints.update_one({"_id": later}, {"$set": {"due_at_us": now_us() * 2}})
    await enqueuing.start(EVENTS_STREAM)
    await enqueuing.told_up_to(await enqueuing.publish(event("1"), event("2")))
    found = await enqueuing.endpoint(mine)
    assert (found["due_at_us"], found["told"], found["owner"]) == (5, 2, "copy")
    assert (await enqueuing.endpoint(later))["due_at_us"] <= now_us()


async def test_a_tenant_that_is_being_deleted_is_told_nothing_more(enqueuing: Rig) -> None:
    await enqueuing.subscribe("*")
    theirs = await enqueuing.subscribe("*", of=OTHER)
    await enqueuing.start(EVENTS_STREAM)
    tenants = enqueuing.database[TENANTS_COLLECTION]
    await enqueuing.told_up_to(await enqueuing.publish(event("1")))
    await tenants.update_one({"_id": ACME.id}, {"$set": {"status": "deleting"}})
    await enqueuing.publish(event("2"))
    await enqueuing.told_up_to(await enqueuing.publish(event("3", of=OTHER), of=OTHER))
    # Another tenant of the same name is not the one that the subscription is of.
    await tenants.replace_one({"_id": ACME.id}, ACME.to_document() | {"registration": "acme.2"})
    await enqueuing.told_up_to(await enqueuing.publish(event("4")))
    assert [row["event_id"] for row in await enqueuing.deliveries()] == [
        event("1").id, event("3", of=OTHER).id,
    ]  # fmt: skip
    assert await enqueuing.events_of(theirs) == ids([event("3", of=OTHER)])


async def test_a_communication_is_known_as_disabled_as_the_latest_notice_says(enqueuing: Rig) -> None:
    def switch(name: str, disabled: bool, at_us: int, of: Tenant = ACME) -> Notice:
        type_ = "communication.disabled" if disabled else "communication.enabled"
        about = About(communication_id="sale")
        return Notice(
            id=name, tenant_id=of.id, registration=of.registration, type=type_, occurred_at_us=at_us, about=about
        )

    async def known() -> dict[str, bool]:
        rows = enqueuing.database[SWITCHED_COLLECTION].find({})
        return {row["registration"]: row["disabled"] async for row in rows}

    mine = await enqueuing.subscribe("message.*")
    await enqueuing.start(NOTICES_STREAM)
    gone = make.tenant("gone")
    await enqueuing.publish_notice(switch("1", True, 10))
    await enqueuing.publish_notice(switch("2", True, 10, gone), gone)
    # Also of a tenant that has subscribed to nothing yet.
    last = await enqueuing.publish_notice(switch("3", True, 11, OTHER), OTHER)
    await enqueuing.told_up_to(last, NOTICES_STREAM)
    assert await known() == {ACME.registration: True, OTHER.registration: True}
    rows = enqueuing.database[SWITCHED_COLLECTION]
    await rows.update_one({"registration": ACME.registration}, {"$set": {"held": [mine]}})
    told: list[str] = []
    due: asyncio.Event = asyncio.Event()

    async def heard(message: Msg) -> None:
        told.append(message.data.decode())
        due.set()

    await enqueuing.nats.subscribe(DELIVERIES_DUE_SUBJECT, cb=heard)
    await enqueuing.nats.flush()
    await enqueuing.publish_notice(switch("4", False, 12))
    await enqueuing.publish_notice(switch("4", False, 12))
    last = await enqueuing.publish_notice(switch("1", True, 10))
    await enqueuing.told_up_to(last, NOTICES_STREAM)
    assert await known() == {ACME.registration: False, OTHER.registration: True}
    endpoint = await enqueuing.endpoint(mine)
    assert [task["which"] for task in endpoint["tasks"]] == ["held"]
    assert (endpoint["told"], endpoint["restarts"], endpoint["due_at_us"] > 0) == (1, 1, True)
    async with asyncio.timeout(60):
        await due.wait()
    assert told == [mine]
