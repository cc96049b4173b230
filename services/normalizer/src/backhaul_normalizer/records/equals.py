"""Whether something that no message is named for was told before, by whatever told it: a row of a provider's list says
whom it is about and when it happened, and no more."""

from __future__ import annotations

from typing import Final

from backhaul_channels import Consent, NormalizedEvent
from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.names import ENTRIES_COLLECTION, MESSAGES_COLLECTION
from pymongo import ASCENDING, DESCENDING

from backhaul_normalizer.entries import ref_in
from backhaul_normalizer.facts import KIND_TO_PROTO, address_of
from backhaul_normalizer.model import KIND_NAMES, Fact
from backhaul_normalizer.refs import Ref, unpack
from backhaul_normalizer.rows import stored_fact
from backhaul_normalizer.stored import Place, Stored

SAME_US: Final = 5_000_000
"""How far apart the times of one event may be."""

MAX_OF_ADDRESS: Final = 2000
"""Messages to an address that are looked at, the newest; and events without a message."""


class Equals:
    """Finds events of the same channel, kind and address, and of the same consent, that happened at the same time."""

    def __init__(self, stored: Stored, database: mongo.ThreadDatabase, session: mongo.Session) -> None:
        self._stored = stored
        self._database = database
        self._session = session

    def of(self, fact: Fact) -> tuple[Place, Fact | None] | None:
        """One that says what ``fact`` says, which names no message: where it is, and itself unless it has expired.
        None where there is none, or ``fact`` does not tell when, and of whom."""
        address = address_of(fact.event.recipient)
        if not address or fact.event.occurred_at_us is None:
            return None
        for place in (*self._of_messages(fact, address), *self._alone(fact, address)):
            rows = list(self._stored.events([place.ref.id.hex()]))
            kept = stored_fact(rows[0]) if rows else None
            if kept is None or _says_as_much(kept.event, fact.event):
                return place, kept
        return None

    # The indexes of messages and of entries by address answer both.

    def _of_messages(self, fact: Fact, address: str) -> list[Place]:
        owner = {"registration": fact.origin.registration, "address": address}
        kind = KIND_NAMES[fact.event.kind]
        found = self._newest(MESSAGES_COLLECTION, owner, "created_at_us", {
            "channel": fact.origin.channel,
            "last_event_at_us": {"$gte": fact.occurred_at_us - SAME_US},
            "$or": [{f"kinds.{kind}": {"$gt": 0}}, {f"duplicates.{kind}": {"$gt": 0}}],
        })  # fmt: skip
        places: list[Place] = []
        spilled: list[bytes] = []
        for row in found:
            places += [Place(ref, row["_id"]) for ref in unpack(row["refs"]) if _fits(ref, fact)]
            if row.get("spilled"):
                spilled.append(row["_id"])
        if spilled:
            query = {"message": {"$in": spilled}, "occurred_at_us": _around(fact)}
            entries = self._database[ENTRIES_COLLECTION].find(query, {"ref": 1}, session=self._session)
            places += [Place(ref, None) for one in entries if _fits(ref := ref_in(one), fact)]
        return self._noted(places)

    def _alone(self, fact: Fact, address: str) -> list[Place]:
        owner = {"registration": fact.origin.registration, "address": address}
        found = self._newest(ENTRIES_COLLECTION, owner, "received_at_us", {
            "channel": fact.origin.channel,
            "kind": KIND_NAMES[fact.event.kind],
            "occurred_at_us": _around(fact),
            "message": {"$exists": False},
        })  # fmt: skip
        return self._noted([Place(ref_in(one), None) for one in found])

    def _newest(self, collection: str, owner: Document, time_field: str, fitting: Document) -> list[Document]:
        pipeline, index = newest(owner, time_field, fitting), by_address(time_field)
        # The server may take the index of all that the tenant has in that order, and read all of it.
        return list(self._database[collection].aggregate(pipeline, session=self._session, hint=index))

    def _noted(self, places: list[Place]) -> list[Place]:
        return [self._stored.places.setdefault(place.ref.id, place) for place in places]


def by_address(time_field: str) -> dict[str, int]:
    """The index of documents by their address, the newest first."""
    return {"registration": ASCENDING, "address": ASCENDING, time_field: DESCENDING, "_id": DESCENDING}


def newest(owner: Document, time_field: str, fitting: Document) -> list[Document]:
    """The pipeline of the newest documents of ``owner``, of whom there is an index, and of those the fitting ones."""
    return [
        {"$match": owner},
        {"$sort": {time_field: DESCENDING, "_id": DESCENDING}},
        {"$limit": MAX_OF_ADDRESS},
        {"$match": fitting},
        {"$project": {"refs": 1, "ref": 1, "spilled": 1}},
    ]


def _around(fact: Fact) -> Document:
    return {"$gte": fact.occurred_at_us - SAME_US, "$lte": fact.occurred_at_us + SAME_US}


def _fits(ref: Ref, fact: Fact) -> bool:
    return ref.kind == KIND_TO_PROTO[fact.event.kind] and abs(ref.occurred_at_us - fact.occurred_at_us) <= SAME_US


def _says_as_much(kept: NormalizedEvent, told: NormalizedEvent) -> bool:
    """Whether ``kept`` is about the same consent, and says whose fault it was where ``told`` does: a failure that
    nobody can act upon does not stand for one that suppresses an address."""
    unclear = not kept.error_class and not kept.invalid_recipient and (told.error_class or told.invalid_recipient)
    return not unclear and _scope(kept.consent) == _scope(told.consent)


def _scope(consent: Consent | None) -> tuple[str, ...]:
    """What a consent is about: who leaves several groups at one moment leaves each of them."""
    return (consent.action.value, consent.scope_kind.value, consent.scope) if consent is not None else ()
