"""What MongoDB would hold, in dictionaries, and events to fill it with."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from backhaul_channels import ChannelSettings, EventKind, NormalizedEvent
from backhaul_common.mongo import Document
from backhaul_normalizer.facts import Fact, fact, origin, stored_fact
from backhaul_normalizer.merge import together
from backhaul_normalizer.plan import Plan, plan
from backhaul_proto.callback.v1.callback_pb2 import VERIFICATION_VERIFIED, Callback

_OF_THE_WAY = ("created_at_us", "version", "aliases")
"""When a message was first heard of, how often it was written, and which joins need not be looked up again."""


def told(
    *,
    key: str = "1",
    kind: EventKind = EventKind.DELIVERED,
    name: str = "M1",
    aliases: Sequence[str] = (),
    at: int | None = None,
    arrived: int = 100,
    query: str = "",
    verification: int = VERIFICATION_VERIFIED,
    seq: int = 1,
    signed: bool = True,
    **more: Any,
) -> Fact:
    """An event as a callback tells it. Names with A are further ones of those with M, names with S of both."""
    callback = Callback(
        id=f"c{seq}",
        tenant_id="acme",
        registration="acme.1",
        channel="sendgrid",
        provider="sendgrid",
        url=f"https://x.example.com/api/postevents?{query}",
        received_at_us=arrived,
        verification=verification,  # type: ignore[arg-type]  # an enum's value
    )
    event = NormalizedEvent(
        kind=kind,
        key=key,
        provider_status=kind.value,
        message_id=name,
        provisional=name.startswith(("A", "S")),
        aliases=[alias for alias in aliases if name and alias[0] > name[0]] if name[:1] != "M" else list(aliases),
        occurred_at_us=at,
        **more,
    )
    common = origin(callback, seq, "acme", frozenset(), url_is_signed=signed)
    return fact(common, f"{key}{name}".encode(), event, ChannelSettings())


def batch_of(facts: Iterable[Fact]) -> list[Fact]:
    """``facts`` with each event once, as the consumer hands them to the store."""
    found: dict[str, Fact] = {}
    for one in facts:
        kept = found.get(one.id)
        found[one.id] = one if kept is None else together(kept, one)
    return list(found.values())


class Books:
    """A ``Snapshot`` of itself, that applies plans as the store does."""

    def __init__(self) -> None:
        self.event_rows: dict[str, Document] = {}
        self.message_rows: dict[str, Document] = {}
        self.join_rows: dict[str, Document] = {}
        self.counts: dict[str, Counter[str]] = {}
        self.published: dict[str, tuple[int, bytes]] = {}

    def known(self, event_ids: Collection[str]) -> Iterable[Document]:
        return self.events(event_ids)

    def events(self, event_ids: Collection[str]) -> Iterable[Document]:
        return [copy.deepcopy(self.event_rows[key]) for key in event_ids if key in self.event_rows]

    def events_of(self, messages: Collection[str]) -> Iterable[Document]:
        return [copy.deepcopy(row) for row in self.event_rows.values() if row.get("message") in messages]

    def moved_by(self, registrations: Collection[str], positions: Collection[int]) -> Iterable[Document]:
        return [
            copy.deepcopy(row)
            for row in self.event_rows.values()
            if row["registration"] in registrations and row.get("alias") and row.get("revised_seq") in positions
        ]

    def messages(self, keys: Collection[str]) -> Iterable[Document]:
        return [copy.deepcopy(self.message_rows[key]) for key in keys if key in self.message_rows]

    def joins(self, keys: Collection[str]) -> Iterable[Document]:
        return [copy.deepcopy(self.join_rows[key]) for key in keys if key in self.join_rows]

    def commit(self, facts: Sequence[Fact], *, published: bool = True) -> Plan:
        """``published`` is false where the process dies before it publishes."""
        made = plan(self, batch_of(facts))
        again = plan(self, batch_of(facts))
        assert made.events == again.events  # Planning changes nothing: a transaction may be tried again.
        for key, communication_id in made.communications_of.items():
            for row in self.event_rows.values():
                if row.get("message") == key:
                    row["communication_id"] = communication_id
        for event_id, document in made.revisions.items():
            fixed = ("_id", "registration", "channel", "received_at_us", "stream_seq")
            self.event_rows[event_id] = {name: self.event_rows[event_id][name] for name in fixed} | document
        for rows, new, changed in (
            (self.event_rows, made.events, []),
            (self.message_rows, made.new_messages, made.messages),
            (self.join_rows, made.new_joins, made.joins),
        ):
            for document in new:
                assert document["_id"] not in rows
                rows[document["_id"]] = document
            for document in changed:
                assert document["_id"] in rows
                rows[document["_id"]] = document
        for key in made.gone_messages:
            del self.message_rows[key]
        for delta in made.communications:
            self.counts.setdefault(delta.communication_id, Counter()).update(delta.changes())
        for event in made.outgoing if published else ():
            revision, _ = self.published.get(event.id, (-1, b""))
            assert event.revision >= revision
            self.published[event.id] = event.revision, event.payload
        return made

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
        }

    def totals(self) -> dict[str, dict[str, int]]:
        """The counts without zeros: a communication that a message only passed through has none."""
        totals = {key: {name: n for name, n in row.items() if n} for key, row in self.counts.items()}
        return {key: row for key, row in totals.items() if row}

    def recount(self) -> dict[str, dict[str, int]]:
        """The counts, worked out anew from the messages and the events that belong to none."""
        rows: dict[str, Counter[str]] = {}
        for message in self.message_rows.values():
            if message["communication_id"]:
                row = rows.setdefault(message["communication_id"], Counter())
                row["messages"] += 1
                if message["fulfilment"]:
                    row[f"fulfilment.{message['fulfilment']}"] += 1
        people: dict[tuple[str, str, str], int] = {}
        for event in self.event_rows.values():
            communication_id = event.get("communication_id", "")
            message = event.get("message", "")
            if not communication_id:
                continue
            row = rows.setdefault(communication_id, Counter())
            row[f"events.{event['kind']}"] += 1
            if event["kind"] not in ("opened", "clicked"):
                continue
            if stored_fact(event).event.by_machine:
                row[f"by_machine.{event['kind']}"] += 1
            elif message:
                people[communication_id, message, event["kind"]] = 1
        for communication_id, _, kind in people:
            rows[communication_id][f"unique.{kind}"] += 1
        return {key: dict(row) for key, row in rows.items()}


def _told(row: Document) -> dict[str, Any]:
    fact = stored_fact(row)
    event = fact.event
    return {
        "message": row.get("message", ""),
        "alias": row.get("alias", ""),
        "kind": row["kind"],
        "address": row.get("address", ""),
        "communication_id": row.get("communication_id", ""),
        "error_code": row.get("error_code", ""),
        "occurred_at_us": row["occurred_at_us"],
        "own_communication_id": fact.communication_id,
        "verification": fact.origin.verification,
        "event": (event.message_id, event.recipient, event.error_code, event.error_text, event.text, event.by_machine),
        "vars": set(event.vars),
        "references": set(event.references),
        "attributes": dict(event.attributes),
    }
