"""Requests as bytes on a real port: what is stored of them, and what they may not do."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_gateway.admission.limits import MemoryBudget
from backhaul_gateway.ingest.body import BodyReader
from backhaul_gateway.ingest.request import Request
from backhaul_gateway.web.http import MAX_FIELDS, MAX_HEAD_BYTES, MAX_PIPELINED
from backhaul_proto.callback.v1.callback_pb2 import Callback

if TYPE_CHECKING:
    from backhaul_client.adminmodels import NewTenant
    from backhaul_local.nats_server import NatsServer
from gateway_rig import GatewayFactory, Running

PATH = "/api/postevents?channelLabel=Twilio"


def _request(
    tenant: NewTenant, *fields: str, body: bytes = b"a=1", version: str = "1.1", length: bool = True, target: str = PATH
) -> bytes:
    lines = [f"POST {target} HTTP/{version}", "Host: x", f"X-Api-Key: {tenant.api_key}", *fields]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _open(gateway: Running) -> NewTenant:
    tenant = await gateway.tenant()
    await gateway.channel(verification="off")
    return tenant


async def _callbacks(gateway: Running) -> list[Callback]:
    return [callback for batch in await gateway.stored() for callback in batch]


def _statuses(answer: bytes) -> list[bytes]:
    return [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]


OFFERS = [
    ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
    ("connection: keep-alive, UPGRADE", "upgrade: websocket"),
    ("Connection: upgrade", "Upgrade: h2c, TLS/1.2"),
    ("Connection: Upgrade", "Connection: HTTP2-Settings", "Upgrade: h2c"),
    ("Proxy-Connection: upgrade", "Upgrade: h2c"),
]


@pytest.mark.parametrize("fields", OFFERS, ids=str)
@pytest.mark.parametrize("pause_after", ["nothing", "head", "each byte"])
async def test_an_offer_to_upgrade_is_declined_and_the_body_is_stored(
    gateway: Running, fields: tuple[str, ...], pause_after: str
) -> None:
    tenant = await _open(gateway)
    request = _request(tenant, *fields, "X-Other: kept", body=b"GET /in-the-body HTTP/1.1\r\n\r\n")
    head = request.index(b"\r\n\r\n") + 4
    parts = {"nothing": [request], "head": [request[:head], request[head:]]}.get(
        pause_after, [bytes([byte]) for byte in request]
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    for part in parts:
        writer.write(part)
        await asyncio.sleep(0)  # so that the parts are separate reads
    assert await gateway.status_of(reader) == 200
    # The connection goes on as if nothing had been offered.
    writer.write(_request(tenant, body=b"second"))
    assert await gateway.status_of(reader) == 200
    writer.close()
    first, second = await _callbacks(gateway)
    assert (first.body, second.body) == (b"GET /in-the-body HTTP/1.1\r\n\r\n", b"second")
    assert b"x-other: kept\r\n" in first.headers
    assert b"upgrade" not in first.headers.lower()


async def test_a_chunked_body_behind_an_offer_is_stored(gateway: Running) -> None:
    tenant = await _open(gateway)
    head = _request(tenant, *OFFERS[0], "Transfer-Encoding: chunked", length=False, body=b"")
    answer = await gateway.raw(head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert _statuses(answer) == [b"200"]
    assert [callback.body for callback in await _callbacks(gateway)] == [b"abcde"]


async def test_offers_one_after_another_are_bounded(gateway: Running) -> None:
    """Each is read anew, so many of them in one read must neither recurse nor be copied for ever."""
    tenant = await _open(gateway)
    answer = await gateway.raw(_request(tenant, *OFFERS[0]) * 500)
    assert 1 <= len(_statuses(answer)) <= MAX_PIPELINED + 1
    assert set(_statuses(answer)) == {b"200"}
    assert len(await _callbacks(gateway)) == len(_statuses(answer))


@pytest.mark.parametrize("target", ["callbacks.example.com:443", PATH])
async def test_connect_is_refused_and_the_connection_closed(gateway: Running, target: str) -> None:
    tenant = await _open(gateway)
    request = _request(tenant, target=target).replace(b"POST", b"CONNECT", 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(request + _request(tenant))
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    assert _statuses(answer)[0] in (b"400", b"501")
    assert b"200" not in _statuses(answer)
    assert await _callbacks(gateway) == []


async def test_trailers_are_not_fields(gateway: Running) -> None:
    """Neither a credential nor a signature behind the body is seen, and none is stored."""
    tenant = await gateway.tenant()
    await gateway.channel()
    signature = gateway.sign(gateway.url + PATH, gateway.form)
    body = b"&".join(f"{key}={value}".encode().replace(b"+", b"%2B") for key, value in gateway.form.items())
    chunked = b"%x\r\n%s\r\n0\r\n" % (len(body), body)
    head = [f"POST {PATH} HTTP/1.1", "Host: x", "Transfer-Encoding: chunked"]
    head.append("Content-Type: application/x-www-form-urlencoded")
    key, signed = f"X-Api-Key: {tenant.api_key}", f"X-Twilio-Signature: {signature}"

    async def statuses(fields: list[str], trailers: list[str]) -> list[bytes]:
        tail = "".join(f"{line}\r\n" for line in [*trailers, ""]).encode()
        return _statuses(await gateway.raw("\r\n".join([*head, *fields, "", ""]).encode() + chunked + tail))

    assert await statuses([key, signed], ["X-Noise: 1"]) == [b"200"]
    assert await statuses([key], [signed]) == [b"403"]
    assert await statuses([signed], [key]) == [b"401"]
    assert b"x-noise" not in (await _callbacks(gateway))[0].headers
    admin = "GET /admin/v1/tenants HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    trailer = f"Authorization: {gateway.admin['Authorization']}\r\n\r\n"
    assert _statuses(await gateway.raw((admin + trailer).encode())) == [b"401"]


ENDLESS = {
    "fields of a head": (b"", b"X-Filler: " + b"a" * 1000 + b"\r\n"),
    "one field of a head": (b"X-Filler: ", b"a" * 1000),
    "a field's name": (b"", b"a" * 1000),
    "trailers": (b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", b"X-Filler: " + b"a" * 1000 + b"\r\n"),
    "one trailer": (b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Filler: ", b"a" * 1000),
    "a chunk's extension": (b"Transfer-Encoding: chunked\r\n\r\n1;a=", b"a" * 1000),
    "a chunk's size": (b"Transfer-Encoding: chunked\r\n\r\n", b"0" * 1000),
    "empty lines": (None, b"\r\n" * 500),
}


@pytest.mark.parametrize("what", ENDLESS)
@pytest.mark.parametrize("path", ["/api/postevents?channelLabel=Twilio", "/healthz", "/admin/v1/tenants"])
async def test_what_does_not_end_is_ended(gateway: Running, what: str, path: str) -> None:
    first, filler = ENDLESS[what]
    tenant = await _open(gateway)
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {tenant.api_key}\r\n".encode()
    writer.write(b"" if first is None else head + first)
    sent, endless = 0, 200 * MAX_HEAD_BYTES
    async with asyncio.timeout(60):
        try:
            while sent < endless:
                writer.write(filler * 16)
                sent += len(filler) * 16
                await writer.drain()
            pytest.fail(f"{sent} bytes were taken")
        except ConnectionError:
            pass  # Closed with bytes unread, the connection is reset, and the answer may be lost with it.
    writer.close()
    assert await _callbacks(gateway) == []
    assert (await gateway.client.get("/healthz")).status_code == 200


async def test_a_chunked_body_of_tiny_chunks_is_no_endless_framing(gateway: Running) -> None:
    """The framing may outweigh the body, as long as there is a body."""
    tenant = await _open(gateway)
    size = 100_000
    head = _request(tenant, "Transfer-Encoding: chunked", length=False, body=b"")
    answer = await gateway.raw(head + b"1;name=value\r\nx\r\n" * size + b"0\r\nX-Trailer: 1\r\n\r\n")
    assert _statuses(answer) == [b"200"]
    assert [callback.body for callback in await _callbacks(gateway)] == [b"x" * size]


async def test_too_many_fields(gateway: Running) -> None:
    tenant = await _open(gateway)
    fields = [f"X-{number}: 1" for number in range(MAX_FIELDS)]
    assert _statuses(await gateway.raw(_request(tenant, *fields))) == [b"431"]
    assert _statuses(await gateway.raw(_request(tenant, *fields[: MAX_FIELDS - 3]))) == [b"200"]


@pytest.mark.parametrize("filler", [b"a:\r\n", b"X-Filler: " + b"a" * 4000 + b"\r\n"], ids=["fields", "bytes"])
@pytest.mark.parametrize("path", ["/api/postevents?channelLabel=Twilio", "/healthz", "/nothing"])
async def test_a_head_is_bounded_however_much_of_it_comes_in_one_read(
    gateway: Running, filler: bytes, path: str
) -> None:
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\n".encode() + filler * (200_000 // len(filler))
    assert _statuses(await gateway.raw(head)) == [b"431"]
    assert _statuses(await gateway.raw(head + b"\r\n")) == [b"431"]


async def test_half_bodies_of_one_tenant_leave_places_to_others(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    async with gateway_factory(fresh_nats.uri, gateway_max_connections=24) as gateway:
        greedy = await _open(gateway)
        other = await gateway.tenant("other")
        await gateway.channel("other", verification="off")
        half = _request(greedy, "Content-Length: 10", length=False, body=b"half")
        writers = []
        refused = b""
        for _ in range(40):
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writers.append(writer)
            writer.write(half)
            with suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    refused = await reader.read(4096)
        assert _statuses(refused) == [b"503"]
        assert b"of the tenant's are under way" in refused
        assert _statuses(await gateway.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")) == [b"200"]
        assert _statuses(await gateway.raw(_request(other))) == [b"200"]
        for writer in writers:
            writer.write(b"whole!")
            writer.close()
        async with asyncio.timeout(60):
            while len(await _callbacks(gateway)) < 13:  # of a socket's other end, which has no event
                await asyncio.sleep(0.05)
        assert _statuses(await gateway.raw(_request(greedy))) == [b"200"]


@pytest.mark.parametrize("accepted", [True, False], ids=["accepted", "refused"])
async def test_an_answer_says_the_same_whoever_writes_it(gateway: Running, *, accepted: bool) -> None:
    """The last answer of a connection is uvicorn's; those before it are written at once."""
    request = _request(await _open(gateway), target=PATH if accepted else "/api/postevents?channelLabel=Nobodys")
    at_once = await gateway.raw(request, one=True)
    last = await gateway.raw(request.replace(b"Host: x", b"Host: x\r\nConnection: close"))
    assert _statuses(at_once) == [b"200" if accepted else b"404"]
    assert _told(at_once) == _told(last)
    assert b"\r\nconnection: close" in last


