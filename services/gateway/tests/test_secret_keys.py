"""The ring of keys rotates: what every service keeps comes under the first key, and the others leave the ring."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from operator import itemgetter
from typing import Any

import pytest
from backhaul_common import mongo, rpc, secretkeys
from backhaul_common.lifecycle import Readiness
from backhaul_common.names import TENANTS_COLLECTION
from backhaul_common.secretkeys import Kept, SecretRenewal, renewal
from backhaul_common.secrets import SecretBox
from backhaul_common.settings import CommonSettings
from backhaul_common.store_format import StoreFormat
from backhaul_common.tracing import Tracing
from backhaul_gateway.admin import secretkeys as routes
from backhaul_gateway.admin.store import MongoTenantStore
from backhaul_gateway.admin.tenantdata import ServicesData
from backhaul_local.nats_server import NatsServer
from cryptography.fernet import Fernet
from gateway_rig import TWILIO_TOKEN, GatewayFactory, Running
from structlog.testing import capture_logs

OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))
LOOK, ROTATE = "/admin/v1/secret-keys", "/admin/v1/secret-keys/rotate"
CREDENTIALS = {"auth_token": "x" * 32, "account_sid": "AC" + "0" * 32}
BUCKET = {"endpoint": "http://127.0.0.1:9", "bucket": "acme-audit"}
BUCKET_KEYS = {"access_key": "an-access-key", "secret_key": "the-buckets-secret-key"}

Keeper = Callable[[str, SecretBox], Any]


@pytest.fixture
async def database(mongo_server: Any, mongo_database: str) -> AsyncIterator[mongo.Database]:
    client = mongo.connect(mongo_server.uri)
    yield mongo.database(client, mongo_database)
    client.close()


@pytest.fixture
async def keeper(database: mongo.Database) -> AsyncIterator[Keeper]:
    """A service, on a real port, that keeps three secrets in the collection of that name. Its target."""
    settings = CommonSettings(_env_file=None)
    async with AsyncExitStack() as stack:

        async def serve(name: str, box: SecretBox, *, offers: bool = True) -> str:
            rows = database[name]
            await rows.insert_many(
                [{"_id": f"{name}-{number}", "tenant": "acme", "secret": box.encrypt("theirs")} for number in range(3)]
            )
            kept = Kept(rows, box, ["secret"], itemgetter("tenant"), whose=["tenant"])
            (register,) = secretkeys.registrations(SecretRenewal(box, StoreFormat(database), [kept])).values()
            server = await rpc.serve(
                stack,
                settings,
                Tracing("test", None),
                Readiness(),
                listen="127.0.0.1:0",
                services=[secretkeys.SERVICE] if offers else [],
                register=register if offers else lambda _: None,
                without_tenant=[secretkeys.SERVICE] if offers else (),
            )
            return f"127.0.0.1:{server.port}"

        yield serve


async def set_up(gateway: Running) -> None:
    """Two tenants whose channels have secrets of every kind: six in all."""
    for tenant_id in ("acme", "globex"):
        await gateway.tenant(tenant_id)
        await gateway.channel(
            tenant_id,
            pull_credentials=CREDENTIALS,
            settings={"audit": {"enabled": True, "bucket": BUCKET}},
            audit_credentials=BUCKET_KEYS,
        )


async def asked(gateway: Running, path: str, method: str = "POST", **params: str) -> dict[str, Any]:
    answer = await gateway.client.request(method, path, headers=gateway.admin, params=params, timeout=60)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def counted(answer: dict[str, Any]) -> dict[str, tuple[int, int, int, int]]:
    """Renewed, current, older and unreadable, by service."""
    names = ("renewed", "current", "older", "unreadable")
    return {one["service"]: tuple(one[name] for name in names) for one in answer["services"]}


async def test_what_all_services_keep_comes_under_the_first_key_and_the_old_one_leaves_the_ring(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, keeper: Keeper
) -> None:
    both = SecretBox([NEW, OLD])
    async with gateway_factory(fresh_nats.uri, secret_keys=OLD) as gateway:
        await set_up(gateway)
        tenant = await gateway.tenant("initech")
        await gateway.channel("initech")
    # What services keep is under the first key already, but for one that is put back under the old one.
    targets = {f"gateway_{name}_target": await keeper(name, both) for name in ("audit", "notifier")}
    async with gateway_factory(fresh_nats.uri, secret_keys=f"{NEW},{OLD}", **targets) as gateway:
        rows = gateway.mongo[gateway.settings.mongo_database]
        rows["notifier"].update_one({"_id": "notifier-1"}, {"$set": {"secret": SecretBox([OLD]).encrypt("theirs")}})
        before = list(gateway.tenants.find({}))
        shown = await gateway.client.get("/admin/v1/tenants/acme", headers=gateway.admin)
        looked = await asked(gateway, LOOK, "GET")
        assert (looked["key_id"], looked["next_cursor"], looked["unreadable"]) == (both.key_id, None, [])
        assert counted(looked) == {"audit": (0, 3, 0, 0), "notifier": (0, 2, 1, 0), "gateway": (0, 0, 7, 0)}
        assert list(gateway.tenants.find({})) == before
        with capture_logs() as lines:
            rotated = await asked(gateway, ROTATE)
        assert counted(rotated) == {"audit": (0, 3, 0, 0), "notifier": (1, 2, 0, 0), "gateway": (7, 0, 0, 0)}
        assert all(one["complete"] and one["installed"] for one in rotated["services"])
        said = repr(lines) + repr(rotated)
        assert "secrets_renewed" in said
        for secret in (OLD, NEW, TWILIO_TOKEN, *CREDENTIALS.values(), *BUCKET_KEYS.values(), "theirs", "gAAAA"):
            assert secret not in said
        assert counted(await asked(gateway, LOOK, "GET"))["gateway"] == (0, 7, 0, 0)
        # Nothing else of a tenant has changed but its revision.
        again = (await gateway.client.get("/admin/v1/tenants/acme", headers=gateway.admin)).json()
        assert again == shown.json() | {"revision": shown.json()["revision"] + 1}
    async with gateway_factory(fresh_nats.uri, secret_keys=NEW) as gateway:
        assert (await gateway.post(tenant)).status_code == 200
        box, stored = SecretBox([NEW]), gateway.tenants.find_one({"_id": "acme"})["channels"]["twilio"]
        assert [box.decrypt(text) for text in stored["secrets"]] == [TWILIO_TOKEN]
        assert BUCKET_KEYS["secret_key"] in box.decrypt(stored["audit_credentials"])
        assert CREDENTIALS["auth_token"] in box.decrypt(stored["pull_credentials"])


async def test_what_no_key_decrypts_is_named_without_its_value(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    async with gateway_factory(fresh_nats.uri, secret_keys=OLD) as gateway:
        await set_up(gateway)
    optional = {"gateway_audit_target": "", "gateway_notifier_target": ""}
    async with gateway_factory(fresh_nats.uri, secret_keys=NEW, **optional) as gateway:
        for path, method in ((LOOK, "GET"), (ROTATE, "POST")):
            answer = await asked(gateway, path, method)
            assert counted(answer)["gateway"] == (0, 0, 0, 6)
            assert [one["service"] for one in answer["services"] if not one["installed"]] == ["audit", "notifier"]
            places = ("secrets.0", "pull_credentials", "audit_credentials")
            assert answer["unreadable"] == [
                {"service": "gateway", "tenant_id": id_, "id": id_, "field": f"channels.twilio.{place}"}
                for id_ in ("acme", "globex")
                for place in places
            ]
    async with gateway_factory(fresh_nats.uri, secret_keys=f"{NEW},{OLD}", **optional) as gateway:
        assert counted(await asked(gateway, ROTATE))["gateway"] == (6, 0, 0, 0)


async def test_a_request_whose_time_is_over_says_where_to_go_on(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway_factory(fresh_nats.uri, secret_keys=OLD) as gateway:
        await set_up(gateway)
    monkeypatch.setattr(renewal, "MAX_DOCUMENTS", 1)
    both = SecretBox([NEW, OLD])
    targets = {f"gateway_{name}_target": await keeper(name, both) for name in ("audit", "notifier")}
    async with gateway_factory(fresh_nats.uri, secret_keys=f"{NEW},{OLD}", **targets) as gateway:
        # Each request is over as soon as it has asked once.
        ends = iter(range(10_000))
        endpoints: list[Any] = [route.endpoint for route in gateway.routes if route.path == ROTATE]
        (own,) = [endpoint.__self__ for endpoint in endpoints]
        monkeypatch.setattr(own, "_clock", lambda: next(ends) * (routes.MAX_CALL_S - 1))
        total: dict[str, int] = {}
        cursor, requests = "", 0
        while True:
            answer = await asked(gateway, ROTATE, **({"cursor": cursor} if cursor else {}))
            requests += 1
            for one in answer["services"]:
                total[one["service"]] = total.get(one["service"], 0) + one["renewed"] + one["current"]
            if (cursor := answer["next_cursor"] or "") == "":
                break
            assert not answer["services"][-1]["complete"]
        assert total == {"audit": 3, "notifier": 3, "gateway": 6}
        assert requests > 5
        for wrong in ("nobody/", "gateway/x", "gateway/7/"):
            refused = await gateway.client.post(ROTATE, headers=gateway.admin, params={"cursor": wrong})
            gateway.problem(refused, 422, "cursor")


async def test_a_service_with_another_first_key_keeps_the_gateway_from_writing(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, keeper: Keeper
) -> None:
    async with gateway_factory(fresh_nats.uri, secret_keys=NEW) as gateway:
        await set_up(gateway)
    target = await keeper("audit", SecretBox([NEW, OLD]))
    # It was started before the new key came to the front.
    behind = {"secret_keys": f"{OLD},{NEW}", "gateway_audit_target": target, "gateway_notifier_target": ""}
    async with gateway_factory(fresh_nats.uri, **behind) as gateway:
        before = list(gateway.tenants.find({}))
        refused = gateway.problem(await gateway.client.post(ROTATE, headers=gateway.admin), 409)
        assert refused["detail"].startswith("The audit has other keys. The first key here is ")
        assert "BACKHAUL_SECRET_KEYS" in str(refused["errors"])
        assert list(gateway.tenants.find({})) == before


async def test_a_service_that_cannot_or_is_away_is_named(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, keeper: Any
) -> None:
    target = await keeper("audit", SecretBox([NEW]), offers=False)
    async with gateway_factory(fresh_nats.uri, secret_keys=NEW, gateway_audit_target=target) as gateway:
        refused = gateway.problem(await gateway.client.post(ROTATE, headers=gateway.admin), 409)
        assert refused["detail"] == "The audit is of a version that cannot encrypt its secrets anew."
    optional = {"gateway_audit_target": ""}
    async with gateway_factory(fresh_nats.uri, secret_keys=NEW, **optional) as gateway:
        refused = gateway.problem(await gateway.client.post(ROTATE, headers=gateway.admin), 503)
        assert refused["detail"] == "The notifier cannot be asked. SecretKeys is away."


async def test_who_read_a_tenant_before_does_not_write_what_it_read_over_what_was_renewed(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, database: mongo.Database
) -> None:
    optional = {"gateway_audit_target": "", "gateway_notifier_target": ""}
    async with gateway_factory(fresh_nats.uri, secret_keys=OLD) as gateway:
        await set_up(gateway)
    async with gateway_factory(fresh_nats.uri, secret_keys=f"{NEW},{OLD}", **optional) as gateway:
        store = MongoTenantStore(database[TENANTS_COLLECTION], StoreFormat(database))
        read = await store.find("acme")
        assert read is not None
        # Callbacks are taken, and others change their channels, while the secrets are renewed.
        answers = await asyncio.gather(
            asked(gateway, ROTATE),
            *(gateway.channel("globex", f"Twilio {number}", provider="twilio") for number in range(10)),
        )
        assert counted(answers[0])["gateway"][0] >= 6
        renamed = read.model_copy(update={"name": "renamed", "revision": read.revision + 1})
        assert not await store.replace(renamed, read.revision)
        assert counted(await asked(gateway, LOOK, "GET"))["gateway"] == (0, 16, 0, 0)


async def test_a_deletion_that_is_refused_meanwhile_gives_the_tenant_its_status_back(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    optional = {"gateway_audit_target": "", "gateway_notifier_target": ""}
    async with gateway_factory(fresh_nats.uri, secret_keys=OLD) as gateway:
        await set_up(gateway)
    async with gateway_factory(fresh_nats.uri, secret_keys=f"{NEW},{OLD}", **optional) as gateway:
        seen: list[str] = []

        async def usage(_: ServicesData, __: Any) -> dict[str, int]:
            seen.append(gateway.tenants.find_one({"_id": "acme"})["status"])
            if len(seen) == 1:
                return {}
            assert counted(await asked(gateway, ROTATE))["gateway"][0] == 6
            return {"events": 1}

        monkeypatch.setattr(ServicesData, "usage", usage)
        gateway.problem(await gateway.client.delete("/admin/v1/tenants/acme", headers=gateway.admin), 409, "purge")
        assert seen == ["active", "suspended"]
        assert gateway.tenants.find_one({"_id": "acme"})["status"] == "active"
