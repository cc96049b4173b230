"""What every provider must hold of bodies: the facts in them, and nothing else. See conformance_cases.py."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from itertools import chain
from typing import Any
from urllib.parse import parse_qsl, urlencode

import msgspec
import pytest
from backhaul_channels import (
    Adapter,
    Context,
    EventKind,
    Ignored,
    MalformedError,
    NormalizedEvent,
    RawCallback,
    Source,
)
from backhaul_channels.reading import read_part
from conformance_cases import (
    ADAPTERS,
    EXPECTED_BASES,
    Case,
    body_of,
    callback_of,
    case_files,
    context_of,
    each_adapter,
    event_cases,
    parts_of,
)
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError


def event_params() -> list[Any]:
    return [
        pytest.param(adapter, case, id=f"{provider}-{case['name']}")
        for provider, adapter in ADAPTERS.items()
        for case in event_cases(provider)
    ]


def normalize_all(adapter: Adapter[Any], case: Case) -> list[Case]:
    """The case's events in the form of its ``events``."""
    context = context_of(adapter, case)
    events: list[Case] = []
    for part in parts_of(adapter, case):
        try:
            event = read_part(adapter, part, context)
        except MalformedError as error:
            events.append({"error": str(error)})
        else:
            assert read_part(adapter, part, context) == event, "the same part must give the same fact"
            events.append({"ignored": event.reason} if isinstance(event, Ignored) else as_json(event))
    return events


def as_json(event: NormalizedEvent) -> Case:
    default = NormalizedEvent(kind=EventKind.UNKNOWN, key="", provider_status="")
    full: Case = json.loads(msgspec.json.encode(event))
    plain: Case = json.loads(msgspec.json.encode(default))
    required = {"kind", "key", "provider_status"}
    return {name: value for name, value in full.items() if name in required or value != plain[name]}


@pytest.mark.parametrize(("adapter", "case"), event_params())
def test_normalisation_case(adapter: Adapter[Any], case: Case) -> None:
    if "error" in case:
        assert [outcome for outcome in outcomes_of(adapter, case) if case["error"] in outcome.get("error", "")]
    else:
        assert normalize_all(adapter, case) == case["events"]


@each_adapter
def test_each_case_has_a_name_of_its_own(adapter: Adapter[Any]) -> None:
    """Or ``same_fact_as`` would mean another one."""
    names = [case["name"] for case in event_cases(adapter.provider)]
    assert sorted(set(names)) == sorted(names)


@each_adapter
def test_each_case_says_where_it_is_from_and_who_vouches_for_it(adapter: Adapter[Any]) -> None:
    for path in case_files(adapter.provider):
        content = json.loads(path.read_text("utf-8"))
        shared = content if isinstance(content, dict) else {}
        # An answer is one case, by its source.
        for case in shared.get("cases", []) if shared else content:
            vouched = {**{key: shared.get(key) for key in ("source", "expected_basis")}, **case}
            assert vouched["source"], f"{path.name}: {case['name']}"
            assert vouched["expected_basis"] in EXPECTED_BASES, f"{path.name}: {case['name']}"


@each_adapter
def test_facts_keep_their_key_however_they_arrive(adapter: Adapter[Any]) -> None:
    cases = {case["name"]: case for case in event_cases(adapter.provider)}
    pairs = [(case, cases[case["same_fact_as"]]) for case in cases.values() if "same_fact_as" in case]
    assert pairs, "a provider shows at least one fact that arrives in two ways"
    for case, original in pairs:
        keys = [event["key"] for event in normalize_all(adapter, case)]
        assert keys == [event["key"] for event in normalize_all(adapter, original)], case["name"]


@each_adapter
def test_facts_of_one_body_differ_in_their_keys(adapter: Adapter[Any]) -> None:
    for case in event_cases(adapter.provider):
        keys = [event["key"] for event in case.get("events", []) if "key" in event]
        assert len(set(keys)) == len(keys), case["name"]


@each_adapter
def test_the_cases_hold_a_status_that_nobody_knows(adapter: Adapter[Any]) -> None:
    kinds = {event.get("kind") for case in event_cases(adapter.provider) for event in case.get("events", [])}
    assert "unknown" in kinds


@each_adapter
def test_every_reason_to_ignore_a_part_is_shown_and_declared(adapter: Adapter[Any]) -> None:
    shown = {
        event["ignored"]
        for case in event_cases(adapter.provider)
        for event in case.get("events", [])
        if "ignored" in event
    }
    assert shown == adapter.ignores


