"""Which message a reply answers, and for which communication it counts: the same for every order, with two copies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import Any

import pytest
from backhaul_channels import (
    Classification,
    Confidence,
    Consent,
    ConsentAction,
    ConsentBy,
    ConsentScope,
    EventKind,
    Reply,
    Review,
)
from backhaul_normalizer.model import DAY_US, Fact
from backhaul_normalizer.reviews import decided
from backhaul_normalizer.rows import stored_fact
from backhaul_proto.callback.v1.callback_pb2 import VERIFICATION_CREDENTIAL, VERIFICATION_OBSERVED_INVALID
from backhaul_proto.event.v1.event_pb2 import ANSWERED_BY_ADDRESSES, ANSWERED_BY_REFERENCE, Event
from books import Books, answered_by
from hypothesis import given, settings
from hypothesis import strategies as st
from tellings import ARRIVED_US, batch_of, facts, one_of, told
from test_plan import batches

PERSON, SHOP = "+4915112345678", "+4930123456"


def sent(name: str, at: int, **more: Any) -> Fact:
    """That a message was sent."""
    return told(
        key=f"sent {name}", kind=EventKind.SENT, name=name, at=at, **{"recipient": PERSON, "sender": SHOP, **more}
    )


def reply(key: str, at: int, *, refers_to: str = "", **more: Any) -> Fact:
    """What a person wrote."""
    return told(
        key=key,
        kind=EventKind.INBOUND,
        at=at,
        reply=Reply(refers_to) if refers_to else None,
        **{"name": f"R{key}", "provisional": False, "recipient": PERSON, "sender": SHOP, **more},
    )


def answers(*commits: Sequence[Fact] | Fact) -> dict[str, tuple[str, int, str]]:
    """What each reply answers after these commits: the message, how that is known, and the communication."""
    books = Books()
    for commit in commits:
        books.commit([commit] if isinstance(commit, Fact) else commit)
    books.check_published()
    assert books.reply_totals() == books.recount_replies()
    found = {}
    for row in books.event_rows.values():
        if row["kind"] == "inbound":
            _, message, by = answered_by(row)
            found[Event.FromString(row["payload"]).message_id] = message, by, row.get("communication_id", "")
    return found


SPRING, SUMMER = "communicationId=spring", "communicationId=summer"
NOTHING = "", 0, ""
NO_ANSWER = "", "", 0


def test_a_reply_answers_the_latest_message_between_the_same_two() -> None:
    story = [
        sent("M1", 10, query=SPRING),
        sent("M2", 20, query=SUMMER),
        sent("M3", 20, recipient="+4915100000000", query=SPRING),
        sent("M4", 20, sender="+4930000000", query=SPRING),
        reply("1", 19),
        reply("2", 20),
        reply("3", 9),
    ]
    expected = {
        "R1": ("M1", ANSWERED_BY_ADDRESSES, "spring"),
        "R2": ("M2", ANSWERED_BY_ADDRESSES, "summer"),
        "R3": NOTHING,
    }
    assert answers(story) == expected
    assert answers(*story) == expected
    assert answers(*reversed(story)) == expected


def test_addresses_are_the_same_in_whatever_form_they_are_written() -> None:
    assert answers(sent("M1", 10), reply("1", 11, recipient="+49 151 123-45678"))["R1"][0] == "M1"


def test_a_message_of_another_channel_may_be_the_latest() -> None:
    other = sent("M2", 12, channel="whatsapp")
    books = Books()
    books.commit([sent("M1", 10), other, reply("1", 15)])
    (row,) = [row for row in books.event_rows.values() if row["kind"] == "inbound"]
    assert answered_by(row) == ("whatsapp", "M2", ANSWERED_BY_ADDRESSES)


def test_a_reply_within_the_window_answers_and_a_later_one_does_not() -> None:
    found = answers(sent("M1", 1), reply("1", 1 + 7 * DAY_US), reply("2", 2 + 7 * DAY_US))
    assert found == {"R1": ("M1", ANSWERED_BY_ADDRESSES, ""), "R2": NOTHING}


def test_what_the_provider_refers_to_comes_before_what_was_sent_last() -> None:
    story = [sent("M1", 10, query=SPRING), sent("M2", 20, query=SUMMER), reply("1", 30, refers_to="M1")]
    expected = {"R1": ("M1", ANSWERED_BY_REFERENCE, "spring")}
    assert answers(*story) == answers(*reversed(story)) == expected


def test_a_reference_to_what_nobody_has_told_of_yet_counts_and_finds_its_communication_later() -> None:
    assert answers(sent("M2", 20, query=SUMMER), reply("1", 30, refers_to="M1")) == {
        "R1": ("M1", ANSWERED_BY_REFERENCE, "")
    }


def test_a_reference_to_what_a_person_wrote_says_nothing_of_what_it_answers() -> None:
    story = [sent("M1", 10), reply("1", 11), reply("2", 12, refers_to="R1")]
    assert answers(*story)["R2"] == ("M1", ANSWERED_BY_ADDRESSES, "")


def test_a_reference_by_a_further_name_leads_to_the_message_that_has_it() -> None:
    story = [reply("1", 5, refers_to="A1"), sent("M1", 10, aliases=["A1"], query=SPRING)]
    expected = {"R1": ("M1", ANSWERED_BY_REFERENCE, "spring")}
    assert answers(*story) == answers(*reversed(story)) == answers(story) == expected


def test_a_further_name_leads_a_reply_as_soon_as_somebody_told_it_who_is_trusted_as_well() -> None:
    story = [
        sent("M1", 10, aliases=["A1"], verification=VERIFICATION_OBSERVED_INVALID),
        reply("1", 20, refers_to="A1"),
        told(key="delivered M1", kind=EventKind.DELIVERED, name="M1", at=11, aliases=["A1"]),
    ]
    expected = {"R1": ("M1", ANSWERED_BY_REFERENCE, "")}
    for commits in permutations(story):
        assert answers(*commits) == answers(list(commits)) == expected


def test_a_reply_that_the_provider_files_under_the_message_answers_it() -> None:
    story = [reply("1", 30, name="M1", provisional=None), sent("M1", 10, query=SPRING), sent("M2", 20, query=SUMMER)]
    expected = {"M1": ("M1", ANSWERED_BY_REFERENCE, "spring")}
    assert answers(*story) == answers(*reversed(story)) == answers(story) == expected


def test_a_communication_that_becomes_known_later_has_the_replies_then() -> None:
    queued = told(key="q", kind=EventKind.QUEUED, name="M1", at=1, query=SPRING)
    books = Books()
    for fact in (sent("M1", 10), reply("1", 11), queued):
        books.commit([fact])
    (row,) = [row for row in books.event_rows.values() if row["kind"] == "inbound"]
    assert row["communication_id"] == "spring"
    # The message, then its communication.
    assert Event.FromString(row["payload"]).revision == 2
    assert books.reply_totals() == books.recount_replies() != {}
    books.check_published()


def test_a_duplicate_of_a_settled_reply_changes_nothing() -> None:
    books = Books()
    books.commit([sent("M1", 10, query=SPRING), reply("1", 11)])
    before = books.state()
    made = books.commit([reply("1", 11, seq=2)])
    assert (made.revisions, made.outgoing) == ({}, [])
    assert books.state() == before


def test_an_event_that_turns_out_to_be_no_reply_answers_nothing() -> None:
    """A provider's word that was read as a reply, and by its duplicate as something else."""
    clicked = told(key="1", kind=EventKind.CLICKED, name="R1", recipient=PERSON, sender=SHOP, at=11)
    books = Books()
    for fact in (sent("M1", 10, query=SPRING), reply("1", 11), clicked):
        books.commit([fact])
    (row,) = [row for row in books.event_rows.values() if row["kind"] == "clicked"]
    assert answered_by(row) == NO_ANSWER
    assert not {"waits_for", "counted", "communication_id"} & row.keys()
    assert books.reply_totals() == {}
    books.check_published()


