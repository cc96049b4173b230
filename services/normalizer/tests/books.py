"""What MongoDB would hold, in dictionaries."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from backhaul_channels import (
    Confidence,
)
from backhaul_common.documents import Document
from backhaul_normalizer.attribution import Ask, Touched, settle
from backhaul_normalizer.counts import Counted, Day
from backhaul_normalizer.hours import hour_of
from backhaul_normalizer.model import Fact, Outgoing
from backhaul_normalizer.plan import Plan, plan
from backhaul_normalizer.rows import event_document, stored_fact
from backhaul_proto.event.v1.event_pb2 import Event
from tellings import batch_of

_MAY_LACK = (
    "message",
    "alias",
    "once",
    "duplicate_of",
    "address",
    "communication_id",
    "error_code",
    "by_machine",
    "review",
    "waits_for",
    "window_us",
)
"""Fields that an event's row has only where they are not empty."""

_FIXED = ("received_at_us", "stream_seq")
"""What no revision changes."""

_OF_THE_WAY = ("created_at_us", "version", "aliases")
"""When a message was first heard of, how often it was written, and which joins need not be looked up again."""


Totals = dict[Day, dict[str, int]]
"""Counts by the fields of a day's documents."""


class Books:
    """A ``Snapshot`` of itself, that applies plans as the store does."""

    def __init__(self) -> None:
        self.event_rows: dict[str, Document] = {}
        self.message_rows: dict[str, Document] = {}
        self.join_rows: dict[str, Document] = {}
        self.counts: dict[Day, Counter[str]] = {}
        self.reply_counts: dict[Day, Counter[str]] = {}
        self.published: dict[str, tuple[int, bytes]] = {}
        self.sent: set[tuple[str, int]] = set()
        self.expired_rows: dict[str, Document] = {}
        """Those of which their messages still know, as they were last."""
        self.forgotten_rows: dict[str, Document] = {}
        """Those that no message knew of."""

    def expire(self, event_ids: Iterable[str]) -> None:
        """Have these events be gone, as buckets go."""
        for event_id in event_ids:
            row = self.event_rows.pop(event_id)
            (self.expired_rows if row.get("message") else self.forgotten_rows)[event_id] = row

    def ever(self) -> Iterable[Document]:
        """All events that were stored."""
        return [*self.event_rows.values(), *self.expired_rows.values(), *self.forgotten_rows.values()]

    def known(self, facts: Collection[Fact]) -> Iterable[Document]:
        ids = [fact.id for fact in facts]
        # What changed an event last was told by its bucket.
        expired = [{**self.expired_rows[key], "revised_seqs": ()} for key in ids if key in self.expired_rows]
        return [{**row, "size": len(row["payload"])} for row in [*self.events(ids), *expired]]

    def events(self, event_ids: Collection[str]) -> Iterable[Document]:
        return [copy.deepcopy(self.event_rows[key]) for key in event_ids if key in self.event_rows]

    def events_of(self, messages: Collection[str]) -> Iterable[Document]:
        return [copy.deepcopy(row) for row in self.event_rows.values() if row.get("message") in messages]

    def of_kinds(self, messages: Collection[str], kinds: Collection[str]) -> Iterable[Document]:
        expired = [
            {"_id": row["_id"], "message": row["message"], "kind": row["kind"], "expired": True}
            for row in self.expired_rows.values()
            if row["message"] in messages and row["kind"] in kinds and row.get("once") and not row.get("duplicate_of")
        ]
        return [*(row for row in self.events_of(messages) if row["kind"] in kinds), *expired]

    def provisional(self, messages: Collection[str], most: int) -> Iterable[Document]:
        return [row for row in self.events_of(messages) if row.get("alias")][:most]

    def moved_by(self, event_ids: Collection[str]) -> Iterable[Document]:
        return [copy.deepcopy(row) for row in self.event_rows.values() if row.get("moved_by") in event_ids]

    def counted(self, messages: Collection[str]) -> Mapping[str, Iterable[Counted]]:
        found: dict[str, list[Counted]] = {key: [] for key in messages}
        expired = [row for row in self.expired_rows.values() if row["message"] in messages]
        for row in [*self.events_of(messages), *expired]:
            times = row["occurred_at_us"], row["received_at_us"]
            one = Counted(row["_id"], row["kind"], *times, row.get("by_machine", False), "duplicate_of" in row)
            found[row["message"]].append(one)
        return found

    def messages(self, keys: Collection[str]) -> Iterable[Document]:
        return [copy.deepcopy(self.message_rows[key]) for key in keys if key in self.message_rows]

    def joins(self, keys: Collection[str]) -> Iterable[Document]:
        return [copy.deepcopy(self.join_rows[key]) for key in keys if key in self.join_rows]

    def replies(self, event_ids: Collection[str]) -> Iterable[Document]:
        return self.events(event_ids)

    def latest(self, asks: Collection[Ask]) -> Mapping[Ask, Document]:
        found = {}
        for ask in asks:
            sent = [
                (row["first_at_us"], row["_id"], row)
                for row in self.message_rows.values()
                if row.get("pair") == ask.pair and ask.since_us <= row["first_at_us"] <= ask.until_us
            ]
            if sent:
                found[ask] = copy.deepcopy(max(sent, key=lambda one: one[:2])[2])
        return found

    def waiting(self, touched: Touched) -> dict[str, bool]:
        """The replies that wait for what was touched, and whether one of that was delivered again."""
        found = {}
        for row in self.event_rows.values():
            if met := touched.met_by(row.get("waits_for", ()), row["occurred_at_us"]):
                found[row["_id"]] = not touched.delivered_again.isdisjoint(met)
        return found

    def settling(self, touched: Touched, outgoing: list[Outgoing]) -> Iterator[None]:
        """Settle what ``touched`` matters to, in steps, each of which the store does at one moment."""
        yield
        found = self.waiting(touched)
        publish = {event_id for event_id, again in found.items() if again}
        event_ids = touched.replies | found.keys()
        while event_ids:
            yield
            settled = settle(self, sorted(event_ids), {"acme.1": "acme"}, publish)
            for event_id, changes in settled.updates.items():
                row = self.event_rows[event_id] | changes
                self.event_rows[event_id] = {name: value for name, value in row.items() if value is not None}
            for day, counts in settled.counts.changed().items():
                self.reply_counts.setdefault(day, Counter()).update(counts)
            outgoing += settled.outgoing
            event_ids, publish = set(settled.updates), set()

    def commit(self, facts: Sequence[Fact], *, published: bool = True, steps: int | None = None) -> Plan:
        """Apply what ``facts`` change; not ``published``: whoever did it died before it could publish, and after so
        many ``steps`` of settling, if they are given."""
        made = self.store(facts)
        outgoing = list(made.outgoing)
        for _ in islice(self.settling(made.touched, outgoing), steps):
            pass
        if published:
            repeated = [event for event in outgoing if (event.id, event.revision) in self.sent]
            assert all(event.again for event in repeated)  # A consumer may ask of those alone whether it has them.
            self.publish(outgoing)
        return made

    def store(self, facts: Sequence[Fact]) -> Plan:
        """Apply what ``facts`` change, and settle nothing yet."""
        made = plan(self, batch_of(facts))
        again = plan(self, batch_of(facts))
        assert made.events == again.events  # Planning changes nothing: a transaction may be tried again.
        for key, communication_id in made.communications_of.items():
            for row in self.event_rows.values():
                if row.get("message") == key and row["kind"] != "inbound":
                    row["communication_id"] = communication_id
        for event_id, revision in made.revisions.items():
            kept = {name: value for name, value in self.event_rows[event_id].items() if name not in _MAY_LACK}
            fact = revision.fact
            document = event_document(fact, revision.communication_id) | {"revised_seqs": fact.revised_seqs}
            document |= {"left": fact.left} if fact.left else {}
            document |= {"moved_by": revision.moved_by} if revision.moved_by else {}
            assert all(document[name] == kept[name] for name in ("registration", "channel", *_FIXED))
            self.event_rows[event_id] = kept | document
        for rows, new, changed in (
            (self.event_rows, [event_document(*one) for one in made.events], []),
            (self.message_rows, made.new_messages, made.messages),
            (self.join_rows, made.new_joins, made.joins),
        ):
            for document in new:
                assert document["_id"] not in rows
                assert document["_id"] not in self.expired_rows
                rows[document["_id"]] = document
            for document in changed:
                assert document["_id"] in rows
                rows[document["_id"]] = document
        for key in made.gone_messages:
            del self.message_rows[key]
        for day, counts in made.counts.changed().items():
            self.counts.setdefault(day, Counter()).update(counts)
        self.check_once()
        return made

    def publish(self, outgoing: Iterable[Outgoing]) -> None:
        for event in outgoing:
            self.sent.add((event.id, event.revision))
            revision, _ = self.published.get(event.id, (-1, b""))
            # Of what two copies publish, the higher revision counts.
            if event.revision >= revision:
                self.published[event.id] = event.revision, event.payload

    def check_once(self) -> None:
        """Of what happens to a message once, one event counts, and all others are its duplicates."""
        for row in self.event_rows.values():
            if (of := row.get("duplicate_of")) in self.event_rows:
                assert self.event_rows[of]["message"] == row["message"]
            else:
                assert of is None or of in self.expired_rows
        slots: dict[tuple[str, str], list[str]] = {}
        for row in [*self.event_rows.values(), *self.expired_rows.values()]:
            if row.get("once"):
                slots.setdefault((row["message"], row["kind"]), []).append(row.get("duplicate_of", ""))
            else:
                assert "duplicate_of" not in row
        for (message, kind), duplicates in slots.items():
            others = [of for of in duplicates if of]
            # Where the one that counts moves on, one that has expired cannot take its place.
            fewest = 0 if self.expired_rows else 1
            assert fewest <= len(duplicates) - len(others) <= 1
            assert self.message_rows[message]["kinds"].get(kind, 0) == len(duplicates) - len(others)

    def check_published(self) -> None:
        """The latest revision of every event was published as it is stored.

        But for the communication of what is no reply, which is published as far as it is known.
        """
        assert self.published.keys() == self.event_rows.keys()
        for event_id, (_, payload) in self.published.items():
            row = self.event_rows[event_id]
            assert payload.startswith(row["payload"])
            if row["kind"] == "inbound":
                # One that its callback names stays in what is published, as none cannot be written over it.
                known = row.get("communication_id") or stored_fact(row).communication_id
                assert Event.FromString(payload).communication_id == known

    def check_settled(self) -> None:
        """Every reply answers what it should, by all that is stored."""
        settled = settle(self, sorted(self.event_rows), {"acme.1": "acme"})
        assert not settled.updates

    def state(self) -> dict[str, Any]:
        """All that must be the same in every order: not when something was first heard of, nor how often written."""
        return {
            "events": {key: _told(row) for key, row in self.event_rows.items()},
            "messages": {
                key: {name: value for name, value in row.items() if name not in _OF_THE_WAY}
                for key, row in self.message_rows.items()
            },
            # One that leads nowhere only says that somebody waits.
            "joins": {key: row["message"] for key, row in self.join_rows.items() if row["message"]},
            "counts": self.totals(),
            "replies": self.reply_totals(),
        }

    def totals(self) -> Totals:
        """The counts without zeros: a day that a message only passed through has none."""
        return _without_zeros(self.counts)

    def reply_totals(self) -> Totals:
        """The same of replies."""
        return _without_zeros(self.reply_counts)

    def of_communication(self, communication_id: str) -> Counter[str]:
        """The counts of a communication, whatever the channel, the day and the hour."""
        found: Counter[str] = Counter()
        for day, counts in self.counts.items():
            if day.communication_id == communication_id:
                for field, number in counts.items():
                    found[field.split(".", 2)[2]] += number
        return found

    def recount_replies(self) -> Totals:
        """The counts, worked out anew from the replies."""
        rows: dict[Day, Counter[str]] = {}
        for row in self.ever():
            communication_id = row.get("communication_id", "")
            if row["kind"] == "inbound" and communication_id and not row.get("duplicate_of"):
                day = Day(row["registration"], communication_id, stored_fact(row).origin.channel, _hour(row) // 24)
                rows.setdefault(day, Counter()).update(f"replies.{name}" for name in reply_classes(row))
        return _without_zeros(rows)

    def recount(self) -> Totals:
        """The counts, worked out anew from the messages and the events."""
        rows: dict[Day, Counter[str]] = {}

        def add(row: Document, communication_id: str, channel: str, hour: int, name: str) -> None:
            day = Day(row["registration"], communication_id, channel, hour // 24)
            rows.setdefault(day, Counter())[f"hours.{hour % 24}.{name}"] += 1

        people = set()
        for event in self.ever():
            if event.get("duplicate_of"):
                continue
            fact = stored_fact(event)
            message = self.message_rows.get(event.get("message", ""))
            # A reply is stored with the communication of the message that it answers, and counted there as a reply. As
            # an event it counts for its own message's.
            communication_id = message["communication_id"] if message is not None else fact.communication_id
            where = communication_id, fact.origin.channel, _hour(event)
            add(event, *where, f"events.{event['kind']}")
            if event["kind"] not in ("opened", "clicked"):
                continue
            if fact.event.by_machine:
                add(event, *where, f"by_machine.{event['kind']}")
            elif message is not None:
                people.add((message["_id"], event["kind"]))
        for message in self.message_rows.values():
            where = message["communication_id"], message["channel"], message["hour"]
            add(message, *where, "messages")
            if message["fulfilment"]:
                add(message, *where, f"fulfilment.{message['fulfilment']}")
            for kind in ("opened", "clicked"):
                if (message["_id"], kind) in people:
                    add(message, *where, f"unique.{kind}")
        return _without_zeros(rows)

    def check_hours(self) -> None:
        """Every message counts in the hour in which it was sent, or else of the first that was told of it."""
        hours: dict[str, list[tuple[bool, int]]] = {}
        for row in self.event_rows.values():
            if row.get("message"):
                outbound = row["kind"] not in ("unknown", "inbound", "subscribed", "unsubscribed")
                hours.setdefault(row["message"], []).append((not outbound, _hour(row)))
        assert {key: row["hour"] for key, row in self.message_rows.items()} == {
            key: min(some)[1] for key, some in hours.items()
        }


def _hour(event: Document) -> int:
    return hour_of(event["occurred_at_us"], event["received_at_us"])


def _without_zeros(rows: Mapping[Day, Mapping[str, int]]) -> Totals:
    totals = {day: {name: n for name, n in row.items() if n} for day, row in rows.items()}
    return {day: row for day, row in totals.items() if row}


def _told(row: Document) -> dict[str, Any]:
    fact = stored_fact(row)
    event = fact.event
    return {
        "message": row.get("message", ""),
        "alias": row.get("alias", ""),
        "duplicate_of": row.get("duplicate_of", ""),
        "kind": row["kind"],
        "address": row.get("address", ""),
        "communication_id": row.get("communication_id", ""),
        "answered": answered_by(row),
        "counted": row.get("counted"),
        "answers": row.get("answers"),
        "review": (row.get("review", ""), event.review),
        "error_code": row.get("error_code", ""),
        "occurred_at_us": row["occurred_at_us"],
        "own_communication_id": fact.communication_id,
        "place": (fact.batch_id, fact.member_key),
        "verification": fact.origin.verification,
        "event": (event.message_id, event.recipient, event.text, event.by_machine),
        "error": (event.error_code, event.error_text, event.error_class, event.error_url),
        "vars": set(event.vars),
        "parameters": (set(event.missing_parameters), set(event.default_parameters)),
        "references": set(event.references),
        "attributes": dict(event.attributes),
        "said": (event.consent, event.reply, event.recipient_family, event.classification),
    }


def answered_by(row: Document) -> tuple[str, str, int]:
    """What a stored reply answers: channel, message, and how that is known."""
    answered = Event.FromString(row["payload"]).answered
    return answered.channel, answered.message_id, answered.by


def reply_classes(row: Document) -> list[str]:
    """As what a stored reply counts."""
    event = stored_fact(row).event
    consent, said = event.consent, event.classification
    names = ["all"]
    sure = said is not None and said.confidence in (Confidence.EXACT, Confidence.PROVIDER)
    action = consent.action if consent is not None else said.action if said is not None and sure else None
    names += [{"opt_out": "stop", "opt_in": "start", "help": "help"}[action.value]] if action is not None else []
    if said is not None:
        names += ["survey_response"] if said.survey_response else []
        names += [f"templates.{name}" for name in said.templates]
    return names
