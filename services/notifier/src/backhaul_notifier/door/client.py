"""The door itself: one client for the whole process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from aiohttp import (
    ClientError,
    ClientOSError,
    ClientPayloadError,
    EofStream,
    ServerDisconnectedError,
)
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from backhaul_notifier.door.connector import Attempt, Connector
from backhaul_notifier.door.contexts import Contexts
from backhaul_notifier.door.dialing import Dialer
from backhaul_notifier.door.exchange import exchange
from backhaul_notifier.door.names import Dns, Names, Resolver
from backhaul_notifier.door.outcome import (
    DoorError,
    Failure,
    Outcome,
    Request,
    readable,
    require_headers,
    retry_after_s,
)
from backhaul_notifier.door.ranges import Ranges
from backhaul_notifier.door.settings import DoorSettings
from backhaul_notifier.door.target import Target, read_target

IDLE_S: Final = 15.0
"""For how long a connection without requests is kept. Shorter than most servers keep theirs."""

_ENDED: Final = (ClientOSError, ServerDisconnectedError)
"""The connection ended before the answer's head was whole."""


class Door:
    """Sends requests to addresses that others chose, and never to one that settings do not allow.

    Redirects are answers, bodies are not inflated, cookies are not kept, and neither the environment's proxies nor its
    credentials are used. Made within the event loop that it works in.
    """

    def __init__(
        self,
        settings: DoorSettings,
        *,
        resolver: Resolver | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``now`` gives seconds since 1970, for what an endpoint asks to wait until."""
        self._now = now
        self._names = Names(resolver or Dns(), clock)
        ranges = Ranges(settings.notifier_allowed_networks, settings.notifier_refused_networks)
        self._dialer = Dialer(self._names, ranges, settings.door_limits(), settings.door_proxy())
        self._contexts = Contexts(settings.notifier_ca_file)
        self._connector = Connector(
            self._dialer,
            limit=settings.notifier_max_connections,
            keepalive_timeout=IDLE_S,
        )

    @property
    def open_connections(self) -> int:
        """How many there are, idle ones included."""
        return self._connector.open_connections

    async def close(self) -> None:
        """End every connection; what is under way fails."""
        await self._connector.close()
        await self._names.close()

    def check(self, url: str) -> None:
        """Raises DoorError, in words for whoever gave ``url``, where it cannot or will not be called as far as can be
        known without looking up its name."""
        self._dialer.require(read_target(url))

    async def send(self, request: Request) -> Outcome:
        """What became of ``request``, within its time. A request that meets a connection which the endpoint was just
        giving up is sent once more, if nothing of an answer had come."""
        began = time.perf_counter()
        status: list[int] = []
        try:
            return await self._within(request, status, began)
        except DoorError as exc:
            return Outcome(_since(began), status[-1] if status else None, failure=exc.failure, sentence=exc.sentence)

    async def _within(self, request: Request, status: list[int], began: float) -> Outcome:
        target = read_target(request.url)
        self._dialer.require(target)
        require_headers(request.headers)
        attempt = Attempt(target, request.may_send)
        try:
            async with asyncio.timeout(request.timeout_s):
                try:
                    return await self._exchange(request, attempt, status, began)
                except _ENDED:
                    if not attempt.reused or attempt.peer is None or attempt.peer.received:
                        raise
                attempt = Attempt(target, request.may_send)
                return await self._exchange(request, attempt, status, began)
        except TimeoutError as exc:
            raise DoorError(*attempt.stage.value) from exc
        except (ClientError, HttpProcessingError, EofStream, OSError) as exc:
            raise _told(exc, target) from exc

    async def _exchange(self, request: Request, attempt: Attempt, status: list[int], began: float) -> Outcome:
        target = attempt.target
        tls = await self._contexts.of(request.tls) if target.scheme == "https" else None
        answer = await exchange(self._connector, request, attempt, tls, status)
        return Outcome(
            _since(began),
            answer.status,
            readable(answer.body, answer.headers.get("Content-Encoding", ""), request.answer_bytes),
            retry_after_s(answer.headers.get("Retry-After"), self._now()),
        )


def _told(exc: BaseException, target: Target) -> DoorError:
    causes: list[BaseException] = [exc]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    for one in causes:
        if isinstance(one, DoorError):
            return one
    if any(isinstance(one, LineTooLong) or "Too many" in str(one) for one in causes):
        return DoorError(
            Failure.HEADERS_TOO_LARGE, f"{target.host} answered with headers that are too large or too many."
        )
    match exc:
        case ClientPayloadError():
            return DoorError(Failure.RESET, f"{target.host} ended the connection in the middle of its answer.")
        case HttpProcessingError():
            return DoorError(Failure.PROTOCOL_ERROR, f"{target.host} answered with something that is no HTTP.")
        case _:
            return DoorError(Failure.RESET, f"{target.host} ended the connection without an answer.")


def _since(began: float) -> float:
    return round((time.perf_counter() - began) * 1e3, 3)
