"""MongoDB: one transaction a batch, so that events, states and counts always agree."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple
from uuid import uuid4

from backhaul_common import mongo, outbox
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.fence import Living, living
from backhaul_common.names import (
    BATCH_COUNTS_COLLECTION,
    BATCHES_COLLECTION,
    CHANNEL_ACTIVITY_COLLECTION,
    COMMUNICATIONS_COLLECTION,
    COUNTS_COLLECTION,
    DEAD_LETTERS_COLLECTION,
    ENTRIES_COLLECTION,
    EVENTS_COLLECTION,
    JOINS_COLLECTION,
    MEMBERS_COLLECTION,
    MESSAGES_COLLECTION,
    NORMALIZER_ERASURES_COLLECTION,
    NORMALIZER_OUTBOX,
    QUOTAS_COLLECTION,
    REPLAYS_COLLECTION,
    RETENTION_COLLECTION,
)
from backhaul_common.tenantdata import erasures
from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.errors import PyMongoError

from backhaul_normalizer.communications import appearing
from backhaul_normalizer.communications.appearing import Appeared
from backhaul_normalizer.communications.consequences import Consequences
from backhaul_normalizer.counts import Shards
from backhaul_normalizer.erased import LETTER_REASON
from backhaul_normalizer.erasing import Concerned, Erasing
from backhaul_normalizer.expiry import come_late
from backhaul_normalizer.fenced import Fenced
from backhaul_normalizer.having import Having
from backhaul_normalizer.model import Committed, Fact, Fill, Rejection
from backhaul_normalizer.plan import Plan, plan
from backhaul_normalizer.reached import Telling
from backhaul_normalizer.settling import Settling
from backhaul_normalizer.stored import Stored
from backhaul_normalizer.writing import Commands, Writing


def _newest_first(time_field: str, *leading: str, only: Document | None = None) -> IndexModel:
    keys = [
        ("registration", ASCENDING),
        *((name, ASCENDING) for name in leading),
        (time_field, DESCENDING),
        ("_id", DESCENDING),
    ]
    return IndexModel(keys, partialFilterExpression=only) if only is not None else IndexModel(keys)


def _partial(time_field: str, field: str, *counted: str) -> IndexModel:
    # Most documents lack the field, and an index holds only those that have it. What is counted by the fields
    # ``counted`` is read from the index alone.
    keys = [*_newest_first(time_field, field).document["key"].items(), *((name, ASCENDING) for name in counted)]
    return IndexModel(keys, partialFilterExpression={field: {"$gt": ""}})


_REPLIES = {"kind": "inbound"}

INDEXES = {
    EVENTS_COLLECTION: [
        IndexModel([*_newest_first("at_us", "marks").document["key"].items(), ("first_us", ASCENDING)]),
        IndexModel([("moved_by", ASCENDING)], partialFilterExpression={"moved_by": {"$exists": True}}),
    ],
    ENTRIES_COLLECTION: [
        IndexModel([("registration", ASCENDING)]),
        _partial("received_at_us", "error_code", "channel", "duplicate_of"),
        # Replies, and those that are alone.
        _partial("received_at_us", "address"),
        IndexModel(
            [("message", ASCENDING), ("occurred_at_us", ASCENDING), ("_id", ASCENDING)],
            partialFilterExpression={"message": {"$gt": b""}},
        ),
        IndexModel([("message", ASCENDING), ("alias", ASCENDING)], partialFilterExpression={"alias": {"$gt": b""}}),
        # Replies: what each waits for, and the lists of them.
        IndexModel([("waits_for", ASCENDING), ("occurred_at_us", ASCENDING)], partialFilterExpression=_REPLIES),
        _newest_first("received_at_us", "kind", only=_REPLIES),
        _newest_first("received_at_us", "kind", "communication_id", only=_REPLIES),
        _partial("received_at_us", "review"),
    ],
    MESSAGES_COLLECTION: [
        _newest_first("created_at_us"),
        _partial("created_at_us", "address"),
        _partial("created_at_us", "communication_id"),
        _partial("created_at_us", "error_code"),
        _partial("created_at_us", "references"),
        IndexModel(
            [("pair", ASCENDING), ("first_at_us", DESCENDING), ("_id", DESCENDING)],
            partialFilterExpression={"pair": {"$gt": b""}},
        ),
        # The messages of a destination, those whose events name a member, and a communication's errors.
        IndexModel(
            [("dest", ASCENDING), ("first_at_us", DESCENDING), ("_id", DESCENDING)],
            partialFilterExpression={"dest": {"$gt": b""}},
        ),
        IndexModel([("told", ASCENDING)], partialFilterExpression={"told": {"$gt": b""}}),
        IndexModel(
            [(name, ASCENDING) for name in ("registration", "communication_id", "channel", "error_code")],
            partialFilterExpression={"error_code": {"$gt": ""}},
        ),
    ],
    COMMUNICATIONS_COLLECTION: [
        _newest_first("created_at_us"),
        # Those that are disabled are few, and asked for again and again.
        _newest_first("created_at_us", "status", only={"status": "disabled"}),
        # Whoever gives each message a communication of its own has very many that nobody registered.
        IndexModel([("registration", ASCENDING)], partialFilterExpression={"registered": {"$exists": True}}),
    ],
    BATCHES_COLLECTION: [
        _newest_first("created_at_us"),
        _newest_first("created_at_us", "communication"),
        IndexModel([("due_at_us", ASCENDING)], partialFilterExpression={"due_at_us": {"$exists": True}}),
        IndexModel([("to_link", ASCENDING)], partialFilterExpression={"to_link": {"$exists": True}}),
        # Those that are complete: in this order their members end.
        IndexModel(
            [(name, ASCENDING) for name in ("registration", "completed_at_us", "_id")],
            partialFilterExpression={"completed_at_us": {"$exists": True}},
        ),
    ],
    BATCH_COUNTS_COLLECTION: [IndexModel([("registration", ASCENDING)])],
    MEMBERS_COLLECTION: [
        IndexModel([("registration", ASCENDING)]),
        # Whoever is found in very many batches, or whose address very many have, is found without looking at them all.
        IndexModel([("found_by", ASCENDING), ("batch_at_us", ASCENDING), ("key", ASCENDING)]),
    ],
    JOINS_COLLECTION: [IndexModel([("registration", ASCENDING)])],
    COUNTS_COLLECTION: [IndexModel([("registration", ASCENDING), ("day", ASCENDING)])],
    DEAD_LETTERS_COLLECTION: [
        _newest_first("first_seen_at_us"),
        # Those that are open are counted, and asked for again and again by whoever looks how a tenant stands.
        _newest_first("first_seen_at_us", "state"),
        IndexModel([("registration", ASCENDING), ("state", ASCENDING), ("_id", ASCENDING)]),
        # What a replay sent through is read from the index alone.
        IndexModel(
            [(name, ASCENDING) for name in ("replays", "state", "channel", "_id")],
            partialFilterExpression={"replays": {"$exists": True}},
        ),
    ],
    REPLAYS_COLLECTION: [
        _newest_first("created_at_us"),
        # Those that are not over are few, and asked for again and again.
        IndexModel([("open_since_us", ASCENDING)], partialFilterExpression={"open_since_us": {"$exists": True}}),
        IndexModel("ends_at", expireAfterSeconds=0),
    ],
    QUOTAS_COLLECTION: [IndexModel([("registration", ASCENDING)])],
    RETENTION_COLLECTION: [IndexModel([("registration", ASCENDING)])],
    CHANNEL_ACTIVITY_COLLECTION: [
        IndexModel([("registration", ASCENDING), ("channel", ASCENDING)]),
        IndexModel([("watched_since_us", ASCENDING)], partialFilterExpression={"watched_since_us": {"$exists": True}}),
    ],
    NORMALIZER_ERASURES_COLLECTION: erasures.INDEXES,
    NORMALIZER_OUTBOX: outbox.INDEXES,
}
"""By collection: all that hold tenants' documents."""