def _told(answer: bytes) -> tuple[list[bytes], int]:
    """What an answer says, but for what is different each time or at the end."""
    head, _, body = answer.partition(b"\r\n\r\n")
    differs = b"date:", b"backhaul-callback-id:", b"connection:"
    return [line for line in head.split(b"\r\n") if not line.startswith(differs)], len(body)


async def test_pipelined_requests_are_answered_in_order_and_bounded(gateway: Running) -> None:
    tenant = await _open(gateway)
    bodies = [b"n=%d" % number for number in range(MAX_PIPELINED + 1)]
    answer = await gateway.raw(b"".join(_request(tenant, body=body) for body in bodies))
    assert _statuses(answer) == [b"200"] * len(bodies)
    stored = await _callbacks(gateway)
    assert [callback.body for callback in stored] == bodies
    ids = [line[22:] for line in answer.split(b"\r\n") if line.startswith(b"backhaul-callback-id: ")]
    assert ids == [callback.id.encode() for callback in stored]
    # What is beyond is not served. Those before it are, the last of them says that the connection ends, and it does.
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(_request(tenant, body=b"again") * 2000)
    async with asyncio.timeout(60):
        answer = b""
        try:
            while chunk := await reader.read(65536):
                answer += chunk
        except ConnectionError:
            pass
    writer.close()
    assert set(_statuses(answer)) == {b"200"}
    assert b"connection: close" in answer.split(b"HTTP/1.1 ")[-1]
    again = [callback for callback in await _callbacks(gateway) if callback.body == b"again"]
    assert len(again) == len(_statuses(answer)) <= MAX_PIPELINED + 1


