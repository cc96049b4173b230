"""Members of batches through the gateway: JSON and files, passed on as they come."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.lines.json_lines import NO_OBJECT
from backhaul_gateway.reads import memberarray, members
from backhaul_proto.normalizer.v1 import communications_pb2 as pb
from communication_rig import CommunicationRig

ANNA = {"member_key": "anna", "attributes": {"name": "Anna"}, "destinations": [{"recipient": "+15005550001"}]}


def so_far(**counts: Any) -> pb.AddMembersResponse:
    return pb.AddMembersResponse(**{"lines": 4, "added": 2, "changed": 1, "unchanged": 1, "done": True, **counts})


def refused(line: int, field: str) -> bytes:
    told = {"error_line": str(line), "error_field": field, "error_message": "No.", "error_fix": "Mend it."}
    return json.dumps(told).encode() + b"\n"


async def send(told: CommunicationRig, content: Any, kind: str = "application/json", query: str = "") -> httpx.Response:
    return await told.ask("POST", f"/batches/b1/members{query}", content=content, headers={"Content-Type": kind})


async def pieces(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def test_an_array_of_members_becomes_lines(told: CommunicationRig) -> None:
    told.communications.added = [so_far()]
    for body in ([ANNA, {"member_key": "b\n"}], {"members": [ANNA, {"member_key": "b\n"}]}):
        told.communications.read.clear()
        answer = await send(told, json.dumps(body, indent=2))
        assert (answer.status_code, answer.json()) == (200, {
            "lines": 4, "added": 2, "changed": 1, "unchanged": 1, "refused": 0, "errors": "", "errors_complete": True,
        })  # fmt: skip
        assert [json.loads(line) for line in told.communications.read.splitlines()] == [ANNA, {"member_key": "b\n"}]
    first = told.communications.asked[0]
    assert (first.tenant_id, first.batch_id, first.format) == ("acme", "b1", pb.MEMBER_FORMAT_JSON_LINES)
    assert told.communications.asked[-1] == pb.AddMembersRequest(last=True)


async def test_members_of_an_array_that_are_refused_are_named(told: CommunicationRig) -> None:
    told.communications.added = [
        so_far(lines=2, refused=1, errors=refused(2, "destinations[0].channel"), done=False),
        so_far(refused=2, errors=refused(4, "")),
    ]
    answer = await send(told, json.dumps([ANNA] * 4))
    problem = told.gateway.problem(answer, 422)
    assert [error["field"] for error in problem["errors"]] == ["members[1].destinations[0].channel", "members[3]"]
    counts = {name: problem[name] for name in ("lines", "added", "changed", "unchanged", "refused")}
    assert counts == {"lines": 4, "added": 2, "changed": 1, "unchanged": 1, "refused": 2}
    assert "2 of 4 members are refused" in problem["detail"]


@pytest.mark.parametrize("own", ['"y":NaN', '"y":"\\ud800"', '"y":1e999', '"y":"\u2028"', f'"y":{"9" * 5000}'])
async def test_what_stands_in_a_refused_member_is_not_read_again(told: CommunicationRig, own: str) -> None:
    line = refused(1, "y").decode().rstrip()
    told.communications.added = [so_far(refused=1, errors=f"{line[:-1]},{own}}}\n".encode())]
    problem = told.gateway.problem(await send(told, b'[{"member_key":"a"}]'), 422)
    assert [one["field"] for one in problem["errors"]] == ["members[0].y"]


async def test_members_that_are_no_objects_are_told_of_as_an_array_has_them(told: CommunicationRig) -> None:
    no_object = {"error_line": "1", "error_field": "", "error_message": NO_OBJECT.message, "error_fix": NO_OBJECT.fix}
    told.communications.added = [so_far(lines=1, refused=1, errors=json.dumps(no_object).encode() + b"\n")]
    problem = told.gateway.problem(await send(told, b"[1]"), 422, "members[0]")
    assert "line" not in problem["errors"][0]["message"] + problem["errors"][0]["fix"]


@pytest.mark.parametrize(("body", "field"), [(b'"x"', "body"), (b"5", "body"), (b'{"members": {}}', "members")])
async def test_json_that_is_no_array_is_not_called_invalid(told: CommunicationRig, body: bytes, field: str) -> None:
    problem = told.gateway.problem(await send(told, body), 422, field)
    assert "no array" in problem["errors"][0]["message"]


async def test_a_body_that_is_packed_is_refused_as_such(told: CommunicationRig) -> None:
    for content in (gzip.compress(b"[]"), b"[]"):
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        answer = await told.ask("POST", "/batches/b1/members", content=content, headers=headers)
        told.gateway.problem(answer, 422, "Content-Encoding")
    headers["Content-Encoding"] = "identity"
    assert (await told.ask("POST", "/batches/b1/members", content=b"[]", headers=headers)).status_code == 200


@pytest.mark.parametrize("kind", ["application/x-ndjson", "application/jsonl", "text/csv; charset=utf-8"])
async def test_a_file_of_members_is_passed_on(told: CommunicationRig, kind: str) -> None:
    told.communications.added = [so_far(refused=1, errors="é,1\n".encode())]
    answer = await send(told, pieces(b"one\ntwo\nthree", 5), kind)
    assert (answer.status_code, answer.json()) == (200, {
        "lines": 4, "added": 2, "changed": 1, "unchanged": 1, "refused": 1, "errors": "é,1\n", "errors_complete": True,
    })  # fmt: skip
    assert told.communications.read == b"one\ntwo\nthree"
    expected = pb.MEMBER_FORMAT_CSV if "csv" in kind else pb.MEMBER_FORMAT_JSON_LINES
    assert told.communications.asked[0].format == expected


async def test_progress_is_told_as_lines(told: CommunicationRig) -> None:
    told.communications.added = [so_far(lines=1, done=False), so_far()]
    answer = await send(told, b"member_key\na\n", "text/csv", "?progress=true")
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [(line["lines"], line["added"], line["done"]) for line in lines] == [(1, 2, False), (4, 2, True)]


async def test_a_large_array_is_passed_on_in_pieces(told: CommunicationRig) -> None:
    told.communications.added = [so_far()]
    many = [{**ANNA, "member_key": str(number), "attributes": {"x": "é" * 200}} for number in range(20_000)]
    body = json.dumps({"members": many}).encode()
    assert len(body) > 20 << 20
    assert (await send(told, pieces(body, 100_000))).status_code == 200
    assert [json.loads(line)["member_key"] for line in told.communications.read.splitlines()] == [
        str(number) for number in range(20_000)
    ]
    assert max(len(asked.data) for asked in told.communications.asked) < 256 << 10


async def test_what_cannot_be_read_is_refused(told: CommunicationRig, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("text/plain", "application/xml"):
        told.gateway.problem(await send(told, b"[]", kind), 422, "Content-Type")
    told.gateway.problem(await send(told, b"[", "application/json"), 400, "body")
    told.gateway.problem(await send(told, b'{"member": []}', "application/json"), 422, "member")
    assert told.communications.asked == []
    # What stands before it is passed on, and stored.
    padded = json.dumps([ANNA] * 2000)
    told.gateway.problem(await send(told, padded + "x"), 400, "body")
    assert told.communications.asked
    assert not any(asked.last for asked in told.communications.asked)
    monkeypatch.setattr(memberarray, "MAX_MEMBERS", 3)
    told.gateway.problem(await send(told, json.dumps([ANNA] * 4)), 422, "members")
    monkeypatch.setattr(members, "MAX_ARRAY_BYTES", 100)
    told.gateway.problem(await send(told, b"[" + b" " * 100 + b"]"), 413, "body")


async def test_a_refusal_of_the_batch_is_told(told: CommunicationRig) -> None:
    told.communications.refusal = BackhaulError(Code.FAILED_PRECONDITION, "It is closed.", field="batch_id", fix="No.")
    told.gateway.problem(await send(told, json.dumps([ANNA] * 2000)), 409, "batch_id")
    told.gateway.problem(await send(told, b"member_key\n", "text/csv"), 409, "batch_id")
    told.communications.refusal = None
    told.communications.added = [so_far(done=False)]
    told.gateway.problem(await send(told, b"[]"), 503)


BROKEN_OFF = [
    ("text/csv", b"member_key\nan", b"member_key\n"),
    ("application/json", b'[{"member_key": "a"},' + b" " * (40 << 10) + b'{"memb', b'{"member_key": "a"}\n'),
]


@pytest.mark.parametrize(("kind", "body", "whole"), BROKEN_OFF)
async def test_members_that_break_off_are_not_taken_for_whole_ones(
    told: CommunicationRig, kind: str, body: bytes, whole: bytes
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", told.gateway.port)
    head = f"POST /v1/batches/b1/members HTTP/1.1\r\nHost: x\r\nX-Api-Key: {told.tenant.api_key}\r\n"
    writer.write(f"{head}Content-Type: {kind}\r\nContent-Length: {len(body) + 1000}\r\n\r\n".encode() + body)
    await writer.drain()
    async with asyncio.timeout(60):
        while not told.communications.read:  # what has come to the other side has no event
            await asyncio.sleep(0.01)
        writer.close()
        await told.communications.ended.wait()
    assert bytes(told.communications.read) == whole
    assert not any(asked.last for asked in told.communications.asked)
