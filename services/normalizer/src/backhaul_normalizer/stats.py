"""MongoDB, the reading side of ``counts``: sums over its documents, worked out on the server and bounded in time.

All documents of one answer are read as they were at one moment: what moves from one to another counts in one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from backhaul_common import mongo, pages
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import COUNTS_COLLECTION, MESSAGES_COLLECTION
from pymongo import ASCENDING, DESCENDING
from pymongo.errors import ExecutionTimeout, OperationFailure
from pymongo.read_concern import ReadConcern

from backhaul_normalizer.counts import FIELDS, UNIQUE, ids_of, ids_of_totals
from backhaul_normalizer.hours import DAY_HOURS, HOUR_US

MAX_HOURS, MAX_DAYS = 31 * DAY_HOURS, 800
"""How much one answer may be about, by the hour and by the day."""

MAX_ROWS = 10_000
"""Rows of one answer."""

MAX_MESSAGE_ERRORS = 100
"""Channels and codes of messages that are told apart in one answer."""

_ERRORS_INDEX = dict.fromkeys(("registration", "communication_id", "channel", "error_code"), ASCENDING)

GROUPS = ("channel", "communication_id", "kind", "fulfilment")
"""What rows may be told apart by. The first two are those of a document, the others of what is counted in it."""

_TOO_MUCH_MEMORY = 292
"""MongoDB's code for groups that are too many for its memory."""

_NAMES = {field: field.replace(".", "_") for field in FIELDS}
_FIELDS = {name: field for field, name in _NAMES.items()}
"""What is summed up, by names that a group may have, and the other way round."""

_SUMS: Document = {name: {"$sum": f"${field}"} for field, name in _NAMES.items()}
_KINDS = {"$map": {"input": {"$objectToArray": "$events"}, "in": "$$this.v"}}
_ALL_KINDS: Document = {
    # Those that are there: asking for each that may be takes three times as long.
    "events": {"$sum": {"$sum": _KINDS}},
    "by_machine": {"$sum": {"$sum": [f"$by_machine.{kind}" for kind in UNIQUE]}},
}
_PARTS = tuple(dict.fromkeys(field.partition(".")[0] for field in FIELDS))


def _by_hours(*kept: str) -> list[Document]:
    """A row for each hour of each day, with its counts, which hour of the day it is, and the fields ``kept``."""
    row: Document = {"_id": 0, "of_day": "$hours.k", **dict.fromkeys(kept, 1)}
    return [
        {"$project": {"_id": 0, **dict.fromkeys(kept, 1), "hours": {"$objectToArray": "$hours"}}},
        {"$unwind": "$hours"},
        {"$project": row | {part: f"$hours.v.{part}" for part in _PARTS}},
    ]


_CLASSES = ("all", "stop", "start", "help", "survey_response")


class Question(NamedTuple):
    """What statistics are asked for: ``hours`` from inclusive to exclusive, since 1970; ``groups`` are of ``GROUPS``.
    An empty ``channel`` or ``communication_id`` does not filter."""

    registration: str
    hours: tuple[int, int]
    by_day: bool
    groups: frozenset[str]
    channel: str
    communication_id: str


class Row(NamedTuple):
    """What was counted in an hour or on a day that begins with ``hour``. What it is not told apart by is empty."""

    hour: int
    channel: str
    communication_id: str
    kind: str
    fulfilment: str
    counts: Document
    """By the names ``events``, ``by_machine``, ``messages``, ``unique_opened``, ``unique_clicked``; none that is 0."""


