"""Who watches hears of every change once and in order, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.tenants import Tenant
from backhaul_suppression import watching
from backhaul_suppression.model import EVERYTHING, Family, Kind, Target
from backhaul_suppression.ports import ChangesListener
from backhaul_suppression.reads import MongoReads
from backhaul_suppression.tenancy import KnownTenants
from backhaul_suppression.watching import MAX_WATCHES_OF_TENANT, Moved, Wanted, Watching
from backhaul_testing import make
from store_rig import Rig, fact

ACME, OTHER = make.tenant("acme"), make.tenant("other")
ALL = Wanted()


class Heard:
    """A ``Changes`` that says what a test says."""

    def __init__(self) -> None:
        self.listeners: list[ChangesListener] = []

    def listen(self, listener: ChangesListener) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def say(self, registration: str) -> None:
        for listener in self.listeners:
            listener(registration)


class Known:
    """``Tenants`` as a copy knows them."""

    def __init__(self) -> None:
        self.tenants = {one.id: one for one in (ACME, OTHER)}

    def get(self, tenant_id: str) -> Tenant | None:
        return self.tenants.get(tenant_id)

    async def require(self, tenant_id: str) -> Tenant:
        if tenant_id not in self.tenants:
            raise BackhaulError(Code.NOT_FOUND, "There is no such tenant.")
        return self.tenants[tenant_id]

    async def reload(self, tenant_id: str) -> Tenant | None:
        return self.get(tenant_id)


class Desk:
    """Somebody who writes, and somebody who watches."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.heard = Heard()
        self.known = Known()
        self.reads = MongoReads(rig.database)
        self.watching = Watching(self.reads, KnownTenants(self.known, self.heard), self.heard)
        self._store = rig.store()
        self._written = 0

    async def write(self, count: int, *, of: str = "acme", aloud: bool = True, **more: Any) -> None:
        """``count`` changes of so many rows."""
        facts = []
        for _ in range(count):
            self._written += 1
            number = self._written
            facts.append(fact(f"{number:032x}", number, of=of, address=f"+1415{number:07}", **more))
        committed = await self._store.commit(facts)
        assert len(committed.changes) == count
        if aloud:
            self.heard.say(f"{of}.1")

    def watch(self, after: int | None = 0, wanted: Wanted = ALL, tenant: Tenant = ACME) -> AsyncGenerator[Moved, None]:
        return self.watching.run(tenant, after, wanted)


@pytest.fixture
async def desk(rig: Rig) -> Desk:
    await rig.register(ACME, OTHER)
    return Desk(rig)


async def some(moves: AsyncGenerator[Moved, None], count: int) -> list[Moved]:
    async with asyncio.timeout(60):
        return [await anext(moves) for _ in range(count)]


def positions(moves: list[Moved]) -> list[int]:
    assert all(moved.change is None or moved.change.position == moved.position for moved in moves)
    return [moved.position for moved in moves]


async def test_changes_come_from_the_first_on_and_then_as_they_happen(desk: Desk) -> None:
    await desk.write(450)
    async with aclosing(desk.watch(0)) as moves:
        assert positions(await some(moves, 450)) == list(range(1, 451))
        waiting = asyncio.ensure_future(anext(moves))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done()
        await desk.write(3)
        assert positions([await waiting, *await some(moves, 2)]) == [451, 452, 453]


async def test_who_names_no_position_is_told_where_it_begins(desk: Desk) -> None:
    await desk.write(5)
    async with aclosing(desk.watch(None)) as moves:
        assert await some(moves, 1) == [Moved(5)]
        await desk.write(1)
        assert positions(await some(moves, 1)) == [6]


async def test_where_nothing_is_behind_a_position_that_is_told_at_once(desk: Desk) -> None:
    await desk.write(5)
    async with aclosing(desk.watch(5)) as moves:
        assert await some(moves, 1) == [Moved(5)]
        await desk.write(1)
        assert positions(await some(moves, 1)) == [6]
    async with aclosing(desk.watch(4, Wanted(Family.VOICE))) as moves:
        assert await some(moves, 1) == [Moved(6)]


async def test_who_watches_again_misses_and_doubles_nothing(desk: Desk) -> None:
    told: list[int] = []
    for _ in range(6):
        async with aclosing(desk.watch(told[-1] if told else 0)) as moves:
            await desk.write(7)
            told += positions(await some(moves, 4))
    async with aclosing(desk.watch(told[-1])) as moves:
        told += positions(await some(moves, 6 * 7 - len(told)))
    assert told == list(range(1, 43))


