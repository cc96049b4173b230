"""Lists as files: what is read of them, however they are cut, and whatever is in them."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from collections.abc import Iterable, Sequence

import pytest
from backhaul_common.errors import BackhaulError, Code, Violation
from backhaul_common.lines.formats import FileFormat
from backhaul_common.lines.line import MAX_COLUMNS, MAX_LINE_BYTES, Line
from backhaul_suppression.files import times
from backhaul_suppression.files.columns import COLUMNS
from backhaul_suppression.files.formats import FORMATS
from backhaul_testing.cuts import cut_at, ways_to_cut
from hypothesis import example, given
from hypothesis import strategies as st

CSV, JSON_LINES = FileFormat.CSV, FileFormat.JSON_LINES
WRONG = Violation("address", "It is wrong.", "Write =another.\n")
FORMAT = pytest.mark.parametrize("file_format", list(FileFormat))


def read(pieces: Iterable[bytes], file_format: FileFormat = CSV) -> list[Line]:
    reader = FORMATS[file_format].reader()
    return [*(line for piece in pieces for line in reader.feed(piece)), *reader.end()]


def errors_of(lines: Sequence[Line], file_format: FileFormat, columns: Sequence[str] = COLUMNS) -> bytes:
    """The file of errors that tells of all ``lines``."""
    written = FORMATS[file_format]
    told = [written.error_line(columns, line, line.problem or WRONG) for line in lines]
    return b"".join([written.error_header(columns), *told])


# Texts that are likely to hurt, more often than any others.
_TEXTS = st.text(st.sampled_from('ab",;=+-@\r\n\t é€😀{}[]:\\\x00\x85\u2028\ufeff'), max_size=8) | st.text(max_size=8)
_LISTS = st.lists(st.dictionaries(st.sampled_from(COLUMNS), _TEXTS.filter(bool)), max_size=6)
_BYTES = st.lists(
    st.sampled_from(
        [b'"', b",", b"\r", b"\n", b"\r\n", b"a", b"\xc3", b"\xa9", b"\xef\xbb\xbf", b"{", b"}", b"[", b"1"]
    )
    | st.binary(max_size=3),
    max_size=40,
).map(b"".join)
_CUTS = st.lists(st.integers(0, 1 << 16), max_size=6)


@FORMAT
@example([{"address": " "}], [])
@given(_LISTS, _CUTS)
def test_what_is_written_is_read_the_same(file_format: FileFormat, rows: list[dict[str, str]], cuts: list[int]) -> None:
    rows = [{"address": "+15005550006", **row} for row in rows]
    written = FORMATS[file_format]
    content = written.header(COLUMNS) + b"".join(written.line(COLUMNS, row) for row in rows)
    lines = read(cut_at(content, cuts), file_format)
    assert [line.values for line in lines] == rows
    assert not any(line.problem for line in lines)


@FORMAT
@given(_BYTES, _CUTS)
def test_wherever_a_file_is_cut_its_lines_are_the_same(
    file_format: FileFormat, content: bytes, cuts: list[int]
) -> None:
    content = (b"address,note,kind\r\n" if file_format is CSV else b"") + content
    whole, *others = (read(pieces, file_format) for pieces in ways_to_cut(content, cuts))
    assert others == [whole, whole]


@FORMAT
@given(_BYTES)
def test_errors_are_a_file_of_the_same_format_whose_lines_are_refused_again(
    file_format: FileFormat, content: bytes
) -> None:
    columns = ("address", "note", "kind")
    head = b"address,note,kind\r\n" if file_format is CSV else b""
    lines = read([head + content], file_format)
    again = read([errors_of(lines, file_format, columns)], file_format)
    assert [line.values for line in again] == [line.values for line in lines]
    # However often it is sent, it says of each line what it is, and does not grow.
    said = [FORMATS[file_format].error_line(columns, line, WRONG) for line in lines]
    for number, (line, before) in enumerate(zip(again, said, strict=True)):
        assert FORMATS[file_format].error_line(columns, line._replace(number=lines[number].number), WRONG) == before


@given(_BYTES)
def test_errors_in_csv_are_csv_to_others_too(content: bytes) -> None:
    lines = read([b"address,note,kind\r\n" + content])
    errors = errors_of(lines, CSV, ("address", "note", "kind")).decode()
    rows = list(csv.reader(io.StringIO(errors.replace("\x00", ""), newline=""), strict=True))
    assert [row[0] for row in rows] == ["error_line", *(str(line.number) for line in lines)]
    assert {len(row) for row in rows} == {8}


def test_a_quoted_field_holds_commas_quotes_and_line_breaks() -> None:
    lines = read([b'address,note\r\n"+15005550006","He said ""no"",\r\n\r\nand left"\r\n+15005550007,short\r\n'])
    assert lines[0].values == {"address": "+15005550006", "note": 'He said "no",\r\n\r\nand left'}
    assert (lines[1].number, lines[1].values["note"]) == (5, "short")


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("begin", ["", "\ufeff"])
@pytest.mark.parametrize("last", [True, False])
def test_any_line_break_and_a_mark_of_byte_order_will_do(ending: str, begin: str, last: bool) -> None:
    rows = ["Address, KIND ", "", "+15005550006,stop", " , ", "a@example.com,legal"]
    content = (begin + ending.join(rows) + (ending if last else "")).encode()
    assert [(line.number, dict(line.values)) for line in read([content])] == [
        (3, {"address": "+15005550006", "kind": "stop"}),
        (5, {"address": "a@example.com", "kind": "legal"}),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has no header"),
        (b"\r\n\r\n", "has no header"),
        (b"address;kind\n+15005550006;stop\n", "'address;kind'"),
        (b"address,knd\n", "'knd'"),
        (b"address,kind,Address\n", "twice"),
        (b"kind,note\n", "does not name the column address"),
        (b"+15005550006\n+15005550007\n", "'+15005550006'"),
        ("address,kind\n".encode("utf-16"), "not UTF-8"),
        (b"address," * 1_000_000, "more than"),
        (b"," * (MAX_LINE_BYTES // 2) + b"\n", f"more than {MAX_COLUMNS} columns"),
        (b"address," * (MAX_COLUMNS + 1) + b"\n", f"more than {MAX_COLUMNS} columns"),
        (b'address,"note\n+15005550006,x\n', "not closed"),
        (b"a" * 10_000_000, "more than"),
    ],
)
def test_a_header_that_is_not_understood_ends_it_and_says_why(content: bytes, said: str) -> None:
    with pytest.raises(BackhaulError) as raised:
        read([content])
    assert said in raised.value.message
    assert (raised.value.code, raised.value.field) == (Code.INVALID_ARGUMENT, "data")
    assert raised.value.fix


@pytest.mark.parametrize(
    "wrong",
    [
        b"+15005550006",
        b"+15005550006,x,y",
        b"+15005550006" + b",x" * 1_000,
        b"," * 1_000_000,
        b'"+15005550006"x,y',
        b'+15005550006,a "quoted" word',
        b'+15005550006,"never closed',
        b'"""never closed',
        b"+15005550006,\xff\xfe",
        b'"+15005550006","\xc3"',
        b"+15005550006," + b"x" * 10_000_000,
        b'+15005550006,"' + b"x" * 10_000_000,
    ],
)
def test_a_bad_line_costs_nobody_but_itself(wrong: bytes) -> None:
    lines = read([b"address,note\n+15005550001,first\n", wrong, b"\n+15005550002,second\n+15005550003,third\n"])
    assert [line.number for line in lines] == [2, 3, 4, 5]
    assert [line.problem is None for line in lines] == [True, False, True, True]
    assert lines[1].problem
    assert lines[1].problem.message
    assert lines[1].problem.fix
    assert lines[1].text
    assert len(lines[1].text) <= MAX_LINE_BYTES


