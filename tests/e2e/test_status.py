"""Accessibility, the channels' state, and limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backhaul_client import AsyncTenantClient
from backhaul_local.stack import ObjectStoreAccess
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until
from simulators.people import Tenant, Town

if TYPE_CHECKING:
    from backhaul_client.statusmodels import SubscriptionsPart
    from backhaul_local.object_store import ObjectStoreServer
    from backhaul_local.stack import Stack

Json = dict[str, Any]


async def test_without_object_storage_the_state_is_error_and_callbacks_are_processed(town: Town) -> None:
    tenant = await town.platform.register()
    test = await town.http.get(f"{tenant.base_url}/api/test")
    assert (test.status_code, test.json()["status"]) == (200, "ok")

    before = await tenant.client.channel_status("tWiLiO")
    assert (before.state, before.channel, before.provider) == ("Error", "Twilio", "twilio")
    parts = before.parts
    assert parts.reconciliation is not None
    working = (parts.queue, parts.store, parts.callbacks, parts.processing, parts.audit, parts.reconciliation)
    assert [part.state for part in (*working, parts.verification)] == ["OK"] * 7
    assert not parts.audit.asked
    assert (parts.processing.mode, parts.processing.held_since, parts.processing.held_messages) == ("on", None, 0)
    assert (parts.object_storage.state, parts.object_storage.configured) == ("Error", False)
    assert parts.callbacks.last_seen_at is None
    assert (parts.verification.secret_count, parts.verification.refused) == (1, 0)

    sid = new_sid()
    post = tenant.twilio.status(tenant.address("Twilio"), sid, "sent")
    assert (await tenant.send(post)).status_code == 200
    assert (await tenant.send(post.without_header("X-Twilio-Signature"))).status_code == 403
    message = await tenant.message_with("twilio", sid, 1)

    after = (await tenant.read("/api/status", CHANNELLABEL="twilio"))["parts"]
    assert after["verification"]["refused"] == 1
    assert message.created_at is not None
    assert after["callbacks"]["last_seen_at"][:10] == message.created_at.isoformat()[:10]
    # The other channel of the same tenant has seen nothing.
    other = (await tenant.client.channel_status("SendGrid")).parts
    assert (other.callbacks.last_seen_at, other.verification.refused) == (None, 0)

    missing = await tenant.get("/api/status")
    assert (missing.status_code, missing.json()["errors"][0]["field"]) == (422, "channelLabel")
    unknown = await tenant.get("/api/status", channelLabel="mPulse")
    assert unknown.status_code == 404


async def test_without_object_storage_a_channel_says_that_its_files_wait(town: Town) -> None:
    tenant = await town.platform.register()
    settings = {"audit": {"enabled": True}}
    await town.platform.client.put_channel(tenant.id, "Twilio", settings=settings)
    sid = new_sid()
    assert (await tenant.send(tenant.twilio.status(tenant.address("Twilio"), sid, "sent"))).status_code == 200
    # It is processed all the same.
    await tenant.message_with("twilio", sid, 1)

    async def told() -> bool:
        audit = (await tenant.client.channel_status("Twilio")).parts.audit
        return audit.state == "Error"

    await until("what keeps the files from being written", told)
    audit = (await tenant.client.channel_status("Twilio")).parts.audit
    assert audit.asked
    assert "object storage" in str(audit.detail).lower()
    assert (await tenant.client.channel_status("SendGrid")).parts.audit.state == "OK"
    await town.platform.client.put_channel(tenant.id, "Twilio", settings={})


async def test_a_held_channel_says_so_and_since_when_and_that_is_no_error(town: Town) -> None:
    tenant = await town.platform.register()
    set_at = (await town.platform.client.put_channel(tenant.id, "Twilio", processing="held")).held_since
    sid = new_sid()
    assert (await tenant.send(tenant.twilio.status(tenant.address("Twilio"), sid, "sent"))).status_code == 200

    async def waits() -> bool:
        return (await tenant.client.channel_status("Twilio")).parts.processing.held_messages == 1

    await until("a message that is held", waits)
    parts = (await tenant.client.channel_status("Twilio")).parts
    assert (parts.processing.state, parts.processing.mode, parts.processing.held_since) == ("OK", "held", set_at)
    # It was stored, and is nowhere else.
    assert parts.callbacks.last_seen_at is not None
    assert await tenant.message("twilio", sid) is None
    await town.platform.client.put_channel(tenant.id, "Twilio", processing="on")
    await tenant.message_with("twilio", sid, 1)
    processing = (await tenant.client.channel_status("Twilio")).parts.processing
    assert (processing.mode, processing.held_since, processing.held_messages) == ("on", None, 0)


async def test_with_object_storage_another_copy_of_the_gateway_says_ok(
    town: Town, installation: Stack, s3_server: ObjectStoreServer
) -> None:
    from backhaul_local.stack import Stack, StackConfig

    tenant = await town.platform.register()
    store = s3_server.config
    folder = installation.config.data_dir / "second-gateway"
    second = Stack(
        StackConfig(
            data_dir=folder,
            nats_url=installation.nats_url,
            mongo_uri=installation.mongo_uri,
            mongo_database=installation.mongo_database,
            credentials=installation.credentials,
            object_store=ObjectStoreAccess(
                endpoint=s3_server.uri, access_key=store.access_key, secret_key=store.secret_key, bucket=store.bucket
            ),
            log_level=installation.config.log_level,
            service_env={
                "gateway": {
                    "BACKHAUL_GATEWAY_NORMALIZER_TARGET": f"127.0.0.1:{installation.port('normalizer', 'grpc')}",
                    # Both copies stand behind one public address.
                    "BACKHAUL_GATEWAY_PUBLIC_BASE_URL": installation.gateway_url,
                }
            },
        )
    )
    try:
        await second.start_services("gateway")
        other = AsyncTenantClient(second.gateway_url, tenant.api_key, http=town.http)
        state = await other.channel_status("Twilio")
        assert state.state == "OK", state
        assert (state.parts.object_storage.state, state.parts.object_storage.configured) == ("OK", True)

        # What is changed at one copy holds at the other at once: a tenant, and a channel that loses its secret.
        sid = new_sid()
        post = tenant.twilio.status(tenant.address("Twilio"), sid, "sent")
        moved = type(post)(post.url.replace(tenant.base_url, second.gateway_url), post.headers, post.body)
        assert (await tenant.send(moved)).status_code == 200
        await tenant.message_with("twilio", sid, 1)
        await town.platform.client.put_channel(tenant.id, "Twilio", secrets=[])

        async def refused() -> bool:
            return (await tenant.send(moved)).status_code == 403

        await until("the other copy to hear of the change", refused, within_s=5)
        state = await other.channel_status("Twilio")
        assert (state.state, state.parts.verification.state) == ("Error", "Error")
    finally:
        await second.stop()


async def test_a_tenants_limits_hold_for_it_alone(town: Town) -> None:
    # So slow that nothing is added while the test runs, however long a post takes.
    limited = await town.platform.register(limits={"requests_per_second": 0.01, "burst": 3, "max_body_bytes": 2048})
    free = await town.platform.register()

    def post_of(tenant: Tenant, size: int) -> Any:
        return tenant.twilio.status(tenant.address("Twilio"), new_sid(), "sent", Padding="x" * size)

    assert (await limited.send(post_of(limited, 4096))).status_code == 413
    assert [(await limited.send(post_of(limited, 0))).status_code for _ in range(4)] == [200] * 4
    assert (await free.send(post_of(free, 4096))).status_code == 200
    # What is over the rate is held, and the tenant is told so.
    parts = [(await tenant.client.channel_status("Twilio")).parts for tenant in (limited, free)]
    assert [part.held.callbacks for part in parts if part.held is not None] == [2, 0]


async def test_the_status_counts_what_waits_for_the_tenants_own_application(town: Town) -> None:
    tenant, other = await town.platform.register(), await town.platform.register()

    async def telling(of: Tenant) -> SubscriptionsPart:
        part = (await of.client.channel_status("Twilio")).parts.subscriptions
        assert part is not None
        return part

    before = await telling(tenant)
    assert (before.state, before.active, before.paused, before.waiting) == ("OK", 0, 0, 0)
    made = await tenant.client.subscriptions.create(["message.*"], http={"url": "https://example.com/told"})
    await tenant.client.subscriptions.pause(made.id)
    post = tenant.twilio.status(tenant.address("Twilio"), new_sid(), "sent")
    assert (await tenant.send(post)).status_code == 200

    async def waits() -> SubscriptionsPart | None:
        part = await telling(tenant)
        return part if part.waiting else None

    part = await until("a delivery that waits", waits)
    assert (part.state, part.active, part.paused, part.disabled, part.failing) == ("OK", 0, 1, 0, 0)
    assert (part.waiting, part.failed) == (1, 0)
    assert part.waiting_since is not None
    assert (await telling(other)).waiting == 0
