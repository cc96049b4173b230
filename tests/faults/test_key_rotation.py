"""The ring of keys rotates under load, and through a kill -9: nothing is refused, and in the end one key opens all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from backhaul_client import UnreachableError
from backhaul_common.secrets import SecretBox
from backhaul_testing.receiver import Receiver
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until
from cryptography.fernet import Fernet
from pymongo import MongoClient
from simulators.people import Town

if TYPE_CHECKING:
    from backhaul_client.adminmodels import SecretKeys
    from backhaul_local.stack import Stack
    from simulators.people import Tenant

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

KEEPERS = ("audit", "notifier", "reconciler", "gateway")
OTHERS = 600
"""Tenants beside the one that is looked at: so many that renewing them can be cut short."""

TELLS = {"BACKHAUL_NOTIFIER_PLAIN_HTTP": "true", "BACKHAUL_NOTIFIER_ALLOWED_NETWORKS": "127.0.0.0/8"}


async def _ring(stack: Stack, *keys: str) -> None:
    """Restart every service that reads the ring with this one."""
    for name in KEEPERS:
        stack.service(name).env["BACKHAUL_SECRET_KEYS"] = ",".join(keys)
    await asyncio.gather(*(stack.restart(name) for name in KEEPERS))


def _crowd(tenants: Any, model: str) -> None:
    """Tenants like ``model``, under other ids and without keys of their own."""
    row = tenants.find_one({"_id": model})
    names = [f"other-{number:03}" for number in range(OTHERS)]
    own = [{"_id": name, "registration": f"{name}.1", "queue_path": name, "queue_path_key": name} for name in names]
    tenants.insert_many([{**row, **one, "credentials": []} for one in own])


async def _told(tenant: Tenant, receiver: Receiver, secret: str) -> None:
    """A callback is taken, and its event is told, signed."""
    sid = new_sid()
    answer = await tenant.send(tenant.twilio.status(tenant.address("Twilio"), sid, "delivered"))
    assert answer.status_code == 200, answer.text

    async def call() -> Any:
        return next((one for one in receiver.of("/hook") if sid.encode() in one.body), None)

    found = await until("the call", call, within_s=60)
    assert found.is_signed_by(secret)
    assert found.headers["authorization"] == "Bearer a-token"


async def test_a_key_leaves_the_ring_though_the_gateway_dies_while_it_is_rotated(
    own_stack: Callable[..., Any],
) -> None:
    new = Fernet.generate_key().decode()
    async with (
        own_stack(service_env={"notifier": TELLS}, with_object_store=False) as stack,
        Receiver() as receiver,
        Town(stack.gateway_url, stack.admin_token) as town,
    ):
        (old,) = stack.credentials.secret_keys
        tenant, team = await town.platform.register(), town.platform.client
        http: Any = {"url": receiver.url("/hook"), "credentials": {"bearer_token": "a-token"}}
        made = await tenant.client.subscriptions.create(["message.delivered"], http=http)
        secret = made.secrets[0].secret
        assert secret is not None
        await _told(tenant, receiver, secret)
        with MongoClient[dict[str, Any]](stack.mongo_uri) as client:
            database = client[stack.mongo_database]
            _crowd(database["tenants"], tenant.id)
            await _ring(stack, new, old)
            before = await team.secret_keys()
            assert before.key_id == SecretBox([new]).key_id
            older = {one.service: one.older for one in before.services}
            assert older == {"audit": 0, "notifier": 3, "gateway": 2 * (OTHERS + 1)}

            (revision,) = database["tenants"].distinct("revision")
            changed = {"_id": {"$gte": "other-"}, "revision": {"$gt": revision}}
            rotating = asyncio.create_task(team.rotate_secret_keys())

            async def begun() -> bool:
                return await asyncio.to_thread(database["tenants"].count_documents, changed) > 20

            await until("some to be renewed", begun)
            await stack.kill("gateway")
            with pytest.raises(UnreachableError):
                await rotating
            done = database["tenants"].count_documents(changed)
            assert 20 < done < OTHERS, "the gateway had come to its end"
            await stack.member("gateway").start()
            await _told(tenant, receiver, secret)

            # Twice at once, until nothing is left; meanwhile callbacks are taken.
            first, second, _ = await asyncio.gather(
                team.rotate_secret_keys(), team.rotate_secret_keys(), _told(tenant, receiver, secret)
            )
            assert first.next_cursor is None is second.next_cursor
            # By their ids the others come first, and the one that is looked at was not reached.
            renewed = sum(_of(one, "gateway").renewed for one in (first, second))
            assert renewed == 2 * (OTHERS + 1 - done)
            after = await team.secret_keys()
            assert all((one.older, one.unreadable) == (0, 0) for one in after.services)
            assert _of(after, "gateway").current == 2 * (OTHERS + 1)

            await _ring(stack, new)
            await _told(tenant, receiver, secret)
            assert all((one.older, one.unreadable) == (0, 0) for one in (await team.secret_keys()).services)


def _of(answer: SecretKeys, service: str) -> Any:
    (found,) = [one for one in answer.services if one.service == service]
    return found
