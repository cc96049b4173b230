"""What events change when others of their messages have expired in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from backhaul_channels import EventKind
from backhaul_normalizer.model import Fact
from backhaul_normalizer.states import RANK
from books import Books
from hypothesis import given, settings
from hypothesis import strategies as st
from tellings import facts, told
from test_plan import batches


def check(books: Books) -> None:
    """Whatever has expired still counts where it counted."""
    assert books.totals() == books.recount()
    assert books.reply_totals() == books.recount_replies()
    for key, message in books.message_rows.items():
        rows = [row for row in books.ever() if row.get("message") == key]
        assert message["event_count"] == len(rows)
        assert message["kinds"] == dict(Counter(row["kind"] for row in rows if not row.get("duplicate_of")))
        ranked = [kind for name in message["kinds"] if (kind := EventKind(name)) in RANK]
        assert message["state"] == max(ranked, key=RANK.__getitem__, default=EventKind.UNKNOWN).value


@pytest.mark.timeout(400)
@settings.get_profile("thorough")
@given(st.lists(facts(), max_size=12), st.data())
def test_what_has_expired_counts_as_it_did_and_is_known(events: list[Fact], data: st.DataObject) -> None:
    books = Books()
    for batch in batches(events, data.draw(st.lists(st.integers(0, 20), max_size=6))):
        # Nothing is delivered again of what is older than the streams, but where a message knows of it.
        books.commit([fact for fact in batch if fact.id not in books.forgotten_rows])
        check(books)
        before = books.totals(), books.reply_totals()
        if books.event_rows:
            books.expire(data.draw(st.lists(st.sampled_from(sorted(books.event_rows)), unique=True)))
        assert (books.totals(), books.reply_totals()) == before
        again = [fact for fact in events if fact.id in books.expired_rows]
        made = books.commit(again)
        assert made.new == []
        check(books)


def commit_all(books: Books, told_facts: Sequence[Fact]) -> None:
    for fact in told_facts:
        books.commit([fact])


def test_what_happens_once_happened_though_it_has_expired() -> None:
    books = Books()
    commit_all(books, [told(key="1", kind=EventKind.DELIVERED, name="M1", query="communicationId=a")])
    counted = next(iter(books.event_rows))
    books.expire([counted])
    commit_all(
        books,
        [
            told(key="2", kind=EventKind.DELIVERED, name="A1", seq=2),
            told(key="3", kind=EventKind.OPENED, name="M1", aliases=["A1"], seq=3),
        ],
    )
    (late,) = [row for row in books.event_rows.values() if row["kind"] == "delivered"]
    assert late["duplicate_of"] == counted
    counts = {"messages": 1, "fulfilment.Delivered": 1, "events.delivered": 1, "events.opened": 1, "unique.opened": 1}
    assert {name: n for name, n in books.of_communication("a").items() if n} == counts
    check(books)


def test_a_message_of_which_some_has_expired_loses_nothing_when_an_event_changes() -> None:
    books = Books()
    commit_all(
        books,
        [
            told(key="1", kind=EventKind.BOUNCED, name="M1", error_code="511", query="communicationId=a"),
            told(key="2", kind=EventKind.DEFERRED, name="M1", seq=2),
        ],
    )
    books.expire([row["_id"] for row in books.event_rows.values() if row["kind"] == "bounced"])
    made = books.commit([told(key="2", kind=EventKind.DEFERRED, name="M1", seq=3, text="more")])
    assert len(made.revisions) == 1
    (message,) = books.message_rows.values()
    assert (message["state"], message["error_code"]) == ("bounced", "511")
    assert message["kinds"] == {"bounced": 1, "deferred": 1}
    check(books)
