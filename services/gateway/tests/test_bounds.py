"""What one tenant, or a stranger, may take of the gateway's memory, so that the others' callbacks get through."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from backhaul_client.adminmodels import NewTenant
from backhaul_common.sizes import MAX_HEADER_BYTES, MAX_QUERY_BYTES
from backhaul_gateway.admission.limits import MemoryBudget
from backhaul_gateway.ingest.publisher import MAX_UNSENT_BYTES
from backhaul_gateway.web.http import MAX_HEAD_BYTES
from backhaul_local.nats_server import NatsServer
from gateway_rig import GatewayFactory, Running

BODY = 1 << 20
"""Bytes of the largest body that is admitted by default."""

BUDGET = 16 << 20


def test_a_tenant_may_hold_half_and_leaves_room_for_others() -> None:
    budget = MemoryBudget(1000)
    assert budget.take("greedy", 500)
    assert not budget.take("greedy", 1)
    assert budget.take("second", 250)
    assert not budget.take("second", 1)
    assert budget.take("third", 125)
    assert budget.used == 875
    budget.give_back("greedy", 500)
    assert budget.take("third", 200)
    for tenant_id, size in (("second", 250), ("third", 325)):
        budget.give_back(tenant_id, size)
    assert budget.used == 0
    assert budget.take("greedy", 500)


async def _post(gateway: Running, tenant: NewTenant, size: int) -> int:
    answer = await gateway.client.post(
        "/api/postevents?channelLabel=Twilio", content=b"x" * size, headers={"X-Api-Key": tenant.api_key}
    )
    return answer.status_code


@pytest.mark.timed
async def test_one_tenants_flood_leaves_room_for_another(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    async with gateway_factory(fresh_nats.uri, gateway_max_held_bytes=BUDGET, gateway_publish_timeout_s=4.5) as gateway:
        greedy, other = await gateway.tenant("greedy"), await gateway.tenant("other")
        for tenant_id in ("greedy", "other"):
            await gateway.channel(tenant_id, verification="off")
        fresh_nats.pause()
        flood = [asyncio.create_task(_post(gateway, greedy, BODY)) for _ in range(20)]
        # Half of the budget waits for JetStream; what is beyond it is refused at once.
        refused = 20 - BUDGET // 2 // BODY
        done: set[asyncio.Task[int]] = set()
        async with asyncio.timeout(4):
            while len(done) < refused:
                done, _ = await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
                flood = [task for task in flood if task not in done] + list(done)
                await asyncio.sleep(0.01)  # asyncio.wait returns at once for those that have ended
        assert {task.result() for task in done} == {503}
        await gateway.until_waiting(BUDGET // 2 // BODY)
        small = [asyncio.create_task(_post(gateway, other, BODY)) for _ in range(3)]
        await gateway.until_waiting(BUDGET // 2 // BODY + 3)
        fresh_nats.resume()
        assert await asyncio.gather(*small) == [200] * 3
        assert sorted(await asyncio.gather(*flood)) == [200] * (20 - refused) + [503] * refused
        assert await _post(gateway, greedy, BODY) == 200


async def test_unfinished_bodies_are_counted(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> None:
    async with (
        gateway_factory(fresh_nats.uri, gateway_max_held_bytes=BUDGET) as gateway,
        AsyncExitStack() as stack,
    ):
        greedy, other = await gateway.tenant("greedy"), await gateway.tenant("other")
        for tenant_id in ("greedy", "other"):
            await gateway.channel(tenant_id, verification="off")
        answers = []
        for _ in range(12):
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            stack.callback(writer.close)
            writer.write(_head(greedy, BODY) + b"x" * (BODY - 1))
            answers.append(asyncio.create_task(reader.readline()))
        async with asyncio.timeout(60):
            # Half of the budget, in bodies that lack their last byte; a further one is told so before it is complete.
            while sum(task.done() for task in answers) < 4:
                await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
                await asyncio.sleep(0.01)  # as above
        assert {task.result()[:12] for task in answers if task.done()} == {b"HTTP/1.1 503"}
        assert await _post(gateway, greedy, BODY) == 503
        assert await _post(gateway, other, BODY) == 200
        await stack.aclose()
        async with asyncio.timeout(60):
            # Who goes away gives back what was held for them; the server hears of it a moment later.
            while await _post(gateway, greedy, 6 * BODY // 10) != 200:
                await asyncio.sleep(0.01)
        await asyncio.gather(*answers)


def _head(tenant: NewTenant, size: int) -> bytes:
    return (
        b"POST /api/postevents?channelLabel=Twilio HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"
        b"X-Api-Key: %s\r\nContent-Length: %d\r\n\r\n" % (tenant.api_key.encode(), size)
    )


async def test_a_head_that_does_not_end(gateway: Running) -> None:
    tenant = await gateway.tenant()
    await gateway.channel(verification="off")
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"POST /api/postevents HTTP/1.1\r\n")
    line = b"X-Filler: " + b"a" * 1000 + b"\r\n"
    sent, endless = 0, 1024 * MAX_HEAD_BYTES
    answer = b""
    async with asyncio.timeout(60):
        try:
            while sent < endless:
                writer.write(line * 16)
                sent += len(line) * 16
                await writer.drain()
            answer = await reader.read()
        except ConnectionError:
            pass  # Closed with bytes unread, the connection is reset, and the answer may be lost with it.
    assert answer[:12] in (b"", b"HTTP/1.1 431")
    assert sent < endless
    writer.close()
    # A head that comes in small parts, and one behind a large body on the same connection, are no such thing.
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    for size in (BODY, 3):
        head = _head(tenant, size)
        writer.write(head[:30])
        await writer.drain()
        await asyncio.sleep(0.01)  # so that the parts are separate reads; together they would only test less
        writer.write(head[30:] + b"x" * size)
        assert await gateway.status_of(reader) == 200
    writer.close()


@pytest.mark.parametrize(
    ("query", "headers", "field"),
    [
        (f"&v={'a' * MAX_QUERY_BYTES}", {}, "query"),
        ("", {"X-Filler": "a" * MAX_HEADER_BYTES}, "headers"),
    ],
)
async def test_what_is_kept_with_each_callback_is_bounded(
    gateway: Running, query: str, headers: dict[str, str], field: str
) -> None:
    tenant = await gateway.tenant()
    await gateway.channel(verification="off")
    path = f"/api/postevents?channelLabel=Twilio{query}"
    gateway.problem(await gateway.post(tenant, path, headers=headers), 413, field)
    assert await gateway.stored() == []


async def test_what_changes_while_a_body_comes_in_counts(gateway: Running) -> None:
    tenant = await gateway.tenant()
    await gateway.channel(verification="off")
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(_head(tenant, 100_000) + b"x" * 90_000)
    async with asyncio.timeout(60):
        while not await _held_bytes(gateway):  # seen from outside there is nothing else to wait for
            await asyncio.sleep(0.01)
    answer = await gateway.client.patch("/admin/v1/tenants/acme", headers=gateway.admin, json={"status": "suspended"})
    assert answer.status_code == 200, answer.text
    writer.write(b"x" * 10_000)
    assert (await reader.readline())[9:12] == b"403"
    writer.close()
    assert await gateway.stored() == []
    async with asyncio.timeout(60):
        while await _held_bytes(gateway):  # It is freed behind the answer.
            await asyncio.sleep(0.01)


async def _held_bytes(gateway: Running) -> float:
    text = (await gateway.client.get("/metrics")).text
    (line,) = [line for line in text.splitlines() if line.startswith("backhaul_gateway_queued_bytes")]
    return float(line.split()[-1])


async def test_a_server_that_takes_nothing_does_not_fill_the_memory(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    async with gateway_factory(fresh_nats.uri, gateway_publish_timeout_s=0.3) as gateway:
        tenant = await gateway.tenant()
        await gateway.channel(verification="off")
        client = gateway.publisher.client
        assert client is not None
        fresh_nats.pause()
        for _ in range(8):
            assert set(await asyncio.gather(*(_post(gateway, tenant, BODY) for _ in range(8)))) == {503}
        # Of the eight that are let in together all may still be sent.
        assert client.pending_data_size <= MAX_UNSENT_BYTES + 9 * BODY
        fresh_nats.resume()
        await gateway.ready()
        async with asyncio.timeout(60):
            while await _post(gateway, tenant, BODY) != 200:  # A busy machine does not always store it within 0.3 s.
                await asyncio.sleep(0.05)
