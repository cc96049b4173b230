"""Whoever has as many open dead letters as there may be is told so: once, and also where the process is killed."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from contextlib import AsyncExitStack
from typing import Any

import pytest
from backhaul_common.ids import new_callback_id
from backhaul_common.names import DEAD_LETTERS_COLLECTION, NORMALIZER_OUTBOX, NOTICES_STREAM, QUOTAS_COLLECTION
from backhaul_common.store_format import StoreFormat
from backhaul_common.tenantdata import MongoTenantData
from backhaul_common.tenants import Tenant
from backhaul_normalizer.model import Rejection
from backhaul_normalizer.quota import BoundedDeadLetters
from backhaul_normalizer.store import COUNTED, INDEXES, MongoEventStore
from backhaul_proto.callback.v1.callback_pb2 import Callback
from backhaul_proto.notice.v1.notice_pb2 import Notice
from backhaul_testing import make
from normalizer_rig import Rig, RigFactory

MOST = 10
LEAST_MOST = 100
"""What the setting takes at least."""

KILLED = """
import asyncio, os, signal, sys
from backhaul_common import outbox
from backhaul_normalizer import app
from backhaul_normalizer.settings import NormalizerSettings

async def die(self):
    # There is a row, so the transaction has committed; nothing is published yet.
    if await self._rows.find_one({}) is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return False

