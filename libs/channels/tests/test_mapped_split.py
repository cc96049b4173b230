"""Bodies of mapped webhooks, cut into events wherever these stand."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from urllib.parse import quote_plus

import pytest
from backhaul_channels import MalformedError
from backhaul_channels.engines.mapped.paths import compile_envelope
from backhaul_channels.engines.mapped.split import split, written
from backhaul_channels.jsonparts import MAX_PARTS
from hypothesis import given
from hypothesis import strategies as st


def cut(body: bytes, envelope: str) -> list[bytes]:
    return split(body, compile_envelope(envelope))


@pytest.mark.parametrize(
    ("body", "envelope", "parts"),
    [
        (b'{"a": 1}', "", [b'{"a": 1}']),
        (b'[{"a": 1},\r\n {"a" : 2}]', "", [b'{"a": 1}', b'{"a" : 2}']),
        (b"[]", "", []),
        (b"a=1&b=2", "", [b"a=1&b=2"]),
        (b' {"n": 7, "results": [{"a" : 1}, {"a": 2} ]}', "results", [b'{"a" : 1}', b'{"a": 2}']),
        (b'{"results": []}', "results", []),
        (b'{"results": {"a": 1}}', "results", [b'{"a": 1}']),
        (b'{"x": {"y": [5, {"z": {"a": 1}}]}}', "x.y[1].z", [b'{"a": 1}']),
        (b'{"x": [{"a": 1}]}', "x[-1]", [b'{"a": 1}']),
        (
            b'{"e": [{"c": [{"v": {"s": [{"a": 1}]}}, {"v": {}}]}, {"c": [{"v": {"s": [{"a": 2}, {"a": 3}]}}]}]}',
            "e[].c[].v.s",
            [b'{"a": 1}', b'{"a": 2}', b'{"a": 3}'],
        ),
        (b'{"e": []}', "e[].c", []),
        (b'{"e": [{"a": 1}, 5, null, [{"a": 2}]]}', "e[]", [b'{"a": 1}', b"5", b"null", b'{"a": 2}']),
        (b'{"e": "[{\\"a\\": \\"\\u00fc\\"}]"}', "e", ['{"a": "ü"}'.encode()]),
        (b"n=1&e=" + quote_plus('[{"a": "ü"}, {}]').encode(), "e", ['{"a": "ü"}'.encode(), b"{}"]),
        (b"e=" + quote_plus('{"f": [{"a": 1}]}').encode(), "e.f", [b'{"a": 1}']),
        # One event that is no JSON, or holds half of an emoji, leaves the others as they are.
        (b'{"e": [{"a": "\\ud83d"}, {"a": "\\ud83d\\ude00"}]}', "e", [b'{"a": "?"}', b'{"a": "\\ud83d\\ude00"}']),
        (b'{"e": [{"a": "\\\\ud83d\xff"}]}', "e", [b'{"a": "\\\\ud83d\xff"}']),
    ],
)
def test_events_are_found_verbatim_and_in_order(body: bytes, envelope: str, parts: list[bytes]) -> None:
    assert cut(body, envelope) == parts


@pytest.mark.parametrize(
    ("body", "envelope", "complaint"),
    [
        (b"", "", "neither JSON nor a form"),
        (b"hello", "", "neither JSON nor a form"),
        (b"7", "a", "neither JSON nor a form"),
        (b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b--', "", "multipart/form-data"),
        (b'{"other": []}', "results", "envelope results is not in the body"),
        (b'{"results": null}', "results[0].a", "envelope results[0].a is not in the body"),
        (b'{"results": 5}', "results", "neither an object nor an array"),
        (b'{"results": "5"}', "results", "neither an object nor an array"),
        (b'{"results": [{]}', "results", "not valid JSON"),
        (b'{"results": [' + b"[" * 100_000 + b"]" * 100_000 + b"]}", "results", "nested too deeply"),
        (b'{"results": [' + b"{}," * MAX_PARTS + b"{}]}", "results", "more than 10000"),
        (b'{"e": [' + b'{"c": [{}, {}]},' * 5_001 + b'{"c": []}]}', "e[].c[]", "more than 10000"),
        (b"a=1", "e", "envelope e is not in the body"),
        (b"e=1", "e", "holds no JSON"),
        (b"e=1", "[0]", "envelope [0] is not in the body"),
    ],
)
def test_a_body_without_events_says_why(body: bytes, envelope: str, complaint: str) -> None:
    with pytest.raises(MalformedError) as caught:
        cut(body, envelope)
    assert complaint in str(caught.value)


def test_an_envelope_is_written_as_it_was_set() -> None:
    for text in ("a.b[0].c", "e[].c[].s", "[].a"):
        assert written(compile_envelope(text)) == text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=3),
    max_leaves=20,
)


@given(
    body=st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()),
    envelope=st.sampled_from(["", "a", "a.b", "a[0]", "a[]", "a[].b[]", "[].a", "@"]),
    cut_at=st.integers(0, 60),
)
def test_no_body_raises_anything_but_malformed(body: bytes, envelope: str, cut_at: int) -> None:
    for one in (body, body[:cut_at], b"a=" + body):
        with suppress(MalformedError):
            assert all(isinstance(part, bytes) for part in cut(one, envelope))


def seconds(body: bytes, envelope: str) -> float:
    best = float("inf")
    for _ in range(3):
        started = time.process_time()
        with suppress(MalformedError):
            cut(body, envelope)
        best = min(best, time.process_time() - started)
    return best


@pytest.mark.parametrize(
    ("unit", "envelope"),
    [
        (b'{"c": [{"a": "b"}]}', "e[].c"),
        (b'{"c": ' + b"[" * 20 + b"]" * 20 + b"}", "e[].c[0][0][0][0]"),
        (b'"\\ud83d"', "e"),
        (b'{"c": "\\\\\\ud83d\\ud83d"}', "e[].c"),
        (b'{"c": 1, "c": 2}', "e"),
    ],
)
def test_a_body_costs_what_its_length_asks_for(unit: bytes, envelope: str) -> None:
    """Four times as long, at most some eight times as dear; a body of this kind that squared would be sixteen."""
    short, long = (b'{"e": [' + b",".join([unit] * count) + b"]}" for count in (2_000, 8_000))
    assert seconds(long, envelope) < 10 * max(seconds(short, envelope), 0.002)
