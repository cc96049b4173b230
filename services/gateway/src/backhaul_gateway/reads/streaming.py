"""Answers and bodies that are passed on piece by piece, as large as they may be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, TypeVar, cast

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.lifecycle import cancel
from backhaul_common.logs import get_logger
from fastapi import Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from backhaul_gateway.web.edge import MAX_BODY
from backhaul_gateway.web.http import STEADY_BODY

T = TypeVar("T")

MAX_LINE_BYTES = 64 << 10
"""Of a line that is held until its end has come. Longer ones are none that anybody takes."""

_PIECE_BYTES = 192 << 10


class Body:
    """A request's body in pieces, and why it broke off where it did. It may take as long as it keeps coming."""

    def __init__(self, request: Request, most: int) -> None:
        """``most`` bytes are taken; 413 beyond. Ask for it when it is known who asks."""
        request.scope[MAX_BODY] = most
        request.scope[STEADY_BODY] = object()
        self._request = request
        self.failure: BackhaulError | HTTPException | None = None
        """Set where the body is not whole: whoever is given the pieces sees them fail, and may tell nobody why."""

    async def whole_lines(self) -> AsyncIterator[bytes]:
        """The body, in pieces of at most 256 KiB which end with lines, but for the last one.

        Whoever reads them cannot tell a call that was given up from one that is over. The beginning of a line, such as
        half a number, must not look like a line.
        """
        begun = b""
        async for piece in self.pieces():
            lines, end, rest = piece.rpartition(b"\n")
            if end or len(begun) + len(rest) > MAX_LINE_BYTES:
                yield begun + lines + end
                begun = rest
            else:
                begun += rest
        if begun:
            yield begun

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes, in pieces of at most 192 KiB."""
        try:
            async for piece in self._request.stream():
                for start in range(0, len(piece), _PIECE_BYTES):
                    yield piece[start : start + _PIECE_BYTES]
        except HTTPException as exc:
            self.failure = exc
            raise
        except ClientDisconnect as exc:
            self.failure = BackhaulError(Code.INVALID_ARGUMENT, "The body is not whole.", field="body")
            raise self.failure from exc


def answers_of(call: AsyncIterable[T]) -> aclosing[AsyncGenerator[T, None]]:
    """The answers of a call that has many. Ends the call when they are left."""
    # What the stub calls a gRPC call is a generator of ``rpc.Channel``.
    return aclosing(cast("AsyncGenerator[T, None]", call))


async def begun(
    pieces: AsyncGenerator[bytes, None],
    media_type: str,
    headers: Mapping[str, str] | None = None,
    *,
    watched: Request | None = None,
) -> Response:
    """A response that passes ``pieces`` on, when the first one is there: what fails until then is raised.

    It is given up when the sender of ``watched`` hangs up, whose body must have been read: it is looked for behind it.
    """
    first = await anext(pieces, b"")
    return _Passing(first, pieces, {"content-type": media_type, **(headers or {})}, watched)


class _Passing(Response):
    """Sends pieces as they come. Where they fail, the connection is closed in the middle of the answer, which is the
    only way left to say so."""

    def __init__(
        self,
        first: bytes,
        pieces: AsyncGenerator[bytes, None],
        headers: Mapping[str, str],
        watched: Request | None,
    ) -> None:
        # Not the base's own: it would make the headers of an empty answer.
        self.status_code = 200
        self.background = None
        self.raw_headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._first = first
        self._pieces = pieces
        self._watched = watched

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        """Answer."""
        sending = self._send(scope["path"], send)
        await (sending if self._watched is None else unless_gone(self._watched, sending))

    async def _send(self, path: str, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self._first, "more_body": True})
        try:
            async with aclosing(self._pieces) as pieces:
                async for piece in pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        except (BackhaulError, HTTPException) as exc:
            # What returns without an end is cut off by the server.
            get_logger(component="answers").warning("answer_cut", path=path, error=str(exc))
            return
        await send({"type": "http.response.body", "body": b""})


async def unless_gone(request: Request, answer: Coroutine[Any, Any, T]) -> T | None:
    """What ``answer`` returns; None when it was given up, because whoever asked has hung up."""
    answering = asyncio.create_task(answer)
    leaving = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        return answering.result() if answering.done() else None
    finally:
        for task in (answering, leaving):
            if not task.done():
                await cancel(task)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
