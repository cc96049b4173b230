"""Whether all that can be read of a tenant says the same: lists by each filter, timelines, counts, and EVENTS."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from backhaul_client.models import Event
from backhaul_local.stack import Stack
from backhaul_proto.event.v1.event_pb2 import Event as Published
from backhaul_testing import broker, streams
from simulators.people import Tenant


async def alike(stack: Stack, *tenants: Tenant) -> dict[str, list[Event]]:
    """All events of each tenant, by its id; AssertionError names what does not agree with them."""
    connection = await broker.connect(stack.nats_url)
    try:
        published = await streams.published(connection)
    finally:
        await connection.close()
    found = {}
    for tenant in tenants:
        events = await tenant.events(page_size=500)
        ids = {event.id for event in events}
        assert len(ids) == len(events), "a list has an event twice"
        _published_alike(events, [one for one in published if one.tenant_id == tenant.id])
        await _lists(tenant, events)
        await _messages(tenant, events)
        await _counts(tenant, events)
        found[tenant.id] = events
    return found


def _published_alike(events: Iterable[Event], published: Iterable[Published]) -> None:
    """A consumer that keeps the highest revision of each event has what is stored."""
    latest: dict[str, Published] = {}
    for one in published:
        if one.id not in latest or latest[one.id].revision <= one.revision:
            latest[one.id] = one
    stored = {event.id: (event.revision, event.message_id, event.error_code) for event in events}
    assert {key: (one.revision, one.message_id, one.error_code) for key, one in latest.items()} == stored


async def _lists(tenant: Tenant, events: list[Event]) -> None:
    for name, filtered_by in (
        ("channel", "channel"),
        ("kind", "kind"),
        ("error_code", "error_code"),
        ("recipient", "recipient"),
        ("communication_id", "communication"),
    ):
        for value in sorted({getattr(event, name) for event in events} - {""}):
            rows = await tenant.events(page_size=500, **{filtered_by: value})
            assert [row.id for row in rows] == [event.id for event in events if getattr(event, name) == value], value


async def _messages(tenant: Tenant, events: list[Event]) -> None:
    by_message: dict[tuple[str, str], set[str]] = defaultdict(set)
    for event in events:
        by_message[event.channel, event.message_id].add(event.id)
    messages = await tenant.messages(page_size=500)
    assert {(row.channel, row.message_id): row.event_count for row in messages} == {
        name: len(ids) for name, ids in by_message.items()
    }
    for row in messages[::7]:
        message = await tenant.message(row.channel, row.message_id)
        assert message is not None
        assert {event.id for event in message.timeline} == by_message[row.channel, row.message_id]


async def _counts(tenant: Tenant, events: list[Event]) -> None:
    stats = await tenant.client.stats(per="day", group_by=["channel", "kind", "communication"])
    counted: Counter[tuple[str | None, str | None, str]] = Counter()
    for row in stats.rows:
        counted[row.channel, row.kind, row.communication_id or ""] += row.events
    assert counted == Counter((event.channel, event.kind, event.communication_id) for event in events)
    errors = Counter((event.channel, event.error_code) for event in events if event.error_code)
    assert {(row.channel, row.error_code): row.count for row in (await tenant.client.errors()).errors} == errors