@each_adapter
def test_each_kind_that_happens_to_a_message_once_is_shown_with_a_message(adapter: Adapter[Any]) -> None:
    shown = {
        event["kind"]
        for case in event_cases(adapter.provider)
        for event in case.get("events", [])
        if event.get("message_id")
    }
    assert {kind.value for kind in adapter.once} <= shown


@each_adapter
def test_a_recipient_has_a_family_and_what_a_person_said_has_its_kind(adapter: Adapter[Any]) -> None:
    """Who keeps consent must know what was said, of which kind of address, without knowing the provider."""
    for case in event_cases(adapter.provider):
        for event in case.get("events", []):
            if event.get("kind") in ("unsubscribed", "subscribed"):
                assert event["consent"]["by"] == "provider", case["name"]
            if "consent" in event:
                assert event["recipient"], case["name"]
                assert ("scope" in event["consent"]) == ("scope_kind" in event["consent"]), case["name"]
            if "reply" in event:
                assert any(event["reply"].values()), case["name"]
            if "recipient_family" in event:
                assert event["recipient"], case["name"]


def outcomes_of(adapter: Adapter[Any], case: Case) -> list[Case]:
    """The case's events, a body that cannot be split being one error."""
    try:
        return normalize_all(adapter, case)
    except MalformedError as error:
        return [{"error": str(error)}]


