"""What is said when a communication is disabled or enabled, by Backhaul or its tenant."""

from __future__ import annotations

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import COMMUNICATIONS_COLLECTION
from backhaul_proto.normalizer.v1 import communications_pb2 as pb
from backhaul_proto.notice.v1.notice_pb2 import Notice
from backhaul_testing import streams
from backhaul_testing.waiting import until
from normalizer_rig import Rig
from register_rig import Register, register_of

SUBSCRIPTION = "sub_5f2c7d1e8a9b0c3d4e5f6a7b"


async def disable(register: Register, *, subscription_id: str = "", communication_id: str = "sale") -> None:
    request = pb.DisableCommunicationRequest(
        tenant_id="acme",
        communication_id=communication_id,
        reason="Three attempts failed.",
        author="backhaul",
        subscription_id=subscription_id,
    )
    await register.stub.DisableCommunication(request)


async def enable(register: Register) -> None:
    request = pb.EnableCommunicationRequest(tenant_id="acme", communication_id="sale")
    await register.stub.EnableCommunication(request)


async def told(rig: Rig, count: int) -> list[Notice]:
    found: list[Notice] = []

    async def enough() -> bool:
        found[:] = await streams.noticed(rig.nats)
        return len(found) >= count

    await until("notices", enough)
    return found


async def test_a_notice_says_that_backhaul_disabled_it_and_for_which_subscription(rig: Rig) -> None:
    async with register_of(rig) as register:
        await register.communication(notify=["ann@example.com", "ben@example.com"])
        await disable(register, subscription_id=SUBSCRIPTION)
        (notice,) = await told(rig, 1)
        assert list(notice.notify) == ["ann@example.com", "ben@example.com"]
        assert (notice.type, notice.tenant_id, notice.registration) == ("communication.disabled", "acme", "acme.1")
        assert (notice.about.communication_id, notice.about.reference) == ("sale", SUBSCRIPTION)
        assert [(one.name, one.value) for one in notice.attributes] == [("reason", "Three attempts failed.")]
        switched = (await register.describe()).communication.switched[-1]
        assert (switched.author, switched.at_us) == ("backhaul", notice.occurred_at_us)


async def test_it_is_said_once_each_time_that_it_becomes_so(rig: Rig) -> None:
    async with register_of(rig) as register:
        await register.communication(notify=["ann@example.com"])
        await disable(register)
        # It is so already.
        await disable(register, subscription_id=SUBSCRIPTION)
        await enable(register)
        await disable(register, subscription_id=SUBSCRIPTION)
        await disable(register, subscription_id=SUBSCRIPTION)
        await enable(register)
        await enable(register)
        await disable(register, subscription_id="sub_of_another")
        notices = await told(rig, 5)
        assert [(notice.type.partition(".")[2], notice.about.reference) for notice in notices] == [
            ("disabled", ""),
            ("enabled", ""),
            ("disabled", SUBSCRIPTION),
            ("enabled", ""),
            ("disabled", "sub_of_another"),
        ]
        assert len({notice.id for notice in notices}) == 5
        # What its tenant does is told to no people of its own.
        assert [list(notice.notify) for notice in notices] == [[], [], ["ann@example.com"], [], ["ann@example.com"]]


async def test_their_times_tell_their_order_whatever_the_clocks_say(rig: Rig) -> None:
    ahead_us = 2_000_000_000_000_000
    async with register_of(rig) as register:
        await register.communication()
        await disable(register)
        # By a copy whose clock is years ahead.
        rows = rig.database[COMMUNICATIONS_COLLECTION]
        await rows.update_one({"communication_id": "sale"}, {"$set": {"switched.0.at_us": ahead_us}})
        await enable(register)
        await disable(register)
        notices = await told(rig, 3)
        assert [notice.occurred_at_us for notice in notices[1:]] == [ahead_us + 1, ahead_us + 2]
        switched = (await register.describe()).communication.switched
        assert [one.at_us for one in switched] == [ahead_us + 2, ahead_us + 1, ahead_us]


async def test_nothing_is_said_of_what_is_not_known(rig: Rig) -> None:
    async with register_of(rig) as register:
        with pytest.raises(BackhaulError) as refused:
            await disable(register, subscription_id=SUBSCRIPTION)
        assert refused.value.code is Code.NOT_FOUND
        await register.communication()
        await disable(register, subscription_id=SUBSCRIPTION)
        assert [notice.about.communication_id for notice in await told(rig, 1)] == ["sale"]
