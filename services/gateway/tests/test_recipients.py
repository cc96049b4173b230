"""Erasing a person over HTTP: every service is asked, what each says is the receipt, and no log has the address."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any
from urllib.parse import quote

import grpc
import httpx
import pytest
from backhaul_common import tenantdata
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.rpc.errors import DETAILS_KEY, to_details
from backhaul_common.tenantdata import Asked, Kept, Receipt
from backhaul_gateway.settings import GatewaySettings
from backhaul_local.nats_server import NatsServer
from backhaul_proto.tenantdata.v1 import tenantdata_pb2_grpc
from gateway_rig import GatewayFactory, Running

PERSON = "+15005550001"


class People:
    """A ``RecipientData`` that answers what a test gave it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.before_us = 0
        self.failing: BackhaulError | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def erase(self, asked: Asked) -> Receipt:
        self.asked.append((asked.tenant_id, asked.address))
        self.before_us = before_us = asked.before_us
        await self.may_answer.wait()
        if self.failing is not None:
            raise self.failing
        return Receipt(before_us, {"events": 3}, [Kept("messages", "Counts."), Kept("rows", "Opt-outs.", 2, 1_000_000)])


class Servicer(tenantdata.TenantDataServicer):
    """Refuses as a service does."""

    async def EraseRecipient(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        try:
            return await super().EraseRecipient(request, context)
        except BackhaulError as exc:
            await context.abort(exc.meaning.grpc_status, exc.message, ((DETAILS_KEY, to_details(exc)),))


class Data:
    """A ``TenantData`` that nobody asks here."""

    async def usage(self, registration: str) -> dict[str, int]:
        return {}

    async def purge(self, tenant_id: str, registration: str) -> int:
        return 0


async def served(stack: AsyncExitStack, people: People | None) -> str:
    server = grpc.aio.server()
    tenantdata_pb2_grpc.add_TenantDataServiceServicer_to_server(Servicer(Data(), people), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stack.push_async_callback(server.stop, None)
    return f"127.0.0.1:{port}"


class Rig:
    def __init__(self, gateway: Running, people: list[People], headers: dict[str, str]) -> None:
        self.gateway = gateway
        self.people = people
        self.headers = headers

    async def erase(self, address: str) -> httpx.Response:
        path = f"/v1/recipients/{quote(address, safe='')}"
        return await self.gateway.client.delete(path, headers=self.headers)


@pytest.fixture
async def erasing(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> AsyncIterator[Rig]:
    """A gateway over a normalizer and a notifier that erase people, and over suppression, which does not."""
    async with AsyncExitStack() as stack:
        people = [People(), People()]
        normalizer, notifier = [await served(stack, one) for one in people]
        suppression = await served(stack, None)
        gateway = await stack.enter_async_context(
            gateway_factory(
                fresh_nats.uri,
                gateway_normalizer_target=normalizer,
                gateway_suppression_target=suppression,
                gateway_notifier_target=notifier,
                gateway_tenant_data_targets=(suppression, notifier),
                log_level="info",
            )
        )
        tenant = await gateway.tenant()
        await gateway.channel()
        yield Rig(gateway, people, {"X-Api-Key": tenant.api_key})


async def test_the_receipt_says_what_every_service_did_and_what_stays(
    erasing: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    began_us = time.time_ns() // 1000
    answer = await erasing.erase(f"whatsapp:{PERSON}")
    assert answer.status_code == 200, answer.text
    receipt = answer.json()
    assert [one["service"] for one in receipt["services"]] == ["normalizer", "suppression", "notifier"]
    assert not receipt["complete"]
    normalizer, suppression, notifier = receipt["services"]
    assert suppression == {"service": "suppression", "erases": False, "erased_before": None, "erased": {}, "kept": []}
    assert {**normalizer, "service": "notifier"} == notifier
    assert normalizer["erased"] == {"events": 3}
    assert normalizer["kept"] == [
        {"kind": "messages", "count": None, "reason": "Counts.", "until": None},
        {"kind": "rows", "count": 2, "reason": "Opt-outs.", "until": "1970-01-01T00:00:01.000000Z"},
    ]
    first = erasing.people[0]
    assert first.asked == [("acme", f"whatsapp:{PERSON}")]
    assert began_us <= first.before_us <= time.time_ns() // 1000
    # The streams name when each is free of the person: by their age.
    assert [one["stream"] for one in receipt["streams"]] == ["CALLBACKS", "EVENTS", "NOTICES"]
    until = {datetime.fromisoformat(one["until"]).timestamp() for one in receipt["streams"]}
    assert until == {round((first.before_us / 1e6 + erasing.gateway.settings.stream_max_age_s) * 1e6) / 1e6}
    assert PERSON[1:] not in answer.text

    # What is held leaves the streams when its channel goes on.
    await erasing.gateway.client.put(
        "/admin/v1/tenants/acme/channels/Twilio", headers=erasing.gateway.admin, json={"processing": "held"}
    )
    streams = (await erasing.erase("ann@example.com")).json()["streams"]
    assert {one["until"] for one in streams} == {None}
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "recipients" in line]
    assert {line["path"] for line in lines} <= {"/v1/recipients/***"}
    assert not any(PERSON[1:] in json.dumps(line) or "ann" in json.dumps(line) for line in lines)


@pytest.mark.parametrize(
    ("codes", "status"),
    [
        ((Code.UNAVAILABLE, None), 503),
        ((None, Code.UNAVAILABLE), 503),
        ((Code.UNAVAILABLE, Code.FAILED_PRECONDITION), 409),
    ],
)
async def test_all_are_asked_and_what_waiting_does_not_mend_is_said_first(
    erasing: Rig, codes: tuple[Code | None, Code | None], status: int
) -> None:
    for one, code in zip(erasing.people, codes, strict=True):
        if code is not None:
            one.failing = BackhaulError(code, "There is more.", retry_after_s=1 if code is Code.UNAVAILABLE else None)
    answer = await erasing.erase(PERSON)
    erasing.gateway.problem(answer, status)
    assert ("retry-after" in answer.headers) == (status == 503)
    assert [len(one.asked) for one in erasing.people] == [1, 1]
    for one in erasing.people:
        one.failing = None
    assert (await erasing.erase(PERSON)).status_code == 200


async def test_one_person_of_a_tenant_is_erased_after_the_other(erasing: Rig) -> None:
    first = erasing.people[0]
    first.may_answer.clear()
    async with asyncio.TaskGroup() as tasks:
        one = tasks.create_task(erasing.erase(PERSON))
        async with asyncio.timeout(60):
            while not first.asked:  # seen from outside, there is nothing else to wait for
                await asyncio.sleep(0.01)
        other = await erasing.erase("ann@example.com")
        assert erasing.gateway.problem(other, 503)["detail"] == "Another person of the tenant is being erased."
        first.may_answer.set()
    assert one.result().status_code == 200
    assert (await erasing.erase("ann@example.com")).status_code == 200


async def test_what_is_refused(erasing: Rig) -> None:
    gateway = erasing.gateway
    gateway.problem(await gateway.client.delete("/v1/recipients/1"), 401)
    gateway.problem(await erasing.erase(" "), 422, "address")
    gateway.problem(await erasing.erase("1" * 513), 422)
    gateway.problem(await gateway.client.delete("/v1/recipients/1?reason=x", headers=erasing.headers), 422, "reason")
    assert not any(one.asked for one in erasing.people)


def test_services_are_named_by_their_targets() -> None:
    told: dict[str, Any] = {
        "gateway_admin_token": "admin-token-0123456789",
        "secret_keys": "0123456789012345678901234567890123456789012=",
        "gateway_tenant_data_targets": "127.0.0.1:50053,tally:1",
    }
    settings = GatewaySettings(**told)
    assert settings.keepers_of_data() == {
        "127.0.0.1:50051": "normalizer",
        "127.0.0.1:50053": "audit",
        "tally:1": "tally:1",
    }
