"""What the normalizer knows, over gRPC."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_common.vocabulary import Words
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from backhaul_proto.normalizer.v1 import records_pb2

from backhaul_reconciler.model import ChannelOf, Comparison, OpenMessage, Verdict

if TYPE_CHECKING:
    # The asynchronous stubs exist in the type stubs only; over a channel of grpc.aio the one class answers awaitables.
    from backhaul_proto.normalizer.v1.normalizer_pb2_grpc import NormalizerServiceAsyncStub
    from backhaul_proto.normalizer.v1.records_pb2_grpc import RecordServiceAsyncStub

MAX_RECORDS: Final = 1_000
MAX_RECORDS_BYTES: Final = 4 << 20
"""What one call compares at most, by the contract."""

PAGE: Final = 500
_OPEN: Final = (pb.FULFILMENT_STATE_QUEUED, pb.FULFILMENT_STATE_SENT)
_COMPARE_S: Final = 20.0

_KINDS = Words(event_pb2.EventKind.DESCRIPTOR)
_VERDICTS = {
    records_pb2.VERDICT_KNOWN: Verdict.KNOWN,
    records_pb2.VERDICT_MISSING: Verdict.MISSING,
    records_pb2.VERDICT_BETTER: Verdict.BETTER,
    records_pb2.VERDICT_IGNORED: Verdict.IGNORED,
    records_pb2.VERDICT_UNREADABLE: Verdict.UNREADABLE,
}

T = TypeVar("T")


class GrpcRecords:
    """Compares records, and lists messages. UNAVAILABLE from every method while the normalizer is away."""

    def __init__(self, records: RecordServiceAsyncStub, normalizer: NormalizerServiceAsyncStub) -> None:
        self._records = records
        self._normalizer = normalizer

    async def compare(self, of: ChannelOf, records: Sequence[bytes], read_at_us: int) -> list[Comparison]:
        """How each of ``records`` stands to what is stored, in their order."""
        found: list[Comparison] = []
        most = MAX_RECORDS
        while len(found) < len(records):
            part = _portion(records, len(found), most)
            request = records_pb2.CompareRecordsRequest(
                tenant_id=of.tenant, channel=of.channel, records=part, read_at_us=read_at_us
            )
            try:
                answer = await _answer(self._records.CompareRecords(request, timeout=_COMPARE_S))
            except BackhaulError as exc:
                if len(part) == 1 or not _is_late(exc):
                    raise
                # As many would take as long the next time.
                most = len(part) // 2
                continue
            if len(answer.comparisons) != len(part):
                raise unavailable("The normalizer")
            found += map(_comparison, answer.comparisons)
        return found

    async def messages(
        self, of: ChannelOf, span: tuple[int, int], token: str = "", *, state: int = 0
    ) -> tuple[list[OpenMessage], str]:
        """A page of the channel's messages by when they were first heard of, the latest first, and the token of the
        next page. Of those in ``state``, a number of the contract's FulfilmentState, unless it is 0.
        """
        request = pb.ListMessagesRequest(
            tenant_id=of.tenant,
            channel=of.channel,
            fulfilment_state=state,  # type: ignore[arg-type]  # one of the enum's numbers
            from_us=span[0],
            to_us=span[1],
            page_size=PAGE,
            page_token=token,
        )
        answer = await _answer(self._normalizer.ListMessages(request))
        return [
            OpenMessage(one.message_id, _word(one.state), one.error_code, one.created_at_us)
            for one in answer.messages
            if one.fulfilment_state != pb.FULFILMENT_STATE_UNSPECIFIED
        ], answer.next_page_token

    async def open_messages(self, of: ChannelOf, span: tuple[int, int], most: int) -> list[OpenMessage]:
        """The channel's messages that are on their way, by when they were first heard of: the latest ``most``, the
        latest first."""
        found: list[OpenMessage] = []
        for state in _OPEN:
            token, left = "", most
            while left > 0:
                page, token = await self.messages(of, span, token, state=state)
                found += page[:left]
                left -= len(page)
                if not token:
                    break
        found.sort(key=lambda one: -one.created_at_us)
        return found[:most]


def _portion(records: Sequence[bytes], begin: int, most: int) -> Sequence[bytes]:
    """``most`` of the records from ``begin`` on, or as many as fit; one in any case."""
    size = 0
    for place in range(begin, min(begin + most, len(records))):
        size += len(records[place])
        if size > MAX_RECORDS_BYTES and place > begin:
            return records[begin:place]
    return records[begin : begin + most]


def _comparison(one: records_pb2.Comparison) -> Comparison:
    return Comparison(
        verdict=_VERDICTS.get(one.verdict, Verdict.IGNORED),
        message_id=one.message_id,
        message_known=one.message_known,
        told_state=_word(one.told_state),
        told_error_code=one.told_error_code,
        stored_state=_word(one.stored_state),
        stored_error_code=one.stored_error_code,
        state_after=_word(one.state_after),
        occurred_at_us=one.occurred_at_us,
        heard_at_us=one.heard_at_us,
        reason=one.reason,
    )


def _word(kind: int) -> str:
    return _KINDS.by_number.get(kind, "")


async def _answer(call: Awaitable[T]) -> T:
    try:
        return await call
    except BackhaulError as exc:
        if exc.code is Code.INVALID_ARGUMENT:
            raise  # This program asks what it should not.
        # Also where it has not heard of the tenant or the channel yet.
        raise unavailable("The normalizer") from exc


def _is_late(exc: BackhaulError) -> bool:
    """Whether the normalizer did not answer in its time."""
    return isinstance(exc.__cause__, BackhaulError) and exc.__cause__.code is Code.DEADLINE_EXCEEDED
