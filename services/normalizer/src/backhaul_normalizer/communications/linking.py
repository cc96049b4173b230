"""Which destinations messages are for, in MongoDB: settled anew when what that depends on has changed.

A fold's own transaction alone cannot do it. Of a message and a member that two copies of the service store at the same
time, neither sees the other's, and they write no document both. It is done after the commit, of either, so that whoever
commits later sees both; and before a batch is acknowledged, or a call answered, so that a crash in between is made good
by the redelivery, or by ``relinking``. A link that changes writes its message and its member: two copies that change
what concerns one destination meet there.
"""

from __future__ import annotations

from collections import Counter as Counts
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.fence import living
from backhaul_common.metrics import Counter
from backhaul_common.names import (
    BATCH_COUNTS_COLLECTION,
    BATCHES_COLLECTION,
    COMMUNICATIONS_COLLECTION,
    MEMBERS_COLLECTION,
    MESSAGES_COLLECTION,
)
from pymongo import ASCENDING, DESCENDING

from backhaul_normalizer.communications.choosing import FOUND_BEFORE_US, SLACK_US, choose, holder, position, sent_at
from backhaul_normalizer.communications.counting import BatchCounts
from backhaul_normalizer.communications.documents import (
    batch_key,
    communication_id_of,
    found_by_address,
    found_by_key,
    member_id,
    member_of,
)
from backhaul_normalizer.counts import Shards
from backhaul_normalizer.writing import Commands

MAX_AT_ONCE = 256
"""Messages in one transaction."""

MAX_RIVALS = 4096
"""Messages for the destinations of one transaction that are read at once. Where there are more, each destination asks
for the one that holds it."""

MAX_CANDIDATES = 1024
"""Members of batches that no event names, for the messages of one transaction, that are read at once. Where there are
more, each message asks for the one that it is for."""

_MESSAGE = dict.fromkeys(
    (
        "registration", "communication_id", "channel", "address", "fulfilment", "batch_id", "member_key",
        "created_at_us", "first_at_us", "address_expired", "dest", "holds",
    ),
    1,
)  # fmt: skip
_MEMBER = dict.fromkeys(("communication", "key", "batch_id", "batch_at_us", "destinations", "found_by"), 1)
_CREATED = {"created_at_us": 1}
_FEW = 4
_FINDABLE: Document = {"address_expired": {"$exists": False}}


Made: TypeAlias = dict[tuple[bytes, int], set[bytes]]
"""Keys of messages, by their communication's, and by the ``members_version`` that it had."""


class Linking:
    """Links messages to destinations. ``counted`` counts the messages whose link changed."""

    def __init__(self, database: mongo.Database, shards: Shards, counted: Counter) -> None:
        self._counted = counted
        self._database = database
        self._shards = shards

    def count(self, links: int) -> None:
        """So many were made by ``link_new``, and are stored."""
        self._counted.add(amount=links)

    async def link(
        self,
        messages: Collection[bytes],
        destinations: Collection[bytes],
        tenants: Collection[str],
        made: Collection[bytes] = (),
    ) -> set[bytes]:
        """Settle what these messages are for, and who holds these destinations; all of these tenants. The keys of the
        batches whose counts changed. Those ``made`` by ``link_new`` a moment ago hold what they are for, unless it is
        another now. UNAVAILABLE, and all may be done again then."""
        changed: set[bytes] = set()
        left, keys = sorted(destinations), sorted(messages)
        while left or keys:
            some, keys = keys[:MAX_AT_ONCE], keys[MAX_AT_ONCE:]
            given, left = left[:MAX_AT_ONCE], left[MAX_AT_ONCE:]
            work = partial(_link, some, given, tenants, made, self._shards.of_transaction())
            async with mongo.translated():
                batches, moved = await mongo.in_transaction(self._database, work)
            changed |= batches
            self._counted.add(amount=moved)
        return changed


def _link(
    messages: Sequence[bytes],
    destinations: Sequence[bytes],
    tenants: Collection[str],
    made: Collection[bytes],
    shard: Callable[[], int],
    database: mongo.ThreadDatabase,
    session: mongo.Session,
) -> tuple[set[bytes], int]:
    registrations = {one.registration for one in living(database, session, tenants).values()}
    return _Transaction(database, session, registrations).link(messages, destinations, made, shard())


