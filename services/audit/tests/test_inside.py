"""Which events are read from a file's lines, and that nothing is made of what tells it only in part."""

from __future__ import annotations

from array import array

import pytest
from backhaul_audit.inside import MAX_LINE_BYTES, Inside
from backhaul_audit.lines import Lines
from backhaul_audit.model import Shape
from backhaul_proto.event.v1.event_pb2 import Event
from hypothesis import given
from hypothesis import strategies as st

WITH_EVENT = Shape("events", with_event=True)
AT_US = 1_700_000_000_123_456


def written(count: int) -> list[bytes]:
    """Lines as they are filed; the second event has no time, and an id that is none of Backhaul's."""
    events = [
        Event(id=f"{n:032x}", revision=n, received_at_us=AT_US + n * 600_000_000, raw=b'{"event":{"id":"other"}}')
        for n in range(count)
    ]
    if count > 1:
        events[1].id, events[1].received_at_us = "foreign", 0
    return Lines().of(events, with_event=True)


@given(count=st.integers(1, 5), is_array=st.booleans(), size=st.integers(1, 400))
def test_events_are_found_in_whatever_pieces_a_file_is_read(count: int, is_array: bool, size: int) -> None:
    lines = written(count)
    data = b"[\n" + b",\n".join(lines) + b"\n]\n" if is_array else b"\n".join(lines) + b"\n"
    inside = Inside(WITH_EVENT)
    for start in range(0, len(data), size):
        inside.add(data[start : start + size])
    content = inside.content(count)
    assert content is not None
    assert content.revisions == array("I", range(count))
    assert content.ids[:16].hex() == "0" * 32
    assert len(content.ids) == 16 * count
    assert content.slots == {0 if n == 1 else AT_US // 600_000_000 + n for n in range(count)}
    assert inside.content(count + 1) is None


@pytest.mark.parametrize(
    "data",
    [
        b"{}\n",
        b"nonsense\n",
        b'{"event":null}\n',
        b'{"event":{"id":"1","revision":-1}}\n',
        b'{"event":{"id":"1","revision":99999999999}}\n',
        b'{"event":{"id":"1","revision":"1"}}\n',
        b'{"event":{"id":"1","revision":1,"received_at":"yesterday"}}\n',
        b'{"event":{"id":"1","revision":1,"received_at":"2026-01-01T00:00:00"}}\n',
        b'{"event":{"id":"1","revision":1}}',
        b"x" * (MAX_LINE_BYTES + 1),
    ],
)
def test_what_is_no_line_of_a_file_tells_nothing(data: bytes) -> None:
    inside = Inside(WITH_EVENT)
    inside.add(data)
    assert inside.content(1) is None


def test_lines_without_events_tell_nothing() -> None:
    inside = Inside(Shape("events"))
    inside.add(b"".join(line + b"\n" for line in written(2)))
    assert inside.content(2) is None
