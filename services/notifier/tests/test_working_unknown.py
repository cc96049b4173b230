"""What happened before it was known of which communication a message is, is told to whoever asks for that one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from backhaul_common.errors import Code
from backhaul_notifier.catalogue.matching import Matcher, selection_of
from backhaul_notifier.catalogue.samples import sample_of
from backhaul_notifier.catalogue.types import TYPES
from backhaul_notifier.working.intake import AWAY_S, LOOKS_S
from backhaul_proto.event.v1.event_pb2 import Event
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from backhaul_testing.waiting import until
from working_rig import SECOND_US, Rig, rigged


@pytest.fixture
async def rig(mongo_server: Any, mongo_database: str, nats_url: str) -> AsyncIterator[Rig]:
    async with rigged(mongo_server.uri, mongo_database, nats_url) as made:
        yield made


async def wanting(rig: Rig, ordering: Any = pb.ORDERING_NONE) -> None:
    subscription = await rig.subscribe(ordering=ordering)
    matcher = Matcher(selection_of(["message.*"], communication_ids=["spring"]))
    await rig.subscriptions.put(replace(subscription, matcher=matcher))


async def happened(rig: Rig, message_id: str, key: bytes = b"") -> bytes:
    """A delivery, as whoever enqueues makes it of what names no communication."""
    said = sample_of(TYPES["message.delivered"])
    assert isinstance(said, Event)
    said.message_id, said.communication_id = message_id, ""
    more: Any = {"payload": said.SerializeToString(), "unsure": True, "message_id": message_id}
    (id_,) = await rig.enqueue(*([key] if key else []), **more)
    return id_


async def looked(rig: Rig, message_id: str, times: int) -> None:
    async def probe() -> bool:
        return rig.communications.asked.count(message_id) >= times

    await until(f"it is looked at {message_id} {times} times", probe, within_s=60.0)


async def until_gone(rig: Rig, id_: bytes) -> None:
    async def probe() -> bool:
        return await rig.deliveries.find_one({"_id": id_}) is None

    await until("it is not told", probe, within_s=60.0)


@pytest.mark.parametrize("ordering", [pb.ORDERING_NONE, pb.ORDERING_MESSAGE])
async def test_what_becomes_known_is_told(rig: Rig, ordering: Any) -> None:
    await wanting(rig, ordering)
    rig.communications.of_messages = {"SM1": "spring", "SM2": "autumn"}
    known = await happened(rig, "SM1", b"1")
    other = await happened(rig, "SM2", b"2")
    later, never = await happened(rig, "SM3", b"3"), await happened(rig, "SM4", b"4")
    await rig.copy()
    row = await rig.until_row(known, state="delivered")
    assert row["communication_id"] == "spring"
    assert Event.FromString(row["payload"]).communication_id == "spring"
    assert (row["type"], "unsure" in row) == ("message.delivered", False)
    await until_gone(rig, other)
    await looked(rig, "SM3", 1)
    waiting = await rig.until_row(never, due_at_us=(await rig.row(never))["created_at_us"] + LOOKS_S[0] * SECOND_US)
    assert (waiting["state"], waiting["attempts"]) == ("waiting", 0)
    rig.communications.of_messages["SM3"] = "spring"
    rig.move(LOOKS_S[0] + 1)
    await rig.until_row(later, state="delivered")
    assert {made.deliveries[0].id for made in rig.calls.made} == {known, later}
    assert {one.said.communication_id for made in rig.calls.made for one in made.deliveries} == {"spring"}  # type: ignore[union-attr]  # no notice is among them
    await looked(rig, "SM4", 2)
    rig.move(LOOKS_S[1] + 1)
    await until_gone(rig, never)
    assert len(rig.calls.made) == 2


async def test_what_comes_later_of_the_same_message_waits_in_its_order(rig: Rig) -> None:
    await wanting(rig, pb.ORDERING_MESSAGE)
    first = await happened(rig, "SM1", b"key")
    await rig.copy()
    await looked(rig, "SM1", 1)
    said = sample_of(TYPES["message.read"])
    (second,) = await rig.enqueue(b"key", payload=said.SerializeToString())
    (other,) = await rig.enqueue(b"other", payload=said.SerializeToString())
    await rig.until_row(other, state="delivered")
    assert (await rig.row(second))["state"] == "waiting"
    rig.communications.of_messages["SM1"] = "spring"
    rig.move(LOOKS_S[0] + 1)
    await rig.until_row(second, state="delivered")
    assert rig.calls.orders() == [3, 1, 2]
    assert (await rig.row(first))["state"] == "delivered"


@pytest.mark.parametrize("ordering", [pb.ORDERING_NONE, pb.ORDERING_MESSAGE])
async def test_what_is_known_waits_for_no_question(rig: Rig, ordering: Any) -> None:
    await wanting(rig, ordering)
    rig.communications.goes_on.clear()
    rig.communications.of_messages = {"SM1": "spring", "SM2": "spring"}
    await happened(rig, "SM1", b"1")
    await happened(rig, "SM2", b"2")
    said = sample_of(TYPES["message.read"]).SerializeToString()
    (behind,) = await rig.enqueue(b"1", payload=said)
    (known,) = await rig.enqueue(b"3", payload=said)
    await rig.copy()
    await rig.until_row(known, state="delivered")
    # They are asked for together.
    await looked(rig, "SM2", 1)
    if ordering == pb.ORDERING_MESSAGE:
        assert (await rig.row(behind))["state"] == "waiting"
    rig.communications.goes_on.set()
    await rig.until_none_waits()
    orders = rig.calls.orders()
    assert sorted(orders) == [1, 2, 3, 4]
    assert ordering == pb.ORDERING_NONE or orders.index(1) < orders.index(3)


async def test_what_has_changed_while_it_was_asked_for_is_told_as_it_is(rig: Rig) -> None:
    await wanting(rig)
    rig.communications.goes_on.clear()
    rig.communications.of_messages = {"SM1": "spring", "SM2": "spring"}
    ids = [await happened(rig, message_id) for message_id in ("SM1", "SM2", "SM3")]
    await rig.copy()
    await looked(rig, "SM3", 1)
    erased = Event.FromString((await rig.row(ids[0]))["payload"])
    erased.recipient = ""
    await rig.deliveries.update_one({"_id": ids[0]}, {"$set": {"payload": erased.SerializeToString()}})
    rig.communications.goes_on.set()
    for id_ in ids[:2]:
        await rig.until_row(id_, state="delivered")
    assert sorted(rig.calls.orders()) == [1, 2]
    told = {one.order: one.said for made in rig.calls.made for one in made.deliveries}
    assert [bool(told[order].recipient) for order in (1, 2)] == [False, True]  # type: ignore[union-attr]  # no notice is among them
    row = await rig.row(ids[2])
    assert (row["state"], row["due_at_us"] > row["created_at_us"]) == ("waiting", True)


async def test_while_the_normalizer_is_away_nothing_is_taken_for_unknown(rig: Rig) -> None:
    await wanting(rig)
    rig.communications.away = True
    id_ = await happened(rig, "SM1")
    for _ in range(200):
        await happened(rig, "SM1")
    said = sample_of(TYPES["message.read"]).SerializeToString()
    (known,) = await rig.enqueue(payload=said)
    await rig.copy()
    await rig.until_row(known, state="delivered")
    # Each question might take its time, so that not all of them are asked.
    assert len(rig.communications.asked) < 150
    # Whatever time it took to fail, it is left alone from then on.
    assert (await rig.row(id_))["due_at_us"] >= rig.communications.failed_at_us[0] + AWAY_S[0] * SECOND_US
    rig.move(LOOKS_S[1] + 1)
    await looked(rig, "SM1", 2)

    # The next time it is left alone for longer, and once it has said something, as at first.
    async def put_off_again() -> bool:
        due_at_us: int = (await rig.row(id_))["due_at_us"]
        return due_at_us >= rig.communications.failed_at_us[-1] + 2 * AWAY_S[0] * SECOND_US - SECOND_US // 2

    await until("it is left alone for twice as long", put_off_again, within_s=60.0)
    rig.communications.of_messages["SM1"] = "spring"
    rig.communications.away = False
    rig.move(AWAY_S[1] + 1)
    await rig.until_row(id_, state="delivered")
    await rig.until_none_waits()
    assert len(rig.calls.made) == 202


async def test_what_cannot_be_said_of_one_message_has_no_other_wait(rig: Rig) -> None:
    await wanting(rig)
    rig.communications.broken = {"SM1"}
    rig.communications.of_messages["SM2"] = "spring"
    broken = await happened(rig, "SM1")
    other = await happened(rig, "SM2")
    await rig.copy()
    await rig.until_row(other, state="delivered")
    row = await rig.until_row(broken, due_at_us=(await rig.row(broken))["created_at_us"] + LOOKS_S[0] * SECOND_US)
    assert (row["state"], row["attempts"]) == ("waiting", 0)
    rig.move(LOOKS_S[1] + 1)
    await until_gone(rig, broken)
    assert len(rig.calls.made) == 1


async def test_who_may_ask_nothing_takes_nothing_for_unknown(rig: Rig) -> None:
    await wanting(rig)
    rig.communications.broken, rig.communications.code = {"SM1"}, Code.UNAUTHENTICATED
    id_ = await happened(rig, "SM1")
    await rig.copy()
    await looked(rig, "SM1", 1)
    rig.move(LOOKS_S[1] + 1)
    await looked(rig, "SM1", 2)
    rig.communications.broken = set()
    rig.communications.of_messages["SM1"] = "spring"
    rig.move(LOOKS_S[0] + 1)
    await rig.until_row(id_, state="delivered")


async def test_who_was_erased_meanwhile_stays_so(rig: Rig) -> None:
    await wanting(rig)
    id_ = await happened(rig, "SM1")
    await rig.copy()
    await looked(rig, "SM1", 1)
    erased = Event.FromString((await rig.row(id_))["payload"])
    erased.recipient = ""
    await rig.deliveries.update_one({"_id": id_}, {"$set": {"payload": erased.SerializeToString()}})
    rig.communications.of_messages["SM1"] = "spring"
    rig.move(LOOKS_S[0] + 1)
    row = await rig.until_row(id_, state="delivered")
    told = Event.FromString(row["payload"])
    assert (told.recipient, told.communication_id) == ("", "spring")
