"""Which message an event belongs to that uses a further name, and what moves when such a name is told."""

from __future__ import annotations

from dataclasses import dataclass

from backhaul_common.documents import Document

from backhaul_normalizer.draft import Change, Draft
from backhaul_normalizer.facts import message_key
from backhaul_normalizer.joins import Joins, Lead, Target
from backhaul_normalizer.merge import revised
from backhaul_normalizer.model import Fact, Name
from backhaul_normalizer.rows import stored_fact
from backhaul_normalizer.snapshot import MAX_EVENTS, MAX_MOVED, MAX_MOVED_BYTES

MAX_ALIASES = 16
"""Further names of one message that lead to it; those that were told first. Providers have two or three."""


@dataclass(slots=True)
class _Told:
    """Where a further name may lead, and the event that told it."""

    lead: Lead
    name: Name
    fact: Fact


class Naming:
    """Settles a draft's further names, once it is known which of its events are new and which change.

    Afterwards ``new_joins`` and ``joins`` are the joins that are to be written, and ``led_elsewhere`` the names that
    lead elsewhere by them.
    """

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self.new_joins: list[Document] = []
        self.joins: list[Document] = []
        self.led_elsewhere: dict[str, str] = {}

    def settle(self) -> None:
        """Move what used a further name of a message to the message that has it."""
        told = self._told()
        using = [fact for fact in self._draft.new.values() if fact.alias]
        using += [change.after for change in self._draft.changes.values() if change.after.alias]
        if not told and not using:
            return
        self._draft.allowance.take(sum(map(len, told.values())) + len(using), 0)
        joins = Joins(self._draft.snapshot, {*told, *(fact.alias for fact in using)})
        self._lead(joins, told, relied_on=bool(using))
        for fact in using:
            root = joins.root(fact.alias, fact.trust)
            if root.message_id and root.key != fact.message:
                self._rename(fact, root)
            joins.touch(fact.alias, fact.origin.registration)
        self._draft.load(fact.message for fact in self._draft.new.values() if fact.alias)
        self._draft.load(change.after.message for change in self._draft.changes.values())
        self.new_joins, self.joins = joins.written()
        self.led_elsewhere = joins.led_elsewhere()

    def _told(self) -> dict[str, list[_Told]]:
        """The further names that may lead elsewhere now, by their keys."""
        told: dict[str, list[_Told]] = {}
        before, aliases = self._draft.before, self._draft.aliases
        for fact, names in self._draft.names:
            for name in sorted(names):
                # A message keeps the names that were told already, so that they are not looked up for each event.
                known = aliases.get(name.message) or dict(before.get(name.message, {}).get("aliases", ()))
                if known.get(name.alias, -1) >= name.trust or (name.alias not in known and len(known) >= MAX_ALIASES):
                    continue
                aliases[name.message] = {**known, name.alias: name.trust}
                key = message_key(fact.origin.registration, fact.origin.channel, name.alias)
                if key != name.message:
                    told.setdefault(key, []).append(_Told(Lead.of(name), name, fact))
        return told

    def _lead(self, joins: Joins, told: dict[str, list[_Told]], *, relied_on: bool) -> None:
        """Let further names lead where they were told to, and move the stored events under them there; ``relied_on``
        says that new events use further names, too."""
        leads: dict[str, _Told] = {}
        for key, tells in told.items():
            best = min(tells, key=lambda one: one.lead)
            if joins.would_lead(key, best.lead):
                leads[key] = best
        # Whoever uses a name writes its join: under a name that has none nothing is stored that could be moved.
        sources = {key: joins.roots(key) if joins.is_stored(key) else set() for key in leads}
        waiting = self._waiting({source for some in sources.values() for source in some})
        for key, best in leads.items():
            rows = [row for source in sources[key] for row in waiting.get(source, ())]
            if len(rows) <= MAX_MOVED and sum(len(row["payload"]) for row in rows) <= MAX_MOVED_BYTES:
                joins.lead(key, best.lead, best.fact.origin.registration)
            else:
                # So much uses the name that it stays a message of its own.
                del sources[key]
        if waiting or relied_on:
            # Where a name leads may be a further name of yet another message.
            joins.load({leads[key].lead.target.key for key in sources})
        joins.load({row["alias"] for rows in waiting.values() for row in rows})
        for key, some in sources.items():
            for row in (row for source in some for row in waiting.get(source, ())):
                self._move(joins, row, leads[key])

    def _waiting(self, messages: set[str]) -> dict[str, list[Document]]:
        """The events of these messages that use a further name; not all of a message where they are too many to be
        moved."""
        snapshot, allowance = self._draft.snapshot, self._draft.allowance
        self._draft.load(messages)
        present = messages & self._draft.before.keys()
        found: dict[str, list[Document]] = {}
        # One query is enough for all where too many of them end the plan. Otherwise they are few messages.
        queries = [(present, MAX_EVENTS + 1)] if allowance.bounded else [({key}, MAX_MOVED + 1) for key in present]
        for keys, most in queries:
            for row in snapshot.provisional(keys, most) if keys else ():
                allowance.take(1, len(row["payload"]))
                found.setdefault(row["message"], []).append(row)
        return found

    def _move(self, joins: Joins, row: Document, cause: _Told) -> None:
        if row["_id"] in self._draft.changes:
            return  # It is moved with the other changes, by the name that it has now.
        kept = stored_fact(row)
        root = joins.root(row["alias"], kept.trust)
        if root.message_id and root.key != row["message"]:
            later = revised(kept, revision=kept.revision + 1, message=root.key, message_id=root.message_id)
            self._draft.changes[row["_id"]] = Change(kept, later, [cause.name.stream_seq], cause.fact.id)
            joins.touch(row["alias"], kept.origin.registration)

    def _rename(self, fact: Fact, target: Target) -> None:
        moved = revised(fact, revision=fact.revision, message=target.key, message_id=target.message_id)
        change = self._draft.changes.get(fact.id)
        if change is not None:
            change.after = moved
        else:
            self._draft.new[fact.id] = moved
