"""Where callbacks are that were answered 200 and brought no event: for the message of a test that failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING

from backhaul_proto.callback.v1.callback_pb2 import CallbackBatch
from backhaul_testing import broker
from nats.js.errors import NotFoundError

if TYPE_CHECKING:
    from backhaul_local.stack import Stack
    from nats.aio.client import Client
    from simulators.load import Key, Load


async def whereabouts(stack: Stack, load: Load, lost: Collection[Key]) -> str:
    """In which messages of CALLBACKS ``lost`` lie, when they were answered, and where the normalizer's consumer is.

    What lies nowhere was answered without being stored; what lies behind the consumer was stored and passed over.
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
    return "\n".join(
        [
            f"In no message of CALLBACKS: {len(nowhere)} of {len(lost)}, answered at {_times(load, nowhere)}",
            f"In CALLBACKS: {len(places)}, in the messages (with how many of them) {dict(sorted(stored.items()))}, "
            f"answered at {_times(load, places)}",
            f"CALLBACKS has {state.messages} messages, {state.first_seq} to {state.last_seq}, deleted {state.num_deleted}",
            f"The consumer: delivered {consumer.delivered}, ack floor {consumer.ack_floor}, to be acknowledged "
            f"{consumer.num_ack_pending}, to be delivered {consumer.num_pending}, again {consumer.num_redelivered}",
        ]
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
                if all(word in body for word in (key[2].split(":") if key[1] == "twilio" else [key[2]])):
                    places.setdefault(key, []).append(seq)
    return places


def _times(load: Load, keys: Collection[Key]) -> str:
    times = sorted(load.answered[key] for key in keys)
    return f"{times[0]:%H:%M:%S.%f} to {times[-1]:%H:%M:%S.%f}" if times else "-"
