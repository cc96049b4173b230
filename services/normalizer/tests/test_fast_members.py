"""Members in JSON Lines: what is decoded fast is what the careful way makes of it, and most lines are."""

from __future__ import annotations

import json

from backhaul_common.lines.cutting import Cut
from backhaul_normalizer.communications.documents import MAX_NAME, MAX_VALUE
from backhaul_normalizer.communications.files import json_members
from backhaul_normalizer.communications.files.members import Member
from backhaul_normalizer.facts import MAX_KEY
from hypothesis import example, given
from hypothesis import strategies as st

_NOISE = st.lists(
    st.sampled_from([b'"', b",", b"a", b"\xc3", b"\xa9", b"\xef\xbb\xbf", b"{", b"}", b"[", b":", b"1"])
    | st.sampled_from([b'{"member_key":"a"}', b'"member_key":'])
    | st.binary(max_size=3).filter(lambda some: not {*some} & {*b"\r\n"}),
    max_size=40,
).map(b"".join)
_TEXTS = st.text(st.sampled_from('ab:",é€😀\x00\u200d\ufffd\xa0 '), max_size=4) | st.sampled_from(
    ["x" * (MAX_KEY + 1), "x" * (MAX_VALUE + 1), "a" * MAX_KEY, "Twilio", "whatsapp:+1", "\ud800"]
)
_SCALARS = (
    _TEXTS
    | st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, 1 << 62, 1 << 64, -(1 << 80), 10**300])
    | st.floats(allow_nan=False, allow_infinity=False)
)
_ANY = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_TEXTS, inner, max_size=2), max_leaves=4
)
_DESTINATION = st.dictionaries(st.sampled_from(["channel", "recipient", "message_id"]), _TEXTS | st.none()) | _ANY
_MEMBER_VALUES = {
    "member_key": _TEXTS | _ANY,
    "attributes": st.dictionaries(_TEXTS | st.just("n" * (MAX_NAME + 1)), _SCALARS | _ANY, max_size=3) | _ANY,
    "destinations": st.lists(_DESTINATION, max_size=3) | _ANY,
    "error_line": _ANY,
    "unknown": _ANY,
}
_MEMBER = st.lists(
    st.sampled_from(sorted(_MEMBER_VALUES)).flatmap(lambda name: st.tuples(st.just(name), _MEMBER_VALUES[name])),
    max_size=4,
)


@st.composite
def _object_lines(draw: st.DrawFn) -> bytes:
    """An object, names that are there twice included, at any depth."""
    ascii_only = draw(st.booleans())
    colon = draw(st.sampled_from([":", " : ", ":\t"]))
    told = ",".join(
        f"{json.dumps(name)}{colon}{json.dumps(value, ensure_ascii=ascii_only)}" for name, value in draw(_MEMBER)
    )
    twice = draw(st.sampled_from(["", '{"a":"1","a":"2"}', '{"a":"1:","a":"2"}', '{"\\u003a":"1","\\u003a":"2"}']))
    if twice:
        told += f',"attributes":{twice}'
    return f"{{{told.removeprefix(',')}}}".encode("utf-8", "replace")


@example(b'{"member_key":"a","attributes":{"a":"1","a":"2"}}')
@example(b'{"member_key":"a:","attributes":{"a":"1","a":"2"}}')
@example(b'{"member_key":"\\u003a","attributes":{"a":"1","a":"2"}}')
@example(b'{"member_key":"a","member_key":"b:"}')
@example(b'{"member_key":"a","destinations":[{"recipient":"a","recipient":"a:"}]}')
@example(b'{"member_key":"\xff"}')
@example(b'{"member_key":"a","attributes":{"n":-0}}')
@example(b'{"member_key":"a","attributes":{"n":1.0}}')
@example(b'\xef\xbb\xbf{"member_key":"a"}')
@example(b'{"member_key":"a"}{"member_key":"b"}')
@given(_object_lines() | _NOISE)
def test_a_line_that_is_decoded_is_what_the_careful_way_makes_of_it(line: bytes) -> None:
    expected = json_members._expected(7, line)
    if expected is not None:
        assert expected == json_members._read(Cut(7, line))


def test_most_lines_are_decoded() -> None:
    attributes = {"first": "Ada: 1", "tier": 3, "zero": 0, "yes": True, "no": False, "none": None}
    destinations = [{"channel": "Twilio", "recipient": "whatsapp:+15005550006", "message_id": None}, {}]
    told = {"member_key": "a", "attributes": attributes, "destinations": destinations}
    line = json.dumps(told).encode() + b"\n"
    assert json_members._expected(1, line) == Member(
        1,
        "a",
        [("first", "Ada: 1"), ("tier", "3"), ("zero", "0"), ("yes", "true"), ("no", "false")],
        [("twilio", "whatsapp:+15005550006", ""), ("", "", "")],
        line,
    )
