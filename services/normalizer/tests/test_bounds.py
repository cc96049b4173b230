"""No callback makes a commit read or change more than a bounded part of what is stored, and counts stay exact."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import pytest
from backhaul_channels import EventKind
from backhaul_common.documents import Document
from backhaul_normalizer import committing, naming, plan, snapshot
from backhaul_normalizer.committing import Portions, commit_all
from backhaul_normalizer.facts import MAX_REFERENCES, message_key
from backhaul_normalizer.merge import MAX_NAMES
from backhaul_normalizer.model import Committed, Fact, Outgoing, Rejection
from backhaul_normalizer.naming import MAX_ALIASES
from backhaul_normalizer.rows import stored_fact
from backhaul_normalizer.snapshot import MAX_ANEW, MAX_BYTES, MAX_EVENTS, MAX_MOVED, TooMuchError
from backhaul_proto.callback.v1.callback_pb2 import VERIFICATION_OBSERVED_INVALID
from books import Books
from hypothesis import given, settings
from hypothesis import strategies as st
from tellings import batch_of, facts, told


class CountingBooks(Books):
    """Books that count the events that are read of them whole, since the last commit began."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[int] = []

    def _count(self, rows: Iterable[Document]) -> Iterable[Document]:
        for row in rows:
            self.read.append(len(row["payload"]))
            yield row

    def events(self, event_ids: Collection[str]) -> Iterable[Document]:
        return self._count(super().events(event_ids))

    def events_of(self, messages: Collection[str]) -> Iterable[Document]:
        return self._count(super().events_of(messages))

    def known(self, facts: Collection[Fact]) -> Iterable[Document]:
        return [{**row, "size": len(row["payload"])} for row in super().events([fact.id for fact in facts])]

    def provisional(self, messages: Collection[str], most: int) -> Iterable[Document]:
        rows = [row for row in super().events_of(messages) if row.get("alias")]
        return self._count(rows[:most])

    def message(self, name: str) -> Document:
        return self.message_rows[message_key("acme.1", "sendgrid", name)]


class BookKeeper:
    """An ``EventStore`` that keeps books, and how many events each commit had read."""

    def __init__(self, books: CountingBooks) -> None:
        self.books = books
        self.commits: list[list[int]] = []

    async def commit(self, facts: Sequence[Fact], rejections: Sequence[Rejection]) -> Committed:
        self.books.read = []
        try:
            made = self.books.commit(facts)
        finally:
            self.commits.append(self.books.read)
        return Committed(made.new, made.known, outgoing=made.outgoing)

    async def ping(self) -> None:
        raise AssertionError("nothing failed")

    async def takes_writes(self) -> None:
        raise AssertionError("nothing failed")


async def nothing_yet(events: Sequence[Outgoing]) -> None:
    raise AssertionError("it is little enough to wait for the rest of its batch")


def opened(number: int, name: str = "M1", **more: object) -> Fact:
    values = {"kind": EventKind.OPENED, "at": 10, "recipient": "b@example.com", **more}
    return told(key=f"{name}-{number}", name=name, **values)  # type: ignore[arg-type]  # told checks what it is given


def test_a_message_of_very_many_events_is_not_read_again_for_each_revision() -> None:
    books = CountingBooks()
    books.commit([opened(number, query="communicationId=spring") for number in range(MAX_ANEW + 2)])
    books.read = []
    books.commit([opened(3, by_machine=True, at=4, recipient="a@example.com", error_code="421")])
    assert len(books.read) == 1 + 1  # Books plan twice.
    message = books.message("M1")
    assert (message["kinds"], message["by_machine"]) == ({"opened": MAX_ANEW + 2}, {"opened": 1})
    assert (message["recipient"], message["error_code"]) == ("a@example.com", "421")
    assert books.totals() == books.recount()


