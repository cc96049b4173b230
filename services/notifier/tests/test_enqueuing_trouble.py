"""Each delivery once, whatever is published twice, dies, takes over, or changes meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from backhaul_common import fence, following, mongo
from backhaul_common.errors import BackhaulError, unavailable
from backhaul_common.feed import StreamMessage
from backhaul_common.names import (
    DELIVERIES_COLLECTION,
    EVENTS_STREAM,
    NOTIFIER_POSITIONS_COLLECTION,
    TENANTS_COLLECTION,
)
from backhaul_notifier.enqueuing import making
from backhaul_notifier.enqueuing.enqueuer import Enqueuer
from backhaul_testing.waiting import until
from enqueuing_rig import ACME, OTHER, Rig, event, ids, now_us, wanting

Committing = Callable[..., Any]


@pytest.fixture
def before_commit(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], Any]]:
    """What is done, once each, when rows were made and no transaction has begun."""
    hooks: list[Callable[[], Any]] = []
    commit = Enqueuer._commit

    async def hooked(self: Enqueuer, *arguments: Any) -> Any:
        while hooks:
            await hooks.pop(0)()
        return await commit(self, *arguments)

    monkeypatch.setattr(Enqueuer, "_commit", hooked)
    return hooks


async def test_what_is_published_again_is_met_by_its_id(enqueuing: Rig) -> None:
    mine = await enqueuing.subscribe("*")
    copy = await enqueuing.start(EVENTS_STREAM)
    one, two, three = event("1"), event("2"), event("3")
    completed = event("1", revision=1)
    await enqueuing.told_up_to(await enqueuing.publish(one, two))
    await enqueuing.told_up_to(await enqueuing.publish(two, one, completed, three, three, again=True))
    # A publisher that lost its acknowledgement may have said nothing of it.
    await enqueuing.told_up_to(await enqueuing.publish(three, event("4"), event("4")))
    assert await enqueuing.events_of(mine) == ids([one, two, completed, three, event("4")])
    assert copy.counts.enqueued.value("acme", "message.delivered") == 5
    assert (await enqueuing.endpoint(mine))["told"] == 5
    assert copy.counts.given_up.value(EVENTS_STREAM) == 0


async def test_what_was_delivered_is_not_told_again(enqueuing: Rig) -> None:
    mine = await enqueuing.subscribe("*")
    await enqueuing.start(EVENTS_STREAM)
    await enqueuing.told_up_to(await enqueuing.publish(event("1")))
    await enqueuing.database[DELIVERIES_COLLECTION].update_one({}, {"$set": {"state": "delivered", "attempts": 1}})
    await enqueuing.told_up_to(await enqueuing.publish(event("1")))
    (row,) = await enqueuing.deliveries(mine)
    assert (row["state"], row["attempts"]) == ("delivered", 1)


async def test_a_copy_that_dies_between_storing_and_hearing_of_it_leaves_no_gap_and_no_double(
    enqueuing: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its transaction is committed, and it does not know: it begins anew at what is stored."""
    mine = await enqueuing.subscribe("*")
    commit, dies = mongo.in_transaction, [True]

    async def in_transaction(database: mongo.Database, work: Callable[..., Any]) -> Any:
        result = await commit(database, work)
        if dies and dies.pop():
            raise unavailable("MongoDB")
        return result

    monkeypatch.setattr(mongo, "in_transaction", in_transaction)
    said = [event(str(number)) for number in range(30)]
    for one in said:
        last = await enqueuing.publish(one)
    copy = await enqueuing.start(EVENTS_STREAM)
    with pytest.raises(BackhaulError):
        await asyncio.wait_for(copy.running[-1], 20)
    assert await enqueuing.deliveries(mine)
    await copy.stop()
    await enqueuing.start(EVENTS_STREAM)
    await enqueuing.told_up_to(last)
    assert await enqueuing.events_of(mine) == ids(said)
    assert (await enqueuing.endpoint(mine))["told"] == len(said)


