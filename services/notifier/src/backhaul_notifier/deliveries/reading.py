"""Deliveries, as those ask for them who want to know what was told."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from backhaul_common import mongo, pages
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.ids import is_derived_id
from backhaul_common.names import DELIVERIES_COLLECTION, ENDPOINTS_COLLECTION

MAX_READ_S = 4.0
"""A page ends on the server after this."""

STATES: Final = ("waiting", "held", "delivered", "failed")

NEVER_ATTEMPTED: Final[Mapping[str, object]] = {
    "state": {"$in": ["waiting", "held"]},
    "tries.0": {"$exists": False},
    "begun_at_us": {"$exists": False},
}
"""Those that nobody has tried to send: they wait. One that is sent again keeps its attempts."""

UNDELIVERED: Final[Mapping[str, object]] = {"state": {"$in": ["waiting", "held", "failed"]}}

SURE: Final[Mapping[str, object]] = {"$nor": [{"unsure": True, "state": "waiting"}]}
"""Those of which it is known that their subscription wants them. It is found out before they are sent."""

REASON: Final = re.compile("[1-5][0-9][0-9]|[1-5]xx|[a-z][a-z_]{0,62}[*]?")
"""Why an attempt failed: a status, a class of them, a word, or how words begin."""

_EITHER: Document = {"$in": list(STATES)}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which deliveries are asked for; what is empty does not filter. ``span`` bounds ``created_at_us``, from inclusive
    to exclusive, and 0 leaves an end open. ``state`` is a stored word, ``reason`` as REASON says."""

    subscription: str = ""
    state: str = ""
    type: str = ""
    event_id: str = ""
    channel: str = ""
    message_id: str = ""
    communication_id: str = ""
    never_attempted: bool = False
    undelivered: bool = False
    reason: str = ""
    span: tuple[int, int] = (0, 0)

    def filters(self) -> Document:
        """Fields and their values."""
        names = ("subscription", "state", "type", "event_id", "channel", "message_id", "communication_id")
        return {name: getattr(self, name) for name in names}

    def only(self) -> Document:
        """What is to hold beside ``filters``."""
        return {**self._states(), **SURE}

    def _states(self) -> Document:
        if self.reason:
            # What was delivered failed by nothing; what nobody tried has no attempt.
            return {**(NEVER_ATTEMPTED if self.never_attempted else UNDELIVERED), "$expr": _failed_by(self.reason)}
        if self.never_attempted:
            return dict(NEVER_ATTEMPTED)
        if self.undelivered:
            return dict(UNDELIVERED)
        if self.state or self.event_id or self.message_id or self.communication_id:
            return {}
        # By each of its states a list is in order, and MongoDB merges what is.
        return {"state": _EITHER}


def _failed_by(reason: str) -> Document:
    """The condition that the latest attempt failed so."""
    error, status = {"$last": "$tries.error"}, {"$last": "$tries.status"}
    if reason.endswith("*"):
        return {"$eq": [{"$indexOfBytes": [{"$ifNull": [error, ""]}, reason[:-1]]}, 0]}
    if not reason[0].isdigit():
        return {"$eq": [error, reason]}
    # With a word beside it, a status is not what it failed by.
    first, size = (int(reason[0]) * 100, 100) if reason.endswith("xx") else (int(reason), 1)
    return {"$and": [{"$eq": [error, ""]}, {"$gte": [status, first]}, {"$lt": [status, first + size]}]}


class MongoDeliveries:
    """Reads deliveries. The registration comes first; UNAVAILABLE from every method while MongoDB is away.

    Rows are as they are stored, without their payload.
    """

    def __init__(self, database: mongo.Database) -> None:
        self._database = database

    async def get(self, registration: str, id_: str) -> Document | None:
        """One delivery, by its id in hex; None where there is none."""
        if not is_derived_id(id_):
            return None
        query = {"_id": bytes.fromhex(id_), "registration": registration}
        async with mongo.operation():
            row: Document | None = await self._database[DELIVERIES_COLLECTION].find_one(query, {"payload": 0})
        return row

    async def endpoints(self, rows: Sequence[Document]) -> Mapping[str, Document]:
        """``active`` and ``rest_until_us`` of the endpoints of those of ``rows`` that wait, by subscription."""
        ids = {row["subscription"] for row in rows if row["state"] == "waiting"}
        if not ids:
            return {}
        query, wanted = {"_id": {"$in": sorted(ids)}}, {"active": 1, "rest_until_us": 1}
        async with mongo.operation():
            found = await self._database[ENDPOINTS_COLLECTION].find(query, wanted).to_list(None)
        return {one["_id"]: one for one in found}

    async def page(self, registration: str, wanted: Wanted, size: int, token: str) -> tuple[Sequence[Document], str]:
        """Deliveries, newest first, and the token of the next page, which is empty on the last. INVALID_ARGUMENT names
        ``page_size`` or ``page_token``; DEADLINE_EXCEEDED after ``MAX_READ_S``."""
        query = pages.Query(
            DELIVERIES_COLLECTION,
            "created_at_us",
            registration,
            filters=wanted.filters(),
            span=wanted.span,
            size=size,
            token=token,
            without="payload",
            only=wanted.only(),
            binary_ids=True,
        )
        try:
            return await pages.page(self._database, query, within_s=MAX_READ_S)
        except pages.TooLongError as exc:
            raise too_many() from exc


def too_many() -> BackhaulError:
    """The error where MongoDB has looked at deliveries for as long as it may."""
    return BackhaulError(
        Code.DEADLINE_EXCEEDED,
        f"Not enough was found within {MAX_READ_S:g} s.",
        field="from_us",
        fix="Ask for a shorter span, or filter by a subscription, a message or a communication.",
    )
