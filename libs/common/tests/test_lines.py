"""Files of lines: how they are cut, which columns they may have, and how refused lines are written."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterable

import pytest
from backhaul_common.errors import BackhaulError, Violation
from backhaul_common.lines import json_lines
from backhaul_common.lines.columns import Columns
from backhaul_common.lines.comma_separated import CommaSeparated
from backhaul_common.lines.cutting import Cut, Cutter
from backhaul_common.lines.line import MAX_LINE_BYTES, Line
from backhaul_common.lines.turns import in_turns
from backhaul_testing.cuts import cut_at
from hypothesis import given
from hypothesis import strategies as st

WRONG = Violation("name", "It is wrong.", "Mend it.")


def cut(pieces: Iterable[bytes], cutter: Cutter | None = None) -> list[Cut]:
    cutter = cutter or Cutter()
    return [*(found for piece in pieces for found in cutter.feed(piece)), *cutter.end()]


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@given(
    st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b" ", b"a", b" " * MAX_LINE_BYTES]), max_size=12),
    st.lists(st.integers(0, 4 * MAX_LINE_BYTES), max_size=4),
)
def test_blank_lines_are_left_out_where_nobody_wants_them(bom: bytes, parts: list[bytes], cuts: list[int]) -> None:
    content = bom + b"".join(parts)
    found = cut(cut_at(content, cuts), Cutter(blank=False))
    assert found == [line for line in cut([content]) if line.too_long or line.raw.strip()]


async def test_others_have_their_turn_though_nothing_is_found() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def pieces() -> AsyncIterator[bytes]:
        yield b"\n" * 900_000

    cutter, task = Cutter(blank=False), asyncio.create_task(others())
    # By this clock whatever is done takes too long.
    found = [some async for some in in_turns(pieces(), cutter.feed, cutter.end, itertools.count().__next__)]
    task.cancel()
    assert found == [[], []]
    assert turns > 100


@given(
    st.lists(
        st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b"\x0b", b"\x85", b"x" * (MAX_LINE_BYTES - 1)]), max_size=12
    ),
    st.lists(st.integers(0, 4 * MAX_LINE_BYTES), max_size=4),
)
def test_lines_are_cut_the_same_wherever_the_pieces_are(parts: list[bytes], cuts: list[int]) -> None:
    content = b"".join(parts)
    expected = [line[: MAX_LINE_BYTES + 1] for line in content.splitlines(keepends=True)]
    found = cut(cut_at(content, cuts))
    assert [line.raw for line in found] == expected
    assert [line.number for line in found] == [*range(1, len(expected) + 1)]


def test_other_columns_are_taken_as_they_are_written_where_that_is_allowed() -> None:
    reader = CommaSeparated(Columns(("key", "channel"), others=True, most=3))
    lines = [*reader.feed(b" KEY ,First Name,Channel\n1,Ada,SMS\n"), *reader.end()]
    assert reader.columns == ("key", "First Name", "channel")
    assert [dict(line.values) for line in lines] == [{"key": "1", "First Name": "Ada", "channel": "SMS"}]


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"channel,name\n", "does not name the column key"),
        (b"key,a,a\n", "twice"),
        (b"key,,a\n", "no name"),
        (b"key,a,b,c\n", "more than 3"),
    ],
)
def test_a_header_with_other_columns_may_be_wrong_too(header: bytes, said: str) -> None:
    with pytest.raises(BackhaulError) as raised:
        list(CommaSeparated(Columns(("key", "channel"), others=True, most=3)).feed(header))
    assert said in raised.value.message
    assert raised.value.fix


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


@given(st.lists(st.tuples(st.text(max_size=3), _VALUES), max_size=4), st.sampled_from(["", " ", "\t "]))
def test_a_refused_line_is_written_as_it_was_however_often(pairs: list[tuple[str, object]], blank: str) -> None:
    own = [f"{json.dumps(name)}{blank}:{blank}{json.dumps(value)}" for name, value in pairs]
    text = f"{{{blank}{f'{blank},{blank}'.join(own)}{blank}}}"
    told = json_lines.error_line((), Line(7, {}, text), WRONG).decode()
    assert list(json.loads(told))[:4] == ["error_line", "error_field", "error_message", "error_fix"]
    assert told.endswith("".join(f",{member}" for member in own) + "}\n")
    assert json_lines.error_line((), Line(7, {}, told.strip()), WRONG).decode() == told


@pytest.mark.parametrize(
    "text", ['{"a": 1} b', "{", "[1]", '{"a": 1,}', '{"a":\n1}', '{"a" 1}', '{"a":' * 5_000, '"\ud800"']
)
def test_what_is_no_object_is_quoted_whole(text: str) -> None:
    told = json.loads(json_lines.error_line((), Line(7, {}, text), WRONG))
    assert told["error_text"] == text.encode("utf-8", "replace").decode()


@given(st.text(st.sampled_from('{}[]",:\\ a1u\n'), max_size=20))
def test_only_what_is_an_object_is_taken_apart(text: str) -> None:
    told = json.loads(json_lines.error_line((), Line(7, {}, text), WRONG))
    taken_apart = "error_text" not in told
    assert taken_apart == ("\n" not in text and json_lines.object_of(text) is not None)
