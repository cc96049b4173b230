"""Where callbacks are that were answered 200 and brought no event: for the message of a test that failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING

from backhaul_proto.callback.v1.callback_pb2 import CallbackBatch
from backhaul_testing import broker
from nats.js.errors import NotFoundError

if TYPE_CHECKING:
    from pathlib import Path

    from backhaul_local.stack import Stack
    from nats.aio.client import Client
    from simulators.load import Key, Load


async def whereabouts(stack: Stack, load: Load, lost: Collection[Key]) -> str:
    """In which messages of CALLBACKS ``lost`` lie, when they were answered, where the normalizer's consumer is, and how
    often the services connected to NATS again.

    What lies nowhere was answered without being stored: by another server, where there are more reconnections than
    restarts. What lies before the consumer's position was stored, and passed over.
    """
    connection = await broker.connect(stack.nats_url)
    try:
        places = await _places(connection, lost)
        consumer = await connection.jetstream().consumer_info("CALLBACKS", "normalizer")
        state = (await connection.jetstream().stream_info("CALLBACKS")).state
    finally:
        await connection.close()
    nowhere = [key for key in lost if key not in places]
    stored = Counter(place for found in places.values() for place in found)
    by_message = ", ".join(f"{count} in {place}" for place, count in sorted(stored.items()))
    reconnections = ", ".join(f"{service.name} {_reconnections(service.log_path)}" for service in stack.services)
    return "\n".join(
        (
            f"In no message of CALLBACKS: {len(nowhere)}, answered at {_times(load, nowhere)}",
            f"In messages of CALLBACKS: {len(places)} ({by_message}), answered at {_times(load, places)}",
            f"CALLBACKS: {state.messages} messages, {state.first_seq} to {state.last_seq}",
            f"The consumer: {consumer.delivered}, {consumer.ack_floor}, unacknowledged {consumer.num_ack_pending}",
            f"Reconnections to NATS: {reconnections}",
        )
    )


async def _places(connection: Client, lost: Collection[Key]) -> dict[Key, list[int]]:
    """The positions at which each of ``lost`` lies."""
    js = connection.jetstream()
    places: dict[Key, list[int]] = {}
    for seq in range(1, (await js.stream_info("CALLBACKS")).state.last_seq + 1):
        try:
            message = await js.get_msg("CALLBACKS", seq)
        except NotFoundError:
            continue
        for callback in CallbackBatch.FromString(message.data or b"").callbacks:
            body = callback.body.decode("utf-8", "replace")
            for key in lost:
                _, channel, name = key
                if all(word in body for word in (name.split(":") if channel == "twilio" else [name])):
                    places.setdefault(key, []).append(seq)
    return places


def _reconnections(log: Path) -> int:
    return log.read_text("utf-8", "replace").count("nats_reconnected")


def _times(load: Load, keys: Collection[Key]) -> str:
    times = sorted(load.answered[key] for key in keys)
    return f"{times[0]:%H:%M:%S.%f} to {times[-1]:%H:%M:%S.%f}" if times else "-"