async def test_one_that_is_cancelled_within_its_transaction_leaves_no_gap_and_no_double(
    enqueuing: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = await enqueuing.subscribe("*")
    monkeypatch.setattr(making, "MAX_ROWS", 7)
    said = [event(str(number)) for number in range(400)]
    for start in range(0, len(said), 20):
        last = await enqueuing.publish(*said[start : start + 20])
    stops = 0
    while True:
        copy = await enqueuing.start(EVENTS_STREAM)
        changed = copy.enqueuers[EVENTS_STREAM].changed  # Set by each transaction, and by whoever takes over.
        await asyncio.wait_for(changed.wait(), 20)
        await asyncio.sleep(0.03 * (1 + stops))  # Somewhere within; a little later each time, so that it ends at all.
        await copy.stop()
        stops += 1
        row = await enqueuing.database[NOTIFIER_POSITIONS_COLLECTION].find_one({"_id": EVENTS_STREAM})
        assert row is not None
        if row["position"] == last:
            break
    assert stops > 2
    assert await enqueuing.events_of(mine) == ids(said)
    assert (await enqueuing.endpoint(mine))["told"] == len(said)


async def test_a_message_whose_deliveries_are_many_is_stored_in_parts_and_once(
    enqueuing: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "MAX_ROWS", 10)
    subscriptions = [await enqueuing.subscribe("*", name=str(number)) for number in range(3)]
    said = [event(str(number)) for number in range(25)]
    first = await enqueuing.publish(*said[:20])
    last = await enqueuing.publish(*said[20:])
    stored: list[tuple[int, int]] = []
    store = Enqueuer._store

    def counted(self: Enqueuer, part: making.Part, *rest: Any) -> Any:
        stored.append((part.position, len(part.rows)))
        if len(stored) == 3:
            raise unavailable("MongoDB")
        return store(self, part, *rest)

    monkeypatch.setattr(Enqueuer, "_store", counted)
    copy = await enqueuing.start(EVENTS_STREAM)
    await asyncio.wait({copy.running[-1]}, timeout=20)
    assert stored[-1] == (first - 1, 10)
    assert len(await enqueuing.deliveries()) in (10, 20)  # What was stored first found no version, and began anew.
    await copy.stop()
    await enqueuing.start(EVENTS_STREAM)
    await enqueuing.told_up_to(last)
    for one in subscriptions:
        assert await enqueuing.events_of(one) == ids(said)
        assert (await enqueuing.endpoint(one))["told"] == len(said)
    assert max(rows for _, rows in stored) == 10


async def test_two_copies_tell_each_event_once_and_the_next_takes_over(
    enqueuing: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "OWNED_S", 2.0)
    mine = await enqueuing.subscribe("*")
    copies = [await enqueuing.start(EVENTS_STREAM) for _ in range(2)]
    said = [event(str(number)) for number in range(10)]
    for one in said[:5]:
        last = await enqueuing.publish(one)
    await enqueuing.told_up_to(last)

    async def counted() -> bool:
        return sum(copy.counts.enqueued.value("acme", "message.delivered") for copy in copies) == 5

    # A moment after it is stored.
    await until("all are counted", counted)
    by_copy = {copy.counts.enqueued.value("acme", "message.delivered"): copy for copy in copies}
    assert by_copy.keys() == {5, 0}
    assert [by_copy[5].enqueuers[EVENTS_STREAM].at_it, by_copy[0].enqueuers[EVENTS_STREAM].at_it] == [True, False]
    # The one that tells stands still: it is not cancelled, and gives nothing back.
    follower = by_copy[5].running[-1]
    for task in asyncio.all_tasks():
        if task.get_name() == "keep_position":
            monkeypatch.setattr(by_copy[5].enqueuers[EVENTS_STREAM], "_as_owner", _nothing)
    held = asyncio.Event()
    apply = by_copy[5].enqueuers[EVENTS_STREAM].apply

    async def late(messages: Sequence[StreamMessage]) -> None:
        held.set()
        await woken.wait()
        await apply(messages)

    woken = asyncio.Event()
    monkeypatch.setattr(by_copy[5].enqueuers[EVENTS_STREAM], "apply", late)
    for one in said[5:]:
        last = await enqueuing.publish(one)
    await asyncio.wait_for(held.wait(), 60)
    await enqueuing.told_up_to(last)
    woken.set()  # It wakes up late, and stores nothing.
    await asyncio.wait({follower}, timeout=10)
    assert isinstance(follower.exception(), BackhaulError)
    assert await enqueuing.events_of(mine) == ids(said)
    assert by_copy[0].counts.enqueued.value("acme", "message.delivered") == 5


async def _nothing(_: Any) -> bool:
    return True


@pytest.mark.parametrize("says", [True, False])
async def test_what_subscriptions_become_meanwhile_is_what_counts(
    enqueuing: Rig, before_commit: list[Callable[[], Any]], *, says: bool
) -> None:
    """Made, changed, and deleted between the making of rows and their transaction; whether NATS says it or not."""
    changed = await enqueuing.subscribe("message.delivered", name="changed")
    deleted = await enqueuing.subscribe("*", name="deleted")
    await enqueuing.start(EVENTS_STREAM)
    await enqueuing.told_up_to(await enqueuing.publish(event("1"), event("2", "read")))
    made: list[str] = []

    async def meanwhile() -> None:
        made.append(await enqueuing.subscribe("*", name="made", says=says))
        await enqueuing.write(
            changed, {"$set": {"definition": wanting("message.read")}, "$inc": {"revision": 1}}, says=says
        )
        await enqueuing.write(
            deleted, {"$set": {"deleted": True}, "$inc": {"revision": 1}}, endpoint={"active": False}, says=says
        )

    before_commit.append(meanwhile)
    await enqueuing.told_up_to(await enqueuing.publish(event("3"), event("4", "read")))
    assert await enqueuing.events_of(made[0]) == ids([event("3"), event("4")])
    assert await enqueuing.events_of(changed) == ids([event("1"), event("4")])
    assert await enqueuing.events_of(deleted) == ids([event("1"), event("2")])


async def test_a_deletion_that_meets_the_transaction_is_not_told_behind_it(
    enqueuing: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version was read, and then the subscription and its endpoint go: both write the endpoint, so one is anew."""
    mine, stays = await enqueuing.subscribe("*"), await enqueuing.subscribe("*", name="b")
    await enqueuing.start(EVENTS_STREAM)
    await enqueuing.told_up_to(await enqueuing.publish(event("1")))
    loop, living = asyncio.get_running_loop(), fence.living
    once = [True]

    async def delete() -> None:
        await enqueuing.write(mine, {"$set": {"deleted": True}, "$inc": {"revision": 1}}, endpoint={"active": False})

    def after_version(*arguments: Any) -> Any:
        if once and once.pop():
            asyncio.run_coroutine_threadsafe(delete(), loop).result(10)
        return living(*arguments)

    monkeypatch.setattr("backhaul_notifier.enqueuing.enqueuer.living", after_version)
    await enqueuing.told_up_to(await enqueuing.publish(event("2")))
    assert await enqueuing.events_of(mine) == ids([event("1")])
    assert await enqueuing.events_of(stays) == ids([event("1"), event("2")])
    assert (await enqueuing.endpoint(mine))["told"] == 1


async def test_a_tenant_that_is_marked_meanwhile_is_left_out(
    enqueuing: Rig, before_commit: list[Callable[[], Any]]
) -> None:
    await enqueuing.subscribe("*")
    theirs = await enqueuing.subscribe("*", of=OTHER)
    await enqueuing.start(EVENTS_STREAM)

    async def mark() -> None:
        await enqueuing.database[TENANTS_COLLECTION].update_one({"_id": ACME.id}, {"$set": {"status": "deleting"}})

    before_commit.append(mark)
    await enqueuing.publish(event("1"))
    await enqueuing.told_up_to(await enqueuing.publish(event("2", of=OTHER), of=OTHER))
    assert [row["subscription"] for row in await enqueuing.deliveries()] == [theirs]


async def test_a_new_subscription_is_told_of_the_next_event_on(enqueuing: Rig) -> None:
    """Many times, since it is a race of the answer to its creation with a batch that is under way."""
    await enqueuing.subscribe("*", name="first")
    await enqueuing.start(EVENTS_STREAM)
    wanted: dict[str, str] = {}
    last = 0
    for number in range(25):
        await enqueuing.publish(event(f"before {number}"))
        id_ = await enqueuing.subscribe("*", name=str(number), says=number % 2 == 0, created_at_us=now_us())
        last = await enqueuing.publish(event(f"after {number}"))
        wanted[id_] = event(f"after {number}").id
    await enqueuing.told_up_to(last)
    for id_, first in wanted.items():
        assert (await enqueuing.deliveries(id_))[0]["event_id"] == first


async def test_a_message_that_fails_is_given_up_alone_and_counted(
    enqueuing: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "pause_s", lambda _: 0.01)
    mine = await enqueuing.subscribe("*")
    store = Enqueuer._store
    bad = event("2").id

    def fails(self: Enqueuer, part: making.Part, *rest: Any) -> Any:
        if any(row["event_id"] == bad for row in part.rows.values()):
            raise ValueError("a bug")
        return store(self, part, *rest)

    monkeypatch.setattr(Enqueuer, "_store", fails)
    for number in range(4):
        last = await enqueuing.publish(event(str(number)))
    copy = await enqueuing.start(EVENTS_STREAM)
    await enqueuing.told_up_to(last)
    assert await enqueuing.events_of(mine) == ids([event(str(number)) for number in (0, 1, 3)])
    assert copy.counts.given_up.value(EVENTS_STREAM) == 1


async def test_how_far_behind_a_stream_is_told_is_shown(enqueuing: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = await enqueuing.subscribe("*")
    for number in range(3):
        last = await enqueuing.publish(event(str(number)))
    copy = await enqueuing.start()
    await enqueuing.told_up_to(last)
    assert await enqueuing.events_of(mine)
    shown = copy.metrics.render().decode()
    assert "backhaul_notifier_enqueued_total{" in shown
    assert "backhaul_notifier_lag_seconds_count" in shown
    assert all(f'stream="{stream}"' in shown for stream in copy.enqueuers)