outbox.Outbox.publish_some = die
asyncio.run(app.run(NormalizerSettings.model_validate_json(sys.argv[1]), asyncio.Event()))
"""


def rejections(first: int, count: int, *, registration: str = "acme.1") -> list[Rejection]:
    tenant = registration.partition(".")[0]
    trace = Callback(traceparent="00-trace").SerializeToString()
    return [
        Rejection(
            id=f"{registration}-{number}",
            tenant=tenant,
            registration=registration,
            path=f"path-{tenant}",
            channel="twilio",
            provider="twilio",
            reason="bad",
            callback=trace,
            seen_at_us=1_000_000 + number,
            stream_seq=number + 1,
        )
        for number in range(first, first + count)
    ]


async def waiting(rig: Rig) -> list[Notice]:
    return [Notice.FromString(row["payload"]) for row in await rig.rows(NORMALIZER_OUTBOX)]


async def notices(rig: Rig) -> list[Notice]:
    js = rig.nats.jetstream()
    last = (await js.stream_info(NOTICES_STREAM)).state.last_seq
    return [Notice.FromString((await js.get_msg(NOTICES_STREAM, seq)).data or b"") for seq in range(1, last + 1)]


async def until_told(rig: Rig) -> None:
    async with asyncio.timeout(60):
        while not await rig.rows(QUOTAS_COLLECTION) or await rig.rows(NORMALIZER_OUTBOX):
            await asyncio.sleep(0.02)


@pytest.fixture
def bounded(rig_factory: RigFactory) -> Any:
    """Makes a copy of the store that counts anew each time."""
    times = iter(range(0, 1_000_000, 1000))
    return lambda rig: BoundedDeadLetters(
        MongoEventStore(rig.client, rig.database), rig.database, MOST, lambda: float(next(times))
    )


async def test_it_is_said_once_for_each_time_that_it_becomes_so(rig_factory: RigFactory, bounded: Any) -> None:
    async with rig_factory(copies=0) as rig:
        await rig.register(make.tenant("acme"), make.tenant("globex"))
        await MongoEventStore(rig.client, rig.database).prepare()
        store = bounded(rig)
        letters = rig.database[DEAD_LETTERS_COLLECTION]
        await store.commit([], rejections(0, MOST - 1))
        await store.commit([], rejections(0, MOST - 1, registration="globex.1"))
        assert await waiting(rig) == []
        await store.commit([], rejections(MOST - 1, 1))
        (notice,) = await waiting(rig)
        assert (notice.tenant_id, notice.registration, notice.type) == ("acme", "acme.1", "dead_letters.full")
        assert (notice.about.channel, notice.traceparent) == ("twilio", "00-trace")
        assert (notice.occurred_at_us, notice.attributes[0].value) == (1_000_000 + MOST - 1, str(MOST))
        # More of it says nothing new, nor does the last place that is emptied and filled again.
        await store.commit([], rejections(50, 5))
        await letters.update_one({"_id": "acme.1-0"}, {"$set": {"state": "discarded"}})
        await store.commit([], rejections(60, 2))
        assert await waiting(rig) == [notice]
        # Then there is room again, and it is filled again: by one batch.
        await letters.update_many({"registration": "acme.1"}, {"$set": {"state": "discarded"}})
        await store.commit([], rejections(100, MOST))
        first, second = sorted(await waiting(rig), key=lambda one: one.occurred_at_us)
        assert first == notice
        assert second.id != notice.id


async def test_what_is_filed_again_fills_nothing(rig_factory: RigFactory) -> None:
    async with rig_factory(copies=0) as rig:
        await rig.register(make.tenant("acme"))
        store = MongoEventStore(rig.client, rig.database)
        await store.prepare()
        once = BoundedDeadLetters(store, rig.database, MOST, lambda: 0.0)
        for _ in range(5):  # By its own count there are more than it may have.
            await once.commit([], rejections(0, MOST // 2))
        assert await waiting(rig) == []


@pytest.mark.parametrize("seed", range(3))
async def test_of_two_copies_that_fill_it_together_one_says_so(
    rig_factory: RigFactory, bounded: Any, seed: int
) -> None:
    async with rig_factory(copies=0) as rig:
        await rig.register(make.tenant("acme"))
        await MongoEventStore(rig.client, rig.database).prepare()
        copies = [bounded(rig), bounded(rig)]
        await asyncio.gather(*(copy.commit([], rejections(20 * n + seed, MOST)) for n, copy in enumerate(copies)))
        assert len(await waiting(rig)) == 1


async def test_nothing_is_said_to_who_is_gone_and_a_purge_takes_it_along(rig_factory: RigFactory, bounded: Any) -> None:
    async with rig_factory(copies=0) as rig:
        acme: Tenant = make.tenant("acme")
        await rig.register(acme)
        await MongoEventStore(rig.client, rig.database).prepare()
        await bounded(rig).commit([], rejections(0, MOST))
        assert len(await waiting(rig)) == 1
        # A copy of the service that is there publishes nothing of a tenant that is being deleted.
        await rig.register(acme.model_copy(update={"status": "deleting"}))
        await bounded(rig).commit([], rejections(100, MOST))
        assert len(await waiting(rig)) == 1
        async with rig.another():
            async with asyncio.timeout(60):
                while await waiting(rig):
                    await asyncio.sleep(0.02)
            assert await notices(rig) == []
        assert len(await rig.rows(QUOTAS_COLLECTION)) == 1
        data = MongoTenantData(rig.database, StoreFormat(rig.database), collections=INDEXES, counted=COUNTED)
        await data.purge("acme", "acme.1")
        assert await rig.rows(QUOTAS_COLLECTION) == []


async def test_killed_between_commit_and_publish_it_is_said_once_by_the_others(rig_factory: RigFactory) -> None:
    async with rig_factory(copies=0, normalizer_max_dead_letters=LEAST_MOST, normalizer_ack_wait_s=1) as rig:
        acme = make.tenant("acme")
        await rig.register(acme)
        settings = rig.settings.model_dump(mode="json") | {"mongo_uri": rig.settings.mongo_uri.get_secret_value()}
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, json.dumps(settings))
        try:
            for _ in range(2):
                await rig.publish(acme, *(make.callback(acme, f"x={new_callback_id()}") for _ in range(LEAST_MOST)))
            async with asyncio.timeout(30):
                assert await child.wait() == -signal.SIGKILL
        finally:
            if child.returncode is None:
                child.kill()
        (notice,) = await waiting(rig)
        assert await notices(rig) == []
        async with AsyncExitStack() as copies:
            for _ in range(2):
                await copies.enter_async_context(rig.another())
            await rig.drained()
            await until_told(rig)
            consumer = await rig.nats.jetstream().pull_subscribe("notices.*.dead_letters.>", stream=NOTICES_STREAM)
            (message,) = await consumer.fetch(10, timeout=1)
        assert message.subject == f"notices.{acme.queue_path}.dead_letters.full"
        assert Notice.FromString(message.data) == notice
