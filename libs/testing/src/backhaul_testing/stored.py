"""What the normalizer has stored, for tests that look past its API."""

from __future__ import annotations

from typing import Any

from backhaul_proto.event.v1.event_pb2 import Event


async def stored_events(database: Any) -> list[Event]:
    """All events in MongoDB, of all tenants. ``database`` is one of pymongo's asynchronous client."""
    return [
        Event.FromString(one["payload"])
        async for bucket in database["events"].find({}, {"events.payload": 1})
        for one in bucket["events"]
        if one is not None
    ]
