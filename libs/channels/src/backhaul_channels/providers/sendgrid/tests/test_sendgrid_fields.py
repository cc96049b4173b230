"""Which fields are SendGrid's and which are the sender's, event by event."""

from __future__ import annotations

import json
from typing import Any

import pytest
from backhaul_channels import Context, NormalizedEvent
from backhaul_channels.providers.sendgrid import ADAPTER
from backhaul_channels.providers.sendgrid.mapping import FIELDS, UNKNOWN_FIELDS
from backhaul_channels.providers.sendgrid.settings import SendGridSettings

SETTINGS = SendGridSettings()


def normalized(event: str, /, **fields: Any) -> NormalizedEvent:
    body = {
        "event": event,
        "email": "a@example.com",
        "timestamp": 1,
        "sg_event_id": "e",
        "sg_message_id": "m.f",
        **fields,
    }
    return ADAPTER.normalize(json.dumps(body).encode(), Context(SETTINGS))


# The Event Webhook Reference's two tables, read in November 2026, by row; written down apart from mapping.py, which
# also knows what the page's examples and real events hold.
DELIVERY = ("bounce", "delivered", "deferred", "dropped", "processed")
ENGAGEMENT = ("open", "click", "spamreport", "unsubscribe", "group_unsubscribe", "group_resubscribe")
TABLE = {
    "asm_group_id": (*DELIVERY, "open", "click", "group_unsubscribe", "group_resubscribe"),
    "attempt": ("deferred",),
    "bounce_classification": ("bounce",),
    "ip": ("delivered", "open", "click", "group_unsubscribe", "group_resubscribe"),
    "pool": ("processed",),
    "reason": ("bounce", "deferred", "dropped"),
    "response": ("delivered",),
    "sg_machine_open": ("open",),
    "smtp-id": DELIVERY,
    "status": ("bounce",),
    "tls": ("bounce", "delivered"),
    "type": ("bounce",),
    "url": ("click",),
    "url_offset": ("click",),
    "useragent": ("open", "click", "group_unsubscribe", "group_resubscribe"),
}
# What the table lacks and the page's examples, django-anymail or real payloads have.
SEEN = {
    "smtp-id": ENGAGEMENT,
    "response": ("deferred",),
    "status": ("dropped",),
    "type": ("dropped",),
    "domain": ("deferred",),
    "from": ("deferred",),
    "url": ("group_unsubscribe", "group_resubscribe"),
    "ip": ("bounce", "deferred"),
    "tls": ("deferred",),
    "cert_err": ("bounce", "delivered", "deferred"),
    "newsletter": ("click", "unsubscribe"),
}
# Fields whose values show whether SendGrid wrote them, and a value that it would write.
SHAPED = {"status": "5.0.0", "type": "blocked"}


@pytest.mark.parametrize("event", [*DELIVERY, *ENGAGEMENT])
@pytest.mark.parametrize("name", sorted({*TABLE, *SEEN}))
def test_a_field_is_sendgrids_in_the_events_that_have_it_and_the_senders_in_all_others(event: str, name: str) -> None:
    own = event in TABLE.get(name, ()) or event in SEEN.get(name, ())
    value = SHAPED.get(name, "x")
    assert (name not in dict(normalized(event, **{name: value}).vars)) == own
    assert (name in FIELDS[event]) == own


@pytest.mark.parametrize("event", [*DELIVERY, *ENGAGEMENT])
@pytest.mark.parametrize(
    "name",
    ["email", "timestamp", "event", "sg_event_id", "sg_message_id", "smtp-id", "post_type", "sg_user_id", "reseller_id",
     "mc_stats", "sg_content_type", "sg_template_id", "sg_template_name", "unique_args", "custom_args"],
)  # fmt: skip
def test_what_every_event_has_is_nobodys_parameter(event: str, name: str) -> None:
    value = {"timestamp": 1, "event": event}.get(name, "x")
    assert name not in dict(normalized(event, **{name: value}).vars)


def test_a_senders_status_is_no_error_of_a_deferral() -> None:
    event = normalized("deferred", status="active", response="421 4.7.0 try later", attempt="3")
    assert (event.error_code, event.error_text) == ("421", "421 4.7.0 try later")
    assert ("status", "active") in event.vars


@pytest.mark.parametrize("event", ["bounce", "dropped"])
@pytest.mark.parametrize("status", ["active", "5", "5.1", "999", "5.1.1.1", "five", "", True, 5.5])
def test_a_status_that_no_server_answers_is_the_senders(event: str, status: object) -> None:
    found = normalized(event, status=status, reason="550 no such user")
    assert found.error_code == "550"
    assert "status" in dict(found.vars)


@pytest.mark.parametrize(("status", "code"), [("5.1.1", "5.1.1"), (" 4.4.7 ", "4.4.7"), ("550", "550"), (550, "550")])
def test_a_status_of_a_server_is_the_error_code(status: object, code: str) -> None:
    found = normalized("bounce", status=status, reason="421 later")
    assert found.error_code == code
    assert "status" not in dict(found.vars)


