"""Copies that answer from memory, on real servers: none answers what is stale, and no writer waits for long."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from backhaul_common import mongo
from backhaul_common.errors import BackhaulError
from backhaul_common.metering import Metrics
from backhaul_common.names import (
    SUPPRESSION_CHANGES_COLLECTION,
    SUPPRESSION_COPIES_COLLECTION,
    SUPPRESSION_COUNTERS_COLLECTION,
    SUPPRESSIONS_COLLECTION,
)
from backhaul_local.mongod import MongoConfig, MongoServer
from backhaul_local.nats_server import NatsServer
from backhaul_suppression.barrier import BAR_S
from backhaul_suppression.copies import STEP_S
from backhaul_suppression.following import SLICE
from backhaul_suppression.lease import LEASE_S, PATIENCE_S
from backhaul_suppression.memory import Memory
from backhaul_suppression.model import Sending
from backhaul_testing import broker
from backhaul_testing.waiting import until
from nats.aio.client import Client

# Test folders are no packages: what several test files of this one share is found by its name.
sys.path.insert(0, str(Path(__file__).parent))

from memory_rig import ALLOWED, SUPPRESSED, UNAVAILABLE, OtherCopy, commit, copy, number, other_copy, shown

ANN, BOB, EVE = number(1), number(2), number(3)


@pytest.fixture
async def database(mongo_server: Any, mongo_database: str) -> AsyncIterator[mongo.Database]:
    client = mongo.connect(mongo_server.uri)
    yield mongo.database(client, mongo_database)
    client.close()


@pytest.fixture
async def nats(fresh_nats: NatsServer) -> AsyncIterator[Client]:
    connection = await broker.connect(fresh_nats.uri)
    yield connection
    await connection.close()


async def answers(memory: Memory) -> None:
    async def may() -> bool:
        return memory.lease.held

    await until("it may answer", may)


async def replies(other: OtherCopy) -> None:
    async def may() -> bool:
        return await other.ask(EVE) != UNAVAILABLE

    await until("it may answer", may)


def says(memory: Memory) -> list[bool]:
    return [bool(memory.index.blocking(address, Sending())) for address in (ANN, BOB)]


async def test_what_passed_is_told_by_every_copy(database: mongo.Database, nats: Client) -> None:
    await commit(database, [ANN])
    metrics = Metrics("suppression")
    async with copy(database, nats, metrics) as one, copy(database, nats) as two:
        await answers(one)
        await answers(two)
        assert says(one) == says(two) == [True, False]
        assert shown(metrics, "backhaul_suppression_lease_held") == 1
        for active in (True, False) * 5:
            await one.barrier.passed(await commit(database, [BOB], active=active))
            assert says(one) == says(two) == [True, active]
        assert shown(metrics, "backhaul_suppression_addresses") == 1
        # But for the one that was loaded.
        assert shown(metrics, "backhaul_suppression_changes_applied_total") == 10
        assert await database[SUPPRESSION_COPIES_COLLECTION].count_documents({"applied": {"$gt": 0}}) == 2
    assert await database[SUPPRESSION_COPIES_COLLECTION].count_documents({"applied": {"$gt": 0}}) == 0
    with pytest.raises(BackhaulError):
        says(one)
    assert shown(metrics, "backhaul_suppression_lease_held") == 0
    metrics.close()


@pytest.mark.timed
@pytest.mark.slow
async def test_one_that_is_stopped_holds_a_writer_up_once_and_answers_nothing_when_it_goes_on(
    mongo_server: Any, database: mongo.Database, nats: Client, fresh_nats: NatsServer
) -> None:
    async with copy(database, nats) as here, other_copy(mongo_server.uri, database.name, fresh_nats.uri) as there:
        await answers(here)
        await replies(there)
        assert await there.ask(ANN) == ALLOWED
        os.kill(there.process.pid, signal.SIGSTOP)
        began = time.monotonic()
        await here.barrier.passed(await commit(database, [ANN]))
        assert LEASE_S / 2 < time.monotonic() - began < PATIENCE_S + 1
        began = time.monotonic()
        await here.barrier.passed(await commit(database, [BOB]))
        assert time.monotonic() - began < LEASE_S / 2
        # It finds the question, and that its lease has run out, before it finds anything else.
        asking = asyncio.create_task(there.ask(ANN))
        os.kill(there.process.pid, signal.SIGCONT)
        assert await asking in (UNAVAILABLE, SUPPRESSED)
        await replies(there)
        assert await there.ask(ANN) == await there.ask(BOB) == SUPPRESSED


@pytest.mark.timed
@pytest.mark.slow
async def test_one_that_was_killed_holds_a_writer_up_once(
    mongo_server: Any, database: mongo.Database, nats: Client, fresh_nats: NatsServer
) -> None:
    async with copy(database, nats) as here, other_copy(mongo_server.uri, database.name, fresh_nats.uri) as there:
        await answers(here)
        await replies(there)
        there.process.kill()
        began = time.monotonic()
        seqs = [await commit(database, [number(n)]) for n in range(5)]
        await asyncio.gather(*map(here.barrier.passed, seqs))
        assert LEASE_S / 2 < time.monotonic() - began < PATIENCE_S + 1
        began = time.monotonic()
        await here.barrier.passed(await commit(database, [ANN]))
        assert time.monotonic() - began < LEASE_S / 2


async def test_without_nats_all_goes_on(database: mongo.Database, nats: Client, fresh_nats: NatsServer) -> None:
    async with copy(database, nats) as one, copy(database, nats) as two:
        await answers(one)
        await answers(two)
        await asyncio.to_thread(fresh_nats.kill_blocking)
        for active in (True, False):
            async with asyncio.timeout(LEASE_S / 2):
                await one.barrier.passed(await commit(database, [ANN], active=active))
            assert says(one) == says(two) == [active, False]


@pytest.mark.timed
@pytest.mark.slow
async def test_without_mongodb_leases_run_out_and_nobody_waits_for_ever(tmp_path: Path, nats: Client) -> None:
    server = MongoServer(MongoConfig(data_dir=tmp_path))
    await server.start()
    client = mongo.connect(server.uri, timeout_ms=1000)
    try:
        database = mongo.database(client, "suppression")
        metrics = Metrics("suppression")
        async with copy(database, nats, metrics) as one:
            await answers(one)
            seq = await commit(database, [ANN])
            await one.barrier.passed(seq)
            assert says(one) == [True, False]
            await server.kill()
            began = time.monotonic()
            with pytest.raises(BackhaulError):
                await one.barrier.passed(seq + 1)
            assert time.monotonic() - began < BAR_S + STEP_S + 1
            # More than a lease has gone by.
            with pytest.raises(BackhaulError):
                says(one)
            await server.start()
            await answers(one)
            await one.barrier.passed(await commit(database, [BOB]))
            assert says(one) == [True, True]
            assert shown(metrics, "backhaul_suppression_lease_lapses_total") >= 1
        metrics.close()
    finally:
        client.close()
        if server.running:
            await server.kill()


@pytest.mark.timed
async def test_a_copy_that_does_not_come_on_makes_no_writer_wait(database: mongo.Database, nats: Client) -> None:
    # What is not known how to read is not passed over.
    await commit(database, [ANN])
    await database[SUPPRESSIONS_COLLECTION].update_many({}, {"$set": {"kind": "of a later version"}})
    async with copy(database, nats) as stuck:

        async def looked() -> bool:
            return stuck.follower.applied == -1 and not stuck.lease.held

        await until("it does not answer", looked)
        seq = await commit(database, [BOB])
        began = time.monotonic()
        await stuck.barrier.passed(seq)
        assert time.monotonic() - began < PATIENCE_S
        assert await database[SUPPRESSION_COPIES_COLLECTION].count_documents({"applied": {"$exists": True}}) == 0


async def test_changes_that_went_with_their_tenant_are_waited_for_by_nobody(
    database: mongo.Database, nats: Client
) -> None:
    async with copy(database, nats) as one:
        await answers(one)
        await one.barrier.passed(await commit(database, [ANN]))
        async with await database.client.start_session() as session, session.start_transaction():
            # Nobody sees the change, but that it is counted.
            await database[SUPPRESSION_COUNTERS_COLLECTION].update_one({}, {"$inc": {"seq": 3}}, session=session)
        async with asyncio.timeout(LEASE_S / 2):
            await one.barrier.passed(4)
        assert one.follower.applied == 4


async def test_listeners_hear_of_each_registration_before_anything_is_answered(
    database: mongo.Database, nats: Client
) -> None:
    loaded, other = ANN._replace(registration="loaded.1"), ANN._replace(registration="other.1")
    await commit(database, [loaded])
    heard: list[str] = []
    held: list[bool] = []
    async with copy(database, nats) as one:

        def listener(registration: str) -> None:
            heard.append(registration)
            held.append(one.lease.held)

        end = one.follower.listen(listener)
        await answers(one)
        assert (heard, held) == ([loaded.registration], [False])
        await one.barrier.passed(await commit(database, [ANN, other, BOB]))
        assert sorted(heard[1:]) == sorted([ANN.registration, other.registration])
        end()
        await one.barrier.passed(await commit(database, [EVE]))
        assert len(heard) == 3


async def test_when_mongodb_is_set_back_all_is_loaded_anew(database: mongo.Database, nats: Client) -> None:
    async with copy(database, nats) as one:
        await answers(one)
        await one.barrier.passed(await commit(database, [ANN]))
        await one.barrier.passed(await commit(database, [BOB]))
        assert says(one) == [True, True]
        meanwhile: list[str] = []

        def refused(_: str) -> None:
            with pytest.raises(BackhaulError) as caught:
                one.index.fresh()
            meanwhile.append(caught.value.message)

        one.follower.listen(refused)
        await database[SUPPRESSIONS_COLLECTION].delete_one({"address": BOB.text})
        await database[SUPPRESSION_COUNTERS_COLLECTION].update_one({}, {"$set": {"seq": 1}})
        await database[SUPPRESSION_CHANGES_COLLECTION].delete_one({"_id": 2})

        async def anew() -> bool:
            return one.lease.held and one.follower.applied == 1

        await until("it may answer again", anew)
        assert ["loading" in message for message in meanwhile] == [True]
        assert says(one) == [True, False]
        await one.barrier.passed(await commit(database, [BOB]))
        assert says(one) == [True, True]


async def test_a_burst_is_applied_while_others_have_their_turn(database: mongo.Database, nats: Client) -> None:
    async with copy(database, nats) as one:
        await answers(one)
        seq = await commit(database, [number(n) for n in range(10_000)])
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        other = asyncio.create_task(others())
        await one.barrier.passed(seq)
        other.cancel()
        assert one.index.addresses == 10_000
        assert turns > 10_000 / SLICE
