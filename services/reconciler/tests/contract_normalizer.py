"""A normalizer of the contract, for tests of the reconciler alone: it knows what a test tells it, and what lies in
CALLBACKS once the test has it read that."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import CALLBACKS_STREAM
from backhaul_common.vocabulary import Words
from backhaul_proto.callback.v1.callback_pb2 import SOURCE_BACKFILL, CallbackBatch
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from backhaul_proto.normalizer.v1 import normalizer_pb2_grpc, records_pb2, records_pb2_grpc
from nats.aio.client import Client as NatsClient

_RANK = ("queued", "sent", "rejected", "failed", "undelivered", "delivered")
_FULFILMENT = {
    "queued": pb.FULFILMENT_STATE_QUEUED,
    "sent": pb.FULFILMENT_STATE_SENT,
    "delivered": pb.FULFILMENT_STATE_DELIVERED,
    "undelivered": pb.FULFILMENT_STATE_UNDELIVERED,
    "rejected": pb.FULFILMENT_STATE_FAILED,
    "failed": pb.FULFILMENT_STATE_FAILED,
}
_KINDS = Words(event_pb2.EventKind.DESCRIPTOR)


@dataclass
class Known:
    """A message as the normalizer knows it: of each kind, when a callback told it, 0 where none did."""

    created_at_us: int
    kinds: dict[str, int] = field(default_factory=dict)

    @property
    def state(self) -> str:
        return max(self.kinds, key=_RANK.index, default="")


class Normalizer(records_pb2_grpc.RecordServiceServicer, normalizer_pb2_grpc.NormalizerServiceServicer):
    """Reads CALLBACKS, when a test says so, and answers by the contract."""

    def __init__(self, nats: NatsClient) -> None:
        self._nats = nats
        self._read = 0
        self.messages: dict[tuple[str, str], dict[str, Known]] = {}
        self.backfilled: Counter[tuple[str, str, str]] = Counter()
        """Callbacks, by tenant, message and state."""
        self.dead_letters: dict[bytes, int] = {}
        """When each was seen first, by what it is of."""
        self.compared = 0
        self.listed = 0
        """Messages, however often."""
        self.urls: set[str] = set()
        self.traces: set[str] = set()
        self.away = False
        self.most: int | None = None
        """Records that it compares in its time."""
        self.sizes: list[int] = []
        """How many it was asked to compare at once."""

    def hear(self, tenant: str, message_id: str, state: str, at_us: int, *, channel: str = "twilio") -> None:
        """A callback came."""
        known = self.messages.setdefault((tenant, channel), {}).setdefault(message_id, Known(at_us))
        known.kinds[state] = at_us

    async def process(self) -> None:
        """Read what CALLBACKS has by now."""
        js = self._nats.jetstream(timeout=60)
        last = (await js.stream_info(CALLBACKS_STREAM)).state.last_seq
        while self._read < last:
            self._read += 1
            batch = CallbackBatch.FromString((await js.get_msg(CALLBACKS_STREAM, self._read)).data or b"")
            for callback in batch.callbacks:
                assert callback.source == SOURCE_BACKFILL
                self.urls.add(callback.url)
                self.traces.add(callback.traceparent)
                try:
                    row = json.loads(callback.body)
                except ValueError:
                    continue
                self.backfilled[callback.tenant_id, row["id"], row["state"]] += 1
                if row["state"] not in _RANK:
                    self.dead_letters.setdefault(callback.body, callback.received_at_us)
                    continue
                known = self.messages.setdefault((callback.tenant_id, callback.channel), {})
                known.setdefault(row["id"], Known(callback.received_at_us)).kinds.setdefault(row["state"], 0)

    async def CompareRecords(self, request: Any, context: Any) -> records_pb2.CompareRecordsResponse:  # noqa: N802  # gRPC's name
        self.compared += len(request.records)
        self.sizes.append(len(request.records))
        if self.away:
            raise ConnectionError("away")
        if self.most is not None and len(request.records) > self.most:
            raise BackhaulError(Code.DEADLINE_EXCEEDED, "It took too long.")
        known = self.messages.get((request.tenant_id, request.channel), {})
        return records_pb2.CompareRecordsResponse(
            comparisons=[self._compared(record, known) for record in request.records]
        )

    def _compared(self, record: bytes, known: Mapping[str, Known]) -> records_pb2.Comparison:
        comparison = _compared(record, known)
        if comparison.verdict == records_pb2.VERDICT_UNREADABLE:
            comparison.heard_at_us = self.dead_letters.get(record, 0)
        return comparison

    async def ListMessages(self, request: pb.ListMessagesRequest, context: Any) -> pb.ListMessagesResponse:  # noqa: N802  # gRPC's name
        known = self.messages.get((request.tenant_id, request.channel), {})
        rows = sorted(known.items(), key=lambda item: (-item[1].created_at_us, item[0]))
        found = [
            pb.Message(
                channel=request.channel,
                message_id=message_id,
                state=_KINDS.number(one.state),
                fulfilment_state=_FULFILMENT[one.state],
                created_at_us=one.created_at_us,
            )
            for message_id, one in rows
            if request.from_us <= one.created_at_us < (request.to_us or 1 << 62)
            and request.fulfilment_state in (0, _FULFILMENT[one.state])
        ]
        begin = int(request.page_token or 0)
        end = begin + request.page_size
        self.listed += len(found[begin:end])
        return pb.ListMessagesResponse(messages=found[begin:end], next_page_token=str(end) if end < len(found) else "")


def _compared(record: bytes, known: Mapping[str, Known]) -> records_pb2.Comparison:
    try:
        row = json.loads(record)
        message_id, state, at_us = row["id"], row["state"], row["at"]
    except (ValueError, KeyError):
        return records_pb2.Comparison(verdict=records_pb2.VERDICT_UNREADABLE, reason="no row")
    if state not in _RANK:
        return records_pb2.Comparison(verdict=records_pb2.VERDICT_UNREADABLE, reason="no state")
    message = known.get(message_id)
    stored = message.state if message is not None else ""
    heard = message.kinds.get(state) if message is not None else None
    after = max((one for one in (stored, state) if one), key=_RANK.index)
    return records_pb2.Comparison(
        verdict=records_pb2.VERDICT_MISSING if heard is None else records_pb2.VERDICT_KNOWN,
        message_id=message_id,
        message_known=message is not None,
        told_state=_KINDS.number(state),
        stored_state=_KINDS.number(stored),
        state_after=_KINDS.number(after),
        occurred_at_us=at_us,
        heard_at_us=heard or 0,
    )
