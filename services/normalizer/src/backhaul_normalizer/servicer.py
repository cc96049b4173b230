"""gRPC to the use cases and back; nothing is decided here."""

from __future__ import annotations

from typing import Any, Protocol

from backhaul_channels import Ignored, Review
from backhaul_channels.addresses import canonical
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import channel_key
from backhaul_common.vocabulary import Words
from backhaul_proto.callback.v1.callback_pb2 import Callback
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.event.v1.event_pb2 import ErrorClass, Event
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from backhaul_proto.normalizer.v1 import normalizer_pb2_grpc

from backhaul_normalizer import stats
from backhaul_normalizer.answers import ERROR_CLASSES, FULFILMENT, KINDS, communication_answer, message_answer
from backhaul_normalizer.hours import HOUR_US
from backhaul_normalizer.model import Fact
from backhaul_normalizer.preview import Previews, Read
from backhaul_normalizer.reads import MongoReads
from backhaul_normalizer.retained import Retained
from backhaul_normalizer.service import NormalizerUseCases, no_dead_letter

_REVIEWS = Words(event_pb2.Review.DESCRIPTOR)
_DEAD_LETTER = Words(pb.DeadLetterState.DESCRIPTOR)
_GROUPS = {
    pb.STATS_GROUP_CHANNEL: "channel",
    pb.STATS_GROUP_COMMUNICATION: "communication_id",
    pb.STATS_GROUP_KIND: "kind",
    pb.STATS_GROUP_FULFILMENT_STATE: "fulfilment",
}


