"""Closing: a day that is over, held against the provider's whole list of it, until both are the same."""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_left
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, NamedTuple

from backhaul_channels.pull import Listing, NeverError, Span, UnreadableAnswerError
from backhaul_channels.sends import UNSENT
from backhaul_common import mongo
from backhaul_common.names import RECONCILED_SEEN_COLLECTION
from backhaul_common.sizes import MAX_BODY_BYTES

from backhaul_reconciler.documents import seen
from backhaul_reconciler.judging import Found
from backhaul_reconciler.model import DAY_US, ChannelOf, Day, DayState, OpenMessage
from backhaul_reconciler.passes.opened import ask_part
from backhaul_reconciler.ports import Change
from backhaul_reconciler.work import IDS_A_PAGE, Asked, Work

NAME: Final = "closing"

BEHIND_DAYS: Final = 2
"""How long a day must be over: a file of it is there, and its last messages have come to their ends, by then."""

MAX_ASKED: Final = 1_000
"""Messages of a day that are asked for singly, since the provider's list does not name them."""

MAX_CAUGHT_UP_DAYS: Final = 31
"""How many days are made up for that were not looked at, as while the service was away."""

_AGAIN_US: Final = 600_000_000
"""When a day is compared again of which something was backfilled."""

_KEEPING: Final = {
    "missing": "just backfilled",
    "better": "just completed",
    "unreadable": "unreadable",
    "differing": "differing",
    "open": "on their way at the provider",
    "unknown": "unknown to the provider",
    "untold": "of which the provider did not tell",
}
"""What keeps a day open, by how it is counted, and how that is said behind a number."""

_TOLD: Final = ("differing", "open", "backfilled")
"""What is counted by messages, and not by records."""

_LARGE: Final = f"records of the provider's are larger than {MAX_BODY_BYTES >> 20} MiB, which nothing here may be."
"""Behind how many they are."""

_NO_LIST: Final = "The provider has no complete list of a day's messages."


class Listed(NamedTuple):
    """What the lists of a day name: of each message what is kept of it, in order; and of how many messages it was told
    that they differ, are on their way, or were backfilled. One that two pages name, since a list may shift while it is
    read, is one."""

    messages: array[int]
    numbers: Mapping[str, int]


class Seen:
    """Which messages the provider lists of days that are being compared."""

    def __init__(self, database: mongo.Database) -> None:
        self._pages = database[RECONCILED_SEEN_COLLECTION]

    async def of(self, of: ChannelOf, day: str) -> Listed:
        """What the lists of the day have named. UNAVAILABLE."""
        found = {name: bytearray() for name in ("messages", *_TOLD)}
        async with mongo.operation(60.0):
            async for row in self._pages.find(_pages_of(of, day), dict.fromkeys(found, 1)):
                for name in found:
                    found[name] += row.get(name, b"")
        messages, *told = await asyncio.to_thread(lambda: [_sorted(bytes(marks)) for marks in found.values()])
        return Listed(messages, dict(zip(_TOLD, map(len, told), strict=True)))

    def add(self, of: ChannelOf, day: str, page: int, found: Found) -> Change:
        """A page named these."""
        differing = [one.message_id for one in found.differences]
        told = dict(zip(_TOLD, (differing, found.open_ids, found.backfilled_ids), strict=True))
        row = {
            "_id": f"{of.id}/{day}/{page:06}",
            "registration": of.registration,
            "channel": of.channel,
            "messages": b"".join(map(seen, found.ids)),
            **{name: b"".join(map(seen, ids)) for name, ids in told.items() if ids},
        }

        def change(database: mongo.ThreadDatabase, session: mongo.Session) -> None:
            database[RECONCILED_SEEN_COLLECTION].replace_one({"_id": row["_id"]}, row, upsert=True, session=session)

        return change

    def forget(self, of: ChannelOf, day: str) -> Change:
        """The day is compared."""

        def change(database: mongo.ThreadDatabase, session: mongo.Session) -> None:
            database[RECONCILED_SEEN_COLLECTION].delete_many(_pages_of(of, day), session=session)

        return change


