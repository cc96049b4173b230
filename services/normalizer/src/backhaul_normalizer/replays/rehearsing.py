"""What a commit would do."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from backhaul_common import mongo

from backhaul_normalizer.model import Fact
from backhaul_normalizer.plan import plan
from backhaul_normalizer.snapshot import TooMuchError
from backhaul_normalizer.stored import Stored


class Rehearsed(NamedTuple):
    """``new`` events, the ids of those that would get a revision, and of those that are known and would stay as they
    are though something else is told of them."""

    new: Sequence[Fact]
    revisions: Collection[str]
    contradicted: Collection[str]


async def rehearse(database: mongo.Database, facts: Sequence[Fact]) -> Rehearsed:
    """What ``MongoEventStore.commit`` would do with ``facts``. Nothing is written. UNAVAILABLE."""

    def work(plain: mongo.ThreadDatabase, session: mongo.Session) -> Rehearsed:
        stored = Stored(plain, session)
        planned = plan(stored, facts)
        told = {fact.id: fact.digest for fact in facts}
        differing = {row["_id"] for row in stored.known(facts) if row["digest"] != told[row["_id"]]}
        return Rehearsed(planned.new, set(planned.revisions), differing.difference(planned.revisions))

    try:
        async with mongo.translated():
            return await mongo.in_transaction(database, work)
    except TooMuchError:
        middle = len(facts) // 2
        one, other = await rehearse(database, facts[:middle]), await rehearse(database, facts[middle:])
        return Rehearsed(
            [*one.new, *other.new],
            {*one.revisions, *other.revisions},
            {*one.contradicted, *other.contradicted},
        )
