"""Files of members: what is read of them, however they are cut, and whatever is in them."""

from __future__ import annotations

import asyncio
import itertools
import json
import tracemalloc
from collections.abc import AsyncIterator, Iterable

import pytest
from backhaul_common.errors import BackhaulError, Code, Violation
from backhaul_common.lines.formats import FileFormat
from backhaul_common.lines.line import CUT_OFF, MAX_LINE_BYTES
from backhaul_common.lines.turns import MAX_FOUND
from backhaul_normalizer.communications.documents import MAX_ATTRIBUTES, MAX_DESTINATIONS, MAX_NAME, MAX_VALUE
from backhaul_normalizer.communications.files.csv_members import MAX_LINES, CsvMembers
from backhaul_normalizer.communications.files.json_members import JsonMembers
from backhaul_normalizer.communications.files.members import Member, Refused
from backhaul_normalizer.communications.files.reading import MemberFile
from backhaul_normalizer.facts import MAX_KEY
from backhaul_testing.cuts import cut_at, ways_to_cut
from hypothesis import given
from hypothesis import strategies as st

CSV, JSON_LINES = FileFormat.CSV, FileFormat.JSON_LINES
FORMAT = pytest.mark.parametrize("file_format", list(FileFormat))
WRONG = Violation("member_key", "It is wrong.", "Write another.")


def read(pieces: Iterable[bytes], file_format: FileFormat, *, whole: bool = True) -> list[Member | Refused]:
    reader = CsvMembers() if file_format is CSV else JsonMembers()
    return [*(found for piece in pieces for found in reader.feed(piece)), *reader.end(whole=whole)]


def members(found: Iterable[Member | Refused]) -> list[Member]:
    told = list(found)
    assert [one for one in told if isinstance(one, Refused)] == []
    return [one for one in told if isinstance(one, Member)]


def refused(found: Iterable[Member | Refused]) -> list[Refused]:
    return [one for one in found if isinstance(one, Refused)]


def line_of(**told: object) -> bytes:
    return json.dumps(told).encode() + b"\n"


