"""Reports of runs in MongoDB, which ends them after ``KEPT_DAYS``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from backhaul_common import mongo, pages
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import RECONCILED_RUNS_COLLECTION
from pymongo import ASCENDING, DESCENDING, IndexModel

from backhaul_reconciler.model import Begun, Cause, ChannelOf, Counts, Report, RunState
from backhaul_reconciler.ports import Change

KEPT_DAYS = 90

MAX_READ_S = 4.0
"""A page ends on the server after this."""

_LATEST = [("began_at_us", DESCENDING), ("_id", DESCENDING)]

INDEXES: Mapping[str, Sequence[IndexModel]] = {
    RECONCILED_RUNS_COLLECTION: [
        IndexModel([("registration", ASCENDING), *_LATEST]),
        IndexModel([("registration", ASCENDING), ("channel", ASCENDING), *_LATEST]),
        IndexModel("began_at", expireAfterSeconds=KEPT_DAYS * 86_400),
    ]
}


class MongoReports:
    """``Reports``, and what is read of them. What reads begins with the registration, and raises UNAVAILABLE."""

    def __init__(self, database: mongo.Database) -> None:
        self._database = database

    def begin(self, of: ChannelOf, begun: Begun) -> Change:
        """See ``Reports``."""

        def change(database: Any, session: Any, /) -> None:
            row: Document = {
                "registration": of.registration,
                "tenant": of.tenant,
                "channel": of.channel,
                "cause": begun.cause.value,
                "state": RunState.RUNNING.value,
                "text": "",
                "from_us": begun.from_us,
                "to_us": begun.to_us,
                "dry_run": begun.dry_run,
                "counts": {},
                "began_at_us": begun.began_at_us,
                "began_at": datetime.fromtimestamp(begun.began_at_us / 1e6, UTC),
            }
            database[RECONCILED_RUNS_COLLECTION].update_one(
                {"_id": begun.id}, {"$setOnInsert": row}, upsert=True, session=session
            )

        return change

    def update(self, run: str, found: Counts) -> Change:
        """See ``Reports``."""
        more = {f"counts.{name}": number for name, number in found.told().items()}

        def change(database: Any, session: Any, /) -> None:
            if more:
                database[RECONCILED_RUNS_COLLECTION].update_one({"_id": run}, {"$inc": more}, session=session)

        return change

    def end(self, run: str, state: RunState, text: str, ended_at_us: int) -> Change:
        """See ``Reports``."""

        def change(database: Any, session: Any, /) -> None:
            database[RECONCILED_RUNS_COLLECTION].update_one(
                {"_id": run, "state": RunState.RUNNING.value},
                {"$set": {"state": state.value, "text": text, "ended_at_us": ended_at_us}},
                session=session,
            )

        return change

    async def get(self, registration: str, report_id: str) -> Report | None:
        """One report; None where there is none of that id."""
        async with mongo.operation():
            row = await self._database[RECONCILED_RUNS_COLLECTION].find_one(
                {"_id": report_id, "registration": registration}
            )
        return None if row is None else _report(row)

    async def page(
        self, registration: str, channel: str, span: tuple[int, int], size: int, token: str
    ) -> tuple[Sequence[Report], str]:
        """Reports, newest first, and the token of the next page, which is empty on the last. ``channel`` may be empty;
        ``span`` bounds when they began, from inclusive to exclusive, and 0 leaves an end open. INVALID_ARGUMENT names
        ``page_size`` or ``page_token``; DEADLINE_EXCEEDED after ``MAX_READ_S``."""
        asked = pages.Query(
            RECONCILED_RUNS_COLLECTION,
            "began_at_us",
            registration,
            filters={"channel": channel},
            span=span,
            size=size,
            token=token,
        )
        rows, following = await page_of(self._database, asked)
        return [_report(row) for row in rows], following


async def page_of(database: mongo.Database, query: pages.Query) -> tuple[list[Document], str]:
    """``pages.page`` within ``MAX_READ_S``; DEADLINE_EXCEEDED beyond."""
    try:
        return await pages.page(database, query, within_s=MAX_READ_S)
    except pages.TooLongError as exc:
        raise BackhaulError(
            Code.DEADLINE_EXCEEDED,
            f"Not enough was found within {MAX_READ_S:g} s.",
            field="channel",
            fix="Filter by a channel, or ask for fewer.",
        ) from exc


def _report(row: Document) -> Report:
    begun = Begun(
        id=row["_id"],
        cause=Cause.of(row["cause"]),
        from_us=row["from_us"],
        to_us=row["to_us"],
        began_at_us=row["began_at_us"],
        dry_run=row["dry_run"],
    )
    # What a newer copy counts besides is left out.
    counts = Counts(**{name: row["counts"].get(name, 0) for name in Counts.__slots__})
    state = RunState.of(row["state"])
    return Report(begun, row["channel"], state, row["text"], counts, row.get("ended_at_us", 0))
