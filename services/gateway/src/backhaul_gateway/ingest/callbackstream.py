"""The CALLBACKS stream as a whole: how full it is, how far it is processed, and whether it stores."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from backhaul_common.ids import new_callback_id
from backhaul_common.jetstream import AWAY, headers_of, translated
from backhaul_common.names import (
    CALLBACKS_STREAM,
    CALLBACKS_SUBJECTS,
    CANARY_SUBJECT,
    NORMALIZER_CONSUMER,
    NOT_HELD_SUBJECTS,
    callbacks_not_held_of,
)
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerInfo
from nats.js.errors import NotFoundError

from backhaul_gateway.admission.room import LogState

_TIMEOUT_S = 2.0
_CANARY = b"\x00" * 4096
"""As large as a usual callback, so that most callbacks find room where this does."""


class CallbackStream:
    """A ``WatchedLog``."""

    def __init__(self, connected: Callable[[], Client]) -> None:
        """``connected`` gives the connection, or raises UNAVAILABLE."""
        self._connected = connected

    def _js(self) -> JetStreamContext:
        return self._connected().jetstream(timeout=_TIMEOUT_S)

    async def state(self) -> LogState:
        """See ``WatchedLog``."""
        js = self._js()
        async with translated():
            info = await js.stream_info(CALLBACKS_STREAM, subjects_filter=CALLBACKS_SUBJECTS)
        limit = info.config.max_bytes or 0
        return LogState(
            limit=max(0, limit),
            bytes=info.state.bytes,
            messages=info.state.messages,
            first_seq=info.state.first_seq,
            subjects=info.state.subjects or {},
        )

    async def size_of_last(self, subject: str) -> int:
        """See ``WatchedLog``."""
        js = self._js()
        async with translated():
            try:
                message = await js.get_last_msg(CALLBACKS_STREAM, subject)
            except NotFoundError:
                return 0
        return len(message.data or b"") + len(message.hdrs or b"") + len(subject)

    async def processed_up_to(self) -> int:
        """See ``WatchedLog``."""
        js = self._js()
        async with translated():
            try:
                consumers = await js.consumers_info(CALLBACKS_STREAM)
            except NotFoundError:
                return 0
        # Every durable consumer that acknowledges counts, also one that is not ours: what it has not acknowledged is
        # not processed. A consumer without acknowledgements only looks.
        floors = {
            consumer.name: _processed_by(consumer)
            for consumer in consumers
            if consumer.config.durable_name and consumer.config.ack_policy != AckPolicy.NONE
        }
        return min(floors.values()) if NORMALIZER_CONSUMER in floors else 0

    async def purge_before(self, seq: int, path: str = "", *, spare_held: bool = True) -> None:
        """See ``WatchedLog``."""
        js = self._js()
        subject = callbacks_not_held_of(path) if path else NOT_HELD_SUBJECTS if spare_held else None
        async with translated():
            await js.purge_stream(CALLBACKS_STREAM, seq=seq, subject=subject)

    async def try_to_store(self) -> None:
        """See ``WatchedLog``."""
        js = self._js()
        async with translated():
            ack = await js.publish(
                CANARY_SUBJECT, _CANARY, headers=headers_of(CALLBACKS_STREAM, f"canary-{new_callback_id()}")
            )
            # The message was stored, which was the question. If it cannot be deleted, the normalizer skips it.
            with suppress(*AWAY):
                await js.delete_msg(CALLBACKS_STREAM, ack.seq)


def _processed_by(consumer: ConsumerInfo) -> int:
    """The position up to which ``consumer`` has acknowledged everything.

    That is the acknowledgement floor, which nats-server moves at each acknowledgement. If the last message that was not
    acknowledged is deleted with its tenant, the floor stays behind until the next acknowledgement. In a full stream
    there is none. So where nothing waits for an acknowledgement, everything that was delivered counts.
    """
    if consumer.delivered is not None and not consumer.num_ack_pending:
        return consumer.delivered.stream_seq
    return consumer.ack_floor.stream_seq if consumer.ack_floor is not None else 0
