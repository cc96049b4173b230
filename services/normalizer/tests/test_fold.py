"""Folding gives the same states and counts for every order, every split into batches, and every duplication."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from backhaul_channels import EventKind, NormalizedEvent
from backhaul_common.mongo import Document
from backhaul_normalizer.facts import Fact, Origin, message_key
from backhaul_normalizer.fold import Fold
from hypothesis import given, settings
from hypothesis import strategies as st

SMALL = st.sampled_from


def facts() -> st.SearchStrategy[Fact]:
    """Events of a few messages, which disagree about everything that they can disagree about."""

    def build(
        message_id: str, kind: EventKind, communication: str, error: str, recipient: str, invalid: bool, at: int
    ) -> Fact:
        # Of an event that has a message, two callbacks with the same id may tell different things; what belongs to no
        # message is counted by its communication, which is a part of what it is.
        identity = "/".join([message_id, kind.value, "" if message_id else communication, str(at % 2)])
        return Fact(
            id=identity,
            origin=Origin("acme", "acme.1", "twilio", "twilio", at, 1, [], b""),
            event=NormalizedEvent(
                kind=kind,
                key=identity,
                provider_status="",
                message_id=message_id,
                recipient=recipient,
                error_code=error,
                invalid_recipient=invalid,
            ),
            message=message_key("acme", "twilio", message_id) if message_id else "",
            communication_id=communication,
            occurred_at_us=at,
            payload=b"",
        )

    return st.builds(
        build,
        SMALL(["", "SM1", "SM2"]),
        st.sampled_from(list(EventKind)),
        SMALL(["", "a", "b"]),
        SMALL(["", "30003", "30006"]),
        SMALL(["", "+1", "+2"]),
        st.booleans(),
        st.integers(1, 4),
    )


class Books:
    """What MongoDB would hold: applies folds as the store does, an event once."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.messages: dict[str, Document] = {}
        self.communications: dict[str, dict[str, Any]] = {}

    def commit(self, batch: Sequence[Fact]) -> None:
        first: dict[str, Fact] = {}
        duplicates = [fact for fact in batch if fact.id in self.seen or first.setdefault(fact.id, fact) is not fact]
        new = list(first.values())
        self.seen.update(first)
        before = copy.deepcopy(self.messages)
        fold = Fold(self.messages).add(new, duplicates)
        assert self.messages == before  # Folding does not touch what is stored: a transaction may be tried again.
        self.messages.update(copy.deepcopy(fold.messages))
        for delta in fold.communications.values():
            row = self.communications.setdefault(
                delta.communication_id, {"messages": 0, "fulfilment": {}, "events": {}, "last": 0}
            )
            row["messages"] += delta.messages
            row["last"] = max(row["last"], delta.last_us)
            for name, changes in (("fulfilment", delta.fulfilment), ("events", delta.events)):
                for key, change in changes.items():
                    row[name][key] = row[name].get(key, 0) + change

    def counts(self) -> dict[str, Any]:
        """Counts without zeros; a communication that a message only passed through has none."""
        rows = {
            key: (
                row["messages"],
                {k: v for k, v in row["fulfilment"].items() if v},
                {k: v for k, v in row["events"].items() if v},
            )
            for key, row in self.communications.items()
        }
        return {key: row for key, row in rows.items() if row != (0, {}, {})}

    def states(self) -> dict[str, Document]:
        return {
            key: {name: value for name, value in message.items() if name != "created_at_us"}
            for key, message in self.messages.items()
        }

    def recount(self) -> dict[str, Any]:
        """The counts, worked out anew from the messages and the events that belong to none."""
        rows: dict[str, tuple[int, dict[str, int], dict[str, int]]] = {}
        for message in self.messages.values():
            if message["communication_id"]:
                number, fulfilment, events = rows.get(message["communication_id"], (0, {}, {}))
                if message["fulfilment"]:
                    fulfilment[message["fulfilment"]] = fulfilment.get(message["fulfilment"], 0) + 1
                for kind, count in message["kinds"].items():
                    events[kind] = events.get(kind, 0) + count
                rows[message["communication_id"]] = (number + 1, fulfilment, events)
        for identity in self.seen:
            message_id, kind, communication, _ = identity.split("/")
            if not message_id and communication:
                number, fulfilment, events = rows.get(communication, (0, {}, {}))
                events[kind] = events.get(kind, 0) + 1
                rows[communication] = (number, fulfilment, events)
        return rows


def batches(events: Sequence[Fact], cuts: Sequence[int]) -> list[Sequence[Fact]]:
    edges = [0, *sorted({cut % (len(events) + 1) for cut in cuts}), len(events)]
    return [events[start:end] for start, end in pairwise(edges)]


@settings(max_examples=600)
@given(st.lists(facts(), max_size=12), st.data())
def test_order_duplicates_and_batching_do_not_matter(events: list[Fact], data: st.DataObject) -> None:
    plain = Books()
    plain.commit(events)
    repeated = events + data.draw(st.lists(st.sampled_from(events), max_size=6)) if events else []
    shuffled = data.draw(st.permutations(repeated))
    other = Books()
    for batch in batches(shuffled, data.draw(st.lists(st.integers(0, 20), max_size=4))):
        other.commit(batch)
    assert other.states() == plain.states()
    assert other.counts() == plain.counts()
    assert other.counts() == other.recount()
    assert plain.counts() == plain.recount()
