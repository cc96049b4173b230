"""Messages of ours that are on their way: asked for at some ages, until they are too old to change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from backhaul_channels.pull import Listing, NeverError, PullError, Span

from backhaul_reconciler import offers
from backhaul_reconciler.model import OpenMessage
from backhaul_reconciler.work import IDS_A_PAGE, Asked, Work

NAME: Final = "open"

AGES_S: Final = (900, 3_600, 21_600, 86_400, 259_200)

UNKNOWN_FROM_S: Final = 86_400
"""From which age on it counts that the provider does not know a message: before, it may not tell of it yet."""

MAX_MESSAGES: Final = 20_000
"""Messages that are held in memory at once."""

_SECOND: Final = 1_000_000
_EARLIER_US: Final = 900 * _SECOND
"""How much later than it was sent a message may first be heard of, and still be found in a list by that."""


class NotOfferedError(NeverError):
    """The account is told of no single message. It is in the channel's document, and asked for again in a day."""


async def ask_open(work: Work) -> None:
    """Ask for the messages that have come to one of the ages. Where the account is told of no single ones nothing is
    asked, and they wait. What ``discover`` raises."""
    if not is_asked(work):
        return
    with suppress(NotOfferedError):
        await _ask_open(work)


def is_asked(work: Work) -> bool:
    """Whether single messages are to be asked for now."""
    return offers.is_asked(work.row, offers.SINGLE, work.now_us())


async def _ask_open(work: Work) -> None:
    if "opening" in work.row and work.row["opening"]["age"] not in AGES_S:
        await work.store({}, ["opening"])  # Of another version, which would be waited for forever.
    for age_s in AGES_S:
        opening = work.row.get("opening")
        if opening is not None and opening["age"] != age_s:
            continue
        if opening is None:
            opening = _due(work, age_s)
        if opening is not None:
            await _of_age(work, opening)


def _due(work: Work, age_s: int) -> dict[str, Any] | None:
    """What is to be asked for at an age; at first the last three days once."""
    to_us = work.now_us() - age_s * _SECOND
    begin_us = to_us if age_s != AGES_S[0] else work.now_us() - AGES_S[-1] * _SECOND
    # A copy with another time behind it may have been further.
    from_us = min(int(work.row.get("open", {}).get(str(age_s), begin_us)), to_us)
    if from_us == to_us and str(age_s) in work.row.get("open", {}):
        return None
    return {"age": age_s, "from_us": from_us, "to_us": to_us, "end_us": to_us}


async def _of_age(work: Work, opening: dict[str, Any]) -> None:
    age_s = opening["age"]
    while True:
        span = (opening["from_us"], opening["to_us"])
        messages = await open_messages(work, span)
        more = len(messages) > MAX_MESSAGES
        del messages[MAX_MESSAGES:]
        down_to_us = messages[-1].created_at_us + 1 if more else opening["from_us"]
        if listing := _window(work, messages, span):
            messages = await _asked_by_window(work, listing, messages, span)
        for begin in range(0, len(messages), IDS_A_PAGE):
            part = messages[begin : begin + IDS_A_PAGE]
            # Of those that were heard of at the same moment some may be behind this part.
            below_us = part[-1].created_at_us + 1
            await ask_part(
                work,
                part,
                tell_unknown=age_s >= UNKNOWN_FROM_S,
                fields=whatever({"opening": {**opening, "to_us": min(below_us, opening["to_us"])}}),
            )
        if not more:
            break
        opening = {**opening, "to_us": min(down_to_us, opening["to_us"] - 1)}
    opened = {**work.row.get("open", {}), str(age_s): opening["end_us"]}
    await work.store({"open": opened}, ["opening"])


async def open_messages(work: Work, span: tuple[int, int]) -> list[OpenMessage]:
    """The channel's open messages of a span, the latest first; one more than ``MAX_MESSAGES`` at most."""
    if span[0] >= span[1]:
        return []
    return await work.parts.records.open_messages(work.known.of, span, MAX_MESSAGES + 1)


async def ask_part(
    work: Work, messages: Sequence[OpenMessage], *, tell_unknown: bool, fields: Callable[[Asked], Mapping[str, Any]]
) -> None:
    """Ask for single messages. Once all are done, ``fields`` are stored with what they told; they follow from it.
    NotOfferedError, and what ``discover`` raises."""
    if not is_asked(work):
        raise NotOfferedError(offers.why_not(work.row, offers.SINGLE))
    work.take_page()
    with work.parts.tracing.span("reconciler.page", attributes={"messages": len(messages)}):
        asked = await work.ask(messages)
        found = await work.found(asked.records, "message")
        failure = asked.failures[0] if asked.failures else None
        # Where it is not done, what was told is stored all the same, and the others are asked for again with these.
        stored = dict(fields(asked)) if failure is None else {}
        if isinstance(failure, NeverError):
            stored |= offers.refused(work.row, offers.SINGLE, str(failure), work.now_us())
        elif asked.records or asked.unknown:
            stored |= offers.told(work.row, offers.SINGLE)
        await work.store(stored, found=found, unknown=asked.unknown if tell_unknown and failure is None else ())
    if isinstance(failure, NeverError):
        raise NotOfferedError(str(failure)) from failure
    if failure is not None:
        raise failure


def whatever(fields: Mapping[str, Any]) -> Callable[[Asked], Mapping[str, Any]]:
    """``fields``, whatever was told."""
    return lambda _: fields


def _window(work: Work, messages: Sequence[OpenMessage], span: tuple[int, int]) -> Listing | None:
    for listing in work.listings():
        if work.cheaper_by_window(listing, len(messages), max(span[0] - _EARLIER_US, 0)):
            return listing
    return None


async def _asked_by_window(
    work: Work, listing: Listing, messages: Sequence[OpenMessage], span: tuple[int, int]
) -> list[OpenMessage]:
    """Those that the list of their time does not name."""
    left = {one.message_id: one for one in messages}
    window, cursor = Span(max(span[0] - _EARLIER_US, 0), span[1]), ""
    while left:
        work.take_page()
        with work.parts.tracing.span("reconciler.page", attributes={"listing": listing.name}):
            try:
                page = await work.window(listing, window, cursor)
            except PullError:
                await work.store()
                raise
            found = await work.found(page.records, listing.name, waits_s=listing.waits_s)
            await work.store(found=found)
        for message_id in found.ids:
            left.pop(message_id, None)
        cursor = page.cursor
        if not cursor or page.wait_s:
            break
    return [one for one in messages if one.message_id in left]