async def test_changes_that_nobody_told_of_come_a_little_later(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOK_S", 0.05)
    async with aclosing(desk.watch(None)) as moves:
        await some(moves, 1)
        waiting = asyncio.ensure_future(anext(moves))
        await asyncio.sleep(0)
        await desk.write(1, aloud=False)
        async with asyncio.timeout(60):
            assert (await waiting).position == 1


async def test_a_filter_leaves_out_the_rest_and_the_position_moves_on(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "LOOK_S", 0.05)
    monkeypatch.setattr(watching, "MAX_UNTOLD", 250)
    await desk.write(300)
    await desk.write(2, family=Family.VOICE)
    await desk.write(2, targets=[Target(Kind.MANUAL, EVERYTHING)])
    await desk.write(3)
    async with aclosing(desk.watch(0, Wanted(Family.PHONE, frozenset({Kind.MANUAL, Kind.LEGAL})))) as moves:
        told = await some(moves, 3)
        assert [(moved.position, moved.change is None) for moved in told] == [(303, False), (304, False), (307, True)]
    async with aclosing(desk.watch(0, Wanted(Family.EMAIL))) as moves:
        # Not only at the end: who is cut off before begins there.
        assert await some(moves, 1) == [Moved(307)]
        assert desk.watching is not None
    await desk.write(200)
    async with aclosing(desk.watch(0, Wanted(Family.EMAIL))) as moves:
        assert await some(moves, 2) == [Moved(400), Moved(507)]


async def test_tenants_hear_of_their_own_alone(desk: Desk) -> None:
    await desk.write(3)
    await desk.write(2, of="other")
    async with aclosing(desk.watch(0, tenant=OTHER)) as moves:
        told = await some(moves, 2)
        assert positions(told) == [1, 2]
        assert {moved.change.row.key.address.registration for moved in told if moved.change} == {"other.1"}
        waiting = asyncio.ensure_future(anext(moves))
        await desk.write(1)
        await desk.write(1, of="other")
        assert (await waiting).position == 3


@pytest.mark.parametrize("after", [-1, 3, 1 << 40])
async def test_a_position_that_nobody_was_told_is_refused(desk: Desk, after: int) -> None:
    await desk.write(2)
    with pytest.raises(BackhaulError) as raised:
        await some(desk.watch(after), 1)
    assert (raised.value.code, raised.value.field) == (Code.INVALID_ARGUMENT, "after_position")


@pytest.mark.parametrize("how", ["deleted", "deleting", "anew"])
async def test_a_watch_ends_with_its_tenant(desk: Desk, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(watching, "LOOK_S", 0.05)
    async with aclosing(desk.watch(None)) as moves:
        await some(moves, 1)
        waiting = asyncio.ensure_future(anext(moves))
        await asyncio.sleep(0)
        if how == "deleted":
            del desk.known.tenants["acme"]
        elif how == "deleting":
            desk.known.tenants["acme"] = ACME.model_copy(update={"status": "deleting"})
        else:
            desk.known.tenants["acme"] = ACME.model_copy(update={"registration": "acme.2"})
        with pytest.raises(BackhaulError) as raised:
            async with asyncio.timeout(60):
                await waiting
    assert raised.value.code is Code.NOT_FOUND


async def test_a_tenant_has_so_many_watches_and_a_place_is_free_when_one_ends(desk: Desk) -> None:
    begun = [desk.watch(None) for _ in range(MAX_WATCHES_OF_TENANT)]
    for moves in begun:
        await some(moves, 1)
    with pytest.raises(BackhaulError) as raised:
        await some(desk.watch(None), 1)
    assert raised.value.code is Code.RATE_LIMITED
    async with aclosing(desk.watch(None, tenant=OTHER)) as others:
        await some(others, 1)
    await begun.pop().aclose()
    begun.append(desk.watch(None))
    await some(begun[-1], 1)
    for moves in begun:
        await moves.aclose()


async def test_a_slow_watcher_is_read_for_no_further_than_a_page(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    read = desk.reads.changes_after

    async def counted(registration: str, position: int, limit: int) -> Any:
        asked.append(position)
        return await read(registration, position, limit)

    monkeypatch.setattr(desk.reads, "changes_after", counted)
    async with aclosing(desk.watch(0)) as moves:
        await desk.write(600)
        await some(moves, 1)
        for _ in range(10):
            await desk.write(20)
        assert asked == [0]
        assert positions(await some(moves, 799)) == list(range(2, 801))