@pytest.mark.parametrize("event", ["delivered", "processed", "open", "click", "spamreport", "unsubscribe"])
def test_no_error_is_taken_from_an_event_that_tells_none(event: str) -> None:
    found = normalized(event, status="5.1.1", reason="550 no", response="550 no", type="blocked")
    assert (found.error_code, found.error_text, found.invalid_recipient) == ("", "", False)


def test_template_id_is_sendgrids_only_in_a_single_send() -> None:
    assert ("template_id", "t") in normalized("delivered", template_id="t").vars
    single = normalized("delivered", template_id="t", mc_stats="singlesend")
    assert not single.vars
    assert ("marketing_template_id", "t") in single.attributes


def test_the_sender_of_a_deferral_is_its_from() -> None:
    assert normalized("deferred", **{"from": "orders@example.com"}).sender == "orders@example.com"
    elsewhere = normalized("delivered", **{"from": "crm"})
    assert elsewhere.sender == ""
    assert ("from", "crm") in elsewhere.vars


@pytest.mark.parametrize(("kind", "invalid"), [(None, True), ("bounce", True), ("blocked", False), ("expired", False)])
def test_only_a_bounce_proper_says_that_the_address_is_invalid(kind: str | None, invalid: bool) -> None:
    fields = {} if kind is None else {"type": kind}
    assert normalized("bounce", bounce_classification="Invalid Address", **fields).invalid_recipient is invalid


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"reason": "Invalid Address"}, "invalid"),
        ({"reason": "Invalid"}, "invalid"),
        ({"reason": " invalid-address "}, "invalid"),
        ({"reason": "Invalid SMTPAPI header"}, "other"),
        ({"reason": "Spam Content (if you turned on the Spam Checker app)"}, "spam"),
        ({"reason": "bounce"}, "bounced"),
        ({"reason": "BLOCKED"}, "blocked"),
        ({"type": "expired"}, "timed_out"),
        ({"type": "bounce", "reason": "550 no such user"}, "bounced"),
        ({"type": "blocked", "reason": "Bounced Address"}, "bounced"),
        ({"type": "blocked or so"}, "other"),
        ({}, "other"),
    ],
)
def test_reasons_of_drops(fields: dict[str, str], expected: str) -> None:
    found = normalized("dropped", **fields)
    assert dict(found.attributes)["reject_reason"] == expected
    assert found.invalid_recipient is (expected == "invalid")


@pytest.mark.parametrize(("value", "machine"), [(True, True), ("true", True), (" True", True), (1, True), ("1", True),
                                                (False, False), ("false", False), (0, False), (None, False),
                                                ("yes, really", False), ({"a": 1}, False)])  # fmt: skip
def test_opens_by_machine(value: object, machine: bool) -> None:
    assert normalized("open", sg_machine_open=value).by_machine is machine
    assert normalized("click", sg_machine_open=value).by_machine is False
    assert normalized("delivered", sg_machine_open=value).by_machine is False


@pytest.mark.parametrize(
    ("fields", "test"),
    [
        ({"sg_message_id": "14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.0"}, True),
        ({"sg_message_id": " 14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.0"}, True),
        ({"sg_message_id": "sg_message_id", "smtp-id": "<14c5d75ce93.dfd.64b469@ismtpd-555>"}, True),
        ({"smtp-id": "14c5d75ce93.dfd.64b469@ismtpd-555"}, True),
        # People do write to example@test.com, and other ids may begin alike.
        ({"email": "example@test.com"}, False),
        ({"sg_message_id": "14c5d75ce93.dfd.64b4690.filter0001"}, False),
        ({"smtp-id": "<x14c5d75ce93.dfd.64b469@ismtpd-555>"}, False),
        ({"category": "cat facts"}, False),
    ],
)
def test_the_consoles_test_events_are_marked(fields: dict[str, str], test: bool) -> None:
    assert (("test", "true") in normalized("processed", **fields).attributes) is test


def test_without_an_event_id_a_senders_field_makes_no_other_fact() -> None:
    plain = normalized("delivered", sg_event_id="")
    assert plain.key.startswith("sha256:")
    assert normalized("delivered", sg_event_id="", reason="x", url="y", attempt="1", useragent="z").key == plain.key
    assert normalized("click", sg_event_id="", url="x").key != normalized("click", sg_event_id="", url="y").key


def test_an_unknown_event_gives_the_sender_only_what_is_nowhere_sendgrids() -> None:
    found = normalized("seen", **{name: "x" for name in UNKNOWN_FIELDS if name not in ("event", "timestamp")}, own="o")
    assert [pair for pair in found.vars if pair[0] != "category"] == [("own", "o")]
    assert (found.error_code, found.error_text, found.sender, found.by_machine) == ("", "", "", False)