def link_new(
    database: mongo.ThreadDatabase, session: mongo.Session, messages: Sequence[Document], counts: BatchCounts
) -> Made:
    """Link messages that a fold is about to insert, in its own transaction: most are for a destination that has none
    yet, and a message that is inserted with its link costs MongoDB less than one that gets it later. The keys of those
    that are linked; the fields ``dest`` and ``holds`` of their documents are set, and ``counts`` has them. Whatever is
    not as simple is left to ``link``, which must follow for all of them; but for those whose communication has got no
    member since: the keys are by that, and by its ``members_version`` as the transaction saw it."""
    transaction = _Transaction(database, session, {row["registration"] for row in messages})
    made: Made = defaultdict(set)
    for row in transaction.link_new(messages):
        counts.destination(row["registration"], row["dest"], "", row["fulfilment"])
        communication = _communication(row)
        made[communication, transaction.registered[communication]].add(bytes.fromhex(row["_id"]))
    return made


class _Transaction:
    def __init__(self, database: mongo.ThreadDatabase, session: mongo.Session, registrations: Collection[str]) -> None:
        self._database = database
        self._session = session
        self._registrations = registrations
        self.registered: dict[bytes, int] = {}
        """Communications that are registered, each with its ``members_version``."""
        self._members: dict[bytes, Document] = {}
        """The members that were candidates."""

    def link_new(self, messages: Sequence[Document]) -> Sequence[Document]:
        """Link those that are for a destination which no message holds; they are not stored yet. Returns them."""
        links = self._chosen(messages)
        wanted = Counts(links.values())
        linked, changes = [], _Changes()
        for row in messages:
            dest = links[row["_id"]]
            if dest is not None and wanted[dest] == 1 and not self._is_held(dest):
                row["dest"], row["holds"] = dest, True
                changes.member(dest, bytes.fromhex(row["_id"]))
                linked.append(row)
        Commands(self._database, self._session).update(MEMBERS_COLLECTION, changes.members())
        return linked

    def _is_held(self, destination: bytes) -> bool:
        """Whether a message holds it, of a member that was a candidate."""
        key, at = member_of(destination)
        return "holder" in self._members[key]["destinations"][at]

    def link(
        self, messages: Sequence[bytes], destinations: Sequence[bytes], made: Collection[bytes], shard: int
    ) -> tuple[set[bytes], int]:
        """Settle it, and write what changes. The keys of the batches whose counts do, and how many links."""
        found = self._find(MESSAGES_COLLECTION, {"_id": {"$in": list(messages)}}, _MESSAGE)
        # What is of a tenant who is being deleted is left alone.
        rows = {row["_id"]: row for row in found if row["registration"] in self._registrations}
        links = self._chosen(list(rows.values()))
        moved = {key: dest for key, dest in links.items() if dest != rows[key].get("dest")}
        settled = [dest for key, dest in links.items() if key not in made or key in moved]
        named = (*destinations, *settled, *(rows[key].get("dest") for key in moved))
        contested = {dest for dest in named if dest is not None}
        if not contested:
            return set(), 0
        present = self._present(contested)
        rows |= {row["_id"]: row for some in present.values() for row in some}
        held: set[bytes] = set()
        changes, counts = _Changes(), BatchCounts()
        for key, dest in moved.items():
            changes.set(key, "dest", dest)
        for dest in contested:
            before = {row["_id"] for row in present[dest]}
            after = {key for key in before if moved.get(key, dest) == dest}
            after |= {key for key, to in moved.items() if to == dest}
            was = next((row for row in present[dest] if "holds" in row), None)
            now = holder([rows[key] for key in after])
            if now is not None:
                held.add(now["_id"])
            if one := was or now:
                counts.destination(one["registration"], dest, _state(was), _state(now))
            if after != before or was is not now or dest in destinations:
                changes.member(dest, now["_id"] if now is not None else None)
        for key, row in rows.items():
            concerned = key in moved or row.get("dest") in contested
            if concerned and ("holds" in row) != (key in held):
                changes.set(key, "holds", True if key in held else None)
        commands = Commands(self._database, self._session)
        commands.update(MESSAGES_COLLECTION, changes.messages())
        commands.update(MEMBERS_COLLECTION, changes.members())
        commands.update(BATCH_COUNTS_COLLECTION, counts.updates(shard))
        return set(counts.batches), len(moved)

    def _chosen(self, rows: Sequence[Document]) -> dict[bytes, bytes | None]:
        """What each is for. What nobody can find by its address any more stays where it is, and so does what is for a
        member who is kept no longer, or whose addresses are not."""
        self._register(rows)
        links: dict[bytes, bytes | None] = {}
        asking = []
        for row in rows:
            if _communication(row) not in self.registered:
                links[row["_id"]] = None
            elif "address_expired" in row:
                links[row["_id"]] = row.get("dest")
            else:
                asking.append(row)
        named, addressed = self._candidates(asking)
        for row in asking:
            # The batch that its events name may be another communication's.
            own = [one for one in named[_named_by(row)] if one["communication"] == _communication(row)]
            links[row["_id"]] = choose(row, own, addressed[_addressed_by(row)])
        moving = [row for row in asking if "dest" in row and links[row["_id"]] != row["dest"]]
        findable = self._findable({member_of(row["dest"])[0] for row in moving})
        links |= {row["_id"]: row["dest"] for row in moving if member_of(row["dest"])[0] not in findable}
        return links

    def _findable(self, members: Collection[bytes]) -> set[bytes]:
        """Those of these members who are there, with their addresses."""
        query = {"_id": {"$in": list(members)}, **_FINDABLE}
        return {row["_id"] for row in self._find(MEMBERS_COLLECTION, query, {"_id": 1})} if members else set()

    def _register(self, rows: Iterable[Document]) -> None:
        keys = {_communication(row) for row in rows} - {b""}
        query = {"_id": {"$in": list(keys)}, "registered": {"$exists": True}}
        found = self._find(COMMUNICATIONS_COLLECTION, query, {"members_version": 1}) if keys else ()
        self.registered.update((row["_id"], row.get("members_version", 0)) for row in found)

    def _candidates(
        self, rows: Sequence[Document]
    ) -> tuple[Mapping[bytes, list[Document]], Mapping[bytes, list[Document]]]:
        """The members that the events of ``rows`` name, by ``_named_by``; those with their addresses, by
        ``_addressed_by``."""
        named: dict[bytes, list[Document]] = defaultdict(list)
        addressed: dict[bytes, list[Document]] = defaultdict(list)
        ids = {_named_by(row) for row in rows if row.get("batch_id")} - {b""}
        found_by = {_named_by(row) for row in rows if not row.get("batch_id")} | {_addressed_by(row) for row in rows}
        found_by.discard(b"")
        if ids:
            for member in self._find(MEMBERS_COLLECTION, {"_id": {"$in": list(ids)}, **_FINDABLE}, _MEMBER):
                self._members[member["_id"]] = member
                named[member["_id"]].append(member)
        if found_by:
            since_us = min(map(sent_at, rows)) - FOUND_BEFORE_US
            query = {"found_by": {"$in": list(found_by)}, "batch_at_us": {"$gte": since_us}, **_FINDABLE}
            members = list(self._find(MEMBERS_COLLECTION, query, _MEMBER, MAX_CANDIDATES + 1))
            if len(members) > MAX_CANDIDATES:
                members = [member for row in rows for member in self._nearest(row)]
            for member in members:
                self._members[member["_id"]] = member
                by_key, *by_address = member["found_by"]
                named[by_key].append(member)
                for key in by_address:
                    addressed[key].append(member)
        return named, addressed

    def _nearest(self, row: Document) -> Iterable[Document]:
        """Of the members that a message may be for, those among whom ``choose`` finds the one that it is for."""
        since_us, until_us = sent_at(row) - FOUND_BEFORE_US, sent_at(row) + SLACK_US
        spans = [({"$gte": since_us, "$lte": until_us}, DESCENDING), ({"$gt": until_us}, ASCENDING)]
        keys = [(_named_by(row), False), (_addressed_by(row), True)]
        if row.get("batch_id"):
            batch = {"_id": batch_key(row["registration"], row["batch_id"])}
            spans = [(one["created_at_us"], ASCENDING) for one in self._find(BATCHES_COLLECTION, batch, _CREATED)]
            keys = keys[1:]
        for key, only_address in keys:
            for span, order in spans if key else ():
                query = {"found_by": key, "batch_at_us": span, **_FINDABLE}
                if row.get("batch_id"):
                    query["batch_id"] = row["batch_id"]
                with (
                    self._find(MEMBERS_COLLECTION, query, _MEMBER).sort("batch_at_us", order).batch_size(_FEW) as found
                ):
                    fit = (one for one in found if position(one, row, only_address=only_address) is not None)
                    nearest = next(fit, None)
                if nearest is not None:
                    yield nearest
                    # Of several in that batch the one whose key comes first.
                    query["batch_at_us"] = nearest["batch_at_us"]
                    yield from self._find(MEMBERS_COLLECTION, query, _MEMBER).sort("key", ASCENDING).limit(1)
                    return

    def _present(self, destinations: Collection[bytes]) -> Mapping[bytes, list[Document]]:
        """The messages that are for each of these destinations now; of very many the one that holds it, and those that
        were sent last."""
        found = list(self._find(MESSAGES_COLLECTION, {"dest": {"$in": list(destinations)}}, _MESSAGE, MAX_RIVALS + 1))
        if len(found) > MAX_RIVALS:
            unique = {row["_id"]: row for dest in destinations for row in self._foremost(dest)}
            found = list(unique.values())
        present: dict[bytes, list[Document]] = {dest: [] for dest in destinations}
        for row in found:
            # Counts that are stored of a tenant who is being deleted could be behind the deletion.
            if row["registration"] in self._registrations:
                present[row["dest"]].append(row)
        return present

    def _foremost(self, destination: bytes) -> Iterable[Document]:
        yield from self._find(MESSAGES_COLLECTION, {"dest": destination, "holds": True}, _MESSAGE)
        # As many as this transaction may move away, and one.
        latest = self._find(MESSAGES_COLLECTION, {"dest": destination}, _MESSAGE)
        yield from latest.sort([("first_at_us", -1), ("_id", -1)]).limit(MAX_AT_ONCE + 1)

    def _find(self, collection: str, query: Document, projection: Document, limit: int = 0) -> mongo.ThreadCursor:
        # In one answer: asking for the rest of a few hundred documents costs the driver as much as asking for them.
        return self._database[collection].find(
            query, projection, session=self._session, limit=limit, batch_size=MAX_RIVALS + 1
        )