def hours_of(span: tuple[int, int], *, by_day: bool) -> tuple[int, int]:
    """The hours of a span of microseconds. INVALID_ARGUMENT where it has none, has parts of some, or too many."""
    for at_us, field in zip(span, ("from", "to"), strict=True):
        if at_us <= 0 or at_us % HOUR_US:
            fix = "Say from when to when, both at a full hour, such as 2026-11-01T08:00:00Z."
            raise BackhaulError(Code.INVALID_ARGUMENT, f"{field!r} is no full hour of UTC.", field=field, fix=fix)
    first, last = (at_us // HOUR_US for at_us in span)
    if first >= last:
        fix = "Let 'to' be later than 'from'; unless it is given, it is the end of the present hour."
        raise BackhaulError(Code.INVALID_ARGUMENT, "The span ends before it begins.", field="to", fix=fix)
    if last - first > (MAX_DAYS * DAY_HOURS if by_day else MAX_HOURS):
        fix = f"Ask for at most {MAX_HOURS // DAY_HOURS} days by the hour, or {MAX_DAYS} by the day."
        raise BackhaulError(Code.INVALID_ARGUMENT, "The span is too long.", field="from", fix=fix)
    return first, last


async def rows(database: mongo.Database, question: Question, within_s: float) -> tuple[list[Row], bool]:
    """The rows of an answer, by time and group, and whether there are more. pages.TooLongError after ``within_s``, or
    where there are so many groups that the server cannot hold them."""
    found = await _aggregated(database, pipeline(question), within_s)
    made = [row for one in found for row in _rows_of(one, question)]
    return made[:MAX_ROWS], len(found) > MAX_ROWS or len(made) > MAX_ROWS


async def communication(
    database: mongo.Database, registration: str, communication_id: str, within_s: float
) -> Document | None:
    """All counts of a communication; None if nothing belongs to it. pages.TooLongError after ``within_s``."""
    if not communication_id:
        return None  # What belongs to none is counted, too.
    whole: Document = {"created_at_us": {"$min": "$created_at_us"}, "last_event_at_us": {"$max": "$last_event_at_us"}}
    whole |= {name: {"$sum": f"$replies.{name}"} for name in _CLASSES}
    pipeline: list[Document] = [
        {"$match": {"_id": ids_of(registration, communication_id), "registration": registration}},
        {
            "$facet": {
                "hours": [*_by_hours(), {"$group": {"_id": None, **_SUMS}}],
                "whole": [{"$group": {"_id": None, **whole}}],
                "templates": [
                    {"$project": {"templates": {"$objectToArray": "$replies.templates"}}},
                    {"$unwind": "$templates"},
                    {"$group": {"_id": "$templates.k", "count": {"$sum": "$templates.v"}}},
                ],
            }
        },
    ]
    (found,) = await _aggregated(database, pipeline, within_s)
    if not found["hours"]:
        return None
    counts = _counts_of(found["hours"][0])
    # A message that moved to another communication leaves zeros behind.
    if not counts["messages"] and not any(counts["events"].values()):
        return None
    (told,) = found["whole"]
    replies: Document = {name: told[name] for name in _CLASSES}
    replies["templates"] = {row["_id"]: row["count"] for row in found["templates"]}
    return {
        "communication_id": communication_id,
        **counts,
        "replies": replies,
        "created_at_us": told["created_at_us"],
        "last_event_at_us": told["last_event_at_us"],
    }


async def message_errors(
    database: mongo.Database, registration: str, communication_id: str, within_s: float
) -> list[Document]:
    """The messages of a communication by ``channel`` and ``error_code``, with their ``count``, the most frequent first;
    MAX_MESSAGE_ERRORS at most. pages.TooLongError after ``within_s``."""
    by = {name: f"${name}" for name in ("channel", "error_code")}
    pipeline: list[Document] = [
        # All of it stands in an index, so no message is looked at.
        {"$match": {"registration": registration, "communication_id": communication_id, "error_code": {"$gt": ""}}},
        {"$group": {"_id": by, "count": {"$sum": 1}}},
        {"$sort": {"count": DESCENDING, "_id": ASCENDING}},
        {"$limit": MAX_MESSAGE_ERRORS},
    ]
    found = await _aggregated(database, pipeline, within_s, of=MESSAGES_COLLECTION, hint=_ERRORS_INDEX)
    return [{**row["_id"], "count": row["count"]} for row in found]


def pipeline(question: Question) -> list[Document]:
    """What the server is asked."""
    first, last = question.hours
    days = first // DAY_HOURS, (last - 1) // DAY_HOURS
    match: Document = {"registration": question.registration}
    if question.communication_id:
        match["_id"] = ids_of(question.registration, question.communication_id, days)
    elif "communication_id" not in question.groups:
        match["_id"] = ids_of_totals(question.registration, days)
    else:
        match["total"] = {"$exists": False}
        match["day"] = {"$gte": days[0], "$lte": days[1]}
    if question.channel:
        match["channel"] = question.channel
    hour: Document = {"$add": [{"$multiply": ["$day", DAY_HOURS]}, {"$toInt": "$of_day"}]}
    by: Document = {"hour": {"$multiply": ["$day", DAY_HOURS]} if question.by_day else "$hour"}
    by |= {name: f"${name}" for name in GROUPS[:2] if name in question.groups}
    return [
        {"$match": match},
        *_by_hours("day", *GROUPS[:2]),
        {"$set": {"hour": hour}},
        {"$match": {"hour": {"$gte": first, "$lt": last}}},
        {"$group": {"_id": by, **_sums(question.groups)}},
        {"$sort": {f"_id.{name}": ASCENDING for name in by}},
        {"$limit": MAX_ROWS + 1},
    ]


def _sums(groups: frozenset[str]) -> Document:
    """What is summed up of each group: as little as the rows need."""
    wanted = [name for name in GROUPS[2:] if name in groups]
    if wanted:
        of = {"kind": ("events_", "by_machine_", "unique_"), "fulfilment": ("fulfilment_",)}
        beginnings = tuple(beginning for name in wanted for beginning in of[name])
        return {name: value for name, value in _SUMS.items() if name.startswith(beginnings)}
    return {name: _SUMS[name] for name in ("messages", *(f"unique_{kind}" for kind in UNIQUE))} | _ALL_KINDS


def _rows_of(found: Document, question: Question) -> Iterator[Row]:
    """The rows of one group of documents; none of which all is zero."""
    by = found.pop("_id")
    numbers = {name: number for name, number in found.items() if number}
    where = by["hour"], by.get("channel", ""), by.get("communication_id", "")
    if question.groups.isdisjoint(GROUPS[2:]):
        if numbers:
            yield Row(*where, "", "", numbers)
        return
    split: dict[tuple[str, str], Document] = {}
    for name, number in numbers.items():
        group, _, within = _FIELDS[name].partition(".")
        key = ("", within) if group == "fulfilment" else (within, "")
        told = {"fulfilment": "messages", "unique": f"unique_{within}"}.get(group, group)
        split.setdefault(key, {})[told] = number
    for key in sorted(split):
        yield Row(*where, *key, split[key])


def _counts_of(row: Document) -> dict[str, Any]:
    """The counts of a group, as they are nested in an hour; without those that are zero, but for ``messages``."""
    counts: dict[str, Any] = {
        "messages": row["messages"],
        "fulfilment": {},
        "events": {},
        "by_machine": {},
        "unique": {},
    }
    for field, name in _NAMES.items():
        group, _, within = field.partition(".")
        if within and row[name]:
            counts[group][within] = row[name]
    return counts


async def _aggregated(
    database: mongo.Database,
    pipeline: list[Document],
    within_s: float,
    *,
    of: str = COUNTS_COLLECTION,
    **options: Any,
) -> list[Document]:
    rows = database.get_collection(of, read_concern=ReadConcern("snapshot"))
    most_ms = max(1, round(within_s * 1000))
    async with mongo.translated():
        try:
            cursor = rows.aggregate(pipeline, maxTimeMS=most_ms, allowDiskUse=False, **options)
            found: list[Document] = await cursor.to_list(None)
        except ExecutionTimeout as exc:
            raise pages.TooLongError from exc
        except OperationFailure as exc:
            if exc.code == _TOO_MUCH_MEMORY:
                raise pages.TooLongError from exc
            raise
    return found
