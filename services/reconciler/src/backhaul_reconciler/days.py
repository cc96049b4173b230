"""The accounts of days in MongoDB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.names import RECONCILED_DAYS_COLLECTION
from pymongo import ASCENDING, DESCENDING, IndexModel

from backhaul_reconciler.model import ChannelOf, Day, DayState
from backhaul_reconciler.ports import Change

_DAYS = [("registration", ASCENDING), ("channel", ASCENDING), ("day", ASCENDING)]

INDEXES: Mapping[str, Sequence[IndexModel]] = {
    RECONCILED_DAYS_COLLECTION: [
        IndexModel(_DAYS),
        # Of a year of days few are open, and they are looked for at each turn.
        IndexModel(_DAYS, name="open_days", partialFilterExpression={"due_at_us": {"$exists": True}}),
    ]
}

_NUMBERS = ("provider_messages", "equal", "backfilled", "differing", "open", "unknown_to_provider")


class MongoDays:
    """``Days``, and what is read of them. What reads begins with the registration, and raises UNAVAILABLE."""

    def __init__(self, database: mongo.Database) -> None:
        self._database = database

    def compared(self, of: ChannelOf, day: Day, due_at_us: int | None) -> Change:
        """See ``Days``."""
        row: Document = {
            "registration": of.registration,
            "channel": of.channel,
            "day": day.day,
            "state": day.state.value,
            "text": day.text,
            **{name: getattr(day, name) for name in _NUMBERS},
            "compared_at_us": day.compared_at_us,
            **({} if due_at_us is None else {"due_at_us": due_at_us}),
        }

        def change(database: Any, session: Any, /) -> None:
            query = {"_id": f"{of.id}/{day.day}"}
            database[RECONCILED_DAYS_COLLECTION].replace_one(query, row, upsert=True, session=session)

        return change

    def left(self, of: ChannelOf, day: str, state: DayState, text: str, due_at_us: int | None) -> Change:
        """See ``Days``."""
        due = {} if due_at_us is None else {"due_at_us": due_at_us}
        update: Document = {
            "$set": {**_of(of), "day": day, "state": state.value, "text": text, **due},
            "$setOnInsert": {**dict.fromkeys(_NUMBERS, 0), "compared_at_us": 0},
            **({} if due else {"$unset": {"due_at_us": ""}}),
        }

        def change(database: Any, session: Any, /) -> None:
            query = {"_id": f"{of.id}/{day}"}
            database[RECONCILED_DAYS_COLLECTION].update_one(query, update, upsert=True, session=session)

        return change

    async def latest(self, of: ChannelOf) -> str | None:
        """See ``Days``."""
        return await self._first(_of(of), ("day", DESCENDING))

    async def due(self, of: ChannelOf, now_us: int) -> str | None:
        """See ``Days``."""
        return await self._first({**_of(of), "due_at_us": {"$lte": now_us}}, ("day", ASCENDING))

    async def get(self, registration: str, channel: str, day: str) -> Day | None:
        """The account of a day ("2026-11-25"); None where it was not looked at."""
        query = {"registration": registration, "channel": channel, "day": day}
        async with mongo.operation():
            row = await self._database[RECONCILED_DAYS_COLLECTION].find_one(query)
        return None if row is None else _day(row)

    async def _first(self, query: Document, order: tuple[str, int]) -> str | None:
        async with mongo.operation():
            row = await self._database[RECONCILED_DAYS_COLLECTION].find_one(query, {"day": 1}, sort=[order])
        found: str | None = None if row is None else row["day"]
        return found


def _of(of: ChannelOf) -> Document:
    return {"registration": of.registration, "channel": of.channel}


def _day(row: Document) -> Day:
    numbers = {name: row[name] for name in _NUMBERS}
    return Day(row["day"], DayState.of(row["state"]), row["text"], compared_at_us=row["compared_at_us"], **numbers)