class _Changes:
    """What is written of messages and members; None takes a field out."""

    def __init__(self) -> None:
        self._messages: dict[bytes, Document] = defaultdict(dict)
        self._members: dict[bytes, Document] = defaultdict(dict)

    def set(self, message: bytes, field: str, value: object) -> None:
        self._messages[message][field] = value

    def member(self, destination: bytes, holds: bytes | None) -> None:
        key, position = member_of(destination)
        self._members[key][f"destinations.{position}.holder"] = holds

    def messages(self) -> list[Document]:
        return [{"q": {"_id": key}, "u": _update(fields)} for key, fields in self._messages.items()]

    def members(self) -> list[Document]:
        # Even where nothing else changes: two copies must meet here.
        return [
            {"q": {"_id": key}, "u": {**_update(fields), "$inc": {"version": 1}}}
            for key, fields in self._members.items()
        ]


def _update(fields: Document) -> Document:
    kept = {name: value for name, value in fields.items() if value is not None}
    gone = {name: "" for name, value in fields.items() if value is None}
    return {**({"$set": kept} if kept else {}), **({"$unset": gone} if gone else {})}


def _communication(row: Document) -> bytes:
    """The ``_id`` of a message's communication; empty where it has none."""
    communication_id = row.get("communication_id", "")
    return communication_id_of(row["registration"], communication_id) if communication_id else b""


def _named_by(row: Document) -> bytes:
    """By what the member is found that a message's events name; empty where they name none."""
    if not row.get("member_key"):
        return b""
    if row.get("batch_id"):
        return member_id(batch_key(row["registration"], row["batch_id"]), row["member_key"])
    return found_by_key(_communication(row), row["member_key"])


def _addressed_by(row: Document) -> bytes:
    return found_by_address(_communication(row), row["channel"], row["address"]) if row.get("address") else b""


def _state(row: Document | None) -> str:
    return row.get("fulfilment", "") if row is not None else ""
