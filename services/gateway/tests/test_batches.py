"""``/v1/batches``: how far a batch is, and its members, all of them or by pages."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_proto.normalizer.v1 import communications_pb2 as pb
from communication_rig import CommunicationRig


def page(*keys: str, token: str = "") -> pb.ListMembersResponse:
    return pb.ListMembersResponse(
        members=[pb.Member(key=key, destinations=[pb.Destination(recipient="+1")]) for key in keys],
        next_page_token=token,
    )


def keys(answer: Any) -> list[str]:
    return [one["member_key"] for one in answer["members"]]


async def test_a_batch_is_registered(told: CommunicationRig) -> None:
    body = {"label": "Morning", "expected_members": 3, "deadline": "2026-11-01T00:00:00.000001+01:00"}
    answer = await told.ask("PUT", "/communications/spring/batches/b1", body)
    assert (answer.status_code, answer.json()["id"], answer.json()["status"]) == (201, "b1", "open")
    told.communications.created = False
    assert (await told.ask("PUT", "/communications/spring/batches/b1", {})).status_code == 200
    assert told.communications.asked == [
        pb.PutBatchRequest(
            tenant_id="acme",
            communication_id="spring",
            batch_id="b1",
            label="Morning",
            expected_members=3,
            deadline_at_us=1_793_487_600_000_001,
        ),
        pb.PutBatchRequest(tenant_id="acme", communication_id="spring", batch_id="b1"),
    ]
    refused: list[tuple[dict[str, Any], str]] = [
        ({"expected_members": 0}, "expected_members"),
        ({"expected_members": 2**64}, "expected_members"),
        ({"deadline": "2026-11-01T00:00:00"}, "deadline"),
        ({"lable": "x"}, "lable"),
    ]
    for wrong, field in refused:
        told.gateway.problem(await told.ask("PUT", "/communications/spring/batches/b1", wrong), 422, field)
    for code in (Code.CONFLICT, Code.FAILED_PRECONDITION):
        told.communications.refusal = BackhaulError(code, "No.", field="deadline_at_us", fix="Pass another.")
        answer = await told.ask("PUT", "/communications/spring/batches/b1", {})
        assert told.gateway.problem(answer, 409, "deadline")["code"] == code.value


async def test_the_list_takes_every_filter(told: CommunicationRig) -> None:
    params = {"communication": "a/b", "status": "closed", "limit": "7", "cursor": "here"}
    answer = (await told.ask("GET", "/batches", params=params)).json()
    assert ([one["id"] for one in answer["batches"]], answer["next_cursor"]) == (["b1"], "next")
    assert told.communications.asked == [
        pb.ListBatchesRequest(
            tenant_id="acme", communication_id="a/b", status=pb.BATCH_STATUS_CLOSED, page_size=7, page_token="here"
        )
    ]
    told.gateway.problem(await told.ask("GET", "/batches", params={"status": "x"}), 422, "status")


@pytest.mark.parametrize("batch_id", ["b1", "a/b", "a%2Fb", "members", "close"])
async def test_ids_of_batches_stand_in_paths(told: CommunicationRig, batch_id: str) -> None:
    meant = batch_id.replace("%2F", "/")
    assert (await told.ask("GET", f"/batches/{batch_id}")).status_code == 200
    assert (await told.ask("POST", f"/batches/{batch_id}/close")).status_code == 200
    assert (await told.ask("POST", f"/batches/{batch_id}/members", [])).status_code == 200
    got, closed, added, *_ = told.communications.asked
    assert (type(got), type(closed), type(added)) == (pb.GetBatchRequest, pb.CloseBatchRequest, pb.AddMembersRequest)
    assert [one.batch_id for one in (got, closed, added)] == [meant] * 3


async def test_a_batch_comes_without_members_unless_they_are_asked_for(told: CommunicationRig) -> None:
    told.communications.members = [page("anna")]
    plain = (await told.ask("GET", "/batches/b1")).json()
    for query in ("?includemembers=false", "?includeMembers=FALSE", "?includemembers=true&includemembers=false"):
        assert (await told.ask("GET", f"/batches/b1{query}")).json() == plain
    assert "members" not in plain
    for name in ("includemembers", "includeMembers", "INCLUDEMEMBERS"):
        for value in ("=true", "=True", "=", ""):
            found = (await told.ask("GET", f"/batches/b1?{name}{value}")).json()
            assert found == {**plain, "members": found["members"], "next_cursor": None}
            assert keys(found) == ["anna"]
    for query, field in (("includeMembers=maybe", "includemembers"), ("limit=1", "limit"), ("cursor=x", "cursor")):
        told.gateway.problem(await told.ask("GET", f"/batches/b1?{query}"), 422, field)


async def test_all_members_come_as_they_are_read(told: CommunicationRig) -> None:
    pages = [page(), *[page(*[f"{number}-{place}" for place in range(100)]) for number in range(30)], page()]
    told.communications.members = pages
    answer = await told.ask("GET", "/batches/b1?includemembers=true")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    expected = [member.key for one in pages for member in one.members]
    assert keys(answer.json()) == expected
    lines = await told.ask("GET", "/batches/b1?includemembers=true", headers={"Accept": "application/x-ndjson"})
    assert lines.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line)["member_key"] for line in lines.text.splitlines()] == expected
    assert told.communications.asked[-1] == pb.ListMembersRequest(tenant_id="acme", batch_id="b1")
    told.communications.members = []
    assert keys((await told.ask("GET", "/batches/b1?includemembers=true")).json()) == []


async def test_members_come_by_pages(told: CommunicationRig) -> None:
    told.communications.members = [page("anna", "bert", token="more")]
    found = (await told.ask("GET", "/batches/b1?includemembers=true&limit=2&cursor=here")).json()
    assert (keys(found), found["next_cursor"], found["id"]) == (["anna", "bert"], "more", "b1")
    assert told.communications.asked[-1] == pb.ListMembersRequest(
        tenant_id="acme", batch_id="b1", page_size=2, page_token="here"
    )
    told.communications.members = []
    found = (await told.ask("GET", "/batches/b1?includemembers=true&cursor=here")).json()
    assert (keys(found), found["next_cursor"]) == ([], None)
    assert told.communications.asked[-1].page_size == 100
    told.gateway.problem(await told.ask("GET", "/batches/b1?includemembers=true&limit=1001"), 422, "limit")
    told.communications.breaks = BackhaulError(Code.INVALID_ARGUMENT, "None.", field="page_token", fix="Another.")
    told.gateway.problem(await told.ask("GET", "/batches/b1?includemembers=true&cursor=x"), 422, "cursor")


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
async def test_members_that_break_off_do_not_look_whole(told: CommunicationRig, accept: str) -> None:
    told.communications.breaks = BackhaulError(Code.UNAVAILABLE, "It is away.")
    answer = await told.ask("GET", "/batches/b1?includemembers=true", headers={"Accept": accept})
    # Nothing has been answered by then.
    told.gateway.problem(answer, 503)
    told.communications.members = [page("anna")]
    with pytest.raises(httpx.RemoteProtocolError):
        await told.ask("GET", "/batches/b1?includemembers=true", headers={"Accept": accept})
    told.communications.refusal = BackhaulError(Code.NOT_FOUND, "There is none.", field="batch_id", fix="Use PutBatch.")
    problem = told.gateway.problem(await told.ask("GET", "/batches/b1?includemembers=true"), 404, "batch_id")
    assert "/batches/{batch_id}" in problem["errors"][0]["fix"]


async def test_members_end_with_who_wanted_them(told: CommunicationRig) -> None:
    many = page(*[f"{place}" for place in range(1000)])
    told.communications.members = [many] * 100_000
    async with (
        httpx.AsyncClient(base_url=told.gateway.url) as http,
        http.stream("GET", "/v1/batches/b1?includemembers=true", headers=told.headers) as answer,
    ):
        assert answer.status_code == 200
        assert b"member_key" in await anext(answer.aiter_bytes())
    async with asyncio.timeout(60):
        await told.communications.ended.wait()


async def test_a_batch_is_closed(told: CommunicationRig) -> None:
    answer = await told.ask("POST", "/batches/b1/close")
    assert (answer.status_code, answer.json()["id"]) == (200, "b1")
    assert told.communications.asked == [pb.CloseBatchRequest(tenant_id="acme", batch_id="b1")]
    told.communications.refusal = BackhaulError(Code.FAILED_PRECONDITION, "Members are missing.")
    told.gateway.problem(await told.ask("POST", "/batches/b1/close"), 409)
