"""Where providers and Backhaul differ, in MongoDB: so many a channel, and gone when both sides are equal again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backhaul_common import mongo, pages
from backhaul_common.documents import Document
from backhaul_common.logs import get_logger
from backhaul_common.names import RECONCILED_DIFFERENCES_COLLECTION
from pymongo import ASCENDING, DESCENDING, IndexModel, InsertOne, UpdateOne

from backhaul_reconciler.model import ChannelOf, Difference, DifferenceKind
from backhaul_reconciler.ports import Change
from backhaul_reconciler.reports import page_of

MAX_DIFFERENCES = 10_000
"""Of a channel. Whoever has that many has one cause for them, and needs no longer list."""

_LATEST = [("first_seen_at_us", DESCENDING), ("_id", DESCENDING)]

INDEXES: Mapping[str, Sequence[IndexModel]] = {
    RECONCILED_DIFFERENCES_COLLECTION: [
        IndexModel([("registration", ASCENDING), *_LATEST]),
        IndexModel([("registration", ASCENDING), ("channel", ASCENDING), *_LATEST]),
    ]
}

_SIDES = ("our_state", "our_error_code", "provider_state", "provider_error_code")


@dataclass(frozen=True, slots=True)
class Found:
    """A difference, when it was first and last seen, and by which run last. Times are unix time in microseconds."""

    channel: str
    difference: Difference
    first_seen_at_us: int
    last_seen_at_us: int
    run: str


class MongoDifferences:
    """``Differences``, and what is read of them. What reads begins with the registration, and raises UNAVAILABLE.

    ``most`` are kept of a channel; what is beyond is left out, the log says so, and ``full`` names the channel.
    """

    def __init__(self, database: mongo.Database, *, most: int = MAX_DIFFERENCES) -> None:
        self._database = database
        self._most = most
        self._log = get_logger(component="differences")

    def seen(self, of: ChannelOf, run: str, seen_at_us: int, differences: Sequence[Difference]) -> Change:
        """See ``Differences``."""
        by_id = {_id(of, one.message_id): one for one in differences}

        def change(database: Any, session: Any, /) -> None:
            if not by_id:
                return
            rows = database[RECONCILED_DIFFERENCES_COLLECTION]
            there = {row["_id"] for row in rows.find({"_id": {"$in": list(by_id)}}, {"_id": 1}, session=session)}
            new = [key for key in by_id if key not in there]
            room = self._room(rows, session, of) if new else 0
            if len(new) > room:
                self._log.warning(
                    "differences_left_out", tenant=of.tenant, channel=of.channel, left_out=len(new) - room
                )
            changes: list[Any] = [UpdateOne({"_id": key}, _taken_over(by_id[key], run, seen_at_us)) for key in there]
            changes += [InsertOne(_row(key, of, by_id[key], run, seen_at_us)) for key in new[:room]]
            if changes:
                rows.bulk_write(changes, ordered=False, session=session)

        return change

    def settled(self, of: ChannelOf, message_ids: Sequence[str]) -> Change:
        """See ``Differences``."""

        def change(database: Any, session: Any, /) -> None:
            rows, any_of_it = database[RECONCILED_DIFFERENCES_COLLECTION], _of(of)
            if message_ids and rows.find_one(any_of_it, {"_id": 1}, session=session) is not None:
                rows.delete_many({"_id": {"$in": [_id(of, one) for one in message_ids]}}, session=session)

        return change

    async def page(
        self,
        registration: str,
        channel: str,
        kind: DifferenceKind | None,
        span: tuple[int, int],
        size: int,
        token: str,
    ) -> tuple[Sequence[Found], str]:
        """Those that were found last come first, whenever they were seen since: so each is on one page. With the token
        of the next page, empty on the last. ``span`` bounds when they were last seen, from inclusive to exclusive, and
        0 leaves an end open. Raises as ``MongoReports.page``."""
        seen = {
            **({"$gte": span[0]} if span[0] else {}),
            **({"$lt": span[1]} if span[1] else {}),
        }
        asked = pages.Query(
            RECONCILED_DIFFERENCES_COLLECTION,
            "first_seen_at_us",
            registration,
            filters={"channel": channel, "kind": kind and kind.value},
            size=size,
            token=token,
            only={"last_seen_at_us": seen} if seen else {},
        )
        rows, following = await page_of(self._database, asked)
        return [_found(row) for row in rows], following

    async def full(self, registration: str, channels: Sequence[str]) -> Sequence[str]:
        """Those of ``channels`` of which no more are kept than there are."""
        found = []
        async with mongo.operation():
            for channel in channels:
                query = {"registration": registration, "channel": channel}
                rows = self._database[RECONCILED_DIFFERENCES_COLLECTION]
                if await rows.count_documents(query, limit=self._most) >= self._most:
                    found.append(channel)
        return found

    def _room(self, rows: Any, session: Any, of: ChannelOf) -> int:
        there: int = rows.count_documents(_of(of), limit=self._most, session=session)
        return self._most - there


def _of(of: ChannelOf) -> Document:
    return {"registration": of.registration, "channel": of.channel}


def _id(of: ChannelOf, message_id: str) -> str:
    return f"{of.id}/{message_id}"


def _sides(difference: Difference) -> Document:
    return {name: getattr(difference, name) for name in _SIDES if getattr(difference, name)}


def _taken_over(difference: Difference, run: str, seen_at_us: int) -> Document:
    sides = _sides(difference)
    gone = {name: "" for name in _SIDES if name not in sides}
    told = {"kind": difference.kind.value, "last_seen_at_us": seen_at_us, "run": run, **sides}
    return {"$set": told, **({"$unset": gone} if gone else {})}


def _row(key: str, of: ChannelOf, difference: Difference, run: str, seen_at_us: int) -> Document:
    return {
        "_id": key,
        **_of(of),
        "message_id": difference.message_id,
        "kind": difference.kind.value,
        **_sides(difference),
        "first_seen_at_us": seen_at_us,
        "last_seen_at_us": seen_at_us,
        "run": run,
    }


def _found(row: Document) -> Found:
    sides = {name: row.get(name, "") for name in _SIDES}
    difference = Difference(row["message_id"], DifferenceKind.of(row["kind"]), **sides)
    return Found(row["channel"], difference, row["first_seen_at_us"], row["last_seen_at_us"], row["run"])
