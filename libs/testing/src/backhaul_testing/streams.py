"""What tests ask of JetStream: whether a consumer has come to its end, and what EVENTS holds."""

from __future__ import annotations

from backhaul_common.names import AGAIN_HEADER
from backhaul_proto.event.v1.event_pb2 import Event, EventBatch
from nats.aio.client import Client
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import NotFoundError

from backhaul_testing.waiting import until

_FETCHED = 500


async def drained(client: Client, stream: str, consumer: str, *, within_s: float = 20.0) -> None:
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
    js = client.jetstream()
    left = (await js.stream_info("EVENTS")).state.messages
    found: list[tuple[bool, list[Event]]] = []
    subscription = await js.pull_subscribe(
        "events.>", stream="EVENTS", config=ConsumerConfig(ack_policy=AckPolicy.NONE)
    )
    try:
        while left > 0:
            try:
                batch = await subscription.fetch(min(left, _FETCHED), timeout=5)
            except NatsTimeoutError:
                raise AssertionError(f"EVENTS does not give its last {left} messages") from None
            left -= len(batch)
            found += [
                (AGAIN_HEADER in (message.headers or {}), list(EventBatch.FromString(message.data).events))
                for message in batch
            ]
    finally:
        name = (await subscription.consumer_info()).name
        await subscription.unsubscribe()
        await js.delete_consumer("EVENTS", name)
    return found
