"""Cutting JSON arrays: the fast way, and the one for arrays that hold something bad."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from backhaul_channels import MalformedError
from backhaul_channels.jsonparts import decode_object, split_json
from hypothesis import given
from hypothesis import strategies as st

# No decoder reads it, so an array that holds it is cut the slow way.
DEEP = b"[" * 2_000 + b"]" * 2_000

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text() | st.text('"\\[]{},: \n/u'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(values, max_size=6), st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_both_ways_cut_at_the_same_places(elements: list[Any], escaped: bool, indent: int | str | None) -> None:
    body = json.dumps(elements, ensure_ascii=escaped, indent=indent).encode()
    parts = split_json(body)
    assert [json.loads(part) for part in parts] == elements
    with_a_deep_one = b" [" + DEEP + (b" , " if elements else b"") + body.lstrip()[1:] + b"\r\n"
    assert split_json(with_a_deep_one) == [DEEP, *parts]


@pytest.mark.parametrize(
    "bad",
    [
        DEEP,
        b'{"x":' + DEEP + b"}",
        b'{"a" 1}',
        b'{"a":1]',
        b'{"a":1} {"b":2}',
        b"word",
        b"-",
        b"NaN",
        b'{"a":"line\nbreak"}',
        b'{"a":"\\q, ]"}',
        b'\xff"\xff"',
        b"9" * 5_000,
    ],
)
def test_a_bad_element_is_a_part_like_the_others(bad: bytes) -> None:
    good = [b'{"a":"[1, \\"2\\\\"}', b'{"b":{"c":[]}}']
    parts = split_json(b"[" + good[0] + b",\n" + bad + b" ," + good[1] + b"]")
    assert parts == [good[0], bad, good[1]]
    assert [decode_object(part) for part in (parts[0], parts[2])] == [{"a": '[1, "2\\'}, {"b": {"c": []}}]
    with pytest.raises(MalformedError):
        decode_object(bad)


@pytest.mark.parametrize(
    "body",
    [
        b"[",
        b"[1",
        b"[,]",
        b"[1,]",
        b"[,1]",
        b"[1,,2]",
        b"[1]]",
        b"[1] 2",
        b"[1},",
        b"[1}",
        b"[{]",
        b'["a]',
        b'["a\\',
        b'["a\\"]',
        b"[1\x0b]\x0b",
        DEEP[:-1],
        DEEP + b"]",
        b"",
        b" ",
        b"7",
        b"\xef\xbb\xbf[]",
    ],
)
def test_a_body_that_is_no_array_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedError, match="The body is"):
        split_json(body)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 700_000,
        b"[" + b"{}" * 350_000,
        b"[" + DEEP * 170 + b"]",
        b'["' + b'\\"' * 350_000,
        b'["' + b"\\" * 700_000,
        b'[x"' + b'"' * 700_000 + b"]",
        b'["\\ud83d"' + b",1" * 350_000 + b"]",
        b"[" + DEEP + b" " * 700_000,
        b"[" + DEEP + b"," + b'{"a":[1,"]"]},' * 50_000 + b"1]",
    ],
    ids=["open", "pairs", "deep", "quotes", "backslashes", "strings", "commas", "spaces", "objects"],
)
def test_the_work_grows_with_the_body_and_no_faster(body: bytes) -> None:
    # 700 KB take some tenths of a second; the bound only tells linear from quadratic, on any machine.
    started = time.process_time()
    try:
        parts = split_json(body)
    except MalformedError:
        parts = []
    assert time.process_time() - started < 5
    assert sum(map(len, parts)) <= len(body)
