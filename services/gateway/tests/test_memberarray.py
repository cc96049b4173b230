"""An array of members is taken apart as it comes, wherever it is cut."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from backhaul_common.errors import BackhaulError
from backhaul_gateway.reads import memberarray
from backhaul_gateway.reads.memberarray import MemberArray
from hypothesis import given
from hypothesis import strategies as st

_texts = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(['"', "\\", "]}", "é\n", "\u2028"])
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=8,
)


def taken(body: bytes, *cuts: int) -> bytes:
    array = MemberArray()
    return b"".join(line for piece, last in _pieces(body, cuts) for line in array.lines(piece, last=last))


def _pieces(body: bytes, cuts: tuple[int, ...]) -> Iterator[tuple[bytes, bool]]:
    places = [0, *sorted(cuts), len(body)]
    for start, end in pairwise(places):
        yield body[start:end], False
    yield b"", True


@given(st.lists(_values, max_size=5), st.sampled_from([None, 1]), st.booleans(), st.booleans(), st.data())
def test_each_member_is_a_line_wherever_the_array_is_cut(
    members: list[Any], indent: int | None, ascii_only: bool, in_object: bool, data: st.DataObject
) -> None:
    told = {"members": members} if in_object else members
    body = json.dumps(told, indent=indent, ensure_ascii=ascii_only).encode()
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=6))
    lines = taken(b" \r\n" + body + b"\n", *cuts).split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line) for line in lines] == members


def test_a_long_number_stays_as_it_is() -> None:
    digits = b"4" * 5000
    assert taken(b"[1, " + digits + b"]", 3, 100) == b"1\n" + digits + b"\n"


@pytest.mark.parametrize("number", [b"10", b"-1.5", b"1e5", b"-1.5E-10"])
def test_a_number_is_one_value_wherever_it_is_cut(number: bytes) -> None:
    body = b"[" + number + b", 2]"
    for cut in range(len(body)):
        assert taken(body, cut) == number + b"\n2\n"


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"{", b"[", b"[1", b"[1,]", b"[1 2]", b"[1]]", b"[\xff]", b'["\xc3', b'["a\nb"]',
        b'{"members": []', b'{"members" []}', b'{"members": []}x', b"{5: []}", b'{"members": [1],}',
    ],
)  # fmt: skip
def test_what_is_no_json_is_refused(body: bytes) -> None:
    for cuts in ((), range(len(body))):
        with pytest.raises(BackhaulError) as raised:
            taken(body, *cuts)
        assert raised.value.field == "body"
        assert raised.value.fix


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{}", "members"),
        (b'{"member": []}', "member"),
        (b'{"members": [1], "of": 1}', "of"),
        (b'{"members": [1], "members": [2]}', "members"),
        (b'[1, "' + b"x" * 70_000, "members[1]"),
        (b"[1, " + b"[" * 70_000, "members[1]"),
    ],
)
def test_what_is_no_array_of_members_is_named(body: bytes, field: str) -> None:
    with pytest.raises(BackhaulError) as raised:
        taken(body)
    assert raised.value.field == field


def test_there_are_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memberarray, "MAX_MEMBERS", 2)
    assert taken(b"[1, 2]") == b"1\n2\n"
    with pytest.raises(BackhaulError, match="more than 2 members"):
        taken(b"[1, 2, 3]")