COUNTED = (
    EVENTS_COLLECTION,
    MESSAGES_COLLECTION,
    COUNTS_COLLECTION,
    COMMUNICATIONS_COLLECTION,
    DEAD_LETTERS_COLLECTION,
)
"""What people ask about. Whatever else is stored belongs to one of these, and is not there without it."""

SEVERAL = {EVENTS_COLLECTION: "events"}
"""Collections whose documents each hold several of what is counted, and the lists that these are in."""


Also = Callable[[mongo.ThreadDatabase, mongo.Session, Committed], None]
"""What else is written in the transaction of a commit. It may run several times, as the transaction may."""


class MongoEventStore:
    """The writing side."""

    def __init__(
        self,
        client: mongo.Client,
        database: mongo.Database,
        shards: Shards | None = None,
        consequences: Consequences | None = None,
        erasing: Erasing | None = None,
        having: Having | None = None,
        fenced: Fenced | None = None,
    ) -> None:
        """Without ``consequences`` nothing follows for communications that are registered; ``having`` is theirs, too.
        Without ``erasing`` nobody is ever erased. ``fenced`` is told what the fence says."""
        self._client = client
        self._database = database
        self._shards = shards or Shards()
        self._settling = Settling(database, self._shards)
        self._appeared = Appeared()
        self._consequences = consequences
        self._erasing = erasing
        self._having = having or Having(database)
        self._fenced = fenced or Fenced()

    async def prepare(self) -> None:
        """Create collections and indexes where they are missing. UNAVAILABLE when MongoDB is away."""
        await mongo.make_indexes(self._database, INDEXES)

    async def ping(self) -> None:
        """Returns when the primary answers; UNAVAILABLE otherwise."""
        await mongo.ping(self._client)

    async def takes_writes(self) -> None:
        """See ``EventStore``. What was written is taken back."""

        def work(database: mongo.ThreadDatabase, session: mongo.Session) -> None:
            Commands(database, session).insert(DEAD_LETTERS_COLLECTION, [{"_id": f"probe {uuid4()}"}])
            raise _TakesWrites

        with suppress(_TakesWrites):
            try:
                await mongo.in_transaction(self._database, work)
            except PyMongoError as exc:
                raise BackhaulError(Code.UNAVAILABLE, f"MongoDB refuses every write: {type(exc).__name__}.") from exc

    async def commit(
        self,
        facts: Sequence[Fact],
        rejections: Sequence[Rejection],
        fills: Sequence[Fill] = (),
        also: Also | None = None,
    ) -> Committed:
        """Store what is new of ``facts``, fold it into states and counts, and file ``rejections``: all or nothing.

        ``facts`` have distinct ids. Nothing is stored of a registration that is gone, or that the message which brought
        it does not lie under the queue path of. Raises UNAVAILABLE when MongoDB is away; nothing is stored then, or all
        is and committing the same batch again changes nothing. TooMuchError as ``EventStore`` says. ``fills`` are the
        quotas of the registrations of ``rejections``; see ``reached``. ``also`` is part of the transaction.
        """

        shard = self._shards.of_transaction()

        def work(database: mongo.ThreadDatabase, session: mongo.Session) -> tuple[Committed, Plan, _Seen]:
            began = time.monotonic()
            committed, planned, stored, present = _commit(
                database, session, facts, rejections, fills, shard(), self._consequences
            )
            strange = self._appeared.strange(planned.counts.communications())
            Commands(database, session).update(COMMUNICATIONS_COLLECTION, appearing.updates(strange, _now_us()))
            if also is not None:
                also(database, session, committed)
            return committed, planned, _Seen(stored, present.values(), began)

        tenants = {fact.origin.tenant for fact in facts}
        async with mongo.translated():
            committed, planned, seen = await mongo.in_transaction(self._database, work)
            self._fenced.told(seen.living, seen.began)
            self._appeared.remember(self._appeared.strange(planned.counts.communications()))
            touched = planned.touched
            had = await self._having.of(set(touched.registrations.values()))
            settled = await self._settling.settle(touched.of(had.replies), tenants)
            if self._consequences is not None:
                await self._consequences.of_commit(touched, tenants, had.registering)
            if self._erasing is not None and facts:
                raws = seen.stored.raw.items()
                erased = {key: raw["erased_before_us"] for key, raw in raws if raw and _WAS_ERASED in raw}
                owners = {fact.origin.registration for fact in facts}
                await self._erasing.of_commit(partial(_concerned, planned, seen.stored), erased, owners)
        return committed.settled(settled) if settled else committed


