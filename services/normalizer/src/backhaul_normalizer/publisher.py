"""What the normalizer puts into streams: normalised events, and callbacks that are replayed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import nats.errors
from backhaul_channels import EventKind
from backhaul_common.errors import unavailable
from backhaul_common.names import CALLBACKS_STREAM, EVENTS_STREAM, callbacks_subject, events_subject
from backhaul_common.tenants import TenantDirectory
from backhaul_proto.callback.v1.callback_pb2 import Callback, CallbackBatch
from nats.js import JetStreamContext
from nats.js.errors import APIError, NoStreamResponseError

from backhaul_normalizer.facts import Fact

LARGEST_MESSAGE = 1 << 20
"""Bytes of events that go into one message of the stream."""

_TIMEOUT_S = 5.0

_AWAY = (nats.errors.Error, APIError, NoStreamResponseError, TimeoutError, OSError)


class JetStreamPublisher:
    """One message holds the events of one kind that one message of CALLBACKS brought.

    The message id is made of that message's position and the kind, so that publishing again after a crash stores
    nothing twice while JetStream remembers; afterwards, consumers know an event by its id.
    """

    def __init__(self, js: JetStreamContext, directory: TenantDirectory) -> None:
        self._js = js
        self._directory = directory

    async def publish(self, facts: Sequence[Fact], traceparent: str) -> None:
        """Returns when all ``facts`` are stored. UNAVAILABLE when JetStream is away, slow or full."""
        groups: dict[tuple[str, str, int, EventKind], list[bytes]] = {}
        for fact in facts:
            groups.setdefault((fact.tenant, fact.channel, fact.stream_seq, fact.kind), []).append(fact.payload)
        outcomes = await asyncio.gather(
            *(
                self._publish_one(*key, index, body, traceparent)
                for key, payloads in groups.items()
                for index, body in enumerate(_bodies(payloads))
            ),
            return_exceptions=True,
        )
        for outcome in outcomes:
            if isinstance(outcome, _AWAY):
                raise unavailable("JetStream") from outcome
            if isinstance(outcome, BaseException):
                raise outcome

    async def _publish_one(
        self, tenant_id: str, channel: str, seq: int, kind: EventKind, index: int, body: bytes, traceparent: str
    ) -> None:
        tenant = self._directory.get(tenant_id)
        if tenant is None:
            return  # It was deleted while its last callbacks were under way: there is nobody to tell.
        headers = {"Nats-Msg-Id": f"cb-{seq}-{channel}-{kind.value}-{index}", "Nats-Expected-Stream": EVENTS_STREAM}
        if traceparent:
            headers["traceparent"] = traceparent
        await self._js.publish(
            events_subject(tenant.queue_path, channel, kind.value), body, timeout=_TIMEOUT_S, headers=headers
        )


class JetStreamCallbacks:
    """Callbacks that go through once more."""

    def __init__(self, js: JetStreamContext) -> None:
        self._js = js

    async def publish(self, queue_path: str, callback: Callback, message_id: str) -> None:
        """Store ``callback`` alone in a message of CALLBACKS. UNAVAILABLE when JetStream is away, slow or full."""
        try:
            await self._js.publish(
                callbacks_subject(queue_path, callback.channel),
                CallbackBatch(callbacks=[callback]).SerializeToString(),
                timeout=_TIMEOUT_S,
                headers={
                    "Nats-Msg-Id": message_id,
                    "Nats-Expected-Stream": CALLBACKS_STREAM,
                    "traceparent": callback.traceparent,
                },
            )
        except _AWAY as exc:
            raise unavailable("JetStream") from exc


def _bodies(payloads: Sequence[bytes]) -> list[bytes]:
    """``payloads`` as serialised EventBatches of at most LARGEST_MESSAGE each.

    In protobuf a message is its fields one after another, so a batch is put together from events that are already
    serialised: for each, the tag of field 1, its length, its bytes.
    """
    bodies: list[bytes] = []
    pieces: list[bytes] = []
    size = 0
    for payload in payloads:
        if pieces and size + len(payload) > LARGEST_MESSAGE:
            bodies.append(b"".join(pieces))
            pieces, size = [], 0
        pieces += (b"\x0a", _varint(len(payload)), payload)
        size += len(payload) + 6
    bodies.append(b"".join(pieces))
    return bodies


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
