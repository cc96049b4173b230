"""Deleting a tenant: refused while it has data, complete with ?purge=true, and blind for whoever comes next."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from backhaul_client import ForbiddenError, NotFoundError
from backhaul_common.names import notices_subject, streams_of
from backhaul_local.stack import Stack
from backhaul_testing import broker
from backhaul_testing.sendgrid import new_message_id
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until
from faults.account import published_events
from pymongo import AsyncMongoClient
from simulators.callers import internal_service

if TYPE_CHECKING:
    from simulators.callers import InternalService
    from simulators.people import Tenant, Town

ANNA = "+15005550401"

pytestmark = pytest.mark.usefixtures("quick_deletions")


async def _stored(stack: Stack, tenant: Tenant) -> dict[str, int]:
    """What MongoDB and JetStream hold of a tenant, by collection and stream; nothing where it is 0."""
    found: dict[str, int] = {}
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(stack.mongo_uri)
    async with client:
        database = client[stack.mongo_database]
        for name in await database.list_collection_names():
            own = {"_id": tenant.id} if name == "tenants" else {"registration": {"$regex": f"^{tenant.id}[.]"}}
            found[name] = await database[name].count_documents(own)
    connection = await broker.connect(stack.nats_url)
    try:
        for stream, subjects in streams_of(tenant.queue_path).items():
            info = await connection.jetstream().stream_info(stream, subjects_filter=subjects)
            found[stream] = sum((info.state.subjects or {}).values())
    finally:
        await connection.close()
    return {name: count for name, count in found.items() if count}


async def _fill(tenant: Tenant) -> tuple[str, str]:
    """Two messages, one of which failed, a communication, dead letter and suppression; the ids of the other message and
    the communication."""
    sid = new_sid()
    address = tenant.address("Twilio", communicationId="shared-name")
    for word in ("sent", "delivered"):
        assert (await tenant.send(tenant.twilio.status(address, sid, word))).status_code == 200
    failed = tenant.twilio.status(address, new_sid(), "failed", ErrorCode="30006")
    assert (await tenant.send(failed)).status_code == 200
    broken = tenant.sendgrid.signed(tenant.address("SendGrid"), b"[}")
    assert (await tenant.send(broken)).status_code == 200
    await tenant.message_with("twilio", sid, 2)

    async def dead() -> bool:
        return bool(await tenant.dead_letters())

    await until("the dead letter", dead)
    await tenant.client.suppress(ANNA, "manual")
    return sid, "shared-name"


async def test_a_tenant_without_data_is_deleted_and_its_id_and_path_are_free(town: Town, installation: Stack) -> None:
    tenant = await town.platform.register()
    assert (await town.platform.call("DELETE", f"/{tenant.id}")).status_code == 204
    assert (await town.platform.call("GET", f"/{tenant.id}")).status_code == 404
    assert (await tenant.get("/v1/events")).status_code == 401
    assert await _stored(installation, tenant) == {}
    again = await town.platform.register(tenant_id=tenant.id, queue_path=tenant.queue_path.swapcase())
    assert again.api_key != tenant.api_key


async def test_a_purge_removes_everything_and_the_next_owner_of_the_path_sees_nothing(
    town: Town, installation: Stack
) -> None:
    tenant, neighbour = await town.platform.register(), await town.platform.register()
    sid, communication = await _fill(tenant)
    await _fill(neighbour)
    kinds = {
        "tenants", "events", "event_entries", "messages", "counts", "communications", "channel_activity",
        "dead_letters",
        "changes",
        "CALLBACKS", "EVENTS", "NOTICES",
        "suppressions", "suppression_facts", "suppression_changes", "suppression_counters",
    }  # fmt: skip

    async def everything_is_there() -> bool:
        # What was heard on a channel is noted a few seconds later, of each of the two.
        stored = [await _stored(installation, one) for one in (tenant, neighbour)]
        return all(one.keys() == kinds and one["channel_activity"] == 2 for one in stored)

    connection = await broker.connect(installation.nats_url)
    for one in (tenant, neighbour):
        await connection.jetstream().publish(notices_subject(one.queue_path, "test.told"), b"")
    await connection.close()
    await until("data of every kind", everything_is_there)
    of_the_neighbour = await _stored(installation, neighbour)

    refused = await town.platform.call("DELETE", f"/{tenant.id}")
    assert refused.status_code == 409
    assert refused.json()["errors"][0]["field"] == "purge"
    # A refusal changes nothing: it still takes callbacks.
    late = tenant.twilio.status(tenant.address("Twilio"), new_sid(), "sent")
    assert (await tenant.send(late)).status_code == 200

    await town.platform.delete(tenant)
    assert await _stored(installation, tenant) == {}
    assert (await tenant.send(late)).status_code == 401
    assert (await tenant.get("/v1/messages")).status_code == 401
    assert (await town.platform.call("DELETE", f"/{tenant.id}", purge="true")).status_code == 404

    heir = await town.platform.register(queue_path=tenant.queue_path.upper())
    assert (await heir.events(), await heir.messages(), await heir.dead_letters()) == ([], [], [])
    assert await heir.message("twilio", sid) is None
    assert await heir.communication(communication) is None
    assert (await heir.client.check(ANNA)).allowed
    own_sid, _ = await _fill(heir)
    assert len({row.message_id for row in await heir.events()} - {own_sid}) == 1
    assert (await tenant.send(late)).status_code == 401
    assert await _stored(installation, neighbour) == of_the_neighbour


async def test_a_tenant_that_comes_back_under_its_own_id_starts_empty(town: Town) -> None:
    tenant = await town.platform.register()
    message_id = new_message_id()
    post = tenant.sendgrid.batch(tenant.address("SendGrid"), [tenant.sendgrid.event(message_id, "delivered")])
    assert (await tenant.send(post)).status_code == 200
    await tenant.message_with("sendgrid", message_id, 1)
    await town.platform.delete(tenant)

    again = await town.platform.register(tenant_id=tenant.id, queue_path=tenant.queue_path)
    assert await again.events() == []
    event = again.sendgrid.event(message_id, "processed")
    assert (await again.send(again.sendgrid.batch(again.address("SendGrid"), [event]))).status_code == 200
    message = await again.message_with("sendgrid", message_id, 1)
    # The delivery that the purged registration knew of is forgotten.
    assert (message.state, message.event_count) == ("queued", 1)
    assert (await tenant.get("/v1/events")).status_code == 401


async def test_who_was_suppressed_is_forgotten_with_the_tenant_and_by_nobody_else(
    town: Town, installation: Stack, crm: InternalService
) -> None:
    tenant, neighbour = await town.platform.register(), await town.platform.register()
    sid = new_sid()

    async def stop(of: Tenant) -> None:
        post = of.twilio.inbound(of.address("Twilio"), sid, "STOP", sender=ANNA)
        assert (await of.send(post)).status_code == 200
        await crm.told(of.id, ANNA, "stop")

    await stop(tenant)
    await stop(neighbour)
    async with internal_service(installation, town.platform, tenant.id, neighbour.id) as bound:
        watch = bound.client.watch(tenant.id, after=1)
        ended = asyncio.create_task(anext(watch))
        await town.platform.delete(tenant)
        async with asyncio.timeout(60):
            with pytest.raises((NotFoundError, ForbiddenError)):
                await ended
        again = await town.platform.register(tenant_id=tenant.id, queue_path=tenant.queue_path)
        assert await crm.verdict(again.id, ANNA) == "allowed"
        record = await again.client.suppression_record(ANNA)
        assert (record.suppressions, record.history) == ((), ())
        # Whom the deleted tenant let in is not let in by its successor.
        with pytest.raises(ForbiddenError):
            await bound.client.get(again.id, ANNA)
        assert await bound.verdict(neighbour.id, ANNA) == "stop"
    # The very same callback is another tenant's now, and its changes are counted from the first one.
    await stop(again)
    (change,) = (await again.client.suppression_changes(0)).changes
    assert (change.position, change.fact.word) == (1, "STOP")
    await town.platform.delete(again)
    assert await _stored(installation, again) == {}
    assert await crm.verdict(neighbour.id, ANNA) == "stop"


async def test_what_a_tenant_reports_again_right_after_it_came_back_reaches_events(
    town: Town, installation: Stack
) -> None:
    tenant = await town.platform.register()
    message_id = new_message_id()
    events = [tenant.sendgrid.event(message_id, word) for word in ("processed", "delivered", "open")]
    post = tenant.sendgrid.batch(tenant.address("SendGrid"), events)
    assert (await tenant.send(post)).status_code == 200
    before = await tenant.message_with("sendgrid", message_id, 3)
    await town.platform.delete(tenant)

    # The very same facts, within the two minutes for which JetStream remembers what was published.
    again = await town.platform.register(tenant_id=tenant.id, queue_path=tenant.queue_path)
    assert (await again.send(again.sendgrid.batch(again.address("SendGrid"), events))).status_code == 200
    message = await again.message_with("sendgrid", message_id, 3)
    wanted = {row.id for row in message.timeline}
    assert not wanted & {row.id for row in before.timeline}

    async def published() -> bool:
        return wanted <= (await published_events(installation))[again.id].keys()

    await until("all three on EVENTS", published)


async def test_a_purge_in_the_middle_of_traffic_leaves_nothing_behind(town: Town, installation: Stack) -> None:
    tenant = await town.platform.register()
    statuses: list[int] = []

    async def keep_posting() -> None:
        while not statuses or statuses[-1] == 200:
            events = [tenant.sendgrid.event(new_message_id(), "delivered") for _ in range(50)]
            answer = await tenant.send(tenant.sendgrid.batch(tenant.address("SendGrid"), events))
            statuses.append(answer.status_code)

    async with asyncio.TaskGroup() as posting:
        for _ in range(4):
            posting.create_task(keep_posting())

        async def flowing() -> bool:
            return len(statuses) >= 40 and bool((await tenant.read("/v1/events", limit=1))["events"])

        await until("traffic that is being processed", flowing)
        await town.platform.delete(tenant)
    assert statuses.count(200) >= 40
    assert set(statuses) <= {200, 401, 403}  # 403: while it is being deleted.

    # Nothing is left, and nothing that was still under way comes after.
    for _ in range(10):
        assert await _stored(installation, tenant) == {}
        await asyncio.sleep(0.1)