class _Seen(NamedTuple):
    """What a commit saw: of what was stored; and who lived, where it ``began`` to read no earlier."""

    stored: Stored
    living: Collection[Living]
    began: float


class _TakesWrites(Exception):  # noqa: N818  # no error: it ends a transaction that shall leave nothing
    """A transaction came to its end and is to be taken back."""


def _commit(
    database: mongo.ThreadDatabase,
    session: mongo.Session,
    facts: Sequence[Fact],
    rejections: Sequence[Rejection],
    fills: Sequence[Fill],
    shard: int,
    consequences: Consequences | None,
) -> tuple[Committed, Plan, Stored, Mapping[str, Living]]:
    """See ``MongoEventStore.commit``; and what was planned, and seen, and which tenants live. ``shard`` is where events
    are counted."""
    owners = {(fact.origin.tenant, fact.origin.registration, fact.origin.path) for fact in facts}
    owners |= {(one.tenant, one.registration, one.path) for one in rejections}
    owners |= {fill.owner for fill in fills}
    present = living(database, session, {tenant for tenant, _, _ in owners})
    gone = {owner for owner in owners if present.get(owner[0]) != Living(owner[1], owner[2])}
    if gone:
        facts = [fact for fact in facts if (fact.origin.tenant, fact.origin.registration, fact.origin.path) not in gone]
        rejections = [one for one in rejections if (one.tenant, one.registration, one.path) not in gone]
    stored, commands = Stored(database, session), Commands(database, session)
    planned = plan(stored, facts) if facts else Plan()
    if consequences is not None:
        consequences.of_new(database, session, planned)
    Writing(stored, commands, planned, shard).write()
    written = [*(fact for fact, _ in planned.events), *(revision.fact for revision in planned.revisions.values())]
    commands.update(RETENTION_COLLECTION, come_late(written, planned.new_messages, _now_us(), database, session))
    telling = Telling(database, session, [fill for fill in fills if fill.owner not in gone])
    commands.update(DEAD_LETTERS_COLLECTION, [_rejection_update(one) for one in rejections])
    telling.tell()
    committed = Committed(
        planned.new,
        planned.known,
        len(planned.revisions),
        planned.outgoing,
        frozenset(registration for _, registration, _ in gone),
    )
    return committed, planned, stored, present


