"""What becomes of the parts of a mapped webhook, and which settings are refused."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from backhaul_channels import (
    Consent,
    ConsentAction,
    ConsentBy,
    ErrorClass,
    EventKind,
    Ignored,
    MalformedError,
    NormalizedEvent,
)
from backhaul_channels.engines.mapped.settings import MAX_SELECTIONS, FieldMapping, MappedSettings
from backhaul_channels.engines.mapped.values import MAX_KEPT
from backhaul_channels.engines.mapped.words import DIRECTIONS, INVALID_RECIPIENT, STATUSES, Direction
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

AT_US = 1_795_658_400_000_000
FIELDS = {field: field for field in FieldMapping.model_fields if field != "vars"}
SELECTING = "||".join(["(a[?b=='']|[0])"] * (MAX_SELECTIONS // 2))


def read(document: object, **settings: Any) -> NormalizedEvent:
    """``document`` under settings that find each field under its own name, unless they say otherwise."""
    mapping = {**FIELDS, **settings.pop("mapping", {})}
    part = document if isinstance(document, bytes) else json.dumps(document).encode()
    event = MappedSettings.model_validate({"mapping": mapping, **settings}).reader.normalize(part, AT_US)
    assert isinstance(event, NormalizedEvent)
    return event


@pytest.mark.parametrize("word", sorted(STATUSES))
def test_each_usual_word_means_one_thing_however_it_is_spelled(word: str) -> None:
    for spelling in (word, word.upper(), "-".join(word), f"email.{word}", f" {word}\n"):
        event = read({"message_id": 1, "status": spelling})
        assert event.kind is STATUSES[word] is not EventKind.UNKNOWN
        assert event.invalid_recipient == (word in INVALID_RECIPIENT)


@pytest.mark.parametrize(
    ("word", "error_class"),
    [
        ("hard_bounce", ErrorClass.HARD),
        ("email.hardBounced", ErrorClass.HARD),
        ("Soft Bounce", ErrorClass.TRANSIENT),
        ("bounced", ErrorClass.UNKNOWN),
    ],
)
def test_a_bounce_that_says_whether_it_is_final_is_believed(word: str, error_class: ErrorClass) -> None:
    event = read({"message_id": 1, "status": word})
    assert (event.kind, event.error_class) == (EventKind.BOUNCED, error_class)
    assert read({"message_id": 1, "status": word}, statuses={word: "failed"}).error_class is ErrorClass.UNKNOWN


@pytest.mark.parametrize("word", sorted(DIRECTIONS))
def test_each_usual_word_of_direction(word: str) -> None:
    inbound = DIRECTIONS[word] is Direction.INBOUND
    event = read({"message_id": 1, "status": "new", "direction": word.title(), "sender": "1", "recipient": "2"})
    assert (event.kind is EventKind.INBOUND) == inbound
    assert (event.recipient, event.sender) == (("1", "2") if inbound else ("2", "1"))


def test_a_channels_own_words_come_before_the_usual_ones() -> None:
    own = {"statuses": {"Sent!": "delivered"}, "directions": {"received": "outbound"}}
    assert read({"message_id": 1, "status": "SENT"}, **own).kind is EventKind.DELIVERED
    assert read({"message_id": 1, "status": "sent", "direction": "received"}, **own).kind is EventKind.DELIVERED


def test_a_message_of_ones_own_that_comes_back_is_no_reply() -> None:
    with pytest.raises(MalformedError, match=r"nothing stands at status\. Correct mapping\.status"):
        read({"message_id": 1, "text": "Hello", "direction": "mt"})
    assert read({"message_id": 1, "text": "Hello", "status": "sent"}).text == ""
    assert read({"message_id": 1, "text": "Hello"}).text == "Hello"


def test_keys_tell_apart_what_differs_and_nothing_else() -> None:
    sent = {"message_id": "m", "status": "sent", "timestamp": AT_US}
    later = {**sent, "timestamp": AT_US + 1}
    assert read(sent).key == read(later).key == "m:sent"
    assert read(sent, status_repeats=True).key != read(later, status_repeats=True).key
    assert read({**sent, "event_id": "e"}).key == "e:sent"
    reply = {"text": "STOP", "person": "+15005550010"}
    other = {**reply, "timestamp": AT_US + 60_000_000}
    assert read(reply).key == read({**reply, "timestamp": AT_US}).key != read(other).key
    assert read({"text": "STOP+", "person": "15005550010"}).key != read(reply).key


def test_what_no_field_takes_is_the_senders_where_it_is_declared() -> None:
    document = {"message_id": 1, "status": "sent", "Category": "news", "offerid": 7, "region": "eu", "deep": {"a": 1}}
    event = read(document, parameters=[{"name": "category"}])
    assert event.vars == [("Category", "news"), ("offerid", "7")]
    assert event.attributes == [("region", "eu")]


def test_variables_are_found_in_objects_arrays_and_single_values() -> None:
    tags = {"data": {"tags": [{"name": "a", "value": 1}, {"key": "b", "value": "x"}, {"name": ""}, 5]}}
    event = read(
        {"message_id": 1, "status": "sent", "meta": {"c": True, "d": None, "e": [1]}, "user": {"ref": "r"}, **tags},
        mapping={"vars": ["data.tags", "meta", "user.ref", "none.at_all"]},
    )
    assert event.vars == [("a", "1"), ("b", "x"), ("c", "true"), ("ref", "r")]
    event = read({"message_id": 1, "status": "sent", "communication": "spring"}, communication_keys=["campaign"])
    assert event.vars == [("campaign", "spring")]


def test_errors_are_of_kinds_that_have_them() -> None:
    told = {"message_id": 1, "error_code": "E1", "error_text": "Off."}
    assert read({**told, "status": "failed"}).error_code == "E1"
    delivered = read({**told, "status": "delivered"})
    assert (delivered.error_code, delivered.error_text, delivered.invalid_recipient) == ("", "", False)
    assert read({**told, "status": "failed", "error_code": "000"}).error_code == ""
    own = {"invalid_recipient": ["e1"]}
    assert read({**told, "status": "failed"}, **own).invalid_recipient
    assert not read({**told, "status": "delivered"}, **own).invalid_recipient


@pytest.mark.parametrize(
    ("address", "settings", "recipient", "family"),
    [
        ("+15005550010", {}, "+15005550010", "phone"),
        ("+1 (500) 555-0010", {}, "+1 (500) 555-0010", "phone"),
        ("whatsapp:+15005550010", {}, "whatsapp:+15005550010", "phone"),
        (15005550010, {"international_numbers": True}, "+15005550010", "phone"),
        ("12345", {"international_numbers": True}, "12345", ""),
        ("ann@example.com", {"international_numbers": True}, "ann@example.com", "email"),
        ("12345", {"recipient_family": "voice"}, "12345", "voice"),
        ("", {"recipient_family": "voice"}, "", ""),
        ("Acme", {}, "Acme", ""),
        (["+15005550010"], {}, "", ""),
    ],
)
def test_addresses(address: object, settings: Mapping[str, Any], recipient: str, family: str) -> None:
    event = read({"message_id": 1, "status": "sent", "recipient": address}, **settings)
    assert (event.recipient, event.recipient_family.value) == (recipient, family)


def test_an_opt_out_is_one_of_somebody() -> None:
    told = read({"message_id": 1, "status": "unsubscribed", "person": "ann@example.com"})
    assert told.consent is not None
    assert (told.consent.by, told.consent.action) == ("provider", "opt_out")
    assert read({"message_id": 1, "status": "unsubscribed"}).consent is None


def test_nobodys_opt_out_is_lifted_but_by_a_word_that_the_channel_declares() -> None:
    joined = {"message_id": 1, "status": "list.Subscribed", "person": "ann@example.com"}
    usual = read(joined)
    assert (usual.kind, usual.consent) == (EventKind.SUBSCRIBED, None)
    for word in ("subscribed", "LIST_SUBSCRIBED"):
        declared = read(joined, statuses={word: "subscribed"})
        assert declared.consent == Consent(ConsentBy.PROVIDER, ConsentAction.OPT_IN)
    assert read(joined, statuses={"opted in": "subscribed"}).consent is None


def test_excluded_words_are_ignored_before_anything_is_asked_of_them() -> None:
    reader = MappedSettings(ignored=("Contact Created",), mapping=FieldMapping(status="type")).reader
    assert reader.normalize(b'{"type": "contact.created"}', AT_US) == Ignored("excluded")


REFUSED: list[tuple[dict[str, Any], tuple[str | int, ...], str]] = [
    ({"mapping": {"message_id": "message-id"}}, ("mapping", "message_id"), '"message-id"'),
    ({"mapping": {"message_id": "", "event_id": ""}}, ("mapping", "message_id"), "no two events"),
    ({"mapping": {"vars": ["ok", "a[*]"]}}, ("mapping", "vars", 1), "A projection"),
    ({"mapping": {"unknown": "a"}}, ("mapping", "unknown"), "Extra inputs"),
    ({"mapping": {"communication": "a"}, "communication_keys": []}, ("mapping",), "communication_keys is empty"),
    ({"mapping": {"timestamp": ""}, "status_repeats": True}, ("status_repeats",), "mapping.timestamp"),
    ({"statuses": {"sent": "gone"}}, ("statuses", "sent"), "Input should be"),
    ({"statuses": {"a b": "sent", "A-B": "read"}}, ("statuses",), "twice"),
    ({"statuses": {"--": "sent"}}, ("statuses", "--", "[key]"), "letters or digits"),
    ({"statuses": {str(n): "sent" for n in range(257)}}, ("statuses",), "at most 256"),
    ({"directions": {"up": "upward"}}, ("directions", "up"), "Input should be"),
    ({"ignored": ["x" * 65]}, ("ignored", 0), "at most 64"),
    ({"envelope": "a || b"}, ("envelope",), "path of names"),
    ({"time_format": "%H:%M"}, ("time_format",), "no year"),
    ({"time_zone": "Mars"}, ("time_zone",), "no such time zone"),
    ({"recipient_family": "post"}, ("recipient_family",), "Input should be"),
    (
        {"mapping": {"status": SELECTING, "vars": [SELECTING, "(a[?b == 'c'].d | [0]) || e"]}},
        ("mapping",),
        f"{MAX_SELECTIONS + 1} times; {MAX_SELECTIONS} times is the most",
    ),
]


@pytest.mark.parametrize(("settings", "where", "complaint"), REFUSED)
def test_what_cannot_work_is_refused_when_it_is_set(
    settings: dict[str, Any], where: tuple[str | int, ...], complaint: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        MappedSettings.model_validate(settings)
    (error,) = caught.value.errors()
    assert error["loc"] == where
    assert complaint in error["msg"]


def test_what_a_newer_version_stored_is_read_as_far_as_it_is_known() -> None:
    stored = {"statuses": {"gone": "vanished", "off": "failed"}, "mapping": {"status": "s", "newer": 1}, "newer": 2}
    settings = MappedSettings.of_stored(stored)
    assert settings.statuses == {"gone": EventKind.UNKNOWN, "off": EventKind.FAILED}
    assert settings.mapping.status == "s"


def test_settings_go_through_what_is_stored_and_compare() -> None:
    settings = MappedSettings(mapping=FieldMapping(status="a.b"), statuses={"x": EventKind.READ})
    assert MappedSettings.of_stored(settings.model_dump(mode="json", exclude_unset=True)) == settings
    assert settings.reader is settings.reader
    assert settings != MappedSettings()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["sent", "STOP"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=4),
    max_leaves=16,
)
expressions = st.sampled_from(["", "a", "b", "c", "a.b", "a[0]", "a || b", "c || 'sent'", "a[?b == 'sent'].c | [0]"])
mappings = st.dictionaries(st.sampled_from([*FIELDS]), expressions | st.text(max_size=5), max_size=8)
bodies = st.binary(max_size=40) | json_values.map(lambda value: json.dumps(value).encode())


@given(mapping=mappings, bodies=st.lists(bodies, max_size=4), envelope=expressions, time_format=st.text(max_size=6))
def test_no_mapping_and_no_body_raises_anything_but_what_is_said(
    mapping: dict[str, Any], bodies: list[bytes], envelope: str, time_format: str
) -> None:
    given_settings: dict[str, Any] = {"mapping": mapping, "envelope": envelope}
    if time_format:
        given_settings["time_format"] = time_format
    try:
        reader = MappedSettings.model_validate(given_settings).reader
    except ValidationError:
        return
    for body in bodies:
        try:
            parts = reader.split(body)
        except MalformedError:
            continue
        for part in parts:
            try:
                event = reader.normalize(part, AT_US)
            except MalformedError:
                continue
            msgspec.json.encode(event)
            repr(event).encode()
            assert isinstance(event, NormalizedEvent)
            assert 0 < len(event.key) <= 1_024


def test_a_sender_of_many_fields_fills_nothing() -> None:
    members = {f"field{n}": "x" * 5_000 for n in range(600)}
    event = read({"message_id": 1, "status": "sent", **members}, mapping={"vars": ["@"]})
    assert len(event.vars) == len(event.attributes) == MAX_KEPT
    assert max(len(value) for _, value in event.attributes) == 4_096


def test_parts_cost_what_their_length_asks_for() -> None:
    def seconds(count: int) -> float:
        reader = MappedSettings(mapping=FieldMapping(message_id="id", status="s")).reader
        part = json.dumps({"id": 1, "s": "sent", **{f"Name {n}": n for n in range(count)}}).encode()
        best = float("inf")
        for _ in range(3):
            started = time.process_time()
            reader.normalize(part, AT_US)
            best = min(best, time.process_time() - started)
        return best

    assert seconds(40_000) < 10 * max(seconds(10_000), 0.002)


def test_the_worst_mapping_keeps_nobody_waiting_for_the_largest_body() -> None:
    """Each of half a million elements is looked at by as many paths as there may be."""
    mapping = FieldMapping(message_id="id", status="s", vars=(SELECTING, SELECTING))
    reader = MappedSettings(mapping=mapping).reader
    part = b'{"id":1,"s":"sent","a":[' + b",".join([b"1"] * 500_000) + b"]}"
    started = time.process_time()
    reader.normalize(part, AT_US)
    assert time.process_time() - started < 3
