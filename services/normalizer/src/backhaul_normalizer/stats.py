"""MongoDB, the reading side of ``counts``: sums over its documents, worked out on the server and bounded in time."""

from __future__ import annotations

from typing import Any

from backhaul_common import mongo, pages
from backhaul_common.documents import Document
from backhaul_common.names import COUNTS_COLLECTION
from pymongo.errors import ExecutionTimeout

from backhaul_normalizer.counts import FIELDS, ids_of

_NAMES = {field: field.replace(".", "_") for field in FIELDS}
"""What is summed up, by names that a group may have."""

_SUMS: Document = {name: {"$sum": f"$hours.v.{field}"} for field, name in _NAMES.items()}
_BY_HOURS: list[Document] = [
    {"$set": {"hours": {"$objectToArray": "$hours"}}},
    {"$unwind": "$hours"},
]
"""A row for each hour of each day, its counts in ``hours.v``."""

_CLASSES = ("all", "stop", "start", "help", "survey_response")


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
                "hours": [*_BY_HOURS, {"$group": {"_id": None, **_SUMS}}],
                "whole": [{"$group": {"_id": None, **whole}}],
                "templates": [
                    {"$project": {"templates": {"$objectToArray": "$replies.templates"}}},
                    {"$unwind": "$templates"},
                    {"$group": {"_id": "$templates.k", "count": {"$sum": "$templates.v"}}},
                ],
            }
        },
    ]
    (found,) = await _rows(database, pipeline, within_s)
    if not found["hours"]:
        return None
    counts = counts_of(found["hours"][0])
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


def counts_of(row: Document) -> dict[str, Any]:
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


async def _rows(database: mongo.Database, pipeline: list[Document], within_s: float) -> list[Document]:
    async with mongo.translated():
        try:
            cursor = database[COUNTS_COLLECTION].aggregate(pipeline, maxTimeMS=max(1, round(within_s * 1000)))
            rows: list[Document] = await cursor.to_list(None)
        except ExecutionTimeout as exc:
            raise pages.TooLongError from exc
    return rows
