"""Which message an RCS callback is about, and which communication, in every combination of names."""

from __future__ import annotations

import json
from typing import Any

import pytest
from backhaul_channels import Context, EventKind, NormalizedEvent, RawCallback
from backhaul_channels.addresses import canonical, phone
from backhaul_channels.providers.rcs import ADAPTER, RcsSettings
from backhaul_channels.providers.rcs.normalize import address_of
from hypothesis import given
from hypothesis import strategies as st

CONTEXT = Context(RcsSettings())
SENT = {"type": "text", "direction": "outbound", "message": {"contentType": "text", "text": "Oi"}}
SAID = {"type": "text", "direction": "inbound", "message": {"contentType": "text", "text": "Oi"}}
CLICKED = {"type": "suggestionResponse", "direction": "inbound", "message": {"suggestionResponse": {"type": "CALL"}}}

names = st.fixed_dictionaries(
    {},
    optional={
        "reference": st.none() | st.just("") | st.sampled_from(["a", "b", "a:text"]),
        "event_id": st.none() | st.just("") | st.sampled_from(["a", "e1", "e2", "a:text"]),
        "timestamp": st.none() | st.sampled_from(["2024-12-20T13:45:12Z", "2024-12-20T13:45:13Z"]),
    },
)


def read(**callback: Any) -> NormalizedEvent:
    event = ADAPTER.normalize(json.dumps(callback).encode(), CONTEXT)
    assert isinstance(event, NormalizedEvent)
    return event


@given(name=names.filter(lambda one: one.get("reference") or one.get("event_id")), code=st.sampled_from([403, 404]))
def test_one_message_is_one_message_whatever_is_told_of_it(name: dict[str, Any], code: int) -> None:
    told = [
        read(**SENT, **name),
        read(type="DELIVERED", **name),
        read(type="READ", **name),
        read(type="EXCEPTION", message=f"Request failed with status code {code}", **name),
        read(**SENT, **name, status="bloqueado por duplicidade"),
    ]
    assert {event.message_id for event in told} == {name.get("reference") or name["event_id"]}
    assert len({event.key for event in told}) == len(told)


@given(first=names, second=names)
def test_interactions_of_one_message_are_all_kept(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Each has an event_id of its own, and none takes the place of what it answers."""
    for shape in (SAID, CLICKED):
        one = read(**shape, **{"reference": "r", **first, "event_id": "e1"})
        other = read(**shape, **{"reference": "r", **second, "event_id": "e2"})
        assert one.key != other.key
    said, sent = read(**SAID, reference="r", event_id="e1"), read(**SENT, reference="r", event_id="e0")
    assert said.message_id != sent.message_id
    assert said.reply is not None
    assert said.reply.message_id == sent.message_id


@pytest.mark.parametrize(
    ("variables", "joined"),
    [
        ({}, "spring"),
        ({"campaign": "from the variables", "campaign_name": "too"}, "spring"),
        ({"offerId": "o-1"}, "o-1"),
        ({"offerId": "o-1", "COMMUNICATIONID": "c-1"}, "c-1"),
        ({"communicationId": ""}, "spring"),
    ],
)
def test_the_campaign_joins_the_communication_unless_a_variable_does(variables: dict[str, str], joined: str) -> None:
    event = read(**SENT, event_id="e1", campaign_name="spring", vars=variables)
    found = {name.lower(): value for name, value in reversed(event.vars) if value}
    assert next(found[key.lower()] for key in RcsSettings().communication_keys if key.lower() in found) == joined
    assert read(**SAID, event_id="e1", campaign_name="spring").vars == []


@pytest.mark.parametrize("code", [401, 403, 404, 500, 502, 503])
def test_no_error_says_that_the_address_is_invalid(code: int) -> None:
    for word in ("EXCEPTION", "error"):
        event = read(type=word, event_id="e1", message=f"Request failed with status code {code}")
        assert (event.kind, event.error_code, event.invalid_recipient) == (EventKind.FAILED, str(code), False)


@pytest.mark.parametrize(
    ("user_id", "recipient"),
    [
        ("5511987654321", "+5511987654321"),
        ("551132345678", "+551132345678"),
        ("447911123456", "+447911123456"),
        ("+5511987654321", "+5511987654321"),
        ("11987654321", "11987654321"),
        ("1132345678", "1132345678"),
        # From Porto Alegre, Natal and Recife; with a plus they would be valid numbers of other people abroad.
        ("51987654321", "51987654321"),
        ("84987654321", "84987654321"),
        ("81987654321", "81987654321"),
        ("15005550006", "+15005550006"),
        ("12025550123", "+12025550123"),
        ("5511", "5511"),
        ("\u0665\u0665", "\u0665\u0665"),
        ("ana@example.com", "ana@example.com"),
        ("", ""),
    ],
)
def test_a_number_is_one_person_in_all_channels_and_never_somebody_else(user_id: str, recipient: str) -> None:
    assert read(type="READ", event_id="e1", user_id=user_id).recipient == recipient
    assert address_of(recipient) == recipient


@given(st.from_regex(r"55[1-9][1-9]9[0-9]{8}", fullmatch=True))
def test_what_is_known_at_a_glance_is_known_by_the_library_too(user_id: str) -> None:
    number = address_of(user_id)
    assert phone(f"00{user_id}") in (number, f"00{user_id}")
    assert canonical(number) == number


def test_a_body_is_cut_into_parts_and_each_is_bounded() -> None:
    callback = {
        **SAID,
        "event_id": "e1",
        "message": {"contentType": "x" * 9_000, "text": "y" * 99_000, "image": {"fileUri": "z" * 9_000}},
        "vars": {f"{number}" * 3_000: "v" * 9_000 for number in range(99)},
        "status": "s" * 9_000,
        "session_id": "s" * 9_000,
        "user_id": "u" * 9_000,
    }
    body = json.dumps([callback, callback]).encode()
    first, second = ADAPTER.split(RawCallback("POST", "", [], body), RcsSettings())
    assert first == second
    event = ADAPTER.normalize(first, CONTEXT)
    assert isinstance(event, NormalizedEvent)
    assert len(event.text) == 16_384
    assert len(event.recipient) == 512
    assert len(event.vars) == 64
    assert all(len(name) <= 4096 and len(value) <= 4096 for name, value in (*event.vars, *event.attributes))
