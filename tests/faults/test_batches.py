"""Two copies of the normalizer that add members and fold callbacks are killed and stopped, and MongoDB steps down.

Every batch is complete once, its counts are true, and no tenant has anything of another.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from backhaul_proto.normalizer.v1 import communications_pb2 as pb
from backhaul_proto.notice.v1.notice_pb2 import Notice
from backhaul_testing import broker, streams
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until
from faults.account import drained
from faults.campaign import Campaign, complete, listed, told_once
from faults.registrar import registrar
from pymongo import AsyncMongoClient
from simulators.people import Tenant, Town

if TYPE_CHECKING:
    from backhaul_local.stack import Stack

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]

COPIES = ("normalizer", "second")
OFF_S = 1
"""How long MongoDB has no primary that steps down."""


async def _notices(stack: Stack) -> list[Notice]:
    connection = await broker.connect(stack.nats_url)
    try:
        return await streams.noticed(connection)
    finally:
        await connection.close()


async def _outlasts(stack: Stack, name: str) -> None:
    """Stop a copy for so long that what it has in hand is given to the other one, and done by that."""
    connection = await broker.connect(stack.nats_url)
    try:
        js = connection.jetstream()
        stack.member(name).pause()
        info = await js.consumer_info("CALLBACKS", "normalizer")
        assert info.delivered is not None
        given = info.delivered.stream_seq

        async def taken_over() -> bool:
            floor = (await js.consumer_info("CALLBACKS", "normalizer")).ack_floor
            return floor is not None and floor.stream_seq >= given

        await until(f"the other copy to do what {name} had in hand", taken_over, within_s=40)
    finally:
        stack.member(name).resume()
        await connection.close()


async def _steps_down(stack: Stack) -> None:
    """Whoever is the primary is none, and then again."""
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(stack.mongo_uri)
    async with client:
        await client.admin.command("replSetStepDown", OFF_S, force=True, secondaryCatchUpPeriodSecs=0)


async def test_copies_that_are_killed_and_stopped_complete_every_batch_once(breakable_folding: Stack) -> None:
    stack = breakable_folding
    async with Town(stack.gateway_url, stack.admin_token) as town, registrar(stack, *COPIES) as both:
        tenants = [await town.platform.register() for _ in range(2)]
        async with Campaign(both, tenants) as campaign:
            for name in COPIES:
                await campaign.more(100)
                await stack.kill(name)
                await campaign.more(100)
                await stack.member(name).start()
            await campaign.more(100)
            await _outlasts(stack, COPIES[0])
            await campaign.more(100)
            await _steps_down(stack)
            await campaign.finished()
        assert both.repeated, "no call met a fault"
        await drained(stack)
        await campaign.completed()
        assert await campaign.check(await _notices(stack)) == 16
        for tenant in tenants:
            assert await tenant.dead_letters() == []


async def test_what_fell_due_while_no_copy_ran_is_made_good_by_the_first_that_starts(breakable_folding: Stack) -> None:
    stack = breakable_folding
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(stack.mongo_uri)
    async with client, Town(stack.gateway_url, stack.admin_token) as town, registrar(stack, *COPIES) as both:
        tenant = await town.platform.register()
        await both.communication(tenant, "sale", channel="Twilio")
        sids = {f"m{number}": new_sid() for number in range(3)}
        for batch_id in ("due", "closed"):
            await both.batch(tenant, "sale", batch_id)
            await both.add(tenant, batch_id, [{"member_key": key} for key in sids])
        for name in COPIES:
            await stack.kill(name)
        # The one that took the call to close it died before it looked whether that completes it.
        batches = client[stack.mongo_database]["batches"]
        closed = {"status": "closed", "closed_at_us": time.time_ns() // 1000}
        await batches.update_one({"registration": tenant.registration, "batch_id": "closed"}, {"$set": closed})
        # Time passes as it does for no test.
        past = {"deadline_at_us": time.time_ns() // 1000 - 1, "due_at_us": time.time_ns() // 1000 - 1}
        await batches.update_one({"registration": tenant.registration, "batch_id": "due"}, {"$set": past})
        for batch_id, keys in (("due", ["m0"]), ("closed", list(sids))):
            for key in keys:
                await _sent(tenant, batch_id, key, sids[key] + batch_id)

        await stack.member(COPIES[1]).start()
        due, done = [await complete(both, tenant, batch_id) for batch_id in ("due", "closed")]
        assert (due.completed_by, done.completed_by) == (pb.COMPLETED_BY_DEADLINE, pb.COMPLETED_BY_CONDITION)
        assert done.at_completion.processed == 3
        await drained(stack)
        assert await listed(both, tenant, "due") == {("m0", "twilio"): (sids["m0"] + "due", "sent")}
        notices = await _notices(stack)
        for batch in (due, done):
            told_once(batch, [one for one in notices if one.tenant_id == tenant.id])
        await stack.member(COPIES[0]).start()


async def _sent(tenant: Tenant, batch_id: str, key: str, sid: str) -> None:
    address = tenant.address("Twilio", communicationId="sale", batchId=batch_id, memberId=key)
    await tenant.receive(tenant.twilio.status(address, sid, "sent"))