def test_a_message_of_very_many_events_loses_its_state_with_the_event_that_had_told_it() -> None:
    books = CountingBooks()
    unverified: dict[str, Any] = {"verification": VERIFICATION_OBSERVED_INVALID}
    books.commit([told(key="x", name="A1", kind=EventKind.COMPLAINED, error_code="9", **unverified)])
    books.commit([opened(number, query="communicationId=a") for number in range(MAX_ANEW)])
    books.commit([opened(MAX_ANEW, query="communicationId=a", aliases=["A1"], **unverified)])
    assert (books.message("M1")["state"], books.message("M1")["error_code"]) == ("complained", "9")
    books.read = []
    # Somebody who can be trusted says of which message the name is.
    books.commit([told(key="y", name="M2", kind=EventKind.DELIVERED, query="communicationId=b", aliases=["A1"])])
    assert len(books.read) == 1 + 1
    assert (books.message("M1")["state"], books.message("M1")["error_code"]) == ("opened", "")
    assert books.message("M1")["event_count"] == MAX_ANEW + 1
    assert books.message("M2")["state"] == "complained"
    assert books.totals() == books.recount()


@pytest.mark.parametrize(("waiting", "moved"), [(MAX_MOVED, True), (MAX_MOVED + 1, False)])
def test_a_further_name_under_which_very_much_waits_stays_a_message_of_its_own(waiting: int, moved: bool) -> None:
    books = CountingBooks()
    books.commit([opened(number, "A1", query="communicationId=spring") for number in range(waiting)])
    books.read = []
    books.commit([opened(0, "M1", aliases=["A1"])])
    assert len(books.read) <= 2 * (waiting + 2)
    later = opened(waiting, "A1")
    books.commit([later])
    (row,) = (row for row in books.event_rows.values() if row["_id"] == later.id)
    assert (row["message"] == message_key("acme.1", "sendgrid", "M1")) is moved
    assert len(books.message_rows) == (1 if moved else 2)
    assert books.totals() == books.recount()
    books.check_published()


def test_a_message_has_so_many_further_names_and_no_more() -> None:
    books = Books()
    books.commit([opened(number, "M1", aliases=[f"A{number:02}"]) for number in range(MAX_ALIASES + 5)])
    books.commit([opened(0, f"A{number:02}") for number in range(MAX_ALIASES + 5)])
    (message,) = (row for row in books.message_rows.values() if row["message_id"] == "M1")
    assert len(message["aliases"]) == MAX_ALIASES
    assert message["event_count"] == MAX_ALIASES + 5 + MAX_ALIASES
    assert len(books.message_rows) == 1 + 5


def test_duplicates_of_one_event_tell_so_many_further_names_and_no_more() -> None:
    def named(number: int, **more: Any) -> Fact:
        return told(key="1", kind=EventKind.OPENED, aliases=[f"A{number}"], seq=number, **more)

    forged = [named(number, verification=VERIFICATION_OBSERVED_INVALID) for number in range(2 * MAX_NAMES)]
    genuine = named(999)
    (fact,) = batch_of([*forged, genuine])
    assert len(fact.names) == MAX_NAMES
    assert set(genuine.told_names()) <= set(fact.names)
    # The same name is one, however often it is told.
    (fact,) = batch_of(
        [
            named(1),
            *(told(key="1", kind=EventKind.OPENED, aliases=["A1"], seq=seq) for seq in range(2, 99)),
        ]
    )
    assert [name.stream_seq for name in fact.names] == [1]


def test_duplicates_add_so_many_references_to_an_event_and_no_more() -> None:
    told_of = [opened(1, references=[f"r{number:02}"]) for number in range(3 * MAX_REFERENCES)]
    for order in (told_of, told_of[::-1]):
        books = Books()
        for fact in order:
            books.commit([fact])
        (row,) = books.event_rows.values()
        expected = [f"r{number:02}" for number in range(MAX_REFERENCES)]
        assert sorted(stored_fact(row).event.references) == expected
        (message,) = books.message_rows.values()
        assert message["references"] == expected


@pytest.mark.parametrize(("events", "joined"), [(MAX_ANEW, True), (MAX_ANEW + 1, False)])
def test_a_message_of_very_many_events_stays_in_its_communication(events: int, joined: bool) -> None:
    books = Books()
    books.commit([opened(number) for number in range(events)])
    made = books.commit([opened(events, at=1, query="communicationId=late")])
    assert bool(made.communications_of) is joined
    assert books.of_communication("late")["events.opened"] == (events + 1 if joined else 0)
    assert books.totals() == books.recount()


