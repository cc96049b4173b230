"""Erasing a person from deliveries: from what was told, from what waits, and from what is enqueued though it arrived
before.

Deliveries stay, with what happened and what became of each attempt: applications see the same numbers, and what waits
is told without whom it is about. Nothing finds a delivery by its person, so all of the registration's are gone through.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from typing import Final

from backhaul_channels.people import person
from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.erased import without_person
from backhaul_common.names import (
    DELIVERIES_COLLECTION,
    EVENTS_STREAM,
    NOTICES_STREAM,
    NOTIFIER_ERASURES_COLLECTION,
    NOTIFIER_POSITIONS_COLLECTION,
)
from backhaul_common.tenantdata import (
    ERASE_S,
    Asked,
    Erasure,
    Erasures,
    Kept,
    Receipt,
    key_of,
    more_to_erase,
    no_address,
)
from backhaul_proto.event.v1.event_pb2 import Event
from backhaul_proto.notice.v1.notice_pb2 import Notice
from pymongo import UpdateOne

SLICE: Final = 200
"""Deliveries that are looked at at once: some have what the provider sent, as large as it may be."""

_KEPT: Final = (
    Kept("deliveries", "Which event was told when, and what became of it; nothing that says who the person is."),
)


class Erasing:
    """A ``RecipientData``."""

    def __init__(self, database: mongo.Database, erasures: Erasures, *, erase_s: float = ERASE_S) -> None:
        self._database = database
        self._deliveries = database[DELIVERIES_COLLECTION]
        self._erasures = erasures
        self._erase_s = erase_s

    async def erase(self, asked: Asked) -> Receipt:
        """See ``TenantDataService.EraseRecipient``."""
        ends = time.monotonic() + self._erase_s
        whom = person(asked.address)
        if not whom:
            raise no_address()
        erasure = await self._erasures.begin(asked, whom)
        await self._meet()
        behind = erasure.position("deliveries") or ""
        while True:
            if time.monotonic() >= ends:
                raise more_to_erase()
            query: Document = {"registration": asked.registration, "event_id": {"$gt": behind}}
            wanted = {"event_id": 1, "payload": 1, "notice": 1, "state": 1}
            async with mongo.operation():
                found = await self._deliveries.find(query, wanted, sort=[("event_id", 1)], limit=SLICE).to_list(None)
            if not found:
                return await erasure.done(_KEPT)
            behind = found[-1]["event_id"]
            if len(found) == SLICE:
                # There may be more of the last event, which is told to several, and in several revisions.
                query |= {"event_id": behind}
                others = [row for row in found if row["event_id"] != behind]
                async with mongo.operation():
                    found = others + await self._deliveries.find(query, wanted).to_list(None)
            await self._erase(erasure, found, whom, behind)

    async def _meet(self) -> None:
        """Whoever is enqueuing at this moment writes the position as well, and begins anew: it sees the tombstone
        then, or what it stored is seen here."""
        streams = {"_id": {"$in": [EVENTS_STREAM, NOTICES_STREAM]}}
        async with mongo.operation():
            await self._database[NOTIFIER_POSITIONS_COLLECTION].update_many(streams, {"$inc": {"erasures": 1}})

    async def _erase(self, erasure: Erasure, found: Collection[Document], whom: str, behind: str) -> None:
        updates = await asyncio.to_thread(_updates, found, whom, erasure.before_us)
        if updates:
            async with mongo.operation():
                await self._deliveries.bulk_write(updates, ordered=False)
        await erasure.erased("deliveries", len(updates), ("deliveries", behind))


def erased_since(
    rows: Collection[Document], database: mongo.ThreadDatabase, session: mongo.Session
) -> Mapping[bytes, bytes]:
    """The payloads without the person, by the ids of those of ``rows`` that are about somebody who was erased after
    their event had arrived, as the transaction of ``session`` sees it."""
    tombstones = database[NOTIFIER_ERASURES_COLLECTION]
    registrations = {"_id": {"$in": list({row["registration"] for row in rows})}}
    latest = {row["_id"]: row["before_us"] for row in tombstones.find(registrations, session=session)}
    if not latest:
        return {}
    keys: dict[bytes, list[tuple[Document, int]]] = {}
    for row in rows:
        about, at_us = _about(row)
        if about and at_us < latest.get(row["registration"], 0):
            keys.setdefault(key_of(row["registration"], person(about)), []).append((row, at_us))
    found = tombstones.find({"_id": {"$in": list(keys)}}, {"before_us": 1}, session=session) if keys else ()
    return {row["_id"]: _without(row) for one in found for row, at_us in keys[one["_id"]] if at_us < one["before_us"]}


def _updates(found: Collection[Document], whom: str, before_us: int) -> list[UpdateOne]:
    """Those of deliveries that are about somebody, and of what arrived before."""
    updates = []
    for row in found:
        about, at_us = _about(row)
        if about and at_us < before_us and person(about) == whom:
            updates.append(UpdateOne({"_id": row["_id"]}, [{"$set": _erased(row)}]))
    return updates


def _about(row: Document) -> tuple[str, int]:
    """Who a delivery is about, and when that had arrived, or became true."""
    if row.get("notice"):
        notice = Notice.FromString(row["payload"])
        return notice.about.recipient, notice.occurred_at_us
    event = Event.FromString(row["payload"])
    return event.recipient, event.received_at_us


def _without(row: Document) -> bytes:
    if not row.get("notice"):
        return without_person(row["payload"])
    notice = Notice.FromString(row["payload"])
    address = notice.about.recipient
    notice.about.ClearField("recipient")
    notice.ClearField("text")
    for attribute in notice.attributes:
        if address in attribute.value:
            attribute.value = ""
    return notice.SerializeToString()


def _erased(row: Document) -> Document:
    """What changes in a delivery: what endpoints answered may name the person, and so may the address that was
    called."""
    tries = {
        "$map": {"input": "$tries", "as": "one", "in": {"$mergeObjects": ["$$one", {"answer": "", "request": ""}]}}
    }
    over = {"$in": ["$state", ["delivered", "failed"]]}
    return {
        "payload": {"$literal": _without(row)},
        "tries": {"$cond": [{"$isArray": "$tries"}, tries, "$$REMOVE"]},
        # A hash of the person, where deliveries go in their order; of no use to what is over.
        "key": {"$cond": [over, "$$REMOVE", {"$ifNull": ["$key", "$$REMOVE"]}]},
    }
