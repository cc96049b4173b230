"""``GET /v1/events/stream``: nothing is missed, nobody waits for anybody, and nobody sees another tenant's."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import httpx
import pytest
from backhaul_gateway.reads import eventstream
from backhaul_gateway.reads.streamed import Position, message, position_of
from backhaul_local.nats_server import NatsServer
from backhaul_proto.event.v1.event_pb2 import EVENT_KIND_FAILED, EVENT_KIND_INBOUND
from backhaul_testing import broker, waiting
from cryptography.fernet import Fernet
from gateway_rig import GatewayFactory, Running
from reading_rig import headers, reading
from stream_rig import PATH, Reader, event, publish, reading_on


async def _open(gateway: Running) -> int:
    text = (await gateway.client.get("/metrics")).text
    (line,) = [line for line in text.splitlines() if line.startswith("backhaul_gateway_event_streams")]
    return int(float(line.rpartition(" ")[2]))


async def _until_open(gateway: Running, count: int) -> None:
    async def seen() -> bool:
        return await _open(gateway) == count

    await waiting.until(f"{count} open streams", seen)


async def test_events_are_told_as_a_page_has_them_and_by_its_filters(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    async with reading(gateway_factory, fresh_nats.uri) as (gateway, normalizer):
        acme = await gateway.tenant(queue_path="Acme-Prod")
        plain = event(
            gateway, "acme", "1", recipient="+44 20 7946 0958", communication_id="spring", references=["ref-1"],
            raw=b'{\r\n "a":\n "1\\n2"}', received_at_us=1_793_491_200_000_000,
        )  # fmt: skip
        failed = event(gateway, "acme", "2", EVENT_KIND_FAILED, error_code="5.1.1", channel="outbound-delivery")
        duplicate = event(gateway, "acme", "3", duplicate_of="1")
        earlier = event(gateway, "acme", "4", registration="acme.0123456789ab")
        reply = event(gateway, "acme", "5", EVENT_KIND_INBOUND, text="data: \u2028 hello\r\n\nid: 7")
        batches = [[plain, duplicate, earlier], [failed], [reply]]
        filters: list[tuple[dict[str, str], list[str]]] = [
            ({}, ["1", "2", "5"]),
            ({"channel": "Twilio"}, ["1", "5"]),
            ({"channel": "Outbound Delivery"}, ["2"]),
            ({"channel": ">"}, []),
            ({"kind": "failed"}, ["2"]),
            ({"kind": "Inbound", "channel": "twilio"}, ["5"]),
            ({"error_code": "5.1.1"}, ["2"]),
            ({"message_id": "ref-1"}, ["1"]),
            ({"recipient": "+442079460958"}, ["1"]),
            ({"communication": "spring"}, ["1"]),
        ]
        await publish(gateway, "acme-prod", batches)
        normalizer.events = [plain, failed, reply]
        page = (await gateway.client.get("/v1/events", headers=headers(acme))).json()["events"]
        for query, ids in filters:
            # What comes last ends each of them: it is all that is wanted of whoever waits for more.
            async with reading_on(gateway, acme, "0", **query) as reader:
                told = [await reader.next() for _ in ids]
                assert [one.data["id"] for one in told if one is not None] == ids, query
                assert [one.data for one in told if one is not None] == [one for one in page if one["id"] in ids]
        for query, field in (({"kind": "none"}, "kind"), ({"weather": "fine"}, "weather")):
            answer = await gateway.client.get(PATH, params=query, headers=headers(acme))
            gateway.problem(answer, 422, field)


async def test_a_reader_goes_on_over_a_restart_of_the_gateway_and_of_the_broker(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    """Nothing is missed, and nothing comes again whose id was taken; in the middle of a message, too."""
    key = Fernet.generate_key().decode()
    async with gateway_factory(fresh_nats.uri, secret_keys=key) as gateway:
        acme = await gateway.tenant()
        events = [event(gateway, "acme", f"{number}") for number in range(30)]
        async with reading_on(gateway, acme) as reader:
            await reader.heartbeat()
            await publish(gateway, "acme", [events[:10]])
            assert await reader.ids(4) == ["0", "1", "2", "3"]
            # The gateway stops while it is read from.
            gateway.server.should_exit = True
    async with gateway_factory(fresh_nats.uri, secret_keys=key) as gateway:
        await publish(gateway, "acme", [events[10:12], events[12:13]])
        async with reading_on(gateway, acme, reader.last_id) as again:
            assert await again.ids(9) == [str(number) for number in range(4, 13)]
            await fresh_nats.kill()
            await fresh_nats.start()
            await gateway.ready()
            await publish(gateway, "acme", [[one] for one in events[13:30]])
            assert await again.ids(17) == [str(number) for number in range(13, 30)]


async def test_who_has_no_right_to_it_is_told_nothing_more(gateway: Running) -> None:
    acme, other = await gateway.tenant(), await gateway.tenant("other")
    assert (await gateway.client.get(PATH)).status_code == 401
    issued = await gateway.client.post("/admin/v1/tenants/acme/keys", headers=gateway.admin, json={"kind": "api"})
    second = issued.json()
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(reading_on(gateway, acme))
        theirs = await stack.enter_async_context(reading_on(gateway, other))
        asked = gateway.client.stream("GET", PATH, headers={"X-Api-Key": second["key"]})
        revoked = Reader(await stack.enter_async_context(asked))
        for reader in (first, theirs, revoked):
            await reader.heartbeat()
        await publish(gateway, "acme", [[event(gateway, "acme", "1")]])
        # Published under the path of one, of the other: it is nobody's.
        await publish(gateway, "acme", [[event(gateway, "other", "2")]])
        await publish(gateway, "other", [[event(gateway, "other", "3")]])
        assert await first.ids(1) == ["1"]
        assert await revoked.ids(1) == ["1"]
        assert await theirs.ids(1) == ["3"]
        path = f"/admin/v1/tenants/acme/keys/{second['id']}"
        assert (await gateway.client.delete(path, headers=gateway.admin)).status_code == 204
        told = await revoked.next()
        assert told is not None
        assert (told.name, told.data["code"]) == ("end", "unauthenticated")
        assert await revoked.next() is None
        # The other key's goes on, until the tenant may do nothing.
        await publish(gateway, "acme", [[event(gateway, "acme", "4")]])
        assert await first.ids(1) == ["4"]
        await gateway.client.patch("/admin/v1/tenants/acme", headers=gateway.admin, json={"status": "suspended"})
        told = await first.next()
        assert told is not None
        assert (told.name, told.data["code"]) == ("end", "forbidden")
        assert await first.next() is None
        await publish(gateway, "other", [[event(gateway, "other", "5")]])
        assert await theirs.ids(1) == ["5"]


HOSTILE = [
    "x",
    "-1",
    "1.",
    ".1",
    "1.2.3",
    "01",
    "1e3",
    "0.1",
    "9223372036854775808",
    "9" * 40,
    "1" * 65,
    "\u0661",
    "1;2",
]


async def test_an_id_that_is_none_is_refused_and_one_that_is_gone_is_said(gateway: Running) -> None:
    acme = await gateway.tenant()
    for text in HOSTILE:
        sent = httpx.Headers([*headers(acme).items(), ("Last-Event-ID", text)], encoding="utf-8")
        answer = await gateway.client.get(PATH, headers=sent)
        gateway.problem(answer, 422, "Last-Event-ID")
    await publish(gateway, "acme", [[event(gateway, "acme", f"{number}")] for number in range(6)])
    client = await broker.connect(gateway.settings.nats_url)
    try:
        await client.jetstream().purge_stream("EVENTS", seq=4)  # What is older than the stream keeps.
    finally:
        await client.close()
    # The first that is kept is 4: behind 3 nothing is missing.
    for last_id, missed in (("3", False), ("4", False), ("4.0", False), ("3.0", True), ("1", True), ("0", True)):
        async with reading_on(gateway, acme, last_id) as reader:
            if missed:
                told = await reader.next()
                assert told is not None
                assert (told.name, told.id) == ("missed", "3"), last_id
                assert (told.data["after"], told.data["up_to"]) == (last_id, "3")
                assert "GET /v1/events" in told.data["message"]
            expected = ["4", "5"] if last_id.startswith("4") else ["3", "4", "5"]
            assert await reader.ids(len(expected)) == expected
    # Further than the stream is: it is another one than the id's.
    async with reading_on(gateway, acme, "9223372036854775807.3") as reader:
        told = await reader.next()
        assert told is not None
        assert told.name == "missed"
        assert await reader.ids(3) == ["3", "4", "5"]


async def test_a_quiet_reader_learns_how_far_was_looked(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes back after a long silence has an id that is no older than the stream."""
    monkeypatch.setattr(eventstream, "HEARTBEAT_S", 0.05)
    acme, _ = await gateway.tenant(), await gateway.tenant("other")
    async with reading_on(gateway, acme, kind="failed") as reader:
        await reader.heartbeat()
        assert reader.last_id == "0"
        await publish(gateway, "other", [[event(gateway, "other", "1")]])
        await publish(gateway, "acme", [[event(gateway, "acme", "2")]])
        async with asyncio.timeout(60):
            while reader.last_id != "2":
                await reader.heartbeat()
        await publish(gateway, "acme", [[event(gateway, "acme", "3", EVENT_KIND_FAILED)]])
        assert await reader.ids(1) == ["3"]


