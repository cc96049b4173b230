"""That it is known which notices subscriptions want, of those that are written only where somebody does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from backhaul_common import wanted
from backhaul_local.nats_server import NatsServer
from backhaul_notifier.catalogue.types import TYPES
from subscriptions_rig import ACME, GLOBEX, Copy, Rig, rig_at, wanting


@pytest.fixture
async def rig(mongo_server: Any, mongo_database: str, fresh_nats: NatsServer) -> AsyncIterator[Rig]:
    async with rig_at(fresh_nats.uri, mongo_server.uri, mongo_database) as made:
        yield made


async def made(copy: Copy, *types: str, tenant: Any = ACME) -> str:
    subscription, _ = await copy.subscriptions.create(tenant, wanting(types=types))
    return subscription.id


async def who_wants(rig: Rig) -> set[str]:
    registrations = [ACME.registration, GLOBEX.registration]
    return await wanted.wanting(rig.database, registrations, wanted.MEMBER_PROCESSED)


def test_what_is_asked_for_are_notices_of_the_catalogue() -> None:
    assert [name for name in wanted.ASKED_FOR if TYPES[name].of_events] == []


@pytest.mark.parametrize("types", [["member.processed"], ["member.*"], ["*"], ["message.sent", "member.processed"]])
async def test_it_is_wanted_from_the_first_subscription_that_covers_it_to_the_last(rig: Rig, types: list[str]) -> None:
    copy = await rig.copy()
    await made(copy, "message.*", "communication.completed")
    await made(copy, *types, tenant=GLOBEX)
    assert await who_wants(rig) == {GLOBEX.registration}
    first, second = await made(copy, *types), await made(copy, *types)
    await copy.subscriptions.delete(ACME, first)
    # What a paused one is not told waits for it.
    await copy.subscriptions.pause_by_call(ACME, second)
    assert await who_wants(rig) == {ACME.registration, GLOBEX.registration}
    await copy.subscriptions.update(ACME, second, wanting(types=["message.sent"]))
    assert await who_wants(rig) == {GLOBEX.registration}
    await copy.subscriptions.update(ACME, second, wanting(types=types))
    assert await who_wants(rig) == {ACME.registration, GLOBEX.registration}
    await copy.subscriptions.delete(ACME, second)
    assert await who_wants(rig) == {GLOBEX.registration}


async def test_two_copies_that_write_at_once_leave_what_is_so(rig: Rig) -> None:
    copies = [await rig.copy(), await rig.copy()]
    going = [await made(copies[0], "member.processed") for _ in range(5)]
    await asyncio.gather(
        *(copies[0].subscriptions.delete(ACME, id_) for id_ in going),
        *(made(copies[1], "message.sent") for _ in range(5)),
    )
    assert await who_wants(rig) == set()
    await asyncio.gather(made(copies[0], "member.*"), made(copies[1], "message.sent"))
    assert await who_wants(rig) == {ACME.registration}
