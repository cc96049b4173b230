"""A page of a channel's callbacks, read once more and committed as the consumer does.

A callback keeps its position and its arrival. So what is known is known again, what is new is as if it had
been read so at first, and a page that is done twice is done once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from backhaul_channels import EventKind
from backhaul_channels.people import person
from backhaul_common import mongo
from backhaul_common.errors import unavailable
from backhaul_common.leases import LostError
from backhaul_common.names import DEAD_LETTERS_COLLECTION, REPLAYS_COLLECTION, callbacks_subject, queue_path_key
from backhaul_common.tenantdata import Erasures
from backhaul_common.tenants import Tenant
from backhaul_common.turns import Turn
from backhaul_proto.callback.v1.callback_pb2 import SOURCE_CALLBACK, SOURCE_REPLAY, Callback, CallbackBatch
from backhaul_proto.event.v1.event_pb2 import Event

from backhaul_normalizer.committing import Portions, commit_all, publish_all
from backhaul_normalizer.heldstream import HeldStream
from backhaul_normalizer.merge import all_together
from backhaul_normalizer.model import KIND_NAMES, Committed, Fact, Outgoing, Rejection
from backhaul_normalizer.normalize import Normalizer
from backhaul_normalizer.ports import Publisher
from backhaul_normalizer.replays.held import MAX_EXAMPLES, Example, Held, MongoHeld, Page, taken
from backhaul_normalizer.replays.rehearsing import rehearse
from backhaul_normalizer.store import MongoEventStore

PAGE_MESSAGES = 64

_TURN_S, _REST = 0.005, 1.0
"""As previews do: whoever reads what comes in goes first."""

MAX_REMEMBERED = 50_000
"""Events of dry runs that are remembered as new, so that those which several callbacks tell count once."""


@dataclass(slots=True)
class _Read:
    """What the callbacks of a page tell: each event once, and ids of dead letters of what can be read now."""

    told: dict[str, list[Fact]] = field(default_factory=dict)
    letters: set[str] = field(default_factory=set)


class CallbackPages:
    """Works replays of callbacks, a page at a time."""

    def __init__(
        self,
        database: mongo.Database,
        stream: HeldStream,
        normalizer: Normalizer,
        store: MongoEventStore,
        publisher: Publisher,
        erasures: Erasures,
        leases: MongoHeld,
    ) -> None:
        self._database = database
        self._letters = database[DEAD_LETTERS_COLLECTION]
        self._stream = stream
        self._normalizer = normalizer
        self._store = store
        self._publisher = publisher
        self._erasures = erasures
        self._leases = leases
        self._portions = Portions()
        self._rehearsed: set[tuple[str, str]] = set()

    async def page(self, held: Held, tenant: Tenant) -> Page:
        """The next page. UNAVAILABLE, also where another copy has taken the replay."""
        row = held.row
        subject = callbacks_subject(tenant.queue_path, row["channel"])
        first = row["first"] if row["at"] is None else row["at"]
        # A second's, so that the pause which a rate makes of it is no long one.
        most = min(PAGE_MESSAGES, (not row["dry_run"] and row.get("rate_per_s", 0)) or PAGE_MESSAGES)
        messages = await self._stream.read(subject, first, most)
        if not messages and first <= row["last"] and await self._stream.has(subject, first):
            # The server that answered is behind the stream's leader.
            raise unavailable("JetStream")
        found = [one for one in messages if one.stream_seq <= row["last"]]
        at = found[-1].stream_seq + 1 if found else row["last"] + 1
        page = Page(at, done=len(found) < len(messages) or not messages or at > row["last"])
        if first <= row["last"] and (not messages or messages[0].stream_seq > first):
            page.overtaken_us = await self._overtaken(first)
        read, turn = _Read(), Turn(_TURN_S, _REST)
        for one in found:
            await self._leases.keep(held)
            batch = CallbackBatch.FromString(one.data)
            for callback in batch.callbacks:
                if (
                    callback.registration == row["registration"]
                    and row["from_us"] <= callback.received_at_us < row["to_us"]
                ):
                    await self._read(callback, batch.position or one.stream_seq, tenant, read, page, turn)
        facts = await self._not_erased([all_together(some) for some in read.told.values()], page)
        page.counts["events"] += len(read.told)
        if row["dry_run"]:
            await self._rehearse(held, facts, page)
        elif facts:
            store = _ReplayStore(self._store, self._publisher, self._leases, held)
            done = await commit_all(store, facts, (), _reject(page), _publish_nothing, self._portions)
            page.examples += _examples("new", done.new)
        await self._close(read, row, page)
        return page

    async def _overtaken(self, due: int) -> int:
        """Since when the stream has what it has, if something may have left it unread from ``due`` on; 0 otherwise.
        Callbacks age while a replay waits or rests."""
        first, _, since_us = await self._stream.ends()
        return since_us if first > due else 0

    async def _read(
        self, callback: Callback, position: int, tenant: Tenant, read: _Read, page: Page, turn: Turn
    ) -> None:
        page.counts["callbacks"] += 1
        bodies, unreadable = [callback.body], False
        for one in self._normalizer.read(callback, position, queue_path_key(tenant.queue_path)):
            await turn.over()
            if isinstance(one, Fact):
                read.told.setdefault(one.id, []).append(_marked(one))
                bodies.append(Event.FromString(one.payload).raw)
            elif isinstance(one, Rejection):
                unreadable = True
        if unreadable:
            # Its dead letter is there, or its events are. Thousands of new ones would help nobody, and might hold
            # people who were erased.
            page.counts["unreadable"] += 1
            page.examples.append(Example("unreadable", callback.id))
            del bodies[0]
        read.letters.update(self._normalizer.letter_ids(callback, bodies))

    async def _not_erased(self, facts: Sequence[Fact], page: Page) -> Sequence[Fact]:
        """Without what is told of people who were erased since it arrived: nobody shall hear of them again. What they
        said about being contacted is heard all the same, as where a callback waited, and erased as it is stored."""
        registration = next((fact.origin.registration for fact in facts), "")
        latest = (await self._erasures.to_look_at({registration})).get(registration, 0)
        people = {
            fact.id: (registration, person(fact.event.recipient))
            for fact in facts
            if fact.event.recipient and fact.event.consent is None and fact.origin.received_at_us < latest
        }
        if not people:
            return facts
        erased = await self._erasures.erased(set(people.values()))
        gone = {
            fact.id
            for fact in facts
            if fact.id in people and fact.origin.received_at_us < erased.get(people[fact.id], 0)
        }
        page.counts["erased"] += len(gone)
        return [fact for fact in facts if fact.id not in gone]

    async def _rehearse(self, held: Held, facts: Sequence[Fact], page: Page) -> None:
        for part in self._portions.of(facts):
            if not part:
                continue
            await self._leases.keep(held)
            found = await rehearse(self._database, part)
            new = [fact for fact in found.new if (held.id, fact.id) not in self._rehearsed]
            if len(self._rehearsed) >= MAX_REMEMBERED:
                self._rehearsed.clear()
            self._rehearsed.update((held.id, fact.id) for fact in new)
            page.counts.update(new=len(new), completed=len(found.revisions), contradicted=len(found.contradicted))
            kinds = {fact.id: KIND_NAMES[fact.event.kind] for fact in part}
            page.examples += _examples("new", new)
            for outcome, ids in (("completed", found.revisions), ("contradicted", found.contradicted)):
                page.examples += [Example(outcome, id_, kinds.get(id_, "")) for id_ in sorted(ids)[:MAX_EXAMPLES]]

    async def _close(self, read: _Read, row: Mapping[str, Any], page: Page) -> None:
        """Close the open dead letters of what can be read now."""
        query = {"registration": row["registration"], "state": "open"}
        async with mongo.operation():
            if not read.letters or await self._letters.find_one(query, {"_id": 1}) is None:
                return
            query |= {"_id": {"$in": list(read.letters)}, "channel": row["channel"]}
            closed = [one["_id"] for one in await self._letters.find(query, {"_id": 1}).to_list(None)]
            if closed and not row["dry_run"]:
                await self._letters.update_many(query, {"$set": {"state": "replayed"}})
        page.counts["dead_letters"] += len(closed)
        page.examples += [Example("closed", one) for one in closed]


class _ReplayStore:
    """An ``EventStore`` whose every transaction is fenced by the replay's lease, and published when it is done."""

    def __init__(self, store: MongoEventStore, publisher: Publisher, leases: MongoHeld, held: Held) -> None:
        self._store = store
        self._publisher = publisher
        self._leases = leases
        self._held = held
        # What was stored of this page by whoever died before it was published.
        self._unpublished: Collection[str] = held.row["unpublished"]

    async def ping(self) -> None:
        """See ``EventStore``."""
        await self._store.ping()

    async def takes_writes(self) -> None:
        """See ``EventStore``."""
        await self._store.takes_writes()

    async def commit(self, facts: Sequence[Fact], rejections: Sequence[Rejection]) -> Committed:
        """See ``EventStore``. UNAVAILABLE where another copy has taken the replay."""
        try:
            committed = await self._store.commit(facts, rejections, also=self._also)
        except LostError as exc:
            raise taken() from exc
        outgoing = [event for event in committed.outgoing if self._is_owed(event)]
        await publish_all(self._publisher, outgoing, "")
        return replace(committed, outgoing=())

    def _also(self, database: mongo.ThreadDatabase, session: mongo.Session, committed: Committed) -> None:
        self._leases.fence(database, session, self._held)
        ids = [event.id for event in committed.outgoing if not event.again]
        update = {
            "$inc": {"counts.new": len(committed.new), "counts.completed": committed.revisions},
            "$push": {"unpublished": {"$each": ids}},
        }
        database[REPLAYS_COLLECTION].update_one({"_id": self._held.id}, update, session=session)

    def _is_owed(self, event: Outgoing) -> bool:
        """Whether EVENTS may not have it. What another message brought is owed by whoever was given that.

        Replies are settled after a commit, in transactions of their own, which may have been all that was left to do.
        """
        return not event.again or event.id in self._unpublished or (bool(self._unpublished) and event.kind == _REPLY)


