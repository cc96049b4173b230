"""Two copies of the normalizer in the same communications, killed and frozen in turn, and the broker with them.

Whatever was answered 200 is there once, and every way to read it says the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from backhaul_local.service import default_services, service_spec
from backhaul_testing.twilio import new_sid
from faults.account import drained, settle
from faults.alike import alike
from simulators.load import Load
from simulators.people import Tenant, Town

pytestmark = pytest.mark.faults

COPIES = ("normalizer", "second")
ROUNDS = 4
CODES = ("30003", "30005", "30006")


async def _revised(tenant: Tenant) -> str:
    """A message whose last event is told several times, each time with another error."""
    sid = new_sid()
    address = tenant.address("Twilio", communicationId="offer-0")
    posts = [tenant.twilio.status(address, sid, "undelivered", ErrorCode=code) for code in CODES]
    await tenant.receive(tenant.twilio.status(address, sid, "sent"), *posts)
    return sid


@pytest.mark.timeout(300)
async def test_two_copies_that_are_killed_in_turn_agree_in_every_read(own_stack: Callable[..., Any]) -> None:
    chance = random.Random(1)  # noqa: S311  # rounds that can be repeated, no secret
    async with (
        own_stack(
            services=(*default_services(), replace(service_spec("normalizer"), name="second")),
            env={"BACKHAUL_NORMALIZER_ACK_WAIT_S": "3"},
        ) as stack,
        Town(stack.gateway_url, stack.admin_token) as town,
    ):
        tenants = [await town.platform.register() for _ in range(3)]
        *loaded, revised = tenants
        sids = set()
        # The load goes on while something starts, and all of it is read many times in the end.
        async with Load(loaded, connections=2) as load:
            for number in range(ROUNDS):
                await load.more(30)
                victim = stack.member(chance.choice(COPIES))
                if number % 2:
                    await victim.kill()
                else:
                    victim.pause()
                sids |= {await _revised(revised) for _ in range(5)}
                if number == ROUNDS - 2:
                    await stack.kill("nats")
                    await load.more(3)
                    await stack.member("nats").start()
                await load.more(30)
                if number % 2:
                    await victim.start()
                else:
                    victim.resume()
        await settle(stack, load, *loaded)
        await drained(stack)
        found = await alike(stack, *tenants)
        ends = {event.message_id: event for event in found[revised.id] if event.kind == "undelivered"}
        assert ends.keys() == sids
        # The greatest of them stands, in whatever order the copies took them.
        assert {event.error_code for event in ends.values()} == {max(CODES)}
        assert len(found[revised.id]) == 2 * len(sids)
