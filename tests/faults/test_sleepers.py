"""A process that is stopped (SIGSTOP) across the deletion of a tenant, and its re-creation under the same id and path.

Whatever it had in hand, it changes nothing when it goes on: not what is stored of the new registration, and nothing of
the old one comes back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import nats.js.errors
import pytest
from backhaul_local.mongod import MongoServer
from backhaul_local.service import default_services, service_spec
from backhaul_proto.callback.v1.callback_pb2 import CallbackBatch
from backhaul_proto.event.v1.event_pb2 import EventBatch
from backhaul_testing import broker
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until
from faults.account import drained
from faults.holding import HoldingProxy
from pymongo import AsyncMongoClient
from simulators.people import Tenant, Town

if TYPE_CHECKING:
    from backhaul_local.stack import Stack

pytestmark = pytest.mark.faults

SLEEPER = "sleeper"
NO_SUCH_TRANSACTION = 251
WORDS = ("queued", "sent", "delivered")


def starts_for(tenant: Tenant) -> Callable[[bytes], bool]:
    """The first statement of a transaction that stores something for the tenant: it reads the tenant's document."""
    return lambda message: b"startTransaction\0\1" in message and tenant.id.encode() in message


def is_commit(message: bytes) -> bool:
    return b"commitTransaction" in message


@dataclass
class Scene:
    """A stack with a normalizer that sleeps. The other normalizer starts when it does."""

    stack: Stack
    town: Town
    proxy: HoldingProxy

    async def stored(self) -> dict[str, list[Any]]:
        """All that MongoDB holds of any tenant, by whose registration is in it, but for the tenants themselves."""
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(self.stack.mongo_uri)
        async with client:
            database = client[self.stack.mongo_database]
            # When something was heard is noted some seconds after it is processed.
            names = set(await database.list_collection_names()) - {"tenants", "meta", "channel_activity"}
            return {
                name: await database[name].find({"registration": {"$exists": True}}).sort("_id").to_list()
                for name in sorted(names)
            }

    async def in_streams(self, tenant: Tenant) -> dict[str, set[str]]:
        """Whose registrations are under the tenant's queue path, by stream."""
        connection = await broker.connect(self.stack.nats_url)
        try:
            js = connection.jetstream()
            found: dict[str, set[str]] = {}
            for stream in ("CALLBACKS", "EVENTS"):
                registrations = found[stream] = set()
                state = (await js.stream_info(stream)).state
                for seq in range(state.first_seq, state.last_seq + 1):
                    try:
                        message = await js.get_msg(stream, seq)
                    except nats.js.errors.NotFoundError:
                        continue
                    if (message.subject or "").split(".")[1] != tenant.queue_path.lower():
                        continue
                    data = message.data or b""
                    registrations.update(
                        one.registration
                        for one in (
                            CallbackBatch.FromString(data).callbacks
                            if stream == "CALLBACKS"
                            else EventBatch.FromString(data).events
                        )
                    )
            return found
        finally:
            await connection.close()

    async def unacknowledged(self) -> int:
        connection = await broker.connect(self.stack.nats_url)
        try:
            info = await connection.jetstream().consumer_info("CALLBACKS", "normalizer")
            return (info.num_ack_pending or 0) if not info.num_pending else 0
        finally:
            await connection.close()

    async def replaced(self, tenant: Tenant, sid: str) -> Tenant:
        """Delete the tenant, and give its id and queue path to another, of whom one thing is reported and stored."""
        deleting = asyncio.create_task(self.town.platform.delete(tenant, within_s=60))
        if not self.stack.service("normalizer").running:
            await self.stack.start_services("normalizer")
        await deleting
        # Whatever the sleeper had said to MongoDB comes through as soon as the tenant is gone.
        self.proxy.release()
        heir = await self.town.platform.register(tenant_id=tenant.id, queue_path=tenant.queue_path)
        # The very same message id: a state or a count that came over would show.
        await report(heir, sid, WORDS[:1])
        # What the broker gives to the sleeper comes to the other one after the ack wait.
        await heir.message_with("twilio", sid, 1, within_s=60)
        return heir

    async def woken(self) -> None:
        """Let the sleeper go on; returns when it has done with what it had in hand."""
        service = self.stack.service(SLEEPER)
        known = service.log_path.stat().st_size
        service.resume()

        async def done() -> bool:
            text = service.log_path.read_bytes()[known:].decode("utf-8", "replace")
            return '"batch"' in text or '"batch_put_back"' in text or '"given_back"' in text

        await until("the sleeper to be done with its batch", done, within_s=30)
        await drained(self.stack)


async def report(tenant: Tenant, sid: str, words: tuple[str, ...]) -> None:
    for word in words:
        address = tenant.address("Twilio", communicationId="spring")
        assert (await tenant.send(tenant.twilio.status(address, sid, word))).status_code == 200


