"""How a call gets to the gateway: the blocking and the asynchronous half of every client, and what they share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from typing import Any, Self, TypeVar

import httpx
import msgspec

from backhaul_client.calls import Call, Lines
from backhaul_client.errors import BrokenOffError, UnexpectedAnswerError, UnreachableError, problem_of
from backhaul_client.following import AGAIN_S, PASSES, Followed, Following
from backhaul_client.paging import AsyncRows, Page, Rows
from backhaul_client.retries import Retries, Tries

T = TypeVar("T")
H = TypeVar("H", httpx.Client, httpx.AsyncClient)

_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
_TIMEOUT_S = 10.0


class _Shared:
    """What both halves do alike: requests, and what their outcome means."""

    _credential_header: str
    """The header that carries the credential; ``{}`` of its value is where the credential goes."""
    _credential_form = "{}"

    def __init__(self, base_url: str, credential: str, retries: Retries | None) -> None:
        # What no header can hold is refused here: the error of whoever sends it would show the credential.
        if not credential or not credential.isascii() or not credential.isprintable() or " " in credential:
            raise ValueError("The credential is empty, or holds a character that none has, such as a line's end.")
        self.base_url = base_url.rstrip("/")
        self._headers = {
            self._credential_header: self._credential_form.format(credential),
            "Accept": "application/json",
            "User-Agent": "backhaul-client",
        }
        self._retries = retries or Retries()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r})"

    def _request(self, http: H, call: Call[Any]) -> httpx.Request:
        headers: dict[str, str] = {**self._headers, **call.headers}
        content = call.content
        if call.body is not None:
            headers["Content-Type"], content = "application/json", msgspec.json.encode(call.body)
        timeout = httpx.Timeout(http.timeout)
        if timeout.read is not None:
            timeout.read = max(timeout.read, call.silent_s)
        return http.build_request(
            call.method,
            self.base_url + call.path,
            params=call.params,
            headers=headers,
            content=content,
            timeout=timeout,
        )

    def _tries(self, call: Call[Any]) -> Tries:
        # What comes in pieces is there once: sent again, it would be an empty file, which is taken for a whole one.
        once = call.content is not None and not isinstance(call.content, bytes)
        return Tries(replace(self._retries, tries=1) if once else self._retries, reads=call.reads)

    @staticmethod
    def _pause_after(tries: Tries, call: Call[Any], outcome: httpx.Response | httpx.TransportError) -> float | None:
        """Seconds until the next try; None where ``outcome`` is the answer; raises what is final."""
        if isinstance(outcome, httpx.TransportError):
            error = UnreachableError(f"{call.method} {call.path}: {type(outcome).__name__}: {outcome}")
            error.__cause__ = outcome
            return tries.pause_after(error, sent=not isinstance(outcome, _NEVER_SENT))
        if outcome.is_success:
            return None
        if outcome.status_code < 400:
            # A redirect is not followed, since the credential would go with it, and asking again changes nothing.
            raise UnexpectedAnswerError(f"{call.method} {call.path}: status {outcome.status_code}")
        return tries.pause_after(problem_of(outcome), sent=True)


class Transport(_Shared):
    """The blocking half."""

    def __init__(
        self,
        base_url: str,
        credential: str,
        *,
        timeout_s: float = _TIMEOUT_S,
        retries: Retries | None = None,
        http: httpx.Client | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``base_url`` is the gateway's. ``timeout_s`` bounds connecting, and each silence of an answer. ``http`` is a
        client of your own, for proxies and certificates: its timeouts then hold, and you close it."""
        super().__init__(base_url, credential, retries)
        self._owned = http is None
        self._http = http if http is not None else httpx.Client(timeout=timeout_s)
        self._sleep = sleep

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, unless they are your own client's."""
        if self._owned:
            self._http.close()

    def send(self, call: Call[T]) -> T:
        """The value of the answer. Raises a ``BackhaulError``."""
        request, tries = self._request(self._http, call), self._tries(call)
        while True:
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = self._http.send(request)
            except httpx.TransportError as exc:
                outcome = exc
            pause_s = self._pause_after(tries, call, outcome)
            if pause_s is None:
                assert isinstance(outcome, httpx.Response)  # noqa: S101  # whatever else has no answer has raised
                return call.read(outcome)
            self._sleep(pause_s)

    def series(self, calls: Iterator[Call[T]], together: Callable[[Sequence[T]], T]) -> T:
        """What all of ``calls`` answer, ``together``. Raises a ``BackhaulError``."""
        return together([self.send(call) for call in calls])

    def pieces(self, call: Call[Any]) -> Generator[bytes, None, None]:
        """The answer piece by piece. Raises a ``BackhaulError``, ``BrokenOffError`` where it breaks off."""
        tries = self._tries(call)
        while True:
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = self._http.send(self._request(self._http, call), stream=True)
            except httpx.TransportError as exc:
                outcome = exc
            else:
                if outcome.is_success:
                    break
                outcome.read()
            self._sleep(self._pause_after(tries, call, outcome) or 0)
        try:
            yield from outcome.iter_bytes()
        except httpx.TransportError as exc:
            raise _cut(call, exc) from exc
        finally:
            outcome.close()

    def lines(self, call: Call[T]) -> Iterator[T]:
        """The answer line by line. Raises as ``pieces`` does."""
        taken = Lines(call)
        for piece in self.pieces(call):
            yield from taken.of(piece)

    def follow(self, following: Following) -> Iterator[Followed]:
        """A stream, connection after connection. Raises a ``BackhaulError`` where none can be had, or it is refused."""
        while True:
            try:
                with closing(self.pieces(following.connection())) as pieces:
                    for piece in pieces:
                        yield from following.of(piece)
            except PASSES as exc:
                following.ended(exc)
            self._sleep(AGAIN_S)

    def rows(self, first: Call[Page[T]]) -> Rows[T]:
        """The rows of all pages, from the first one on."""
        return Rows(lambda cursor: self.send(first.with_cursor(cursor)), first.cursor)


