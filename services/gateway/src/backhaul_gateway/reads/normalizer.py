"""``/v1`` over the normalizer: messages, events, errors, replies and dead letters."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from backhaul_common.names import channel_key
from backhaul_proto.event.v1.event_pb2 import REVIEW_FLAGGED, REVIEW_UNSPECIFIED
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from fastapi import APIRouter, Query, Response

from backhaul_gateway.admission.door import Admission
from backhaul_gateway.reads.callers import By, Callers
from backhaul_gateway.reads.views import (
    DEAD_LETTER,
    DEAD_LETTERS,
    ERRORS,
    EVENTS,
    FULFILMENT,
    KINDS,
    MESSAGE,
    MESSAGES,
    ONE_DEAD_LETTER,
    ONE_EVENT,
    REPLIES,
    DeadLetterOut,
    DeadLetterPage,
    ErrorCountsOut,
    EventOut,
    EventPage,
    MessageOut,
    MessagePage,
    ReplyPage,
)
from backhaul_gateway.web.filters import (
    Address,
    Cursor,
    Filter,
    From,
    Limit,
    Text,
    To,
    microseconds,
    number_of,
    one_of,
)
from backhaul_gateway.web.moments import Moment
from backhaul_gateway.web.openapi import problems
from backhaul_gateway.web.parameters import paged

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; grpc.aio's channels make the one class answer awaitables.
    from backhaul_proto.normalizer.v1.normalizer_pb2_grpc import NormalizerServiceAsyncStub

_A_DAY_US = 24 * 3600 * 1_000_000

_REPLAY_BYTES = 1024
"""What a dead letter takes in the callback log when it is sent again, at least; how much it is shows afterwards."""


class NormalizerRoutes:
    """What the normalizer keeps of a tenant's callbacks."""

    def __init__(self, callers: Callers, admission: Admission, normalizer: NormalizerServiceAsyncStub) -> None:
        self._written = callers.written
        self._admission = admission
        self._normalizer = normalizer

    def add_to(self, router: APIRouter) -> None:
        """Add each method below under its path."""
        get = partial(router.add_api_route, methods=["GET"])
        post = partial(router.add_api_route, methods=["POST"], responses=problems(404, 409))
        missing, ambiguous, either = problems(404), problems(409), problems(404, 409)
        get("/messages", self.list_messages, response_model=MessagePage)
        get("/messages/{channel}/{message_id:path}", self.get_message, response_model=MessageOut, responses=either)
        get("/events", self.list_events, response_model=EventPage, responses=ambiguous)
        get("/errors", self.count_errors, response_model=ErrorCountsOut)
        get("/replies", self.list_replies, response_model=ReplyPage)
        post("/replies/{reply_id}/accept", self.accept_reply, response_model=EventOut)
        post("/replies/{reply_id}/dismiss", self.dismiss_reply, response_model=EventOut)
        get("/dead-letters", self.list_dead_letters, response_model=DeadLetterPage)
        one = "/dead-letters/{dead_letter_id}"
        get(one, self.get_dead_letter, response_model=DeadLetterOut, responses=missing)
        post(f"{one}/replay", self.replay_dead_letter, response_model=DeadLetterOut)
        post(f"{one}/discard", self.discard_dead_letter, response_model=DeadLetterOut)

    async def list_messages(
        self,
        by: By,
        channel: Filter = "",
        message_id: Annotated[Filter, Query(description="The id, or one of the references, of a message.")] = "",
        state: Annotated[str, one_of(KINDS)] = "",
        fulfilment_state: Annotated[str, one_of(FULFILMENT)] = "",
        recipient: Address = "",
        communication: Filter = "",
        error_code: Filter = "",
        from_: From = None,
        to: To = None,
        limit: Limit = 50,
        cursor: Cursor = "",
    ) -> Response:
        """Messages by the arrival of their first callback, newest first. ``from`` and ``to`` bound that arrival.
        ``communication`` is the one that a message says; `/v1/replies` has those that answer it."""
        answer = await paged(
            self._normalizer.ListMessages(
                pb.ListMessagesRequest(
                    tenant_id=by.tenant.id,
                    channel=channel_key(channel),
                    state=number_of(KINDS, state, "state"),
                    fulfilment_state=number_of(FULFILMENT, fulfilment_state, "fulfilment_state"),
                    recipient=recipient,
                    communication_id=communication,
                    error_code=error_code,
                    from_us=microseconds(from_),
                    to_us=microseconds(to),
                    page_size=limit,
                    page_token=cursor,
                    message_id=message_id,
                )
            )
        )
        return await self._written(MESSAGES, answer)

    async def get_message(self, by: By, channel: Text, message_id: Text) -> Response:
        """State and timeline of one message.

        ``message_id`` may also be a reference of it: 409 where several messages have that.
        """
        answer = await self._normalizer.GetMessage(
            pb.GetMessageRequest(tenant_id=by.tenant.id, channel=channel_key(channel), message_id=message_id)
        )
        return await self._written(MESSAGE, answer)

    async def list_events(
        self,
        by: By,
        channel: Filter = "",
        kind: Annotated[str, one_of(KINDS)] = "",
        message_id: Annotated[
            Filter,
            Query(
                description="The id of one message, or a reference that it alone has (409 where others have it too); "
                "needs channel too."
            ),
        ] = "",
        recipient: Address = "",
        communication: Filter = "",
        error_code: Filter = "",
        from_: From = None,
        to: To = None,
        limit: Limit = 50,
        cursor: Cursor = "",
    ) -> Response:
        """Events by arrival, newest first. ``from`` and ``to`` bound the arrival."""
        answer = await paged(
            self._normalizer.ListEvents(
                pb.ListEventsRequest(
                    tenant_id=by.tenant.id,
                    channel=channel_key(channel),
                    kind=number_of(KINDS, kind, "kind"),
                    message_id=message_id,
                    recipient=recipient,
                    communication_id=communication,
                    error_code=error_code,
                    from_us=microseconds(from_),
                    to_us=microseconds(to),
                    page_size=limit,
                    page_token=cursor,
                )
            )
        )
        return await self._written(EVENTS, answer)

    async def count_errors(
        self,
        by: By,
        channel: Filter = "",
        error_code: Filter = "",
        from_: Annotated[
            Moment | None, Query(alias="from", description="RFC 3339; inclusive. A day before `to` unless given.")
        ] = None,
        to: Annotated[Moment | None, Query(description="RFC 3339; exclusive. Now unless given.")] = None,
    ) -> Response:
        """How often each error code was reported, by channel, the most frequent first; and what it means.

        Each event counts once, by its arrival. 504 where the span holds more than can be counted in time: narrow it.
        """
        to_us = microseconds(to)
        from_us = microseconds(from_) or max(1, (to_us or microseconds(datetime.now(UTC))) - _A_DAY_US)
        answer = await self._normalizer.CountErrors(
            pb.CountErrorsRequest(
                tenant_id=by.tenant.id,
                channel=channel_key(channel),
                error_code=error_code,
                from_us=from_us,
                to_us=to_us,
            )
        )
        return await self._written(ERRORS, answer)

    async def list_replies(
        self,
        by: By,
        flagged: Annotated[
            Literal["", "true", "false"] | None,
            Query(description="Only those that are likely opt-outs and not decided about: ?flagged, or ?flagged=true."),
        ] = None,
        channel: Filter = "",
        recipient: Address = "",
        communication: Filter = "",
        from_: From = None,
        to: To = None,
        limit: Limit = 50,
        cursor: Cursor = "",
    ) -> Response:
        """What people wrote, by arrival, newest first. ``from`` and ``to`` bound the arrival; ``recipient`` is the
        person, and ``communication`` that of the message which a reply answers."""
        answer = await paged(
            self._normalizer.ListReplies(
                pb.ListRepliesRequest(
                    tenant_id=by.tenant.id,
                    channel=channel_key(channel),
                    review=REVIEW_FLAGGED if flagged in ("", "true") else REVIEW_UNSPECIFIED,
                    recipient=recipient,
                    communication_id=communication,
                    from_us=microseconds(from_),
                    to_us=microseconds(to),
                    page_size=limit,
                    page_token=cursor,
                )
            )
        )
        return await self._written(REPLIES, answer)

    async def accept_reply(self, by: By, reply_id: Text) -> Response:
        """Take a flagged reply for an opt-out, effective when it was written; the reply as it is then. Repeated, it
        changes nothing. 409 where it was never flagged. Counts as a callback of the tenant's rate."""
        self._admission.callback(by, 0)
        answer = await self._normalizer.AcceptReply(pb.AcceptReplyRequest(tenant_id=by.tenant.id, id=reply_id))
        return await self._written(ONE_EVENT, answer.reply)

    async def dismiss_reply(self, by: By, reply_id: Text) -> Response:
        """Take a flagged reply for no opt-out; the reply as it is then. Repeated, it changes nothing. 409 where it was
        never flagged, or is accepted. Counts as a callback of the tenant's rate."""
        self._admission.callback(by, 0)
        answer = await self._normalizer.DismissReply(pb.DismissReplyRequest(tenant_id=by.tenant.id, id=reply_id))
        return await self._written(ONE_EVENT, answer.reply)

    async def list_dead_letters(
        self,
        by: By,
        channel: Filter = "",
        state: Literal["", "open", "replayed", "discarded"] = "",
        limit: Limit = 50,
        cursor: Cursor = "",
    ) -> Response:
        """What could not be read, newest first."""
        answer = await paged(
            self._normalizer.ListDeadLetters(
                pb.ListDeadLettersRequest(
                    tenant_id=by.tenant.id,
                    channel=channel_key(channel),
                    state=number_of(DEAD_LETTER, state, "state"),
                    page_size=limit,
                    page_token=cursor,
                )
            )
        )
        return await self._written(DEAD_LETTERS, answer)

    async def get_dead_letter(self, by: By, dead_letter_id: Text) -> Response:
        """One dead letter with its callback."""
        answer = await self._normalizer.GetDeadLetter(
            pb.GetDeadLetterRequest(tenant_id=by.tenant.id, id=dead_letter_id)
        )
        return await self._written(ONE_DEAD_LETTER, answer.dead_letter)

    async def replay_dead_letter(self, by: By, dead_letter_id: Text) -> Response:
        """Send it through once more. Counts as a callback of the tenant's rate."""
        self._admission.callback(by, _REPLAY_BYTES)
        answer = await self._normalizer.ReplayDeadLetter(
            pb.ReplayDeadLetterRequest(tenant_id=by.tenant.id, id=dead_letter_id)
        )
        return await self._written(ONE_DEAD_LETTER, answer.dead_letter)

    async def discard_dead_letter(self, by: By, dead_letter_id: Text) -> Response:
        """Close it without processing it. Counts as a callback of the tenant's rate."""
        self._admission.callback(by, 0)
        answer = await self._normalizer.DiscardDeadLetter(
            pb.DiscardDeadLetterRequest(tenant_id=by.tenant.id, id=dead_letter_id)
        )
        return await self._written(ONE_DEAD_LETTER, answer.dead_letter)
