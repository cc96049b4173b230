"""What is of a disabled communication waits, by however many copies, and goes out in order when that is enabled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from backhaul_common import leases, mongo
from backhaul_common.names import SUBSCRIPTIONS_COLLECTION, SWITCHED_COLLECTION, TENANTS_COLLECTION
from backhaul_common.revisioned import Directory, Documents
from backhaul_notifier.documents import switched_id
from backhaul_notifier.holding import holding
from backhaul_notifier.holding.holding import Holding
from backhaul_notifier.holding.switches import SWITCHED, Switch, Switching, apply, have_released, say
from backhaul_notifier.model import Delivery, Subscription
from backhaul_notifier.schedules import DISPATCH, STANDARD, Outcome
from backhaul_notifier.subscriptions.sweeping import ENABLED_US, Sweep
from backhaul_notifier.working.endpoints import MongoEndpoints
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from backhaul_testing import make
from backhaul_testing.waiting import until
from working_rig import REGISTRATION, TENANT, Made, Rig, rigged

ORDERINGS = [pb.ORDERING_NONE, pb.ORDERING_MESSAGE]


@pytest.fixture
async def rig(mongo_server: Any, mongo_database: str, nats_url: str) -> AsyncIterator[Rig]:
    async with rigged(mongo_server.uri, mongo_database, nats_url) as made:
        tenant = make.tenant(TENANT).model_copy(update={"registration": REGISTRATION})
        await made.database[TENANTS_COLLECTION].insert_one({"_id": TENANT} | tenant.to_document())
        yield made


async def subscribe(rig: Rig, id_: str = "sub_1", **more: Any) -> Subscription:
    """One of the policy that disables communications, one call at a time."""
    made = await rig.subscribe(id_, **{"policy": DISPATCH, "concurrency": 1, **more})
    await rig.database[SUBSCRIPTIONS_COLLECTION].insert_one({"_id": id_, "revision": 1})
    return made


async def switch(rig: Rig, disabled: bool, at_us: int, communication: str = "sale") -> None:
    """As the enqueuer does."""
    one = Switch(TENANT, REGISTRATION, communication, disabled, at_us)

    def work(database: mongo.ThreadDatabase, session: mongo.Session) -> list[str]:
        return apply(database, session, one, rig.clock.now_us())

    woken = await mongo.in_transaction(rig.database, work)
    if rig.copies:
        await say(rig.copies[0].client, [one.id])
        await rig.say(*woken)


async def until_state(rig: Rig, count: int, state: str = "held", **query: Any) -> None:
    async def probe() -> bool:
        return await rig.deliveries.count_documents({"state": state, **query}) == count

    await until(f"{count} are {state}", probe, within_s=30)


@pytest.mark.parametrize("ordering", ORDERINGS)
async def test_it_is_held_and_goes_out_once_and_in_order_when_it_is_enabled(rig: Rig, ordering: Any) -> None:
    await subscribe(rig, ordering=ordering)
    keys = [b"%d" % (number % 7) for number in range(700)]
    held = await rig.enqueue(*keys, communication_id="sale")
    others = await rig.enqueue(*keys[:50], communication_id="other")
    await switch(rig, True, 1)
    await rig.copy()
    await until_state(rig, 50, "delivered")
    await until_state(rig, 700)
    assert {one.communication_id for made in rig.calls.made for one in made.deliveries} == {"other"}
    row = await rig.row(held[0])
    assert "due_at_us" not in row
    assert (row["attempts"], "tries" in row) == (0, False)
    # What is told meanwhile comes after what was told before.
    held += await rig.enqueue(*keys[:100], communication_id="sale")
    await switch(rig, False, 2)
    held += await rig.enqueue(*keys[:100], communication_id="sale")
    await rig.until_none_waits(within_s=40)
    await until_state(rig, 950, "delivered")
    told = [one for made in rig.calls.made for one in made.deliveries]
    assert sorted(one.id for one in told) == sorted(held + others)
    for key in set(keys):
        orders = [one.order for one in told if one.key == key and one.communication_id == "sale"]
        assert orders == sorted(orders)
    switched = await rig.database[SWITCHED_COLLECTION].find_one({"_id": switched_id(REGISTRATION, "sale")})
    assert switched is not None
    assert (switched["disabled"], switched["held"]) == (False, [])
    endpoint = await rig.endpoints.find_one({"_id": "sub_1"})
    assert endpoint is not None
    assert not endpoint["tasks"]


async def test_what_was_read_already_is_held_as_well(rig: Rig) -> None:
    """Also what goes together with others, which are not held up by it."""
    first, go_on = asyncio.Event(), asyncio.Event()

    async def answer(made: Made) -> Outcome:
        first.set()
        await go_on.wait()
        return Outcome(200)

    rig.calls.answer = answer
    await subscribe(rig, payload=pb.Payload(max_events=10, max_wait_s=0))
    for _ in range(20):
        await rig.enqueue(number=1, communication_id="other")
        await rig.enqueue(number=1, communication_id="sale")
    copy = await rig.copy()
    await first.wait()
    sent = len(rig.calls.made[0].deliveries)
    await switch(rig, True, 1)

    async def known() -> bool:
        return bool(copy.switched.values)

    await until("the switch is known", known)
    go_on.set()
    await rig.until_none_waits()
    of_it = [one for made in rig.calls.made for one in made.deliveries if one.communication_id == "sale"]
    assert len(of_it) == sum(one.communication_id == "sale" for one in rig.calls.made[0].deliveries) == sent // 2
    await until_state(rig, 20 - len(of_it))
    assert not await rig.deliveries.count_documents({"state": "held", "call": {"$exists": True}})
    await until_state(rig, 20, "delivered", communication_id="other")


async def test_the_third_failed_attempt_has_everything_else_wait(rig: Rig) -> None:
    await subscribe(rig)
    rig.calls.answer = lambda _: Outcome(500)
    ids = await rig.enqueue(number=5, communication_id="sale")
    copy = await rig.copy()
    switching = Switching(rig.database, copy.switched, copy.client, rig.clock.now_us)

    async def disable(subscription: Subscription, delivery: Delivery, text: str) -> None:
        await switching.note(Switch(TENANT, REGISTRATION, delivery.communication_id, True, 1))

    rig.communications.disable = disable  # type: ignore[method-assign]  # as the normalizer answers
    for attempts in (1, 2):
        for id_ in ids:
            await rig.until_row(id_, attempts=attempts)
        rig.move(301)
    await until_state(rig, 4)
    await until_state(rig, 1, "failed")
    assert len(rig.calls.made) == 11
    rig.calls.answer = lambda _: Outcome(200)
    await switch(rig, False, 2)
    await until_state(rig, 4, "delivered")
    # They are tried as often as they were before.
    assert {row["attempts"] async for row in rig.deliveries.find({"state": "delivered"})} == {3}


@pytest.mark.parametrize("ordering", ORDERINGS)
async def test_a_copy_dies_while_it_releases(rig: Rig, monkeypatch: pytest.MonkeyPatch, ordering: Any) -> None:
    monkeypatch.setattr(holding, "PAGE", 20)
    await subscribe(rig, ordering=ordering)
    keys = [b"%d" % (number % 3) for number in range(400)]
    ids = await rig.enqueue(*keys, communication_id="sale")
    await switch(rig, True, 1)
    one = await rig.copy("one")
    await until_state(rig, 400)
    release, pages = Holding.release, 0

    async def slowly(self: Holding, *arguments: Any) -> bool:
        nonlocal pages
        pages += 1
        if pages == 5:
            await asyncio.Event().wait()
        return await release(self, *arguments)

    monkeypatch.setattr(Holding, "release", slowly)
    await switch(rig, False, 2)

    async def stands() -> bool:
        return pages == 5

    await until("it stands still", stands)
    await one.die()
    assert await rig.deliveries.count_documents({"state": "held"}) == 320
    # Its lease is over.
    await rig.endpoints.update_one({"_id": "sub_1"}, [{"$set": {"until": {"$subtract": ["$$NOW", 1]}}}])
    await rig.copy("two")
    await rig.until_none_waits(within_s=40)
    await until_state(rig, 400, "delivered")
    # What the dead one was calling is called again.
    told = list(dict.fromkeys(delivery.id for made in rig.calls.made for delivery in made.deliveries))
    assert sorted(told) == sorted(ids)
    for key in set(keys):
        places = [told.index(id_) for id_, of in zip(ids, keys, strict=True) if of == key]
        assert places == sorted(places)


@pytest.mark.parametrize("ordering", ORDERINGS)
async def test_calls_go_on_while_much_is_released(rig: Rig, monkeypatch: pytest.MonkeyPatch, ordering: Any) -> None:
    monkeypatch.setattr(holding, "PAGE", 20)
    await subscribe(rig, ordering=ordering)
    keys = [b"%d" % (number % 3) for number in range(400)]
    ids = await rig.enqueue(*keys, communication_id="sale")
    await switch(rig, True, 1)
    await rig.copy()
    await until_state(rig, 400)
    left: list[int] = []

    async def answer(_: Made) -> Outcome:
        left.append(await rig.deliveries.count_documents({"state": "held"}))
        return Outcome(200)

    rig.calls.answer = answer
    await switch(rig, False, 2)
    await rig.calls.until(1)
    # It is newer than all that is held, and comes behind it.
    keys += keys[:10]
    ids += await rig.enqueue(*keys[:10], communication_id="sale")
    await until_state(rig, 410, "delivered")
    assert left[0] > 0
    told = [delivery.id for made in rig.calls.made for delivery in made.deliveries]
    assert sorted(told) == sorted(ids)
    for key in set(keys):
        places = [told.index(id_) for id_, of in zip(ids, keys, strict=True) if of == key]
        assert places == sorted(places)


async def test_a_copy_that_has_not_heard_that_it_is_enabled_holds_nothing(rig: Rig) -> None:
    subscription = await subscribe(rig)
    await switch(rig, True, 1)
    endpoints = MongoEndpoints(rig.database, "one")
    directory = Directory(SWITCHED, Documents(rig.database[SWITCHED_COLLECTION]))
    await directory.refresh()
    late = Holding(rig.database, directory, endpoints)
    (id_,) = await rig.enqueue(number=1, communication_id="sale", says=False)
    delivery = Delivery.of(await rig.row(id_))
    assert late.switches.holds(subscription, delivery)
    await switch(rig, False, 2)
    assert late.switches.holds(subscription, delivery)
    held = await endpoints.take("sub_1")
    assert held is not None
    assert await late.hold(held, subscription, [delivery]) == set()
    assert not late.switches.holds(subscription, delivery)
    assert (await rig.row(id_))["state"] == "waiting"
    # Nor does one whose lease was taken, whatever it knows.
    await switch(rig, True, 3)
    await rig.endpoints.update_one({"_id": "sub_1"}, {"$inc": {"epoch": 1}})
    with pytest.raises(leases.LostError):
        await late.hold(held, subscription, [delivery])
    assert (await rig.row(id_))["state"] == "waiting"


async def test_the_latest_counts_whoever_comes_last(rig: Rig) -> None:
    await subscribe(rig)
    await switch(rig, False, 5)
    await switch(rig, True, 4)
    await rig.copy()
    await rig.enqueue(number=3, communication_id="sale")
    await until_state(rig, 3, "delivered")
    await switch(rig, True, 6)
    await rig.enqueue(number=3, communication_id="sale")
    await until_state(rig, 3)
    await switch(rig, False, 5)
    await rig.enqueue(number=1, communication_id="sale")
    await until_state(rig, 4)


async def test_what_another_policy_sends_and_what_is_said_of_the_communication_is_not_held(rig: Rig) -> None:
    await subscribe(rig)
    await subscribe(rig, "sub_2", policy=STANDARD)
    await switch(rig, True, 1)
    await rig.copy()
    await rig.enqueue(number=3, to="sub_2", communication_id="sale")
    await rig.enqueue(number=1, communication_id="sale", type="communication.disabled", notice=True)
    await rig.enqueue(number=1)
    await until_state(rig, 5, "delivered")
    assert not await rig.deliveries.count_documents({"state": "held"})


async def test_another_policy_releases_what_is_held_though_it_is_disabled(rig: Rig) -> None:
    subscription = await subscribe(rig)
    await switch(rig, True, 1)
    await rig.enqueue(number=30, communication_id="sale")
    await rig.copy()
    await until_state(rig, 30)
    # Both are one transaction where subscriptions are stored.
    await rig.subscriptions.put(replace(subscription, policy=STANDARD))

    def work(database: mongo.ThreadDatabase, session: mongo.Session) -> None:
        change = {"$inc": {"revision": 1}}
        database[SUBSCRIPTIONS_COLLECTION].update_one({"_id": "sub_1"}, change, session=session)
        have_released(database, session, "sub_1", rig.clock.now_us(), all_=True)

    await mongo.in_transaction(rig.database, work)
    await until_state(rig, 30, "delivered")
    assert rig.calls.orders() == list(range(1, 31))


async def test_nothing_is_remembered_for_longer_than_it_is_needed(rig: Rig) -> None:
    rows = rig.database[SWITCHED_COLLECTION]
    day, now_us = ENABLED_US, rig.clock.now_us()
    for name, at_us in (("old", now_us - day - 1), ("new", now_us)):
        await switch(rig, True, at_us - 1, f"{name} and disabled")
        await switch(rig, True, at_us - 1, name)
        await switch(rig, False, at_us, name)
    await rows.update_many({"communication_id": "old and disabled"}, {"$set": {"held": ["sub_1", "sub_2"]}})
    await rig.database[SUBSCRIPTIONS_COLLECTION].insert_one(
        {"_id": "sub_1", "registration": REGISTRATION, "deleted": True, "updated_at_us": 1}
    )
    await Sweep(rig.database, rig.clock.now_us).once()
    left = {row["communication_id"]: row.get("held", []) async for row in rows.find({})}
    assert left == {"old and disabled": ["sub_2"], "new and disabled": [], "new": []}