def correspondence() -> st.SearchStrategy[Fact]:
    """What two people and a shop send each other, of which hardly anything is told in order."""

    def build(number: int, name: str, query: str, **more: Any) -> Fact:
        if number < 4:
            kinds = (EventKind.SENT, EventKind.DELIVERED, EventKind.UNKNOWN, EventKind.OPENED)
            more |= {"reply": None}
            return told(key=f"{name}{number}", kind=kinds[number], name=name, query=query, **more)
        own = {4: f"R{number}", 5: f"R{number}", 6: "M1"}[number]
        return told(key=f"r{number}", kind=EventKind.INBOUND, **{**more, "name": own, "aliases": []})

    return st.builds(
        build,
        number=st.integers(0, 6),
        name=one_of(["M1", "M2", "M3", "A1", "S1"]),
        aliases=one_of([[], ["A1"], ["S1"]]),
        query=one_of(["", SPRING, SUMMER]),
        at=one_of([ARRIVED_US - 5, ARRIVED_US - 4, ARRIVED_US - 3, ARRIVED_US - 2, ARRIVED_US - 1, None]),
        recipient=one_of([PERSON, PERSON, PERSON, "+4915100000000", ""]),
        sender=one_of([SHOP, SHOP, SHOP, ""]),
        reply=one_of([None, None, Reply("M2"), Reply("A1"), Reply("S1")]),
        seq=st.integers(1, 4),
        arrived=st.integers(ARRIVED_US, ARRIVED_US + 2),
    )


