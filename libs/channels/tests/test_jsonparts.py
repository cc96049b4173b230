"""Cutting JSON arrays: the fast way, and the one for arrays that hold something bad."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import pytest
from backhaul_channels import MalformedError
from backhaul_channels.jsonparts import MAX_CONTAINERS, MAX_DEPTH, MAX_PARTS, decode_object, split_json
from hypothesis import given, settings
from hypothesis import strategies as st

# No decoder reads it, so an array that holds it is cut the slow way.
DEEP = b"[" * 2_000 + b"]" * 2_000

# The worst bodies take this many times as long as usual ones of their length.
MAX_TIMES = 12

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


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"b":', b'["[[[", '])
def test_an_event_may_be_so_deep_and_no_deeper_on_every_version_of_python(opening: bytes) -> None:
    levels = opening.count(b"[", 0, 1) + opening.count(b"{")
    fits, closing = MAX_DEPTH // levels, {b"[": b"]", b"{": b"}"}
    close = b"".join(closing[bytes([byte])] for byte in reversed(opening.replace(b"[[[", b"")) if byte in b"[{")

    def event(depth: int) -> bytes:
        return b'{"x":' + opening * (depth - 1) + b"1" + close * (depth - 1) + b"}"

    good = event(fits)
    bad = event(fits + 1)
    deeper = [event(depth) for depth in (150, 500, 1_000, 1_300)]
    assert decode_object(good)
    for part in (bad, *deeper):
        assert split_json(b"[" + good + b"," + part + b"," + good + b"]") == [good, part, good]
        with pytest.raises(MalformedError, match="nested too deeply: more than 64 levels"):
            decode_object(part)


def test_brackets_in_strings_and_beside_each_other_are_no_depth() -> None:
    part = b'{"a":"' + b"[{" * 1_000 + b'","b":[' + b"[],{}," * 1_000 + b"[]]}"
    assert split_json(b"[" + part + b"," + part + b"]") == [part, part]
    assert len(decode_object(part)["b"]) == 2_001


def test_an_event_holds_so_many_arrays_and_objects_and_no_more() -> None:
    most = b'{"a":[' + b"[]," * (MAX_CONTAINERS - 3) + b"{}]}"
    assert len(decode_object(most)["a"]) == MAX_CONTAINERS - 2
    more = most[:-2] + b",[]]}"
    assert split_json(b"[" + more + b"," + most + b"]") == [more, most]
    with pytest.raises(MalformedError, match="more than 10000 arrays and objects"):
        decode_object(more)


@pytest.mark.parametrize("last", [b"1", b"x", DEEP])
def test_more_events_than_any_provider_sends_are_refused(last: bytes) -> None:
    most = b"[" + b"1," * (MAX_PARTS - 1) + last + b"]"
    assert len(split_json(most)) == MAX_PARTS
    with pytest.raises(MalformedError, match=f"more than {MAX_PARTS} events"):
        split_json(b"[1," + most[1:])


@pytest.mark.parametrize("depth", [9_000, 500_000])
def test_a_depth_beyond_measure_is_refused_while_cutting(depth: int) -> None:
    for body in (b"[" * depth, b"[1," + b"[" * depth + b"]" * depth + b",2]", b'[{"a":' * depth):
        with pytest.raises(MalformedError, match="nested too deeply"):
            split_json(body)


def test_brackets_that_cost_too_much_to_follow_are_refused() -> None:
    # Four levels, which no pattern passes over, in the place of each of 50,000 values.
    body = b"[x,[" + b"[[[[]]]]," * 50_000 + b"1]]"
    with pytest.raises(MalformedError, match="too many brackets"):
        split_json(body)


SIZE = 1_000_000
USUAL = (
    b'{"email":"user@example.com","timestamp":1513299569,"event":"delivered","category":["a"],"smtp-id":"<m1@x>",'
    b'"sg_event_id":"nOSv8m0eTQ-vxvwNwt3fZQ","sg_message_id":"wrfRRvF7Q0GgwUo2CvDmEA.filter0425p1mdw1.0"}'
)


def cost(body: bytes) -> float:
    """Seconds for cutting ``body`` and reading its parts, at its quickest of three times."""
    times = []
    for _ in range(3):
        started = time.process_time()
        with suppress(MalformedError):
            for part in split_json(body):
                with suppress(MalformedError):
                    decode_object(part)
        times.append(time.process_time() - started)
    return min(times)


@pytest.fixture(scope="module")
def usual_cost() -> float:
    """What a body of usual events costs that is as long as the hostile ones."""
    return cost(b"[" + b",".join([USUAL] * (SIZE // len(USUAL))) + b"]")


def repeated(start: bytes, unit: bytes, end: bytes = b"") -> bytes:
    return start + unit * ((SIZE - len(start) - len(end)) // len(unit)) + end


@pytest.mark.parametrize(
    "body",
    [
        repeated(b"", b"["),
        repeated(b"", b"{"),
        repeated(b"", b"[{"),
        repeated(b"", b"[[],"),
        repeated(b"[", b"[],"),
        repeated(b"[", b"[[[]]],"),
        repeated(b"[[", b"[[[]]],"),
        repeated(b"[[", b"[[[[]]]],", b"1]]"),
        repeated(b"", b'{"a":'),
        repeated(b"", b'[{"a":'),
        repeated(b"", b'["a",'),
        repeated(b'{"a":[', b'["",["",[""]]],', b"1]}"),
        repeated(b"", b'"'),
        repeated(b'["', b'"'),
        repeated(b'[x"', b'"', b"]"),
        repeated(b'["', b'\\"'),
        repeated(b'["', b"\\"),
        repeated(b"[", b","),
        repeated(b"[", b"1,", b"1]"),
        repeated(b"[", b"1,", b"x]"),
        repeated(b'["\\ud83d"', b",1", b"]"),
        repeated(b"[", b"x"),
        repeated(b"[", b"9"),
        repeated(b"[", b" "),
        repeated(b"[" + DEEP, b" "),
        repeated(b"[" + DEEP, b',{"a":[1,"]"]}', b"]"),
        repeated(b"[", b"{}"),
        repeated(b"[[", b"]["),
        repeated(b"[" * 90, b"]]["),
        repeated(b"[", DEEP, b"]"),
        repeated(b"[", DEEP + b",", b"1]"),
        repeated(b"[", b"[" * 200 + b"]" * 200 + b",", b"1]"),
        repeated(b'{"a":', b"[", b"1") + b"]" * SIZE,
    ],
    ids=lambda body: f"{body[:8].decode()}…{body[-8:].decode()}",
)
def test_no_body_costs_much_more_than_a_usual_one_of_its_length(body: bytes, usual_cost: float) -> None:
    assert cost(body) < MAX_TIMES * usual_cost


@settings(max_examples=40, deadline=None)
@given(
    start=st.sampled_from([b"", b"[", b"[[", b'{"a":[', b"[x,", b"[" + DEEP + b","]),
    unit=st.lists(
        st.sampled_from([b"[", b"]", b"{", b"}", b",", b'"', b"\\", b":", b"1", b" ", b'"a"', b"[]"]), min_size=1
    ),
    end=st.sampled_from([b"", b"]", b"1]", b'"]']),
)
def test_no_repetition_costs_much_more_either(start: bytes, unit: list[bytes], end: bytes, usual_cost: float) -> None:
    body = repeated(start, b"".join(unit)[:64], end)
    assert cost(body) < MAX_TIMES * usual_cost


@pytest.mark.parametrize("unit", [b"[", b"[[],", b'["a",', b'"', b"[x", b"{}", b"[[[[]]]],"])
def test_the_cost_grows_with_the_length_and_no_faster(unit: bytes) -> None:
    short, long = (cost(b"[x" + unit * (length // len(unit))) for length in (SIZE // 4, SIZE * 2))
    # Eight times as long; a millisecond more, as what is refused at once costs next to nothing.
    assert long < 8 * 3 * short + 0.001
