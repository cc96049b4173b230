"""What a batch of events changes in the store: pure, over a snapshot of what is stored.

Events that are new are counted. What completes a known one makes a revision of it, and its message is folded anew.
Where an event gives a message a further name, the events that used only that name are moved to the message. All of it
is a function of the set of events, whatever their order, and whoever else is at it: two copies of this service that
would each see one half of something write at least one document both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from backhaul_channels import EventKind
from backhaul_common.documents import Document
from backhaul_common.erased import is_erased
from backhaul_proto.event.v1 import event_pb2

from backhaul_normalizer.attribution import Touched
from backhaul_normalizer.communications.counting import BatchCounts
from backhaul_normalizer.counts import Counts
from backhaul_normalizer.draft import Change, Draft
from backhaul_normalizer.facts import message_key
from backhaul_normalizer.fold import JOINED, folded, new_message, refolded, shifted
from backhaul_normalizer.merge import merge, revised
from backhaul_normalizer.model import KIND_NAMES, Fact, Outgoing
from backhaul_normalizer.naming import Naming
from backhaul_normalizer.once import OnceOnly
from backhaul_normalizer.rows import stored_fact
from backhaul_normalizer.snapshot import MAX_ANEW, MAX_ANEW_BYTES, Snapshot


class Revision(NamedTuple):
    """A stored event as it is now; ``moved_by`` as in ``Change``."""

    fact: Fact
    communication_id: str
    moved_by: str


@dataclass(slots=True)
class Plan:
    """What is to be written, and what is to be published once it is.

    ``events`` are new, each with its communication; ``revisions`` are stored events as they are now, by id;
    ``communications_of`` is the new communication of messages whose stored events must name it; ``messages`` and
    ``joins`` are whole documents.
    ``touched`` is what replies and links may depend on: they are settled when all of it is committed.
    """

    new: list[Fact] = field(default_factory=list)
    known: list[Fact] = field(default_factory=list)
    events: list[tuple[Fact, str]] = field(default_factory=list)
    revisions: dict[str, Revision] = field(default_factory=dict)
    communications_of: dict[str, str] = field(default_factory=dict)
    new_messages: list[Document] = field(default_factory=list)
    messages: list[Document] = field(default_factory=list)
    gone_messages: list[str] = field(default_factory=list)
    new_joins: list[Document] = field(default_factory=list)
    joins: list[Document] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    batches: BatchCounts = field(default_factory=BatchCounts)
    outgoing: list[Outgoing] = field(default_factory=list)
    touched: Touched = field(default_factory=Touched)


def plan(snapshot: Snapshot, facts: Sequence[Fact]) -> Plan:
    """The changes that ``facts``, which have distinct ids, bring about. Nothing of ``facts`` is touched.

    TooMuchError where so many of what is stored would have to be read or changed that half of ``facts`` at a time is
    better.
    """
    return _Planner(snapshot, facts).plan()


class _Planner:
    def __init__(self, snapshot: Snapshot, facts: Sequence[Fact]) -> None:
        self._draft = Draft(snapshot, facts)
        self._plan = Plan()

    def plan(self) -> Plan:
        again = self._part()
        self._draft.load(self._touched())
        naming = Naming(self._draft)
        naming.settle()
        self._plan.new_joins, self._plan.joins = naming.new_joins, naming.joins
        OnceOnly(self._draft).settle()
        after = self._fold()
        self._write(after)
        self._publish(again, after)
        self._touch(again, after, naming.led_elsewhere)
        return self._plan

    def _part(self) -> list[Document]:
        """Part what is new from what is known; returns the stored events that EVENTS may not have.

        Whoever took a callback first may have died between commit and publish. Then the very message that brought the
        event, or its present revision, is delivered again.
        """
        rows = {row["_id"]: row for row in self._draft.snapshot.known(self._draft.facts)}
        if not rows:
            self._draft.new = {fact.id: fact for fact in self._draft.facts}
            return []
        differing: dict[str, Fact] = {}
        again: set[str] = set()
        for fact in self._draft.facts:
            row = rows.get(fact.id)
            if row is None:
                self._draft.new[fact.id] = fact
                continue
            self._plan.known.append(fact)
            # An equal one that arrived earlier is nearer to when it happened, where the provider does not say.
            if row["digest"] != fact.digest or fact.occurred_at_us < row["occurred_at_us"]:
                differing[fact.id] = fact
            if _brought_by(row, fact):
                again.add(fact.id)
        needed = {*differing, *again}
        self._draft.allowance.take(len(needed), sum(rows[event_id]["size"] for event_id in needed))
        whole = {row["_id"]: row for row in self._draft.snapshot.events(needed)} if needed else {}
        for event_id, told in differing.items():
            if event_id not in whole:
                continue  # It has expired, and cannot be completed any more.
            kept = stored_fact(whole[event_id])
            merged = merge(kept, told)
            if merged is not kept:
                later = revised(merged, revision=kept.revision + 1)
                self._draft.changes[event_id] = Change(kept, later, sorted(told.positions()))
        moved = self._moved_by_known(rows)
        present = [whole[event_id] for event_id in again if event_id in whole]
        return [*present, *(row for row in moved if row["_id"] not in again)]

    def _moved_by_known(self, rows: dict[str, Document]) -> list[Document]:
        """The events that the very messages of this batch moved, or made another's duplicates, when they were delivered
        before."""
        known = {fact.id: fact for fact, _ in self._draft.names if fact.id in rows}
        known |= {fact.id: fact for fact in self._draft.facts if fact.once and fact.id in rows}
        if not known:
            return []
        found = [row for row in self._draft.snapshot.moved_by(known.keys()) if _brought_by(row, known[row["moved_by"]])]
        self._draft.allowance.take(len(found), sum(len(row["payload"]) for row in found))
        return found

    def _touched(self) -> set[str]:
        keys = {fact.message for fact in self._draft.new.values()}
        for change in self._draft.changes.values():
            keys |= {change.before.message, change.after.message}
        # A duplicate may tell a further name of a message, too.
        keys |= {name.message for _, names in self._draft.names for name in names}
        return keys

    def _fold(self) -> dict[str, Document | None]:
        """All messages that change, as they are afterwards; None for one that has no event any more."""
        come: dict[str, list[Fact]] = {}
        gone: dict[str, list[Fact]] = {}
        for fact in self._draft.new.values():
            come.setdefault(fact.message, []).append(fact)
        for change in self._draft.changes.values():
            gone.setdefault(change.before.message, []).append(change.before)
            come.setdefault(change.after.message, []).append(change.after)
        others = self._other_events(
            {key: self._draft.before[key]["event_count"] - len(gone[key]) for key in gone if key}
        )
        after: dict[str, Document | None] = {}
        for key in (come.keys() | gone.keys() | self._draft.aliases.keys()) - {""}:
            before = self._draft.before.get(key)
            facts = come.get(key, [])
            if before is None and not facts:
                continue  # A duplicate told of a further name, and its event has gone elsewhere.
            base = before if before is not None else new_message(_first(facts))
            if key in others:
                facts = [*others[key], *facts]
                made = refolded(base, facts) if facts else None
            else:
                made = shifted(base, gone[key], facts) if key in gone else folded(base, facts)
            after[key] = made if made is not None and made["event_count"] else None
        self._name(after)
        return after

    def _other_events(self, counts: Mapping[str, int]) -> dict[str, list[Fact]]:
        """The stored events of messages but for those that change; ``counts`` says how many these are of each. Of those
        messages alone of which all can be read."""
        found: dict[str, list[Fact]] = {key: [] for key, count in counts.items() if count <= MAX_ANEW}
        keys = [key for key in found if counts[key]]
        sizes = dict.fromkeys(keys, 0)
        self._draft.allowance.take(sum(counts[key] for key in keys), 0)
        for row in self._draft.snapshot.events_of(keys) if keys else ():
            key, size = row["message"], len(row["payload"])
            sizes[key] += size
            self._draft.allowance.take(0, size)
            if sizes[key] > MAX_ANEW_BYTES:
                found.pop(key, None)
            elif row["_id"] not in self._draft.changes:
                found[key].append(stored_fact(row))
        # Where some have expired, those that are left do not say all that the message has.
        return {key: some for key, some in found.items() if len(some) == counts[key]}

    def _name(self, after: dict[str, Document | None]) -> None:
        """Note the further names of messages, and keep each in its communication that has too many events to move."""
        for key, message in after.items():
            if message is None:
                continue
            if key in self._draft.aliases:
                message["aliases"] = sorted(self._draft.aliases[key].items())
            before = self._draft.before.get(key)
            if before is None or before["communication_id"] == message["communication_id"]:
                continue
            if before["event_count"] > MAX_ANEW:
                message |= {name: before[name] for name in JOINED}
            else:
                self._draft.allowance.take(before["event_count"], 0)

    def _write(self, after: dict[str, Document | None]) -> None:
        made = self._plan
        moved: list[str] = []
        for key, message in after.items():
            before = self._draft.before.get(key)
            made.counts.message(before, message)
            if before is not None:
                made.batches.message(before, message)
            if message is None:
                if before is not None:
                    made.gone_messages.append(key)
                continue
            # Grows, so that two copies that change events of one message always meet in its document.
            message["version"] = before["version"] + 1 if before is not None else 1
            (made.new_messages if before is None else made.messages).append(message)
            if before is not None and before["communication_id"] != message["communication_id"]:
                made.communications_of[key] = message["communication_id"]
                moved.append(key)
        for fact in self._draft.new.values():
            (made.known if fact.duplicate_of else made.new).append(fact)
            made.events.append((fact, _communication(fact, after)))
            made.counts.fact(fact, _belongs_to(fact, after), +1)
        for event_id, change in self._draft.changes.items():
            communication_id = _communication(change.after, after)
            made.revisions[event_id] = Revision(change.result(), communication_id, change.moved_by)
            made.counts.fact(change.before, _belongs_to(change.before, self._draft.before), -1)
            made.counts.fact(change.after, _belongs_to(change.after, after), +1)
        for key, events in self._draft.snapshot.counted(moved).items() if moved else ():
            others = [one for one in events if one.id not in self._draft.changes]
            made.counts.moved(self._draft.before[key], after[key] or {}, others)

    def _touch(
        self, again: Sequence[Document], after: dict[str, Document | None], led_elsewhere: dict[str, str]
    ) -> None:
        """Note what replies and links are to be settled for."""
        touched = self._plan.touched
        touched.batches.update(self._plan.batches.batches)
        touched.processed.update(self._plan.batches.processed)
        for key, registration in led_elsewhere.items():
            touched.name(key, registration)
        for key, message in after.items():
            touched.message(key, self._draft.before.get(key), message)
        for fact in self._draft.new.values():
            if fact.event.kind is EventKind.INBOUND:
                touched.replies.add(fact.id)
        for event_id, change in self._draft.changes.items():
            if EventKind.INBOUND in (change.before.event.kind, change.after.event.kind):
                touched.replies.add(event_id)
        if self._plan.known or self._draft.changes:
            self._touch_again(again)

    def _touch_again(self, again: Sequence[Document]) -> None:
        """What was committed before by whoever may not have come to settle anything for it."""
        touched = self._plan.touched
        known = {fact.id for fact in self._plan.known}
        keys: dict[str, str] = {}
        for change in self._draft.changes.values():
            # Whoever made it leave them may have died. When that comes again, this change is found in its place.
            keys |= dict.fromkeys(change.before.left, change.before.origin.registration)
        for fact, names in self._draft.names:
            if fact.id in known:
                own = fact.origin.registration, fact.origin.channel
                for name in names:
                    keys |= dict.fromkeys((name.message, message_key(*own, name.alias)), own[0])
        for row in again:
            if row["kind"] == EventKind.INBOUND.value:
                touched.replies.add(row["_id"])
            own_keys = row.get("message", ""), row.get("alias", ""), *row.get("left", ())
            keys |= dict.fromkeys(own_keys, row["registration"])
        self._draft.load(keys)
        for key, registration in keys.items():
            if key:
                touched.again(key, registration, self._draft.before.get(key))

    def _publish(self, again: Sequence[Document], after: dict[str, Document | None]) -> None:
        paths = {fact.origin.registration: fact.origin.path for fact in self._draft.facts}
        outgoing = self._plan.outgoing
        for fact in self._draft.new.values():
            outgoing.append(_outgoing(fact, paths, _communication(fact, after)))
        for change in self._draft.changes.values():
            if not is_erased(change.after.payload):
                outgoing.append(_outgoing(change.after, paths, _communication(change.after, after)))
        told = {fact.id: fact for fact in self._draft.facts} if again else {}
        for row in again:
            if row["_id"] in self._draft.changes:
                continue  # Its next revision says all that this one does.
            if is_erased(row["payload"]):
                # Erased in between. Who said something about being contacted is heard all the same.
                if row["_id"] in told:
                    outgoing.append(_outgoing(told[row["_id"]], paths, row.get("communication_id", ""), again=True))
                continue
            outgoing.append(_outgoing(stored_fact(row), paths, row.get("communication_id", ""), again=True))


def _brought_by(row: Document, fact: Fact) -> bool:
    """Whether a message of CALLBACKS that brings ``fact`` brought the stored event too, or its present revision."""
    positions = fact.positions()
    return row["stream_seq"] in positions or not positions.isdisjoint(row.get("revised_seqs", ()))


def _first(facts: Sequence[Fact]) -> Fact:
    return facts[0] if len(facts) == 1 else min(facts, key=lambda fact: (fact.origin.received_at_us, fact.id))


def _communication(fact: Fact, messages: Mapping[str, Document | None]) -> str:
    """The communication that an event is stored with: the one that it belongs to; but a reply that is stored keeps the
    one that it has until it is settled."""
    if fact.event.kind is EventKind.INBOUND and fact.stored_communication_id is not None:
        return fact.stored_communication_id
    return _belongs_to(fact, messages)


def _belongs_to(fact: Fact, messages: Mapping[str, Document | None]) -> str:
    """The communication that an event counts in: that of its message, or its own where it has none."""
    message = messages.get(fact.message) if fact.message else None
    return message["communication_id"] if message is not None else fact.communication_id


def _outgoing(fact: Fact, paths: dict[str, str], communication_id: str, *, again: bool = False) -> Outgoing:
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
        fact.event.error_code,
        again,
    )
