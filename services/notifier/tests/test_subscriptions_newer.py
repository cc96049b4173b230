"""Subscriptions that a newer version wrote, as this one sees them. On real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import SUBSCRIPTIONS_COLLECTION
from backhaul_local.nats_server import NatsServer
from backhaul_notifier.signing import SecretKind
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from subscriptions_rig import ACME, Copy, Rig, rig_at, wanting


@pytest.fixture
async def rig(mongo_server: Any, mongo_database: str, fresh_nats: NatsServer) -> AsyncIterator[Rig]:
    async with rig_at(fresh_nats.uri, mongo_server.uri, mongo_database) as made:
        yield made


@pytest.fixture
async def copy(rig: Rig) -> Copy:
    return await rig.copy()


async def refused(call: Awaitable[Any]) -> BackhaulError:
    with pytest.raises(BackhaulError) as caught:
        await call
    return caught.value


async def made(copy: Copy) -> str:
    subscription, _ = await copy.subscriptions.create(ACME, wanting())
    return subscription.id


async def test_one_that_a_newer_version_wrote_is_listed_and_not_changed(rig: Rig, copy: Copy) -> None:
    first, of = await made(copy), ACME.registration
    rig.now_us += 1
    second = await made(copy)
    row = await rig.row(second)
    definition = {**row["definition"], "ordering": "ORDERING_TOMORROWS"}
    change = {"$set": {"definition": definition, "revision": 7}}
    await rig.database[SUBSCRIPTIONS_COLLECTION].update_one({"_id": second}, change)
    await copy.directory.refresh()
    found, token = await copy.subscriptions.page(of, 10, "")
    assert ([each.id for each in found], token) == ([first, second], "")
    assert [each.readable for each in found] == [True, False]
    assert (found[1].revision, found[1].state) == (7, "active")
    assert "newer version" in found[1].state_text
    answered = await copy.calls.list(pb.ListSubscriptionsRequest(tenant_id="acme"))
    assert [each.id for each in answered.subscriptions] == [first, second]
    # It is nobody's to work, and everything waits for it.
    assert copy.subscriptions.get(second) is None
    known = copy.directory.get(second)
    assert known is not None
    assert not known.readable
    for call in (
        copy.subscriptions.require(of, second),
        copy.subscriptions.update(ACME, second, wanting()),
        copy.subscriptions.rotate(ACME, second, SecretKind.HMAC),
    ):
        assert (await refused(call)).code is Code.UNAVAILABLE
    assert (await rig.row(second))["definition"] == definition
    assert (await copy.subscriptions.pause_by_call(ACME, second)).state == "paused"
    assert (await copy.subscriptions.resume(ACME, second)).state == "active"
    await copy.subscriptions.delete(ACME, second)
    assert copy.directory.get(second) != known