@pytest.mark.timeout(400)
@settings.get_profile("thorough")
@given(st.lists(st.one_of(correspondence(), facts()), max_size=10), st.data())
def test_two_copies_that_are_at_it_together_attribute_as_one_does(events: list[Fact], data: st.DataObject) -> None:
    """Each copy commits batches and settles what they touch, step by step and at any time. One may die in between, and
    then the batch is delivered again, to whichever copy."""
    plain = Books()
    plain.commit(events)
    books = Books()
    shuffled = data.draw(st.permutations(events))
    waiting: list[list[Fact]] = [list(some) for some in batches(shuffled, data.draw(st.lists(st.integers(0, 20))))]
    copies: list[Iterator[None] | None] = [None, None]
    taken: list[list[Fact]] = [[], []]
    deaths = 3
    while waiting or any(copies):
        which = data.draw(st.integers(0, 1))
        copy = copies[which]
        if copy is None:
            if waiting:
                taken[which] = waiting.pop(0)
                copies[which] = work(books, taken[which])
        elif deaths and not data.draw(st.integers(0, 5)):
            deaths -= 1
            waiting.append(taken[which])
            copies[which] = None
        elif next(copy, False) is False:
            copies[which] = None
    assert books.state() == plain.state()
    assert books.reply_totals() == books.recount_replies()
    books.check_published()


def work(books: Books, batch: list[Fact]) -> Iterator[None]:
    """What a copy does with a batch."""
    made = books.store(batch_of(batch))
    outgoing = list(made.outgoing)
    yield from books.settling(made.touched, outgoing)
    yield
    books.publish(outgoing)


LIKELY = Classification(Confidence.LIKELY, ConsentAction.OPT_OUT, "CANCEL", (), False, ConsentScope.GROUP, "7")
BY_TENANT = Consent(ConsentBy.TENANT, ConsentAction.OPT_OUT, "CANCEL", ConsentScope.GROUP, "7")


def flagged(seq: int, *, text: str = "cancel it?", **more: Any) -> Fact:
    """A reply that is to be looked at."""
    return reply("f", 20, seq=seq, text=text, **{"classification": LIKELY, "review": Review.FLAGGED, **more})


@pytest.mark.timeout(400)
@settings.get_profile("thorough")
@given(
    st.permutations(
        [
            flagged(1, verification=VERIFICATION_OBSERVED_INVALID),
            flagged(2),
            flagged(3, text="cancel it? please"),
            flagged(4, classification=None, review=Review.NONE, text="Hello"),
            flagged(5, verification=VERIFICATION_CREDENTIAL, references=["x"]),
            sent("M1", 10, query=SPRING),
        ]
    ),
    st.integers(1, 6),
    one_of([Review.ACCEPTED, Review.DISMISSED]),
)
def test_what_a_tenant_decided_stays_whatever_is_told_then(told_of: list[Fact], first: int, review: Review) -> None:
    books = Books()
    for fact in told_of[:first]:
        books.commit([fact])
    flags = [row for row in books.event_rows.values() if row.get("review") == "flagged"]
    for row in flags:
        row |= {"payload": decided(stored_fact(row), review).payload, "review": review.value}
    for fact in told_of[first:]:
        books.commit([fact])
    for row in books.event_rows.values():
        if flags and row["kind"] == "inbound":
            event = stored_fact(row).event
            assert (row["review"], event.review) == (review.value, review)
            assert event.consent == (BY_TENANT if review is Review.ACCEPTED else None)


def test_a_dismissed_reply_of_which_the_provider_says_that_it_is_an_opt_out_is_one() -> None:
    books = Books()
    books.commit([flagged(1, verification=VERIFICATION_OBSERVED_INVALID)])
    (row,) = books.event_rows.values()
    row |= {"payload": decided(stored_fact(row), Review.DISMISSED).payload, "review": "dismissed"}
    stop = Consent(ConsentBy.PROVIDER, ConsentAction.OPT_OUT, "STOP")
    books.commit([flagged(2, classification=None, review=Review.NONE, consent=stop)])
    (row,) = books.event_rows.values()
    assert (row["review"], stored_fact(row).event.consent) == ("dismissed", stop)


def test_nobody_need_look_at_a_reply_of_which_it_is_known_what_it_says() -> None:
    books = Books()
    stop = Consent(ConsentBy.PROVIDER, ConsentAction.OPT_OUT, "STOP")
    for fact in (flagged(1), flagged(2, classification=None, review=Review.NONE, consent=stop)):
        books.commit([fact])
    (row,) = books.event_rows.values()
    assert "review" not in row
    assert stored_fact(row).event.review is Review.NONE
