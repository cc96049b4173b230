"""MongoDB, the writing side: facts, the rows that follow from them, and the changes of rows, in one transaction.

Every transaction writes the counter of all changes first. So of two copies that commit at the same time one begins
anew, having read nothing yet; and whoever sees a change sees every one with a lower number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from backhaul_common import mongo, outbox
from backhaul_common.documents import Document
from backhaul_common.errors import unavailable
from backhaul_common.fence import living
from backhaul_common.names import (
    SUPPRESSION_CHANGES_COLLECTION,
    SUPPRESSION_COUNTERS_COLLECTION,
    SUPPRESSION_FACTS_COLLECTION,
    SUPPRESSION_OUTBOX,
    SUPPRESSIONS_COLLECTION,
)
from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.errors import BulkWriteError

from backhaul_suppression.documents import (
    COUNTER,
    change_document,
    fact_document,
    is_row,
    row_document,
    rows_of,
    to_fact,
    to_row,
    to_standing,
)
from backhaul_suppression.model import Change, Fact, Row, RowKey
from backhaul_suppression.notices import entries_of
from backhaul_suppression.plan import Numbers, Plan

MAX_ROWS_APART = 32
"""Rows of one transaction of which each asks by an index for the three facts that decide about it. Of more rows all
facts are read at once: hardly anybody has more than a few."""

MAX_TOGETHER = 4096
"""Facts that are read at once. Where there are more, somebody has said so much that each row asks after all."""

MAX_ROWS_ASKING = 512
"""Rows that ask then. What has more is committed by halves."""

INDEXES = {
    SUPPRESSIONS_COLLECTION: [
        IndexModel(
            [("registration", ASCENDING), ("family", ASCENDING), ("address", ASCENDING), ("_id", ASCENDING)],
        ),
        # Whoever names no kind or standing asks for each of them: MongoDB merges what it finds.
        IndexModel(
            [
                ("registration", ASCENDING),
                ("kind", ASCENDING),
                ("active", ASCENDING),
                ("recorded_at_us", DESCENDING),
                ("_id", DESCENDING),
            ]
        ),
        IndexModel(
            [("registration", ASCENDING), ("scope", ASCENDING), ("recorded_at_us", DESCENDING), ("_id", DESCENDING)],
            partialFilterExpression={"scope": {"$gt": ""}},
        ),
        IndexModel([("unsettled", ASCENDING)], partialFilterExpression={"unsettled": {"$gt": 0}}),
    ],
    SUPPRESSION_FACTS_COLLECTION: [
        IndexModel(
            [
                ("registration", ASCENDING),
                ("rows", ASCENDING),
                ("lifts", ASCENDING),
                ("effective_at_us", ASCENDING),
                ("_id", ASCENDING),
            ]
        ),
    ],
    SUPPRESSION_CHANGES_COLLECTION: [
        IndexModel([("registration", ASCENDING), ("position", ASCENDING)]),
        IndexModel([("registration", ASCENDING), ("family", ASCENDING), ("address", ASCENDING), ("_id", ASCENDING)]),
    ],
    SUPPRESSION_COUNTERS_COLLECTION: [IndexModel([("registration", ASCENDING)])],
    SUPPRESSION_OUTBOX: outbox.INDEXES,
}
"""By collection: all that hold tenants' documents."""

COUNTED = (SUPPRESSIONS_COLLECTION, SUPPRESSION_FACTS_COLLECTION, SUPPRESSION_CHANGES_COLLECTION)
"""What people ask about."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What became of facts. ``kept`` are the facts of the same ids as they are stored now: the very object that was
    given where this commit stored it. Facts of registrations that are gone are not among them. ``rows`` are those of
    all targets, by id. ``seq`` is the last change that there is, of this commit or before it."""

    changes: Sequence[Change] = ()
    rows: Mapping[str, Row] = field(default_factory=dict)
    kept: Mapping[str, Fact] = field(default_factory=dict)
    seq: int = 0

    def and_then(self, later: Committed) -> Committed:
        """Both, of which ``later`` was committed later."""
        return Committed(
            [*self.changes, *later.changes],
            {**self.rows, **later.rows},
            {**self.kept, **later.kept},
            max(self.seq, later.seq),
        )


