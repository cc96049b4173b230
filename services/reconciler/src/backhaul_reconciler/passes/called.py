"""A run that somebody asked for: each list over a span of time, then our open messages of that span."""

from __future__ import annotations

from collections.abc import Set
from contextlib import suppress
from typing import Any, Final

from backhaul_channels.pull import CredentialsRefusedError, PullError, Span

from backhaul_reconciler import offers
from backhaul_reconciler.model import DAY_US
from backhaul_reconciler.passes.discovery import discovering
from backhaul_reconciler.passes.opened import (
    MAX_MESSAGES,
    UNKNOWN_FROM_S,
    NotOfferedError,
    ask_part,
    is_asked,
    open_messages,
    whatever,
)
from backhaul_reconciler.work import IDS_A_PAGE, Work

NAME: Final = "called"

_SECOND: Final = 1_000_000


async def ask_span(work: Work) -> None:
    """Ask for all of the run's span. What ``discover`` raises."""
    stopped: list[PullError] = []
    reached_us = work.now_us() - work.known.puller.reaches_back_days * DAY_US
    span = Span(max(work.run.from_us, reached_us), work.run.to_us)
    read = list(work.row["running"].get("read", []))
    # Of the pages of this turn alone, so that they are few; what an earlier one named is asked for singly.
    named: set[str] = set()
    for listing in discovering(work):
        if listing.name in read or span.from_us >= span.to_us:
            continue
        if not offers.is_offered(work.row, listing.name):
            continue  # The report says so.
        running: dict[str, Any] = work.row["running"]
        cursor = running["cursor"] if running.get("listing") == listing.name else ""
        try:
            while True:
                work.take_page()
                with work.parts.tracing.span("reconciler.page", attributes={"listing": listing.name}):
                    page = await work.window(listing, span, cursor)
                    found = await work.found(page.records, listing.name, waits_s=listing.waits_s)
                    named.update(found.ids)
                    cursor = page.cursor
                    if not cursor or page.wait_s:
                        read.append(listing.name)
                    await work.store(
                        {"running": {**running, "listing": listing.name, "cursor": cursor, "read": read}},
                        found=found,
                    )
                if not cursor or page.wait_s:
                    break
        except CredentialsRefusedError:
            raise
        except PullError as exc:
            stopped.append(exc)
    if is_asked(work):
        with suppress(NotOfferedError):
            await _open(work, named)
    if stopped:
        raise stopped[0]


async def _open(work: Work, named: Set[str]) -> None:
    """Our open messages, but for those that the lists have ``named``: these are told, and may not be processed yet."""
    to_us = int(work.row["running"].get("opening", work.run.to_us))
    while True:
        messages = await open_messages(work, (work.run.from_us, to_us))
        left = [one for one in messages if one.message_id not in named]
        for begin in range(0, len(left), IDS_A_PAGE):
            part = left[begin : begin + IDS_A_PAGE]
            below_us = min(part[-1].created_at_us + 1, to_us)
            old = work.now_us() - part[0].created_at_us >= UNKNOWN_FROM_S * _SECOND
            following = {"running": {**work.row["running"], "opening": below_us}}
            await ask_part(work, part, tell_unknown=old, fields=whatever(following))
        if len(messages) <= MAX_MESSAGES:
            return
        to_us = min(messages[-1].created_at_us + 1, to_us - 1)
