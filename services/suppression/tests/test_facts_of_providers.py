"""What the events of each provider's cases say, as its adapter really tells them; and that no order of revisions, and
no text, changes what follows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from backhaul_channels import Adapter, ConsentAction, ErrorClass, EventKind, load_adapters
from backhaul_common.tenants import SuppressionSettings
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.event.v1.event_pb2 import Event
from backhaul_suppression.facts import fact_of, proves_delivery, spread
from backhaul_suppression.fold import fold
from backhaul_suppression.model import Fact, Kind, RowKey
from hypothesis import given, settings
from hypothesis import strategies as st
from told_events import ANNA, AT_US, cases, consent, event, published

ADAPTERS = load_adapters()
ALL = SuppressionSettings()
TOPIC = SuppressionSettings(revocation_scope="topic", whatsapp="phone")

# Provider, its word, error code; what the event says ("+" lifts), of which scopes. Where there are several, all are
# said: with a group and without, with a sender and without, by the classification of a bounce.
EXPECTED = """
google_rbm  unsubscribe        -                       stop:all
google_rbm  subscribe          -                       +complaint,provider_block,stop,unsubscribe:all,sender
google_rbm  delivered          -                       +hard_bounce,invalid_address,provider_block:all,sender
mpulse      opted-out          -                       stop:all
mpulse      inbound            -                       stop:all
mpulse      invalidnumber      -                       invalid_address:all
outbound_delivery invalidnumber -                      invalid_address:all
generic     opted-out          -                       stop:all
generic     message.delivered  -                       +hard_bounce,invalid_address:all
rcs         delivered          -                       +hard_bounce,invalid_address:all
rcs         exception          404                     nothing
sendgrid    bounce             5.0.0                   hard_bounce:all|invalid_address:all
sendgrid    bounce             5.1.1                   hard_bounce:all
sendgrid    bounce             5.2.2                   nothing
sendgrid    bounce             4.4.7                   nothing
sendgrid    bounce             5.7.26                  nothing
sendgrid    deferred           550                     nothing
sendgrid    dropped            bounced_address         hard_bounce:all
sendgrid    dropped            invalid_address         invalid_address:all
sendgrid    dropped            spam_reporting_address  complaint:all
sendgrid    dropped            unsubscribed_address    unsubscribe:all
sendgrid    dropped            spam_content            nothing
sendgrid    dropped            over_package_quota      nothing
sendgrid    dropped            blocked                 nothing
sendgrid    spamreport         -                       complaint:all
sendgrid    unsubscribe        -                       unsubscribe:all
sendgrid    group_unsubscribe  -                       unsubscribe:group|unsubscribe:all
sendgrid    group_resubscribe  -                       +unsubscribe:group|nothing
sendgrid    delivered          -                       +hard_bounce,invalid_address:all
twilio      failed             21211                   invalid_address:all
twilio      failed             21610                   provider_block:all
twilio      failed             21614                   invalid_address:all
twilio      failed             404                     invalid_address:all
twilio      failed             30003                   nothing
twilio      undelivered        30005                   invalid_address:all
twilio      undelivered        30007                   nothing
twilio      undelivered        63024                   nothing
twilio      undelivered        63049                   nothing
twilio      busy               486                     nothing
twilio      no-answer          487                     nothing
twilio      delivered          - +hard_bounce,invalid_address,provider_block:all,sender|+hard_bounce,invalid_address:all
twilio      in-progress        -                       +hard_bounce,invalid_address,provider_block:all,sender
"""

each_adapter = pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS.keys())


def in_words(fact: Fact | None) -> str:
    if fact is None:
        return "nothing"
    kinds = ",".join(sorted({target.kind for target in fact.targets}))
    return f"{'+' * fact.lifts}{kinds}:{','.join(sorted({target.scope.kind for target in fact.targets}))}"


def test_what_the_cases_of_providers_say() -> None:
    found: dict[tuple[str, str, str], set[str]] = {}
    for provider, adapter in ADAPTERS.items():
        for _, told in cases(adapter):
            if told.recipient and (told.consent is not None or told.kind is not EventKind.INBOUND):
                key = provider, told.provider_status, told.error_code or "-"
                found.setdefault(key, set()).add(in_words(fact_of(published(told, provider), ALL, AT_US)))
    expected = {(a, b, c): set(said.split("|")) for a, b, c, said in map(str.split, EXPECTED.strip().splitlines())}
    assert {key: said & found.get(key, set()) for key, said in expected.items()} == expected
    # A block has a bounce's code, and says nothing; so does the error of a call that the person made.
    assert all(found[key] <= said | {"nothing"} for key, said in expected.items())


@each_adapter
def test_what_holds_for_every_case(adapter: Adapter[Any]) -> None:
    for name, told in cases(adapter):
        one = published(told, adapter.provider)
        for tenants in (ALL, TOPIC):
            fact = fact_of(one, tenants, AT_US)
            suppresses = fact is not None and not fact.lifts
            if told.error_class in (ErrorClass.CHANNEL, ErrorClass.TRANSIENT) and told.consent is None:
                assert not suppresses, name
            if told.recipient and told.consent is not None:
                assert suppresses is (told.consent.action is ConsentAction.OPT_OUT), name
            if told.recipient and told.error_class is ErrorClass.SUPPRESS:
                assert suppresses, name
            if fact is not None and fact.lifts and not proves_delivery(fact):
                assert told.consent is not None, name


_WORDS = (
    st.sampled_from(["", "group_resubscribe", "asm_group_id", "direction", "inbound", "spam", "unsubscribed"])
    | st.text()
)
_ENUMS = {
    field.name: [value.number for value in field.enum_type.values]
    for field in Event.DESCRIPTOR.fields
    if field.enum_type is not None
}


@st.composite
def _any_event(draw: st.DrawFn) -> Event:
    texts = {name: draw(_WORDS) for name in ("recipient", "sender", "provider", "provider_status", "error_code")}
    enums = {name: draw(st.sampled_from(numbers)) for name, numbers in _ENUMS.items()}
    fields: dict[str, Any] = {**texts, **enums}
    told = Event(
        id=draw(st.text("0123456789abcdef", min_size=32, max_size=32)),
        revision=draw(st.integers(0, 3)),
        occurred_at_us=draw(st.integers(-(2**63), 2**63 - 1)),
        received_at_us=draw(st.integers(-(2**63), 2**63 - 1)),
        invalid_recipient=draw(st.booleans()),
        attributes=[event_pb2.Attribute(name=draw(_WORDS), value=draw(_WORDS)) for _ in range(draw(st.integers(0, 2)))],
        **fields,
    )
    if draw(st.booleans()):
        told.consent.action = draw(st.sampled_from(event_pb2.ConsentAction.values()))
        told.consent.by = draw(st.sampled_from(event_pb2.ConsentBy.values()))
        told.consent.scope_kind = draw(st.sampled_from(event_pb2.ConsentScope.values()))
        told.consent.scope = draw(_WORDS)
    return told


@settings(max_examples=150)
@given(_any_event())
def test_any_event_says_something_or_nothing(told: Event) -> None:
    for tenants in (ALL, TOPIC):
        fact = fact_of(told, tenants, AT_US)
        if fact is None:
            continue
        assert fact == fact_of(told, tenants, AT_US)
        facts = spread(fact, tenants)
        assert facts[0] == fact
        assert len({one.id for one in facts}) == len(facts)
        # What suppresses by itself makes every row that it is about, what lifts by itself none.
        assert all((fold(key, facts) is None) is fact.lifts for key in _rows(facts))


SAYINGS: list[Event] = [
    event("inbound", consent=consent("opt_out")),
    event("inbound", consent=consent("opt_in", "provider", "START")),
    event("inbound", review="dismissed"),
    event("inbound", consent=consent("opt_out"), duplicate_of="d" * 32),
    event("failed", error_class="suppress", error_code="21610"),
    event("failed", error_class="transient"),
    event("undelivered", error_class="hard"),
    event("delivered"),
]


@st.composite
def _revisions(draw: st.DrawFn) -> list[Event]:
    """What was published of a few events: each revision from 0 up to the last, whatever it says."""
    told = []
    for event_id in "abcd"[: draw(st.integers(1, 4))]:
        at_us = AT_US - 10 * draw(st.integers(1, 4))
        for revision in range(draw(st.integers(1, 3))):
            one = Event.FromString(draw(st.sampled_from(SAYINGS)).SerializeToString())
            one.id, one.revision, one.occurred_at_us = event_id * 32, revision, at_us
            # What was delivered never becomes anything else.
            if one.kind == event_pb2.EVENT_KIND_DELIVERED and revision:
                continue
            told.append(one)
    return told


@settings(max_examples=150)
@given(st.data(), _revisions())
def test_every_order_of_all_revisions_gives_the_same_rows(data: st.DataObject, told: list[Event]) -> None:
    last = {one.id: one for one in told}
    expected = _rows_by(one for one in last.values())
    assert _rows_by(data.draw(st.permutations(told))) == expected
    # Twice, as everything may come.
    assert _rows_by(data.draw(st.permutations(told + told))) == expected


def _rows_by(told: Iterable[Event]) -> dict[str, tuple[bool, str]]:
    """The rows, kept as a store keeps them: of each fact the highest revision, those without targets as well."""
    kept: dict[str, Fact] = {}
    for one in told:
        fact = fact_of(one, ALL, AT_US)
        for part in spread(fact, ALL) if fact is not None else ():
            if part.id not in kept or kept[part.id].revision < part.revision:
                kept[part.id] = part
    facts = list(kept.values())
    rows = {key.id: fold(key, facts) for key in _rows(facts)}
    return {row_id: (row.active, row.fact_id) for row_id, row in rows.items() if row is not None}


def _rows(facts: Sequence[Fact]) -> set[RowKey]:
    return {RowKey(fact.address, target.kind, target.scope) for fact in facts for target in fact.targets}


def test_the_story_of_one_person() -> None:
    stop = event("inbound", id="a" * 32, occurred_at_us=AT_US - 300, consent=consent("opt_out"))
    blocked = event("failed", id="b" * 32, occurred_at_us=AT_US - 200, error_class="suppress", error_code="21610")
    start = event("inbound", id="c" * 32, occurred_at_us=AT_US - 100, consent=consent("opt_in", "provider", "START"))

    def active(*told: Event) -> set[Kind]:
        facts = [fact for one in told if (fact := fact_of(one, ALL, AT_US)) is not None]
        assert {fact.address.text for fact in facts} == {ANNA}
        return {key.kind for key in _rows(facts) if (row := fold(key, facts)) is not None and row.active}

    assert active(stop) == {Kind.STOP}
    assert active(stop, blocked) == {Kind.STOP, Kind.PROVIDER_BLOCK}
    assert active(start, blocked, stop) == set()