class MongoSuppressions:
    """The writing side."""

    def __init__(
        self,
        client: mongo.Client,
        database: mongo.Database,
        now_us: Callable[[], int],
        written: Callable[[], None] = lambda: None,
    ) -> None:
        """``now_us`` says when a change is recorded, in unix time in microseconds; ``written`` is called after a commit
        that may have written notices."""
        self._written = written
        self._client = client
        self._database = database
        self._now_us = now_us

    async def prepare(self) -> None:
        """Create collections and indexes where they are missing. UNAVAILABLE when MongoDB is away."""
        await mongo.make_indexes(self._database, INDEXES)

    async def ping(self) -> None:
        """Returns when the primary answers; UNAVAILABLE otherwise."""
        await mongo.ping(self._client)

    async def commit(self, facts: Sequence[Fact]) -> Committed:
        """Store what is new of ``facts``, and what follows from it: one transaction, or several where it is too much.

        Of several with one id the highest revision counts, and of those the first. Raises UNAVAILABLE when MongoDB is
        away: nothing or all is stored then, and committing the same again changes nothing.
        """
        try:
            return await self._commit(facts)
        except _TooMuchError:
            middle = len(facts) // 2
            return (await self.commit(facts[:middle])).and_then(await self.commit(facts[middle:]))

    async def _commit(self, facts: Sequence[Fact]) -> Committed:
        highest: dict[str, Fact] = {}
        for fact in facts:
            if fact.id not in highest or highest[fact.id].revision < fact.revision:
                highest[fact.id] = fact
        known = await self._known(highest)
        new = [fact for fact in highest.values() if fact.id not in known]
        rows_of_known = {row_id for fact in known.values() for row_id in rows_of(fact)}
        if not new:
            return await self._as_it_is(known, rows_of_known)

        tries = count()

        def work(database: mongo.ThreadDatabase, session: mongo.Session) -> Committed:
            if next(tries):
                _wait_for_counter(database)
            return _Transaction(database, session, self._now_us()).commit(new, rows_of_known)

        async with mongo.translated():
            committed = await mongo.in_transaction(self._database, work)
        if committed.changes:
            self._written()
        return replace(committed, kept={**known, **committed.kept})

    async def _known(self, facts: Mapping[str, Fact]) -> dict[str, Fact]:
        """What is stored of ``facts``, in the same or a higher revision."""
        async with mongo.operation():
            documents = await self._database[SUPPRESSION_FACTS_COLLECTION].find(_among(facts)).to_list(None)
        stored = (to_fact(document) for document in documents)
        return {fact.id: fact for fact in stored if fact.revision >= facts[fact.id].revision}

    async def _as_it_is(self, known: Mapping[str, Fact], wanted: Collection[str]) -> Committed:
        async with mongo.operation():
            documents = await self._database[SUPPRESSIONS_COLLECTION].find(_among(wanted)).to_list(None)
            # Not before the rows: whatever they show is then waited for.
            counter = await self._database[SUPPRESSION_COUNTERS_COLLECTION].find_one({"_id": COUNTER})
        rows = {document["_id"]: to_row(document) for document in documents if is_row(document)}
        return Committed(rows=rows, kept=known, seq=counter["seq"] if counter else 0)


def _wait_for_counter(database: mongo.ThreadDatabase) -> None:
    """Returns when no transaction has the counter of all changes.

    A transaction that finds it taken fails at once, and by pauses alone might hit upon a list's every time. A write
    that is no part of one waits in MongoDB.
    """
    database[SUPPRESSION_COUNTERS_COLLECTION].update_one({"_id": COUNTER}, {"$inc": {"waited": 1}})


class _TooMuchError(Exception):
    """One transaction would take too long."""