def test_quotes_that_are_never_closed_lose_one_line_of_many() -> None:
    rows = b"".join(b"+1500555%04d,x\n" % number for number in range(10_000))
    lines = read([b'address,note\n+15005550006,"oops\n', rows])
    assert len(lines) == 10_001
    assert [line.number for line in lines if line.problem] == [2]


@pytest.mark.parametrize(
    ("line", "field", "said"),
    [
        (b"[]", "", "not one JSON object"),
        (b'{"address": "a"} {"address": "b"}', "", "not one JSON object"),
        (b"nonsense", "", "not one JSON object"),
        (b"[" * 60_000, "", "not one JSON object"),
        (b'{"address":' * 5_000, "", "not one JSON object"),
        (b'{"address": ' + b"9" * 6_000 + b"}", "", "not one JSON object"),
        (b'{"address": 15005550006}', "address", "no text"),
        (b'{"address": {"a": ["b", {}]}}', "address", "no text"),
        (b'{"address": "a", "address": "b"}', "address", "twice"),
        (b'{"adress": "a"}', "", "'adress'"),
        (b'{"address": "\\ud800"}', "address", "half a character"),
        (b'{"address": "\xff"}', "", "not UTF-8"),
        (b"x" * 10_000_000, "", "more than"),
    ],
)
def test_a_bad_line_of_json_says_what_is_wrong(line: bytes, field: str, said: str) -> None:
    good = b'{"address": "+15005550006", "note": null, "kind": ""}\n'
    lines = read([good, line, b"\n\n", good], JSON_LINES)
    assert [line.number for line in lines] == [1, 2, 4]
    assert lines[0].values == lines[2].values == {"address": "+15005550006"}
    problem = lines[1].problem
    assert problem is not None
    assert problem.field == field
    assert said in problem.message
    assert problem.fix
    again = read([errors_of(lines[1:2], JSON_LINES)], JSON_LINES)
    assert [line.problem is None and bool(line.values) for line in again] == [False]


