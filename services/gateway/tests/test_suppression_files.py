"""Lists of suppressions through the gateway: passed on as they come, and cut off where they break."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_gateway.reads import suppressionfiles
from backhaul_local.nats_server import NatsServer
from backhaul_proto.event.v1.event_pb2 import ADDRESS_FAMILY_PHONE
from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from gateway_rig import GatewayFactory
from suppression_rig import Rig, suppressing

IMPORT = "/v1/suppressions/import"
CSV = {"Content-Type": "text/csv; charset=utf-8"}


def so_far(lines: int, *, errors: bytes = b"", done: bool = False) -> pb.ImportResponse:
    return pb.ImportResponse(lines=lines, changed=1, unchanged=2, refused=3, errors=errors, done=done)


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def send(rig: Rig, content: Any, /, headers: Any = CSV, **params: str) -> httpx.Response:
    return await rig.gateway.client.post(IMPORT, params=params, content=content, headers={**rig.headers, **headers})


async def begin(rig: Rig, query: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """An import, in the middle of its head. httpx reads nothing while it sends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.gateway.port)
    head = f"POST {IMPORT}{query} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {rig.tenant.api_key}\r\nContent-Type: text/csv\r\n"
    writer.write(head.encode())
    return reader, writer


async def test_a_list_is_passed_on_with_what_holds_for_its_lines(rig: Rig) -> None:
    rig.suppression.answers["Import"] = [so_far(6, errors="é,1\n".encode(), done=True)]
    params = {
        "kind": "unsubscribe",
        "family": "phone",
        "scope_kind": "group",
        "scope_id": "news",
        "effective_at": "2026-11-01T00:00:00Z",
    }
    answer = await send(rig, pieces(b"address\n+15005", b"550001\n"), **params)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == {
        "lines": 6,
        "changed": 1,
        "unchanged": 2,
        "refused": 3,
        "errors": "é,1\n",
        "errors_complete": True,
    }
    first = rig.suppression.asked[0]
    assert first == pb.ImportRequest(
        tenant_id="acme",
        format=pb.FILE_FORMAT_CSV,
        kind=pb.SUPPRESSION_KIND_UNSUBSCRIBE,
        family=ADDRESS_FAMILY_PHONE,
        scope=pb.Scope(kind=pb.SCOPE_KIND_GROUP, id="news"),
        effective_at_us=1_793_491_200_000_000,
        # Whole lines, as many as had come by then.
        data=first.data,
        actor=pb.ACTOR_TENANT,
        author=rig.author,
    )
    assert first.data in (b"address\n", rig.suppression.read)
    assert rig.suppression.read == b"address\n+15005550001\n"
    assert (await send(rig, b"{}", {"Content-Type": "application/x-ndjson"})).status_code == 200
    plain = next(one for one in reversed(rig.suppression.asked) if one.tenant_id)
    assert (plain.format, plain.kind, plain.HasField("scope")) == (pb.FILE_FORMAT_JSON_LINES, 0, False)


async def test_what_is_no_list_is_refused_before_it_is_read(rig: Rig) -> None:
    for headers in ({}, {"Content-Type": "application/json"}, {"Content-Type": "text/*"}):
        rig.gateway.problem(await send(rig, b"x", headers), 422, "Content-Type")
    for params in ({"kind": "x"}, {"family": "x"}, {"scope_kind": "x"}, {"effective_at": "today"}, {"other": "1"}):
        rig.gateway.problem(await send(rig, b"x", **params), 422, next(iter(params)))
    assert rig.suppression.asked == []
    rig.suppression.refusal = BackhaulError(Code.INVALID_ARGUMENT, "No header.", field="data", fix="Add one.")
    rig.suppression.answers["Import"] = [so_far(1, done=True)]
    rig.gateway.problem(await send(rig, pieces(b"x\n", b"y\n")), 422, "data")


async def test_a_large_list_comes_in_pieces_and_waits_for_who_reads_it(rig: Rig) -> None:
    rig.suppression.answers["Import"] = [so_far(1, done=True)]
    rig.suppression.may_read.clear()
    sent = 0

    async def large() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(64):
            sent += 1 << 20
            yield b"x" * ((1 << 20) - 1) + b"\n"

    sending = asyncio.create_task(send(rig, large()))
    before = -1
    async with asyncio.timeout(60):
        # When nothing more goes, everything between the two is full.
        while not sent or sent != before:
            before = sent
            await asyncio.sleep(0.5)
    assert 1 << 20 <= sent < 32 << 20
    rig.suppression.may_read.set()
    assert (await sending).status_code == 200
    assert len(rig.suppression.read) == 64 << 20
    assert max(len(one.data) for one in rig.suppression.asked) <= 256 << 10


async def test_a_list_that_breaks_off_is_not_taken_for_a_whole_one(rig: Rig) -> None:
    rig.suppression.answers["Import"] = [so_far(1, done=True)]
    _, writer = await begin(rig)
    writer.write(b"Content-Length: 1000\r\n\r\naddress\n+1500555")
    await writer.drain()
    async with asyncio.timeout(60):
        while rig.suppression.read != b"address\n":  # what has come to the other side has no event
            await asyncio.sleep(0.01)
        writer.close()
        await rig.suppression.ended.wait()
    # gRPC ends a call that was given up as one that is over: nothing may look like a line that is none.
    assert rig.suppression.read == b"address\n"


