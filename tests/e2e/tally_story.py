"""What happens to the service of docs/adding-a-service.md. A program: it runs where that service is installed."""

from __future__ import annotations

import asyncio
import sys
import urllib.request
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

import nats
from backhaul_common.names import EVENTS_STREAM, events_of
from backhaul_common.rpc import connect
from backhaul_common.settings import CommonSettings
from backhaul_common.vocabulary import Words
from backhaul_local.scratch import scratch
from backhaul_local.stack import Stack, StackConfig
from backhaul_proto.event.v1.event_pb2 import DESCRIPTOR, EventBatch
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until
from pymongo import AsyncMongoClient
from simulators.people import Town

if TYPE_CHECKING:
    from simulators.people import Tenant

TODAY = datetime.now(UTC).date().isoformat()
WORDS = ("queued", "sent", "delivered")
KINDS = Words(DESCRIPTOR.enum_types_by_name["EventKind"])
WATCHED, KILLED = 10, 100


async def main(mongo_uri: str, mongo_database: str) -> None:
    """Everything that the page promises."""
    with scratch() as folder:
        config = StackConfig(
            data_dir=folder, mongo_uri=mongo_uri, mongo_database=mongo_database, with_object_store=False
        )
        async with Stack(config) as stack, Town(stack.gateway_url, stack.admin_token) as town:
            one, other = [await town.platform.register() for _ in range(2)]
            told = await watched(stack, one)
            assert told[0] == {}
            assert told[-1] == dict.fromkeys(WORDS, WATCHED)
            await killed(stack, other)
            await told_again(stack, other)
            lines = (await asyncio.to_thread(metrics_of, stack)).splitlines()
            assert [line for line in lines if line.startswith("backhaul_tally_events_total{") and other.id in line]
            assert (await other.get("/v1/tally/yesterday")).status_code == 422
            await town.platform.delete(one)
            assert await kept_of(stack, one) == 0
            assert await kept_of(stack, other) == len(WORDS) * KILLED + 1
            assert await tally_of(other) == {**dict.fromkeys(WORDS, KILLED), "inbound": 1}


async def watched(stack: Stack, tenant: Tenant) -> list[dict[str, int]]:
    """What a watcher is told while callbacks come in."""
    # The contract is the page's: it is there when this runs, and not when its types are checked.
    pb, pb_grpc = (import_module(f"backhaul_proto.tally.v1.{name}") for name in ("tally_pb2", "tally_pb2_grpc"))
    words: Any = import_module("backhaul_tally.store").KINDS
    environment: dict[str, Any] = stack.member("tally").env  # type: ignore[attr-defined]  # services have one
    shown = {
        f"grpc_tls_{name}_file": environment[f"BACKHAUL_GRPC_TLS_{name.upper()}_FILE"] for name in ("cert", "key", "ca")
    }
    shown["internal_token"] = environment["BACKHAUL_INTERNAL_TOKEN"]
    told: list[dict[str, int]] = []
    async with connect(environment["BACKHAUL_TALLY_GRPC_LISTEN"], CommonSettings(**shown)) as channel:
        watching = pb_grpc.TallyServiceStub(channel).WatchDay(pb.WatchDayRequest(tenant_id=tenant.id, day=TODAY))
        async for answer in watching:
            told.append({words.word(row.kind): row.count for row in answer.events})
            if len(told) == 1:
                await post(tenant, range(WATCHED))
            if sum(told[-1].values()) == WATCHED * len(WORDS):
                return told
    raise AssertionError(f"the stream ended: {told}")


async def killed(stack: Stack, tenant: Tenant) -> None:
    """The service is killed again and again while it counts."""
    posting = asyncio.create_task(post(tenant, range(KILLED)))
    for _ in range(3):
        before = sum((await tally_of(tenant)).values())

        async def more(before: int = before) -> bool:
            return posting.done() or sum((await tally_of(tenant)).values()) > before

        await until("some more to be counted", more)
        await stack.kill("tally")
        await stack.member("tally").start()
    await posting

    async def all_counted() -> bool:
        return await tally_of(tenant) == dict.fromkeys(WORDS, KILLED)

    await until("all to be counted", all_counted, within_s=30)


async def told_again(stack: Stack, tenant: Tenant) -> None:
    """EVENTS has an event once more, as after a crash of the normalizer: it is not counted, and what comes next is.

    When it turns out to duplicate another one it counts no more, and once more when it turns out not to.
    """
    connection = await nats.connect(stack.nats_url, connect_timeout=20)
    try:
        js = connection.jetstream()
        last = await js.get_last_msg(EVENTS_STREAM, events_of(tenant.queue_path))
        assert last.subject is not None
        await js.publish(last.subject, last.data or b"")
        for duplicate_of, count in (("another", KILLED - 1), ("", KILLED)):
            batch = EventBatch.FromString(last.data or b"")
            (event,) = batch.events[:1]
            event.revision += 1 if duplicate_of else 2
            event.duplicate_of = duplicate_of
            await js.publish(last.subject, batch.SerializeToString())
            word = KINDS.word(event.kind)

            async def corrected(word: str = word, count: int = count) -> bool:
                return (await tally_of(tenant)).get(word) == count

            await until("what is corrected", corrected)
    finally:
        await connection.close()
    inbound = tenant.twilio.inbound(tenant.address("Twilio"), new_sid(), "hello")
    assert (await tenant.send(inbound)).status_code == 200

    async def counted() -> bool:
        return "inbound" in await tally_of(tenant)

    await until("what came behind it", counted)
    assert await tally_of(tenant) == {**dict.fromkeys(WORDS, KILLED), "inbound": 1}


async def post(tenant: Tenant, messages: range) -> None:
    """The statuses of some messages, each twice."""
    for _ in messages:
        sid = new_sid()
        for word in WORDS:
            one = tenant.twilio.status(tenant.address("Twilio"), sid, word)
            assert [(await tenant.send(one)).status_code for _ in range(2)] == [200, 200]


async def tally_of(tenant: Tenant) -> dict[str, int]:
    """What the gateway answers; nothing while the service is away."""
    answer = await tenant.get(f"/v1/tally/{TODAY}")
    if answer.status_code == 503:
        return {}
    assert answer.status_code == 200, answer.text
    events: dict[str, int] = answer.json()["events"]
    return events


async def kept_of(stack: Stack, tenant: Tenant) -> int:
    """How many ids of events MongoDB has of the tenant."""
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(stack.mongo_uri)
    async with client:
        database = client[stack.mongo_database]
        days = await database["tally_days"].count_documents({"registration": tenant.registration})
        ids = await database["tally_ids"].count_documents({"registration": tenant.registration})
    assert days == bool(ids)
    return ids


def metrics_of(stack: Stack) -> str:
    """What Prometheus reads."""
    port = stack.member("tally").ports["metrics"]  # type: ignore[attr-defined]  # services have some
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
