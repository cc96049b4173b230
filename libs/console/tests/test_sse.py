"""Messages of a stream: no text of strangers can begin a field of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from backhaul_console.sse import EventStream, told


@pytest.mark.parametrize(
    ("data", "block"),
    [
        ("<tr>", b"id: 7.2\ndata: <tr>\n\n"),
        ("a\nb\r\nc\rid: 9", b"id: 7.2\ndata: a\ndata: b\ndata: c\ndata: id: 9\n\n"),
        ("a\u2028b\x85c\x0bd", "id: 7.2\ndata: a\u2028b\x85c\x0bd\n\n".encode()),
        ("\ud800", b"id: 7.2\ndata: ?\n\n"),
    ],
)
def test_lines_end_as_the_standard_says(data: str, block: bytes) -> None:
    assert told(data, id_="7.2") == block


def test_what_has_no_data_only_says_how_far_its_reader_is() -> None:
    assert told(id_="7") == b"id: 7\n\n"
    assert told(event="begun", id_="7", retry_ms=500) == b"id: 7\nevent: begun\nretry: 500\ndata: \n\n"


async def test_whoever_hangs_up_ends_it() -> None:
    closed, leaves = asyncio.Event(), asyncio.Event()
    sent: list[Any] = []

    async def pieces() -> AsyncGenerator[bytes, None]:
        try:
            yield b": still here\n\n"
            await asyncio.Event().wait()
        finally:
            closed.set()

    async def receive() -> dict[str, Any]:
        await leaves.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)
        if message.get("body"):
            leaves.set()

    await asyncio.wait_for(EventStream(pieces())({"type": "http"}, receive, send), 60)
    assert closed.is_set()
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert dict(sent[0]["headers"])[b"content-type"] == b"text/event-stream"
