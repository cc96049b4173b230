"""Which batch and which member an event names its message to be of, and what duplicates make of that."""

from __future__ import annotations

from functools import reduce
from itertools import permutations
from typing import Any

import pytest
from backhaul_channels import ChannelSettings, EventKind, NormalizedEvent
from backhaul_normalizer.facts import fact, origin
from backhaul_normalizer.merge import merge, together
from backhaul_normalizer.model import Fact
from backhaul_normalizer.rows import event_document, stored_fact
from backhaul_proto.callback.v1.callback_pb2 import (
    VERIFICATION_OBSERVED_INVALID,
    VERIFICATION_OFF,
    VERIFICATION_VERIFIED,
    Callback,
)
from backhaul_proto.event.v1.event_pb2 import Event
from hypothesis import given
from hypothesis import strategies as st
from tellings import told

SETTINGS = ChannelSettings(batch_keys=("wave", "batchId"), member_keys=("person",))


def named(
    query: str = "",
    *,
    vars: tuple[tuple[str, str], ...] = (),  # noqa: A002  # as events have them.
    settings: ChannelSettings = SETTINGS,
    signed: bool = True,
    **own: Any,
) -> Fact:
    """An event whose callback's URL has ``query``, beside a message with the parameters ``vars``."""
    callback = Callback(
        id="c1", registration="acme.1", channel="c", provider="p", url=f"https://x.example.com/?{query}"
    )
    event = NormalizedEvent(EventKind.SENT, "1", "sent", message_id="M1", vars=list(vars), **own)
    return fact(origin(callback, 1, "acme", frozenset(), url_is_signed=signed), b"{}", event, settings)


def place(fact: Fact) -> tuple[str, str, str]:
    """Communication, batch and member, as all of the fact says alike."""
    event = Event.FromString(fact.payload)
    found = fact.communication_id, fact.batch_id, fact.member_key
    assert (event.communication_id, event.batch_id, event.member_key) == found
    again = stored_fact(event_document(fact, fact.communication_id))
    assert (again.communication_id, again.batch_id, again.member_key) == found
    return found


@pytest.mark.parametrize(
    ("query", "more", "expected"),
    [
        ("", {}, ("", "", "")),
        ("other=1", {}, ("", "", "")),
        ("offerId=o&WAVE=b&Person=m", {}, ("o", "b", "m")),
        ("batchId=second&wave=first", {}, ("", "first", "")),
        ("wave=&batchId=b&person=m&person=n", {}, ("", "b", "m")),
        # What the message has itself is nearer to it.
        ("offerId=url&wave=url&person=url", {"vars": (("wave", "own"), ("person", ""))}, ("url", "own", "url")),
        ("", {"vars": (("person", "m"), ("campaign", "c"))}, ("c", "", "m")),
        # The sender's own word is the nearest.
        ("offerId=o&wave=b&person=m", {"communication_id": "O", "member_key": "M"}, ("O", "b", "M")),
        ("", {"communication_id": "O", "batch_id": "B", "member_key": "M"}, ("O", "B", "M")),
        # What is longer is no id.
        (f"wave={'b' * 513}&batchId=b&person={'m' * 513}", {}, ("", "b", "")),
        # A default names the communication alone.
        (
            "",
            {
                "vars": (("campaign", "c"), ("wave", "b"), ("person", "m")),
                "default_parameters": ["campaign", "wave", "person"],
            },
            ("c", "", ""),
        ),
    ],
)
def test_an_event_names_a_batch_and_a_member(query: str, more: Any, expected: tuple[str, str, str]) -> None:
    assert place(named(query, **more)) == expected


def test_the_usual_keys_are_those_of_dispatch() -> None:
    assert place(named("communicationId=c&batchId=b&memberId=m", settings=ChannelSettings())) == ("c", "b", "m")
    assert place(named("communicationId=c&batch_id=b&member_key=m", settings=ChannelSettings())) == ("c", "b", "m")


def test_who_lacks_a_place_gets_it_from_a_duplicate() -> None:
    bare, having = named(), named("wave=b&person=m")
    for merged in (merge(bare, having), merge(having, bare), together(bare, having), together(having, bare)):
        assert place(merged) == ("", "b", "m")
    assert merge(having, bare) is having


def test_of_two_places_one_stands_as_a_whole() -> None:
    facts = [named(f"wave={batch}&person={member}") for batch, member in (("1", "z"), ("2", "a"), ("3", ""), ("", "0"))]
    for order in permutations(facts):
        assert place(reduce(merge, order)) == ("", "1", "z")
        assert place(reduce(together, order)) == ("", "1", "z")
    assert place(merge(named("wave=b"), named("person=m"))) == ("", "", "m")


def test_what_nobody_signed_joins_nothing_by_a_duplicate() -> None:
    bare, forged = named("x=1", signed=False), named("offerId=o&wave=b&person=m", signed=False)
    assert place(merge(bare, forged)) == ("", "", "")
    assert place(together(bare, forged)) == ("", "", "")
    # Of what was signed, the body's parameters, it is believed.
    assert place(merge(bare, named("wave=url", vars=(("wave", "own"),), signed=False))) == ("", "own", "")


def test_what_is_less_trusted_completes_nothing() -> None:
    bare = told(seq=1)
    forged = told(query="batchId=b&memberId=m", verification=VERIFICATION_OBSERVED_INVALID, seq=2)
    assert place(merge(bare, forged)) == ("", "", "")
    assert place(merge(forged, bare)) == ("", "", "")
    assert place(merge(forged, told(query="batchId=c", seq=3))) == ("", "c", "")


def test_what_is_trusted_better_takes_nothing_from_the_sender() -> None:
    """A provider's API is believed more than callbacks of a channel that verifies none, and knows no URL."""
    query = "communicationId=c&batchId=b&memberId=m&offer=7"
    heard = told(query=query, verification=VERIFICATION_OFF, error_code="421", text="heard", seq=1)
    record = told(error_code="511", arrived=200, seq=2)
    for merged in (merge(heard, record), merge(record, heard), together(heard, record), together(record, heard)):
        assert place(merged) == ("c", "b", "m")
        event = Event.FromString(merged.payload)
        assert (event.communication_id, event.batch_id, event.member_key) == ("c", "b", "m")
        assert ("offer", "7") in {(pair.name, pair.value) for pair in event.vars}
        # What the provider says is the better one's alone.
        assert (event.error_code, event.text, event.verification) == ("511", "", VERIFICATION_VERIFIED)
        assert merge(merged, record) is merged
        assert merge(merged, heard) is merged
    # Who came first is believed as to its own URL, signed or not.
    unsigned = told(query=query, verification=VERIFICATION_OFF, signed=False)
    assert place(merge(unsigned, record)) == ("c", "b", "m")
    assert place(merge(record, unsigned)) == ("", "", "")
    assert place(merge(unsigned, told(query="communicationId=a&batchId=a"))) == ("a", "b", "m")


places = st.tuples(st.sampled_from(["", "1", "2"]), st.sampled_from(["", "p", "q"]))


@given(st.lists(places, min_size=1, max_size=5), st.data())
def test_the_order_of_duplicates_does_not_matter(told_places: list[tuple[str, str]], data: st.DataObject) -> None:
    facts = [named(f"wave={batch}&person={member}") for batch, member in told_places]
    shuffled = data.draw(st.permutations(facts))
    cut = data.draw(st.integers(1, len(shuffled)))
    apart = reduce(merge, shuffled[cut:], reduce(together, shuffled[:cut]))
    assert place(apart) == place(reduce(merge, facts))
    assert place(apart)[1:] in told_places
