"""What was made by a copy that could not read the subscription is sent by one that can."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from backhaul_notifier.catalogue.matching import Matcher, selection_of
from backhaul_notifier.catalogue.samples import sample_of
from backhaul_notifier.catalogue.types import TYPES
from backhaul_notifier.schedules import Outcome
from working_rig import Rig, rigged


@pytest.fixture
async def rig(mongo_server: Any, mongo_database: str, nats_url: str) -> AsyncIterator[Rig]:
    async with rigged(mongo_server.uri, mongo_database, nats_url) as made:
        yield made


async def test_what_was_made_by_who_could_not_read_the_subscription_is_looked_at_first(rig: Rig) -> None:
    subscription = await rig.subscribe()
    matcher = Matcher(selection_of(["message.read"]))
    await rig.subscriptions.put(replace(subscription, matcher=matcher))
    samples = [sample_of(TYPES[name]) for name in ("message.delivered", "message.read") * 20]
    ids = [
        id_
        for one in samples
        for id_ in await rig.enqueue(payload=one.SerializeToString(), unsure=True, type="message.any")
    ]
    rig.calls.answer = lambda made: Outcome(200 if made.orders[0] > 2 else 500)
    await rig.copy()
    row = await rig.until_row(ids[1], attempts=1)
    assert row["state"] == "waiting"
    rig.move(6)
    rig.calls.answer = lambda _: Outcome(200)
    await rig.until_none_waits()
    assert set(rig.calls.orders()) == set(range(2, 41, 2))
    rows = await rig.deliveries.find().to_list(None)
    assert {row["_id"] for row in rows} == set(ids[1::2])
    assert all(row["type"] == "message.read" and "unsure" not in row for row in rows)
    assert {made.deliveries[0].type for made in rig.calls.made} == {"message.read"}
