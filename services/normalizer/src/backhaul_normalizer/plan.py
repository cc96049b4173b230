"""What a batch of events changes in the store: pure, over a snapshot of what is stored.

Events that are new are counted. What completes a known one makes a revision of it, and its message is folded anew.
Where an event gives a message a further name, the events that used only that name are moved to the message. All of it
is a function of the set of events, whatever their order, and whoever else is at it: two copies of this service that
would each see one half of something write at least one document both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
from backhaul_common.mongo import Document
from backhaul_proto.event.v1 import event_pb2

from backhaul_normalizer.facts import KIND_NAMES, Fact, Name, message_key, stored_fact
from backhaul_normalizer.fold import CommunicationDelta, Deltas, folded, new_message, refolded
from backhaul_normalizer.joins import Joins, Target
from backhaul_normalizer.merge import merge, revised


class Snapshot(Protocol):
    """What is stored, as it is at one moment."""

    def known(self, event_ids: Collection[str]) -> Iterable[Document]:
        """Of the stored events among ``event_ids``: ``_id``, ``stream_seq``, ``revised_seq``, ``digest`` and
        ``occurred_at_us``."""
        ...

    def events(self, event_ids: Collection[str]) -> Iterable[Document]:
        """The stored events among ``event_ids``, whole."""
        ...

    def events_of(self, messages: Collection[str]) -> Iterable[Document]:
        """All events of the messages with these keys, whole."""
        ...

    def moved_by(self, registrations: Collection[str], positions: Collection[int]) -> Iterable[Document]:
        """The stored events that use a further name, and whose present revision was made by what lay at one of these
        positions of CALLBACKS, whole."""
        ...

    def messages(self, keys: Collection[str]) -> Iterable[Document]:
        """The stored messages among ``keys``."""
        ...

    def joins(self, keys: Collection[str]) -> Iterable[Document]:
        """The stored joins among ``keys``."""
        ...


class Outgoing(msgspec.Struct, gc=False):
    """An event on its way to EVENTS. ``path`` is the queue path that ``registration`` has."""

    id: str
    revision: int
    path: str
    channel: str
    kind: str
    payload: bytes
    registration: str


@dataclass(slots=True)
class Plan:
    """What is to be written, and what is to be published once it is.

    ``events`` are inserted; ``revisions`` are stored events with what is set in them; ``communications_of`` is the new
    communication of messages whose stored events must name it; ``messages`` and ``joins`` are whole documents.
    """

    new: list[Fact] = field(default_factory=list)
    known: list[Fact] = field(default_factory=list)
    events: list[Document] = field(default_factory=list)
    revisions: dict[str, Document] = field(default_factory=dict)
    communications_of: dict[str, str] = field(default_factory=dict)
    new_messages: list[Document] = field(default_factory=list)
    messages: list[Document] = field(default_factory=list)
    gone_messages: list[str] = field(default_factory=list)
    new_joins: list[Document] = field(default_factory=list)
    joins: list[Document] = field(default_factory=list)
    communications: Sequence[CommunicationDelta] = ()
    outgoing: list[Outgoing] = field(default_factory=list)


@dataclass(slots=True)
class _Change:
    """A stored event that becomes another revision. ``seq`` is the position in CALLBACKS of what made it so."""

    before: Fact
    after: Fact
    seq: int


def plan(snapshot: Snapshot, facts: Sequence[Fact]) -> Plan:
    """The changes that ``facts``, which have distinct ids, bring about. Nothing of ``facts`` is touched."""
    return _Planner(snapshot, facts).plan()


class _Planner:
    def __init__(self, snapshot: Snapshot, facts: Sequence[Fact]) -> None:
        self._snapshot = snapshot
        self._facts = facts
        self._plan = Plan()
        self._new: dict[str, Fact] = {}
        self._changes: dict[str, _Change] = {}
        self._before: dict[str, Document] = {}
        self._aliases: dict[str, set[str]] = {}
        self._telling: list[tuple[Fact, Collection[Name]]] = []

    def plan(self) -> Plan:
        again = self._part()
        self._before = {row["_id"]: row for row in self._snapshot.messages(self._touched())}
        self._join()
        after = self._fold()
        self._write(after)
        self._publish(again, after)
        return self._plan

    def _part(self) -> list[Document]:
        """Part what is new from what is known; returns the stored events that EVENTS may not have.

        Whoever took a callback first may have died between commit and publish. Then the very message that brought the
        event, or its present revision, is delivered again.
        """
        rows = {row["_id"]: row for row in self._snapshot.known([fact.id for fact in self._facts])}
        if not rows:
            self._new = {fact.id: fact for fact in self._facts}
            return []
        differing: dict[str, Fact] = {}
        again: set[str] = set()
        positions: set[int] = set()
        for fact in self._facts:
            row = rows.get(fact.id)
            if row is None:
                self._new[fact.id] = fact
                continue
            self._plan.known.append(fact)
            # An equal one that arrived earlier is nearer to when it happened, where the provider does not say.
            if row["digest"] != fact.digest or fact.occurred_at_us < row["occurred_at_us"]:
                differing[fact.id] = fact
            own = (fact.origin.stream_seq, *fact.also)
            positions.update(own)
            if row["stream_seq"] in own or row.get("revised_seq", 0) in own:
                again.add(fact.id)
        whole = {row["_id"]: row for row in self._snapshot.events({*differing, *again})} if differing or again else {}
        for event_id, told in differing.items():
            kept = stored_fact(whole[event_id])
            merged = merge(kept, told)
            if merged is not kept:
                later = revised(merged, revision=kept.revision + 1)
                self._changes[event_id] = _Change(kept, later, told.origin.stream_seq)
        # Who told a further name moved events that its own callbacks say nothing of.
        moved = self._snapshot.moved_by({fact.origin.registration for fact in self._plan.known}, positions)
        return list({**{row["_id"]: row for row in moved}, **{key: whole[key] for key in again}}.values())

    def _touched(self) -> set[str]:
        keys = {fact.message for fact in self._new.values()}
        for change in self._changes.values():
            keys |= {change.before.message, change.after.message}
        # A duplicate may tell a further name of a message, too.
        self._telling = [(fact, names) for fact in self._facts if (names := fact.told_names())]
        for _, names in self._telling:
            keys.update(message for message, _, _ in names)
        return keys - {""}

    # Further names.

    def _join(self) -> None:
        """Move what used a further name of a message to the message that has it."""
        told: dict[str, dict[Target, Fact]] = {}
        for fact, names in self._telling:
            for message, message_id, alias in names:
                # A message keeps the names that were joined already, so that they are not looked up for each event.
                if alias not in self._before.get(message, {}).get("aliases", ()):
                    self._aliases.setdefault(message, set()).add(alias)
                    key = message_key(fact.origin.registration, fact.origin.channel, alias)
                    if key != message:
                        told.setdefault(key, {})[message, message_id] = fact
        using = [fact for fact in self._new.values() if fact.alias]
        using += [change.after for change in self._changes.values() if change.after.alias]
        if not told and not using:
            return
        # What a better name is told of may be a further name itself, if an event that uses such a name told it.
        chained = {message for fact, names in self._telling if fact.alias or fact.names for message, _, _ in names}
        joins = Joins(self._snapshot, {*told, *(fact.alias for fact in using), *chained})
        sources = {key: joins.root(key)[0] for key, candidates in told.items() if joins.would_lead(key, candidates)}
        causes = {source: joins.lead(key, told[key]) for key, source in sources.items()}
        # Whoever uses a name writes its join: under a name that has none nothing is stored that could be moved.
        self._move(joins, {source for key, source in sources.items() if joins.is_stored(key)}, causes)
        # Where they lead now is written too, so it must be known whether it is there.
        joins.load({joins.root(fact.alias)[0] for fact in using})
        for fact in using:
            root = joins.root(fact.alias)
            if root[0] != fact.message:
                self._rename(fact, root)
            joins.touch(fact.alias, fact)
        self._load({fact.message for fact in self._new.values() if fact.alias} - {""})
        self._load({change.after.message for change in self._changes.values()} - {""})
        self._plan.new_joins, self._plan.joins = joins.written()

    def _rename(self, fact: Fact, target: Target) -> None:
        moved = revised(fact, revision=fact.revision, message=target[0], message_id=target[1])
        change = self._changes.get(fact.id)
        if change is not None:
            change.after = moved
        else:
            self._new[fact.id] = moved

    def _move(self, joins: Joins, sources: set[str], causes: Mapping[str, Fact]) -> None:
        """Move the stored events of the messages ``sources`` whose further names now lead elsewhere."""
        rows = [row for row in self._snapshot.events_of(sources) if row.get("alias")] if sources else []
        joins.load({row["alias"] for row in rows})
        for row in rows:
            if row["_id"] in self._changes:
                continue  # It is moved with the other changes, by the name that it has now.
            message, message_id = joins.root(row["alias"])
            if message != row["message"]:
                kept = stored_fact(row)
                later = revised(kept, revision=kept.revision + 1, message=message, message_id=message_id)
                self._changes[row["_id"]] = _Change(kept, later, causes[row["message"]].origin.stream_seq)
        self._load(sources)

    def _load(self, keys: Collection[str]) -> None:
        missing = set(keys) - self._before.keys()
        if missing:
            self._before.update((row["_id"], row) for row in self._snapshot.messages(missing))

    # States and counts.

    def _fold(self) -> dict[str, Document | None]:
        """All messages that change, as they are afterwards; None for one that has no event any more."""
        new: dict[str, list[Fact]] = {}
        for fact in self._new.values():
            if fact.message:
                new.setdefault(fact.message, []).append(fact)
        anew = {key for change in self._changes.values() for key in (change.before.message, change.after.message)}
        anew.discard("")
        stored = self._events_after(anew)
        after: dict[str, Document | None] = {}
        for key in new.keys() | anew | self._aliases.keys():
            before = self._before.get(key)
            if key in anew:
                facts = [*stored.get(key, ()), *new.get(key, ())]
                if facts:
                    after[key] = refolded(before if before is not None else new_message(_first(facts)), facts)
                else:
                    after[key] = None
            else:
                facts = new.get(key, [])
                if before is None and not facts:
                    continue  # A duplicate told of a further name, and its event has gone elsewhere.
                after[key] = folded(before if before is not None else new_message(_first(facts)), facts)
        for key, aliases in self._aliases.items():
            message = after.get(key)
            if message is not None:
                message["aliases"] = sorted({*message.get("aliases", ()), *aliases})
        return after

    def _events_after(self, keys: Collection[str]) -> dict[str, list[Fact]]:
        """The stored events of these messages, as they will be."""
        found: dict[str, list[Fact]] = {}
        if keys:
            for row in self._snapshot.events_of(keys):
                if row["_id"] not in self._changes:
                    found.setdefault(row["message"], []).append(stored_fact(row))
            for change in self._changes.values():
                found.setdefault(change.after.message, []).append(change.after)
        return found

    def _write(self, after: dict[str, Document | None]) -> None:
        made = self._plan
        deltas = Deltas()
        for key, message in after.items():
            before = self._before.get(key)
            deltas.move_message(before, message)
            if message is None:
                if before is not None:
                    made.gone_messages.append(key)
                continue
            # Grows, so that two copies that change events of one message always meet in its document.
            message["version"] = before["version"] + 1 if before is not None else 1
            (made.new_messages if before is None else made.messages).append(message)
            if before is not None and before["communication_id"] != message["communication_id"]:
                made.communications_of[key] = message["communication_id"]
        for fact in self._new.values():
            made.new.append(fact)
            made.events.append(fact.to_document(_communication(fact, after)))
            if not fact.message:
                deltas.add_event(fact, +1)
        for event_id, change in self._changes.items():
            document = change.after.to_document(_communication(change.after, after))
            for fixed in ("_id", "registration", "channel", "received_at_us", "stream_seq"):
                del document[fixed]
            made.revisions[event_id] = {**document, "revised_seq": change.seq}
            if not change.before.message:
                deltas.add_event(change.before, -1)
            if not change.after.message:
                deltas.add_event(change.after, +1)
        made.communications = deltas.changed()

    def _publish(self, again: Sequence[Document], after: dict[str, Document | None]) -> None:
        paths = {fact.origin.registration: fact.origin.path for fact in self._facts}
        outgoing = self._plan.outgoing
        for fact in self._new.values():
            outgoing.append(_outgoing(fact, paths, _communication(fact, after)))
        for change in self._changes.values():
            outgoing.append(_outgoing(change.after, paths, _communication(change.after, after)))
        for row in again:
            if row["_id"] in self._changes:
                continue  # Its next revision says all that this one does.
            outgoing.append(_outgoing(stored_fact(row), paths, row.get("communication_id", "")))


def _first(facts: Sequence[Fact]) -> Fact:
    return facts[0] if len(facts) == 1 else min(facts, key=lambda fact: (fact.origin.received_at_us, fact.id))


def _communication(fact: Fact, messages: dict[str, Document | None]) -> str:
    """The communication that an event counts for: that of its message, or its own where it has none."""
    message = messages.get(fact.message) if fact.message else None
    return message["communication_id"] if message is not None else fact.communication_id


def _outgoing(fact: Fact, paths: dict[str, str], communication_id: str) -> Outgoing:
    payload = fact.payload
    if communication_id != fact.communication_id:
        # Protobuf reads the last of two values: what the event's message belongs to is added at the end.
        payload += event_pb2.Event(communication_id=communication_id).SerializeToString()
    origin = fact.origin
    return Outgoing(
        fact.id,
        fact.revision,
        paths[origin.registration],
        origin.channel,
        KIND_NAMES[fact.event.kind],
        payload,
        origin.registration,
    )