async def close(work: Work, seen_pages: Seen) -> None:
    """Go on with the day that is being compared, or begin with the next one, if there is any. What ``discover``
    raises."""
    if "closing" not in work.row:
        day = await next_day(work)
        if day is None:
            return
        if text := _never(work, day):
            left = work.parts.days.left(work.known.of, day, DayState.CANNOT_BE_CLOSED, text, None)
            await work.store({}, ["closing"], changes=[left])
            return
        state = {"day": day, "listing": "", "cursor": "", "page": 0, "token": "", "asked": 0, "counts": {}}
        await work.store({"closing": state}, changes=[seen_pages.forget(work.known.of, day)])
    day = work.row["closing"]["day"]
    if work.row["closing"].get("wait_us", 0) > work.now_us():
        return
    try:
        for listing in _whole(work):
            await _read(work, seen_pages, listing)
            if work.row["closing"].get("wait_us"):
                return
        listed = await seen_pages.of(work.known.of, day)
        await _own(work, listed.messages)
    except NeverError as exc:
        left = work.parts.days.left(work.known.of, day, DayState.CANNOT_BE_CLOSED, str(exc), None)
        await work.store({}, ["closing"], changes=[seen_pages.forget(work.known.of, day), left])
        return
    await _end(work, seen_pages, listed)


async def refused(work: Work, seen_pages: Seen, text: str) -> None:
    """The credentials are refused: the day that is to be compared stays open, and says why."""
    day = work.row["closing"]["day"] if "closing" in work.row else await next_day(work)
    if day is not None:
        due_us = work.now_us() + 6 * _AGAIN_US
        left = work.parts.days.left(work.known.of, day, DayState.OPEN, text, due_us)
        await work.store({}, ["closing"], changes=[seen_pages.forget(work.known.of, day), left])


async def next_day(work: Work) -> str | None:
    """The day that is to be compared: the next one that was not, or else one that is still open and due."""
    last = _day_of(work.now_us()) - timedelta(days=BEHIND_DAYS)
    latest = await work.parts.days.latest(work.known.of)
    if latest is None:
        return _name(last)
    following = max(_parsed(latest) + timedelta(days=1), last - timedelta(days=MAX_CAUGHT_UP_DAYS))
    if following <= last:
        return _name(following)
    return await work.parts.days.due(work.known.of, work.now_us())


def _whole(work: Work) -> list[Listing]:
    return [listing for listing in work.listings() if listing.whole and listing.closes]


def _never(work: Work, day: str) -> str:
    """Why a day can never be compared; empty where it can."""
    if not _whole(work):
        return _NO_LIST
    reached = work.known.puller.reaches_back_days
    if _day_of(work.now_us()) - _parsed(day) >= timedelta(days=reached):
        return f"The provider tells of nothing that is further back than {reached} days."
    return ""


async def _read(work: Work, seen_pages: Seen, listing: Listing) -> None:
    """All of one list, from where it goes on."""
    state: dict[str, Any] = work.row["closing"]
    done = state.get("done", [])
    if listing.name in done:
        return
    begin_us = int(_parsed(state["day"]).timestamp()) * 1_000_000
    span = Span(begin_us, begin_us + DAY_US)
    cursor = state["cursor"] if state["listing"] == listing.name else ""
    while True:
        work.take_page()
        with work.parts.tracing.span("reconciler.page", attributes={"listing": listing.name}):
            try:
                page = await work.window(listing, span, cursor)
            except UnreadableAnswerError:
                if cursor and state.get("odd"):
                    # As in discovery; what was counted of the day would count twice.
                    await work.store({}, ["closing"], changes=[seen_pages.forget(work.known.of, state["day"])])
                elif cursor:
                    await work.store({"closing": {**state, "odd": True}})
                raise
            found = await work.found(page.records, listing.name, waits_s=listing.waits_s)
            cursor = page.cursor
            state = {
                **state,
                "listing": listing.name,
                "cursor": cursor,
                "page": state["page"] + 1,
                "counts": _added(state["counts"], found),
            }
            for name in ("wait_us", "odd"):
                state.pop(name, None)
            if page.wait_s:
                state["wait_us"] = work.now_us() + int(page.wait_s * 1_000_000)
            elif not cursor:
                state["done"] = [*done, listing.name]
            changes = [seen_pages.add(work.known.of, state["day"], state["page"], found)] if found.ids else []
            await work.store({"closing": state}, found=found, changes=changes)
            for delay_us in found.delays_us:
                work.parts.delayed(max(0, delay_us) / 1_000_000)
        if page.wait_s or not cursor:
            return


