"""What each event says: the table of facts.py row by row, and what says nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from backhaul_common.tenants import SuppressionSettings
from backhaul_proto.callback.v1 import callback_pb2
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.event.v1.event_pb2 import Event
from backhaul_suppression.facts import ACCEPTED_NOTE, fact_of, proves_delivery, spread
from backhaul_suppression.model import (
    EVERYTHING,
    Address,
    Fact,
    Family,
    Kind,
    Origin,
    Scope,
    ScopeKind,
    Source,
    Target,
)
from told_events import ANNA, AT_US, SENDER, consent, event

ALL = SuppressionSettings()
TOPIC = SuppressionSettings(revocation_scope="topic")
WHATSAPP_IS_THE_NUMBER = SuppressionSettings(whatsapp="phone")
NOW_US = AT_US + 1

OWN = Scope(ScopeKind.SENDER, SENDER)
SERVICE = Scope(ScopeKind.MESSAGING_SERVICE, "MG1")
GROUP = Scope(ScopeKind.GROUP, "7")
OF_SERVICE = {"scope_kind": "messaging_service", "scope": "MG1"}
OF_GROUP = {"scope_kind": "group", "scope": "7"}
STOP, UNSUBSCRIBE, COMPLAINT = Kind.STOP, Kind.UNSUBSCRIBE, Kind.COMPLAINT
MAIL: dict[str, Any] = {
    "recipient": "Anna@Example.com",
    "recipient_family": "email",
    "provider": "sendgrid",
    "channel": "sendgrid",
    "sender": "",
}
CALL: dict[str, Any] = {"recipient_family": "voice"}
UNPROVEN = (callback_pb2.VERIFICATION_OBSERVED_INVALID, callback_pb2.VERIFICATION_OFF)


def attributes(**pairs: str) -> list[event_pb2.Attribute]:
    return [event_pb2.Attribute(name=name, value=value) for name, value in pairs.items()]


def told(event: Event, settings: SuppressionSettings = ALL) -> Fact:
    fact = fact_of(event, settings, NOW_US)
    assert fact is not None
    return fact


def said(event: Event, settings: SuppressionSettings = ALL) -> set[tuple[Kind, Scope]]:
    return {(target.kind, target.scope) for target in told(event, settings).targets}


SUPPRESSING: list[tuple[str, Event, Kind, Scope, Origin]] = [
    ("a STOP", event("inbound", consent=consent("opt_out")), STOP, EVERYTHING, Origin.RECIPIENT),
    (
        "a STOP that the provider understood",
        event("inbound", consent=consent("opt_out", "provider", **OF_SERVICE)),
        STOP,
        EVERYTHING,
        Origin.RECIPIENT,
    ),
    (
        "a reply that the tenant took for one",
        event("inbound", consent=consent("opt_out", "tenant", ""), review="accepted"),
        STOP,
        EVERYTHING,
        Origin.RECIPIENT,
    ),
    (
        "a dismissed reply that later proved to be one",
        event("inbound", consent=consent("opt_out", "provider"), review="dismissed"),
        STOP,
        EVERYTHING,
        Origin.RECIPIENT,
    ),
    (
        "an UNSUBSCRIBE by RCS",
        event("unsubscribed", consent=consent("opt_out", "provider")),
        STOP,
        EVERYTHING,
        Origin.RECIPIENT,
    ),
    ("a STOP by mail", event("inbound", **MAIL, consent=consent("opt_out")), STOP, EVERYTHING, Origin.RECIPIENT),
    (
        "a mail's unsubscription",
        event("unsubscribed", **MAIL, consent=consent("opt_out", "provider")),
        UNSUBSCRIBE,
        EVERYTHING,
        Origin.RECIPIENT,
    ),
    (
        "a group's unsubscription",
        event("unsubscribed", **MAIL, consent=consent("opt_out", "provider", "", **OF_GROUP)),
        UNSUBSCRIBE,
        GROUP,
        Origin.RECIPIENT,
    ),
    ("a spam report", event("complained", **MAIL), COMPLAINT, EVERYTHING, Origin.RECIPIENT),
    (
        "a drop after an unsubscription",
        event("rejected", **MAIL, error_class="suppress", attributes=attributes(reject_reason="unsubscribed")),
        UNSUBSCRIBE,
        EVERYTHING,
        Origin.PROVIDER,
    ),
    (
        "a drop of a group's mail after one",
        event(
            "rejected",
            **MAIL,
            error_class="suppress",
            attributes=attributes(reject_reason="unsubscribed", asm_group_id="7"),
        ),
        UNSUBSCRIBE,
        GROUP,
        Origin.PROVIDER,
    ),
    (
        "a drop after a spam report",
        event(
            "rejected", **MAIL, error_class="suppress", attributes=attributes(reject_reason="spam", asm_group_id="7")
        ),
        COMPLAINT,
        EVERYTHING,
        Origin.PROVIDER,
    ),
    (
        "a drop after a bounce",
        event("rejected", **MAIL, error_class="hard", attributes=attributes(reject_reason="bounced")),
        Kind.HARD_BOUNCE,
        EVERYTHING,
        Origin.PROVIDER,
    ),
    (
        "a drop of an invalid address",
        event("rejected", **MAIL, error_class="hard", invalid_recipient=True),
        Kind.INVALID_ADDRESS,
        EVERYTHING,
        Origin.PROVIDER,
    ),
    ("a hard bounce", event("bounced", **MAIL, error_class="hard"), Kind.HARD_BOUNCE, EVERYTHING, Origin.PROVIDER),
    (
        "a bounce of an address that there is not",
        event("bounced", **MAIL, error_class="hard", invalid_recipient=True),
        Kind.INVALID_ADDRESS,
        EVERYTHING,
        Origin.PROVIDER,
    ),
    (
        "a mail that is not wanted",
        event("failed", **MAIL, error_class="suppress"),
        UNSUBSCRIBE,
        EVERYTHING,
        Origin.PROVIDER,
    ),
    (
        "21610",
        event("failed", error_class="suppress", error_code="21610"),
        Kind.PROVIDER_BLOCK,
        EVERYTHING,
        Origin.PROVIDER,
    ),
    (
        "a sender that the person blocked",
        event("undelivered", error_class="suppress", error_code="63014"),
        Kind.PROVIDER_BLOCK,
        OWN,
        Origin.PROVIDER,
    ),
    (
        "a call that the person does not want from this caller",
        event("failed", **CALL, error_class="suppress", error_code="607"),
        Kind.PROVIDER_BLOCK,
        OWN,
        Origin.PROVIDER,
    ),
    (
        "marketing that the person declined",
        event("undelivered", error_class="suppress", error_code="63033"),
        UNSUBSCRIBE,
        EVERYTHING,
        Origin.PROVIDER,
    ),
    (
        "a number that there is not",
        event("undelivered", error_class="hard", error_code="30005"),
        Kind.INVALID_ADDRESS,
        EVERYTHING,
        Origin.PROVIDER,
    ),
    (
        "a status of which only the error is known",
        event("unknown", invalid_recipient=True),
        Kind.INVALID_ADDRESS,
        EVERYTHING,
        Origin.PROVIDER,
    ),
    (
        "a call to a number that there is not",
        event("failed", **CALL, error_class="hard", error_code="404"),
        Kind.INVALID_ADDRESS,
        EVERYTHING,
        Origin.PROVIDER,
    ),
]


@pytest.mark.parametrize(
    ("told_of", "kind", "scope", "origin"), [one[1:] for one in SUPPRESSING], ids=[one[0] for one in SUPPRESSING]
)
@pytest.mark.parametrize("verification", [*UNPROVEN, callback_pb2.VERIFICATION_VERIFIED])
def test_what_suppresses(told_of: Event, kind: Kind, scope: Scope, origin: Origin, verification: int) -> None:
    one = Event.FromString(told_of.SerializeToString())
    one.verification = verification  # type: ignore[assignment]  # an enum's value
    fact = told(one)
    assert not fact.lifts
    assert fact.targets == (Target(kind, scope),)
    assert fact.origin is origin


NOTHING: list[tuple[str, Event]] = [
    ("a HELP", event("inbound", consent=consent("help", word="HELP"))),
    ("a reply", event("inbound", text="stop by tomorrow")),
    ("a flagged reply", event("inbound", review="flagged")),
    ("an unsubscription of nobody", event("unsubscribed", consent=consent("opt_out"), recipient="")),
    ("a subscription that the channel does not declare", event("subscribed")),
    ("a message that was sent", event("sent")),
    ("a queued one with a code", event("queued", error_class="hard", error_code="30005")),
    ("a deferral", event("deferred", **MAIL, error_class="hard", invalid_recipient=True)),
    ("what is not on this channel", event("undelivered", error_class="channel", error_code="63003")),
    ("an invalid address that is none of this channel", event("failed", error_class="channel", invalid_recipient=True)),
    ("a full mailbox", event("bounced", **MAIL, error_class="transient")),
    ("a handset that is off", event("undelivered", error_class="transient", error_code="30003")),
    ("a carrier's refusal", event("undelivered", error_class="carrier")),
    (
        "a refused content",
        event("rejected", **MAIL, error_class="content", attributes=attributes(reject_reason="spam")),
    ),
    ("an account's error", event("failed", error_class="account")),
    ("a failure without a class", event("failed", error_code="99999")),
    ("a busy line", event("busy", **CALL, error_class="transient")),
    ("a message that was read", event("read")),
    ("an opening", event("opened", **MAIL)),
    ("a message that is called completed", event("completed")),
    (
        "a call of the person's that failed on the tenant's side",
        event("failed", **CALL, error_class="hard", error_code="404", attributes=attributes(direction="inbound")),
    ),
    (
        "one through the tenant's trunk",
        event("failed", **CALL, error_class="hard", attributes=attributes(direction="trunking-originating")),
    ),
    (
        "a call of the person's that was answered",
        event("completed", **CALL, attributes=attributes(direction="inbound")),
    ),
    ("a kind that is newer than this program", event("inbound", kind=99)),
]


@pytest.mark.parametrize("one", [one[1] for one in NOTHING], ids=[one[0] for one in NOTHING])
@pytest.mark.parametrize("settings", [ALL, TOPIC, WHATSAPP_IS_THE_NUMBER])
def test_what_says_nothing(one: Event, settings: SuppressionSettings) -> None:
    assert fact_of(one, settings, NOW_US) is None


def test_every_kind_of_event_is_read() -> None:
    """Of each kind, without an error, what the table says; a new kind must be decided about."""
    speaks = {
        word: fact_of(event(word, **CALL, consent=consent("opt_out")), ALL, NOW_US) is not None
        for word in (name.removeprefix("EVENT_KIND_").lower() for name in event_pb2.EventKind.DESCRIPTOR.values_by_name)
    }
    assert all(speaks.values())
    silent = {word for word in speaks if fact_of(event(word, **CALL), ALL, NOW_US) is None}
    assert set(speaks) - silent == {"complained", "delivered", "answered", "completed"}
    failing = {word for word in silent if fact_of(event(word, **CALL, error_class="hard"), ALL, NOW_US) is not None}
    assert failing == {
        *("unknown", "undelivered", "failed", "rejected", "bounced", "canceled", "expired", "busy", "no_answer"),
    }


def test_the_topic_of_a_stop_is_its_messaging_service_else_its_sender() -> None:
    of_service = event("inbound", consent=consent("opt_out", **OF_SERVICE))
    of_sender = event("inbound", consent=consent("opt_out"))
    of_nobody = event("inbound", consent=consent("opt_out"), sender="")
    assert said(of_service, TOPIC) == {(STOP, SERVICE)}
    assert said(of_sender, TOPIC) == {(STOP, OWN)}
    assert said(of_nobody, TOPIC) == {(STOP, EVERYTHING)}
    assert said(event("failed", error_class="suppress", error_code="21610"), TOPIC) == {(Kind.PROVIDER_BLOCK, OWN)}
    # These are of no topic.
    mail = event("unsubscribed", **MAIL, consent=consent("opt_out", "provider"))
    assert said(mail, TOPIC) == {(UNSUBSCRIBE, EVERYTHING)}
    assert said(event("undelivered", error_class="hard"), TOPIC) == {(Kind.INVALID_ADDRESS, EVERYTHING)}


def test_a_topic_counts_from_its_date_on_by_when_the_word_was_written() -> None:
    one = event("inbound", consent=consent("opt_out"))
    at = datetime.fromtimestamp(one.occurred_at_us / 1_000_000, UTC)
    from_then = SuppressionSettings(revocation_scope="topic", topic_since=at)
    assert said(one, from_then) == {(STOP, OWN)}
    one.occurred_at_us -= 1
    assert said(one, from_then) == {(STOP, EVERYTHING)}


def test_a_start_lifts_what_the_person_said() -> None:
    one = event("inbound", consent=consent("opt_in", word="YES", **OF_SERVICE))
    assert told(one).lifts
    assert told(one).origin is Origin.RECIPIENT
    expected = {(kind, scope) for kind in (STOP, UNSUBSCRIBE) for scope in (EVERYTHING, OWN, SERVICE)}
    assert said(one) == expected | {(COMPLAINT, EVERYTHING)}
    assert said(one) == said(one, TOPIC)


@pytest.mark.parametrize(("by", "word"), [("provider", "YES"), ("keyword", "START"), ("keyword", "UNSTOP")])
def test_a_start_upon_which_the_provider_acts_lifts_its_block(by: str, word: str) -> None:
    lifted = said(event("inbound", consent=consent("opt_in", by, word, **OF_SERVICE)))
    blocks = {scope for kind, scope in lifted if kind is Kind.PROVIDER_BLOCK}
    assert blocks == {EVERYTHING, OWN, SERVICE}


def test_a_group_is_subscribed_to_by_itself() -> None:
    one = event("subscribed", **MAIL, consent=consent("opt_in", "provider", "", **OF_GROUP))
    assert told(one).lifts
    assert said(one) == {(UNSUBSCRIBE, GROUP)}


def test_a_subscription_to_a_group_that_nobody_names_lifts_nothing() -> None:
    one = event("subscribed", **MAIL, provider_status="group_resubscribe", consent=consent("opt_in", "provider", ""))
    assert fact_of(one, ALL, NOW_US) is None


def test_a_subscription_to_mails_takes_back_a_complaint() -> None:
    one = event("subscribed", **MAIL, consent=consent("opt_in", "provider", ""))
    assert {(STOP, EVERYTHING), (UNSUBSCRIBE, EVERYTHING), (COMPLAINT, EVERYTHING)} <= said(one)


@pytest.mark.parametrize("fields", [{}, MAIL, CALL])
def test_a_delivery_shows_that_the_address_works(fields: dict[str, Any]) -> None:
    one = event("answered" if fields is CALL else "delivered", **fields)
    fact = told(one)
    assert fact.lifts
    assert fact.origin is Origin.PROVIDER
    assert proves_delivery(fact)
    own = set() if fields is MAIL else {(Kind.PROVIDER_BLOCK, OWN)}
    assert said(one) == {(Kind.HARD_BOUNCE, EVERYTHING), (Kind.INVALID_ADDRESS, EVERYTHING)} | own
    assert not proves_delivery(told(event("inbound", consent=consent("opt_in", "provider"))))
    assert not proves_delivery(told(event("failed", error_class="hard")))


@pytest.mark.parametrize("verification", UNPROVEN)
@pytest.mark.parametrize(
    "one",
    [event("inbound", consent=consent("opt_in", "provider")), event("delivered"), event("completed", **CALL)],
    ids=["opt-in", "delivery", "call"],
)
def test_what_anybody_can_post_lifts_nothing(one: Event, verification: int) -> None:
    unproven = Event.FromString(one.SerializeToString())
    assert fact_of(unproven, ALL, NOW_US) is not None
    unproven.verification = verification  # type: ignore[assignment]  # an enum's value
    assert fact_of(unproven, ALL, NOW_US) is None


def test_a_fact_tells_where_it_comes_from() -> None:
    one = event(
        "inbound",
        id="a" * 32,
        message_id="SM1",
        revision=3,
        traceparent="00-1-2-01",
        consent=consent("opt_out", word="FIN"),
    )
    assert told(one) == Fact(
        id="a" * 32,
        tenant_id="acme",
        address=Address("acme.1", Family.PHONE, ANNA),
        lifts=False,
        targets=(Target(STOP, EVERYTHING),),
        effective_at_us=AT_US - 10_000_000,
        recorded_at_us=NOW_US,
        origin=Origin.RECIPIENT,
        source=Source.EVENT,
        revision=3,
        event_id="a" * 32,
        channel="twilio",
        message_id="SM1",
        word="FIN",
        traceparent="00-1-2-01",
    )
    assert told(event("failed", error_class="suppress", error_code="21610")).word == "21610"
    assert told(event("complained", provider_status="spamreport")).word == "spamreport"
    accepted = event("inbound", consent=consent("opt_out", "tenant", ""), review="accepted")
    assert told(accepted).note == ACCEPTED_NOTE


@pytest.mark.parametrize(("occurred", "received", "effective"), [(5, 10, 5), (10, 5, 5), (2**62, 5, 5), (7, 0, 7)])
def test_a_fast_clock_makes_no_word_of_the_future(occurred: int, received: int, effective: int) -> None:
    one = event("inbound", consent=consent("opt_out"), occurred_at_us=occurred)
    one.occurred_at_us, one.received_at_us = occurred, received
    assert told(one).effective_at_us == effective


@pytest.mark.parametrize(
    ("recipient", "family", "expected"),
    [
        ("rcs:+1 415 555 0123", "phone", (Family.PHONE, ANNA)),
        ("whatsapp:+14155550123", "phone", (Family.PHONE, "whatsapp:+14155550123")),
        ("0151 1234567", "phone", (Family.PHONE, "0151 1234567")),
        ("messenger:77", "unspecified", (Family.PHONE, "messenger:77")),
        ("Anna@Example.com", "unspecified", (Family.EMAIL, "anna@example.com")),
        ("sip:anna@example.com", "unspecified", (Family.PHONE, "sip:anna@example.com")),
        (ANNA, "voice", (Family.VOICE, ANNA)),
    ],
)
def test_the_address_is_canonical_in_its_family(recipient: str, family: str, expected: tuple[Family, str]) -> None:
    one = event("inbound", consent=consent("opt_out"), recipient=recipient)
    one.recipient_family = event_pb2.AddressFamily.Value(f"ADDRESS_FAMILY_{family.upper()}")
    assert told(one).address == Address("acme.1", *expected)


def test_what_is_said_on_whatsapp_is_said_of_the_number_where_the_tenant_wants_it() -> None:
    by_sms = told(event("inbound", id="a" * 32, consent=consent("opt_out")))
    by_whatsapp = told(event("inbound", id="b" * 32, consent=consent("opt_out"), recipient=f"whatsapp:{ANNA}"))
    assert spread(by_sms, ALL) == [by_sms]
    for fact in (by_sms, by_whatsapp):
        one, other = spread(fact, WHATSAPP_IS_THE_NUMBER)
        assert one == fact
        assert {one.address.text, other.address.text} == {ANNA, f"whatsapp:{ANNA}"}
        assert other.id != fact.id
        assert len(other.id) == len(fact.id)
    # The order of facts of one moment is the same of either address.
    ids = [[one.id for one in spread(fact, WHATSAPP_IS_THE_NUMBER)] for fact in (by_sms, by_whatsapp)]
    assert all(first < second for first in ids[0] for second in ids[1])


VOIDED: list[tuple[str, Event]] = [
    ("a duplicate", event("inbound", consent=consent("opt_out"), duplicate_of="d" * 32)),
    ("a duplicate of a bounce", event("bounced", **MAIL, error_class="hard", duplicate_of="d" * 32)),
    ("a dismissed reply", event("inbound", review="dismissed")),
    ("a failure of the moment", event("failed", error_class="transient")),
    ("one of nobody", event("failed", error_class="hard", recipient="")),
]


@pytest.mark.parametrize("one", [one[1] for one in VOIDED], ids=[one[0] for one in VOIDED])
def test_a_later_revision_that_says_nothing_voids_what_a_lower_one_said(one: Event) -> None:
    assert fact_of(one, ALL, NOW_US) is None
    later = Event.FromString(one.SerializeToString())
    later.revision = 1
    fact = told(later)
    assert (fact.id, fact.revision, fact.targets) == (one.id, 1, ())
    if fact.address.text == ANNA:
        # The setting may have been another one meanwhile.
        assert [void.address.text for void in spread(fact, ALL)] == [ANNA, f"whatsapp:{ANNA}"]


@pytest.mark.parametrize(
    "kind", ["queued", "sent", "delivered", "read", "opened", "clicked", "deferred", "ringing", "answered"]
)
def test_a_revision_of_what_never_suppresses_voids_nothing(kind: str) -> None:
    assert fact_of(event(kind, revision=2, duplicate_of="d" * 32), ALL, NOW_US) is None
