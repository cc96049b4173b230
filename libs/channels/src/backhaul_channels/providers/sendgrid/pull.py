"""What SendGrid's API tells: lists of suppressed addresses, and what became of mails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b, sha256
from typing import Any, ClassVar, Final

import msgspec

from backhaul_channels.adapter import MalformedError
from backhaul_channels.providers.sendgrid import activity
from backhaul_channels.providers.sendgrid.asking import (
    ORIGINS,
    SendGridAsk,
    SendGridCredentials,
    asked,
    checked,
    errors,
    object_of,
    rows_of,
    said,
)
from backhaul_channels.providers.sendgrid.normalize import unix_us
from backhaul_channels.providers.sendgrid.records import GROUPS, created_field
from backhaul_channels.providers.sendgrid.settings import SendGridSettings
from backhaul_channels.pull import (
    Ask,
    Budget,
    Listing,
    NeverError,
    Page,
    PullCredentials,
    Puller,
    Span,
    Transport,
    UnreadableAnswerError,
)

MESSAGES: Final = "messages"
ROWS = 500
"""Of a list of suppressions an answer has so many at most."""

# SendGrid repeats an event to the webhook for 24 hours; an hour more, in which one that was taken at last is read.
WAITS_S: Final = 25 * 3_600

# Where each list is, with what people say first. All but the groups' take a span of time.
# https://www.twilio.com/docs/sendgrid/api-reference/suppressions-suppressions/retrieve-all-suppressions
PATHS: Final[Mapping[str, str]] = {
    "unsubscribes": "suppression/unsubscribes",
    GROUPS: "asm/suppressions",
    "spam_reports": "suppression/spam_reports",
    "bounces": "suppression/bounces",
    "invalid_emails": "suppression/invalid_emails",
    "blocks": "suppression/blocks",
}

_SECOND = 1_000_000


class SendGridPuller(Puller[SendGridCredentials, SendGridSettings]):
    """Suppressions, whose rows name no mail; and mails, for accounts that have bought Email Activity."""

    credentials_model: ClassVar[type[PullCredentials]] = SendGridCredentials
    origins: ClassVar[frozenset[str]] = frozenset(ORIGINS.values())
    # Of suppressions SendGrid documents no figure, but headers that tell it; 100 a minute is the least that was seen.
    # Of Email Activity: https://www.twilio.com/docs/sendgrid/api-reference/email-activity#rate-limits
    budgets: ClassVar[Mapping[str, Budget]] = {
        "suppressions": Budget(per_minute=100, at_once=2),
        "activity": Budget(per_minute=6, at_once=1),
    }
    message_budget: ClassVar[str] = "activity"
    # Email Activity has 30 days. The lists of suppressions have no end.
    reaches_back_days: ClassVar[int] = 30

    def account(self, credentials: SendGridCredentials) -> str:
        # SendGrid counts requests by key, whichever subuser they are for.
        return sha256(credentials.api_key.encode()).hexdigest()[:32]

    def listings(self, settings: SendGridSettings) -> Sequence[Listing]:
        # A row is looked at until it is old enough to be believed to be missing.
        found = [
            Listing(name, budget="suppressions", rows=ROWS, settles_s=WAITS_S + 3_600, waits_s=WAITS_S)
            for name in PATHS
        ]
        if settings.region == "global":
            # Not whole: a mail is listed by its last event, and moves to another day when it is opened there.
            found.append(Listing(MESSAGES, budget="activity", rows=activity.ROWS))
        return found

    async def window(
        self,
        transport: Transport,
        ask: Ask[SendGridCredentials, SendGridSettings],
        listing: str,
        span: Span,
        cursor: str = "",
    ) -> Page:
        if listing == MESSAGES:
            return await activity.window(transport, ask, span, cursor)
        return await _suppressions(transport, ask, listing, span, cursor)

    async def message(
        self, transport: Transport, ask: Ask[SendGridCredentials, SendGridSettings], message_id: str
    ) -> Page:
        return await activity.message(transport, ask, message_id)


async def _suppressions(transport: Transport, ask: SendGridAsk, listing: str, span: Span, cursor: str) -> Page:
    """A page of a list. The cursor is the offset, and a mark of the page before, which a list that takes no offset
    answers once more."""
    told, _, before = cursor.partition(":")
    offset = int(told) if told.isascii() and told.isdigit() else 0
    params = {
        "start_time": str(span.from_us // _SECOND),
        "end_time": str((span.to_us - 1) // _SECOND),
        "limit": str(ROWS),
        "offset": str(offset),
    }
    answer = await asked(transport, ask, PATHS[listing], params)
    if listing == GROUPS and answer.status == 403 and errors(answer):
        raise NeverError(
            f"SendGrid does not let this API key read the suppressions of groups (status 403).{said(answer, ask)} Give "
            "it access to unsubscribe groups."
        )
    if checked(answer, ask).status == 404:
        raise UnreadableAnswerError(f"SendGrid knows no {PATHS[listing]} (status 404).{said(answer, ask)}")
    rows = rows_of(answer.body)
    mark = blake2b(rows[0], digest_size=6).hexdigest() if rows else ""
    if mark and mark == before:
        return Page([])
    records = [
        msgspec.json.encode({"list": listing, "row": msgspec.Raw(row)})
        for row in rows
        if _is_within(object_of(row), listing, span)
    ]
    # More than were asked for are all that there are.
    return Page(records, f"{offset + ROWS}:{mark}" if len(rows) == ROWS else "")


def _is_within(row: Mapping[str, Any], listing: str, span: Span) -> bool:
    """One without a time that can be read is, so that somebody hears of it."""
    try:
        created_us = unix_us(row.get(created_field(listing)))
    except MalformedError:
        return True
    return span.from_us <= created_us < span.to_us
