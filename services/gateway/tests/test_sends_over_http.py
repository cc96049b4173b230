"""``POST /v1/sends``: what is told is durable when it is answered, and nothing is where one of it is wrong."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import httpx
import pytest
from backhaul_channels import Context, load_adapters
from backhaul_channels.sends import MAX_SENDS, read_send
from backhaul_client import LimitsIn
from backhaul_client.adminmodels import NewTenant
from backhaul_gateway.reads.sendbodies import parts_of
from backhaul_local.nats_server import NatsServer
from backhaul_proto.callback.v1.callback_pb2 import SOURCE_SENDER, VERIFICATION_CREDENTIAL, Callback
from gateway_rig import Running, problem_of

SM1 = {"channel": "Twilio", "message_id": "SM1", "recipient": "+15005550010"}
REFUSED = {"channel": "TWILIO", "status": "refused", "recipient": "+15005550010", "error_code": "21610"}
LINES = {"Content-Type": "application/x-ndjson"}


@pytest.fixture
async def running(gateway: Running) -> tuple[Running, NewTenant]:
    tenant = await gateway.tenant(limits=LimitsIn(reads_per_second=1000, read_burst=1000))
    await gateway.channel()
    await gateway.channel(label="SendGrid", secrets=[])
    return gateway, tenant


async def tell(
    gateway: Running, tenant: NewTenant, body: Any, headers: dict[str, str] | None = None, **more: Any
) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await gateway.client.post(
        "/v1/sends",
        content=content,
        headers={"X-Api-Key": tenant.api_key, "Content-Type": "application/json", **(headers or {})},
        timeout=30,
        **more,
    )


async def callbacks(gateway: Running) -> list[Callback]:
    return [callback for message in await gateway.stored() for callback in message]


def told(callback: Callback) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(callback.body)
    return found


async def test_sends_of_two_channels_are_a_callback_each(running: tuple[Running, NewTenant]) -> None:
    gateway, tenant = running
    mail = {"channel": "sendgrid", "message_id": "wrf", "recipient": "a@example.com", "sent_at": "2026-11-26T12:00:00Z"}
    before_us = time.time_ns() // 1000
    answer = await tell(gateway, tenant, [SM1, mail, REFUSED])
    assert answer.status_code == 202, answer.text
    shown = (await gateway.client.get("/metrics")).text
    for channel, status in (("twilio", "sent"), ("sendgrid", "sent"), ("twilio", "refused")):
        counted = rf'gateway_sends_total\{{channel="{channel}",[^}}]*status="{status}",[^}}]*\}} 1\.0'
        assert re.search(counted, shown), shown
    stored = await callbacks(gateway)
    assert answer.json() == {"accepted": 3, "callback_ids": [one.id for one in stored]} or answer.json() == {
        "accepted": 3,
        "callback_ids": [one.id for one in reversed(stored)],
    }
    assert {(one.channel, one.provider): told(one) for one in stored} == {
        ("twilio", "twilio"): [
            {"message_id": "SM1", "recipient": "+15005550010"},
            {"recipient": "+15005550010", "status": "refused", "error_code": "21610"},
        ],
        ("sendgrid", "sendgrid"): [
            {"message_id": "wrf", "recipient": "a@example.com", "sent_at": "2026-11-26T12:00:00Z"}
        ],
    }
    for one in stored:
        assert (one.tenant_id, one.source, one.verification) == ("acme", SOURCE_SENDER, VERIFICATION_CREDENTIAL)
        assert before_us <= one.received_at_us <= time.time_ns() // 1000
        assert one.method == "POST"
        assert one.traceparent
        adapter = load_adapters()[one.provider]
        for part in told(one):
            assert read_send(json.dumps(part).encode(), adapter, Context(adapter.settings_model())).message_id


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ([SM1, REFUSED], {}),
        ({"sends": [SM1, REFUSED]}, {}),
        (json.dumps(SM1).encode() + b"\r\n\n" + json.dumps(REFUSED).encode() + b"\n", LINES),
        (json.dumps(SM1).encode() + b"\n" + json.dumps(REFUSED).encode(), {"Content-Type": "application/jsonl; x=y"}),
    ],
    ids=["array", "object", "lines", "lines without an end"],
)
async def test_an_array_an_object_and_lines_say_the_same(
    running: tuple[Running, NewTenant], body: Any, headers: dict[str, str]
) -> None:
    gateway, tenant = running
    answer = await tell(gateway, tenant, body, headers)
    assert answer.status_code == 202, answer.text
    (callback,) = await callbacks(gateway)
    assert [part.get("message_id") for part in told(callback)] == ["SM1", None]


async def test_nothing_at_all_is_taken_too(running: tuple[Running, NewTenant]) -> None:
    gateway, tenant = running
    for body, headers in (([], {}), ({"sends": []}, {}), (b"\n", LINES)):
        answer = await tell(gateway, tenant, body, headers)
        assert (answer.status_code, answer.json()) == (202, {"accepted": 0, "callback_ids": []})
    assert await callbacks(gateway) == []


async def test_all_that_is_wrong_is_named_and_nothing_is_stored(running: tuple[Running, NewTenant]) -> None:
    gateway, tenant = running
    shapes = [SM1, {**SM1, "message_id": 5}, {**SM1, "x": 1}, {"message_id": "SM1"}, 7, {**SM1, "idempotency": "x"}]
    shapes.append({**SM1, "sent_at": "2999-01-01T00:00:00Z"})
    problem = problem_of(await tell(gateway, tenant, shapes), 422)
    assert [error["field"] for error in problem["errors"]] == [
        "sends[1].message_id",
        "sends[2].x",
        "sends[3].channel",
        "sends[4]",
        "sends[5].idempotency",
        "sends[6].sent_at",
    ]
    contradictions = [SM1, {**SM1, "batch": "b"}, {"channel": "sendgrid", "message_id": "wrf"}, REFUSED]
    problem = problem_of(await tell(gateway, tenant, contradictions), 422)
    assert [error["field"] for error in problem["errors"]] == ["sends[1].batch", "sends[2].recipient"]
    assert all(error["fix"] and error["message"] for error in problem["errors"])
    problem = problem_of(await tell(gateway, tenant, [{}] * 30), 422)
    assert (len(problem["errors"]), problem["detail"].partition(" ")[0]) == (20, "30")
    problem = problem_of(await tell(gateway, tenant, [SM1, {**SM1, "channel": "Fax"}]), 404, "sends[1].channel")
    assert "'Fax'" in problem["detail"]
    assert await callbacks(gateway) == []


async def test_a_key_tells_apart_what_says_the_same(running: tuple[Running, NewTenant]) -> None:
    gateway, tenant = running
    names: list[list[str]] = []
    adapter = load_adapters()["twilio"]
    for key in ("", "one", "one", "two"):
        headers = {"Idempotency-Key": key} if key else {}
        body = [REFUSED, REFUSED, SM1, {**REFUSED, "id": "7"}]
        assert (await tell(gateway, tenant, body, headers)).status_code == 202
    for callback in await callbacks(gateway):
        context = Context(adapter.settings_model())
        parts = [json.dumps(part).encode() for part in told(callback)]
        names.append([read_send(part, adapter, context).message_id for part in parts])
    assert names[0][0] == names[0][1]
    assert names[1] == names[2]
    assert len({*names[0][:2], *names[1][:2], *names[3][:2]}) == 5
    assert {tuple(one[2:]) for one in names} == {("SM1", names[0][3])}
    problem_of(await tell(gateway, tenant, [SM1], {"Idempotency-Key": "k" * 256}), 422, "Idempotency-Key")


async def test_ten_thousand_at_once(running: tuple[Running, NewTenant]) -> None:
    gateway, tenant = running
    body = [{**SM1, "message_id": f"SM{number:05}"} for number in range(MAX_SENDS)]
    compact = json.dumps(body, separators=(",", ":")).encode()
    answer = await tell(gateway, tenant, compact)
    assert answer.status_code == 202, answer.text
    stored = await callbacks(gateway)
    assert answer.json()["accepted"] == MAX_SENDS
    assert sorted(answer.json()["callback_ids"]) == sorted(one.id for one in stored)
    assert sorted(part["message_id"] for one in stored for part in told(one)) == [one["message_id"] for one in body]
    for many, headers in (
        (b"[" + b",".join([b"{}"] * (MAX_SENDS + 1)) + b"]", {}),
        (b"{}\n" * (MAX_SENDS + 1), LINES),
    ):
        problem_of(await tell(gateway, tenant, many, headers), 422, "sends")
    problem_of(await tell(gateway, tenant, b"[" + b" " * (1 << 20) + b"]"), 413)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[", 400),
        (b"\xff", 400),
        (b"null", 422),
        (b"7", 422),
        (b'"x"', 422),
        (b"{}", 422),
        (b'{"sends": {}}', 422),
        (b'{"sends": [], "x": 1}', 422),
        (b"[" * 100_000, 400),
        (b'[{"attributes": ' + b'{"a":' * 50_000, 400),
        (b"[" + b"1," * 500_000 + b"1]", 422),
        (b'{"sends": [' + b"1," * 500_000 + b"1]}", 422),
        (b"[" + b"{}," * 340_000 + b"{}]", 422),
        (b'["' + b"," * 900_000 + b'"]', 422),
        (b'["' + b"\\" * 900_000 + b'"]', 422),
        (b"\n" * 1_000_000, 422),
    ],
    ids=lambda value: str(value)[:24],
)
async def test_hostile_bodies_are_refused(running: tuple[Running, NewTenant], body: bytes, status: int) -> None:
    gateway, tenant = running
    headers = LINES if body.startswith(b"\n") else {}
    problem = problem_of(await tell(gateway, tenant, body, headers), status)
    assert all(error["fix"] for error in problem["errors"])
    assert await callbacks(gateway) == []


def test_commas_within_texts_are_no_sends() -> None:
    send = json.dumps({**SM1, "error_text": ',"{' * 10, "attributes": {"a": ",,,,"}}).encode()
    body = b"[" + b",".join([send] * MAX_SENDS) + b"]"
    assert len(parts_of(body, "application/json")) == MAX_SENDS
    assert len(parts_of(b'{"sends":' + body + b"}", "")) == MAX_SENDS


async def test_only_its_tenants_credential_tells_of_its_channels(running: tuple[Running, NewTenant]) -> None:
    gateway, _ = running
    other = await gateway.tenant("other")
    problem_of(await tell(gateway, other, [SM1]), 404, "sends[0].channel")
    answer = await gateway.client.post("/v1/sends", json=[SM1])
    problem_of(answer, 401)
    await gateway.client.patch("/admin/v1/tenants/other", headers=gateway.admin, json={"status": "suspended"})
    problem_of(await tell(gateway, other, [SM1]), 403)
    assert await callbacks(gateway) == []


async def test_a_credential_in_what_is_told_is_not_stored(running: tuple[Running, NewTenant]) -> None:
    gateway, tenant = running
    answer = await tell(gateway, tenant, [{**SM1, "attributes": {"callback": f"https://x/in/{tenant.ingest_token}/y"}}])
    assert answer.status_code == 202
    (callback,) = await callbacks(gateway)
    assert told(callback)[0]["attributes"] == {"callback": "https://x/in/***/y"}


async def test_it_counts_as_a_callback_of_the_tenants_rate(gateway: Running) -> None:
    tenant = await gateway.tenant(limits=LimitsIn(requests_per_second=0.01, burst=1))
    await gateway.channel()
    assert (await tell(gateway, tenant, [SM1])).status_code == 202
    answer = await tell(gateway, tenant, [SM1])
    problem_of(answer, 429)
    assert int(answer.headers["retry-after"]) > 1
    assert len(await callbacks(gateway)) == 1


async def test_what_is_not_stored_is_not_answered_so(gateway: Running, fresh_nats: NatsServer) -> None:
    tenant = await gateway.tenant()
    await gateway.channel()
    await fresh_nats.kill()
    answer = await tell(gateway, tenant, [SM1])
    problem_of(answer, 503)
    assert int(answer.headers["retry-after"]) >= 1
    await fresh_nats.start()
    await gateway.ready()
    assert (await tell(gateway, tenant, [SM1])).status_code == 202
    (callback,) = await callbacks(gateway)
    assert told(callback)[0]["message_id"] == "SM1"
