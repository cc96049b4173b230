"""Status, health, problems and the start without dependencies."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any

import pytest
from backhaul_common import mongo
from backhaul_common.names import TENANT_CHANGED_SUBJECT
from backhaul_common.secrets import new_credential
from backhaul_local.nats_server import NatsServer
from backhaul_local.object_store import ObjectStoreServer
from backhaul_testing import broker
from backhaul_testing.waiting import until
from gateway_rig import GatewayFactory, Running
from structlog.testing import capture_logs


async def test_accessibility(gateway: Running) -> None:
    for path in ("/api/test", "/API/Test"):
        answer = await gateway.client.get(path)
        assert (answer.status_code, answer.json()["status"]) == (200, "ok")


async def test_status(gateway: Running) -> None:
    tenant = await gateway.tenant()
    await gateway.channel()
    headers = {"X-Api-Key": tenant.api_key}

    async def status(path: str = "/api/status?channelLabel=Twilio") -> dict[str, Any]:
        answer = await gateway.client.get(path, headers=headers)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
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
        "object_store_endpoint": s3_server.uri,
        "object_store_access_key": config.access_key,
        "object_store_secret_key": config.secret_key,
    }
    async with gateway_factory(fresh_nats.uri, **settings, object_store_bucket=config.bucket) as gateway:
        tenant = await gateway.tenant()
        await gateway.channel()
        path, headers = "/api/status?channelLabel=Twilio", {"X-Api-Key": tenant.api_key}
        assert (await gateway.client.get(path, headers=headers)).json()["state"] == "OK"
        await gateway.channel(secrets=[])
        body = (await gateway.client.get(path, headers=headers)).json()
        assert (body["state"], body["parts"]["verification"]["state"]) == ("Error", "Error")
    async with gateway_factory(fresh_nats.uri, **settings, object_store_bucket="missing") as gateway:
        body = (await gateway.client.get(path, headers=headers)).json()
        assert body["parts"]["object_storage"]["state"] == "Error"
        assert "missing" in body["parts"]["object_storage"]["detail"]
    wrong = {**settings, "object_store_secret_key": "wrong"}
    async with gateway_factory(fresh_nats.uri, **wrong, object_store_bucket=config.bucket) as gateway:
        body = (await gateway.client.get(path, headers=headers)).json()
        assert body["parts"]["object_storage"]["detail"].startswith("the credentials are wrong, or may not do anything")


async def test_a_tenant_is_not_told_where_parts_are(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> None:
    settings = {
        "object_store_endpoint": "http://127.0.0.1:9",
        "object_store_access_key": "key",
        "object_store_secret_key": "secret",
    }
    async with gateway_factory(fresh_nats.uri, **settings) as gateway:
        tenant = await gateway.tenant()
        await gateway.channel()
        with capture_logs() as lines:
            answer = await gateway.client.get("/api/status?channelLabel=Twilio", headers={"X-Api-Key": tenant.api_key})
        part = answer.json()["parts"]["object_storage"]
        assert part == {"state": "Error", "detail": "not reachable", "configured": True}
        assert "127.0.0.1" not in answer.text
        # Whoever runs it is.
        (line,) = [line for line in lines if line["event"] == "part_not_reachable"]
        assert line["part"] == "object_storage"
        assert "127.0.0.1" in line["error"]


async def test_what_failed_verification_is_not_inherited_with_a_tenants_id(gateway: Running) -> None:
    for expected in (1, 1):
        tenant = await gateway.tenant()
        await gateway.channel()
        assert (await gateway.post(tenant, signature="bad")).status_code == 403
        answer = await gateway.client.get("/api/status?channelLabel=Twilio", headers={"X-Api-Key": tenant.api_key})
        assert answer.json()["parts"]["verification"]["refused"] == expected
        # As a tenant ends, but for the normalizer, which is not here to be asked for its data.
        gateway.tenants.delete_one({"_id": "acme"})
        client = await broker.connect(gateway.settings.nats_url)
        await client.publish(TENANT_CHANGED_SUBJECT, b"acme")
        await client.flush()
        await client.close()
        await gateway.until_status("/api/status", lambda status: status == 401, {"X-Api-Key": tenant.api_key})


@pytest.mark.parametrize(("mode", "state"), [("enforce", "Error"), ("observe", "Error"), ("off", "OK")])
async def test_status_of_a_channel_whose_secrets_cannot_be_read(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, mode: str, state: str
) -> None:
    async with gateway_factory(fresh_nats.uri) as gateway:
        tenant = await gateway.tenant()
        await gateway.channel(verification=mode)
    async with gateway_factory(fresh_nats.uri) as other:  # With a key ring of its own.
        answer = await other.client.get("/api/status?channelLabel=Twilio", headers={"X-Api-Key": tenant.api_key})
        part = answer.json()["parts"]["verification"]
        assert (part["state"], part["secret_count"], part["refused"]) == (state, 1, 0)
        assert ("cannot be read" in (part["detail"] or "")) == (state == "Error")


async def test_a_full_callback_log_is_told_of(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> None:
    async with gateway_factory(fresh_nats.uri, stream_max_bytes=2 << 20) as gateway:
        tenant = await gateway.tenant()
        await gateway.channel(verification="off")
        headers = {"X-Api-Key": tenant.api_key}

        async def post() -> int:
            path = "/api/postevents?channelLabel=Twilio"
            return (await gateway.client.post(path, content=b"x" * 700_000, headers=headers)).status_code

        async def queue() -> dict[str, Any]:
            answer = await gateway.client.get("/api/status?channelLabel=Twilio", headers=headers)
            part: dict[str, Any] = answer.json()["parts"]["queue"]
            return part

        assert await queue() == {"state": "OK", "detail": None}
        assert await post() == 200
        client = await broker.connect(fresh_nats.uri)
        js = client.jetstream()
        for _ in range(2):
            await js.publish("callbacks.somebody-else.twilio", b"x" * 500_000)
        assert await post() == 503
        part = await queue()
        assert part == {"state": "Error", "detail": "The callback log is full."}
        # Reads, administration and small callbacks still work: taking the gateway out of service would help nobody.
        assert (await gateway.client.get("/readyz")).status_code == 200

        await js.purge_stream("CALLBACKS")
        async with asyncio.timeout(60):
            while await post() != 200:  # the gateway looks every few seconds how much there is
                await asyncio.sleep(0.1)
        # A limit that an operator set by hand fills as well.
        config = (await js.stream_info("CALLBACKS")).config
        await js.update_stream(config.evolve(max_msgs=1))
        assert await post() == 503
        assert (await queue())["state"] == "Error"
        await client.close()


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
        "/v1/replies",
    ):
        gateway.problem(await gateway.client.get(path), 401)
        answer = await gateway.client.get(path, headers={"X-Api-Key": tenant.api_key})
        gateway.problem(answer, 503)
        assert answer.headers["retry-after"]
    for path in (
        "/v1/dead-letters/1/replay",
        "/v1/dead-letters/1/discard",
        "/v1/replies/1/accept",
        "/v1/replies/1/dismiss",
    ):
        gateway.problem(await gateway.client.post(path), 401)
        gateway.problem(await gateway.client.post(path, headers={"X-Api-Key": tenant.api_key}), 503)


INVALID_FILTERS = [
    ("limit=0", "limit"),
    ("limit=501", "limit"),
    ("from=yesterday", "from"),
    ("to=99999-01-01T00:00:00Z", "to"),
    ("state=nothing", "state"),
    ("fulfilment_state=nothing", "fulfilment_state"),
    ("recipient=%00", "recipient"),
    ("recipient=" + "x" * 600, "recipient"),
]


async def test_invalid_filters(gateway: Running, subtests: pytest.Subtests) -> None:
    tenant = await gateway.tenant()
    for query, field in INVALID_FILTERS:
        with subtests.test(query=query):
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

    edge: Any = gateway.server.config.app
    edge.app.add_api_route("/boom", boom)
    answer = await gateway.client.get("/boom")
    assert gateway.problem(answer, 500)["code"] == "internal"
    assert "hunter2" not in answer.text
    assert (await gateway.client.get("/healthz")).status_code == 200


async def test_no_credential_in_a_path_is_logged(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, capsys: pytest.CaptureFixture[str]
) -> None:
    async with gateway_factory(fresh_nats.uri, log_level="info") as gateway:
        tenant = await gateway.tenant()
        token = tenant.ingest_token
        paths = [f"//in/{token}/api/postevents", f"/prefix/in/{token}/api/postevents", f"/in/{token}/api/posteven"]
        paths += [f"/in%2F{token}/x", f"/{tenant.api_key}", f"/in/{token.upper()}/x", "/in/whatever-it-is/x"]
        for path in paths:
            answer = await gateway.raw(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
            assert answer.startswith(b"HTTP/1.1 404"), path
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"event":"request"' in line]
    logged = [line["path"] for line in lines if line["status"] == 404]
    assert len(logged) == len(paths)
    assert all("***" in path for path in logged)
    for secret in (token.split("_")[2], tenant.api_key.split("_")[2], "whatever"):
        assert secret not in "".join(logged).lower()


@pytest.mark.parametrize("dies", [False, True])
async def test_nats_fails_right_after_it_was_connected_to(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, nats_fails_once_connected: Any, dies: bool
) -> None:
    first = nats_fails_once_connected(dies)
    async with gateway_factory(fresh_nats.uri) as gateway:
        tenant = await gateway.tenant()
        await gateway.channel()
        assert (await gateway.post(tenant)).status_code == 200
        [client] = first.clients
        assert [sub.subject for sub in client._subs.values()].count(TENANT_CHANGED_SUBJECT) == 1
        # What another copy changes is heard of.
        async with gateway_factory(fresh_nats.uri, secret_keys=gateway.settings.secret_keys) as other:
            path, headers = "/api/status?channelLabel=Twilio", {"X-Api-Key": tenant.api_key}
            await other.client.delete(
                f"/admin/v1/tenants/acme/keys/{tenant.api_key.split('_')[1]}", headers=other.admin
            )
            await gateway.until_status(path, lambda status: status == 401, headers)


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


async def test_started_while_mongodb_is_away(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mongo, "OPERATION_S", 0.3)
    async with gateway_factory(fresh_nats.uri, wait=False, mongo_uri="mongodb://127.0.0.1:9/") as gateway:
        ready = await gateway.client.get("/readyz")
        assert ready.status_code == 503
        # What is missing are the tenants, for which callbacks could not be taken; not the database as such.
        assert "tenants" in ready.json()["failing"]
        assert "mongodb" not in ready.json()["failing"]
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


async def refused(port: int) -> bool:
    """Whether nobody listens there."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return True
    writer.close()
    return False


async def test_a_stop_answers_what_is_under_way(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> None:
    async with gateway_factory(fresh_nats.uri, gateway_shutdown_grace_s=5, gateway_publish_timeout_s=4.5) as gateway:
        tenant = await gateway.tenant()
        await gateway.channel()
        fresh_nats.pause()
        waiting = [asyncio.create_task(gateway.post(tenant)) for _ in range(10)]
        await gateway.until_waiting(10)
        gateway.server.should_exit = True
        await until("the stop has begun: nobody is let in", partial(refused, gateway.port))
        fresh_nats.resume()
        assert [(await task).status_code for task in waiting] == [200] * 10
