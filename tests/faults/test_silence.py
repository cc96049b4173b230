"""A normalizer's connection to MongoDB goes silent at one step of a batch, which ends in seconds all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from backhaul_local.mongod import MongoServer
from backhaul_local.service import default_services, service_spec
from backhaul_proto.event.v1.event_pb2 import EVENT_KIND_SENT
from backhaul_testing.stored import stored_events
from backhaul_testing.twilio import new_sid
from faults.account import drained, published_events
from faults.holding import HoldingProxy
from pymongo import AsyncMongoClient
from simulators.people import Town

pytestmark = pytest.mark.faults

SLEEPER = "sleeper"
ENDS_WITHIN_S = 20.0
"""The longest bound of one operation, the pause after it, and some room for a busy machine."""


def asks_for_owners(message: bytes) -> bool:
    """What is asked between the commit and the publish: whose queue paths these are now. The fence asks by id."""
    return (
        b"find\0\x08\0\0\0tenants\0" in message and b"startTransaction" not in message and b"queue_path_key" in message
    )


def counts_dead_letters(message: bytes) -> bool:
    """What is asked before dead letters are filed."""
    return b"aggregate\0\x0d\0\0\0dead_letters\0" in message


@pytest.mark.parametrize(
    "step", [asks_for_owners, counts_dead_letters], ids=["before it publishes", "before it files dead letters"]
)
async def test_a_batch_that_waits_for_a_silent_connection_is_done_in_seconds(
    own_stack: Callable[..., Any], mongo_server: MongoServer, step: Callable[[bytes], bool]
) -> None:
    async with (
        HoldingProxy(mongo_server.port) as proxy,
        own_stack(
            start=False,
            services=(*default_services(), replace(service_spec("normalizer"), name=SLEEPER)),
            # What a copy does not give back comes too late for this test.
            env={"BACKHAUL_NORMALIZER_ACK_WAIT_S": "60"},
            service_env={SLEEPER: {"BACKHAUL_MONGO_URI": proxy.uri}},
        ) as stack,
    ):
        await stack.start_servers()
        await stack.start_services(SLEEPER, "gateway")
        async with Town(stack.gateway_url, stack.admin_token) as town:
            tenant = await town.platform.register()
            address = tenant.address("Twilio")
            assert (await tenant.send(tenant.twilio.status(address, new_sid(), "queued"))).status_code == 200
            await drained(stack)
            proxy.hold("command", step)
            sids = [new_sid() for _ in range(5)]
            posts = [tenant.twilio.status(address, sid, "sent") for sid in sids]
            # Authentic, and without the id of anything.
            posts.append(tenant.twilio.form(address, {"From": "+15005550001", "To": "+15005550006", "Body": "STOP"}))
            for post in posts:
                assert (await tenant.send(post)).status_code == 200
            await asyncio.wait_for(proxy.held.wait(), 20)
            await stack.start_services("normalizer")
            await drained(stack, within_s=ENDS_WITHIN_S)
            client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(stack.mongo_uri)
            async with client:
                database = client[stack.mongo_database]
                stored = [event.id for event in await stored_events(database) if event.kind == EVENT_KIND_SENT]
                assert await database["dead_letters"].count_documents({}) == 1
            assert len(stored) == len(sids)
            assert set(stored) <= (await published_events(stack))[tenant.id].keys()