class _Transaction:
    """Facts on their way into the store."""

    def __init__(self, database: mongo.ThreadDatabase, session: mongo.Session, now_us: int) -> None:
        self._database = database
        self._session = session
        self._now_us = now_us

    def commit(self, facts: Sequence[Fact], also: Collection[str]) -> Committed:
        """See ``MongoSuppressions.commit``. Facts have distinct ids. The rows ``also`` are answered, too."""
        seq = self._take_counter()
        present = living(self._database, self._session, {fact.tenant_id for fact in facts})
        alive = {(tenant_id, one.registration) for tenant_id, one in present.items()}
        facts = [fact for fact in facts if (fact.tenant_id, fact.address.registration) in alive]
        stored = {one["_id"]: to_fact(one) for one in self._find(SUPPRESSION_FACTS_COLLECTION, _among(_ids(facts)))}
        known = {
            fact.id: stored[fact.id]
            for fact in facts
            if fact.id in stored and stored[fact.id].revision >= fact.revision
        }
        new = [fact for fact in facts if fact.id not in known]
        facts = [_as_recorded(fact, stored.get(fact.id)) for fact in new]
        rows = {fact.id: rows_of(fact) for fact in facts}
        replaced = {fact.id: rows_of(stored[fact.id]) for fact in facts if fact.id in stored}

        documents = {fact.id: fact_document(fact, rows[fact.id]) for fact in facts}
        self._insert(SUPPRESSION_FACTS_COLLECTION, [documents[one] for one in documents if one not in replaced])
        self._replace(SUPPRESSION_FACTS_COLLECTION, [documents[one] for one in replaced])

        wanted = set(also).union(*rows.values(), *replaced.values(), *(rows_of(fact) for fact in known.values()))
        found = self._find(SUPPRESSIONS_COLLECTION, _among(wanted))
        plan = Plan({document["_id"]: to_standing(document) for document in found})
        for fact in facts:
            if fact.id in replaced:
                plan.replace(fact, {**replaced[fact.id], **rows[fact.id]})
            else:
                plan.take(fact, rows[fact.id])
        plan.look(self._facts_about(plan.apart, len(facts)))

        numbers = Numbers(seq, self._positions({fact.address.registration for fact in facts}))
        changes = plan.changes(numbers, self._now_us)
        self._write_rows(plan)
        if changes:
            self._insert(SUPPRESSION_CHANGES_COLLECTION, [change_document(change) for change in changes])
            self._count(numbers, {change.row.key.address.registration for change in changes})
            outbox.write(self._database, self._session, SUPPRESSION_OUTBOX, entries_of(plan.turned, present))
        return Committed(
            changes,
            {row_id: standing.row for row_id, standing in plan.standings.items() if standing.row is not None},
            {**known, **{fact.id: fact for fact in new}},
            numbers.seq,
        )

    def _take_counter(self) -> int:
        """The last change that there is. Until this transaction has ended, no other takes it."""
        counter = self._database[SUPPRESSION_COUNTERS_COLLECTION].find_one_and_update(
            {"_id": COUNTER},
            {"$inc": {"commits": 1}, "$setOnInsert": {"seq": 0}},
            upsert=True,
            return_document=True,
            session=self._session,
        )
        if counter is None:
            raise unavailable("The counter of changes")
        return int(counter["seq"])

    def _positions(self, registrations: Collection[str]) -> dict[str, int]:
        found = self._find(SUPPRESSION_COUNTERS_COLLECTION, _among(registrations))
        return {document["_id"]: document["position"] for document in found}

    def _count(self, numbers: Numbers, registrations: Collection[str]) -> None:
        updates: list[Document] = [{"q": {"_id": COUNTER}, "u": {"$set": {"seq": numbers.seq}}}]
        updates += [
            {
                "q": {"_id": registration},
                "u": {"$set": {"registration": registration, "position": numbers.positions[registration]}},
                "upsert": True,
            }
            for registration in registrations
        ]
        self._update(SUPPRESSION_COUNTERS_COLLECTION, updates)

    def _write_rows(self, plan: Plan) -> None:
        new: list[Document] = []
        changed: list[Document] = []
        gone: list[str] = []
        for row_id, standing, stored in plan.written():
            if standing.known:
                (changed if stored else new).append(row_document(row_id, standing))
            else:
                gone.append(row_id)
        self._insert(SUPPRESSIONS_COLLECTION, new)
        self._replace(SUPPRESSIONS_COLLECTION, changed)
        if gone:
            self._write({"delete": SUPPRESSIONS_COLLECTION, "deletes": [{"q": _among(gone), "limit": 0}]})

    def _facts_about(self, rows: Mapping[str, RowKey], facts: int) -> Mapping[str, Sequence[Fact]]:
        """All facts about ``rows``, by row, or of each as many as decide about it."""
        if len(rows) > MAX_ROWS_APART:
            registrations = list({key.address.registration for key in rows.values()})
            query = {"registration": {"$in": registrations}, "rows": {"$in": list(rows)}}
            some = self._find(SUPPRESSION_FACTS_COLLECTION, query, MAX_TOGETHER + 1)
            if len(some) <= MAX_TOGETHER:
                about: dict[str, list[Fact]] = defaultdict(list)
                for document in some:
                    fact = to_fact(document)
                    for row_id in document["rows"]:
                        about[row_id].append(fact)
                return about
            if len(rows) > MAX_ROWS_ASKING and facts > 1:
                raise _TooMuchError
        return {row_id: self._decisive(row_id, key.address.registration) for row_id, key in rows.items()}

    def _decisive(self, row_id: str, registration: str) -> list[Fact]:
        """The latest fact about a row that lifts, the first that suppresses behind it, and the last that does."""
        about = {"registration": registration, "rows": row_id}
        lifts = self._edge({**about, "lifts": True}, DESCENDING)
        suppresses = {**about, "lifts": False}
        behind = [{**suppresses, "effective_at_us": one.effective_at_us, "_id": {"$gt": one.id}} for one in lifts] + [
            {**suppresses, "effective_at_us": {"$gt": one.effective_at_us}} for one in lifts
        ]
        firsts = [fact for query in behind or [suppresses] for fact in self._edge(query, ASCENDING)]
        return [*lifts, *firsts, *self._edge(suppresses, DESCENDING)]

    def _edge(self, query: Document, direction: int) -> list[Fact]:
        order = [("effective_at_us", direction), ("_id", direction)]
        found = self._database[SUPPRESSION_FACTS_COLLECTION].find(query, session=self._session).sort(order).limit(1)
        return [to_fact(document) for document in found]

    def _find(self, collection: str, query: Document, most: int = 0) -> list[Document]:
        return self._database[collection].find(query, session=self._session).limit(most).to_list()

    def _insert(self, collection: str, documents: Sequence[Document]) -> None:
        if documents:
            self._write({"insert": collection, "documents": documents, "ordered": False})

    def _replace(self, collection: str, documents: Iterable[Document]) -> None:
        self._update(collection, [{"q": {"_id": document["_id"]}, "u": document} for document in documents])

    def _update(self, collection: str, updates: Sequence[Document]) -> None:
        if updates:
            self._write({"update": collection, "updates": updates, "ordered": False})

    def _write(self, command: Document) -> None:
        # The bare command spares the driver's object for every operation.
        reply = self._database.command(command, session=self._session)
        if reply.get("writeErrors"):
            raise BulkWriteError(dict(reply))


def _as_recorded(fact: Fact, before: Fact | None) -> Fact:
    """``fact``, which replaces its lower revision ``before``, if there is one. What only says the same once more was
    recorded when that was: nothing follows from it anew."""
    if before is None or _says(fact) != _says(before):
        return fact
    return replace(fact, recorded_at_us=before.recorded_at_us)


def _says(fact: Fact) -> tuple[object, ...]:
    return fact.address, fact.lifts, fact.targets, fact.effective_at_us


def _ids(facts: Iterable[Fact]) -> list[str]:
    return [fact.id for fact in facts]


def _among(ids: Iterable[str]) -> Document:
    return {"_id": {"$in": list(ids)}}