async def given_in(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


_CUTS = st.lists(st.integers(0, 1 << 16), max_size=6)
_BYTES = st.lists(
    st.sampled_from(
        [b'"', b",", b"\r", b"\n", b"\r\n", b"a", b"\xc3", b"\xa9", b"\xef\xbb\xbf", b"{", b"}", b"[", b":", b"1"]
    )
    | st.sampled_from([b'{"member_key":"a"}\n', b"a,SMS,1,,x\n", b"a,SMS,2,,x\n"])
    | st.binary(max_size=3),
    max_size=40,
).map(b"".join)


@FORMAT
@given(_BYTES, _CUTS)
def test_wherever_a_file_is_cut_its_members_are_the_same(
    file_format: FileFormat, content: bytes, cuts: list[int]
) -> None:
    content = (b"member_key,channel,recipient,message_id,note\r\n" if file_format is CSV else b"") + content
    whole, *others = (read(pieces, file_format) for pieces in ways_to_cut(content, cuts))
    assert others == [whole, whole]


@FORMAT
@given(_BYTES)
def test_errors_are_a_file_of_the_same_format_whose_lines_are_refused_again(
    file_format: FileFormat, content: bytes
) -> None:
    content = (b"member_key,channel,recipient,message_id,note\r\n" if file_format is CSV else b"") + content
    wrong = refused(read([content], file_format))
    file = MemberFile(file_format)
    for _ in file._reader.feed(content):
        pass
    errors = file.errors(wrong)
    assert bool(errors) == bool(wrong)
    again = read([errors], file_format) if errors else []
    assert len(refused(again)) == len(again) == len(wrong)


_IDS = st.text(st.sampled_from('ab",:1é€\\+ '), min_size=1, max_size=6).map(str.strip).filter(bool)
_DESTINATIONS = st.lists(
    st.tuples(st.sampled_from(["", "twilio", "sms-2"]), _IDS, st.just("") | _IDS),
    unique=True,
    max_size=MAX_DESTINATIONS,
)


@FORMAT
@given(
    st.lists(st.tuples(_IDS, st.dictionaries(st.sampled_from(["A b", "é", "n:"]), _IDS), _DESTINATIONS), max_size=5),
    _CUTS,
)
def test_what_is_written_is_read_the_same(
    file_format: FileFormat, rows: list[tuple[str, dict[str, str], list[tuple[str, str, str]]]], cuts: list[int]
) -> None:
    rows = [(f"{number}{key}", attributes, destinations) for number, (key, attributes, destinations) in enumerate(rows)]
    names = ("channel", "recipient", "message_id")
    if file_format is CSV:
        columns = ["member_key", *names, "A b", "é", "n:"]
        lines = [columns]
        for key, attributes, destinations in rows:
            own = [attributes.get(name, "") for name in columns[4:]]
            lines += [[key, *destination, *own] for destination in destinations or [("", "", "")]]
        content = "".join(
            ",".join('"' + field.replace('"', '""') + '"' for field in line) + "\r\n" for line in lines
        ).encode()
    else:
        content = b"".join(
            line_of(
                member_key=key,
                attributes=attributes,
                destinations=[dict(zip(names, one, strict=True)) for one in destinations],
            )
            for key, attributes, destinations in rows
        )
    found = members(read(cut_at(content, cuts), file_format))
    assert [(one.key, dict(one.attributes), one.destinations) for one in found] == rows
    assert sum(one.lines for one in found) == content.count(b"\n") - (file_format is CSV)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ('"a"', "a"),
        ('""', ""),
        ("1", "1"),
        ("-1.50", "-1.50"),
        ("1E400", "1E400"),
        ("12345678901234567890123", "12345678901234567890123"),
        ("true", "true"),
        ("false", "false"),
        ("null", None),
    ],
)
def test_attributes_are_their_json_text(written: str, text: str | None) -> None:
    (member,) = members(read([f'{{"member_key": "a", "attributes": {{"x": {written}}}}}'.encode()], JSON_LINES))
    assert member.attributes == ([] if text is None else [("x", text)])