@pytest.fixture
def scene(own_stack: Callable[..., Any], mongo_server: MongoServer) -> Any:
    """``async with scene(lifetime_s=1) as it``: everything runs but the normalizer that does not sleep."""

    @asynccontextmanager
    async def create(*, lifetime_s: int) -> AsyncIterator[Scene]:
        with mongo_server.transactions_live(lifetime_s):
            async with (
                HoldingProxy(mongo_server.port) as proxy,
                own_stack(
                    start=False,
                    services=(*default_services(), replace(service_spec("normalizer"), name=SLEEPER)),
                    env={"BACKHAUL_NORMALIZER_ACK_WAIT_S": "3"},
                    service_env={SLEEPER: {"BACKHAUL_MONGO_URI": proxy.uri}},
                ) as stack,
            ):
                await stack.start_servers()
                # A tenant is gone only when every service has deleted what it keeps: all run but the one for later.
                await stack.start_services(*(one.name for one in stack.services if one.name != "normalizer"))
                async with Town(stack.gateway_url, stack.admin_token) as town:
                    yield Scene(stack, town, proxy)

    return create


@pytest.mark.parametrize(
    "stopped", ["before its transaction", "before its commit", "after its commit", "with a buffer"]
)
async def test_a_normalizer_that_slept_changes_nothing(scene: Any, stopped: str) -> None:
    # Longer than it takes to delete the tenant, were that not waited for.
    async with scene(lifetime_s=8 if stopped == "before its commit" else 1) as it:
        tenant = await it.town.platform.register()
        old = tenant.registration
        sid = new_sid()
        if stopped == "before its transaction":
            it.proxy.hold("command", starts_for(tenant))
        elif stopped == "before its commit":
            it.proxy.hold("command", is_commit)
        elif stopped == "after its commit":
            it.proxy.hold("answer", is_commit)
        else:
            it.proxy.commands.clear()
            it.stack.member(SLEEPER).pause()
        await report(tenant, sid, WORDS)
        if stopped == "with a buffer":

            async def all_sent() -> bool:
                return bool(await it.unacknowledged() == len(WORDS))

            # The broker has sent them where they were asked for, which is the sleeper alone.
            await until("all callbacks in the sleeper's hands", all_sent)
        else:
            await asyncio.wait_for(it.proxy.held.wait(), 20)
            it.stack.member(SLEEPER).pause()

        # Where it was hit, by what the proxy saw and the store shows.
        named = [message for message in it.proxy.commands if starts_for(tenant)(message)]
        assert bool(named) == (stopped != "with a buffer")
        assert any(is_commit(message) for message in it.proxy.commands) == ("commit" in stopped)
        kept = {row["registration"] for row in (await it.stored())["events"]}
        assert kept == ({old} if stopped == "after its commit" else set())

        heir = await it.replaced(tenant, sid)
        new = heir.registration
        assert new != old
        before = await it.stored()
        assert {row["registration"] for rows in before.values() for row in rows} == {new}

        if stopped == "before its commit":
            # MongoDB has ended the transaction long ago: that is what the deletion waited for.
            assert (await asyncio.wait_for(it.proxy.answer, 20))["code"] == NO_SUCH_TRANSACTION
        elif stopped == "after its commit":
            assert it.proxy.answer.result()["ok"] == 1
        await it.woken()

        assert await it.stored() == before
        assert await it.in_streams(heir) == {"CALLBACKS": {new}, "EVENTS": {new}}
        message = await heir.message_with("twilio", sid, 1)
        assert (message.state, message.event_count) == ("queued", 1)
        # It works on, for the new registration too.
        await it.stack.kill("normalizer")
        again = new_sid()
        await report(heir, again, WORDS)

        async def counted() -> bool:
            rows = (await it.stored())["messages"]
            return any(row["message_id"] == again and row["event_count"] == 3 for row in rows)

        await until("the sleeper to process what is new", counted, within_s=45)


async def test_a_gateway_that_slept_brings_nothing_back(
    own_stack: Callable[..., Any], mongo_server: MongoServer
) -> None:
    with mongo_server.transactions_live(1):
        async with (
            own_stack(services=(*default_services(), replace(service_spec("gateway"), name=SLEEPER))) as stack,
            Town(stack.gateway_url, stack.admin_token) as town,
            HoldingProxy(mongo_server.port) as proxy,
        ):
            it = Scene(stack, town, proxy)
            tenant = await town.platform.register()
            old = tenant.registration
            there = replace(tenant, base_url=f"http://127.0.0.1:{stack.port(SLEEPER, 'http')}")
            sid = new_sid()
            # It knows the tenant, and has connections that are open.
            await report(there, sid, WORDS[:1])
            await tenant.message_with("twilio", sid, 1)

            stack.member(SLEEPER).pause()
            late = [
                asyncio.create_task(there.send(there.twilio.status(there.address("Twilio"), sid, "sent")))
                for _ in range(8)
            ]
            heir = await it.replaced(tenant, sid)
            new = heir.registration
            before = await it.stored()
            assert await it.in_streams(heir) == {"CALLBACKS": {new}, "EVENTS": {new}}
            stack.member(SLEEPER).resume()
            statuses = {answer.status_code for answer in await asyncio.gather(*late)}
            # It goes on where it was: what it had not heard of yet, it could not refuse.
            assert 200 in statuses
            assert statuses <= {200, 401, 403}
            assert (await it.in_streams(heir))["CALLBACKS"] == {old, new}
            await drained(stack)
            assert await it.stored() == before
            assert (await it.in_streams(heir))["EVENTS"] == {new}
            message = await heir.message_with("twilio", sid, 1)
            assert (message.state, message.event_count) == ("queued", 1)
