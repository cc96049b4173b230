"""Whatever is committed, in whatever order: MongoDB answers every question as books in memory do."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_normalizer import buckets, eventlists, timelines, writing
from backhaul_normalizer.facts import message_key
from backhaul_normalizer.model import Fact, Outgoing
from backhaul_normalizer.reads import MongoReads
from backhaul_normalizer.store import INDEXES, MongoEventStore
from bookreads import BookReads, Span, flat, shown
from books import Books
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from normalizer_rig import Rig
from storedbooks import stored_books
from tellings import batch_of, facts

one_of = st.sampled_from
MESSAGES: dict[str, list[Any]] = {
    "channel": ["sendgrid", "twilio"],
    "state": ["delivered", "opened"],
    "fulfilment": ["Sent", "Failed"],
    "address": ["a@example.com", "b@example.com"],
    "communication_id": ["a", "b", "z"],
    "error_code": ["421", "511"],
    "references": ["x", "y"],
}
REPLIES: dict[str, list[Any]] = {
    "channel": ["sendgrid", "twilio"],
    "review": ["flagged"],
    "address": ["a@example.com", "b@example.com"],
    "communication_id": ["a", "b", "z"],
}
EVENTS: dict[str, list[Any]] = {
    "channel": ["sendgrid", "twilio"],
    "kind": ["queued", "delivered", "opened", "inbound"],
    "address": ["a@example.com", "b@example.com"],
    "communication_id": ["a", "b", "z"],
    "error_code": ["421", "511"],
    "message": [message_key("acme.1", "sendgrid", name) for name in ("M1", "M2", "A1")],
}


class Batch:
    """What a copy commits at once, and whether it dies before it publishes."""

    def __init__(self, facts: list[Fact], *, dies: bool) -> None:
        self.facts = facts
        self.dies = dies

    def __repr__(self) -> str:
        told = [f"{one.event.kind.value} of {one.event.message_id or 'none'}" for one in self.facts]
        return f"<{', '.join(told)}{' and dies' if self.dies else ''}>"


@st.composite
def batches(draw: st.DrawFn) -> list[Batch]:
    some = draw(st.lists(st.tuples(st.lists(facts("twilio"), min_size=1, max_size=6), st.booleans()), max_size=6))
    return [Batch(told, dies=dies) for told, dies in some]


@dataclass
class Bounds:
    """How much fits where, for one example."""

    refs: int
    events: int
    grown: int
    timeline: int

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(writing, "MAX_REFS", self.refs)
        patch.setattr(buckets, "MAX_EVENTS", self.events)
        patch.setattr(writing, "MAX_GROWN_BYTES", self.grown)
        patch.setattr(timelines, "MAX_TIMELINE", self.timeline)
        patch.setattr(buckets, "MAX_SPAN_US", 2)
        patch.setattr(eventlists, "AT_ONCE", 3)


def bounds() -> st.SearchStrategy[Bounds]:
    return st.builds(
        lambda refs, events, grown, further: Bounds(refs, events, grown, refs + further),
        one_of([1, 2, 3, 128]),
        one_of([1, 3, 32]),
        one_of([0, 150, 1 << 17]),
        one_of([0, 1, 900]),
    )


@pytest.mark.timeout(400)
@settings(
    max_examples=settings.default.max_examples // 5 if settings.default else 20,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(batches(), bounds(), st.integers(0, 1 << 16))
async def test_every_read_is_that_of_books(town: Rig, batches: list[Batch], bounds: Bounds, seed: int) -> None:
    """Batches come to two copies in turn, and some copy dies when it has committed; then the batch comes again."""
    for name in INDEXES:
        await town.database[name].delete_many({})
    with pytest.MonkeyPatch.context() as patch:
        bounds.apply(patch)
        stores = itertools.cycle([MongoEventStore(town.client, town.database) for _ in range(2)])
        books, published = Books(), Books()
        again = [Batch(batch.facts, dies=False) for batch in batches if batch.dies]
        for batch in [*batches, *again]:
            books.commit(batch.facts, published=not batch.dies)
            committed = await next(stores).commit(batch_of(batch.facts), [])
            if not batch.dies:
                publish(published, committed.outgoing)
            kept = await stored_books(town)
            assert kept.state() == books.state()
            assert way(kept) == way(books)
            assert published.published == books.published
        await ask(MongoReads(town.database), BookReads(books, bounds.timeline), random.Random(seed))  # noqa: S311  # choices that can be repeated, no secret


def way(books: Books) -> dict[str, Any]:
    """By what each event became what it is, for when that is delivered again."""
    names = ("stream_seq", "revised_seqs", "moved_by", "left")
    return {key: [row.get(name) for name in names] for key, row in books.event_rows.items()}


def publish(books: Books, outgoing: Sequence[Outgoing]) -> None:
    """As a consumer of EVENTS keeps them."""
    books.publish(outgoing)


async def ask(reads: MongoReads, books: BookReads, chance: random.Random) -> None:
    """Every question with each filter, and with each pair of them; of a span, and in pages."""
    for method, known in (("messages", MESSAGES), ("replies", REPLIES), ("events", EVENTS)):
        for names in itertools.chain([()], itertools.combinations(known, 1), itertools.combinations(known, 2)):
            filters = {name: chance.choice(known[name]) for name in names}
            span = chance.choice([(0, 0), (0, 0), (101, 0), (0, 102), (101, 103)])
            size = chance.choice([1, 2, 5, 500])
            found = await pages_of(reads, method, filters, span, size)
            expected = getattr(books, method)(filters, span)
            assert (found if method == "messages" else shown(found)) == expected, (method, filters, span, size)
    names = ("M1", "M2", "A1", "S1", "x", "y", "nothing")
    for channel, name in itertools.product(("sendgrid", "twilio"), names):
        assert await timeline(reads, channel, name) == timeline_in(books, channel, name), (channel, name)
    for communication_id in ("a", "b", "0", "z"):
        document = await reads.communication("acme.1", communication_id)
        assert (flat(document) if document is not None else None) == books.communication(communication_id)
    for channel, code, span in itertools.product(("", "sendgrid", "twilio"), ("", "421"), ((0, 0), (101, 103))):
        assert await reads.errors("acme.1", channel, code, span) == books.errors(channel, code, span)


async def pages_of(reads: MongoReads, method: str, filters: Document, span: Span, size: int) -> list[Document]:
    found: list[Document] = []
    token = ""
    while True:
        rows, token = await getattr(reads, method)("acme.1", filters, span, size, token)
        assert len(rows) == size or not token
        found += rows
        if not token:
            return found


async def timeline(reads: MongoReads, channel: str, name: str) -> Any:
    try:
        found = await reads.message("acme.1", channel, name)
    except BackhaulError as exc:
        return exc.code
    return (found.message, shown(found.events), found.more) if found is not None else None


def timeline_in(books: BookReads, channel: str, name: str) -> Any:
    try:
        return books.message(channel, name)
    except LookupError:
        return Code.FAILED_PRECONDITION