@pytest.mark.parametrize(
    ("line", "field", "said"),
    [
        (b"[]", "", "not one JSON object"),
        (b"nonsense", "", "not one JSON object"),
        (b"[" * 60_000, "", "not one JSON object"),
        (b'{"member_key":' * 4_000, "", "not one JSON object"),
        (b'{"member_key": "a"} {"member_key": "b"}', "", "not one JSON object"),
        (b'{"member_key": "\xff"}', "", "not UTF-8"),
        (b"x" * 10_000_000, "", "more than"),
        (b"{}", "member_key", "no key"),
        (b'{"member_key": " "}', "member_key", "no key"),
        (b'{"member_key": null}', "member_key", "no key"),
        (b'{"member_key": 7}', "member_key", "no text"),
        (b'{"member_key": "a", "member_key": "b"}', "", "'member_key' is there twice"),
        (b'{"member_key": "a", "atributes": {}}', "", "'atributes' is not known"),
        (b'{"member_key": "%s"}' % (b"x" * (MAX_KEY + 1)), "member_key", f"more than {MAX_KEY}"),
        (b'{"member_key": "\\ud800"}', "member_key", "half a character"),
        (b'{"member_key": "a\\u0000"}', "member_key", "cannot be read"),
        (b'{"member_key": "a\\ufffd"}', "member_key", "cannot be read"),
        (b'{"member_key": "a", "attributes": []}', "attributes", "no object"),
        (b'{"member_key": "a", "attributes": {"x": {}}}', "attributes.x", "no text, number"),
        (b'{"member_key": "a", "attributes": {"x": [1]}}', "attributes.x", "no text, number"),
        (b'{"member_key": "a", "attributes": {"x": "\\udc00"}}', "attributes.x", "half a character"),
        (b'{"member_key": "a", "attributes": {"\\udc00": "x"}}', "attributes", "half a character"),
        (b'{"member_key": "a", "attributes": {"": "x"}}', "attributes", "no name"),
        (b'{"member_key": "a", "attributes": {"x": 1, "x": 2}}', "attributes", "'x' is there twice"),
        (
            b'{"member_key": "a", "attributes": {"x": "%s"}}' % (b"y" * (MAX_VALUE + 1)),
            "attributes.x",
            f"more than {MAX_VALUE}",
        ),
        (
            b'{"member_key": "a", "attributes": {"x": %s}}' % (b"9" * (MAX_VALUE + 1)),
            "attributes.x",
            f"more than {MAX_VALUE}",
        ),
        (b'{"member_key": "a", "attributes": {"%s": 1}}' % (b"n" * (MAX_NAME + 1)), "attributes", f"than {MAX_NAME}"),
        (
            line_of(member_key="a", attributes={str(number): "" for number in range(MAX_ATTRIBUTES + 1)}),
            "attributes",
            f"{MAX_ATTRIBUTES} attributes at most",
        ),
        (b'{"member_key": "a", "destinations": {}}', "destinations", "no array"),
        (b'{"member_key": "a", "destinations": ["+1"]}', "destinations[0]", "no object"),
        (b'{"member_key": "a", "destinations": [{}, {"recipient": 1}]}', "destinations[1].recipient", "no text"),
        (b'{"member_key": "a", "destinations": [{"to": "1"}]}', "destinations[0]", "'to' is not known"),
        (b'{"member_key": "a", "destinations": [{"channel": "a/b"}]}', "destinations[0].channel", "no channel's label"),
        (
            b'{"member_key": "a", "destinations": [{"message_id": "a\\n"}]}',
            "destinations[0].message_id",
            "cannot be read",
        ),
        (
            line_of(member_key="a", destinations=[{"recipient": str(to)} for to in range(MAX_DESTINATIONS + 1)]),
            "destinations",
            f"{MAX_DESTINATIONS} destinations at most",
        ),
    ],
)
def test_a_bad_line_of_json_says_what_is_wrong_and_costs_nobody_but_itself(line: bytes, field: str, said: str) -> None:
    good = line_of(member_key="a")
    found = read([good, line.rstrip() + b"\n\n", good], JSON_LINES)
    assert [isinstance(one, Member) for one in found] == [True, False, True]
    (one,) = refused(found)
    assert (one.line.number, one.problem.field) == (2, field)
    assert said in one.problem.message
    assert one.problem.fix
    told = json.loads(MemberFile(JSON_LINES).errors([one]))
    assert (told["error_line"], told["error_field"], told["error_fix"]) == ("2", field, one.problem.fix)


def test_a_destination_that_is_there_twice_is_one() -> None:
    twice = [{"recipient": "+1"}] * (MAX_DESTINATIONS + 1)
    (member,) = members(read([line_of(member_key="a", destinations=twice)], JSON_LINES))
    assert member.destinations == [("", "+1", "")]


def test_lines_of_one_member_are_put_together() -> None:
    content = (
        "Member_Key,CHANNEL,recipient,message_id,First name,note\r\n"
        '1,Twilio,+15005550006,,Ada,"He said ""no"",\r\nand left"\r\n'
        " 1 ,Send Grid,ada@example.com,SG1,,new\r\n"
        "1,Twilio,+15005550006,,,\r\n"
        "2,,,,,\r\n"
        "1,,,SM2,,\r\n"
    )
    found = members(read([content.encode()], CSV))
    both = [("twilio", "+15005550006", ""), ("send-grid", "ada@example.com", "SG1")]
    assert [(one.number, one.key, one.attributes, one.destinations, one.lines) for one in found] == [
        (2, "1", [("First name", "Ada"), ("note", "new")], both, 3),
        (6, "2", [], [], 1),
        (7, "1", [], [("", "", "SM2")], 1),
    ]


