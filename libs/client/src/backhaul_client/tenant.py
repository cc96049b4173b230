"""A tenant's side of the API: what became of its messages."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

from backhaul_client.audits import AuditCalls
from backhaul_client.calls import Call, call, given, of, page_of, path, rows
from backhaul_client.communications import AsyncBatches, AsyncCommunications, Batches, Communications
from backhaul_client.following import LAST_EVENT_ID, SILENT_S, followed
from backhaul_client.models import (
    Communication,
    DeadLetter,
    DeadLetterSummary,
    ErrorCounts,
    Event,
    Message,
    MessageSummary,
    Preview,
    Stats,
)
from backhaul_client.notifications import AsyncDeliveries, AsyncSubscriptions, Deliveries, Subscriptions
from backhaul_client.own import OwnCalls
from backhaul_client.paging import Page
from backhaul_client.people import PeopleCalls
from backhaul_client.reconciliation import AsyncReconciliation, Reconciliation
from backhaul_client.replays import AsyncReplays, Replays
from backhaul_client.sends import SendCalls
from backhaul_client.statusmodels import Access, ChannelStatus
from backhaul_client.suppressions import SuppressionCalls
from backhaul_client.transport import AsyncTransport, Transport

_PAGE = 100


class _TenantCalls:
    """The calls, once for both clients."""

    _credential_header = "X-Api-Key"

    @call
    def test(self) -> Call[Access]:
        """Whether the service is there, and its version."""
        return Call(path="/api/test", answer=of(Access))

    @call
    def channel_status(self, label: str) -> Call[ChannelStatus]:
        """Whether a channel works, part by part."""
        return Call(path="/api/status", params=given(channelLabel=label), answer=of(ChannelStatus))

    @call
    def preview(
        self,
        label: str,
        *,
        body: str | bytes,
        headers: Mapping[str, str] | None = None,
        query: str = "",
        url: str = "",
    ) -> Call[Preview]:
        """What a callback of a channel would be answered, and what would become of it; nothing of it is kept.

        ``headers`` are what the provider sends beside the body, such as its signature. ``url`` is the address that it
        was told; unless given, the channel's own with the parameters in ``query``.
        """
        content = {"body": body} if isinstance(body, str) else {"body_base64": b64encode(body).decode()}
        more = {name: value for name, value in (("headers", headers), ("query", query), ("url", url)) if value}
        return Call(
            method="POST",
            path=path("v1", "channels", label, "preview"),
            body={**content, **more},
            answer=of(Preview),
        )

    @call
    def message(self, channel: str, message_id: str) -> Call[Message]:
        """State and timeline of one message, by its id or by a reference that it alone has."""
        return Call(path=path("v1", "messages", channel, message_id), answer=of(Message))

    @rows
    def messages(
        self,
        *,
        channel: str = "",
        message_id: str = "",
        state: str = "",
        fulfilment_state: str = "",
        recipient: str = "",
        communication: str = "",
        error_code: str = "",
        from_: datetime | None = None,
        to: datetime | None = None,
        page_size: int = _PAGE,
        cursor: str = "",
    ) -> Call[Page[MessageSummary]]:
        """Messages by the arrival of their first callback, newest first. ``from_`` and ``to`` bound that arrival;
        ``message_id`` is an id or a reference, and ``communication`` the one that a message says: ``replies`` has those
        that answer it."""
        params = given(
            channel=channel,
            message_id=message_id,
            state=state,
            fulfilment_state=fulfilment_state,
            recipient=recipient,
            communication=communication,
            error_code=error_code,
            from_=from_,
            to=to,
            limit=page_size,
            cursor=cursor,
        )
        return Call(path="/v1/messages", params=params, answer=page_of("messages", MessageSummary))

    @rows
    def events(
        self,
        *,
        channel: str = "",
        kind: str = "",
        message_id: str = "",
        recipient: str = "",
        communication: str = "",
        error_code: str = "",
        from_: datetime | None = None,
        to: datetime | None = None,
        page_size: int = _PAGE,
        cursor: str = "",
    ) -> Call[Page[Event]]:
        """Events by arrival, newest first. ``from_`` and ``to`` bound the arrival; ``message_id`` needs ``channel``."""
        params = given(
            channel=channel,
            kind=kind,
            message_id=message_id,
            recipient=recipient,
            communication=communication,
            error_code=error_code,
            from_=from_,
            to=to,
            limit=page_size,
            cursor=cursor,
        )
        return Call(path="/v1/events", params=params, answer=page_of("events", Event))

    @followed
    def follow_events(
        self,
        *,
        channel: str = "",
        kind: str = "",
        message_id: str = "",
        recipient: str = "",
        communication: str = "",
        error_code: str = "",
        after: str = "",
        positions: bool = False,
    ) -> Call[Event]:
        """Events as they are published, without an end: behind the id ``after``, from the oldest that is kept on for
        ``"0"``, or else from now on. Where a connection ends, the next one goes on; an event may come again, under its
        own id: keep the highest ``revision``. With ``positions`` it also tells, at its beginning and every 15 s, the id
        up to which there is nothing more."""
        params = given(
            channel=channel,
            kind=kind,
            message_id=message_id,
            recipient=recipient,
            communication=communication,
            error_code=error_code,
        )
        headers = {"Accept": "text/event-stream", **({LAST_EVENT_ID: after} if after else {})}
        return Call(
            path="/v1/events/stream",
            params=params,
            headers=headers,
            answer=of(Event),
            silent_s=SILENT_S,
            positions=positions,
        )

    @call
    def errors(
        self,
        *,
        channel: str = "",
        error_code: str = "",
        from_: datetime | None = None,
        to: datetime | None = None,
    ) -> Call[ErrorCounts]:
        """How often each error code was reported, by channel, the most frequent first, 1,000 at most. ``from_`` and
        ``to`` bound the arrival; without ``from_`` it is the day before ``to``, without ``to`` until now."""
        params = given(channel=channel, error_code=error_code, from_=from_, to=to)
        return Call(path="/v1/errors", params=params, answer=of(ErrorCounts))

    @call
    def stats(
        self,
        *,
        per: Literal["hour", "day"] = "hour",
        group_by: Sequence[Literal["channel", "kind", "fulfilment_state", "communication"]] = (),
        channel: str = "",
        communication: str = "",
        from_: datetime | None = None,
        to: datetime | None = None,
    ) -> Call[Stats]:
        """How many events and messages there were, by UTC. ``from_`` and ``to`` are full hours, 31 days apart at most,
        or 800 by the day; without ``to`` until the end of this hour, without ``from_`` a day before, or 30 by the
        day."""
        params = given(
            per=per,
            group_by=",".join(group_by),
            channel=channel,
            communication=communication,
            from_=from_,
            to=to,
        )
        return Call(path="/v1/stats", params=params, answer=of(Stats))

    @rows
    def replies(
        self,
        *,
        flagged: bool = False,
        channel: str = "",
        recipient: str = "",
        communication: str = "",
        from_: datetime | None = None,
        to: datetime | None = None,
        page_size: int = _PAGE,
        cursor: str = "",
    ) -> Call[Page[Event]]:
        """What people wrote, by arrival, newest first; only what is likely an opt-out and not decided about, if
        ``flagged``. ``recipient`` is the person, ``communication`` that of the message which a reply answers."""
        params = given(
            flagged="true" if flagged else "",
            channel=channel,
            recipient=recipient,
            communication=communication,
            from_=from_,
            to=to,
            limit=page_size,
            cursor=cursor,
        )
        return Call(path="/v1/replies", params=params, answer=page_of("replies", Event))

    @call
    def accept_reply(self, reply_id: str) -> Call[Event]:
        """Take a flagged reply for an opt-out, effective when it was written. Repeated, it changes nothing."""
        return Call(method="POST", path=path("v1", "replies", reply_id, "accept"), answer=of(Event))

    @call
    def dismiss_reply(self, reply_id: str) -> Call[Event]:
        """Take a flagged reply for no opt-out. Repeated, it changes nothing."""
        return Call(method="POST", path=path("v1", "replies", reply_id, "dismiss"), answer=of(Event))

    @call
    def communication(self, communication_id: str) -> Call[Communication]:
        """Counts of one sending."""
        return Call(path=path("v1", "communications", communication_id), answer=of(Communication))

    @rows
    def dead_letters(
        self, *, channel: str = "", state: str = "", page_size: int = _PAGE, cursor: str = ""
    ) -> Call[Page[DeadLetterSummary]]:
        """What could not be read, newest first."""
        params = given(channel=channel, state=state, limit=page_size, cursor=cursor)
        return Call(path="/v1/dead-letters", params=params, answer=page_of("dead_letters", DeadLetterSummary))

    @call
    def dead_letter(self, dead_letter_id: str) -> Call[DeadLetter]:
        """One dead letter with its callback."""
        return Call(path=path("v1", "dead-letters", dead_letter_id), answer=of(DeadLetter))

    @call
    def replay_dead_letter(self, dead_letter_id: str) -> Call[DeadLetter]:
        """Send it through once more."""
        return Call(method="POST", path=path("v1", "dead-letters", dead_letter_id, "replay"), answer=of(DeadLetter))

    @call
    def discard_dead_letter(self, dead_letter_id: str) -> Call[DeadLetter]:
        """Close it without processing it."""
        return Call(method="POST", path=path("v1", "dead-letters", dead_letter_id, "discard"), answer=of(DeadLetter))


class TenantClient(_TenantCalls, SendCalls, SuppressionCalls, AuditCalls, PeopleCalls, OwnCalls, Transport):
    """``with TenantClient("https://callbacks.example.com", api_key) as backhaul``. May be shared by threads."""

    @property
    def communications(self) -> Communications:
        """What is sent, as it was registered, and what became of it."""
        return Communications(self)

    @property
    def batches(self) -> Batches:
        """Batches of communications, and their members."""
        return Batches(self)

    @property
    def reconciliation(self) -> Reconciliation:
        """What providers are asked for, and where they say something else."""
        return Reconciliation(self)

    @property
    def replays(self) -> Replays:
        """What is stored already, through the pipeline again."""
        return Replays(self)

    @property
    def subscriptions(self) -> Subscriptions:
        """What your own application is told, and where."""
        return Subscriptions(self)

    @property
    def deliveries(self) -> Deliveries:
        """What it was told, and what became of each attempt."""
        return Deliveries(self)


class AsyncTenantClient(_TenantCalls, SendCalls, SuppressionCalls, AuditCalls, PeopleCalls, OwnCalls, AsyncTransport):
    """``async with AsyncTenantClient("https://callbacks.example.com", api_key) as backhaul``."""

    @property
    def communications(self) -> AsyncCommunications:
        """What is sent, as it was registered, and what became of it."""
        return AsyncCommunications(self)

    @property
    def batches(self) -> AsyncBatches:
        """Batches of communications, and their members."""
        return AsyncBatches(self)

    @property
    def reconciliation(self) -> AsyncReconciliation:
        """What providers are asked for, and where they say something else."""
        return AsyncReconciliation(self)

    @property
    def replays(self) -> AsyncReplays:
        """What is stored already, through the pipeline again."""
        return AsyncReplays(self)

    @property
    def subscriptions(self) -> AsyncSubscriptions:
        """What your own application is told, and where."""
        return AsyncSubscriptions(self)

    @property
    def deliveries(self) -> AsyncDeliveries:
        """What it was told, and what became of each attempt."""
        return AsyncDeliveries(self)
