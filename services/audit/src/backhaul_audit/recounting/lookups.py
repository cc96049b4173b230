"""Which events lie in sealed files, by what the files' own documents list."""

from __future__ import annotations

import asyncio
from array import array
from collections import defaultdict
from collections.abc import Collection, Sequence, Set

from backhaul_common import mongo
from backhaul_common.names import AUDIT_CONTENTS_COLLECTION
from backhaul_digests.model import Chain

from backhaul_audit.contents import ID_BYTES, SLOT_US
from backhaul_audit.model import EventId, PileKey
from backhaul_audit.recounting.ports import Listed

MAX_LOOK_S = 60.0
"""For how long it is looked for some thousand events of a channel: the files of their ten minutes are read, which are
20 bytes for each event of the tenant's that arrived then."""

_AT_ONCE = 4
"""Files that MongoDB sends at a time, some 10 MB each at most."""


class MongoContents:
    """``Contents``."""

    def __init__(self, database: mongo.Database) -> None:
        self._contents = database[AUDIT_CONTENTS_COLLECTION]

    async def filed(self, registration: str, events: Sequence[Listed]) -> Collection[EventId]:
        """See ``Contents``."""
        by_channel: dict[str, list[Listed]] = defaultdict(list)
        for one in events:
            by_channel[one.channel].append(one)
        found: set[EventId] = set()
        for channel, some in by_channel.items():
            piles = [PileKey(registration, channel, chain).id for chain in Chain]
            slots = sorted({one.received_at_us // SLOT_US for one in some})
            wanted = frozenset(one.event for one in some)
            halves = frozenset(_half(one.event.id) for one in some)
            query = {"pile": {"$in": piles}, "slots": {"$in": slots}}
            async with mongo.operation(MAX_LOOK_S):
                rows = self._contents.find(query, {"ids": 1, "revisions": 1}, batch_size=_AT_ONCE)
                async for row in rows:
                    # Files are made on the same loop, which must not wait for some ten thousand ids.
                    found |= await asyncio.to_thread(lying_in, row["ids"], row["revisions"], wanted, halves)
        return found


def lying_in(ids: bytes, revisions: bytes, wanted: Set[EventId], halves: Set[int]) -> Set[EventId]:
    """Which of ``wanted`` a file holds with these ``ids`` and ``revisions``, as ``audit_contents`` has them.

    ``halves`` are the first halves of the wanted ids as numbers: by them the few that count are picked out of all.
    """
    numbers = array("Q", ids)
    at = [place for place, half in enumerate(numbers[::2]) if half in halves]
    if not at:
        return frozenset()
    known = array("I", revisions)
    found = {EventId(ids[place * ID_BYTES : (place + 1) * ID_BYTES].hex(), known[place]) for place in at}
    return found & wanted


def _half(event_id: str) -> int:
    return array("Q", bytes.fromhex(event_id)[: ID_BYTES // 2])[0]
