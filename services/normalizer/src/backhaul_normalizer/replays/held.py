"""A replay that this copy holds, and what a page of it leaves behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.leases import LEASE_S, RENEW_S, Lease, Leases, LostError
from backhaul_common.names import REPLAYS_COLLECTION

from backhaul_normalizer.replays.tasks import ending

MAX_EXAMPLES = 100


class Held(Lease):
    """A replay that this copy holds."""

    __slots__ = ()


class Example(NamedTuple):
    """What was found, by its id; ``kind`` is an event's."""

    outcome: str
    id: str
    kind: str = ""


@dataclass(slots=True)
class Page:
    """What a page found. ``at`` is where the next one begins, and the task is ``done`` where there is none. ``took_s``
    is how long it took with what follows each; the next one waits for ``rest_s`` at the least. ``overtaken_us`` is
    since when the stream has what it has, where something may have left it before this page; 0 otherwise. ``text`` is
    said of the replay until its next page. ``awaited`` are fields that the pages to come find in it, and ``anew`` is
    what all its examples are now; None where the page's are added."""

    at: Any
    done: bool
    counts: Counter[str] = field(default_factory=Counter)
    examples: list[Example] = field(default_factory=list)
    took_s: float = 0.0
    rest_s: float = 0.0
    overtaken_us: int = 0
    text: str = ""
    awaited: Document = field(default_factory=dict)
    anew: Sequence[Document] | None = None


class MongoHeld(Leases[Held]):
    """``replays``, for whoever works them."""

    def __init__(self, database: mongo.Database, owner: str) -> None:
        """See ``Leases``."""
        super().__init__(database, REPLAYS_COLLECTION, owner, Held)
        self._open = database[REPLAYS_COLLECTION]

    async def waiting(self) -> tuple[Sequence[str], float | None]:
        """The replays that are to be worked: of each registration the one that goes first, unless its rate has it rest,
        and those that were cancelled, or only await what becomes of what they sent. And in how many seconds the first
        of those that rest goes on; None where there is none. UNAVAILABLE."""
        query = {"open_since_us": {"$exists": True}}
        rest_ms = {"$subtract": [{"$ifNull": ["$rest_until", "$$NOW"]}, "$$NOW"]}
        beside = {"$or": [_CANCELLED, {"$gt": ["$awaited_until_us", 0]}]}
        wanted = {"registration": 1, "beside": beside, "rest_ms": {"$cond": [_CANCELLED, 0, rest_ms]}}
        async with mongo.operation():
            rows = await self._open.find(query, wanted, sort=[("open_since_us", 1), ("_id", 1)]).to_list(None)
        first: dict[str, Document] = {}
        for row in rows:
            if not row["beside"]:
                first.setdefault(row["registration"], row)
        worked = [*first.values(), *(row for row in rows if row["beside"])]
        rests = [row["rest_ms"] / 1000 for row in worked if row["rest_ms"] > 0]
        return [row["_id"] for row in worked if row["rest_ms"] <= 0], min(rests, default=None)

    async def keep(self, held: Held) -> None:
        """Renew the lease where it is time to, as between the parts of a page. UNAVAILABLE, also where another copy has
        taken the replay."""
        if held.loop_time() < held.until - LEASE_S + RENEW_S:
            return
        try:
            await self.renew(held)
        except LostError as exc:
            raise taken() from exc

    async def found(self, held: Held, page: Page) -> None:
        """Keep what ``page`` found, unless the replay was lost meanwhile, and let any copy have the next one.
        UNAVAILABLE."""
        changes: Document = {
            f"counts.{name}": {"$add": [{"$ifNull": [f"$counts.{name}", 0]}, count]}
            for name, count in page.counts.items()
        }
        added = {"$literal": [one._asdict() for one in page.examples[:MAX_EXAMPLES]]}
        had = "$examples" if page.anew is None else {"$literal": page.anew}
        changes |= {
            "at": {"$literal": page.at},
            "state": {"$cond": [_CANCELLED, "cancelled", "done" if page.done else "running"]},
            "text": {"$cond": [_CANCELLED, "$text", {"$literal": page.text}]},
            "unpublished": [],
            "took_us": {"$add": [{"$ifNull": ["$took_us", 0]}, int(page.took_s * 1e6)]},
            "rest_until": {"$add": ["$$NOW", int(page.rest_s * 1000)]},
            "examples": {"$slice": [{"$concatArrays": [had, added]}, MAX_EXAMPLES]},
        }
        changes |= page.awaited
        if page.overtaken_us:
            changes |= {"stored_since_us": page.overtaken_us, "overtaken": True}
        if page.done or held.row["state"] == "cancelled":
            changes |= {**_closed(held), "text": {"$literal": page.text}}
        await self.give_back(held, changes)

    async def close(self, held: Held) -> None:
        """It was cancelled, and nothing is left of it. UNAVAILABLE."""
        await self.give_back(held, {"open_since_us": "$$REMOVE"})

    async def stop(self, held: Held, text: str) -> None:
        """End it: it cannot go on. UNAVAILABLE."""
        state = {"$cond": [_CANCELLED, "cancelled", "stopped"]}
        await self.give_back(held, {"text": {"$literal": text}, "state": state, **_closed(held)})

    async def wait(self, held: Held, text: str) -> None:
        """It cannot go on yet. UNAVAILABLE."""
        state = {"$cond": [_CANCELLED, "cancelled", "waiting"]}
        await self.give_back(held, {"text": {"$literal": text}, "state": state})


def taken() -> BackhaulError:
    """Another copy has the replay: nothing is stored of what this one does."""
    return BackhaulError(Code.UNAVAILABLE, "Another copy goes on with this replay.")


_CANCELLED: Document = {"$eq": ["$state", "cancelled"]}


def _closed(held: Held) -> Document:
    # One that was cancelled ended when it was.
    given = {name: {"$ifNull": [f"${name}", value]} for name, value in ending(held.now_us()).items()}
    return {"open_since_us": "$$REMOVE", "unpublished": [], **given}
