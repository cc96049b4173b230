"""Discovery: what the provider lists since the last time, for what was never heard of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from backhaul_channels.pull import (
    CredentialsRefusedError,
    Listing,
    NeverError,
    PullError,
    Span,
    UnreadableAnswerError,
)

from backhaul_reconciler import offers
from backhaul_reconciler.model import DAY_US
from backhaul_reconciler.work import Work

NAME: Final = "discovery"

HOUR_US: Final = 3_600_000_000
_SECOND: Final = 1_000_000


def discovering(work: Work) -> Sequence[Listing]:
    """The lists that are asked for discovery."""
    now_us = work.now_us()
    return [one for one in work.listings() if one.discovers and offers.is_asked(work.row, one.name, now_us)]


def discovered_us(work: Work) -> int:
    """Up to when all lists are known that are offered; 0 where one of them is not."""
    return offers.discovered_us(work.row, work.listings())


def begins_at_us(work: Work, listing: Listing, now_us: int) -> int:
    """From when on a list is asked: what may be told late once more, and at first yesterday and today."""
    to_us = work.row.get("lists", {}).get(listing.name, {}).get("to_us")
    if to_us is None:
        from_us = (now_us // DAY_US - 1) * DAY_US
    else:
        # Never from the future: the time that was stored may be of a provider's or a server's that was wrong.
        from_us = min(int(to_us), now_us) - max(listing.settles_s, listing.waits_s) * _SECOND
    return max(from_us, now_us - work.known.puller.reaches_back_days * DAY_US)


async def discover(work: Work) -> None:
    """Ask each list to its end. What stops one does not keep the others from being asked; it is raised at the end.

    PullError, PacedError, TurnOverError, and what ``Work`` raises.
    """
    stopped: list[PullError] = []
    for listing in discovering(work):
        try:
            await _list(work, listing)
        except CredentialsRefusedError:
            raise
        except NeverError as exc:
            await _left(work, listing, exc)
        except PullError as exc:
            stopped.append(exc)
    if stopped:
        raise stopped[0]


async def _left(work: Work, listing: Listing, why: NeverError) -> None:
    """The account does not have the list: nothing waits for it. When it is asked for again it begins anew."""
    lists: dict[str, Any] = dict(work.row.get("lists", {}))
    state = {name: value for name, value in lists.pop(listing.name, {}).items() if name in ("to_us", "pace")}
    if state:
        lists[listing.name] = state
    await work.store({"lists": lists, **offers.refused(work.row, listing.name, str(why), work.now_us())})


async def _list(work: Work, listing: Listing) -> None:
    now_us = work.now_us()
    state: dict[str, Any] = dict(work.row.get("lists", {}).get(listing.name, {}))
    if "span" not in state:
        if state.get("done_in") == work.run.id:
            return
        to_us = work.run.to_us
        state |= {"span": [begins_at_us(work, listing, to_us), to_us], "cursor": "", "rows": 0}
    if state.get("wait_us", 0) > now_us:
        return
    span = Span(*state["span"])
    while True:
        work.take_page()
        with work.parts.tracing.span("reconciler.page", attributes={"listing": listing.name}):
            try:
                page = await work.window(listing, span, state["cursor"])
            except UnreadableAnswerError:
                # It may lead there no more: when that is so for the second time the list is read from its beginning.
                if state["cursor"]:
                    state |= {"cursor": "", "rows": 0} if state.pop("odd", False) else {"odd": True}
                    await work.store({"lists": {**work.row.get("lists", {}), listing.name: state}})
                raise
            state.pop("odd", None)
            found = await work.found(page.records, listing.name, waits_s=listing.waits_s)
            state["rows"] += len(page.records)
            state["cursor"] = page.cursor
            state.pop("wait_us", None)
            if page.wait_s:
                state["wait_us"] = now_us + int(page.wait_s * _SECOND)
            elif not page.cursor:
                hours = max(1 / 60, (span.to_us - span.from_us) / HOUR_US)
                state = {"to_us": span.to_us, "pace": state["rows"] / hours, "done_in": work.run.id}
            fields = {"lists": {**work.row.get("lists", {}), listing.name: state}}
            await work.store({**fields, **offers.told(work.row, listing.name)}, found=found)
        if page.wait_s or not page.cursor:
            return
