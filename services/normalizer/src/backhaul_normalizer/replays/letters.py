"""A page of dead letters that fit a filter: each is sent through once more, or closed, as by a call for it alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import DEAD_LETTERS_COLLECTION

from backhaul_normalizer.replays.held import Example, Held, Page
from backhaul_normalizer.service import NormalizerUseCases

PAGE_LETTERS = 50


class LetterPages:
    """Works replays of dead letters, a page at a time, in the order of their ids: those that come back are not sent
    again."""

    def __init__(self, database: mongo.Database, use_cases: NormalizerUseCases) -> None:
        self._letters = database[DEAD_LETTERS_COLLECTION]
        self._use_cases = use_cases

    async def page(self, held: Held) -> Page:
        """The next page. UNAVAILABLE."""
        row = held.row
        query: Document = {
            "registration": row["registration"],
            "state": "open",
            "_id": {"$gt": row["at"] or ""},
            "first_seen_at_us": {"$gte": row["from_us"], "$lt": row["to_us"]},
        }
        if row["channel"]:
            query["channel"] = row["channel"]
        if row["reason"]:
            query["reason"] = {"$regex": re.escape(row["reason"])}
        async with mongo.operation():
            found = await self._letters.find(query, {"_id": 1}, sort=[("_id", 1)], limit=PAGE_LETTERS).to_list(None)
        ids = [one["_id"] for one in found]
        page = Page(ids[-1] if ids else row["at"], done=len(ids) < PAGE_LETTERS)
        for id_ in ids:
            closed = row["dry_run"] or await self._close(row, id_)
            page.counts["dead_letters" if closed else "unreadable"] += 1
            page.examples.append(Example("closed" if closed else "unreadable", id_))
        return page

    async def _close(self, row: Mapping[str, Any], id_: str) -> bool:
        """Whether it could be closed. Not one whose bytes were not kept, and that is to be sent."""
        use = self._use_cases.discard if row["kind"] == "discard" else self._use_cases.replay
        try:
            await use(row["tenant"], id_)
        except BackhaulError as exc:
            # It was closed, refused again, or deleted a moment ago; or it cannot be sent.
            if exc.code not in (Code.FAILED_PRECONDITION, Code.NOT_FOUND):
                raise
            return False
        return True
