"""Bodies in every form, one by one and together, and what does not go together."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from itertools import product
from typing import Any

import pytest
from backhaul_common.errors import BackhaulError
from backhaul_gateway.reads.views import ONE_EVENT
from backhaul_notifier.catalogue.samples import sample_of
from backhaul_notifier.catalogue.types import TYPES
from backhaul_notifier.payloads import NO_BODY, Body, Form, Renderer, Told, check_form
from backhaul_proto.event.v1.event_pb2 import Attribute, Event
from backhaul_proto.notice.v1.notice_pb2 import About, Notice
from hypothesis import given, settings
from hypothesis import strategies as st

URL = "https://backhaul.example.com"
RENDERER = Renderer(URL + "/")
SAMPLES = [Told(each.name, sample_of(each)) for each in TYPES.values()]
DELIVERED, COMPLETED = (Told(name, sample_of(TYPES[name])) for name in ("message.delivered", "communication.completed"))
NOT_TOLD = {"data", "data_format", "traceparent"}
"""What the public API shows of an event beside what a call tells."""


def event_of(told: Told) -> Event:
    assert isinstance(told.said, Event)
    return told.said


def read(body: Body) -> Any:
    return json.loads(body.content)


def shown(event: Event) -> dict[str, Any]:
    """What the public API shows of an event."""
    steps = ONE_EVENT.json(event)
    try:
        while True:
            next(steps)
    except StopIteration as done:
        return {name: value for name, value in json.loads(done.value).items() if name not in NOT_TOLD}


@pytest.mark.parametrize("told", [told for told in SAMPLES if isinstance(told.said, Event)], ids=lambda told: told.type)
def test_full_says_of_an_event_what_the_public_api_shows(told: Told) -> None:
    body = read(RENDERER.body(Form.FULL, [told]))
    assert list(body) == ["id", "type", "timestamp", "revision", "data"]
    assert body["data"] == shown(event_of(told))
    assert list(body["data"]) == [name for name in shown(event_of(told)) if name in body["data"]]
    assert (body["id"], body["type"], body["timestamp"]) == (told.said.id, told.type, body["data"]["occurred_at"])


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.integers(-(2**62), 2**62)
EVENTS = st.builds(
    Event,
    id=WORDS, kind=st.integers(0, 30), text=WORDS, occurred_at_us=NUMBERS, received_at_us=NUMBERS,
    sequence=st.none() | NUMBERS,
    error_class=st.integers(0, 9), error_url=WORDS, revision=NUMBERS, references=st.lists(WORDS, max_size=2),
    vars=st.lists(st.builds(Attribute, name=WORDS, value=WORDS), max_size=2), by_machine=st.booleans(),
    source=st.integers(0, 6), verification=st.integers(0, 6), review=st.integers(0, 5),
    recipient_family=st.integers(0, 5),
    consent=st.none() | st.fixed_dictionaries({"action": st.integers(0, 4), "by": st.integers(0, 4), "scope": WORDS}),
    classification=st.none()
    | st.fixed_dictionaries({"confidence": st.integers(0, 5), "templates": st.lists(WORDS, max_size=2)}),
    answered=st.none() | st.fixed_dictionaries({"channel": WORDS, "by": st.integers(0, 4)}),
    reply=st.none() | st.fixed_dictionaries({"payload": WORDS}),
)  # fmt: skip


@settings(max_examples=50)
@given(EVENTS)
def test_whatever_the_event_it_is_told_as_the_public_api_shows_it(event: Event) -> None:
    """Also of enums that are newer than this copy."""
    assert read(RENDERER.body(Form.FULL, [Told("message.delivered", event)]))["data"] == shown(event)


def test_what_the_provider_sent_is_told_where_it_is_asked_for() -> None:
    assert "raw_base64" not in read(RENDERER.body(Form.FULL, [DELIVERED]))["data"]
    for form in (Form.FULL, Form.CLOUDEVENTS):
        data = read(RENDERER.body(form, [DELIVERED], with_raw=True))["data"]
        assert b64decode(data["raw_base64"]) == b"MessageSid=SM0001"


@pytest.mark.parametrize("told", SAMPLES, ids=lambda told: told.type)
def test_bodies_are_far_below_what_is_recommended(told: Told) -> None:
    for form in Form:
        assert len(RENDERER.body(form, [told]).content) < 2000


def test_a_body_has_no_time_of_its_own_so_every_attempt_says_the_same() -> None:
    for told, form in product(SAMPLES, Form):
        assert RENDERER.body(form, [told]) == RENDERER.body(form, [told])


def test_a_time_that_is_not_known_is_that_of_the_arrival_or_the_epochs() -> None:
    assert (
        read(RENDERER.body(Form.THIN, [Told("x", Event(received_at_us=1))]))["timestamp"]
        == "1970-01-01T00:00:00.000001Z"
    )
    for said in (Event(), Notice(), Event(occurred_at_us=2**62)):
        assert read(RENDERER.body(Form.THIN, [Told("x", said)]))["timestamp"] == "1970-01-01T00:00:00.000000Z"


def test_a_notice_in_full() -> None:
    assert read(RENDERER.body(Form.FULL, [COMPLETED])) == {
        "id": COMPLETED.said.id,
        "type": "communication.completed",
        "timestamp": "2026-11-26T13:33:20.000000Z",
        "revision": 0,
        "data": {
            "id": COMPLETED.said.id,
            "occurred_at": "2026-11-26T13:33:20.000000Z",
            "text": TYPES["communication.completed"].description,
            "channel": "",
            "communication_id": "spring-sale",
            "message_id": "",
            "recipient": "",
            "event_id": "",
            "batch_id": "spring-1",
            "attributes": {
                "completed_by": "condition", "members": 3, "destinations": 3, "waiting": 0, "Queued": 0, "Sent": 0,
                "Delivered": 3, "Undelivered": 0, "Failed": 0, "InvalidNumber": 0,
            },
        },
    }  # fmt: skip


def test_a_notice_of_tomorrow_is_told_with_what_it_has() -> None:
    notice = Notice(id="1", type="newer.thing", about=About(reference="r"), attributes=[Attribute(name="n", value="1")])
    data = read(RENDERER.body(Form.FULL, [Told("newer.thing", notice)]))["data"]
    assert (data["reference"], data["attributes"]) == ("r", {"n": "1"})
    assert read(RENDERER.body(Form.THIN, [Told("newer.thing", notice)]))["data"]["links"] == {}


def test_thin_has_ids_and_where_the_rest_is() -> None:
    body = read(RENDERER.body(Form.THIN, [DELIVERED]))
    assert list(body) == ["id", "type", "timestamp", "revision", "data"]
    assert body["data"] == {
        "id": DELIVERED.said.id,
        "channel": "twilio",
        "message_id": "SM0001",
        "communication_id": "spring-sale",
        "links": {
            "message": f"{URL}/v1/messages/twilio/SM0001",
            "communication": f"{URL}/v1/communications/spring-sale",
        },
    }


def test_thin_tells_nothing_of_a_person() -> None:
    for told in SAMPLES:
        text = RENDERER.body(Form.THIN, [told]).content.decode()
        assert "+1500555" not in text
        assert "anna" not in text


def test_an_event_of_no_message_is_found_by_when_it_arrived() -> None:
    event = Event(id="1", channel="twilio", received_at_us=1_700_000_000_000_000)
    links = read(RENDERER.body(Form.THIN, [Told("consent.opt_out", event)]))["data"]["links"]
    span = "from=2023-11-14T22%3A13%3A20.000000Z&to=2023-11-14T22%3A13%3A20.000001Z"
    assert links == {"events": f"{URL}/v1/events?channel=twilio&{span}"}


def test_ids_that_hold_anything_are_one_segment_of_an_address() -> None:
    event = Event(channel="twilio", message_id="a/b?c#d é", communication_id="../x")
    links = read(RENDERER.body(Form.THIN, [Told("message.sent", event)]))["data"]["links"]
    assert links["message"] == f"{URL}/v1/messages/twilio/a%2Fb%3Fc%23d%20%C3%A9"
    assert links["communication"] == f"{URL}/v1/communications/..%2Fx"


@pytest.mark.parametrize(
    ("name", "links"),
    [
        (
            "communication.completed",
            {"batch": "/v1/batches/spring-1", "communication": "/v1/communications/spring-sale"},
        ),
        ("communication.disabled", {"communication": "/v1/communications/spring-sale"}),
        ("audit.digest", {"digest": "/v1/audits/digests/events/17"}),
        ("channel.silent", {"channels": "/v1/reconciliation/channels"}),
        ("dead_letters.full", {"dead_letters": "/v1/dead-letters"}),
        ("suppression.added", {"changes": "/v1/suppressions/changes?after=41"}),
        ("subscription.paused", {"subscription": "/v1/subscriptions/sub_5f2c7d1e8a9b0c3d4e5f6a7b"}),
    ],
)
def test_a_notice_leads_to_what_it_is_about(name: str, links: dict[str, str]) -> None:
    body = read(RENDERER.body(Form.THIN, [Told(name, sample_of(TYPES[name]))]))
    assert body["data"]["links"] == {link: URL + path for link, path in links.items()}


def test_cloudevents_are_structured() -> None:
    body = RENDERER.body(Form.CLOUDEVENTS, [DELIVERED])
    assert body.content_type == "application/cloudevents+json"
    made = read(body)
    assert {name: value for name, value in made.items() if name != "data"} == {
        "specversion": "1.0",
        "id": f"{DELIVERED.said.id}-0",
        "source": f"{URL}/v1/channels/twilio",
        "type": "message.delivered",
        "time": "2026-11-26T13:33:20.000000Z",
        "datacontenttype": "application/json",
        "subject": "SM0001",
        "traceparent": DELIVERED.said.traceparent,
    }
    assert made["data"] == shown(event_of(DELIVERED))


@pytest.mark.parametrize("told", [*SAMPLES, Told("message.sent", Event(id="1"))], ids=lambda told: told.type)
def test_every_cloudevent_has_what_the_specification_requires(told: Told) -> None:
    """CloudEvents 1.0, 2.4 and 3: names of attributes are lower-case letters and digits, and no value is empty."""
    made = read(RENDERER.body(Form.CLOUDEVENTS, [told]))
    assert {"specversion", "id", "source", "type"} <= made.keys()
    for name, value in made.items():
        assert name.isalnum()
        assert name.islower()
        assert name == "data" or (isinstance(value, str) and value)


def test_of_one_source_each_revision_is_an_event_of_its_own() -> None:
    ids = {
        read(RENDERER.body(Form.CLOUDEVENTS, [Told("x", Event(id="a", revision=number))]))["id"] for number in (0, 1)
    }
    assert ids == {"a-0", "a-1"}


def test_spec_is_nothing_but_the_address() -> None:
    for told in SAMPLES:
        if told.type != "communication.completed":
            assert RENDERER.body(Form.SPEC, [told]) == NO_BODY == Body(b"", "")


def test_spec_of_a_completed_communication_by_post_refers_to_the_batch() -> None:
    body = RENDERER.body(Form.SPEC, [COMPLETED])
    assert body == Body(b'{"batch":"https://backhaul.example.com/v1/batches/spring-1"}', "application/json")
    assert RENDERER.body(Form.SPEC, [COMPLETED], post=False) == NO_BODY


@pytest.mark.parametrize("form", [Form.FULL, Form.THIN, Form.CLOUDEVENTS])
def test_several_are_a_list_and_one_of_a_batch_is_a_list_of_one(form: Form) -> None:
    both = RENDERER.body(form, [DELIVERED, COMPLETED], batched=True)
    assert read(both) == [read(RENDERER.body(form, [told])) for told in (DELIVERED, COMPLETED)]
    assert len(read(RENDERER.body(form, [DELIVERED], batched=True))) == 1
    kind = "application/cloudevents-batch+json" if form is Form.CLOUDEVENTS else "application/json"
    assert both.content_type == kind


@pytest.mark.parametrize("told", [[], [DELIVERED, COMPLETED]])
def test_a_call_that_is_not_batched_tells_one(told: list[Told]) -> None:
    with pytest.raises(ValueError, match="tells one event"):
        RENDERER.body(Form.FULL, told)


def test_a_batch_is_neither_empty_nor_spec() -> None:
    with pytest.raises(ValueError, match="tells one event"):
        RENDERER.body(Form.FULL, [], batched=True)
    with pytest.raises(ValueError, match="not batched"):
        RENDERER.body(Form.SPEC, [COMPLETED], batched=True)


@pytest.mark.parametrize(
    ("chosen", "field"),
    [
        ({"max_events": -1}, "payload.max_events"),
        ({"max_events": 101}, "payload.max_events"),
        ({"max_wait_s": 61}, "payload.max_wait_s"),
        ({"max_wait_s": -1}, "payload.max_wait_s"),
        ({"post": False}, "http.method"),
        ({"form": Form.SPEC, "max_events": 2}, "payload.max_events"),
        ({"max_events": 2, "variables": True}, "http.url"),
        ({"form": Form.THIN, "with_raw": True}, "payload.with_raw"),
        ({"form": Form.SPEC, "with_raw": True}, "payload.with_raw"),
    ],
)
def test_what_does_not_go_together_is_refused(chosen: dict[str, Any], field: str) -> None:
    with pytest.raises(BackhaulError) as refused:
        check(**chosen)
    assert [wrong.field for wrong in refused.value.violations] == [f"definition.{field}"]
    assert refused.value.fix


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"max_events": 100, "max_wait_s": 60, "with_raw": True},
        {"variables": True, "max_events": 1},
        {"form": Form.SPEC, "post": False, "variables": True},
        {"form": Form.SPEC, "max_events": 1},
        {"form": Form.CLOUDEVENTS, "with_raw": True, "max_events": 5},
    ],
)
def test_what_goes_together_is_good(chosen: dict[str, Any]) -> None:
    check(**chosen)


def check(**chosen: Any) -> None:
    usual = {"form": Form.FULL, "max_events": 0, "max_wait_s": 0, "post": True, "variables": False, "with_raw": False}
    check_form(**{**usual, **chosen})


def test_rendering_costs_little() -> None:
    """Measured at 25,000 to 37,000 a second of CPU on a busy machine, with the decoding; the bound is for slow ones."""
    stored = DELIVERED.said.SerializeToString()
    best = min(_cpu_s(stored) for _ in range(5))
    assert 200 / best > 4000


def _cpu_s(stored: bytes) -> float:
    began = time.process_time()
    for _ in range(200):
        RENDERER.body(Form.FULL, [Told("message.delivered", Event.FromString(stored))])
    return time.process_time() - began
