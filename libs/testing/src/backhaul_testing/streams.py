"""What tests ask of JetStream: whether a consumer has come to its end, and what EVENTS and NOTICES hold."""

from __future__ import annotations

from datetime import datetime

from backhaul_common.names import AGAIN_HEADER
from backhaul_proto.event.v1.event_pb2 import Event, EventBatch
from backhaul_proto.notice.v1.notice_pb2 import Notice
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import NotFoundError

from backhaul_testing.waiting import until

_FETCHED = 500


async def drained(client: Client, stream: str, consumer: str, *, within_s: float = 60.0) -> None:
    """Return when ``consumer`` has been given every message of ``stream``, and has acknowledged it.

    The broker has no event for that, so it is asked until it says so.
    """
    js = client.jetstream()

    async def idle() -> bool:
        try:
            # Not by the consumer's count of what is pending: it lags behind what publishers were acknowledged.
            last = (await js.stream_info(stream)).state.last_seq
            info = await js.consumer_info(stream, consumer)
        except NotFoundError:
            return False  # Whoever makes them has not started yet.
        return info.delivered is not None and info.delivered.stream_seq >= last and not info.num_ack_pending

    await until(f"the end of {consumer}'s backlog", idle, within_s=within_s)


async def published(client: Client) -> list[Event]:
    """Every event on EVENTS, in order; one that was published again is there as often."""
    return [event for _, events in await published_together(client) for event in events]


async def published_together(client: Client) -> list[tuple[bool, list[Event]]]:
    """Every message of EVENTS, in order: whether it says that its events may have been published before, and these."""
    return [
        (AGAIN_HEADER in (message.headers or {}), list(EventBatch.FromString(message.data).events))
        for message in await _messages(client, "EVENTS", "events.>")
    ]


async def stored_at(client: Client) -> list[datetime]:
    """When JetStream stored each message of EVENTS, in order."""
    return [message.metadata.timestamp for message in await _messages(client, "EVENTS", "events.>")]


async def noticed(client: Client) -> list[Notice]:
    """Every message of NOTICES, in order."""
    return [Notice.FromString(message.data) for message in await _messages(client, "NOTICES", "notices.>")]


async def _messages(client: Client, stream: str, subject: str) -> list[Msg]:
    js = client.jetstream()
    left = (await js.stream_info(stream)).state.messages
    found: list[Msg] = []
    subscription = await js.pull_subscribe(subject, stream=stream, config=ConsumerConfig(ack_policy=AckPolicy.NONE))
    try:
        while left > 0:
            try:
                batch = await subscription.fetch(min(left, _FETCHED), timeout=60)
            except NatsTimeoutError:
                raise AssertionError(f"{stream} does not give its last {left} messages") from None
            left -= len(batch)
            found += batch
    finally:
        name = (await subscription.consumer_info()).name
        await subscription.unsubscribe()
        await js.delete_consumer(stream, name)
    return found
