"""What is asked and answered about reconciliation.

The models are the documentation, and what is written: each twin fills one from the reconciler's answer.
"""

from __future__ import annotations

from typing import Annotated

from backhaul_common.vocabulary import Words
from backhaul_proto.reconciler.v1 import reconciler_pb2 as pb
from pydantic import BaseModel, ConfigDict, Field

from backhaul_gateway.twins.twin import Of, Twin
from backhaul_gateway.web.filters import Text, microseconds
from backhaul_gateway.web.moments import AwareMoment

KINDS = Words(pb.DifferenceKind.DESCRIPTOR)


class RunIn(BaseModel):
    """What a run asks about: what was sent from ``from``, inclusive, to ``to``, exclusive. Left out, the last 24 hours,
    and until now."""

    model_config = ConfigDict(extra="forbid")

    channel: Annotated[Text, Field(min_length=1, max_length=512, examples=["Twilio"])]
    from_: AwareMoment | None = Field(None, alias="from", description="RFC 3339; inclusive.")
    to: AwareMoment | None = Field(None, description="RFC 3339; exclusive.")
    dry_run: Annotated[bool, Field(strict=True)] = Field(
        default=False, description="Count what is missing, and backfill nothing."
    )

    def request(self, tenant_id: str) -> pb.RunRequest:
        """The call."""
        return pb.RunRequest(
            tenant_id=tenant_id,
            channel=self.channel,
            from_us=microseconds(self.from_),
            to_us=microseconds(self.to),
            dry_run=self.dry_run,
        )


class RunCountsOut(BaseModel):
    """What a run found. Of the ``seen`` records, which its provider's API told: all of which was ``known``; which told
    something that no callback had brought (``missing``); which only completed what was known (``better``); which could
    not be read. Messages whose state is ``differing`` from the provider's, which are still on their way there
    (``open``), or which the provider does not know. ``requests`` were made, repetitions included."""

    seen: int
    known: int
    missing: int
    better: int
    unreadable: int
    differing: int
    open: int
    unknown_to_provider: int
    requests: int


class RunReportOut(BaseModel):
    """A run. ``cause`` is ``schedule`` or ``call``; ``state`` is ``running``, ``done`` or ``stopped``, and ``text``
    says why it stopped. It asked about what was sent from ``asked_from``, inclusive, to ``asked_to``, exclusive. Of a
    ``dry_run`` nothing was backfilled."""

    id: str
    channel: str
    cause: str
    state: str
    text: str | None
    asked_from: Annotated[str | None, Of("from_us")]
    asked_to: Annotated[str | None, Of("to_us")]
    dry_run: bool
    counts: RunCountsOut
    began_at: str | None
    ended_at: str | None


class RunReportPage(BaseModel):
    """Newest first. ``next_cursor`` is null on the last page."""

    reports: list[RunReportOut]
    next_cursor: Annotated[str | None, Of("next_page_token")]


class DifferenceOut(BaseModel):
    """A message about which both sides say something else: ``kind`` is ``state`` where neither state comes after the
    other, or ``unknown_to_provider``. What a side does not say is null. The run of ``report_id`` saw it last."""

    channel: str
    message_id: str
    kind: str
    our_state: str | None
    our_error_code: str | None
    provider_state: str | None
    provider_error_code: str | None
    first_seen_at: str | None
    last_seen_at: str | None
    report_id: str


class DifferencePage(BaseModel):
    """What was found last comes first. ``next_cursor`` is null on the last page. On the first page ``full_channels``
    names channels of which as many are kept as may be, 10,000: there may be more."""

    differences: list[DifferenceOut]
    full_channels: list[str]
    next_cursor: Annotated[str | None, Of("next_page_token")]


class DayOut(BaseModel):
    """The account of one day (UTC) of one channel. ``state`` is ``open``, ``closed`` or ``cannot_be_closed``, and
    ``text`` says why it is not closed. Of the provider's messages so many are ``equal`` here, of which reconciliation
    alone had found ``backfilled``; so many are ``differing``, and so many ``open`` at the provider. It does not know
    those of ours that are ``unknown_to_provider``."""

    channel: str
    day: str
    state: str
    text: str | None
    provider_messages: int
    equal: int
    backfilled: int
    differing: int
    open: int
    unknown_to_provider: int
    compared_at: str | None


class ReconciledChannelOut(BaseModel):
    """How it stands with one channel. ``standing`` is ``asked``, ``no_api``, ``no_credentials``,
    ``credentials_refused``, ``waiting``, ``failing`` or ``off``, and ``text`` says more. It was last asked at
    ``asked_at``, and will be at ``due_at``; all is known of what its provider's lists tell of the time before
    ``discovered_to``. ``silence`` is ``none``, ``silent`` or ``cannot_be_told``, where nothing tells what was sent;
    null where no callbacks are expected."""

    channel: str
    standing: str
    text: str | None
    asked_at: str | None
    due_at: str | None
    discovered_to: str | None
    silence: str | None
    silent_since: str | None
    report_id: str | None


class ReconciledChannelsOut(BaseModel):
    """All of the tenant's channels, by key."""

    channels: list[ReconciledChannelOut]


REPORT: Twin[pb.Report] = Twin(RunReportOut, pb.Report.DESCRIPTOR)
REPORTS: Twin[pb.ListReportsResponse] = Twin(RunReportPage, pb.ListReportsResponse.DESCRIPTOR)
DIFFERENCES: Twin[pb.ListDifferencesResponse] = Twin(DifferencePage, pb.ListDifferencesResponse.DESCRIPTOR)
DAY: Twin[pb.Day] = Twin(DayOut, pb.Day.DESCRIPTOR)
CHANNELS: Twin[pb.ListChannelsResponse] = Twin(ReconciledChannelsOut, pb.ListChannelsResponse.DESCRIPTOR)