class NormalizerServicer(normalizer_pb2_grpc.NormalizerServiceServicer):
    """``backhaul_proto.normalizer.v1.NormalizerService``. Errors are BackhaulErrors; the server's edge translates."""

    def __init__(
        self,
        use_cases: NormalizerUseCases,
        reads: MongoReads,
        previews: Previews,
        retained: Retained,
    ) -> None:
        self._use_cases = use_cases
        self._reads = reads
        self._previews = previews
        self._retained = retained

    async def _registration(self, request: _OfTenant) -> str:
        return (await self._use_cases.tenant(request.tenant_id)).registration

    async def GetMessage(self, request: pb.GetMessageRequest, context: Any) -> pb.GetMessageResponse:
        """State and timeline of one message."""
        found = await self._reads.message(await self._registration(request), request.channel, request.message_id)
        if found is None:
            raise BackhaulError(
                Code.NOT_FOUND,
                "No event has named such a message.",
                field="message_id",
                fix="Check the channel and the id. What a provider just posted is readable a moment later.",
            )
        message = message_answer(found.message)
        if (member := await self._reads.member_of(found.message)) is not None:
            message.batch_id, message.member_key = member["batch_id"], member["key"]
        return pb.GetMessageResponse(
            message=message,
            timeline=[_event(row) for row in found.events],
            truncated=found.more,
            expired_events=found.expired,
        )

    async def ListMessages(self, request: pb.ListMessagesRequest, context: Any) -> pb.ListMessagesResponse:
        """Messages, newest first."""
        tenant = await self._use_cases.tenant(request.tenant_id)
        channel = channel_key(request.channel)
        filters = {
            "channel": channel,
            "state": KINDS.by_number.get(request.state, ""),
            "fulfilment": FULFILMENT.by_number.get(request.fulfilment_state, ""),
            "address": canonical(request.recipient),
            "communication_id": request.communication_id,
            "error_code": request.error_code,
        }
        if request.message_id:
            channels = [channel] if channel else sorted(tenant.channels)
            filters |= await self._reads.by_message_id(tenant.registration, channels, request.message_id)
        rows, token = await self._reads.messages(
            tenant.registration,
            filters,
            (request.from_us, request.to_us),
            request.page_size,
            request.page_token,
        )
        return pb.ListMessagesResponse(messages=[message_answer(row) for row in rows], next_page_token=token)

    async def ListEvents(self, request: pb.ListEventsRequest, context: Any) -> pb.ListEventsResponse:
        """Events, newest arrival first."""
        tenant = await self._use_cases.tenant(request.tenant_id)
        registration = tenant.registration
        filters = {
            "channel": channel_key(request.channel),
            "kind": KINDS.by_number.get(request.kind, ""),
            "address": canonical(request.recipient),
            "communication_id": request.communication_id,
            "error_code": request.error_code,
        }
        if request.message_id:
            if not request.channel:
                raise BackhaulError(
                    Code.INVALID_ARGUMENT,
                    "A message is known by its channel and its id.",
                    field="channel",
                    fix="Name the channel too.",
                )
            filters["message"] = await self._reads.one_message(
                registration, channel_key(request.channel), request.message_id
            )
        rows, token = await self._reads.events(
            registration, filters, (request.from_us, request.to_us), request.page_size, request.page_token
        )
        return pb.ListEventsResponse(
            events=[_event(row) for row in rows],
            next_page_token=token,
            retained_since_us=self._retained.since_us(tenant),
        )

    async def GetCommunication(self, request: pb.GetCommunicationRequest, context: Any) -> pb.GetCommunicationResponse:
        """Counts of one communication."""
        row = await self._reads.communication(await self._registration(request), request.communication_id)
        if row is None:
            raise BackhaulError(
                Code.NOT_FOUND,
                "No event has named such a communication.",
                field="communication_id",
                fix="Check the id. What a provider just posted is readable a moment later.",
            )
        return pb.GetCommunicationResponse(communication=communication_answer(row))

    async def ListReplies(self, request: pb.ListRepliesRequest, context: Any) -> pb.ListRepliesResponse:
        """Inbound messages, newest arrival first."""
        filters = {
            "channel": channel_key(request.channel),
            "review": _REVIEWS.by_number.get(request.review, ""),
            "address": canonical(request.recipient),
            "communication_id": request.communication_id,
        }
        rows, token = await self._reads.replies(
            await self._registration(request),
            filters,
            (request.from_us, request.to_us),
            request.page_size,
            request.page_token,
        )
        return pb.ListRepliesResponse(replies=[_event(row) for row in rows], next_page_token=token)

    async def AcceptReply(self, request: pb.AcceptReplyRequest, context: Any) -> pb.AcceptReplyResponse:
        """Take it for an opt-out."""
        row = await self._use_cases.review(request.tenant_id, request.id, Review.ACCEPTED)
        return pb.AcceptReplyResponse(reply=_event(row))

    async def DismissReply(self, request: pb.DismissReplyRequest, context: Any) -> pb.DismissReplyResponse:
        """Take it for no opt-out."""
        row = await self._use_cases.review(request.tenant_id, request.id, Review.DISMISSED)
        return pb.DismissReplyResponse(reply=_event(row))

    async def CountErrors(self, request: pb.CountErrorsRequest, context: Any) -> pb.CountErrorsResponse:
        """How often each error code was reported, the most frequent first."""
        tenant = await self._use_cases.tenant(request.tenant_id)
        rows = await self._reads.errors(
            tenant.registration,
            channel_key(request.channel),
            request.error_code,
            (request.from_us, request.to_us),
        )
        counts = []
        for row in rows:
            provider, meaning = self._use_cases.meaning(tenant, row["channel"], row["error_code"])
            count = pb.ErrorCount(**row, provider=provider)
            if meaning is not None:
                count.text, count.url = meaning.text, meaning.url
                count.error_class = ERROR_CLASSES.number(meaning.error_class) or ErrorClass.ERROR_CLASS_UNSPECIFIED
            counts.append(count)
        return pb.CountErrorsResponse(errors=counts, retained_since_us=self._retained.since_us(tenant))

    async def GetStats(self, request: pb.GetStatsRequest, context: Any) -> pb.GetStatsResponse:
        """How many events and messages there were, hour by hour or day by day."""
        by_day = request.per == pb.STATS_PER_DAY
        question = stats.Question(
            await self._registration(request),
            stats.hours_of((request.from_us, request.to_us), by_day=by_day),
            by_day,
            frozenset(_GROUPS[one] for one in request.group_by if one in _GROUPS),
            channel_key(request.channel),
            request.communication_id,
        )
        rows, more = await self._reads.stats(question)
        return pb.GetStatsResponse(rows=[_stats_row(row) for row in rows], truncated=more)

    async def PreviewCallback(self, request: pb.PreviewCallbackRequest, context: Any) -> pb.PreviewCallbackResponse:
        """What a callback would become."""
        parts, more = await self._previews.of(request.tenant_id, request.channel, request.callback)
        return pb.PreviewCallbackResponse(parts=[_previewed(one) for one in parts], truncated=more)

    async def ListDeadLetters(self, request: pb.ListDeadLettersRequest, context: Any) -> pb.ListDeadLettersResponse:
        """Dead letters, newest first, without their bodies."""
        rows, token = await self._reads.dead_letters(
            await self._registration(request),
            {"channel": channel_key(request.channel), "state": _DEAD_LETTER.by_number.get(request.state, "")},
            request.page_size,
            request.page_token,
        )
        return pb.ListDeadLettersResponse(
            dead_letters=[_dead_letter(row, whole=False) for row in rows], next_page_token=token
        )

    async def GetDeadLetter(self, request: pb.GetDeadLetterRequest, context: Any) -> pb.GetDeadLetterResponse:
        """One dead letter with its body."""
        row = await self._reads.dead_letter(await self._registration(request), request.id)
        if row is None:
            raise no_dead_letter()
        return pb.GetDeadLetterResponse(dead_letter=_dead_letter(row, whole=True))

    async def ReplayDeadLetter(self, request: pb.ReplayDeadLetterRequest, context: Any) -> pb.ReplayDeadLetterResponse:
        """Send it through once more."""
        row = await self._use_cases.replay(request.tenant_id, request.id)
        return pb.ReplayDeadLetterResponse(dead_letter=_dead_letter(row, whole=True))

    async def DiscardDeadLetter(
        self, request: pb.DiscardDeadLetterRequest, context: Any
    ) -> pb.DiscardDeadLetterResponse:
        """Close it without processing it."""
        row = await self._use_cases.discard(request.tenant_id, request.id)
        return pb.DiscardDeadLetterResponse(dead_letter=_dead_letter(row, whole=True))


