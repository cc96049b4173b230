"""What is read of rows, facts and changes: pages, filters, and nothing of anybody else's."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import SUPPRESSION_CHANGES_COLLECTION, SUPPRESSIONS_COLLECTION
from backhaul_suppression.model import (
    EVERYTHING,
    Address,
    Change,
    Family,
    Kind,
    Origin,
    Row,
    RowKey,
    Scope,
    ScopeKind,
    Target,
)
from backhaul_suppression.ports import RowsQuery
from backhaul_suppression.reads import MongoReads
from backhaul_testing import make
from store_rig import ANNA, Rig, fact

GROUP = Scope(ScopeKind.GROUP, "17")
ANNAS = Address("acme.1", Family.PHONE, ANNA)


async def filled(rig: Rig) -> MongoReads:
    """Two tenants with the same people, who stop, start and stop again."""
    await rig.register(make.tenant("acme"), make.tenant("globex"))
    store = rig.store()
    for of in ("acme", "globex"):
        facts = [
            fact(
                f"{of[0]}{address:03}{at:028}",
                1000 * at + address,
                lifts=at == 2,
                of=of,
                address=f"+1500555{address:04}",
            )
            for address in range(1, 13)
            for at in (1, 2, 3)[: address % 3 + 1]
        ]
        facts += [
            fact(
                f"{of[0]}m{one:030}",
                one + 1,
                of=of,
                address=f"user{one}@example.com",
                family=Family.EMAIL,
                targets=[Target(Kind.UNSUBSCRIBE, GROUP if one % 2 else EVERYTHING)],
                origin=Origin.IMPORT if one % 3 else Origin.RECIPIENT,
            )
            for one in range(6)
        ]
        await store.commit(facts)
    return MongoReads(rig.database)


async def all_pages(reads: MongoReads, query: RowsQuery, **more: Any) -> list[Row]:
    rows: list[Row] = []
    token = ""
    while True:
        page, token = await reads.rows("acme.1", RowsQuery(**(_fields(query) | {"size": 2, "token": token} | more)))
        rows += page
        if not token:
            return rows


def _fields(query: RowsQuery) -> dict[str, Any]:
    return {name: getattr(query, name) for name in RowsQuery.__dataclass_fields__}


@pytest.mark.parametrize(
    "query",
    [
        RowsQuery(),
        RowsQuery(active=None),
        RowsQuery(active=False),
        RowsQuery(family=Family.EMAIL),
        RowsQuery(kind=Kind.STOP),
        RowsQuery(kind=Kind.LEGAL),
        RowsQuery(origin=Origin.IMPORT),
        RowsQuery(scope=GROUP),
        RowsQuery(scope=EVERYTHING, active=None),
        RowsQuery(span=(1010, 3012)),
    ],
)
async def test_pages_hold_each_row_that_fits_once_the_latest_first(rig: Rig, query: RowsQuery) -> None:
    reads = await filled(rig)
    paged = await all_pages(reads, query)
    everything = [row for row in (await rig.rows()).values() if row.key.address.registration == "acme.1"]
    expected = [row for row in everything if fits(row, query)]
    assert {row.key.id for row in paged} == {row.key.id for row in expected}
    assert len(paged) == len(expected)
    assert all(first.recorded_at_us >= second.recorded_at_us for first, second in pairwise(paged))
    exported = [row async for rows in reads.exported("acme.1", query) for row in rows]
    unbounded = [row for row in everything if fits(row, RowsQuery(**(_fields(query) | {"span": (0, 0)})))]
    assert {row.key.id for row in exported} == {row.key.id for row in unbounded}
    assert len(exported) == len(unbounded)


def fits(row: Row, query: RowsQuery) -> bool:
    return (
        query.family in {None, row.key.address.family}
        and query.kind in {None, row.key.kind}
        and query.origin in {None, row.origin}
        and query.active in {None, row.active}
        and query.scope in {None, row.key.scope}
        and row.recorded_at_us >= query.span[0]
        and (not query.span[1] or row.recorded_at_us < query.span[1])
    )


async def test_an_export_goes_on_behind_the_last_row_of_each_read(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backhaul_suppression.reads.EXPORTED", 1)
    reads = await filled(rig)
    exported = [
        row for rows in [rows async for rows in reads.exported("acme.1", RowsQuery(active=None))] for row in rows
    ]
    assert len(exported) == len({row.key.id for row in exported}) == 18
    addresses = [(row.key.address.family, row.key.address.text) for row in exported]
    assert addresses == sorted(addresses, key=lambda one: (list(Family).index(one[0]), one[1]))


async def test_an_address_has_its_rows_and_its_history_the_latest_first(rig: Rig) -> None:
    await rig.register(make.tenant("acme"), make.tenant("globex"))
    store = rig.store()
    stop = fact("a" * 32, 1000, targets=[Target(Kind.STOP, EVERYTHING), Target(Kind.STOP, GROUP)])
    start = fact("b" * 32, 2000, lifts=True)
    voice = fact("d" * 32, 2000, family=Family.VOICE)
    for one in (stop, start, fact("c" * 32, 3000, of="globex"), voice):
        await store.commit([one])
    reads = MongoReads(rig.database)
    rows = await reads.rows_of(ANNAS)
    assert [(row.key.scope, row.active) for row in rows] == [(EVERYTHING, False), (GROUP, True)]
    assert [await reads.row(row.key) for row in rows] == list(rows)
    assert await reads.row(RowKey(ANNAS, Kind.MANUAL, EVERYTHING)) is None
    first, token = await reads.history_of(ANNAS, 2, "")
    second, end = await reads.history_of(ANNAS, 2, token)
    assert [change.seq for change in (*first, *second)] == [3, 2, 1]
    assert [change.fact for change in (*first, *second)] == [start, stop, stop]
    assert end == ""
    assert await reads.fact("acme.1", stop.id) == stop
    assert await reads.fact("globex.1", stop.id) is None
    for wrong in ("x", "-1", "1" * 30):
        with pytest.raises(BackhaulError) as caught:
            await reads.history_of(ANNAS, 0, wrong)
        assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, "page_token")


async def test_changes_are_read_on_from_a_position(rig: Rig) -> None:
    reads = await filled(rig)
    found: list[Change] = []
    while page := await reads.changes_after("acme.1", found[-1].position if found else 0, 4):
        assert len(page) <= 4
        found += page
    assert [change.position for change in found] == list(range(1, len(found) + 1))
    assert found == [change for change in await rig.changes() if change.fact.address.registration == "acme.1"]
    assert await reads.last_position("acme.1") == len(found)
    assert await reads.last_position("nobody.1") == 0


def stages(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """All stages of a plan."""
    inner: Sequence[dict[str, Any]] = plan.get("inputStages") or [
        plan[name] for name in ("inputStage",) if name in plan
    ]
    return [plan, *(stage for one in inner for stage in stages(one))]


async def test_a_page_looks_at_the_rows_that_it_shows_and_hardly_at_others(rig: Rig) -> None:
    await filled(rig)
    asked: list[Any] = []
    command = {
        "find": SUPPRESSIONS_COLLECTION,
        "filter": {
            "$and": [
                {"registration": "acme.1"},
                {
                    "family": {"$in": [one.value for one in Family]},
                    "kind": {"$in": [one.value for one in Kind]},
                    "active": {"$in": [True, False]},
                },
                {"recorded_at_us": {"$lte": 3000}},
                {"$or": [{"recorded_at_us": {"$lt": 3000}}, {"_id": {"$lt": "f"}}]},
            ]
        },
        "sort": {"recorded_at_us": -1, "_id": -1},
        "limit": 3,
    }
    answer = await rig.database.command({"explain": command, "verbosity": "executionStats"})
    asked = stages(answer["executionStats"]["executionStages"])
    # Merged by the index, and never sorted.
    assert "SORT_MERGE" in {stage["stage"] for stage in asked}
    assert not {"SORT", "COLLSCAN"} & {stage["stage"] for stage in asked}
    assert answer["executionStats"]["totalDocsExamined"] <= 5


async def test_each_read_has_an_index(rig: Rig) -> None:
    await filled(rig)
    person = {"registration": "acme.1", "family": "phone", "address": ANNA}
    for collection, query, sort in (
        (SUPPRESSIONS_COLLECTION, person, {}),
        (SUPPRESSIONS_COLLECTION, {"unsettled": {"$gt": 0}}, {"unsettled": 1}),
        (SUPPRESSIONS_COLLECTION, {"registration": "acme.1", "family": "phone"}, {"address": 1, "_id": 1}),
        (SUPPRESSION_CHANGES_COLLECTION, person, {"_id": -1}),
        (SUPPRESSION_CHANGES_COLLECTION, {"registration": "acme.1", "position": {"$gt": 3}}, {"position": 1}),
    ):
        answer = await rig.database.command(
            {"explain": {"find": collection, "filter": query, "sort": sort}, "verbosity": "executionStats"}
        )
        used = {stage["stage"] for stage in stages(answer["executionStats"]["executionStages"])}
        assert "IXSCAN" in used, query
        assert not used & {"SORT", "COLLSCAN"}, query
