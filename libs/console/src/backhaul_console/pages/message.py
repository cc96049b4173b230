"""One message, in three views of one history: by kind, in its order, and all that is known."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from backhaul_client import BackhaulError
from backhaul_client.errors import FailedPreconditionError
from backhaul_client.history import Step, by_kind, steps, when
from backhaul_client.models import Event, Message
from backhaul_client.notificationmodels import Delivery
from backhaul_client.suppressionmodels import SuppressionChange
from starlette.responses import Response

from backhaul_console.rendering import pretty, segment, web
from backhaul_console.texts import _
from backhaul_console.visits import Page, Visit

T = TypeVar("T")

VIEWS = ("compact", "timeline", "raw")
MAX_STEPS = 100
"""On a page. A message that is opened and clicked again and again may have a thousand events."""
MAX_RAW = 24_000
"""Characters of JSON on a page; the whole is a file."""
PATIENCE_S = 3.0
"""What another service knows is left out where it takes longer: what the normalizer knows is there already."""
_ASKED = 50
_NOTHING = (404, 501)
"""Nothing is known of it, or such a service is not installed."""
_EARLIEST, _LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class _Part(Generic[T]):
    """What another service knows; ``away`` where it did not tell."""

    rows: Sequence[T] = ()
    away: bool = False


class _Known(NamedTuple):
    message: Message
    deliveries: _Part[Delivery]
    suppressions: _Part[SuppressionChange]
    replies: _Part[Event]


class Entry(NamedTuple):
    """A line of the timeline. ``after_s`` is how long after the one before; ``what`` colours it."""

    at: datetime | None
    after_s: float | None
    what: str
    step: Step | None = None
    suppression: SuppressionChange | None = None
    reply: Event | None = None


async def _message(visit: Visit) -> Response:
    channel, message_id = visit.request.path_params["channel"], visit.request.path_params["message_id"]
    try:
        message = await visit.api.message(channel, message_id)
    except FailedPreconditionError:
        # Several have this reference.
        return visit.to("/messages", channel=channel, message_id=message_id)
    view = visit.query.get("view", "")
    view = view if view in VIEWS else VIEWS[0]
    known = await _all_of(visit, message) if view != "compact" else _Known(message, _Part(), _Part(), _Part())
    here = f"/messages/{segment(message.channel)}/{segment(message.message_id)}"
    if view == "raw":
        return _raw(visit, known, here)
    entries = _entries(known) if view == "timeline" else []
    return visit.page(
        f"messages/{view}.html",
        message=message,
        here=here,
        view=view,
        error_url=web(message.error_url),
        family=_family(message),
        groups=by_kind(message),
        when=when,
        entries=entries[-MAX_STEPS:],
        earlier=max(0, len(entries) - MAX_STEPS),
        away=_away(known),
    )


def _raw(visit: Visit, known: _Known, here: str) -> Response:
    told = {
        "message": known.message,
        "deliveries": known.deliveries.rows,
        "suppressions": known.suppressions.rows,
        "replies": known.replies.rows,
    }
    if visit.query.get("whole"):
        return Response(msgspec.json.format(msgspec.json.encode(told), indent=2), media_type="application/json")
    text = pretty(told)
    return visit.page(
        "messages/raw.html",
        message=known.message,
        here=here,
        view="raw",
        error_url=web(known.message.error_url),
        family=_family(known.message),
        text=text[:MAX_RAW],
        cut=len(text) > MAX_RAW,
        away=_away(known),
    )


async def _all_of(visit: Visit, message: Message) -> _Known:
    """What the other services know of it. One that does not answer must not hide what the rest says."""
    api = visit.api
    own: dict[str, Any] = {"channel": message.channel, "message_id": message.message_id}
    person, family = message.recipient, _family(message)
    deliveries, suppressions, replies = await asyncio.gather(
        _part(visit.first(api.deliveries.list(**own, history=True, page_size=_ASKED))),
        _part(_history(visit, person, family) if person else _none()),
        _part(visit.first(api.replies(recipient=person, page_size=_ASKED)) if person else _none()),
    )
    of = (message.channel, message.message_id)
    answers = [one for one in replies.rows if one.answered and (one.answered.channel, one.answered.message_id) == of]
    concerned = {of, *((one.channel, one.message_id) for one in answers)}
    said = [one for one in suppressions.rows if (one.fact.channel, one.fact.message_id) in concerned]
    return _Known(message, deliveries, _Part(said, suppressions.away), _Part(answers, replies.away))


async def _history(visit: Visit, address: str, family: str) -> _Part[SuppressionChange]:
    return _Part((await visit.api.suppression_record(address, family=family, page_size=_ASKED)).history)


def _family(message: Message) -> str:
    """What the recipient is an address of; empty where no event says so. A number that is called is another one than
    that which is written to."""
    return next((event.recipient_family for event in message.timeline if event.recipient_family), "")


async def _none() -> _Part[Any]:
    return _Part()


async def _part(asked: Awaitable[Any]) -> _Part[Any]:
    try:
        async with asyncio.timeout(PATIENCE_S):
            return _Part((await asked).rows)
    except (BackhaulError, TimeoutError) as exc:
        return _Part(away=getattr(exc, "status", 0) not in _NOTHING)


def _away(known: _Known) -> str:
    parts = (
        (known.deliveries, _("deliveries")),
        (known.suppressions, _("suppressions")),
        (known.replies, _("replies")),
    )
    return ", ".join(name for part, name in parts if part.away)


def _entries(known: _Known) -> list[Entry]:
    """The timeline, what is still to come last."""
    found = [Entry(step.at, None, step.what, step=step) for step in steps(known.message, known.deliveries.rows)]
    found += [
        Entry(one.at, None, "lifted" if one.fact.lifts else "suppressed", suppression=one)
        for one in known.suppressions.rows
    ]
    found += [Entry(when(one), None, "inbound", reply=one) for one in known.replies.rows]
    return list(_spaced(sorted(found, key=_place)))


def _place(entry: Entry) -> tuple[bool, datetime]:
    to_come = entry.step is not None and entry.step.to_come
    return to_come, entry.at or (_LATEST if to_come else _EARLIEST)


def _spaced(entries: Iterable[Entry]) -> Iterable[Entry]:
    before: datetime | None = None
    for entry in entries:
        after = (entry.at - before).total_seconds() if entry.at is not None and before is not None else None
        yield entry._replace(after_s=after)
        before = entry.at or before


ROUTES = (Page("GET", "/messages/{channel}/{message_id:path}", _message),)
