"""MongoDB goes away between a call and its result: nothing is lost, sent twice, or sent anew meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from backhaul_common import leases, mongo
from backhaul_common.errors import internal, unavailable
from backhaul_notifier.schedules import DISPATCH, RCS, Outcome
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from backhaul_testing.proxy import SilentProxy
from backhaul_testing.waiting import until
from working_rig import Made, Rig, rigged

LEASE_S = 4
"""Enough for a busy machine, and soon over."""


@pytest.fixture
async def rig(mongo_server: Any, mongo_database: str, nats_url: str) -> AsyncIterator[Rig]:
    async with rigged(mongo_server.uri, mongo_database, nats_url) as made:
        yield made


@pytest.fixture
async def proxy(mongo_server: Any) -> AsyncIterator[SilentProxy]:
    async with SilentProxy(mongo_server.port) as made:
        yield made


@pytest.mark.parametrize("ordering", [pb.ORDERING_NONE, pb.ORDERING_MESSAGE])
@pytest.mark.parametrize("over_the_lease", [False, True])
async def test_results_are_kept_while_mongodb_is_away(
    rig: Rig, proxy: SilentProxy, monkeypatch: pytest.MonkeyPatch, ordering: Any, over_the_lease: bool
) -> None:
    monkeypatch.setattr(mongo, "OPERATION_S", 0.5)
    go_on, at_work = asyncio.Event(), asyncio.Event()

    async def answer(made: Made) -> Outcome:
        if made.orders[0] > 100:
            at_work.set()
            await go_on.wait()
        return Outcome(200)

    rig.calls.answer = answer
    await rig.subscribe(ordering=ordering)
    await rig.enqueue(*[b"%d" % (number % 50) for number in range(300)])
    client = mongo.connect(f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true")
    copy = await rig.copy(database=mongo.database(client, rig.database.name), renew_s=0.5)
    await at_work.wait()
    await asyncio.sleep(0.1)
    proxy.go_silent()
    go_on.set()
    results = copy.working._results
    await until("results are kept", _is(lambda: results.stuck))
    made = len(rig.calls.made)
    if over_the_lease:
        (endpoint,) = copy.working._held.values()
        endpoint.held.until = asyncio.get_running_loop().time() - leases.LEASE_S
    await asyncio.sleep(1.0)
    assert len(rig.calls.made) == made < 300
    proxy.speak()
    await rig.until_none_waits(within_s=30.0)
    assert len(rig.calls.made) == len(set(rig.calls.orders())) == 300
    assert await rig.deliveries.count_documents({"state": "delivered", "attempts": 1}) == 300
    await copy.stop()
    await mongo.close(client)


def _is(what: Any) -> Any:
    async def probe() -> bool:
        return bool(what())

    return probe


async def test_a_copy_works_on_when_mongodb_was_away_while_it_was_idle(
    rig: Rig, proxy: SilentProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mongo, "OPERATION_S", 0.5)
    await rig.subscribe()
    client = mongo.connect(f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true")
    copy = await rig.copy(database=mongo.database(client, rig.database.name), renew_s=0.5)
    await rig.enqueue()
    await rig.until_none_waits()
    proxy.go_silent()
    await rig.enqueue(number=3)
    await until("it was away", _is(lambda: copy.working._away.times))
    proxy.speak()
    await rig.until_none_waits(within_s=30.0)
    assert len(rig.calls.made) == 4
    await copy.stop()
    await mongo.close(client)


async def test_how_it_stands_is_written_though_mongodb_was_away_when_it_was_to_be(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.calls.answer = lambda _: Outcome(500)
    await rig.subscribe(policy=RCS)
    copy = await rig.copy(renew_s=0.1)
    endpoints, times = copy.working._endpoints, 0
    note = endpoints.note

    async def away_at_first(standings: Any) -> None:
        nonlocal times
        times += bool(standings)
        if times == 1:
            raise unavailable("MongoDB")
        await note(standings)

    monkeypatch.setattr(endpoints, "note", away_at_first)
    await rig.enqueue()

    async def written() -> bool:
        row = await rig.endpoints.find_one({"_id": "sub_1", "failing_since_us": {"$exists": True}})
        return row is not None

    # While it is held, and no further attempt is made.
    await until("it is written down", written)
    assert (times, len(rig.calls.made), copy.working.held) == (2, 1, 1)


async def test_a_call_that_takes_longer_than_a_lease_is_made_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LEASE_S": LEASE_S, "_LEASE_MS": LEASE_S * 1000}.items():
        monkeypatch.setattr(leases, name, value)
    until_ = {"$add": ["$$NOW", LEASE_S * 1000]}
    monkeypatch.setattr(leases, "_UNTIL", until_)
    monkeypatch.setattr(leases, "_RENEWED", [{"$set": {"until": until_}}])

    async def slowly(_: Made) -> Outcome:
        await asyncio.sleep(LEASE_S * 1.5)
        return Outcome(200)

    rig.calls.answer = slowly
    await rig.subscribe()
    (id_,) = await rig.enqueue()
    for name in ("one", "two"):
        await rig.copy(name, renew_s=0.2)
    await rig.until_row(id_, state="delivered", attempts=1)
    assert len(rig.calls.made) == 1


async def test_an_attempt_whose_consequence_is_refused_is_not_made_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the normalizer has an error of its own, or does not know who asks: the endpoint has nothing to do with
    that, and is not called for ever."""
    disable, refused = rig.communications.disable, 0

    async def refuse(*asked: Any) -> None:
        nonlocal refused
        if (refused := refused + 1) < 4:
            raise internal()
        await disable(*asked)

    monkeypatch.setattr(rig.communications, "disable", refuse)
    rig.calls.answer = lambda _: Outcome(500)
    await rig.subscribe(policy=DISPATCH)
    (id_,) = await rig.enqueue(communication_id="sale")
    await rig.copy()
    for number in range(1, DISPATCH.attempts):
        await rig.until_row(id_, attempts=number)
        rig.move(301)
    await rig.until_row(id_, state="failed", attempts=DISPATCH.attempts)
    assert (refused, len(rig.calls.made)) == (4, DISPATCH.attempts)
    assert rig.communications.disabled == [id_]