@each_adapter
def test_every_entry_of_the_tables_is_held_by_a_case(adapter: Adapter[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """One entry of ``mapping.py`` after the other is damaged; some case must then come out differently."""
    package = f"backhaul_channels.providers.{adapter.provider}"
    names = vars(import_module(f"{package}.mapping")).items()
    tables = {name: table for name, table in names if name.isupper() and isinstance(table, Mapping | frozenset)}
    # Whoever imported a table by name has a binding of its own.
    modules = [vars(module) for name, module in sys.modules.items() if name.startswith(package)]
    bindings = [(module, name) for module in modules for name in module if name in tables]
    before = [(case, outcomes_of(adapter, case)) for case in event_cases(adapter.provider)]

    def noticed(name: str, damaged: object) -> bool:
        # What reads a damaged entry may also fail, in any way.
        with monkeypatch.context() as patch, suppress(Exception):
            for module in [module for module, bound in bindings if bound == name]:
                patch.setitem(module, name, damaged)
            return any(outcomes_of(adapter, case) != outcomes for case, outcomes in before)
        return True

    missing = [
        f"{name}[{entry!r}]"
        for name, table in tables.items()
        for entry in table
        if not noticed(name, {**table, entry: object()} if isinstance(table, Mapping) else table - {entry})
    ]
    assert not missing, f"no case holds {', '.join(missing)}"


# What would matter in a field that is the provider's: codes, words and ids of any provider.
HOSTILE = ("5.1.1", "21610", "550 5.1.1 no such user", "blocked", "Invalid Address", "STOP", "m9.filter", True, 1, 5.5)
DECISIVE = (
    *("kind", "key", "provider_status", "message_id", "provisional", "aliases", "references", "by_machine"),
    *("recipient", "sender", "error_code", "error_text", "invalid_recipient", "text"),
    *("recipient_family", "consent", "reply"),
)


@each_adapter
def test_no_error_status_or_identity_is_taken_from_a_field_that_the_event_does_not_have(adapter: Adapter[Any]) -> None:
    """A provider uses one name for different things in different events, and a sender may give a message parameters
    whose names are fields of other events.

    ``FIELDS`` in a provider's ``mapping.py`` says by ``provider_status`` which fields an event has. Each case gets all
    the others, with values that would mean something. Where ``OTHERS_ARE_PARAMETERS``, they are the sender's.
    """
    mapping = import_module(f"backhaul_channels.providers.{adapter.provider}.mapping")
    fields = getattr(mapping, "FIELDS", None)
    if fields is None:
        return  # Its bodies hold what the provider says and nothing else.
    every = {*chain.from_iterable(fields.values())}
    tried = set()
    for case in event_cases(adapter.provider):
        context = context_of(adapter, case)
        if context.source is Source.BACKFILL:
            continue  # What an API tells has a shape of its own, and names what is the sender's.
        with suppress(MalformedError):
            for part, before in readable_parts(adapter, case, context):
                if before.provider_status not in fields:
                    continue
                event, encode = opened(part)
                foreign = every - {*fields[before.provider_status], *event}
                for value in HOSTILE:
                    added = dict.fromkeys(foreign, value)
                    for spoiled in ({**added, **event}, {**event, **added}):
                        after = adapter.normalize(encode(spoiled), context)
                        assert isinstance(after, NormalizedEvent)
                        for name in DECISIVE:
                            assert getattr(after, name) == getattr(before, name), f"{case['name']}: {name} by {value!r}"
                        kept = foreign & {name for name, _ in after.vars}
                        assert kept == (foreign if getattr(mapping, "OTHERS_ARE_PARAMETERS", False) else set())
                tried.add(before.provider_status)
    assert tried == {*fields}, "each event of the table has a case"


def opened(part: bytes) -> tuple[Case, Callable[[Case], bytes]]:
    """The fields of a part, a form or a JSON object, and what makes a part of such fields."""
    if part.lstrip()[:1] == b"{":
        return json.loads(part.decode("utf-8", "replace")), lambda fields: json.dumps(fields).encode()
    # Latin-1 maps every byte to one character and back, so bytes that are no UTF-8 stay what they are.
    form = dict(parse_qsl(part.decode("latin-1"), keep_blank_values=True, encoding="latin-1"))
    return form, lambda fields: urlencode(fields, encoding="latin-1").encode()


def foreign_params() -> list[Any]:
    return [
        pytest.param(adapter, case, id=f"{provider}-{case['name']}")
        for provider, adapter in ADAPTERS.items()
        for path in case_files(provider)
        if path.name == "foreign.json"
        for case in json.loads(path.read_text("utf-8"))
    ]


@pytest.mark.parametrize(("adapter", "case"), foreign_params())
def test_another_products_webhook_is_no_message(adapter: Adapter[Any], case: Case) -> None:
    """``foreign.json`` holds what may be pointed at a provider's address by mistake. It is kept as unknown, or refused,
    and goes into no message and no opt-out."""
    with suppress(MalformedError):
        for _, event in readable_parts(adapter, case, context_of(adapter, case)):
            assert event.kind is EventKind.UNKNOWN
            names = [event.message_id, event.recipient, event.sender, *event.aliases, *event.references]
            assert not any(names)
            said = [event.text, event.error_code, event.error_text, event.invalid_recipient, event.consent, event.reply]
            assert not any(said)


def readable_parts(adapter: Adapter[Any], case: Case, context: Context[Any]) -> Iterator[tuple[bytes, NormalizedEvent]]:
    for part in parts_of(adapter, case):
        with suppress(MalformedError):
            event = adapter.normalize(part, context)
            if isinstance(event, NormalizedEvent):
                yield bytes(part), event


@each_adapter
def test_unknown_settings_are_refused(adapter: Adapter[Any]) -> None:
    with pytest.raises(ValidationError):
        adapter.settings_model.model_validate({"no_such_setting": 1})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@each_adapter
@given(data=st.data())
def test_no_body_raises_anything_but_malformed(adapter: Adapter[Any], data: st.DataObject) -> None:
    """Any bytes; valid bodies cut, spliced and overwritten; JSON in which a known field has any value; and of each any
    address, since what stands in it is whoever's who knows the tenant's address."""
    known = data.draw(st.sampled_from(event_cases(adapter.provider)))
    body = body_of(known)
    kind = data.draw(st.sampled_from(["bytes", "spliced", "overwritten", "field"]))
    if kind == "bytes":
        body = data.draw(st.binary())
    elif kind == "spliced":
        at = data.draw(st.integers(0, len(body)))
        body = body[:at] + data.draw(st.binary(max_size=6)) + body[at + data.draw(st.integers(0, 6)) :]
    elif kind == "overwritten":
        body = body.replace(
            data.draw(st.sampled_from([b"e", b"=", b'"', b"1", b":"])), data.draw(st.binary(max_size=2))
        )
    else:
        body = overwrite_field(body, data)
    case = {**known, "settings": {}}
    context = context_of(adapter, case)
    pairs = st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=3)
    context = msgspec.structs.replace(context, parameters=data.draw(pairs))
    url = data.draw(st.just(callback_of(case, b"").url) | st.text())
    try:
        parts = adapter.split(RawCallback("POST", url, callback_of(case, b"").headers, body), context.settings)
    except MalformedError:
        return
    for part in parts:
        try:
            event = adapter.normalize(part, context)
        except MalformedError:
            continue
        if isinstance(event, Ignored):
            assert event.reason in adapter.ignores
            continue
        assert event.key
        assert len(event.message_id) <= 512
        # A lone surrogate would get no further than the first encoder.
        msgspec.json.encode(event)
        repr(event).encode()


def overwrite_field(body: bytes, data: st.DataObject) -> bytes:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return body
    target = content[0] if isinstance(content, list) and content else content
    if isinstance(target, dict) and isinstance(target.get("data"), dict) and data.draw(st.booleans()):
        target = target["data"]
    if isinstance(target, dict) and target:
        target[data.draw(st.sampled_from(sorted(target)))] = data.draw(json_values)
    return json.dumps(content).encode()
