"""What somebody costs who says a great deal, and what is left of those who are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import SUPPRESSION_COUNTERS_COLLECTION, TENANTS_COLLECTION
from backhaul_common.store_format import StoreFormat
from backhaul_common.tenantdata import MongoTenantData
from backhaul_suppression import store as stores
from backhaul_suppression.lane import Lane
from backhaul_suppression.model import EVERYTHING, Fact, Kind, Scope, ScopeKind, Target
from backhaul_suppression.store import COUNTED, INDEXES, MongoSuppressions, _Transaction
from backhaul_testing import make
from store_rig import ANNA, AtOnce, Rig, fact, row_id

STOPPED = Target(Kind.STOP, EVERYTHING)


def said(number: int, *, first: int = 0) -> list[Fact]:
    """STOP and START, in turns."""
    return [fact(f"{one:032x}", 10 * one + 10, lifts=bool(one % 2)) for one in range(first, first + number)]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many documents each query of a transaction found."""
    numbers: list[int] = []
    for name in ("_find", "_edge"):
        found = getattr(_Transaction, name)

        def counted(transaction: _Transaction, *args: Any, found: Any = found) -> Any:
            documents = found(transaction, *args)
            numbers.append(len(documents))
            return documents

        monkeypatch.setattr(_Transaction, name, counted)
    return numbers


@pytest.mark.slow
async def test_a_person_who_says_a_great_deal_costs_no_more_than_others(rig: Rig, read: list[int]) -> None:
    await rig.register(make.tenant("acme"))
    lane = Lane(rig.store(), AtOnce())
    # More than twice as many as are ever read at once.
    facts = said(10_000)
    assert len(facts) > 2 * stores.MAX_TOGETHER
    # The last is a STOP.
    facts.append(fact("f" * 32, 2_000_000))
    assert len((await lane.commit(facts)).changes) == len(facts)
    for late, active, since_us in (
        # Between two that were heard of: it moves nothing, or the last STOP.
        (fact("a" * 32, 55_555, lifts=True), True, 2_000_000),
        (fact("b" * 32, 55_556), True, 2_000_000),
        # Behind the last START.
        (fact("c" * 32, 1_500_000), True, 1_500_000),
        (fact("d" * 32, 1_600_000, lifts=True), True, 2_000_000),
        # Revisions, of the last START and of what counts now.
        (replace(facts[-2], revision=1, lifts=False), True, 2_000_000),
        (replace(facts[-1], revision=1, targets=()), False, 1_600_000),
        (fact("e" * 32, 1_700_000), True, 1_700_000),
    ):
        read.clear()
        await lane.commit([late])
        assert sum(read) <= 8
        (row,) = (await rig.rows()).values()
        assert (row.active, row.since_us) == (active, since_us), late
    await rig.check()


async def test_many_rows_about_which_much_was_said_are_committed_by_halves(
    rig: Rig, read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "MAX_ROWS_APART", 2)
    monkeypatch.setattr(stores, "MAX_TOGETHER", 10)
    monkeypatch.setattr(stores, "MAX_ROWS_ASKING", 4)
    await rig.register(make.tenant("acme"))
    scopes = [Target(Kind.STOP, Scope(ScopeKind.SENDER, f"+1500555{one:04}")) for one in range(12)]
    facts = [replace(one, targets=(scopes[number % 12],)) for number, one in enumerate(said(60))]
    store = rig.store()
    await store.commit(facts)
    read.clear()
    committed = await store.commit([replace(one, revision=1, lifts=not one.lifts) for one in facts])
    # Each half has rows of its own, and none reads all facts of many.
    assert max(read) <= 60
    assert len(committed.kept) == 60
    await rig.check()


async def test_a_command_whose_answer_was_lost_is_waited_for_when_it_comes_again(rig: Rig) -> None:
    await rig.register(make.tenant("acme"))

    class Away(AtOnce):
        async def passed(self, seq: int) -> None:
            await super().passed(seq)
            raise BackhaulError(Code.UNAVAILABLE, "a copy does not answer")

    stop = fact("a" * 32, 1000)
    with pytest.raises(BackhaulError):
        await Lane(rig.store(), Away()).record([stop])
    # The process is gone; another one is asked the same, after others have changed what they like.
    await rig.store().commit([fact("b" * 32, 1000, address="+15005550002")])
    barrier = AtOnce()
    again = await Lane(rig.store(), barrier).record([stop])
    assert (list(again.changes), again.existing) == ([], {stop.id: stop})
    assert again.rows[row_id()].active
    assert barrier.asked == [2]
    await rig.check()


async def test_a_commit_that_is_cancelled_is_all_there_or_not_at_all(rig: Rig) -> None:
    await rig.register(make.tenant("acme"))
    store = rig.store()
    for number in range(12):
        commit = asyncio.create_task(store.commit(said(50, first=50 * number)))
        await asyncio.sleep(0.002 * number)
        commit.cancel()
        await asyncio.gather(commit, return_exceptions=True)
        await rig.check_if_any()
        assert len(await rig.facts()) % 50 == 0


async def test_nothing_of_a_tenant_is_left_that_is_deleted_in_the_middle(rig: Rig) -> None:
    await rig.register(make.tenant("acme"), make.tenant("globex"))
    store = rig.store()
    deleted = asyncio.Event()
    kept: list[bool] = []

    async def commit(copy: MongoSuppressions, first: int) -> None:
        for number in range(first, first + 400, 2):
            ours, theirs = said(2, first=number), said(2, first=number)
            committed = await copy.commit([*ours, *(_of_globex(theirs))])
            kept.append(ours[0].id in committed.kept)
            if len(kept) == 30:
                deleted.set()

    commits = [asyncio.create_task(commit(copy, 1000 * number)) for number, copy in enumerate((store, rig.store()))]
    await asyncio.wait_for(deleted.wait(), 30)
    await rig.database[TENANTS_COLLECTION].update_one({"_id": "acme"}, {"$set": {"status": "deleting"}})
    # What was under way when it was marked is over; nothing that begins later stores anything.
    before = len(kept)
    while len(kept) < before + 4:
        await asyncio.sleep(0.01)
    data = MongoTenantData(rig.database, StoreFormat(rig.database), collections=INDEXES, counted=COUNTED)
    assert await data.purge("acme", "acme.1") > 0
    await asyncio.gather(*commits)
    assert True in kept
    assert not kept[-1]
    for collection in INDEXES:
        assert await rig.documents(collection, registration="acme.1") == [], collection
    assert len(await rig.documents(SUPPRESSION_COUNTERS_COLLECTION)) == 2
    usage = await data.usage("globex.1")
    assert usage["suppression_facts"] == 800
    assert usage["suppressions"] == 1
    positions = [change.position for change in await rig.changes()]
    assert positions == list(range(1, len(positions) + 1))


def _of_globex(facts: Sequence[Fact]) -> list[Fact]:
    return [
        replace(
            one,
            id="e" + one.id[1:],
            tenant_id="globex",
            address=one.address._replace(registration="globex.1", text=ANNA),
        )
        for one in facts
    ]
