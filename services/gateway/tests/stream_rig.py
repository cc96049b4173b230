"""Readers of ``GET /v1/events/stream``, and what is published for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from backhaul_client.adminmodels import NewTenant
from backhaul_common.names import events_subject
from backhaul_proto.event.v1.event_pb2 import EVENT_KIND_DELIVERED, Event, EventBatch, EventKind
from backhaul_testing import broker
from gateway_rig import Running

PATH = "/v1/events/stream"
WITHIN_S = 20


@dataclass
class Told:
    """One message of a stream, as its reader has it."""

    id: str
    name: str
    data: Any


@dataclass
class Reader:
    """What parses a stream as the standard says."""

    answer: httpx.Response
    last_id: str = ""
    heartbeats: int = 0
    _lines: AsyncIterator[str] = field(init=False)

    def __post_init__(self) -> None:
        self._lines = self._cut()

    async def _cut(self) -> AsyncIterator[str]:
        """Lines end as the standard says; a text's own may end otherwise."""
        rest = b""
        async for piece in self.answer.aiter_bytes():
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                yield line.decode()

    async def next(self) -> Told | None:
        """The next message; None where the stream has ended. Heartbeats are only counted."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                name, data, comment = "", [], False
                async for line in self._lines:
                    if not line:
                        break
                    what, _, value = line.partition(": ")
                    if what == "id":
                        self.last_id = value
                    elif what == "event":
                        name = value
                    elif what == "data":
                        data.append(value)
                    else:
                        comment = line.startswith(":")
                else:
                    return None
                if data:
                    return Told(self.last_id, name, json.loads("\n".join(data)))
                self.heartbeats += comment

    async def heartbeat(self) -> None:
        """Wait for one, and for nothing else."""
        async with asyncio.timeout(WITHIN_S):
            async for line in self._lines:
                assert not line.startswith("data"), line
                if line.startswith("id: "):
                    self.last_id = line.removeprefix("id: ")
                    return

    async def ids(self, count: int) -> list[str]:
        """The ids of so many events."""
        found = []
        for _ in range(count):
            told = await self.next()
            assert told is not None
            assert not told.name, told
            found.append(told.data["id"])
        return found


@asynccontextmanager
async def reading_on(gateway: Running, tenant: NewTenant, last_id: str = "", **query: str) -> AsyncIterator[Reader]:
    """A stream that is open, and has said where it begins."""
    headers = {"X-Api-Key": tenant.api_key, **({"Last-Event-ID": last_id} if last_id else {})}
    async with gateway.client.stream("GET", PATH, params=query, headers=headers) as answer:
        if answer.status_code != 200:
            raise AssertionError((await answer.aread()).decode())
        assert answer.headers["content-type"] == "text/event-stream"
        yield Reader(answer)


def event(
    gateway: Running, tenant: str, event_id: str, kind: EventKind.ValueType = EVENT_KIND_DELIVERED, **more: Any
) -> Event:
    """An event of a tenant, as the normalizer publishes it."""
    registration = gateway.tenants.find_one({"_id": tenant})["registration"]
    found = Event(id=event_id, tenant_id=tenant, registration=registration, kind=kind)
    found.channel, found.provider, found.message_id = "twilio", "twilio", f"SM{event_id}"
    for name, value in more.items():
        getattr(found, name).extend(value) if isinstance(value, list) else setattr(found, name, value)
    return found


async def publish(gateway: Running, path: str, batches: Sequence[Sequence[Event]]) -> None:
    """Each of ``batches`` as a message of EVENTS under the queue path."""
    client = await broker.connect(gateway.settings.nats_url)
    try:
        for events in batches:
            one = events[0]
            kind = EventKind.Name(one.kind).removeprefix("EVENT_KIND_").lower()
            subject = events_subject(path, one.channel, kind, one.error_code)
            await client.jetstream().publish(subject, EventBatch(events=events).SerializeToString())
    finally:
        await client.close()
