"""MongoDB and the bucket are lost, and come back as they were a while ago: CALLBACKS and EVENTS bring back the rest.

docs/backup.md says what is done here, in the same order, and what does not come back.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
import pytest
from backhaul_testing import broker, streams
from backhaul_testing.receiver import Receiver
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until
from faults import filed
from faults.account import drained, key_of
from minio import Minio
from pymongo import MongoClient
from simulators.archive import ask_for_files
from simulators.load import Load
from simulators.people import Tenant, Town

if TYPE_CHECKING:
    from backhaul_client.models import Event
    from backhaul_local.pytest_plugin import StackFactory
    from backhaul_local.stack import Stack

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

ENV = {
    **filed.ENV,
    "BACKHAUL_NOTIFIER_PLAIN_HTTP": "true",
    "BACKHAUL_NOTIFIER_ALLOWED_NETWORKS": "127.0.0.0/8",
}
RECORDED = {"revision", "created_at"}
"""How often a row was written, and when it was first."""

KNOWN_BY = {"received_at", "callback_id", "traceparent", "last_event_at"}
"""Of what several callbacks told, and of no other, which of them it is known by is not compared: they are read in other
batches than at first."""

UNDONE_BY_DELIVERY = {"hard_bounce", "invalid_address", "provider_block"}
"""Of these only that they are there is compared. The load has an address bounce and be delivered to many times in one
second, which is all that the provider's clock tells, and which of them counts then depends on the order of reading."""

POSTS = 40
BEFORE, AFTER, GONE, BY_HAND, AWAY = (f"+1500555{number}" for number in ("8101", "8102", "8103", "8104", "8105"))
"""Who says STOP before the backup and after it, who is erased after it, who is suppressed by a call after it, and who
says STOP while MongoDB is away."""


async def test_what_was_lost_since_the_backup_comes_back_from_the_streams(
    stack_factory: StackFactory, tmp_path: Path
) -> None:
    async with (
        stack_factory(env=ENV, with_object_store=True) as stack,
        Receiver() as receiver,
        Town(stack.gateway_url, stack.admin_token) as town,
    ):
        tenants = await town.platform.register(), await town.platform.register()
        for tenant in tenants:
            await ask_for_files(town.platform, tenant, with_event=True)
            await tenant.client.subscriptions.create(["message.*"], http={"url": receiver.url(f"/{tenant.id}")})
        backup = _Backup(stack, tmp_path)
        async with Load(tenants) as load:
            await load.more(POSTS)
            for tenant in tenants:
                await tenant.receive(tenant.reply(BEFORE, "STOP"))
            await until("suppressions", lambda: _suppressed(tenants, BEFORE))
            await asyncio.to_thread(backup.make)
            await load.more(POSTS)
        for tenant in tenants:
            address = tenant.address("Twilio", communicationId="late")
            await tenant.receive(
                tenant.reply(AFTER, "STOP"), tenant.twilio.status(address, new_sid(), "delivered", to=GONE)
            )
        await _caught_up(stack)
        for tenant in tenants:
            await tenant.client.suppress(BY_HAND, "stop", source="letter", effective_at=datetime.now(UTC))
            await _erase(tenant, GONE)
        await _told(receiver, tenants)
        await filed.settle(stack, *tenants)
        before = [await _state(tenant, load) for tenant in tenants]
        for was in before:
            assert any("callback_id" in event for event in was["events"].values()), "each was told several times"
        told = {call.headers["webhook-id"] for call in receiver.calls}

        assert stack.mongo is not None
        assert stack.s3 is not None
        await stack.mongo.kill()
        await stack.s3.kill()
        # Callbacks are taken meanwhile.
        for tenant in tenants:
            await tenant.receive(tenant.reply(AWAY, "STOP"))
        for service in stack.services:
            if service.name != "gateway":
                await service.stop()
        backup.destroy()
        backup.restore_database()
        await stack.mongo.start()
        await stack.s3.start()
        await asyncio.to_thread(backup.restore_bucket)
        await stack.member("gateway").stop()
        connection = await broker.connect(stack.nats_url)
        try:
            for stream, consumer in (("CALLBACKS", "normalizer"), ("EVENTS", "suppression")):
                await connection.jetstream().delete_consumer(stream, consumer)
        finally:
            await connection.close()
        await stack.start_services()
        await _caught_up(stack)
        for tenant in tenants:
            # What people said comes back by itself; what was said by a call, and who was erased, by the same calls.
            assert await _suppressed([tenant], BEFORE, AFTER, AWAY)
            assert not await _suppressed([tenant], BY_HAND)
            assert any(event.recipient == GONE for event in await tenant.events(page_size=500))
            await tenant.client.suppress(BY_HAND, "stop", source="letter", effective_at=datetime.now(UTC))
            await _erase(tenant, GONE)
        for tenant, was in zip(tenants, before, strict=True):
            # Besides, there is what came while MongoDB was away.
            now = _without(await _state(tenant, load), AWAY)
            assert [(name, one) for name in was for one in _different(now[name], was[name])] == []
            assert await tenant.dead_letters() == []
        await filed.settle(stack, *tenants)
        await _told(receiver, tenants)
        # Applications are told again under the ids that they know.
        again = Counter(call.headers["webhook-id"] for call in receiver.calls)
        assert told <= again.keys()
        assert sum(again.values()) - len(again) > 0