_REPLY = KIND_NAMES[EventKind.INBOUND]


# Protobuf reads the last of two values.
_SOURCE = Event(source=SOURCE_REPLAY).SerializeToString()


def _marked(fact: Fact) -> Fact:
    """``fact``, if a callback told it, as replayed. It was read as a callback's: what an API told is read otherwise."""
    if fact.origin.source != SOURCE_CALLBACK:
        return fact
    origin = msgspec.structs.replace(fact.origin, source=SOURCE_REPLAY)
    return msgspec.structs.replace(fact, origin=origin, payload=fact.payload + _SOURCE)


def _examples(outcome: str, facts: Sequence[Fact]) -> list[Example]:
    return [Example(outcome, fact.id, KIND_NAMES[fact.event.kind]) for fact in facts[:MAX_EXAMPLES]]


def _reject(page: Page) -> Callable[[Fact, str], Sequence[Rejection]]:
    """Counts what the store refuses by itself, which the log names."""

    def refused(fact: Fact, _: str) -> Sequence[Rejection]:
        page.counts["unreadable"] += 1
        page.examples.append(Example("unreadable", fact.id, KIND_NAMES[fact.event.kind]))
        return ()

    return refused


async def _publish_nothing(_: Sequence[Outgoing]) -> None:
    """What was committed is published already."""
