"""A stream of events, over connections that end in every way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any

import pytest
from backhaul_client import (
    AsyncTenantClient,
    Followed,
    ForbiddenError,
    Retries,
    TenantClient,
    UnexpectedAnswerError,
    UnreachableError,
)
from backhaul_client.calls import Call, of
from backhaul_client.following import AGAIN_S, Following
from backhaul_client.models import Event
from backhaul_testing.cuts import ways_to_cut
from http_rig import KEY
from hypothesis import given
from hypothesis import strategies as st

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n"
CHUNKED, UNTIL_CLOSED = HEAD + b"transfer-encoding: chunked\r\n\r\n", HEAD + b"\r\n"


TEXTS = (
    "channel provider kind provider_status message_id recipient sender communication_id error_code error_text text "
    "source verification data_format callback_id traceparent"
)
NULLS = (
    "error_class error_url occurred_at occurred_at_basis sequence received_at recipient_family consent classification "
    "review reply answered data"
)
LISTS = "references vars attributes missing_parameters default_parameters"


def event(place: str, name: str) -> bytes:
    """An event of that id, over several lines, as the data of a provider may be."""
    fields: dict[str, Any] = {"id": name, "revision": 0, "invalid_recipient": False, "by_machine": False}
    fields |= dict.fromkeys(TEXTS.split(), "") | dict.fromkeys(NULLS.split()) | {key: [] for key in LISTS.split()}
    lines = "".join(f"data: {line}\n" for line in json.dumps(fields, indent=1).splitlines())
    return f"id: {place}\n{lines}\n".encode()


BEAT = b": still here\nid: 3\n\n"
MISSED = b'id: 9\nevent: missed\ndata: {"after": "5", "up_to": "9", "message": "Some is gone."}\n\n'
END = b'event: end\ndata: {"code": "forbidden", "message": "The tenant is suspended."}\n\n'


class Server:
    """Answers each connection with the next of what it is given, and closes it: what is ``chunked`` is cut off."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = iter(answers)
        self.asked: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        self.asked.append(fields.get("last-event-id", ""))
        writer.write(next(self._answers))
        await writer.drain()
        writer.close()


@asynccontextmanager
async def serving(*answers: bytes) -> AsyncIterator[tuple[Server, str]]:
    server = Server(*answers)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        yield server, f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def shown(told: Followed) -> tuple[str, str]:
    return told.id, told.event.id if told.event is not None else told.missed


STORY = (
    # It breaks off in the middle of an event.
    CHUNKED + chunk(BEAT) + chunk(event("4", "a")) + b"fff\r\n" + event("5", "b")[:20],
    UNTIL_CLOSED + event("5", "b"),
    UNTIL_CLOSED + MISSED + event("10.2", "c") + END,
)
TOLD = [("4", "a"), ("5", "b"), ("9", "Some is gone."), ("10.2", "c")]


async def test_a_stream_goes_on_where_its_connection_ended_until_the_service_says_why() -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    async with serving(*STORY) as (server, url), AsyncTenantClient(url, KEY, sleep=pause) as client:
        stream = aiter(client.follow_events(channel="Twilio"))
        told = [shown(await anext(stream)) for _ in TOLD]
        with pytest.raises(ForbiddenError, match="suspended"):
            await anext(stream)
    assert told == TOLD
    assert server.asked == ["", "4", "5"]
    assert pauses == [AGAIN_S, AGAIN_S]


async def test_a_blocking_client_follows_it_as_well() -> None:
    def read(url: str) -> list[tuple[str, str]]:
        with TenantClient(url, KEY, sleep=lambda _: None) as client:
            stream: Iterator[Followed] = client.follow_events(after="2")
            told = [shown(one) for one in islice(stream, 4)]
            with pytest.raises(ForbiddenError):
                next(stream)
            return told

    async with serving(*STORY) as (server, url):
        assert await asyncio.to_thread(read, url) == TOLD
    assert server.asked == ["2", "4", "5"]


async def test_what_says_nothing_at_all_is_not_asked_for_ever() -> None:
    async def pause(_: float) -> None:
        pass

    async with serving(UNTIL_CLOSED, UNTIL_CLOSED) as (server, url), AsyncTenantClient(url, KEY, sleep=pause) as client:
        with pytest.raises(UnexpectedAnswerError, match="an empty stream"):
            await anext(aiter(client.follow_events()))
        assert server.asked == [""]


async def test_who_cannot_be_reached_again_is_told() -> None:
    async def pause(_: float) -> None:
        pass

    async with serving(UNTIL_CLOSED + event("4", "a")) as (_, url):
        client = AsyncTenantClient(url, KEY, retries=Retries(tries=2), sleep=pause)
        stream = aiter(client.follow_events())
        assert shown(await anext(stream)) == ("4", "a")
    async with client:
        with pytest.raises(UnreachableError):
            await anext(stream)


@given(st.lists(st.integers(0), max_size=8))
def test_pieces_may_be_cut_anywhere(cuts: list[int]) -> None:
    content = BEAT + event("4", "a") + MISSED + event("10.2", "c")
    for pieces in ways_to_cut(content, cuts):
        following = Following(Call(path="/v1/events/stream", answer=of(Event)))
        following.connection()
        told = [shown(one) for piece in pieces for one in following.of(piece)]
        assert told == [("4", "a"), ("9", "Some is gone."), ("10.2", "c")]
        assert following.connection().headers["Last-Event-ID"] == "10.2"


def test_positions_are_told_to_whoever_asks_for_them() -> None:
    for positions in (False, True):
        following = Following(Call(path="/v1/events/stream", answer=of(Event), positions=positions))
        following.connection()
        told = [shown(one) for one in following.of(BEAT + event("4", "a") + b": still here\n\n" + BEAT)]
        assert told == ([("3", ""), ("4", "a"), ("3", "")] if positions else [("4", "a")])
