"""What a provider's API tells before, after and between its callbacks changes nothing of what they tell."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from backhaul_testing import broker, streams
from backhaul_testing.waiting import until
from faults import filed
from faults.truth import COMMUNICATION, Asking, Story, processed, settle

pytestmark = pytest.mark.faults

ORDERS = ("never", "before", "after", "between")
BATCH = "spring-1"
ENDS = {"delivered": 0.7, "undelivered": 0.15, "failed": 0.15}


async def _tell(asking: Asking, story: Story, order: str) -> None:
    """The same story, with the API asked at another time."""
    await story.tenant.client.communications.put(COMMUNICATION)
    await story.tenant.client.batches.put(COMMUNICATION, BATCH)
    await story.send(40, stops=6, batch=BATCH, outcomes=ENDS)
    await story.tenant.client.batches.close(BATCH)
    await processed(asking.stack)
    if order == "between":
        await story.post(every=2)
    elif order == "after":
        await story.post()
    await processed(asking.stack)
    if order != "never":
        await asking.have_asked(story)
        report = await story.ask()
        assert (report.state, report.counts.differing) == ("done", 0)
        assert bool(report.counts.missing) == (order != "after")
    await story.post()
    await processed(asking.stack)


async def _seen(asking: Asking, story: Story) -> dict[str, Any]:
    """Whatever can be told from the story, by people in place of ids."""
    tenant = story.tenant
    events = await tenant.events(page_size=500)
    people = {event.message_id: event.recipient for event in events}
    communication = await tenant.client.communications.get(COMMUNICATION)
    (batch,) = communication.batches
    return {
        "states": {
            row.recipient: (row.state, row.fulfilment_state, row.error_code, row.event_count, row.communication_id)
            for row in await tenant.messages(page_size=500)
        },
        "events": Counter((event.recipient, event.kind, event.error_code, event.text) for event in events),
        "communication": (communication.fulfilment, communication.events, communication.messages, communication.status),
        "batch": (batch.status, batch.progress),
        "errors": {(row.error_code, row.count) for row in (await tenant.client.errors()).errors},
        "suppressions": {
            (row.address, row.kind, row.active)
            async for row in tenant.client.suppressions(standing="any", page_size=500)
        },
        "notices": Counter(await _notices(asking, story)),
        "people": Counter(people.values()),
    }


async def _notices(asking: Asking, story: Story) -> list[tuple[str, str]]:
    connection = await broker.connect(asking.stack.nats_url)
    try:
        found = await streams.noticed(connection)
    finally:
        await connection.close()
    own = {one.id: one for one in found if one.tenant_id == story.tenant.id}
    # Digests are as many as the time that all of it took.
    return [(one.type, one.about.communication_id) for one in own.values() if one.type != "audit.digest"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [3, 4])
async def test_the_order_of_backfill_and_callbacks_does_not_matter(asking: Asking, seed: int) -> None:
    stories = [await asking.story(api_asked=False, seed=seed, doubled=0.3, shuffled=True) for _ in ORDERS]
    await asyncio.gather(*(_tell(asking, story, order) for story, order in zip(stories, ORDERS, strict=True)))
    for story, order in zip(stories, ORDERS, strict=True):

        async def noticed(story: Story = story) -> bool:
            return bool(await _notices(asking, story))

        truth = await settle(asking.stack, story)
        # Whoever comes first tells a fact, and there are facts of both.
        assert bool(truth.backfilled) == (order in ("before", "between"))
        await until("the notice that the batch is complete", noticed)
    never, *others = [await _seen(asking, story) for story in stories]
    assert never["notices"]
    for order, other in zip(ORDERS[1:], others, strict=True):
        for name, seen in never.items():
            assert other[name] == seen, (order, name)
    # Each event lies in one audit file, whoever told it first.
    await filed.settle(asking.stack, *(story.tenant for story in stories))
