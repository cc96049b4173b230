"""Which message a reply answers: pure, over a snapshot of what is stored.

A reply answers the message that the provider refers to; else the one that the provider files it under, if that was
sent; else the latest that was sent between the same two addresses before it, and not longer before than the window.
All of that is a function of what is stored, so it is the same for every order.

What is read here, others change at the same time. So replies are settled after what a batch tells is committed, and
again until nothing changes any more: of two that commit, the later one sees the other's, and finds each reply that may
depend on it by what the reply waits for (``waits_for``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from backhaul_channels import Confidence, ConsentAction, EventKind
from backhaul_common.documents import Document
from backhaul_common.erased import is_erased
from backhaul_common.sizes import MAX_EVENT_BYTES
from backhaul_proto.event.v1 import event_pb2

from backhaul_normalizer.communications.documents import PROCESSED, batch_of, member_of
from backhaul_normalizer.counts import Counts, Day
from backhaul_normalizer.facts import address_of, message_key, pair_key
from backhaul_normalizer.hours import DAY_HOURS, hour_of
from backhaul_normalizer.joins import Joins, StoredJoins, Target
from backhaul_normalizer.model import KIND_NAMES, Fact, Outgoing
from backhaul_normalizer.rows import stored_fact

_LINKED_BY = ("communication_id", "address", "batch_id", "member_key", "first_at_us")
"""Fields of a message that decide for which destination it is, and whether it holds it."""


@dataclass(slots=True)
class Touched:
    """What a commit changed that replies, and links of messages to destinations, may depend on.

    ``replies`` are ids of events; ``names`` are keys of messages and of further names. ``sent`` are pairs, each with
    the time of the earliest of its messages that changed. ``delivered_again`` are those of ``names`` and ``sent`` that
    were committed before: whoever did that may have died before he published what followed. ``links`` are keys of
    messages that may be for another destination now, ``made`` those of them that were stored with the
    destination that they hold (see ``linking.Made``), ``destinations`` what messages were for that are gone, and
    ``batches`` those of which a destination changed its state, and ``processed`` the members of which one was
    processed, each with its registration. ``registrations`` are whose the others are.
    """

    replies: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    sent: dict[str, int] = field(default_factory=dict)
    delivered_again: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)
    made: dict[tuple[bytes, int], set[bytes]] = field(default_factory=dict)
    destinations: set[bytes] = field(default_factory=set)
    batches: set[bytes] = field(default_factory=set)
    processed: dict[bytes, str] = field(default_factory=dict)
    registrations: dict[str, str] = field(default_factory=dict)

    def name(self, key: str, registration: str) -> None:
        """What a name leads to, or the message itself, is another one now."""
        self.names.add(key)
        self.registrations[key] = registration

    def of(self, registrations: Collection[str]) -> Touched:
        """What of it is of these registrations."""
        own = {key for key, registration in self.registrations.items() if registration in registrations}
        sent = {pair: at_us for pair, at_us in self.sent.items() if pair in own}
        return Touched(
            self.replies, self.names & own, sent, self.delivered_again & own, registrations=self.registrations
        )

    def message(self, key: str, before: Document | None, after: Document | None) -> None:
        """A message is ``after`` now, None where it is gone."""
        self._link(key, before, after)
        sent = after is not None and "pair" in after
        if before is None or after is None:
            self.name(key, (before or after or {})["registration"])
        else:
            moved = before.get("first_at_us") != after.get("first_at_us") or before.get("pair") != after.get("pair")
            if moved or before["communication_id"] != after["communication_id"]:
                self.name(key, after["registration"])
            sent = sent and moved
        if sent:
            self._sent(after)

    def again(self, key: str, registration: str, message: Document | None) -> None:
        """A message, or a further name, of which something is delivered again. ``message`` is None where it is none."""
        self.name(key, registration)
        self.delivered_again.add(key)
        if message is not None and message["communication_id"]:
            self.links.add(key)
        if message is not None and "dest" in message:
            self.batches.add(batch_of(message["dest"]))
            if message["fulfilment"] in PROCESSED:
                self.processed[member_of(message["dest"])[0]] = registration
        if message is not None and "pair" in message:
            self._sent(message)
            self.delivered_again.add(message["pair"])

    def met_by(self, waits_for: Sequence[str], at_us: int) -> list[str]:
        """What of it a reply that was written then waits for."""
        return [key for key in waits_for if key in self.names or (key in self.sent and self.sent[key] <= at_us)]

    def _link(self, key: str, before: Document | None, after: Document | None) -> None:
        if after is None:
            if before is not None and "dest" in before:
                self.destinations.add(before["dest"])
        elif (after["communication_id"] or "dest" in after) and (
            before is None or any(before.get(name) != after.get(name) for name in _LINKED_BY)
        ):
            self.links.add(key)
            self.registrations[key] = after["registration"]

    def _sent(self, message: Document | None) -> None:
        if message is not None:
            pair, first_at_us = message["pair"], message["first_at_us"]
            self.sent[pair] = min(first_at_us, self.sent.get(pair, first_at_us))
            self.registrations[pair] = message["registration"]


class Ask(NamedTuple):
    """For the message of ``pair`` that was sent latest in a span of time, both ends included."""

    pair: str
    since_us: int
    until_us: int


class StoredReplies(StoredJoins, Protocol):
    """What is stored, as it is at one moment, for replies."""

    def replies(self, event_ids: Collection[str]) -> Iterable[Document]:
        """The stored events among these, whole: replies, or what was taken for one before more was told of it."""
        ...

    def messages(self, keys: Collection[str]) -> Iterable[Document]:
        """The stored messages among ``keys``."""
        ...

    def latest(self, asks: Collection[Ask]) -> Mapping[Ask, Document]:
        """The message that each asks for, where there is one; of two of one time the one of the greater id."""
        ...


@dataclass(slots=True)
class Settled:
    """What is to be written: ``updates`` is what is set in events, and None what is taken out of them; ``counts`` is by
    how much the replies of communications change. ``outgoing`` is to be published then."""

    updates: dict[str, Document] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    outgoing: list[Outgoing] = field(default_factory=list)

    def count(self, fact: Fact, row: Document, communication_id: str) -> None:
        """Have ``fact``, stored in ``row``, counted where and as what it counts now; where that is so already, nothing
        changes."""
        before: Document | None = row.get("counted")
        after: Document | None = None
        if communication_id and not fact.duplicate_of:
            day = hour_of(fact.occurred_at_us, fact.origin.received_at_us) // DAY_HOURS
            after = {"communication_id": communication_id, "day": day, "as": _classes(fact)}
        if before == after:
            return
        self.updates.setdefault(fact.id, {})["counted"] = after
        for counted, sign in ((before, -1), (after, +1)):
            if counted is not None:
                where = fact.origin.registration, counted["communication_id"], fact.origin.channel
                self.counts.reply(Day(*where, counted["day"]), counted["as"], sign)


@dataclass(slots=True)
class _Reply:
    fact: Fact
    row: Document
    steps: Sequence[Target] = ()
    ask: Ask | None = None


class _Answer(NamedTuple):
    """``key`` and ``communication_id`` are empty where the message is not known."""

    key: str
    channel: str
    message_id: str
    by: event_pb2.AnsweredBy.ValueType
    communication_id: str


def settle(
    stored: StoredReplies, event_ids: Collection[str], paths: Mapping[str, str], publish: Collection[str] = ()
) -> Settled:
    """What changes in these replies. ``paths`` are the queue paths of the registrations that live: what belongs to
    another is left alone. Those of ``publish`` are published even if nothing changes."""
    settled = Settled()
    replies = []
    for row in stored.replies(event_ids):
        if row["registration"] in paths and row["kind"] == EventKind.INBOUND.value:
            replies.append(_reply(row))
        elif row["registration"] in paths:
            _forget(settled, row, paths)
    joins = Joins(stored, {key for one in replies if (key := _referred(one.fact))})
    for one in replies:
        key = _referred(one.fact)
        one.steps = joins.steps(key, one.fact.trust) if key else ()
    named = {one.fact.message for one in replies} | {one.steps[-1].key for one in replies if one.steps}
    named |= {one.row.get("answers", "") for one in replies}
    messages = {row["_id"]: row for row in stored.messages(named - {""})}
    latest = stored.latest({one.ask for one in replies if one.ask and _by_name(one, messages) is None})
    for one in replies:
        answer = _by_name(one, messages)
        if answer is None and one.ask is not None and one.ask in latest:
            answer = _answer(latest[one.ask], event_pb2.ANSWERED_BY_ADDRESSES)
        if answer is None:
            # Nobody can find it by its addresses any more, and that it was the answer stays true.
            former = messages.get(one.row.get("answers", ""))
            if former is not None and ("address_expired" in former or "erased_before_us" in former):
                answer = _answer(former, event_pb2.ANSWERED_BY_ADDRESSES)
        own = messages.get(one.fact.message, {}).get("communication_id", one.fact.communication_id)
        published = _settle(settled, one, answer, own, paths)
        if not published and one.fact.id in publish and not is_erased(one.fact.payload):
            known = outgoing(one.fact, one.fact.payload, one.row.get("communication_id", ""), paths)
            known.again = True
            settled.outgoing.append(known)
    return settled


def outgoing(fact: Fact, payload: bytes, communication_id: str, paths: Mapping[str, str]) -> Outgoing:
    """A reply as it is published: with the communication that it is stored with."""
    if communication_id != fact.communication_id:
        # Protobuf reads the last of two values.
        payload += event_pb2.Event(communication_id=communication_id).SerializeToString()
    origin = fact.origin
    path = paths[origin.registration]
    kind = KIND_NAMES[fact.event.kind]
    return Outgoing(fact.id, fact.revision, path, origin.channel, kind, payload, origin.registration)


def _reply(row: Document) -> _Reply:
    fact = stored_fact(row)
    pair = pair_key(fact.origin.registration, address_of(fact.event.recipient), fact.event.sender)
    at_us = fact.occurred_at_us
    return _Reply(fact, row, ask=Ask(pair, at_us - fact.window_us, at_us) if pair else None)


def _referred(fact: Fact) -> str:
    """The key of the name by which the provider refers to a message."""
    referred = fact.event.reply.message_id if fact.event.reply is not None else ""
    return message_key(fact.origin.registration, fact.origin.channel, referred) if referred else ""


def _by_name(one: _Reply, messages: Mapping[str, Document]) -> _Answer | None:
    """The message that the provider names, in one way or the other."""
    by = event_pb2.ANSWERED_BY_REFERENCE
    if one.steps:
        named = messages.get(one.steps[-1].key)
        if named is None:
            # Nothing has been told of it yet.
            assert one.fact.event.reply is not None  # noqa: S101  # there are steps only where it refers to something
            message_id = one.steps[-1].message_id or one.fact.event.reply.message_id
            return _Answer("", one.fact.origin.channel, message_id, by, "")
        if "first_at_us" in named:
            return _answer(named, by)
        # It refers to what a person wrote, so it says nothing of what it answers.
    own = messages.get(one.fact.message)
    return _answer(own, by) if own is not None and "first_at_us" in own else None


def _answer(message: Document, by: event_pb2.AnsweredBy.ValueType) -> _Answer:
    return _Answer(message["_id"], message["channel"], message["message_id"], by, message["communication_id"])


def _settle(
    settled: Settled, one: _Reply, answer: _Answer | None, own_communication_id: str, paths: Mapping[str, str]
) -> bool:
    """Note what changes in one reply; whether it is published then."""
    fact, row = one.fact, one.row
    key, key_before = answer.key if answer else "", row.get("answers", "")
    changes: Document = {}
    if key != key_before:
        changes |= {"answers": key or None, "answered_before": key_before or None}
    # Whoever took the message away from it may have died before he published that. He is delivered again as one of the
    # message that it answered before.
    former = key_before if changes else row.get("answered_before", "")
    keys = {fact.message, one.ask.pair if one.ask else "", key, former}
    waits_for = sorted(keys.union(step.key for step in one.steps) - {""})
    communication_id = (answer.communication_id if answer else "") or own_communication_id
    payload = event_pb2.Event.FromString(row["payload"])
    before = payload.answered.SerializeToString()
    payload.ClearField("answered")
    if answer is not None:
        payload.answered.channel = answer.channel
        payload.answered.message_id = answer.message_id
        payload.answered.by = answer.by
        if payload.ByteSize() > MAX_EVENT_BYTES:
            payload.ClearField("answered")  # No stream would take it.
    if waits_for != row.get("waits_for"):
        changes["waits_for"] = waits_for
    if communication_id != row.get("communication_id", ""):
        changes["communication_id"] = communication_id or None
    if payload.answered.SerializeToString() != before or "communication_id" in changes:
        payload.revision = fact.revision + 1
        changes["payload"] = payload.SerializeToString()
    if changes:
        settled.updates[fact.id] = changes
    settled.count(fact, row, communication_id)
    if "payload" not in changes:
        return False
    fact.revision += 1
    if not is_erased(changes["payload"]):
        settled.outgoing.append(outgoing(fact, changes["payload"], communication_id, paths))
    return True


def _forget(settled: Settled, row: Document, paths: Mapping[str, str]) -> None:
    """An event that turned out to be no reply answers nothing and counts as none."""
    fact = stored_fact(row)
    settled.count(fact, row, "")
    gone: Document = {name: None for name in ("answers", "answered_before") if name in row}
    if gone:
        settled.updates.setdefault(fact.id, {}).update(gone)
    payload = event_pb2.Event.FromString(row["payload"])
    if payload.HasField("answered"):
        payload.ClearField("answered")
        payload.revision = fact.revision = fact.revision + 1
        settled.updates.setdefault(fact.id, {})["payload"] = payload.SerializeToString()
        if payload.callback_id:
            settled.outgoing.append(outgoing(fact, payload.SerializeToString(), row.get("communication_id", ""), paths))


def _classes(fact: Fact) -> list[str]:
    """As what a reply counts."""
    classes = ["all"]
    consent, said = fact.event.consent, fact.event.classification
    action = consent.action if consent is not None else None
    if action is None and said is not None and said.confidence in (Confidence.EXACT, Confidence.PROVIDER):
        action = said.action
    if action is not None:
        classes.append(_CLASS_OF[action])
    if said is not None:
        if said.survey_response:
            classes.append("survey_response")
        classes += [f"templates.{name}" for name in said.templates]
    return classes


_CLASS_OF = {ConsentAction.OPT_OUT: "stop", ConsentAction.OPT_IN: "start", ConsentAction.HELP: "help"}