def test_destinations_beyond_those_that_a_member_has_are_refused_alone() -> None:
    rows = b"".join(b"a,,%d\n" % number for number in range(MAX_DESTINATIONS + 2)) + b"b,,1\n"
    found = read([b"member_key,channel,recipient\n" + rows], CSV)
    assert [one.problem.field for one in refused(found)] == ["recipient"]
    assert [(one.key, len(one.destinations)) for one in found if isinstance(one, Member)] == [
        ("a", MAX_DESTINATIONS),
        ("a", 1),
        ("b", 1),
    ]


def test_however_often_a_member_is_repeated_few_of_its_lines_are_kept() -> None:
    found = members(read([b"member_key,recipient\n" + b"a,1\n" * (3 * MAX_LINES)], CSV))
    assert [one.lines for one in found] == [MAX_LINES] * 3


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"", "has no header"),
        (b"key,recipient\n", "does not name the column member_key"),
        (b"member_key;recipient\n", "does not name the column member_key"),
        (b"member_key,a,a\n", "twice"),
        (b"member_key,,a\n", "no name"),
        (b"member_key,%s\na,b\n" % (b"n" * (MAX_NAME + 1)), f"more than {MAX_NAME}"),
        (b"member_key,a\x00\na,b\n", "cannot be read"),
        (b"member_key," + b",".join(b"a%d" % n for n in range(MAX_ATTRIBUTES + 1)) + b"\na" + b"," * 65, "at most"),
        (b"member_key," + b",".join(b"a%d" % n for n in range(100)), "more than 73 columns"),
        ("member_key,a\n".encode("utf-16"), "not UTF-8"),
    ],
)
def test_a_header_that_is_not_understood_ends_it_and_says_why(header: bytes, said: str) -> None:
    with pytest.raises(BackhaulError) as raised:
        read([header], CSV)
    assert said in raised.value.message
    assert (raised.value.code, raised.value.field) == (Code.INVALID_ARGUMENT, "data")
    assert raised.value.fix


@pytest.mark.parametrize(
    ("line", "field", "said"),
    [
        (b",SMS,+1,,", "member_key", "no key"),
        (b"a,a/b,+1,,", "channel", "no channel's label"),
        (b"a,SMS,%s,," % (b"1" * (MAX_KEY + 1)), "recipient", f"more than {MAX_KEY}"),
        (b"a,SMS,+1,\x00,", "message_id", "cannot be read"),
        (b"a,SMS,+1,,%s" % (b"x" * (MAX_VALUE + 1)), "note", f"more than {MAX_VALUE}"),
        (b"a,SMS,+1", "", "3 fields, the header names 5"),
        (b'a,"SMS', "", "not closed"),
        (b"a,\xff,,,", "", "not UTF-8"),
        (b"a" * (MAX_LINE_BYTES + 1), "", "more than"),
    ],
)
def test_a_bad_line_of_csv_says_what_is_wrong_and_costs_nobody_but_itself(line: bytes, field: str, said: str) -> None:
    head = b"member_key,channel,recipient,message_id,note\n"
    found = read([head + b"x,SMS,+1,,\n", line, b"\ny,SMS,+2,,\n"], CSV)
    assert [one.key if isinstance(one, Member) else one.line.number for one in found] == ["x", 3, "y"]
    (one,) = refused(found)
    assert one.problem.field == field
    assert said in one.problem.message
    assert one.problem.fix


@FORMAT
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("begin", ["", "\ufeff"])
@pytest.mark.parametrize("last", [True, False])
def test_any_line_break_and_a_mark_of_byte_order_will_do(
    file_format: FileFormat, ending: str, begin: str, last: bool
) -> None:
    rows = ["member_key,recipient", "", "a,1", "b,2"] if file_format is CSV else []
    rows = rows or ['{"member_key":"a","destinations":[{"recipient":"1"}]}', "", " ", '{"member_key":"b"}']
    found = members(read([(begin + ending.join(rows) + (ending if last else "")).encode()], file_format))
    assert [(one.number, one.key) for one in found] == [(3 if file_format is CSV else 1, "a"), (4, "b")]


