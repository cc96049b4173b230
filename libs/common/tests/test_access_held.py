"""How long what a caller has opened stays open, and how much of it there may be."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from access_rig import INTERNAL, World, asks, first, refusal
from backhaul_common.accounts import ServiceLimits
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.lifecycle import cancel
from backhaul_common.names import SERVICE_CHANGED_SUBJECT
from backhaul_local.nats_server import NatsServer
from backhaul_testing import broker
from rpc_service import Ask, Stub

CHANGES: dict[str, tuple[dict[str, Any], Code]] = {
    "revoked": ({"tokens": []}, Code.UNAUTHENTICATED),
    "disabled": ({"disabled": True}, Code.FORBIDDEN),
    "without the verb": ({"verbs": ["check"]}, Code.FORBIDDEN),
    "with other purposes": ({"purposes": ["marketing"]}, Code.UNAVAILABLE),
    "without the tenant": ({"tenants": ["globex"]}, Code.FORBIDDEN),
}


@pytest.mark.parametrize("how", [*CHANGES, "deleted"])
async def test_a_stream_ends_when_what_opened_it_is_taken_away(world: World, nats_server: NatsServer, how: str) -> None:
    token = await world.account()
    other = world.client(await world.account("other"))
    nats = await broker.connect([nats_server.uri])
    world.stack.push_async_callback(nats.close)
    await world.directory.follow(nats)
    answers = world.client(token).Watch(Ask(tenant_id="acme"))
    assert (await anext(answers)).text == "service:crm"
    stays = other.Watch(Ask(tenant_id="acme"))
    await anext(stays)
    if how == "deleted":
        code = Code.UNAUTHENTICATED
        await world.delete()
    else:
        fields, code = CHANGES[how]
        await world.change(**fields)
    await nats.publish(SERVICE_CHANGED_SUBJECT, b"crm")
    async with asyncio.timeout(60):
        with pytest.raises(BackhaulError) as caught:
            await anext(answers)
    assert caught.value.code is code
    # Nobody else's does.
    reading = asyncio.ensure_future(anext(stays))
    assert await first(other, "Get") == "service:other"
    assert not reading.done()
    await cancel(reading)


async def test_a_stream_goes_on_when_something_else_changes(plain: World) -> None:
    answers = plain.client(await plain.account()).Watch(Ask(tenant_id="acme"))
    await anext(answers)
    reading = asyncio.ensure_future(anext(answers))
    await plain.change(name="CRM of the south", tenants=["acme", "globex"])
    await plain.directory.refresh()
    assert await first(plain.client(INTERNAL), "Get") == "internal"
    assert not reading.done()
    await cancel(reading)


async def test_an_account_that_was_made_anew_does_not_inherit_streams(secured: World) -> None:
    await secured.account(certificates=("crm.example",), tenants=("*",))
    answers = secured.client(dns=("crm.example",)).Watch(Ask(tenant_id="acme"))
    await anext(answers)
    await secured.account(certificates=("crm.example",), tenants=("*",))
    async with asyncio.timeout(60):
        with pytest.raises(BackhaulError) as caught:
            await anext(answers)
    assert caught.value.code is Code.UNAUTHENTICATED


async def test_a_stream_ends_when_its_token_expires(plain: World) -> None:
    # The test's clock stands still until the stream is there, and is past the end when the server looks again.
    token = await plain.account(expires=plain.now + timedelta(seconds=0.3))
    answers = plain.client(token).Watch(Ask(tenant_id="acme"))
    await anext(answers)
    plain.now += timedelta(seconds=1)
    async with asyncio.timeout(60):
        with pytest.raises(BackhaulError) as caught:
            await anext(answers)
        await plain.servicer.ended.wait()
    assert (caught.value.code, "expired" in caught.value.message) == (Code.UNAUTHENTICATED, True)


async def test_a_stream_ends_when_its_token_is_given_an_end(plain: World) -> None:
    answers = plain.client(await plain.account()).Watch(Ask(tenant_id="acme"))
    await anext(answers)
    ends: dict[str, Any] = {"tokens.0.expires_at": plain.now + timedelta(seconds=0.3)}
    await plain.change(**ends)
    await plain.directory.refresh()
    plain.now += timedelta(seconds=1)
    async with asyncio.timeout(60):
        with pytest.raises(BackhaulError) as caught:
            await anext(answers)
    assert caught.value.code is Code.UNAUTHENTICATED


async def test_each_caller_has_limits_of_its_own(plain: World) -> None:
    limits = ServiceLimits(requests_per_second=0.01, burst=2, checks_per_second=0.01, checks_burst=3)
    stub = plain.client(await plain.account(limits=limits))
    other = plain.client(await plain.account("other", limits=limits))
    for _ in range(2):
        await first(stub, "Import")
    error = await refusal(stub, "Import")
    assert error.code is Code.RATE_LIMITED
    assert error.retry_after_s is not None
    assert 90 < error.retry_after_s <= 100
    # Also where the answer would be no.
    assert (await refusal(stub, "Import", "globex")).code is Code.RATE_LIMITED
    # Checks are counted apart, by address.
    await stub.Get(Ask(tenant_id="acme", number=3))
    assert (await refusal(stub, "Get")).code is Code.RATE_LIMITED
    assert await first(other, "Import") == "service:other"
    assert await first(other, "Get") == "service:other"
    # A change of the account refills nothing.
    await plain.change(name="x")
    await plain.directory.refresh()
    assert (await refusal(stub, "Import")).code is Code.RATE_LIMITED
    # And Backhaul itself has none.
    for _ in range(10):
        await first(plain.client(INTERNAL), "Get")


@pytest.mark.parametrize("number", [5, 100])
async def test_a_batch_of_the_burst_or_more_passes_and_is_paid_for_later(plain: World, number: int) -> None:
    limits = ServiceLimits(checks_per_second=0.01, checks_burst=5)
    stub = plain.client(await plain.account(limits=limits))
    await stub.Get(Ask(tenant_id="acme", number=number))
    error = await refusal(stub, "Get")
    assert error.code is Code.RATE_LIMITED
    assert error.retry_after_s is not None
    owed = number - 5 + 1
    assert 100 * owed - 10 < error.retry_after_s <= 100 * owed


async def test_a_batch_is_refused_as_a_whole_while_less_than_the_burst_is_left(plain: World) -> None:
    stub = plain.client(await plain.account(limits=ServiceLimits(checks_per_second=0.01, checks_burst=5)))
    await first(stub, "Get")
    with pytest.raises(BackhaulError) as caught:
        await stub.Get(Ask(tenant_id="acme", number=5))
    assert caught.value.code is Code.RATE_LIMITED
    # What was left but for the call itself is there.
    await stub.Get(Ask(tenant_id="acme", number=3))


async def test_a_stream_of_checks_waits_for_its_turn(plain: World) -> None:
    limits = ServiceLimits(checks_per_second=50, checks_burst=5)
    stub = plain.client(await plain.account(limits=limits))
    began = asyncio.get_running_loop().time()
    answers = [one async for one in stub.Check(asks(*[Ask(tenant_id="acme", number=5)] * 4))]
    assert len(answers) == 4
    assert asyncio.get_running_loop().time() - began > 0.25


async def test_a_caller_has_so_many_streams_and_no_more(plain: World) -> None:
    stub = plain.client(await plain.account(limits=ServiceLimits(concurrent_streams=2)))
    open_ones = [stub.Watch(Ask(tenant_id="acme")) for _ in range(2)]
    for one in open_ones:
        await anext(one)
    assert (await refusal(stub, "Watch")).code is Code.RATE_LIMITED
    plain.servicer.ended.clear()
    await open_ones[0].aclose()
    async with asyncio.timeout(60):
        await plain.servicer.ended.wait()
        while (await plain_code(stub)) is Code.RATE_LIMITED:  # the server lets go of it a moment after its handler
            await asyncio.sleep(0.01)
    await open_ones[1].aclose()


async def plain_code(stub: Stub) -> Code | None:
    try:
        await first(stub, "Watch")
    except BackhaulError as exc:
        return exc.code
    return None
