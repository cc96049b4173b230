"""kill -9 of each process in the middle of a load, and SIGTERM of the gateway: nothing lost, nothing counted twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from backhaul_testing import broker
from backhaul_testing.posts import send
from backhaul_testing.stored import stored_events
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until
from faults.account import published_events, settle
from nats.js.api import ConsumerInfo
from pymongo import AsyncMongoClient
from simulators.load import Load
from simulators.people import Tenant, Town

if TYPE_CHECKING:
    from backhaul_local.stack import Stack

pytestmark = pytest.mark.faults

StackOnSharedMongo = Callable[..., Any]

BEFORE, AFTER = 250, 250
"""Posts that are accepted before and after the fault."""

SERVICE_ENV = {
    # What a dead normalizer had in hand comes back after this time; production waits longer.
    "normalizer": {"BACKHAUL_NORMALIZER_ACK_WAIT_S": "3"},
}


async def _two(town: Town) -> tuple[Tenant, Tenant]:
    return await town.platform.register(), await town.platform.register()


async def _something_is_readable(tenant: Tenant) -> None:
    async def probe() -> bool:
        return bool((await tenant.read("/v1/events", limit=1))["events"])

    await until("a first event that can be read", probe)


async def _consumer(stack: Stack) -> ConsumerInfo:
    connection = await broker.connect(stack.nats_url)
    try:
        info: ConsumerInfo = await connection.jetstream().consumer_info("CALLBACKS", "normalizer")
        return info
    finally:
        await connection.close()


async def test_the_normalizer_is_killed_with_callbacks_in_hand(breakable: Stack) -> None:
    stack = breakable
    async with Town(stack.gateway_url, stack.admin_token) as town:
        tenants = await _two(town)
        in_hand = 0
        async with Load(tenants) as load:
            await load.more(BEFORE)
            await _something_is_readable(tenants[0])
            # Some kills fall between two batches. Those count too, but one at least must not.
            for _ in range(4):
                await stack.kill("normalizer")
                in_hand += (await _consumer(stack)).num_ack_pending or 0
                await load.more(50)  # The gateway goes on without it.
                await stack.start_services("normalizer")
                await load.more(50)
                if in_hand:
                    break
            await load.more(AFTER)
        assert in_hand, "no kill hit a batch"
        assert load.repeated_posts > 20
        figures = await settle(stack, load, *tenants)
        assert figures.events >= BEFORE + AFTER
        # The gateway was never away.
        assert not load.failures


async def test_the_normalizer_dies_between_commit_and_publish(breakable: Stack) -> None:
    stack = breakable
    async with Town(stack.gateway_url, stack.admin_token) as town:
        tenants = await _two(town)
        async with Load(tenants) as load:
            await load.more(BEFORE)
            # Callbacks are delivered to a normalizer that does not run, and JetStream stops when it runs again: what
            # it has in hand it commits, and can publish nothing of it.
            stack.member("normalizer").pause()
            await load.more(100)
            stack.member("nats").pause()
            before = await _stored_ids(stack)
            stack.member("normalizer").resume()

            async def committed() -> bool:
                return len(await _stored_ids(stack)) > len(before)

            await until("a commit", committed)
            await stack.kill("normalizer")
            # What it had written to its connection dies with the server.
            await stack.kill("nats")
            await stack.member("nats").start()
            unpublished = await _stored_ids(stack) - {
                event_id for ids in (await published_events(stack)).values() for event_id in ids
            }
            await stack.start_services("normalizer")
            await load.more(AFTER)
        assert unpublished, "the normalizer had nothing committed that was not published"
        await settle(stack, load, *tenants)


async def _stored_ids(stack: Stack) -> set[str]:
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(stack.mongo_uri)
    async with client:
        return {event.id for event in await stored_events(client[stack.mongo_database])}


@pytest.mark.parametrize(("victim", "kills"), [("gateway", 1), ("nats", 2)])
async def test_the_gateway_or_nats_is_killed(breakable: Stack, victim: str, kills: int) -> None:
    stack = breakable
    async with Town(stack.gateway_url, stack.admin_token) as town:
        tenants = await _two(town)
        others = [member for member in stack.members if member.name != victim]
        pids = [member.pid for member in others]
        async with Load(tenants) as load:
            await load.more(BEFORE)
            await _something_is_readable(tenants[0])
            for _ in range(kills):
                assert stack.member(victim).running
                await stack.kill(victim)
                # Without NATS the gateway keeps on its disk what comes.
                await (load.failing(10) if victim == "gateway" else load.more(50))
                await stack.member(victim).start()
                await load.more(AFTER // kills)
        figures = await settle(stack, load, *tenants)
        assert figures.events >= BEFORE + AFTER
        assert victim == "gateway" or not load.failures
        # Nobody else had to be restarted, nor died of it.
        assert [member.pid for member in others if member.running] == pids


async def test_mongod_is_killed(breakable: Stack) -> None:
    stack = breakable
    async with Town(stack.gateway_url, stack.admin_token) as town:
        tenants = await _two(town)
        async with Load(tenants) as load:
            await load.more(BEFORE)
            await _something_is_readable(tenants[0])
            for _ in range(2):
                await stack.kill("mongod")
                # The gateway knows its tenants by heart: callbacks are stored, and wait.
                await load.more(100)
                await stack.member("mongod").start()
                await load.more(AFTER // 2)
        assert not load.failures
        figures = await settle(stack, load, *tenants)
        assert figures.events >= BEFORE + AFTER


async def test_a_gateway_that_is_asked_to_stop_answers_what_it_has_begun(own_stack: StackOnSharedMongo) -> None:
    # Beyond what is waited for before JetStream is back.
    patient = {**SERVICE_ENV, "gateway": {"BACKHAUL_GATEWAY_PUBLISH_TIMEOUT_S": "4.5"}}
    async with (
        own_stack(service_env=patient) as stack,
        Town(stack.gateway_url, stack.admin_token) as town,
    ):
        tenants = await _two(town)
        gateway, nats_server = stack.member("gateway"), stack.member("nats")
        address = tenants[0].address("Twilio", communicationId="offer-0")
        sids = [new_sid() for _ in range(40)]
        # None of these can be answered before JetStream is back, so all of them are under way at the SIGTERM.
        nats_server.pause()
        posts = [tenants[0].twilio.status(address, sid, "sent") for sid in sids]
        under_way = [asyncio.create_task(send(town.http, post)) for post in posts]
        held = sum(len(post.body) for post in posts)
        await until("all posts to wait for JetStream", lambda: _holds(stack, held))
        stopping = asyncio.create_task(gateway.stop())
        await _refuses_connections(stack)
        assert not [task for task in under_way if task.done()]
        nats_server.resume()
        answers = await asyncio.gather(*under_way)
        assert {answer.status_code for answer in answers} == {200}
        assert await stopping, "it had to be forced"
        assert gateway.returncode == 0

        # And under load: what the providers were not answered they send again.
        await gateway.start()
        async with Load(tenants) as load:
            await load.more(BEFORE)
            assert await gateway.stop(), "it had to be forced"
            assert gateway.returncode == 0
            await load.failing(5)
            # It stops in good order: no post that it took was answered with an error. (The next one may answer 503
            # until NATS is connected.)
            assert not [outcome for outcome in load.failures if isinstance(outcome, int)]
            await gateway.start()
            await load.more(AFTER)
        for sid in sids:
            load.note(tenants[0], sid, "sent", "offer-0")
        await settle(stack, load, *tenants)


async def _holds(stack: Stack, size: int) -> bool:
    """Whether the gateway's own metrics say that ``size`` bytes of bodies wait for JetStream.

    Asked over a connection of its own, which does not stay open.
    """
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"{stack.gateway_url}/metrics")).text
    [line] = [line for line in text.splitlines() if line.startswith("backhaul_gateway_queued_bytes")]
    return float(line.rpartition(" ")[2]) >= size


async def _refuses_connections(stack: Stack) -> None:
    """Return when the gateway takes no new connection any more."""
    port = stack.port("gateway", "http")

    async def probe() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return True
        writer.close()
        return False

    await until("the listening socket to be closed", probe)