class AsyncTransport(_Shared):
    """The asynchronous half."""

    def __init__(
        self,
        base_url: str,
        credential: str,
        *,
        timeout_s: float = _TIMEOUT_S,
        retries: Retries | None = None,
        http: httpx.AsyncClient | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """As of the blocking half."""
        super().__init__(base_url, credential, retries)
        self._owned = http is None
        self._http = http if http is not None else httpx.AsyncClient(timeout=timeout_s)
        self._sleep = sleep

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections, unless they are your own client's."""
        if self._owned:
            await self._http.aclose()

    async def send(self, call: Call[T]) -> T:
        """The value of the answer. Raises a ``BackhaulError``."""
        request, tries = self._request(self._http, call), self._tries(call)
        while True:
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = await self._http.send(request)
            except httpx.TransportError as exc:
                outcome = exc
            pause_s = self._pause_after(tries, call, outcome)
            if pause_s is None:
                assert isinstance(outcome, httpx.Response)  # noqa: S101  # whatever else has no answer has raised
                return call.read(outcome)
            await self._sleep(pause_s)

    async def series(self, calls: Iterator[Call[T]], together: Callable[[Sequence[T]], T]) -> T:
        """What all of ``calls`` answer, ``together``. Raises a ``BackhaulError``."""
        return together([await self.send(call) for call in calls])

    async def pieces(self, call: Call[Any]) -> AsyncGenerator[bytes, None]:
        """The answer piece by piece. Raises a ``BackhaulError``, ``BrokenOffError`` where it breaks off."""
        tries = self._tries(call)
        while True:
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = await self._http.send(self._request(self._http, call), stream=True)
            except httpx.TransportError as exc:
                outcome = exc
            else:
                if outcome.is_success:
                    break
                await outcome.aread()
            await self._sleep(self._pause_after(tries, call, outcome) or 0)
        try:
            async for piece in outcome.aiter_bytes():
                yield piece
        except httpx.TransportError as exc:
            raise _cut(call, exc) from exc
        finally:
            await outcome.aclose()

    async def lines(self, call: Call[T]) -> AsyncIterator[T]:
        """The answer line by line. Raises as ``pieces`` does."""
        taken = Lines(call)
        async with aclosing(self.pieces(call)) as pieces:
            async for piece in pieces:
                for line in taken.of(piece):
                    yield line

    async def follow(self, following: Following) -> AsyncIterator[Followed]:
        """A stream, connection after connection. Raises a ``BackhaulError`` where none can be had, or it is refused."""
        while True:
            try:
                async with aclosing(self.pieces(following.connection())) as pieces:
                    async for piece in pieces:
                        for told in following.of(piece):
                            yield told
            except PASSES as exc:
                following.ended(exc)
            await self._sleep(AGAIN_S)

    def rows(self, first: Call[Page[T]]) -> AsyncRows[T]:
        """The rows of all pages, from the first one on."""
        return AsyncRows(lambda cursor: self.send(first.with_cursor(cursor)), first.cursor)


class Part:
    """Some of a blocking client's calls, under a name of their own."""

    def __init__(self, client: Transport) -> None:
        self._client = client

    def send(self, call: Call[T]) -> T:
        """As the client's."""
        return self._client.send(call)

    def pieces(self, call: Call[Any]) -> Iterator[bytes]:
        """As the client's."""
        return self._client.pieces(call)

    def lines(self, call: Call[T]) -> Iterator[T]:
        """As the client's."""
        return self._client.lines(call)

    def rows(self, first: Call[Page[T]]) -> Rows[T]:
        """As the client's."""
        return self._client.rows(first)


class AsyncPart:
    """Some of an asynchronous client's calls, under a name of their own."""

    def __init__(self, client: AsyncTransport) -> None:
        self._client = client

    async def send(self, call: Call[T]) -> T:
        """As the client's."""
        return await self._client.send(call)

    def pieces(self, call: Call[Any]) -> AsyncIterator[bytes]:
        """As the client's."""
        return self._client.pieces(call)

    def lines(self, call: Call[T]) -> AsyncIterator[T]:
        """As the client's."""
        return self._client.lines(call)

    def rows(self, first: Call[Page[T]]) -> AsyncRows[T]:
        """As the client's."""
        return self._client.rows(first)


def _cut(call: Call[Any], cause: httpx.TransportError) -> BrokenOffError:
    return BrokenOffError(f"{call.method} {call.path}: the answer broke off: {type(cause).__name__}: {cause}")