class _Backup:
    """What operators have: the files of mongod as they lie while it writes nothing, and a copy of each object."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self._stack = stack
        self._kept = folder / "db"
        self._files = stack.config.data_dir / "mongo" / "db"
        self._objects: list[tuple[str, bytes, dict[str, str]]] = []

    def make(self) -> None:
        with MongoClient[dict[str, Any]](self._stack.mongo_uri) as client:
            client.admin.command("fsync", lock=True)
            try:
                shutil.copytree(self._files, self._kept)
                self._copy_objects()
            finally:
                client.admin.command("fsyncUnlock")

    def destroy(self) -> None:
        shutil.rmtree(self._files)
        shutil.rmtree(self._stack.config.data_dir / "s3" / "data")

    def restore_database(self) -> None:
        shutil.copytree(self._kept, self._files)
        # It was copied from a running server.
        (self._files / "mongod.lock").write_bytes(b"")

    def restore_bucket(self) -> None:
        client, bucket = self._bucket()
        for key, data, metadata in self._objects:
            client.put_object(bucket, key, BytesIO(data), len(data), metadata=dict(metadata))

    def _copy_objects(self) -> None:
        client, bucket = self._bucket()
        for found in client.list_objects(bucket, recursive=True):
            if found.is_dir:
                continue
            key = str(found.object_name)
            answer = client.get_object(bucket, key)
            try:
                said = {name: value for name, value in answer.headers.items() if name.lower().startswith("x-amz-meta-")}
                self._objects.append((key, answer.read(), said))
            finally:
                answer.close()
                answer.release_conn()

    def _bucket(self) -> tuple[Minio, str]:
        access = self._stack.object_store
        assert access is not None
        place = access.endpoint.partition("://")[2]
        client = Minio(place, access_key=access.access_key, secret_key=access.secret_key, secure=False)
        return client, access.bucket


async def _caught_up(stack: Stack) -> None:
    """Return when the normalizer and suppression have read all that the streams have."""
    await drained(stack, within_s=120)
    connection = await broker.connect(stack.nats_url)
    try:
        await streams.drained(connection, "EVENTS", "suppression", within_s=120)
    finally:
        await connection.close()


async def _suppressed(tenants: Any, *addresses: str) -> bool:
    for tenant in tenants:
        rows = {row.address async for row in tenant.client.suppressions(standing="active", page_size=500)}
        if not rows.issuperset(addresses):
            return False
    return True


async def _erase(tenant: Tenant, address: str) -> None:
    async def probe() -> bool:
        url = f"{tenant.base_url}/v1/recipients/{quote(address)}"
        answer = await tenant.http.delete(url, headers={"X-Api-Key": tenant.api_key})
        assert answer.status_code in (200, 503), answer.text
        return bool(answer.status_code == 200)

    await until("an erasure", probe, pause_s=0.5)


async def _told(receiver: Receiver, tenants: Any) -> None:
    """Return when nothing waits to be told."""

    async def probe() -> bool:
        for tenant in tenants:
            async for delivery in tenant.client.deliveries.list(page_size=500):
                if delivery.state == "waiting":
                    return False
        return bool(receiver.calls)

    await until("the end of all deliveries", probe, within_s=120, pause_s=0.3)


async def _state(tenant: Tenant, load: Load) -> dict[str, Any]:
    """All that can be read of a tenant, but for its deliveries, and for ``RECORDED`` and ``KNOWN_BY``."""

    def told_once(event: Event) -> bool:
        return load.tries[key_of(tenant, event)] <= 1

    def bare(event: Event) -> Any:
        return _plain(event, set() if told_once(event) else KNOWN_BY)

    events = {event.id: bare(event) for event in await tenant.events(page_size=500)}
    messages: dict[Any, Any] = {}
    for row in await tenant.messages(page_size=500):
        message = await tenant.message(row.channel, row.message_id)
        assert message is not None
        known = set() if all(map(told_once, message.timeline)) else KNOWN_BY
        timeline = [bare(event) for event in message.timeline]
        messages[row.channel, row.message_id] = {**_plain(message, known), "timeline": timeline}
    rows = [row async for row in tenant.client.suppressions(standing="any", page_size=500)]
    suppressions: dict[Any, Any] = {}
    for found in rows:
        if found.kind in UNDONE_BY_DELIVERY:
            suppressions[found.address, found.kind] = None
        else:
            key = (found.address, found.kind, found.active, found.origin, found.source, found.event_id)
            suppressions[key] = found.due_by is None
    communications = sorted({one["communication_id"] for one in events.values()} - {""})
    counted = {id_: _plain(await tenant.communication(id_), KNOWN_BY) for id_ in communications}
    return {"events": events, "messages": messages, "suppressions": suppressions, "communications": counted}


def _different(now: Mapping[Any, Any], was: Mapping[Any, Any]) -> list[Any]:
    """The first that differ, as they are and as they were."""
    found: list[Any] = []
    for key in now.keys() | was.keys():
        ours, theirs = now.get(key), was.get(key)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            found += [(key, part, ours.get(part), theirs.get(part)) for part in ours if ours[part] != theirs.get(part)]
        elif ours != theirs:
            found.append((key, ours, theirs))
    return found[:5]


def _plain(value: Any, without: set[str]) -> Any:
    """``value`` without these fields and ``RECORDED``, at any depth."""
    plain = msgspec.to_builtins(value)

    def bare(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: bare(one) for name, one in part.items() if name not in without | RECORDED}
        return [bare(one) for one in part] if isinstance(part, list | tuple) else part

    return bare(plain)


def _without(state: dict[str, Any], address: str) -> dict[str, Any]:
    """``state`` without what is of one person."""
    events = {
        key: one for key, one in state["events"].items() if one["sender"] != address and one["recipient"] != address
    }
    gone = {one["message_id"] for key, one in state["events"].items() if key not in events}
    return {
        **state,
        "events": events,
        "messages": {key: one for key, one in state["messages"].items() if key[1] not in gone},
        "suppressions": {key: one for key, one in state["suppressions"].items() if key[0] != address},
    }
