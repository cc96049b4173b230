"""When something was last sent, and last heard, on each channel; and since when what was sent is unanswered.

One document a channel, in ``channel_activity``::

    _id                     activity_key: registration and the channel's key
    registration, tenant, channel
    heard_at_us             when the latest callback of the provider arrived
    sent_at_us              when the latest message was sent, as its sender or the provider's own list tells
    answered_us             up to then all that was sent is answered, though nothing was heard since it was told of
    unanswered_since_us     when the first one was sent that is later than both; absent where none is
    watched_since_us        the same, as long as nobody was told of that silence; absent afterwards
    told_us                 the last silence that somebody was told of: its unanswered_since_us

All but the first three are absent where there is nothing. Sends are stored before what told of them is acknowledged, so
that none is lost with a copy of this service. What was heard is stored every few seconds. Of sends that come within
these seconds the earliest and the latest are told apart, and no more: since when something is unanswered is exact to a
few seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.fence import living
from backhaul_common.ids import derived_id
from backhaul_common.names import CHANNEL_ACTIVITY_COLLECTION
from backhaul_proto.callback.v1.callback_pb2 import SOURCE_BACKFILL, SOURCE_SENDER

from backhaul_normalizer.model import Fact
from backhaul_normalizer.states import OUTBOUND
from backhaul_normalizer.writing import Commands

KEEP_S: Final = 3.0
"""How often it is stored what was heard."""

_AT_ONCE = 500
"""Channels of one transaction."""

_UNSENT = frozenset({"refused", "not_generated"})
"""What senders say of messages that no provider took: nothing will be heard of these."""


class Where(NamedTuple):
    """A channel of one life of a tenant."""

    tenant: str
    registration: str
    channel: str


@dataclass(slots=True)
class Noted:
    """What happened on a channel, in microseconds since 1970; 0 where nothing did. ``first_us`` and ``last_us`` are the
    earliest and the latest of what was sent; all up to ``answered_us`` is answered."""

    heard_us: int = 0
    first_us: int = 0
    last_us: int = 0
    answered_us: int = 0

    def add(self, other: Noted) -> None:
        """What happened besides."""
        self.heard_us = max(self.heard_us, other.heard_us)
        self.last_us = max(self.last_us, other.last_us)
        self.first_us = min(filter(None, (self.first_us, other.first_us)), default=0)


class Sends:
    """What a batch of callbacks tells of messages that were sent."""

    def __init__(self) -> None:
        self.noted: dict[Where, Noted] = {}

    def note(self, fact: Fact) -> None:
        """An event of a callback that is no provider's."""
        origin, event = fact.origin, fact.event
        if event.kind not in OUTBOUND or (origin.source == SOURCE_SENDER and event.provider_status in _UNSENT):
            return
        if origin.source not in (SOURCE_SENDER, SOURCE_BACKFILL):
            return
        # A sender's clock that is fast would have it unanswered by what was heard in the meantime.
        at_us = min(fact.occurred_at_us, origin.received_at_us)
        where = Where(origin.tenant, origin.registration, origin.channel)
        self.noted.setdefault(where, Noted()).add(Noted(0, at_us, at_us))


class Activity:
    """Notes it, in one copy of several. Belongs to one loop."""

    def __init__(self, database: mongo.Database) -> None:
        self._database = database
        self._heard: dict[Where, int] = {}

    def heard(self, where: Where, at_us: int) -> None:
        """A provider's callback arrived then."""
        if self._heard.get(where, 0) < at_us:
            self._heard[where] = at_us

    async def sent(self, sends: Sends) -> None:
        """Store what a batch tells of. UNAVAILABLE."""
        for where, noted in sends.noted.items():
            noted.heard_us = self._heard.get(where, 0)
        await self._store(sends.noted)

    async def run(self) -> None:
        """Store what was heard, until cancelled. UNAVAILABLE."""
        while True:
            await asyncio.sleep(KEEP_S)
            await self.keep()

    async def keep(self) -> None:
        """Store what was heard and is not stored. UNAVAILABLE; then it is stored later."""
        heard, self._heard = self._heard, {}
        try:
            await self._store({where: Noted(at_us) for where, at_us in heard.items()})
        except BaseException:
            for where, at_us in heard.items():
                self._heard[where] = max(at_us, self._heard.get(where, 0))
            raise

    async def _store(self, noted: Mapping[Where, Noted]) -> None:
        rows = list(noted.items())
        for start in range(0, len(rows), _AT_ONCE):
            work = partial(_stored, rows[start : start + _AT_ONCE])
            async with mongo.translated():
                await mongo.in_transaction(self._database, work)

    async def of(self, registration: str) -> list[Document]:
        """The documents of a registration's channels, by key. UNAVAILABLE."""
        query = {"registration": registration}
        async with mongo.operation():
            return await self._database[CHANNEL_ACTIVITY_COLLECTION].find(query).sort("channel", 1).to_list(None)


def activity_key(registration: str, channel: str) -> str:
    """The id under which a channel's activity is stored."""
    return derived_id("activity", registration, channel)


def _stored(rows: Sequence[tuple[Where, Noted]], database: mongo.ThreadDatabase, session: mongo.Session) -> None:
    present = living(database, session, {where.tenant for where, _ in rows})
    own = [row for row in rows if _lives(present, row[0])]
    Commands(database, session).update(CHANNEL_ACTIVITY_COLLECTION, [_update(*row) for row in own])


def _lives(present: Mapping[str, object], where: Where) -> bool:
    return getattr(present.get(where.tenant), "registration", "") == where.registration


def _update(where: Where, noted: Noted) -> Document:
    """The update command's entry that adds ``noted`` to what is known, whatever other copies have added."""
    return {"q": {"_id": activity_key(where.registration, where.channel)}, "u": changes(where, noted), "upsert": True}


def changes(where: Where, noted: Noted) -> list[Document]:
    """The pipeline that adds ``noted``: a pipeline sees what is stored, where update operators do not."""
    own = {
        "registration": where.registration,
        "tenant": where.tenant,
        "channel": where.channel,
        "heard_at_us": _latest("$heard_at_us", noted.heard_us),
        "sent_at_us": _latest("$sent_at_us", noted.last_us),
        "answered_us": _latest("$answered_us", noted.answered_us),
    }
    answered = {"$max": ["$heard_at_us", "$answered_us", 0]}
    # The latest one that was sent may have been told of before what was heard in between.
    sent = [{"$ifNull": ["$unanswered_since_us", 0]}, {"$ifNull": ["$sent_at_us", 0]}, noted.first_us]
    unanswered = {"$min": [{"$cond": [{"$gt": [at_us, answered]}, at_us, None]} for at_us in sent]}
    # Told once that nothing is heard, nobody is told again before something was.
    watched = {"$and": [{"$gt": ["$unanswered_since_us", 0]}, {"$lte": [{"$ifNull": ["$told_us", 0]}, answered]}]}
    return [
        {"$set": own},
        {"$set": {"unanswered_since_us": {"$ifNull": [unanswered, "$$REMOVE"]}}},
        {"$set": {"watched_since_us": {"$cond": [watched, "$unanswered_since_us", "$$REMOVE"]}}},
    ]


def _latest(field: str, at_us: int) -> Document:
    return {"$ifNull": [{"$max": [field, at_us or None]}, "$$REMOVE"]}