class _OfTenant(Protocol):
    @property
    def tenant_id(self) -> str: ...


def _event(row: Document) -> Event:
    event = Event.FromString(row["payload"])
    # What the event's message belongs to, which another event may have told: so the list of a communication's events
    # and its counts agree.
    event.communication_id = row.get("communication_id", "")
    return event


def _previewed(one: Read) -> pb.PreviewPart:
    if isinstance(one, Fact):
        return pb.PreviewPart(event=Event.FromString(one.payload))
    if isinstance(one, Ignored):
        return pb.PreviewPart(ignored=one.reason)
    return pb.PreviewPart(dead_letter=one.reason)


def _stats_row(row: stats.Row) -> pb.StatsRow:
    return pb.StatsRow(
        start_us=row.hour * HOUR_US,
        channel=row.channel,
        kind=KINDS.number(row.kind),
        fulfilment_state=FULFILMENT.number(row.fulfilment),
        communication_id=row.communication_id,
        events=row.counts.get("events", 0),
        events_by_machine=row.counts.get("by_machine", 0),
        messages=row.counts.get("messages", 0),
        unique_opened=row.counts.get("unique_opened", 0),
        unique_clicked=row.counts.get("unique_clicked", 0),
    )


def _dead_letter(row: Document, *, whole: bool) -> pb.DeadLetter:
    return pb.DeadLetter(
        id=row["_id"],
        channel=row["channel"],
        provider=row["provider"],
        state=_DEAD_LETTER.number(row["state"]),
        reason=row["reason"],
        occurrences=row["occurrences"],
        callback=Callback.FromString(row["callback"]) if whole else None,
        first_seen_at_us=row["first_seen_at_us"],
        last_seen_at_us=row["last_seen_at_us"],
    )
