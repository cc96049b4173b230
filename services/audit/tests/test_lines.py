"""Lines: the provider's bytes where they are one JSON object, and always exactly one object on one line."""

from __future__ import annotations

import json
from urllib.parse import parse_qsl, urlencode

import msgspec
import pytest
from backhaul_audit.lines import BASE64, FORM, TEXT, Lines, provided
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.event.v1.event_pb2 import Consent, Event
from hypothesis import given
from hypothesis import strategies as st

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
_OBJECTS = st.dictionaries(st.text(), _JSON, max_size=4)


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b'{"a":1}', b'{"a":1}'),
        (b'{"b": 1,  "a":1.0e5, "a":2}', b'{"b": 1,  "a":1.0e5, "a":2}'),
        (b'\r\n{\r\n "a" :\n[1,\r2]\n}\n', b'{ "a" :[1,2]}'),
        (b'{"a":"\\n\\r"}', b'{"a":"\\n\\r"}'),
        (b"a=1&b=%20&a=3", b'{"a":["1","3"],"b":" ","_form":"a=1&b=%20&a=3"}'),
        (b"_form=mine", b'{"_form":"_form=mine"}'),
        (b"", b'{"_text":""}'),
        (b"[1,2]", b'{"_text":"[1,2]"}'),
        (b'"{}"', b'{"_text":"\\"{}\\""}'),
        (b"{not json}", b'{"_text":"{not json}"}'),
        (b'{"a":NaN}', b'{"_text":"{\\"a\\":NaN}"}'),
        (b'{"a":1}{"b":2}', b'{"_text":"{\\"a\\":1}{\\"b\\":2}"}'),
        (b'{"a":"\n"}', b'{"_text":"{\\"a\\":\\"\\n\\"}"}'),
        (b"<a href='x=1'>", b'{"_text":"<a href=\'x=1\'>"}'),
        (b"a=1\nb=2", b'{"_text":"a=1\\nb=2"}'),
        (b"\xff=1", b'{"_base64":"/z0x"}'),
        (b'{"a":"\xff"}', b'{"_base64":"eyJhIjoi/yJ9"}'),
    ],
)
def test_provided(raw: bytes, line: bytes) -> None:
    assert provided(raw) == line


@given(
    st.binary(max_size=200) | st.text().map(str.encode) | st.builds(lambda a, b: a + b"=" + b, st.binary(), st.binary())
)
def test_whatever_comes_is_one_object_on_one_line(raw: bytes) -> None:
    line = provided(raw)
    assert b"\n" not in line
    assert b"\r" not in line
    assert isinstance(json.loads(line.decode()), dict)
    assert isinstance(msgspec.json.decode(line), dict)
    assert provided(raw) == line


@given(_OBJECTS, st.sampled_from([None, 2, "\r\n\t"]))
def test_json_is_kept_but_for_line_breaks(value: dict[str, object], indent: int | str | None) -> None:
    raw = json.dumps(value, indent=indent).encode()
    if "\\ud" in raw.decode():  # A lone surrogate: readers that are strict refuse such JSON.
        return
    assert provided(raw) == raw.replace(b"\r", b"").replace(b"\n", b"")
    assert json.loads(provided(raw)) == value


@given(st.lists(st.tuples(st.text(min_size=1), st.text()), min_size=1, max_size=5))
def test_forms_have_their_fields_and_themselves(fields: list[tuple[str, str]]) -> None:
    raw = urlencode(fields, errors="replace").encode()
    line = json.loads(provided(raw))
    assert line.pop(FORM) == raw.decode()
    wanted: dict[str, list[str]] = {}
    for name, value in parse_qsl(raw.decode(), keep_blank_values=True):
        wanted.setdefault(name, []).append(value)
    wanted.pop(FORM, None)
    assert {name: value if isinstance(value, list) else [value] for name, value in line.items()} == wanted


def test_deep_and_large_bodies_are_texts_or_kept() -> None:
    # Deeper than any Python follows.
    deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    assert json.loads(provided(deep)) == {TEXT: deep.decode()}
    large = b'{"a":"' + b"x" * 600_000 + b'"}'
    assert provided(large) is large
    assert json.loads(provided(b"\xff" * 600_000)).keys() == {BASE64}


def test_the_normalised_event_stands_beside_it() -> None:
    one = Event(
        id="a" * 32,
        tenant_id="acme",
        registration="acme.1",
        channel="twilio",
        kind=event_pb2.EVENT_KIND_INBOUND,
        received_at_us=1_700_000_000_123_456,
        recipient_family=event_pb2.ADDRESS_FAMILY_PHONE,
        consent=Consent(action=event_pb2.CONSENT_ACTION_OPT_OUT, word="STOP"),
        raw=b'{"Body":\n"STOP"}',
        traceparent="00-1-2-01",
        sequence=0,
    )
    one.vars.add(name="offerId", value="7")
    (line,) = Lines().of([one], with_event=True)
    read = json.loads(line)
    assert read["raw"] == {"Body": "STOP"}
    event = read["event"]
    assert event["kind"] == "inbound"
    assert event["received_at"] == "2023-11-14T22:13:20.123456Z"
    assert event["occurred_at"] is None
    assert event["recipient_family"] == "phone"
    assert event["consent"]["action"] == "opt_out"
    assert event["consent"]["scope_kind"] is None
    assert event["vars"] == [{"name": "offerId", "value": "7"}]
    assert event["reply"] is None
    assert event["sequence"] == 0
    assert not {"raw", "traceparent"} & event.keys()


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**31 - 1))
def test_no_number_keeps_an_event_from_being_written(at_us: int, kind: int) -> None:
    one = Event(id="a" * 32, occurred_at_us=at_us, received_at_us=at_us)
    one.kind = kind  # type: ignore[assignment]  # a value that is newer than this program
    (line,) = Lines().of([one], with_event=True)
    assert json.loads(line)["event"]["kind"] is None or isinstance(json.loads(line)["event"]["kind"], str)
