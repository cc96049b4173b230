"""Answers that come piece by piece, and what a form carries sealed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any, cast

import pytest
from backhaul_client import UnreachableError
from backhaul_console.rendering import environment
from backhaul_console.sessions import Access, Session
from backhaul_console.streaming import beginning, download, streamed_page
from backhaul_console.visits import Visit
from jinja2 import DictLoader
from markupsafe import Markup
from starlette.requests import ClientDisconnect
from starlette.types import Message


class _Pieces:
    """What the API tells: pieces, then an error where there is one. ``closed`` says whether it was let go."""

    def __init__(self, *pieces: Any, error: Exception | None = None) -> None:
        self._pieces = pieces
        self._error = error
        self.closed = False

    async def run(self) -> AsyncGenerator[Any, None]:
        try:
            for piece in self._pieces:
                yield piece
            if self._error is not None:
                raise self._error
        finally:
            self.closed = True


def _visit() -> Visit:
    templates = environment()
    pages = {"page.html": "<p>{{ stream }}</p>{{ text }}"}
    assert templates.loader is not None
    broken = templates.loader.get_source(templates, "broken.html")[0]
    templates.loader = DictLoader({**pages, "broken.html": broken})
    return Visit(
        request=cast("Any", None),
        session=_session("a"),
        sessions=cast("Any", None),
        templates=templates,
        http=cast("Any", None),
        transport=cast("Any", None),
    )


def _session(owner: str) -> Session:
    return Session("token", Access(began_at=0.0), owner, 0.0)


async def _sent(answer: Any, *, gone_after: int = 1000) -> bytes:
    """What a browser is sent, which goes away after so many pieces."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)
        if len(sent) > gone_after:
            raise OSError("the browser has gone")

    # From this version on a server says by an error that nobody reads.
    scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}}
    with suppress(ClientDisconnect):
        await answer(scope, receive, send)
    return b"".join(message.get("body", b"") for message in sent)


async def test_rows_come_in_the_place_of_the_mark_and_texts_cannot_move_it() -> None:
    rows = _Pieces(Markup("<i>1</i>"), Markup("<i>2</i>"))
    answer = await streamed_page(_visit(), "page.html", rows.run(), text="{{ stream }} <b>")
    assert await _sent(answer) == b"<p><i>1</i><i>2</i></p>{{ stream }} &lt;b&gt;"
    assert rows.closed


async def test_what_fails_at_once_is_raised_and_what_breaks_off_is_said() -> None:
    with pytest.raises(UnreachableError):
        await streamed_page(_visit(), "page.html", _Pieces(error=UnreachableError("away")).run(), text="")
    rows = _Pieces("<i>1</i>", error=UnreachableError("away"))
    page = (await _sent(await streamed_page(_visit(), "page.html", rows.run(), text="end"))).decode()
    assert page.startswith("<p><i>1</i>")
    assert "The API broke off here" in page
    assert page.endswith("</p>end")


async def test_the_api_is_let_go_when_the_browser_goes_away() -> None:
    rows, file = _Pieces("1", "2", "3", "4"), _Pieces(b"1", b"2", b"3", b"4")
    await _sent(await streamed_page(_visit(), "page.html", rows.run(), text=""), gone_after=2)
    await _sent(await download("a", file.run()), gone_after=2)
    assert (rows.closed, file.closed) == (True, True)


async def test_a_download_without_an_end_is_given_up_when_its_visitor_goes() -> None:
    """A server of an older version of ASGI tells it as a message, as uvicorn does."""
    gone, closed = asyncio.Event(), asyncio.Event()

    async def pieces() -> AsyncGenerator[bytes, None]:
        try:
            yield b"first"
            await gone.wait()
            while True:
                yield b"and so on"
                await asyncio.sleep(0)  # Another task has its turn.
        finally:
            closed.set()

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message.get("body") == b"first":
            gone.set()

    answer = await download("a.csv", pieces(), "text/csv")
    async with asyncio.timeout(60):
        await answer({"type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}}, receive, send)
        await closed.wait()


async def test_a_download_ends_with_its_last_piece_and_breaks_where_that_fails() -> None:
    async def pieces(*, fails: bool) -> AsyncGenerator[bytes, None]:
        yield b"first"
        if fails:
            raise OSError("away")

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    for fails in (False, True):
        sent: list[Any] = []

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        passed = await download("a.csv", pieces(fails=fails), "text/csv")
        if fails:
            with pytest.raises(OSError, match="away"):
                await passed({"type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}}, receive, send)
        else:
            await passed({"type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}}, receive, send)
        assert (sent[-1].get("more_body", False) is False) is not fails


async def test_a_file_is_kept_and_its_name_is_harmless() -> None:
    answer = await download('a"b\r\nx: y/../ü.json', _Pieces(b"1", b"2").run())
    assert answer.headers["content-disposition"] == 'attachment; filename="a_b__x__y_..__.json"'
    assert answer.headers["content-type"] == "application/octet-stream"
    assert await _sent(answer) == b"12"
    assert await _sent(await download("a", _Pieces().run())) == b""


async def test_no_more_of_a_file_is_read_than_is_shown() -> None:
    file = _Pieces(b"123", b"456", b"789")
    assert await beginning(file.run(), 4) == (b"1234", True)
    assert file.closed
    assert await beginning(_Pieces(b"12", b"34").run(), 4) == (b"1234", False)


def test_what_a_form_carries_is_of_its_session_and_unchanged() -> None:
    session, other = _session("a"), _session("b")
    sealed = session.seal(b"a secret")
    assert session.unseal(sealed) == b"a secret"
    assert "secret" not in sealed
    assert sealed != session.seal(b"a secret")
    changed = sealed[:-4] + ("AAAA" if sealed[-4:] != "AAAA" else "BBBB")
    for text in (changed, "", "x", "ü", sealed[:8], session.form_token):
        assert session.unseal(text) is None, text
    assert other.unseal(sealed) is None