def test_a_mended_line_of_a_file_of_errors_is_a_line() -> None:
    lines = read([b'address,note\n5550006,"=1+1, ""x"""\n'])
    errors = errors_of(lines, CSV, ("address", "note"))
    assert errors.startswith(b"error_line,error_field,error_message,error_fix,error_text,address,note\r\n2,address,")
    mended = read([errors.replace(b"5550006", b"+15005550006")])
    assert [line.values for line in mended] == [{"address": "+15005550006", "note": '=1+1, "x"'}]
    refused = read([b'{"adress": "+15005550006", "error_line": "7"}\n'], JSON_LINES)
    told = errors_of(refused, JSON_LINES)
    assert list(json.loads(told)) == ["error_line", "error_field", "error_message", "error_fix", "adress"]
    assert read([told.replace(b"adress", b"address")], JSON_LINES)[0].values == {"address": "+15005550006"}


@pytest.mark.slow
@FORMAT
def test_reading_keeps_one_line_however_long_the_file_is(file_format: FileFormat) -> None:
    row = b'+15005550006,"a, b"\n' if file_format is CSV else b'{"address":"+15005550006","note":"a, b"}\n'
    piece = row * ((1 << 18) // len(row))
    reader = FORMATS[file_format].reader()
    head = [b"address,note\n"] if file_format is CSV else []
    hostile = [b"x" * (1 << 20), b'"' * (1 << 20), b"\n" * (1 << 15), b'"' + b"y\n" * (1 << 14)]
    pieces = [*head, piece, piece, *hostile, piece]
    tracemalloc.start()
    try:
        lines = sum(1 for part in pieces for line in reader.feed(part))
        lines += sum(1 for line in reader.end())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert lines >= 3 * (1 << 18) // len(row)
    # Quotes that stay open keep a line of 64 KiB, here of 32,000 line breaks, each with a number and an object.
    assert peak < 8 << 20


@given(st.integers(1, 4_000_000_000_000_000))
def test_times_are_read_as_they_are_written(at_us: int) -> None:
    assert times.microseconds(times.written(at_us)) == at_us


@pytest.mark.parametrize(
    ("text", "at_us"),
    [
        ("2026-01-31", 1_769_817_600_000_000),
        ("2026-01-31T00:00:00Z", 1_769_817_600_000_000),
        (" 2026-01-31t01:30:00.5+01:30 ", 1_769_817_600_500_000),
        ("2026-01-30 19:00:00.1234567-05:00", 1_769_817_600_123_456),
    ],
)
def test_times_have_their_zone(text: str, at_us: int) -> None:
    assert times.microseconds(text) == at_us


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T00:00:00",
        "31.01.2026",
        "1769817600",
        "2026-02-30",
        "2026-01-31T24:00:00Z",
        "\uff12026-01-31",
        "",
        "0000-01-01",
    ],
)
def test_what_is_no_time_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="RFC 3339"):
        times.microseconds(text)
