"""Status, health, problems and the start without dependencies."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from backhaul_common.secrets import new_credential
from backhaul_local.nats_server import NatsServer
from backhaul_local.object_store import ObjectStoreServer

if TYPE_CHECKING:
    from conftest import GatewayFactory, Running


async def test_accessibility(gateway: Running) -> None:
    for path in ("/api/test", "/API/Test"):
        answer = await gateway.client.get(path)
        assert (answer.status_code, answer.json()["status"]) == (200, "ok")


async def test_status(gateway: Running) -> None:
    tenant = await gateway.tenant()
    await gateway.channel()
    headers = {"X-Api-Key": tenant.api_key}

    async def status(path: str = "/api/status?channelLabel=Twilio") -> dict[str, object]:
        answer = await gateway.client.get(path, headers=headers)
        assert answer.status_code == 200, answer.text
        body: dict[str, object] = answer.json()
        return body

    before = await status()
    assert before["parts"]["callbacks"]["last_seen_at"] is None
    await gateway.post(tenant)
    await gateway.post(tenant, signature="bad")
    after = await status("/api/Status?CHANNELLABEL=twilio")
    assert after["state"] == "Error"
    parts = after["parts"]
    assert parts["queue"]["state"] == parts["store"]["state"] == parts["callbacks"]["state"] == "OK"
    assert parts["object_storage"] == {"state": "Error", "detail": "not configured", "configured": False}
    assert parts["verification"]["refused"] == 1
    assert parts["callbacks"]["last_seen_at"] is not None
    gateway.problem(await gateway.client.get("/api/status?channelLabel=Twilio"), 401)
    gateway.problem(await gateway.client.get("/api/status", headers=headers), 422, "channelLabel")
    gateway.problem(await gateway.client.get("/api/status?channelLabel=RCS", headers=headers), 404, "channelLabel")
    other = await gateway.tenant("other")
    answer = await gateway.client.get("/api/status?channelLabel=Twilio", headers={"X-Api-Key": other.api_key})
    gateway.problem(answer, 404, "channelLabel")


async def test_status_with_object_storage(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, s3_server: ObjectStoreServer
) -> None:
    config = s3_server.config
    settings = {
        "gateway_object_store_endpoint": s3_server.uri,
        "gateway_object_store_access_key": config.access_key,
        "gateway_object_store_secret_key": config.secret_key,
    }
    async with gateway_factory(fresh_nats.uri, **settings, gateway_object_store_bucket=config.bucket) as gateway:
        tenant = await gateway.tenant()
        await gateway.channel()
        path, headers = "/api/status?channelLabel=Twilio", {"X-Api-Key": tenant.api_key}
        assert (await gateway.client.get(path, headers=headers)).json()["state"] == "OK"
        await gateway.channel(secrets=[])
        body = (await gateway.client.get(path, headers=headers)).json()
        assert (body["state"], body["parts"]["verification"]["state"]) == ("Error", "Error")
    async with gateway_factory(fresh_nats.uri, **settings, gateway_object_store_bucket="missing") as gateway:
        body = (await gateway.client.get(path, headers=headers)).json()
        assert body["parts"]["object_storage"]["state"] == "Error"
        assert "missing" in body["parts"]["object_storage"]["detail"]


async def test_reads_need_a_credential_and_say_when_the_normalizer_is_away(gateway: Running) -> None:
    tenant = await gateway.tenant()
    for path in (
        "/v1/messages",
        "/v1/events",
        "/v1/messages/twilio/SM1",
        "/v1/messages/twilio/a/b%2Fc",
        "/v1/communications/offer-17",
        "/v1/dead-letters",
        "/v1/dead-letters/1",
    ):
        gateway.problem(await gateway.client.get(path), 401)
        answer = await gateway.client.get(path, headers={"X-Api-Key": tenant.api_key})
        gateway.problem(answer, 503)
        assert answer.headers["retry-after"]
    for action in ("replay", "discard"):
        path = f"/v1/dead-letters/1/{action}"
        gateway.problem(await gateway.client.post(path), 401)
        gateway.problem(await gateway.client.post(path, headers={"X-Api-Key": tenant.api_key}), 503)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("from=yesterday", "from"),
        ("to=99999-01-01T00:00:00Z", "to"),
        ("state=nothing", "state"),
        ("fulfilment_state=nothing", "fulfilment_state"),
        ("recipient=%00", "recipient"),
        ("recipient=" + "x" * 600, "recipient"),
    ],
)
async def test_invalid_filters(gateway: Running, query: str, field: str) -> None:
    tenant = await gateway.tenant()
    answer = await gateway.client.get(f"/v1/messages?{query}", headers={"X-Api-Key": tenant.api_key})
    gateway.problem(answer, 422, field)


async def test_every_error_is_a_problem(gateway: Running) -> None:
    gateway.problem(await gateway.client.get("/nothing"), 404)
    gateway.problem(await gateway.client.get("/in/x/y"), 404)
    answer = await gateway.client.post("/healthz")
    gateway.problem(answer, 405)
    assert answer.headers["allow"] == "GET"


async def test_what_nobody_expected_is_a_problem_without_detail(gateway: Running) -> None:
    async def boom() -> None:
        raise RuntimeError("the password is hunter2")

    app: Any = gateway.server.config.app
    app.add_api_route("/boom", boom)
    answer = await gateway.client.get("/boom")
    assert gateway.problem(answer, 500)["code"] == "internal"
    assert "hunter2" not in answer.text
    assert (await gateway.client.get("/healthz")).status_code == 200


async def test_openapi_and_docs(gateway: Running) -> None:
    schema = (await gateway.client.get("/openapi.json")).json()
    assert "/api/postevents" in schema["paths"]
    assert "/in/{token}/api/postevents" in schema["paths"]
    assert "HTTPValidationError" not in str(schema)
    assert (await gateway.client.get("/docs")).status_code == 200


async def test_started_while_nats_is_away(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> None:
    uri = fresh_nats.uri
    await fresh_nats.kill()
    async with gateway_factory(uri, wait=False) as gateway:
        assert (await gateway.client.get("/healthz")).status_code == 200
        ready = await gateway.client.get("/readyz")
        assert ready.status_code == 503
        assert "jetstream" in ready.json()["failing"]
        tenant = await gateway.tenant()
        await gateway.channel()
        gateway.problem(await gateway.post(tenant), 503)
        await fresh_nats.start()
        await gateway.ready()
        assert (await gateway.post(tenant)).status_code == 200


async def test_started_while_mongodb_is_away(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> None:
    uri = "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=200"
    async with gateway_factory(fresh_nats.uri, wait=False, mongo_uri=uri) as gateway:
        ready = await gateway.client.get("/readyz")
        assert ready.status_code == 503
        assert {"mongodb", "tenants"} <= ready.json()["failing"].keys()
        answer = await gateway.client.get("/admin/v1/tenants", headers=gateway.admin)
        gateway.problem(answer, 503)


async def test_no_key_is_called_wrong_before_the_tenants_are_known(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    _, key, _ = new_credential("api")
    _, token, _ = new_credential("ingest")
    uri = "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=200"
    async with gateway_factory(fresh_nats.uri, wait=False, mongo_uri=uri) as gateway:
        for answer in (
            await gateway.client.post(
                "/api/postevents?channelLabel=Twilio", headers={"X-Api-Key": key}, content=b"a=b"
            ),
            await gateway.client.post(f"/in/{token}/api/postevents?channelLabel=Twilio", content=b"a=b"),
            await gateway.client.get("/v1/messages", headers={"X-Api-Key": key}),
        ):
            # A provider that is answered 4xx may never send the callback again.
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) >= 1


async def test_a_stop_answers_what_is_under_way(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> None:
    async with gateway_factory(fresh_nats.uri, gateway_shutdown_grace_s=5) as gateway:
        tenant = await gateway.tenant()
        await gateway.channel()
        fresh_nats.pause()
        waiting = [asyncio.create_task(gateway.post(tenant)) for _ in range(10)]
        await gateway.until_waiting(10)
        gateway.server.should_exit = True
        await asyncio.sleep(0.2)
        fresh_nats.resume()
        assert [(await task).status_code for task in waiting] == [200] * 10