async def test_a_list_may_take_as_long_as_it_keeps_coming(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    async with suppressing(gateway_factory, fresh_nats.uri, gateway_body_timeout_s=1.0) as rig:
        rig.suppression.answers["Import"] = [so_far(1, done=True)]

        async def slow() -> AsyncIterator[bytes]:
            for _ in range(6):
                yield b"a line\n"
                await asyncio.sleep(0.4)

        assert (await send(rig, slow())).status_code == 200
        assert rig.suppression.read == b"a line\n" * 6
        rig.suppression.read.clear()
        rig.suppression.ended.clear()
        reader, writer = await begin(rig)
        writer.write(b"Content-Length: 1000\r\n\r\naddress\n+1500555")
        async with asyncio.timeout(60):
            assert b" 408 " in await reader.readline()
            await rig.suppression.ended.wait()
        writer.close()
        assert rig.suppression.read == b"address\n"


async def test_a_list_that_is_too_large_is_refused(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suppressionfiles, "MAX_FILE_BYTES", 1000)
    rig.suppression.answers["Import"] = [so_far(1, done=True)]
    rig.gateway.problem(await send(rig, pieces(b"x" * 600, b"x" * 600)), 413, "body")
    assert rig.suppression.read == b""


async def test_progress_is_told_while_it_is_read(rig: Rig) -> None:
    rig.suppression.answers["Import"] = [
        so_far(1, errors=b"a \xc3"),
        so_far(2, errors=b"\xa9"),
        so_far(2, done=True),
    ]
    # A client that reads while it sends, which httpx does not.
    reader, writer = await begin(rig, "?progress=true")
    writer.write(b"Transfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n")
    async with asyncio.timeout(60):
        status = await reader.readline()
        assert b" 200 " in status
        while (await reader.readline()).strip():
            pass
        lines = []
        await reader.readline()  # The size of a chunk.
        lines.append(json.loads(await reader.readline()))
        assert lines[0]["lines"] == 1
        writer.write(b"4\r\ntwo\n\r\n0\r\n\r\n")
        rest = await reader.readuntil(b"\r\n0\r\n")
    writer.close()
    lines += [json.loads(line) for line in rest.split(b"\r\n") if line.startswith(b"{")]
    assert [one["done"] for one in lines] == [False, False, True]
    assert "".join(one["errors"] for one in lines) == "a é"


async def test_no_more_than_a_megabyte_of_errors_is_in_one_answer(rig: Rig) -> None:
    half = b"x" * (600 << 10)
    rig.suppression.answers["Import"] = [so_far(1, errors=half), so_far(2, errors=half), so_far(2, done=True)]
    answer = (await send(rig, pieces(b"a", b"b"))).json()
    assert (len(answer["errors"]), answer["errors_complete"], answer["lines"]) == (len(half), False, 2)


async def test_a_list_is_written_as_it_comes(rig: Rig) -> None:
    parts = [b"address\n", b"+15005550001\n", b"\xc3\xa9\n"]
    rig.suppression.answers["Export"] = [pb.ExportResponse(data=part) for part in parts]
    answer = await rig.get("/export", family="phone", kind="stop", standing="any")
    assert (answer.content, answer.headers["content-type"]) == (b"".join(parts), "text/csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="suppressions.csv"'
    assert rig.suppression.asked == [
        pb.ExportRequest(
            tenant_id="acme",
            format=pb.FILE_FORMAT_CSV,
            family=ADDRESS_FAMILY_PHONE,
            kind=pb.SUPPRESSION_KIND_STOP,
            standing=pb.STANDING_ANY,
        )
    ]
    assert (await rig.get("/export", format="jsonl")).headers["content-type"] == "application/x-ndjson"
    assert rig.suppression.asked[-1].format == pb.FILE_FORMAT_JSON_LINES
    rig.gateway.problem(await rig.get("/export", format="xml"), 422, "format")


async def test_an_export_that_breaks_off_does_not_look_whole(rig: Rig) -> None:
    rig.suppression.answers["Export"] = [pb.ExportResponse(data=b"address\n")]
    rig.suppression.refusal = BackhaulError(Code.UNAVAILABLE, "It is away.")
    with pytest.raises(httpx.RemoteProtocolError):
        await rig.get("/export")


async def test_an_export_ends_with_who_wanted_it_and_counts_until_then(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    async with suppressing(gateway_factory, fresh_nats.uri) as rig:
        rig.suppression.answers["Export"] = (pb.ExportResponse(data=b"x" * 100_000) for _ in range(100_000))
        only = {"limits": {"concurrent_reads": 1}}
        await rig.gateway.client.patch("/admin/v1/tenants/acme", headers=rig.gateway.admin, json=only)
        async with (
            httpx.AsyncClient(base_url=rig.gateway.url) as http,
            http.stream("GET", "/v1/suppressions/export", headers=rig.headers) as answer,
        ):
            assert answer.status_code == 200
            assert (await rig.get("/export")).status_code == 429
        async with asyncio.timeout(60):
            await rig.suppression.ended.wait()
        rig.suppression.answers["Export"] = []
        async with asyncio.timeout(60):
            # The call has ended; the read ends some turns of the gateway's loop later.
            while (await rig.get("/export")).status_code == 429:
                await asyncio.sleep(0.01)
