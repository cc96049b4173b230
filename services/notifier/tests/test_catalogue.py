"""The catalogue: every type has words, a schema and an example, and the example is what the schema says."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema_rs
import pytest
from backhaul_common.names import notices_subject
from backhaul_notifier.catalogue.listing import Entry, listed
from backhaul_notifier.catalogue.matching import Matcher, selection_of
from backhaul_notifier.catalogue.samples import sample_of
from backhaul_notifier.catalogue.schemas import DIALECT
from backhaul_notifier.catalogue.types import KINDS, NAME, STATUS_KINDS, TYPES, EventType
from backhaul_notifier.fields import JsonSchema
from backhaul_notifier.payloads import Form, Renderer, Told
from backhaul_proto.event.v1.event_pb2 import Event, EventKind
from backhaul_proto.notice.v1.notice_pb2 import Notice

RENDERER = Renderer("https://backhaul.example.com")
ENTRIES = {entry.type: entry for entry in listed(RENDERER)}


def validator(schema: JsonSchema) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(schema, validate_formats=True)


def closed(schema: Any) -> Any:
    """The schema, but that nothing beyond what it names may be there."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    if "properties" in made and isinstance(made.get("properties"), dict):
        made["additionalProperties"] = False
    return made


def test_every_kind_has_a_type_of_its_own() -> None:
    assert [f"message.{word}" for word in KINDS.words] == [
        name for name in TYPES if name.startswith("message.") and name.removeprefix("message.") in KINDS.words
    ]
    for word in KINDS.words:
        assert TYPES[f"message.{word}"].kinds == {KINDS.number(word)}


def test_the_catalogue_has_what_was_asked_for() -> None:
    assert set(TYPES) - {f"message.{word}" for word in KINDS.words} == {
        "message.status_changed", "message.delivery_problem", "member.processed", "communication.completed",
        "reply.received", "reply.flagged", "consent.opt_out", "consent.opt_in", "consent.help",
        "suppression.added", "suppression.lifted", "audit.digest", "channel.silent", "dead_letters.full",
        "communication.disabled", "communication.enabled", "subscription.paused", "subscription.disabled",
    }  # fmt: skip


@pytest.mark.parametrize("each", TYPES.values(), ids=TYPES)
def test_names_are_hierarchies_and_each_says_what_it_is(each: EventType) -> None:
    assert NAME.fullmatch(each.name)
    assert each.name.islower()
    assert each.title
    assert each.description.endswith(".")
    if not each.of_events:
        assert notices_subject("acme", each.name) == f"notices.acme.{each.name}"


def test_a_delivery_problem_is_generation_and_sending_without_bounces() -> None:
    # Whoever has no credit left, or sends the same twice, has nothing sent.
    assert {KINDS.word(kind) for kind in TYPES["message.delivery_problem"].kinds} == {
        "rejected", "failed", "blocked_credit", "duplicate_blocked",
    }  # fmt: skip


def test_a_status_is_no_engagement() -> None:
    assert {KINDS.word(kind) for kind in KINDS.by_number.keys() - STATUS_KINDS} == {
        "unknown", "inbound", "subscribed", "unsubscribed", "opened", "clicked", "complained",
    }  # fmt: skip


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_a_schema_is_one_and_its_example_is_what_it_says(entry: Entry) -> None:
    assert entry.schema["$schema"] == DIALECT
    jsonschema_rs.meta.validate(entry.schema)
    sample = json.loads(entry.sample)
    validator(entry.schema).validate(sample)
    validator(closed(entry.schema)).validate(sample)
    assert json.loads(entry.schema_json) == entry.schema
    assert sample["type"] == entry.type


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_a_schema_takes_nothing_for_another_type_and_lacks_nothing(entry: Entry) -> None:
    check = validator(entry.schema)
    sample = json.loads(entry.sample)
    assert not check.is_valid({**sample, "type": "message.other"})
    assert not check.is_valid({**sample, "timestamp": "yesterday"})
    assert not check.is_valid({**sample, "revision": "1"})
    for name in sample:
        assert not check.is_valid({key: value for key, value in sample.items() if key != name})
    for name in sample["data"]:
        lacking = copy.deepcopy(sample)
        del lacking["data"][name]
        assert not check.is_valid(lacking), name


def test_a_schema_of_today_takes_what_is_added_tomorrow() -> None:
    for entry in ENTRIES.values():
        sample = json.loads(entry.sample)
        sample["data"]["added_later"] = {"x": 1}
        validator(entry.schema).validate(sample)


@pytest.mark.parametrize("each", [each for each in TYPES.values() if each.of_events], ids=lambda each: each.name)
def test_every_event_of_a_type_is_what_its_schema_says(each: EventType) -> None:
    """An event of which nothing is known, and one with everything in it."""
    check = validator(closed(ENTRIES[each.name].schema))
    for kind in each.kinds:
        for event in (Event(id="x", kind=EventKind.ValueType(kind)), everything(kind)):
            check.validate(json.loads(RENDERER.body(Form.FULL, [Told(each.name, event)], with_raw=True).content))


def everything(kind: int) -> Event:
    """Every field has a value, the highest of an enum."""
    event = Event()
    _fill(event)
    event.kind = EventKind.ValueType(kind)
    return event


def _fill(message: Any) -> None:
    for field in message.DESCRIPTOR.fields:
        held = getattr(message, field.name)
        if field.is_repeated:
            if field.message_type:
                _fill(held.add())
            else:
                held.append("x")
        elif field.message_type:
            _fill(held)
        elif field.enum_type:
            setattr(message, field.name, max(field.enum_type.values_by_number))
        else:
            setattr(message, field.name, {"string": "x", "bool": True, "bytes": b"x"}.get(_python_type(field), 1))


def _python_type(field: Any) -> str:
    return {field.TYPE_STRING: "string", field.TYPE_BOOL: "bool", field.TYPE_BYTES: "bytes"}.get(field.type, "number")


@pytest.mark.parametrize("each", TYPES.values(), ids=TYPES)
def test_an_example_is_of_its_own_type(each: EventType) -> None:
    sample = sample_of(each, "tenant-1")
    assert sample == sample_of(each, "tenant-1")
    assert sample.tenant_id == "tenant-1"
    assert Matcher(selection_of([each.name])).types(sample) == (each.name,)


def test_examples_have_ids_of_their_own() -> None:
    assert len({sample_of(each).id for each in TYPES.values()}) == len(TYPES)


def test_a_notice_whose_numbers_are_none_is_told_all_the_same() -> None:
    notice = sample_of(TYPES["dead_letters.full"])
    assert isinstance(notice, Notice)
    for text, told in (("17", 17), ("-5", -5), ("many", "many"), ("", ""), ("1" * 20, "1" * 20), ("१", "१")):
        notice.attributes[0].value = text
        body = json.loads(RENDERER.body(Form.FULL, [Told(notice.type, notice)]).content)
        assert body["data"]["attributes"] == {"most": told}
