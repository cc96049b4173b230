"""A page of dead letters that fit a filter: each is sent through once more, or closed, as by a call for it alone.

What becomes of those that are sent through is known when they have been processed, as what comes in is. The last pages
wait for that, and count those that are open again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import DEAD_LETTERS_COLLECTION
from backhaul_common.tenants import Tenant

from backhaul_normalizer.heldstream import HeldStream
from backhaul_normalizer.replays.held import Example, Held, MongoHeld, Page
from backhaul_normalizer.replays.tasks import AWAITED, settles
from backhaul_normalizer.service import NormalizerUseCases

PAGE_LETTERS = 50

PROCESSED_WITHIN_S = 300.0
"""For how long it is awaited that what was sent through is processed, with all that came in before it."""

LOOK_AGAIN_S = 0.25

UNKNOWN = "Not all that was sent through was processed yet: what is refused later is open again, and not counted here."


class LetterPages:
    """Works replays of dead letters, a page at a time, in the order of their ids: those that come back are not sent
    again."""

    def __init__(
        self, database: mongo.Database, stream: HeldStream, use_cases: NormalizerUseCases, leases: MongoHeld
    ) -> None:
        self._letters = database[DEAD_LETTERS_COLLECTION]
        self._stream = stream
        self._use_cases = use_cases
        self._leases = leases

    async def page(self, held: Held, tenant: Tenant) -> Page:
        """The next page. UNAVAILABLE."""
        row = held.row
        if "awaited_until_us" in row or row["state"] == "cancelled":
            return await self._settled(held, tenant)
        query: Document = {
            "registration": row["registration"],
            "state": "open",
            # Not what a page sent whose end was lost.
            "replays": {"$ne": row["_id"]},
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
            await self._leases.keep(held)
            outcome = "closed" if row["dry_run"] else await self._close(row, id_)
            page.counts[_COUNTED[outcome]] += 1
            page.examples.append(Example(outcome, id_))
        if page.done and settles(row):
            # What was counted is kept before anything else is asked.
            page.done, page.text = False, AWAITED
            page.awaited = {"awaited_until_us": held.now_us() + int(PROCESSED_WITHIN_S * 1e6)}
        return page

    async def _close(self, row: Mapping[str, Any], id_: str) -> str:
        """Close it, and say with which outcome. Those whose bytes were not kept cannot be sent."""
        try:
            if row["kind"] == "discard":
                closed = await self._use_cases.discard(row["tenant"], id_)
            else:
                closed = await self._use_cases.replay(row["tenant"], id_, replay=row["_id"])
        except BackhaulError as exc:
            # It was closed, refused again, or deleted a moment ago; or it cannot be sent.
            if exc.code not in (Code.FAILED_PRECONDITION, Code.NOT_FOUND):
                raise
            return "unreadable"
        # What is processed at once may be refused before it is closed here.
        return "refused_again" if closed["state"] == "open" else "closed"

    async def _settled(self, held: Held, tenant: Tenant) -> Page:
        """What became of all that was sent through, once it was processed or takes too long, or was cancelled."""
        row, page = held.row, Page(held.row["at"], done=True)
        waits = row["state"] != "cancelled" and held.now_us() < row["awaited_until_us"]
        last = row.get("awaited_seq")
        if waits and last is None and await sent_through(self._letters, row["_id"], most=1):
            _, last, _ = await self._stream.ends()
        processed = last is not None and await self._stream.processed(last)
        if waits and last is not None and not processed:
            page.done, page.text, page.rest_s = False, AWAITED, LOOK_AGAIN_S
            page.awaited = {"awaited_seq": last}
            return page
        sent = await sent_through(self._letters, row["_id"])
        again = {one["_id"] for one in sent if one["state"] == "open"}
        # By their marks, since a page whose end was lost counted none of its own.
        page.counts["dead_letters"] = len(sent) - len(again) - row["counts"].get("dead_letters", 0)
        if again:
            page.counts["refused_again"] = len(again)
        page.anew = [{**one, "outcome": "refused_again"} if one["id"] in again else one for one in row["examples"]]
        held_channels = {key for key, channel in tenant.channels.items() if channel.processing == "held"}
        if any(one["state"] != "open" and (not processed or one["channel"] in held_channels) for one in sent):
            page.text = UNKNOWN
        return page


async def sent_through(letters: mongo.Collection, replay: str, *, most: int = 0) -> Sequence[Document]:
    """The letters that a replay sent through, ``most`` of them (0: all): id, state and channel. UNAVAILABLE."""
    async with mongo.operation():
        return await letters.find({"replays": replay}, {"state": 1, "channel": 1}, limit=most).to_list(None)


_COUNTED = {"closed": "dead_letters", "unreadable": "unreadable", "refused_again": "refused_again"}
