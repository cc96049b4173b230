"""Which registrations have what most have not: replies, and communications that somebody registered.

A commit asks when it is done: of two copies of this service that store a message and a reply, or a message and a
member, at the same time, whoever commits later sees what the other has stored. It is one question for both, as every
batch pays for it.
"""

from __future__ import annotations

from collections.abc import Collection, Set
from typing import NamedTuple

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.names import COMMUNICATIONS_COLLECTION, ENTRIES_COLLECTION

MAX_REMEMBERED = 65_536
"""Registrations of which it is remembered that they have one of it."""


class Had(NamedTuple):
    """The registrations that have replies, and those that have registered communications."""

    replies: Set[str]
    registering: Set[str]


class Having:
    """Asks. Whoever has one has one as long as it lives, so only the others are asked for."""

    def __init__(self, database: mongo.Database) -> None:
        self._database = database
        self._replies: set[str] = set()
        self._registering: set[str] = set()

    @property
    def registering(self) -> Set[str]:
        """The registrations that are known to have registered communications. May be asked by another thread."""
        return self._registering

    async def of(self, registrations: Collection[str]) -> Had:
        """Those of these registrations. UNAVAILABLE."""
        own = set(registrations)
        replies, registering = own & self._replies, own & self._registering
        if replies != own or registering != own:
            collection, pipeline = _question(own - replies, own - registering)
            async with mongo.operation():
                found = await self._database[collection].aggregate(pipeline).to_list(None)
            register = {row["_id"] for row in found if "registers" in row}
            replied = {row["_id"] for row in found if "registers" not in row}
            self._replies = _remembered(self._replies, replied)
            self._registering = _remembered(self._registering, register)
            replies, registering = replies | replied, registering | register
        return Had(replies, registering)


def _question(may_have_replies: Set[str], may_register: Set[str]) -> tuple[str, list[Document]]:
    replies = _each(may_have_replies, {"kind": "inbound"})
    register = [*_each(may_register, {"registered": {"$exists": True}}), {"$set": {"registers": True}}]
    if not may_have_replies:
        return COMMUNICATIONS_COLLECTION, register
    if not may_register:
        return ENTRIES_COLLECTION, replies
    also = {"$unionWith": {"coll": COMMUNICATIONS_COLLECTION, "pipeline": register}}
    return ENTRIES_COLLECTION, [*replies, also]


def _each(registrations: Set[str], having: Document) -> list[Document]:
    """The registrations among these that have such a document, once each."""
    return [{"$match": {"registration": {"$in": list(registrations)}, **having}}, {"$group": {"_id": "$registration"}}]


def _remembered(known: set[str], found: set[str]) -> set[str]:
    if not found:
        return known
    return known | found if len(known) + len(found) <= MAX_REMEMBERED else found