async def test_garbage_behind_a_request_spoils_no_answer(gateway: Running) -> None:
    """The refusal of what cannot be understood must not be read as the answer to what was stored."""
    tenant = await _open(gateway)
    for garbage in (b"\x00\x01\x02", b"GET / HTTP/9.9\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n"):
        answer = await gateway.raw(_request(tenant) + garbage)
        assert _statuses(answer) == [b"200"]
        assert b"connection: close" in answer
    # A request whose body cannot be understood, behind one that can.
    broken = _request(tenant, "Transfer-Encoding: chunked", length=False, body=b"nothing\r\n")
    assert _statuses(await gateway.raw(_request(tenant) + broken)) == [b"200"]
    assert _statuses(await gateway.raw(_request(tenant) * 2 + broken)) == [b"200"] * 2
    assert _statuses(await gateway.raw(broken)) == [b"400"]
    assert len(await _callbacks(gateway)) == 6


async def test_nothing_is_served_behind_connection_close(gateway: Running) -> None:
    tenant = await _open(gateway)
    answer = await gateway.raw(_request(tenant, "Connection: close", body=b"first") + _request(tenant, body=b"second"))
    assert _statuses(answer) == [b"200"]
    assert [callback.body for callback in await _callbacks(gateway)] == [b"first"]


