"""What a sender tells of its own messages: strictly checked, and an event of the channel's provider's vocabulary."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from backhaul_channels import (
    AddressFamily,
    Context,
    ErrorClass,
    EventKind,
    NormalizedEvent,
    load_adapters,
)
from backhaul_channels.sends import Send, SendError, encoded, parse_send, read_send
from hypothesis import given
from hypothesis import strategies as st

ADAPTERS = load_adapters()
TO = "+15005550010"


def read(provider: str = "twilio", /, *, settings: dict[str, Any] | None = None, **fields: Any) -> NormalizedEvent:
    adapter = ADAPTERS[provider]
    context = Context(adapter.settings_model(**settings or {}), received_at_us=7)
    return read_send(json.dumps(fields).encode(), adapter, context)


def refused(**fields: Any) -> NormalizedEvent:
    return read(status="refused", **fields)


def test_a_sent_message_is_queued_and_says_what_it_is_of() -> None:
    event = read(
        message_id=" SM1 ",
        recipient=TO,
        sender="+15005550006",
        communication="spring",
        batch="b1",
        member="m1",
        sent_at="2026-11-26T13:00:00.000001+01:00",
        id="order-1",
        attributes={"template": "t"},
    )
    assert (event.kind, event.provider_status, event.message_id) == (EventKind.QUEUED, "sent", "SM1")
    assert (event.recipient, event.sender, event.recipient_family) == (TO, "+15005550006", AddressFamily.PHONE)
    assert (event.communication_id, event.batch_id, event.member_key) == ("spring", "b1", "m1")
    assert event.occurred_at_us == 1_795_694_400_000_001
    assert (event.references, event.attributes, event.provisional) == (["order-1"], [("template", "t")], False)
    assert read(message_id="SM1").occurred_at_us is None


def test_a_refusal_has_what_its_code_means() -> None:
    unsubscribed = refused(recipient=TO, error_code="21610")
    assert (unsubscribed.kind, unsubscribed.error_class) == (EventKind.REJECTED, ErrorClass.SUPPRESS)
    assert (unsubscribed.error_text, unsubscribed.invalid_recipient) == ("The recipient has unsubscribed.", False)
    assert unsubscribed.error_url.endswith("/21610")
    invalid = refused(recipient=TO, error_code="21211", error_text="Their own words")
    assert (invalid.error_class, invalid.invalid_recipient) == (ErrorClass.HARD, True)
    assert invalid.error_text == "Their own words"
    unknown = refused(recipient=TO, error_code="no-such-code")
    assert (unknown.error_code, unknown.error_class, unknown.error_text) == ("no-such-code", ErrorClass.UNKNOWN, "")
    assert read(status="not_generated", member="m", communication="c").kind is EventKind.FAILED


@pytest.mark.parametrize(
    ("provider", "code", "settings"),
    [
        ("twilio", "21614", {}),
        ("sendgrid", "invalid_address", {}),
        ("mpulse", "Invalid Number", {}),
        ("generic", "gone", {"invalid_recipient": ["gone"], "proof": {"type": "credential"}}),
    ],
)
def test_an_address_that_can_never_receive_is_told_by_the_code(
    provider: str, code: str, settings: dict[str, Any]
) -> None:
    assert read(provider, settings=settings, status="refused", recipient=TO, error_code=code).invalid_recipient
    assert not read(provider, settings=settings, status="refused", recipient=TO, error_code="999").invalid_recipient


@pytest.mark.parametrize(
    ("provider", "message_id", "recipient", "family"),
    [
        ("twilio", "SM1", f"whatsapp:{TO}", AddressFamily.PHONE),
        ("twilio", "CA1", TO, AddressFamily.VOICE),
        ("twilio", "CA1", "sip:a@example.com", AddressFamily.UNKNOWN),
        ("twilio", "SM1", "", AddressFamily.UNKNOWN),
        ("sendgrid", "x1", "a@example.com", AddressFamily.EMAIL),
        ("mpulse", "1", "a@example.com", AddressFamily.EMAIL),
        ("rcs", "1", TO, AddressFamily.PHONE),
        ("google_rbm", "1", TO, AddressFamily.PHONE),
    ],
)
def test_the_family_of_an_address_is_that_of_the_callbacks(
    provider: str, message_id: str, recipient: str, family: AddressFamily
) -> None:
    assert read(provider, message_id=message_id, recipient=recipient).recipient_family is family


def test_a_number_that_lacks_its_plus_gets_it_where_the_callbacks_get_it() -> None:
    event = read("mpulse", settings={"international_numbers": True}, message_id="1", recipient="15005550010")
    assert event.recipient == TO
    assert read("rcs", message_id="1", recipient="5511987654321").recipient == "+5511987654321"


def test_what_was_not_sent_has_a_message_id_of_its_own() -> None:
    first = refused(id="order-1", recipient=TO, error_code="21610")
    assert first.message_id.startswith("unsent-")
    # The same send, whatever else is said of it meanwhile.
    assert refused(id="order-1", recipient=TO, error_code="21610", sender="+15005550006").key == first.key
    others = [
        refused(id="order-2", recipient=TO, error_code="21610"),
        refused(recipient=TO, error_code="21610"),
        refused(recipient=TO, error_code="21610", idempotency="k:1"),
        refused(recipient=TO, error_code="21610", idempotency="k:2"),
        refused(recipient=TO, error_code="21610", communication="c"),
        refused(recipient=TO, error_code="21610", sent_at="2026-11-26T12:00:00Z"),
        read(status="not_generated", recipient=TO, error_code="21610"),
    ]
    assert len({event.key for event in (first, *others)}) == len({event.message_id for event in (first, *others)}) == 8
    assert refused(recipient=TO, error_code="21610").message_id == others[1].message_id


def test_the_providers_id_is_the_key_where_the_sender_has_none() -> None:
    assert read(message_id="SM1").key == read(message_id="SM1", recipient=TO, idempotency="k").key
    assert read(message_id="SM1").key != read(message_id="SM2").key
    assert read(message_id="SM1").key != refused(message_id="SM1").key
    assert refused(message_id="SM1", error_code="30007").message_id == "SM1"
    assert len(read(message_id="m" * 512).key) <= 512


@pytest.mark.parametrize(
    ("message_id", "settings", "expected"),
    [
        ("wrfRRvF7Q0GgwUo2CvDmEA", {}, ("wrfRRvF7Q0GgwUo2CvDmEA:a@example.com", True)),
        # Their smtp-id, too, and one of a server of the sender's own.
        ("<wrf@geopod-ismtpd-1>", {}, ("wrf:a@example.com", True)),
        ("<1@shop.example>", {}, ("1@shop.example:a@example.com", True)),
        ("wrf.recvd-5f54-1-67-6.0", {}, ("wrf.recvd-5f54-1-67-6.0", False)),
        ("order-77", {"message_id_from": ["my_id"]}, ("order-77:a@example.com", False)),
        ("wrf", {"message_id_from": ["smtp-id"]}, ("wrf:a@example.com", False)),
    ],
)
def test_a_mail_of_sendgrids_is_called_by_what_its_events_list(
    message_id: str, settings: dict[str, Any], expected: tuple[str, bool]
) -> None:
    event = read("sendgrid", settings=settings, message_id=message_id, recipient="A@Example.com")
    assert (event.message_id, event.provisional) == expected
    assert message_id in (*event.references, event.message_id)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "message_id"),
        ({"message_id": "  "}, "message_id"),
        ({"message_id": 5}, "message_id"),
        ({"message_id": None}, "message_id"),
        ({"message_id": "m" * 513}, "message_id"),
        ({"message_id": "SM1", "recipient": "x" * 321}, "recipient"),
        ({"message_id": "SM1", "status": "delivered"}, "status"),
        ({"message_id": "SM1", "error_code": "21610"}, "status"),
        ({"message_id": "SM1", "error_text": "x"}, "status"),
        ({"message_id": "SM1", "batch": "b"}, "batch"),
        ({"message_id": "SM1", "member": "m"}, "member"),
        ({"message_id": "SM1", "sent_at": "2026-11-26T12:00:00"}, "sent_at"),
        ({"message_id": "SM1", "sent_at": "yesterday"}, "sent_at"),
        ({"message_id": "SM1", "sent_at": 1}, "sent_at"),
        ({"message_id": "SM1", "sent_at": "1969-12-31T23:59:59Z"}, "sent_at"),
        ({"message_id": "SM1\0"}, "message_id"),
        ({"message_id": "SM1", "communication": "a", "member": "\0"}, "member"),
        ({"message_id": "SM1", "messageId": "SM1"}, "messageId"),
        ({"message_id": "SM1", "attributes": {"": "x"}}, "attributes"),
        ({"message_id": "SM1", "attributes": {"x": 1}}, "attributes"),
        ({"message_id": "SM1", "attributes": {str(n): "" for n in range(65)}}, "attributes"),
        ({"status": "refused"}, "recipient"),
        ({"status": "not_generated", "error_code": "e" * 65, "id": "1"}, "error_code"),
    ],
)
def test_what_is_wrong_is_named_with_its_fix(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(SendError) as caught:
        read(**fields)
    assert caught.value.field == field
    assert caught.value.message.endswith(".")
    assert caught.value.fix.endswith(".")
    assert str(caught.value) == f"{caught.value.message} {caught.value.fix}"


@pytest.mark.parametrize(
    ("fields", "fix"),
    [
        ({"message_id": 5}, "Give a text, in quotes."),
        ({"error_text": None}, "Give a text, in quotes."),
        ({"message_id": "m" * 513}, "Give 512 characters at most."),
        ({"channel": "c" * 129}, "Give 128 characters at most."),
        ({"status": "delivered"}, "Give one of sent, refused, not_generated."),
        ({"attributes": {"x": 1}}, "Give an object of 64 texts at most"),
        ({"attributes": {"x": "y" * 4097}}, "whose values 4096 at most."),
    ],
)
def test_the_fix_says_what_to_write(fields: dict[str, Any], fix: str) -> None:
    with pytest.raises(SendError) as caught:
        parse_send(json.dumps(fields).encode())
    assert fix in caught.value.fix


def test_a_mail_to_nobody_has_no_name() -> None:
    with pytest.raises(SendError) as caught:
        read("sendgrid", message_id="wrf")
    assert caught.value.field == "recipient"
    with pytest.raises(SendError) as caught:
        read("sendgrid", message_id="m" * 512, recipient="a@example.com")
    assert caught.value.field == "message_id"


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"\xff",
        b'{"id": "\xff"}',
        b'{"id": "\\ud800"}',
        b"[" * 100_000,
        b'{"attributes":' * 5000,
    ],
)
def test_what_is_no_object_is_refused(part: bytes) -> None:
    with pytest.raises(SendError):
        parse_send(part)


words = st.text(max_size=12) | st.sampled_from(["SM1", TO, "a@example.com", "21610", "refused", "2026-11-26T12:00:00Z"])
values = words | st.none() | st.integers() | st.dictionaries(words, words, max_size=3) | st.lists(words, max_size=2)


@given(
    st.sampled_from(sorted(ADAPTERS)),
    st.dictionaries(st.sampled_from(sorted(Send.__struct_fields__)) | words, values, max_size=8),
)
def test_whatever_is_told_is_an_event_or_a_reason(provider: str, fields: dict[str, Any]) -> None:
    adapter = ADAPTERS[provider]
    settings = adapter.settings_model()
    part = json.dumps(fields).encode()
    try:
        event = read_send(part, adapter, Context(settings))
    except SendError:
        return
    assert event.message_id
    assert 0 < len(event.key) <= 512
    assert (event.vars, event.aliases) == ([], [])
    # What is stored of it is read as the same once more.
    assert read_send(encoded(parse_send(part)), adapter, Context(settings)) == event
    assert msgspec.json.encode(event)