_WAS_ERASED = "erased_before_us"


def _concerned(planned: Plan, stored: Stored) -> Iterator[Concerned]:
    """Where the facts of a commit are now."""
    told = [*(fact for fact, _ in planned.events), *(revision.fact for revision in planned.revisions.values())]
    for fact in told:
        yield Concerned(fact, bytes.fromhex(fact.message) if fact.message else None)
    for fact in planned.known:
        place = stored.places.get(bytes.fromhex(fact.id))
        if place is not None:
            yield Concerned(fact, place.owner)


def _now_us() -> int:
    return time.time_ns() // 1000


def _rejection_update(one: Rejection) -> Document:
    # A duplicate and a failed replay come later in the stream than what was filed. A redelivery does not: it must
    # neither count again nor open what was closed meanwhile. Where two copies settle two messages in the wrong order,
    # the earlier one is thus not counted: the number may be one too low, but it never grows by itself.
    # A pipeline sees the old values, where update operators do not.
    filed = {"$ifNull": ["$stream_seq", -1]}
    again = {"$lt": [filed, one.stream_seq]}
    positions = Counter((one.stream_seq, *one.duplicates))
    new = [{"$cond": [{"$lt": [filed, seq]}, times, 0]} for seq, times in positions.items()]
    return {
        "q": {"_id": one.id},
        "u": [
            {
                "$set": {
                    "registration": {"$literal": one.registration},
                    "channel": {"$literal": one.channel},
                    "provider": {"$literal": one.provider},
                    # Erased, it has said its last: the reason may quote the callback.
                    "reason": {"$cond": [{"$eq": ["$reason", LETTER_REASON]}, "$reason", {"$literal": one.reason}]},
                    "callback": {"$ifNull": ["$callback", one.callback]},
                    "state": {"$cond": [again, "open", "$state"]},
                    "occurrences": {"$add": [{"$ifNull": ["$occurrences", 0]}, *new]},
                    "first_seen_at_us": {"$ifNull": ["$first_seen_at_us", one.first_seen_at_us or one.seen_at_us]},
                    "last_seen_at_us": {"$max": ["$last_seen_at_us", one.seen_at_us]},
                    "stream_seq": {"$max": ["$stream_seq", one.stream_seq]},
                }
            }
        ],
        "upsert": True,
    }