@FORMAT
def test_the_last_line_of_a_file_that_may_be_cut_off_is_refused(file_format: FileFormat) -> None:
    rows = (
        b"member_key,recipient\na,+1\na,+150" if file_format is CSV else line_of(member_key="a") + b'{"member_key":"a"}'
    )
    found = read([rows], file_format, whole=False)
    assert [one.key for one in found if isinstance(one, Member)] == ["a"]
    assert [one.problem for one in refused(found)] == [CUT_OFF]
    # Of a line behind which a line break stands, nothing is missing.
    assert members(read([rows + b"\n"], file_format, whole=False))


@FORMAT
def test_a_member_that_cannot_be_registered_is_refused_with_all_its_lines(file_format: FileFormat) -> None:
    content = (
        b"member_key,recipient\na,1\na,2\n"
        if file_format is CSV
        else b' {"member_key": "a", "attributes": {"n": 1.50}} \n'
    )
    file = MemberFile(file_format)
    (member,) = members([*file._reader.feed(content), *file._reader.end(whole=True)])
    told = file.errors(member.refuse(WRONG)) + file.errors(member.refuse(WRONG))
    if file_format is CSV:
        lines = [f"{n},member_key,It is wrong.,Write another.,,a,{n - 1}\r\n" for n in (2, 3)]
        head = "error_line,error_field,error_message,error_fix,error_text,member_key,recipient\r\n"
        assert told.decode() == head + "".join(lines * 2)
    else:
        assert told.count(b"\n") == 2
        assert told.endswith(b',"error_fix":"Write another.","member_key": "a","attributes": {"n": 1.50}}\n')
    again = members(read([told], file_format))
    assert {one.key for one in again} == {"a"}


@FORMAT
async def test_others_have_their_turn_while_a_file_is_read(file_format: FileFormat) -> None:
    row = b"%d,+1\n" if file_format is CSV else b'{"member_key":"%d"}\n'
    rows = b"".join(row % number for number in range(5_000))
    pieces = [b"member_key,recipient\n" if file_format is CSV else b"", rows, b""]
    file = MemberFile(file_format, clock=iter(range(1_000_000)).__next__)
    found = [one async for one in file.read(given_in(pieces))]
    assert found[0] == []
    # By this clock any line takes too long.
    assert {len(one) for one in found} == {0, 1}
    assert len(members(one for some in found for one in some)) == 5_000
    file = MemberFile(file_format, clock=lambda: 0.0)
    assert max([len(one) async for one in file.read(given_in(pieces))]) == MAX_FOUND


@FORMAT
async def test_others_have_their_turn_while_blank_lines_are_passed_over(file_format: FileFormat) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(others())
    file = MemberFile(file_format, clock=itertools.count().__next__)
    head = b"member_key\n" if file_format is CSV else b""
    found = [one async for some in file.read(given_in([head, b"\n" * 100_000])) for one in some]
    task.cancel()
    assert found == []
    assert turns > 10


@pytest.mark.slow
@FORMAT
def test_reading_keeps_little_however_long_the_file_is(file_format: FileFormat) -> None:
    row = b'a,"b, c"\n' if file_format is CSV else b'{"member_key":"a","attributes":{"b":"c"}}\n'
    piece = row * ((1 << 16) // len(row))
    reader = CsvMembers() if file_format is CSV else JsonMembers()
    head = [b"member_key,note\n"] if file_format is CSV else []
    hostile = [b"x" * (1 << 20), b'"' * (1 << 18), b"\n" * (1 << 15), b'"' + b"y\n" * (1 << 14)]
    tracemalloc.start()
    try:
        lines = 0
        for part in [*head, piece, piece, *hostile, piece]:
            lines += sum(one.lines for one in reader.feed(part) if isinstance(one, Member))
        lines += sum(one.lines for one in reader.end(whole=True) if isinstance(one, Member))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert lines >= 3 * (1 << 16) // len(row) - 3
    assert peak < 8 << 20
