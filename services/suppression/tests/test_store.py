"""Facts on a real MongoDB: what rows and changes follow, in whichever order, from however many copies."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest
from backhaul_common import mongo
from backhaul_suppression import store as stores
from backhaul_suppression.model import EVERYTHING, Fact, Kind, Scope, ScopeKind, Target
from backhaul_testing import make
from store_rig import ANNA, Rig, fact, row_id

SENDER = Target(Kind.STOP, Scope(ScopeKind.SENDER, "+15005550006"))
STOPPED = Target(Kind.STOP, EVERYTHING)
BOUNCED = Target(Kind.HARD_BOUNCE, EVERYTHING)


def story(number: int, chance: random.Random) -> list[Fact]:
    """What is said about a few addresses, revisions and withdrawals among it."""
    facts: list[Fact] = []
    for one in range(number):
        targets = chance.sample([STOPPED, SENDER, BOUNCED], chance.randint(1, 3))
        said = fact(
            f"{one:032x}",
            chance.randint(1, 12),
            lifts=chance.random() < 0.45,
            targets=targets,
            address=f"+1500555000{chance.randint(0, 2)}",
            of=chance.choice(["acme", "globex"]),
        )
        facts.append(said)
        if chance.random() < 0.3:
            lifts = chance.random() < 0.5
            facts.append(
                replace(
                    said,
                    revision=1,
                    lifts=lifts,
                    effective_at_us=chance.randint(1, 12),
                    targets=tuple(chance.sample([STOPPED, SENDER, BOUNCED], chance.randint(0, 3))),
                )
            )
    return facts


async def two_tenants(rig: Rig) -> None:
    await rig.register(make.tenant("acme"), make.tenant("globex"))


async def test_a_fact_becomes_a_row_and_a_change(rig: Rig) -> None:
    await two_tenants(rig)
    stop = fact("a" * 32, 1000, traceparent="00-1-2-01", message_id="SM1", word="STOP")
    committed = await rig.store().commit([stop])
    (change,) = committed.changes
    assert (change.seq, change.position, change.fact) == (1, 1, stop)
    assert committed.rows == {row_id(): change.row}
    assert (change.row.active, change.row.since_us, change.row.fact_id) == (True, 1000, stop.id)
    assert await rig.changes() == [change]
    assert await rig.facts() == [stop]
    assert committed.kept[stop.id] is stop
    await rig.check()


@pytest.mark.parametrize("seed", range(8))
async def test_every_order_of_the_same_facts_gives_the_same_rows(rig: Rig, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  # an order that can be repeated, no secret
    await two_tenants(rig)
    store = rig.store()
    facts = story(40, chance)
    highest = {one.id: max((two for two in facts if two.id == one.id), key=lambda two: two.revision) for one in facts}
    shuffled = chance.sample(facts, len(facts)) + chance.sample(facts, len(facts) // 3)
    while shuffled:
        size = chance.randint(1, 12)
        batch, shuffled = shuffled[:size], shuffled[size:]
        await store.commit(batch)
    assert sorted(await rig.facts(), key=lambda one: one.id) == sorted(highest.values(), key=lambda one: one.id)
    await rig.check()


@pytest.mark.parametrize("seed", range(4))
async def test_two_copies_at_once_write_no_gap_and_lose_nothing(rig: Rig, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  # an order that can be repeated, no secret
    await two_tenants(rig)
    facts = story(60, chance)
    shuffled = chance.sample(facts, len(facts)) + chance.sample(facts, len(facts) // 2)

    async def commit(share: Sequence[Fact]) -> None:
        store = rig.store()
        while share:
            size = chance.randint(1, 5)
            batch, share = share[:size], share[size:]
            await store.commit(batch)

    await asyncio.gather(commit(shuffled[::2]), commit(shuffled[1::2]))
    await rig.check()


async def test_the_same_again_changes_nothing_and_tells_how_it_stands(rig: Rig) -> None:
    await two_tenants(rig)
    store = rig.store()
    stop, start = fact("a" * 32, 1000), fact("b" * 32, 2000, lifts=True)
    first = await store.commit([stop, start])
    assert [change.row.active for change in first.changes] == [True, False]
    again = await rig.store().commit([stop, start])
    assert list(again.changes) == []
    assert again.rows == first.rows
    assert again.seq == first.seq == 2
    assert again.kept == first.kept
    await rig.check()


async def test_another_content_under_the_same_id_is_told_and_not_stored(rig: Rig) -> None:
    await two_tenants(rig)
    store = rig.store()
    stop = fact("a" * 32, 1000)
    await store.commit([stop])
    other = replace(stop, effective_at_us=5, note="another")
    committed = await store.commit([other])
    assert committed.kept[stop.id] == stop
    assert list(committed.changes) == []
    assert await rig.facts() == [stop]


async def test_a_withdrawn_fact_leaves_no_row_and_tells_the_copies(rig: Rig) -> None:
    await two_tenants(rig)
    store = rig.store()
    stop = fact("a" * 32, 1000)
    await store.commit([stop])
    committed = await store.commit([replace(stop, revision=1, targets=())])
    (change,) = committed.changes
    assert not change.row.active
    assert await rig.rows() == {}
    await rig.check()
    # In the other order there never was a row.
    await store.commit([replace(stop, id="c" * 32, revision=1, targets=())])
    assert list((await store.commit([replace(stop, id="c" * 32)])).changes) == []


async def test_a_revision_that_says_the_same_changes_nothing_and_keeps_when_that_was_first_recorded(rig: Rig) -> None:
    await two_tenants(rig)
    store = rig.store()
    stop = fact("a" * 32, 1000, recorded_at_us=2000)
    first = await store.commit([stop])
    again = replace(stop, revision=1, recorded_at_us=3000, note="read anew")
    committed = await store.commit([again])
    assert list(committed.changes) == []
    assert committed.kept[stop.id] is again
    assert committed.rows == first.rows
    assert await rig.facts() == [replace(again, recorded_at_us=2000)]
    later = replace(stop, revision=2, recorded_at_us=4000, effective_at_us=1500)
    (change,) = (await store.commit([later])).changes
    assert (change.row.since_us, change.row.recorded_at_us) == (1500, 4000)
    await rig.check()


async def test_facts_of_a_registration_that_is_gone_are_left_out(rig: Rig) -> None:
    await two_tenants(rig)
    store = rig.store()
    await rig.register(make.tenant("acme").model_copy(update={"status": "deleting"}))
    ours, theirs = fact("a" * 32, 1000), fact("b" * 32, 1000, of="globex")
    former = replace(ours, id="c" * 32, tenant_id="globex")
    committed = await store.commit([ours, theirs, former])
    assert set(committed.kept) == {theirs.id}
    assert [change.fact.id for change in committed.changes] == [theirs.id]
    assert await rig.facts() == [theirs]
    assert set(committed.rows) == {row_id(of="globex", address=ANNA)}
    await rig.check()


async def test_whoever_never_stopped_has_no_row_until_an_older_stop_is_heard_of(rig: Rig) -> None:
    await two_tenants(rig)
    store = rig.store()
    committed = await store.commit([fact("b" * 32, 2000, lifts=True, targets=[STOPPED, SENDER])])
    assert (list(committed.changes), committed.rows) == ([], {})
    assert await rig.rows() == {}
    committed = await store.commit([fact("a" * 32, 1000)])
    (change,) = committed.changes
    assert (change.fact.id, change.row.active, change.row.fact_id) == ("a" * 32, False, "b" * 32)
    (change,) = (await store.commit([fact("c" * 32, 3000, targets=[SENDER])])).changes
    assert change.row.active
    await rig.check()
    # What it said is taken back, and with it all that is known of it.
    await store.commit([fact("b" * 32, 2000, lifts=True, targets=[], revision=1)])
    assert {row.active for row in (await rig.rows()).values()} == {True}
    await rig.check()


async def test_a_commit_waits_for_the_one_before_and_does_not_try_again_and_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await two_tenants(rig)
    await rig.store().commit([fact("a" * 32, 1000)])
    tries: list[object] = []
    take = stores._Transaction._take_counter

    def counted(transaction: stores._Transaction) -> int:
        tries.append(transaction)
        return take(transaction)

    monkeypatch.setattr(stores._Transaction, "_take_counter", counted)
    taken, waits, over = threading.Event(), threading.Event(), threading.Event()
    wait = stores._wait_for_counter

    def waiting(database: mongo.ThreadDatabase) -> None:
        waits.set()
        wait(database)

    monkeypatch.setattr(stores, "_wait_for_counter", waiting)

    def held(database: mongo.ThreadDatabase, session: mongo.Session) -> None:
        take(stores._Transaction(database, session, 0))
        taken.set()
        over.wait(10)

    other = asyncio.create_task(mongo.in_transaction(rig.database, held))
    await asyncio.to_thread(taken.wait, 10)
    commit = asyncio.create_task(rig.store().commit([fact("b" * 32, 2000, lifts=True)]))
    await asyncio.to_thread(waits.wait, 10)
    assert not commit.done()
    over.set()
    await other
    await commit
    assert len(tries) <= 3
    await rig.check()