async def test_a_batch_that_needs_too_much_of_what_is_stored_is_committed_in_parts() -> None:
    books = CountingBooks()
    messages = [f"M{number}" for number in range(60)]
    for name in messages:
        books.commit([opened(number, name) for number in range(MAX_ANEW)])
    revisions = [opened(5, name, by_machine=True) for name in messages]
    with pytest.raises(TooMuchError):
        books.commit(revisions)
    keeper = BookKeeper(books)
    done = await commit_all(keeper, revisions, [], lambda *_: [], nothing_yet, Portions())
    assert len(done.known) == len(messages)
    assert all(books.message(name)["by_machine"] == {"opened": 1} for name in messages)
    assert max(len(read) for read in keeper.commits) <= 2 * (MAX_EVENTS + len(messages))


async def test_large_events_that_a_small_callback_revises_are_not_all_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    books = CountingBooks()
    for number in range(200):
        books.commit([opened(number, f"M{number}", error_text="x" * 100_000)])
    keeper = BookKeeper(books)
    published: list[Outgoing] = []

    async def publish(events: Sequence[Outgoing]) -> None:
        assert sum(len(event.payload) for event in events) <= 100 * 100_000 + MAX_BYTES
        published.extend(events)

    monkeypatch.setattr(committing, "HELD_BYTES", 100 * 100_000)
    revisions = [opened(number, f"M{number}", by_machine=True) for number in range(200)]
    done = await commit_all(keeper, revisions, [], lambda *_: [], publish, Portions())
    assert all(row["by_machine"] == {"opened": 1} for row in books.message_rows.values())
    assert max(sum(read) for read in keeper.commits) <= 2 * (MAX_BYTES + 200_000)
    assert len(published) >= 100
    assert sorted(event.id for event in [*published, *done.outgoing]) == sorted(books.event_rows)


async def test_events_that_each_tell_many_further_names_are_committed_in_parts() -> None:
    keeper = BookKeeper(CountingBooks())
    told_names = [opened(number, f"A{number}", aliases=[f"S{number}-{n}" for n in range(9)]) for number in range(1000)]
    await commit_all(keeper, told_names, [], lambda *_: [], nothing_yet, Portions())
    assert len(keeper.books.message_rows) == 1000
    assert len(keeper.commits) >= 1000 * 9 // MAX_EVENTS


def test_a_single_event_is_never_too_much() -> None:
    books = CountingBooks()
    for first in range(0, MAX_ANEW, 64):
        books.commit([opened(number, error_text="x" * 100_000) for number in range(first, first + 64)])
    books.commit([opened(7, by_machine=True)])
    assert books.message("M1")["by_machine"] == {"opened": 1}
    assert books.message("M1")["event_count"] == MAX_ANEW


@pytest.mark.timeout(400)
@settings.get_profile("thorough")
@given(st.lists(facts(), max_size=12), st.data())
def test_counts_stay_exact_and_everything_is_published_beyond_every_bound(
    events: list[Fact], data: st.DataObject
) -> None:
    books = Books()

    def commit(some: Sequence[Fact]) -> None:
        try:
            books.commit(some)
        except TooMuchError:
            assert len(some) > 1
            commit(some[: len(some) // 2])
            commit(some[len(some) // 2 :])

    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (plan, "MAX_ANEW"),
            (naming, "MAX_MOVED"),
            (naming, "MAX_ALIASES"),
            (naming, "MAX_EVENTS"),
            (snapshot, "MAX_EVENTS"),
        ):
            patch.setattr(module, name, data.draw(st.integers(0, 2)))
        while events:
            size = data.draw(st.integers(1, len(events)))
            commit(batch_of(events[:size]))
            events = events[size:]
            assert books.totals() == books.recount()
            for row in books.message_rows.values():
                own = [event for event in books.event_rows.values() if event.get("message") == row["_id"]]
                assert row["event_count"] == len(own) > 0
                assert row["state"] in {event["kind"] for event in own} | {"unknown"}
    books.check_published()