REFUSED = {
    "Content-Length and Transfer-Encoding": "Transfer-Encoding: chunked\r\nContent-Length: 3",
    "two lengths": "Content-Length: 3\r\nContent-Length: 4",
    "the same length twice": "Content-Length: 3\r\nContent-Length: 3",
    "a list of lengths": "Content-Length: 3, 3",
    "a signed length": "Content-Length: +3",
    "a folded field": "X-A: 1\r\n folded\r\nContent-Length: 3",
    "a bare line feed": "X-A: 1\nContent-Length: 3",
    "a bare carriage return": "X-A: 1\rContent-Length: 3",
    "a blank before the colon": "Content-Length : 3",
    "an unknown coding": "Transfer-Encoding: gzip",
    "a coding behind chunked": "Transfer-Encoding: chunked, gzip",
    "a NUL": "X-A: \x00\r\nContent-Length: 3",
}


@pytest.mark.parametrize("what", REFUSED)
async def test_ambiguous_framing_is_refused_and_the_connection_closed(gateway: Running, what: str) -> None:
    tenant = await _open(gateway)
    head = _request(tenant, REFUSED[what], length=False, body=b"")
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(head + b"a=1" + _request(tenant))
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    assert _statuses(answer) == [b"400"]
    assert await _callbacks(gateway) == []


async def test_a_head_that_comes_byte_by_byte(gateway: Running) -> None:
    tenant = await _open(gateway)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    for byte in _request(tenant, "Expect: 100-continue", body=b"slowly"):
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0)  # so that they are separate reads
    assert await gateway.status_of(reader) == 100
    assert await gateway.status_of(reader) == 200
    writer.close()
    assert [callback.body for callback in await _callbacks(gateway)] == [b"slowly"]


async def test_expectations(gateway: Running) -> None:
    tenant = await _open(gateway)
    # Nobody is told to go on with a body that is refused by its head.
    stranger = _request(tenant, "Expect: 100-continue").replace(tenant.api_key.encode(), b"nobody")
    assert _statuses(await gateway.raw(stranger)) == [b"401"]
    answer = await gateway.raw(_request(tenant, "Expect: 100-continue", body=b""))
    assert _statuses(answer) == [b"100", b"200"]


async def test_http_2_by_prior_knowledge_is_refused(gateway: Running) -> None:
    assert _statuses(await gateway.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 9)) == [b"400"]


@pytest.mark.parametrize("fields", [(), ("Connection: keep-alive",)])
async def test_http_1_0_is_answered_and_closed(gateway: Running, fields: tuple[str, ...]) -> None:
    tenant = await _open(gateway)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(_request(tenant, *fields, version="1.0"))
    async with asyncio.timeout(60):
        assert _statuses(await reader.read()) == [b"200"]
    writer.close()
    assert [callback.body for callback in await _callbacks(gateway)] == [b"a=1"]


async def test_an_absolute_target_is_its_path(gateway: Running) -> None:
    """Whatever host it names: signatures are checked against the configured address."""
    tenant = await _open(gateway)
    assert _statuses(await gateway.raw(_request(tenant, target=f"http://evil.example{PATH}"))) == [b"200"]
    assert [callback.url for callback in await _callbacks(gateway)] == [gateway.url + PATH]
    for target in ("http://evil.example", "*", "//evil.example" + PATH):
        assert _statuses(await gateway.raw(_request(tenant, target=target)))[0] in (b"400", b"404")


@pytest.mark.parametrize(("declared", "parts"), [(4, [b"abc"]), (2, [b"abc"]), (7, [b"abc", b"def"]), (1, [b""])])
async def test_a_body_that_is_not_as_long_as_it_says_is_no_body(declared: int, parts: list[bytes]) -> None:
    budget = MemoryBudget(1000)
    reader = BodyReader(5.0, budget, max_bodies=100)
    coming = list(parts)

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": coming.pop(0), "more_body": bool(coming)}

    def request(length: int) -> Request:
        head = [(b"content-length", b"%d" % length)]
        return Request({"method": "POST", "query_string": b"", "path_params": {}, "headers": head}, receive)

    with pytest.raises(BackhaulError) as refused:
        await reader.read(request(declared), 100)
    assert refused.value.code is Code.INTERNAL
    assert budget.used == 0
    coming = list(parts)
    whole = b"".join(parts)
    assert await reader.read(request(len(whole)), 100) == whole
