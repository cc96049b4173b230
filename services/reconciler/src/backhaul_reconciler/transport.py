"""Asks providers over HTTP: within the account's budget, at the origins that the puller names, and no answer larger or
slower than any should be.

A peer that hangs, drips or sends without end costs one request its time, and nobody else anything. Neither cookies nor
credentials that the machine has of its own go with a request, so that nothing of one tenant is shown for another.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from math import isfinite
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from backhaul_channels.pull import (
    LaterError,
    PullError,
    Response,
    TooOftenError,
    UnreadableAnswerError,
    answered,
    is_among,
)
from backhaul_common.logs import get_logger
from backhaul_common.metering import Metrics
from backhaul_common.metrics import RECONCILER_REQUESTS

from backhaul_reconciler.ledger import Ledger

MAX_ANSWER_BYTES: Final = 32 << 20
"""An answer's body, decompressed. A thousand of Twilio's messages are 1 MB."""

MAX_LINE_BYTES: Final = 1 << 20
"""A line of a file."""

REQUEST_S, LINES_S = 30.0, 120.0
"""How long a request may take in all, and one that reads a file."""

_STEP_BYTES: Final = 1 << 20
"""How much is decompressed at once: the event loop has a few milliseconds of work with it."""


class PacedError(PullError):
    """The account's budget leaves no room for the request within the time that is left: it is asked for later, and not
    before ``wait_s`` are over."""

    def __init__(self, message: str, wait_s: float) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class Requests:
    """The connections of a process, and how it asks."""

    def __init__(
        self,
        metrics: Metrics,
        origins: Mapping[str, str],
        *,
        most: int = MAX_ANSWER_BYTES,
        within_s: float = REQUEST_S,
        lines_s: float = LINES_S,
    ) -> None:
        """``origins`` leads from an origin to the address that is asked in its place."""
        self._client = httpx.AsyncClient(
            follow_redirects=False,
            # The environment's proxies come with its .netrc, and with that somebody else's credentials.
            trust_env=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            timeout=httpx.Timeout(within_s, connect=min(10.0, within_s), pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=30.0),
        )
        self._origins = dict(origins)
        self._most = most
        self._within_s = within_s
        self._lines_s = lines_s
        self._counted = metrics.counter(RECONCILER_REQUESTS)

    async def close(self) -> None:
        """End every connection."""
        await self._client.aclose()

    async def get(self, provider: str, url: str, params: Mapping[str, str], headers: Mapping[str, str]) -> Response:
        """See ``Transport``."""
        return await self._asked(
            provider, self._request("GET", url, params=params or None, headers=_completed(headers))
        )

    async def post(self, provider: str, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> Response:
        """See ``Transport``."""
        return await self._asked(provider, self._request("POST", url, data=form, headers=_completed(headers)))

    async def lines(
        self, provider: str, url: str, headers: Mapping[str, str], skip: int, most: int
    ) -> tuple[Sequence[bytes], bool]:
        """See ``Transport``."""
        request = self._request("GET", url, headers={**headers, "accept-encoding": "identity"})
        async with self._sent(provider, request, self._lines_s) as answer:
            if answer.status_code != 200:
                answered(Response(answer.status_code, _headers(answer), b""))
                raise UnreadableAnswerError(
                    f"The provider answered with status {answer.status_code} in place of a file."
                )
            found: list[bytes] = []
            size = 0
            async for line in _lines(_decompressed(answer.aiter_raw(), "gzip")):
                if skip:
                    skip -= 1
                elif len(found) == most or (found and size + len(line) > self._most):
                    return found, True
                else:
                    found.append(line)
                    size += len(line)
            return found, False

    async def _asked(self, provider: str, request: httpx.Request) -> Response:
        async with self._sent(provider, request, self._within_s) as answer:
            body = bytearray()
            async for part in _decompressed(answer.aiter_raw(), answer.headers.get("content-encoding", "")):
                body += part
                if len(body) > self._most:
                    raise UnreadableAnswerError(f"The provider's answer is larger than {self._most} bytes.")
            return Response(answer.status_code, _headers(answer), bytes(body))

    @asynccontextmanager
    async def _sent(self, provider: str, request: httpx.Request, within_s: float) -> AsyncIterator[httpx.Response]:
        outcome = "failed"
        try:
            async with asyncio.timeout(within_s):
                answer = await self._client.send(request, stream=True)
                outcome = f"{answer.status_code // 100}xx" if answer.status_code != 429 else "too_often"
                try:
                    yield answer
                finally:
                    await answer.aclose()
        except TimeoutError as exc:
            outcome = "slow"
            raise LaterError(f"The provider did not answer within {within_s:g} s.") from exc
        except UnreadableAnswerError:
            outcome = "unreadable"
            raise
        except httpx.TimeoutException as exc:
            outcome = "slow"
            raise LaterError("The provider did not answer in time.") from exc
        except httpx.TransportError as exc:
            outcome = "failed"
            raise LaterError(f"The provider could not be asked ({type(exc).__name__}).") from exc
        finally:
            self._counted.add(provider, outcome)

    def _request(self, method: str, url: str, **more: Any) -> httpx.Request:
        try:
            return self._client.build_request(method, self._place(url), **more)
        except httpx.InvalidURL as exc:
            # It has a control character, say, or no end.
            raise UnreadableAnswerError("The provider leads to what is no address.") from exc

    def _place(self, url: str) -> str:
        """Where ``url`` is asked for."""
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        place = self._origins.get(origin.lower())
        return url if place is None else place.rstrip("/") + url[len(origin) :]


class AccountTransport:
    """A ``Transport``: asks for one account, within one of its budgets."""

    def __init__(
        self,
        requests: Requests,
        provider: str,
        origins: frozenset[str],
        ledger: Ledger,
        *,
        until: Callable[[], float],
        asked: Callable[[], None],
    ) -> None:
        """``until`` is when, in the loop's time, no request may begin any more; ``asked`` is told of each."""
        self._requests = requests
        self._provider = provider
        self._origins = origins
        self._ledger = ledger
        self._until = until
        self._asked = asked
        self.shown: set[str] = set()
        """By what it was shown who asks, in headers."""
        self._log = get_logger(component="transport", provider=provider)

    async def get(self, url: str, params: Mapping[str, str], headers: Mapping[str, str]) -> Response:
        """See ``Transport``. PacedError where the budget leaves no room."""
        async with self._room(url, headers):
            return self._told(await self._requests.get(self._provider, url, params, headers))

    async def post(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> Response:
        """See ``Transport``. PacedError where the budget leaves no room."""
        async with self._room(url, headers):
            return self._told(await self._requests.post(self._provider, url, form, headers))

    async def lines(self, url: str, headers: Mapping[str, str], skip: int, most: int) -> tuple[Sequence[bytes], bool]:
        """See ``Transport``. PacedError where the budget leaves no room."""
        async with self._room(url, headers):
            found = await self._requests.lines(self._provider, url, headers, skip, most)
            self._ledger.answered()
            return found

    @asynccontextmanager
    async def _room(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[None]:
        if not is_among(url, self._origins):
            raise UnreadableAnswerError("The provider leads to an address that is not one of its API's.")
        loop = asyncio.get_running_loop()
        while (wait_s := self._ledger.wait_s(loop.time())) > 0:
            if isfinite(wait_s) and loop.time() + wait_s >= self._until():
                raise PacedError("The account's budget is used up for now.", wait_s)
            # One that is under way may end meanwhile; nobody else asks for this account.
            if loop.time() >= self._until():
                raise PacedError("The account's budget is used up for now.", 1.0)
            await asyncio.sleep(min(wait_s, 0.05))
        if loop.time() >= self._until():
            raise PacedError("The time for this channel is over for now.", 0.0)
        self._ledger.begin()
        self._asked()
        self.shown.update(headers.get("authorization", "").split()[1:])
        try:
            yield
        except TooOftenError as exc:
            self._ledger.too_often(loop.time(), exc.retry_after_s)
            raise
        except LaterError as exc:
            self._ledger.later(loop.time(), exc.retry_after_s)
            raise
        finally:
            self._ledger.end(loop.time())

    def _told(self, response: Response) -> Response:
        """``response``, of which the ledger is told. What it means to who asked, the puller says."""
        self._ledger.told(asyncio.get_running_loop().time(), response.headers)
        try:
            answered(response)
        except TooOftenError as exc:
            self._ledger.too_often(asyncio.get_running_loop().time(), exc.retry_after_s)
        except LaterError as exc:
            self._ledger.later(asyncio.get_running_loop().time(), exc.retry_after_s)
        except PullError:
            self._ledger.answered()
        else:
            self._ledger.answered()
        return response


def _completed(headers: Mapping[str, str]) -> dict[str, str]:
    return {**headers, "accept-encoding": "gzip"}


def _headers(answer: httpx.Response) -> Mapping[str, str]:
    return {name.lower(): value for name, value in answer.headers.items()}


async def _decompressed(raw: AsyncIterator[bytes], encoding: str) -> AsyncIterator[bytes]:
    """What ``raw`` says, in pieces of at most ``_STEP_BYTES``: a small body may be gigabytes."""
    match encoding.strip().lower():
        case "" | "identity":
            async for part in raw:
                yield part
            return
        case "gzip" | "x-gzip":
            bits = zlib.MAX_WBITS | 16
        case "deflate":
            bits = zlib.MAX_WBITS
        case _:
            raise UnreadableAnswerError("The provider's answer is compressed in a way that was not asked for.")
    inflating = zlib.decompressobj(bits)
    begun = False
    try:
        async for part in raw:
            left = part
            while left:
                if inflating.eof:
                    # A file may be several, one behind another.
                    inflating = zlib.decompressobj(bits)
                begun = True
                yield inflating.decompress(left, _STEP_BYTES)
                left = inflating.unconsumed_tail or inflating.unused_data
        while begun and not inflating.eof and (more := inflating.decompress(inflating.unconsumed_tail, _STEP_BYTES)):
            yield more
    except zlib.error as exc:
        raise UnreadableAnswerError("The provider's answer cannot be decompressed.") from exc
    if begun and not inflating.eof:
        raise LaterError("The provider's answer ended in its middle.")


async def _lines(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Lines without their ends; empty ones are none."""
    rest = b""
    async for part in parts:
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            if line.strip():
                yield line.rstrip(b"\r")
        if len(rest) > MAX_LINE_BYTES:
            raise UnreadableAnswerError(f"The provider's file has a line of more than {MAX_LINE_BYTES} bytes.")
        # Whoever passes over many lines lets others have their turn.
        await asyncio.sleep(0)
    if rest.strip():
        yield rest
