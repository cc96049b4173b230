"""MongoDB is away: what reads and writes subscriptions says so, and nothing is half written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from backhaul_common import mongo
from backhaul_common.errors import BackhaulError, Code
from backhaul_local.nats_server import NatsServer
from backhaul_notifier.signing import SecretKind
from backhaul_notifier.subscriptions import store
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from backhaul_testing.proxy import SilentProxy
from subscriptions_rig import ACME, Copy, Rig, rig_at, wanting

IN_TIME_S = 3.0
"""Less than a silent connection would be waited for."""


@pytest.fixture
async def rig(mongo_server: Any, mongo_database: str, fresh_nats: NatsServer) -> AsyncIterator[Rig]:
    async with rig_at(fresh_nats.uri, mongo_server.uri, mongo_database) as made:
        yield made


@pytest.fixture
async def proxy(mongo_server: Any) -> AsyncIterator[SilentProxy]:
    async with SilentProxy(mongo_server.port) as made:
        yield made


@pytest.fixture
async def copy(rig: Rig, proxy: SilentProxy) -> AsyncIterator[Copy]:
    """One that sees MongoDB through the proxy."""
    client = mongo.connect(f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true")
    made = await rig.copy(mongo.database(client, rig.database.name))
    yield made
    await mongo.close(client)


@contextmanager
def silence(proxy: SilentProxy) -> Iterator[None]:
    """What is asked of MongoDB meanwhile is not waited for for long."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OPERATION_S", "STATEMENTS_S", "COMMIT_S"):
            patch.setattr(mongo, name, 0.5)
        patch.setattr(store, "READ_S", 0.5)
        proxy.go_silent()
        yield
    proxy.speak()


Call = Callable[[Copy, dict[str, Any]], Awaitable[Any]]

CALLS: dict[str, Call] = {
    "create": lambda copy, _: copy.calls.create(
        pb.CreateSubscriptionRequest(tenant_id="acme", definition=wanting(), idempotency_key="k")
    ),
    "get": lambda copy, named: copy.calls.get(pb.GetSubscriptionRequest(**named)),
    "list": lambda copy, _: copy.calls.list(pb.ListSubscriptionsRequest(tenant_id="acme")),
    "update": lambda copy, named: copy.calls.update(
        pb.UpdateSubscriptionRequest(**named, definition=wanting(name="another"))
    ),
    "delete": lambda copy, named: copy.calls.delete(pb.DeleteSubscriptionRequest(**named)),
    "pause": lambda copy, named: copy.calls.pause(pb.PauseSubscriptionRequest(**named)),
    "resume": lambda copy, named: copy.calls.resume(pb.ResumeSubscriptionRequest(**named)),
    "rotate": lambda copy, named: copy.calls.rotate(pb.RotateSecretRequest(**named, kind=pb.SECRET_KIND_HMAC)),
    "test": lambda copy, named: copy.calls.test(pb.TestSubscriptionRequest(**named)),
}


@pytest.mark.timed
@pytest.mark.parametrize("name", CALLS)
async def test_every_call_says_that_mongodb_is_away_and_is_carried_out_when_it_is_back(
    rig: Rig, copy: Copy, proxy: SilentProxy, name: str
) -> None:
    subscription, _ = await copy.subscriptions.create(ACME, wanting())
    named = {"tenant_id": "acme", "id": subscription.id}
    before = await rig.row(subscription.id), await rig.endpoint(subscription.id), await rig.version()
    with silence(proxy), pytest.raises(BackhaulError) as caught:
        async with asyncio.timeout(IN_TIME_S):
            await CALLS[name](copy, named)
    error = caught.value
    assert error.code is Code.UNAVAILABLE
    assert "MongoDB" in error.message
    assert error.retry_after_s
    # What was known is known still: deliveries go on being matched by it.
    assert copy.subscriptions.get(subscription.id) == subscription
    assert (await rig.row(subscription.id), await rig.endpoint(subscription.id), await rig.version()) == before
    await CALLS[name](copy, named)


async def test_what_backhaul_decides_is_refused_in_the_same_way(rig: Rig, copy: Copy, proxy: SilentProxy) -> None:
    subscription, _ = await copy.subscriptions.create(ACME, wanting())
    for decide in (copy.subscriptions.pause, copy.subscriptions.disable):
        with silence(proxy), pytest.raises(BackhaulError) as caught:
            await decide(subscription, "It fails.")
        assert caught.value.code is Code.UNAVAILABLE
    assert (await rig.row(subscription.id))["state"] == "active"
    await copy.subscriptions.pause(subscription, "It fails.")
    assert (await rig.row(subscription.id))["state"] == "paused"
    assert (await copy.subscriptions.rotate(ACME, subscription.id, SecretKind.ED25519))[0].state == "paused"