async def test_only_so_many_streams_are_open(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eventstream, "PER_TENANT", 2)
    async with gateway_factory(fresh_nats.uri, gateway_max_event_streams=3) as gateway:
        # A stream is one of the reads at once only until it has begun.
        acme = await gateway.tenant(limits={"concurrent_reads": 1})
        other = await gateway.tenant("other")
        async with reading_on(gateway, other), reading_on(gateway, acme) as kept:
            await kept.heartbeat()
            async with reading_on(gateway, acme):
                for tenant, status in ((acme, 429), (other, 503)):
                    answer = await gateway.client.get(PATH, headers=headers(tenant))
                    problem = gateway.problem(answer, status)
                    assert "streams of events" in problem["detail"]
                    assert int(answer.headers["Retry-After"]) >= 1
            # Who hangs up makes room.
            await _until_open(gateway, 2)
            async with reading_on(gateway, acme) as reader:
                await reader.heartbeat()
            await publish(gateway, "acme", [[event(gateway, "acme", "1")]])
            assert await kept.ids(1) == ["1"]
        await _until_open(gateway, 0)


async def test_who_does_not_read_is_cut_off_and_nobody_waits(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    async with gateway_factory(fresh_nats.uri, gateway_read_timeout_s=1) as gateway:
        acme = await gateway.tenant()
        large = [[event(gateway, "acme", f"{number}", raw=b'{"a":"' + b"x" * 300_000 + b'"}')] for number in range(40)]
        async with reading_on(gateway, acme) as reader:
            await reader.heartbeat()
            stalled, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=4096)
            writer.write(f"GET {PATH} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {acme.api_key}\r\n\r\n".encode())
            await _until_open(gateway, 2)
            reading_all = asyncio.create_task(reader.ids(40))
            await publish(gateway, "acme", large)
            # It is not read from, so some of it lies in the systems' buffers, and the rest is never sent.
            await _until_open(gateway, 1)
            assert await reading_all == [str(number) for number in range(40)]
            # It has the ids by which it may go on.
            got = b""
            try:
                while piece := await asyncio.wait_for(stalled.read(1 << 16), 20):
                    got += piece
            except ConnectionError:
                pass
            writer.close()
            assert got.count(b"\nid: ") < 40
            assert (await gateway.client.get("/metrics")).text.count('reason="read"') == 1


def test_an_event_of_many_lines_is_one_message() -> None:
    """The provider's JSON comes as it was sent, and each of its lines is one of the message's."""
    text = message(Position(7, 2), b'{\r"a":\r\n1}\n')
    assert text == b'id: 7.2\ndata: {\ndata: "a":\ndata: 1}\n\n'
    assert position_of("7.2") == Position(7, 2)
