"""Messages and the destinations that they are for, in MongoDB: settled anew when what that depends on has changed.

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
from typing import NamedTuple, TypeAlias

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.fence import living
from backhaul_common.metering import Counter
from backhaul_common.names import (
    BATCH_COUNTS_COLLECTION,
    MEMBERS_COLLECTION,
    MESSAGES_COLLECTION,
)

from backhaul_normalizer.communications.choosing import holder
from backhaul_normalizer.communications.counting import BatchCounts
from backhaul_normalizer.communications.documents import member_of
from backhaul_normalizer.communications.finding import Finding, communication_of
from backhaul_normalizer.counts import Shards
from backhaul_normalizer.writing import Commands

MAX_AT_ONCE = 256
"""Messages in one transaction."""

MAX_RIVALS = 4096
"""Messages for the destinations of one transaction that are read at once. Where there are more, each destination asks
for the one that holds it."""

_MESSAGE = dict.fromkeys(
    (
        "registration", "communication_id", "channel", "address", "fulfilment", "batch_id", "member_key",
        "created_at_us", "first_at_us", "address_expired", "dest", "holds",
    ),
    1,
)  # fmt: skip

Made: TypeAlias = dict[tuple[bytes, int], set[bytes]]
"""Keys of messages, by their communication's, and by the ``members_version`` that it had."""


class Linked(NamedTuple):
    """The keys of the batches whose counts changed, and the members of which a destination was processed by it, each
    with its registration."""

    batches: set[bytes]
    processed: dict[bytes, str]


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
    ) -> Linked:
        """Settle what these messages are for, and who holds these destinations; all of these tenants. Those ``made`` by
        ``link_new`` a moment ago hold what they are for, unless it is another now. UNAVAILABLE, and all may be done
        again then."""
        linked = Linked(set(), {})
        left, keys = sorted(destinations), sorted(messages)
        while left or keys:
            some, keys = keys[:MAX_AT_ONCE], keys[MAX_AT_ONCE:]
            given, left = left[:MAX_AT_ONCE], left[MAX_AT_ONCE:]
            work = partial(_link, some, given, tenants, made, self._shards.of_transaction())
            async with mongo.translated():
                (batches, processed), moved = await mongo.in_transaction(self._database, work)
            linked.batches.update(batches)
            linked.processed.update(processed)
            self._counted.add(amount=moved)
        return linked


def _link(
    messages: Sequence[bytes],
    destinations: Sequence[bytes],
    tenants: Collection[str],
    made: Collection[bytes],
    shard: Callable[[], int],
    database: mongo.ThreadDatabase,
    session: mongo.Session,
) -> tuple[Linked, int]:
    registrations = {one.registration for one in living(database, session, tenants).values()}
    return _Transaction(database, session, registrations).link(messages, destinations, made, shard())


def link_new(
    database: mongo.ThreadDatabase, session: mongo.Session, messages: Sequence[Document], counts: BatchCounts
) -> Made:
    """Link messages that a fold is about to insert, in its own transaction: most are for a destination that has none
    yet, and a message that is inserted with its link costs MongoDB less than one that gets it later. None asks by
    itself, as a fold may bring thousands. The keys of those that are linked; the fields ``dest`` and ``holds`` of their
    documents are set, and ``counts`` has them. Whatever is not as simple is left to ``link``, which must follow for all
    of them; but for those whose communication has got no member since: the keys are by that, and by its
    ``members_version`` as the transaction saw it."""
    transaction = _Transaction(database, session, {row["registration"] for row in messages})
    made: Made = defaultdict(set)
    for row in transaction.link_new(messages):
        counts.destination(row["registration"], row["dest"], "", row["fulfilment"])
        communication = communication_of(row)
        made[communication, transaction.finding.registered[communication]].add(bytes.fromhex(row["_id"]))
    return made


class _Transaction:
    def __init__(self, database: mongo.ThreadDatabase, session: mongo.Session, registrations: Collection[str]) -> None:
        self._database = database
        self._session = session
        self._registrations = registrations
        self.finding = Finding(database, session)

    def link_new(self, messages: Sequence[Document]) -> Sequence[Document]:
        """Link those that are for a destination which no message holds; they are not stored yet. Returns them."""
        links = self.finding.chosen(messages, one_by_one=False)
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
        """Whether a message holds it, of a member for whom one was found to be."""
        key, at = member_of(destination)
        return "holder" in self.finding.members[key]["destinations"][at]

    def link(
        self, messages: Sequence[bytes], destinations: Sequence[bytes], made: Collection[bytes], shard: int
    ) -> tuple[Linked, int]:
        """Settle it, and write what changes; and how many links do."""
        found = self._find(MESSAGES_COLLECTION, {"_id": {"$in": list(messages)}}, _MESSAGE)
        # What is of a tenant who is being deleted is left alone.
        rows = {row["_id"]: row for row in found if row["registration"] in self._registrations}
        links = self.finding.chosen(list(rows.values()), one_by_one=True)
        moved = {key: dest for key, dest in links.items() if dest != rows[key].get("dest")}
        settled = [dest for key, dest in links.items() if key not in made or key in moved]
        named = (*destinations, *settled, *(rows[key].get("dest") for key in moved))
        contested = {dest for dest in named if dest is not None}
        if not contested:
            return Linked(set(), {}), 0
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
        return Linked(set(counts.batches), counts.processed), len(moved)

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


def _state(row: Document | None) -> str:
    return row.get("fulfilment", "") if row is not None else ""
