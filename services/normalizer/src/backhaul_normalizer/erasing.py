"""Erasing a person: in everything that is stored, and in what is stored later though it arrived before.

Each slice is a transaction of its own, and leaves what it has done: a call that is cut short, and asked again, goes on.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from backhaul_channels.people import person, spellings
from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.erased import without_person
from backhaul_common.names import (
    COMMUNICATIONS_COLLECTION,
    DEAD_LETTERS_COLLECTION,
    ENTRIES_COLLECTION,
    EVENTS_COLLECTION,
    MEMBERS_COLLECTION,
    MESSAGES_COLLECTION,
    TENANTS_COLLECTION,
)
from backhaul_common.tenantdata import ERASE_S, Asked, Erasure, Erasures, Kept, Receipt, more_to_erase, no_address
from backhaul_proto.callback.v1.callback_pb2 import Callback

from backhaul_normalizer import buckets
from backhaul_normalizer.communications.documents import found_by_address, member_of
from backhaul_normalizer.communications.ending import WITHOUT_ADDRESSES
from backhaul_normalizer.entries import ref_in
from backhaul_normalizer.erased import LETTER_REASON, MESSAGE, Telling, letter_without_person
from backhaul_normalizer.model import Fact
from backhaul_normalizer.refs import Mark, Ref, unpack
from backhaul_normalizer.writing import BucketUpdates, Commands

MAX_MESSAGES, MAX_ENTRIES = 50, 250
"""Messages, and events that are found by themselves, of one slice: a message has ten or twenty events."""

MAX_COMMUNICATIONS = 200
"""Communications whose members are looked for at once."""

MAX_LETTERS = 20
"""Dead letters that are looked through at once: each may be as large as a callback."""

_AT_ONCE = 32
"""Events of one query, as where they are read."""

_MAX_KEYS = 2000

_KEPT = (
    Kept("messages", "Their ids, states, times and counts; nothing that says who the person is."),
    Kept("events", "What happened, when, and error codes; nothing that says who the person is."),
)


class Concerned(NamedTuple):
    """A fact that was committed: who it is about, and the message that has it; None where none does."""

    fact: Fact
    message: bytes | None


class Wanted:
    """What is to be erased, each with the time before which it arrived. ``nameless`` are events that name nobody: they
    go with their messages."""

    def __init__(self) -> None:
        self.messages: dict[bytes, int] = {}
        self.entries: dict[bytes, int] = {}
        self.nameless: list[bytes] = []

    def message(self, key: bytes, before_us: int) -> None:
        """A message, by its key."""
        self.messages[key] = max(before_us, self.messages.get(key, 0))


class Erasing:
    """A ``RecipientData``, and what every commit asks."""

    def __init__(self, database: mongo.Database, erasures: Erasures, *, erase_s: float = ERASE_S) -> None:
        self._database = database
        self._erasures = erasures
        self._erase_s = erase_s

    async def erase(self, asked: Asked) -> Receipt:
        """See ``TenantDataService.EraseRecipient``."""
        whom = person(asked.address)
        if not whom:
            raise no_address()
        erasure = await self._erasures.begin(asked, whom)
        work = _Work(self._database, erasure, asked, whom, time.monotonic() + self._erase_s)
        await work.messages()
        await work.entries()
        await work.members()
        await work.dead_letters()
        return await erasure.done(_KEPT)

    async def of_commit(
        self, concerned: Callable[[], Iterable[Concerned]], erased: Mapping[bytes, int], owners: Iterable[str]
    ) -> None:
        """After a commit, and before it is acknowledged: erase what it stored, or found stored, of people who are
        erased, and arrived before they were. UNAVAILABLE, and all may be done again then.

        Whoever erases at the same moment has left the tombstone before looking for what is there. So either that is
        seen here, or what was committed is seen there.

        ``erased`` are the messages of the commit whose people were erased before, and when; ``owners`` registrations.
        """
        wanted = Wanted()
        for key, before_us in erased.items():
            wanted.message(key, before_us)
        latest = await self._erasures.to_look_at(set(owners))
        facts = list(concerned()) if latest or erased else []
        if erased:
            wanted.nameless = [bytes.fromhex(one.fact.id) for one in facts if not one.fact.event.recipient]
        old = [
            one
            for one in facts
            if one.fact.event.recipient and one.fact.origin.received_at_us < latest.get(one.fact.origin.registration, 0)
        ]
        if old:
            people = {one.fact.id: (one.fact.origin.registration, person(one.fact.event.recipient)) for one in old}
            found = await self._erasures.erased(set(people.values()))
            for one in old:
                before_us = found.get(people[one.fact.id], 0)
                if one.fact.origin.received_at_us < before_us:
                    wanted.entries[bytes.fromhex(one.fact.id)] = before_us
                    if one.message is not None:
                        wanted.message(one.message, before_us)
        if wanted.messages or wanted.entries:
            await mongo.in_transaction(self._database, partial(_erase, wanted))


class _Work:
    """One call. UNAVAILABLE from each method when its time is over."""

    def __init__(
        self,
        database: mongo.Database,
        erasure: Erasure,
        asked: Asked,
        whom: str,
        ends: float,
    ) -> None:
        self._database = database
        self._erasure = erasure
        self._tenant_id = asked.tenant_id
        self._registration = asked.registration
        self._spellings = spellings(whom)
        self._ends = ends
        patterns = [re.compile(rf"^{re.escape(one)}(?:;ext=[0-9]{{1,8}})?$", re.ASCII) for one in self._spellings]
        # The index has no empty addresses, and does not know that none of these is.
        self._address: Document = {"$in": patterns, "$gt": ""}

    async def messages(self) -> None:
        """Messages with their events, and the members whom they are for."""
        before_us = self._erasure.before_us
        query = {
            "registration": self._registration,
            "address": self._address,
            # One that lives on keeps its address.
            "$nor": [{"erased_before_us": {"$gte": before_us}}],
        }
        while found := await self._find(MESSAGES_COLLECTION, query, {"spilled": 1}, MAX_MESSAGES):
            for row in found:
                if row.get("spilled"):
                    await self._spilled(row["_id"])
            wanted = Wanted()
            wanted.messages = dict.fromkeys((row["_id"] for row in found), before_us)
            await self._erase(wanted)

    async def _spilled(self, message: bytes) -> None:
        """Events of a message that has too many to refer to all."""
        behind: Document = {}
        while True:
            query = {"message": message, **behind}
            order = [("occurred_at_us", 1), ("_id", 1)]
            found = await self._find(ENTRIES_COLLECTION, query, {"occurred_at_us": 1}, MAX_ENTRIES, order)
            if not found:
                return
            await self._erase(self._these(found))
            at_us, last = found[-1]["occurred_at_us"], found[-1]["_id"]
            behind = {
                "occurred_at_us": {"$gte": at_us},
                "$or": [{"occurred_at_us": {"$gt": at_us}}, {"_id": {"$gt": last}}],
            }

    async def entries(self) -> None:
        """Replies, and events without a message."""
        arrived = {"$lt": self._erasure.before_us}
        query = {"registration": self._registration, "address": self._address, "received_at_us": arrived}
        while found := await self._find(ENTRIES_COLLECTION, query, {"_id": 1}, MAX_ENTRIES):
            await self._erase(self._these(found))

    async def members(self) -> None:
        """Members whose destinations have the address, of every communication."""
        async with mongo.operation():
            tenant = await self._database[TENANTS_COLLECTION].find_one({"_id": self._tenant_id}, {"channels": 1})
        channels = list((tenant or {}).get("channels", {}))
        position = self._erasure.position("members")
        at_us, last = position if isinstance(position, list) else (0, b"")
        while True:
            query = {
                "registration": self._registration,
                "batches": {"$gt": 0},
                "created_at_us": {"$gte": at_us},
                "$or": [{"created_at_us": {"$gt": at_us}}, {"_id": {"$gt": last}}],
            }
            order = [("created_at_us", 1), ("_id", 1)]
            found = await self._find(COMMUNICATIONS_COLLECTION, query, {"created_at_us": 1}, MAX_COMMUNICATIONS, order)
            if not found:
                return
            keys = [
                found_by_address(row["_id"], channel, address)
                for row in found
                for channel in channels
                for address in self._spellings
            ]
            erased = 0
            for start in range(0, len(keys), _MAX_KEYS):
                some = {"found_by": {"$in": keys[start : start + _MAX_KEYS]}}
                async with mongo.operation():
                    members = self._database[MEMBERS_COLLECTION]
                    erased += (await members.update_many(some, WITHOUT_ADDRESSES)).modified_count
            at_us, last = found[-1]["created_at_us"], found[-1]["_id"]
            await self._erasure.erased("members", erased, ("members", [at_us, last]))

    async def dead_letters(self) -> None:
        """Callbacks that could not be read, and have the address somewhere in them."""
        telling = Telling(self._spellings)
        position = self._erasure.position("dead_letters")
        at_us, last = position if isinstance(position, list) else (1 << 62, "")
        while True:
            query: Document = {
                "registration": self._registration,
                "first_seen_at_us": {"$lte": at_us},
                "$or": [{"first_seen_at_us": {"$lt": at_us}}, {"_id": {"$lt": last}}],
            }
            order = [("first_seen_at_us", -1), ("_id", -1)]
            wanted = {"callback": 1, "first_seen_at_us": 1, "state": 1}
            found = await self._find(DEAD_LETTERS_COLLECTION, query, wanted, MAX_LETTERS, order)
            if not found:
                return
            letters = await asyncio.to_thread(self._telling, telling, found)
            for row, callback in letters:
                state = "discarded" if row["state"] == "open" else row["state"]
                update = {"callback": letter_without_person(callback), "reason": LETTER_REASON, "state": state}
                async with mongo.operation():
                    await self._database[DEAD_LETTERS_COLLECTION].update_one({"_id": row["_id"]}, {"$set": update})
            at_us, last = found[-1]["first_seen_at_us"], found[-1]["_id"]
            await self._erasure.erased("dead_letters", len(letters), ("dead_letters", [at_us, last]))

    def _telling(self, telling: Telling, found: Iterable[Document]) -> list[tuple[Document, Callback]]:
        """Those that have the address. In a thread: what is looked through may be megabytes."""
        read = [(row, Callback.FromString(row["callback"])) for row in found]
        return [
            (row, one)
            for row, one in read
            if one.method and one.received_at_us < self._erasure.before_us and telling.tells(one)
        ]

    async def _find(
        self,
        collection: str,
        query: Document,
        wanted: Document,
        most: int,
        order: Sequence[tuple[str, int]] | None = None,
    ) -> list[Document]:
        if time.monotonic() >= self._ends:
            raise more_to_erase()
        async with mongo.operation():
            cursor = self._database[collection].find(query, wanted, limit=most)
            return await (cursor.sort(order) if order else cursor).to_list(None)

    def _these(self, found: Iterable[Document]) -> Wanted:
        wanted = Wanted()
        wanted.entries = dict.fromkeys((row["_id"] for row in found), self._erasure.before_us)
        return wanted

    async def _erase(self, wanted: Wanted) -> None:
        async with mongo.translated():
            done = await mongo.in_transaction(self._database, partial(_erase, wanted))
        for kind, count in done.items():
            await self._erasure.erased(kind, count)


def _erase(wanted: Wanted, database: mongo.ThreadDatabase, session: mongo.Session) -> Counter[str]:
    """Erase that; how much it was, by kind."""
    slice_ = _Slice(database, session)
    fields = dict.fromkeys(("refs", "spilled", "dest", "address", "address_expired", "erased_before_us"), 1)
    query = {"_id": {"$in": list(wanted.messages)}}
    for row in list(database[MESSAGES_COLLECTION].find(query, fields, session=session)):
        slice_.message(row, wanted.messages[row["_id"]])
    by_themselves = {"_id": {"$in": [*wanted.entries, *wanted.nameless]}}
    for row in database[ENTRIES_COLLECTION].find(by_themselves, session=session):
        slice_.entry(row, wanted.entries.get(row["_id"], 0))
    slice_.write()
    return slice_.done


class _Slice:
    def __init__(self, database: mongo.ThreadDatabase, session: mongo.Session) -> None:
        self._database = database
        self._session = session
        self._refs: dict[bytes, Ref] = {}
        self._entries: set[bytes] = set()
        self._messages: list[Document] = []
        self._members: set[bytes] = set()
        self._gone: set[bytes] = set()
        self.done: Counter[str] = Counter()

    def entry(self, row: Document, before_us: int) -> None:
        """An event that is found by itself."""
        ref = ref_in(row)
        if ref.received_at_us < before_us or row.get("message") in self._gone:
            self._refs[ref.id] = ref
            self._entries.add(ref.id)

    def message(self, row: Document, before_us: int) -> None:
        """A message. One that was heard of since lives on, and keeps its address; of one that does not, whatever comes
        later without naming anybody is erased, too."""
        refs = list(unpack(row["refs"]))
        gone = "address_expired" in row
        if gone:
            self._gone.add(row["_id"])
        lives = not gone and self._heard_since(row, refs, before_us)
        for ref in refs:
            if gone or ref.received_at_us < before_us:
                self._refs[ref.id] = ref
                if ref.marks & Mark.ENTRY:
                    self._entries.add(ref.id)
        if "dest" in row:
            self._members.add(member_of(row["dest"])[0])
        if gone and row.get("erased_before_us", 0) >= before_us:
            return
        update: Document = {"$max": {"erased_before_us": before_us}, "$inc": {"version": 1}}
        if not lives:
            update |= {"$unset": MESSAGE, "$set": {"address_expired": True}}
        self._messages.append({"q": {"_id": row["_id"]}, "u": update})
        self.done["messages"] += row.get("address") is not None and not lives

    def _heard_since(self, row: Document, refs: Sequence[Ref], before_us: int) -> bool:
        if any(ref.received_at_us >= before_us for ref in refs):
            return True
        if not row.get("spilled"):
            return False
        query = {"message": row["_id"], "received_at_us": {"$gte": before_us}}
        return self._database[ENTRIES_COLLECTION].find_one(query, {"_id": 1}, session=self._session) is not None

    def write(self) -> None:
        """Write all of it."""
        commands = Commands(self._database, self._session)
        commands.update(EVENTS_COLLECTION, self._events().entries())
        if self._entries:
            these = {"_id": {"$in": list(self._entries)}}
            commands.update(
                ENTRIES_COLLECTION, [{"q": these, "u": {"$unset": {"address": "", "review": ""}}, "multi": True}]
            )
        commands.update(MESSAGES_COLLECTION, self._messages)
        if self._members:
            query: Document = {"_id": {"$in": list(self._members)}, "address_expired": {"$exists": False}}
            self.done["members"] += self._database[MEMBERS_COLLECTION].count_documents(query, session=self._session)
            commands.update(MEMBERS_COLLECTION, [{"q": query, "u": WITHOUT_ADDRESSES, "multi": True}])

    def _events(self) -> BucketUpdates:
        updates = BucketUpdates()
        refs = sorted(self._refs.values(), key=lambda ref: ref.bucket)
        for start in range(0, len(refs), _AT_ONCE):
            some = {ref.id: ref for ref in refs[start : start + _AT_ONCE]}
            found = self._database[EVENTS_COLLECTION].find(*buckets.asked(some.values()), session=self._session)
            for one in [one for bucket in found for one in bucket["events"]]:
                left = without_person(one["payload"])
                if left != one["payload"]:
                    updates.set(some[one["id"]], left, "payload")
                    self.done["events"] += 1
        return updates


def kept_s(stream_max_age_s: float) -> float:
    """How long a tombstone is kept: a callback that is held for as long as CALLBACKS keeps it is published then, and
    stays in EVENTS for as long again."""
    return 2 * stream_max_age_s