async def _own(work: Work, listed: array[int]) -> None:
    """Ask for our own messages of the day that the provider's lists do not name."""

    def is_listed(message_id: str) -> bool:
        number = int.from_bytes(seen(message_id), "big")
        place = bisect_left(listed, number)
        return place < len(listed) and listed[place] == number

    while not work.row["closing"].get("owned"):
        state: dict[str, Any] = work.row["closing"]
        begin_us = int(_parsed(state["day"]).timestamp()) * 1_000_000
        messages, token = await work.parts.records.messages(
            work.known.of, (begin_us, begin_us + DAY_US), state["token"]
        )
        absent = [one for one in messages if _is_the_providers(one) and not is_listed(one.message_id)]
        left = absent[state.get("within", 0) :]
        part = left[: min(IDS_A_PAGE, max(0, MAX_ASKED - state["asked"]))]
        if part and len(part) < len(left):
            following = {**state, "within": state.get("within", 0) + len(part)}
        else:
            following = {**state, "token": token, "owned": not token, "within": 0}
            following["counts"] = _plus(state["counts"], beyond=len(left) - len(part))
        following["asked"] = state["asked"] + len(part)
        if part:
            await ask_part(work, part, tell_unknown=True, fields=partial(_with_asked, following))
        else:
            await work.store({"closing": following})


def _is_the_providers(message: OpenMessage) -> bool:
    """Whether a provider may know it: not one that was refused at once or could not be made, of which its sender alone
    told."""
    return message.state != "rejected" and not message.message_id.startswith(UNSENT)


def _with_asked(state: dict[str, Any], asked: Asked) -> dict[str, Any]:
    counts = _plus(state["counts"], unknown=len(asked.unknown), untold=len(asked.odd))
    return {"closing": {**state, "counts": counts}}


async def _end(work: Work, seen_pages: Seen, found: Listed) -> None:
    state: dict[str, Any] = work.row["closing"]
    counts, listed = _plus(state["counts"], **found.numbers), len(found.messages)

    def of(name: str) -> int:
        return int(counts.get(name, 0))

    new = of("missing") + of("better") + of("unreadable")
    left = new + of("differing") + of("open") + of("unknown") + of("untold") + of("beyond")
    now_us = work.now_us()
    text, ended = _still(counts), DayState.CLOSED
    if of("large"):
        text, ended = f"{text} {of('large')} {_LARGE}".strip(), DayState.CANNOT_BE_CLOSED
    day = Day(
        state["day"],
        DayState.OPEN if left else ended,
        text,
        provider_messages=listed + of("large"),
        equal=max(0, listed - of("differing") - of("open") - of("missing")),
        backfilled=of("backfilled") + of("missing"),
        differing=of("differing"),
        open=of("open"),
        unknown_to_provider=of("unknown"),
        compared_at_us=now_us,
    )
    due_us = None
    if left:
        # The older it is, the less it changes.
        age_us = now_us - int(_parsed(state["day"]).timestamp()) * 1_000_000
        # A list that is made for days alone costs the provider more than a question.
        soon = new and all(listing.discovers for listing in _whole(work))
        due_us = now_us + (_AGAIN_US if soon else max(DAY_US, age_us // 2))
    compared = work.parts.days.compared(work.known.of, day, due_us)
    await work.store({}, ["closing"], changes=[seen_pages.forget(work.known.of, state["day"]), compared])


def _still(counts: dict[str, int]) -> str:
    """What keeps a day open, for people; empty where nothing does."""
    numbers = [f"{counts[name]} {what}" for name, what in _KEEPING.items() if counts.get(name)]
    if counts.get("beyond"):
        numbers.append(f"more than {MAX_ASKED} of our own not in the provider's list")
    return f"It is compared again, since of its messages there are {', '.join(numbers)}." if numbers else ""


def _added(counts: dict[str, int], found: Found) -> dict[str, int]:
    return _plus(
        counts,
        missing=found.missing,
        better=found.better,
        unreadable=found.unreadable - found.large,
        large=found.large,
    )


def _plus(counts: dict[str, int], **more: int) -> dict[str, int]:
    return {**counts, **{name: counts.get(name, 0) + number for name, number in more.items() if number}}


def _pages_of(of: ChannelOf, day: str) -> dict[str, Any]:
    """The documents of a day, by the range of their ids."""
    return {"_id": {"$gte": f"{of.id}/{day}/", "$lt": f"{of.id}/{day}0"}}


def _sorted(marks: bytes) -> array[int]:
    numbers = {int.from_bytes(marks[place : place + 8], "big") for place in range(0, len(marks), 8)}
    return array("Q", sorted(numbers))


def _day_of(at_us: int) -> datetime:
    return datetime.fromtimestamp(at_us // 1_000_000, UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _name(day: datetime) -> str:
    return day.strftime("%Y-%m-%d")


def _parsed(day: str) -> datetime:
    return datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
