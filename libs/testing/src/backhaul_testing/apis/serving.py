"""A provider's API as an HTTP server in a thread: routes, what is counted, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from email.utils import format_datetime
from typing import Any, ClassVar, Final, Self
from urllib.parse import parse_qsl, unquote

import uvicorn

from backhaul_testing.apis.clock import Clock
from backhaul_testing.apis.counting import Entry, Requests
from backhaul_testing.apis.faults import EVERYWHERE, Fault, Faults, Name
from backhaul_testing.endpoints import LOOPBACK

_ENDLESS_PAUSE_S: Final = 0.01
_START_S: Final = 20.0
_KEEP_ALIVE_S: Final = 60
"""Clients keep idle connections for shorter, so none is closed while it is asked over."""
_PROXY_PAGE: Final = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request. ``parts`` are what the route's pattern has named; names of headers are in lower case."""

    method: str
    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    parts: Mapping[str, str]
    route: str

    @property
    def form(self) -> dict[str, str]:
        """The body as a form."""
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered. A JSON body, unless ``headers`` say otherwise."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Route:
    """``name`` is what requests are counted under; ``pattern`` fits the whole path."""

    name: str
    method: str
    pattern: re.Pattern[str]
    answer: Callable[[Asked], Answer]


class CutError(Exception):
    """Ends a connection in the middle of an answer."""


class _Server(uvicorn.Server):
    """uvicorn, which says when it serves, and does until ``stopping``."""

    def __init__(self, config: uvicorn.Config, ready: threading.Event, stopping: asyncio.Event) -> None:
        super().__init__(config)
        self._ready = ready
        self._stopping = stopping

    async def main_loop(self) -> None:
        self._ready.set()
        await self._stopping.wait()


class ProviderApi(ABC):
    """``with …Api() as api:`` serves inside; ``api.url`` is where. What fails in a handler is raised at the end.

    ``latency_s`` is what each answer takes at least, by the machine's time, so that requests can be under way at once.
    """

    hosts: ClassVar[Sequence[str]]
    """The origins that the provider's addresses have; answers name them, too."""
    faults_known: ClassVar[frozenset[str]] = EVERYWHERE

    def __init__(self, *, clock: Clock | None = None, seed: int = 1, latency_s: float = 0.0) -> None:
        self.clock = clock or Clock()
        self.seed = seed
        self.latency_s = latency_s
        self.requests = Requests(self.clock)
        self.lock = threading.RLock()
        """Held by whoever reads or changes what the provider knows."""
        self._faults = Faults(seed, self.faults_known)
        self._failures: list[Exception] = []
        self._host, self._port = LOOPBACK, 0
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None

    @property
    @abstractmethod
    def routes(self) -> Sequence[Route]:
        """All of them; the first that fits answers."""

    @abstractmethod
    def whose(self, asked: Asked) -> tuple[str, str]:
        """The name of the credentials that a request shows, and of the account whose limits it counts against; each is
        empty where it shows none. Neither is a secret."""

    @abstractmethod
    def refusal(self, status: int) -> Answer:
        """The provider's own answer where it refuses for ``status``: 404 for no such route, 429, or any 5xx."""

    @abstractmethod
    def admit(self, entry: Entry) -> Answer | None:
        """What refuses a request at once, before anything else is looked at; None where nothing does."""

    @abstractmethod
    def headers(self, entry: Entry) -> Mapping[str, str]:
        """What every answer has."""

    def misbehave(self, name: Name, **how: Any) -> Fault:
        """Switch a fault on: see ``faults.Name`` for the names, and ``Faults.switch_on`` for how."""
        return self._faults.switch_on(name, **how)

    def behave(self, *names: Name) -> None:
        """Switch ``names`` off; all of them, where there are none."""
        self._faults.switch_off(*names)

    @property
    def lag_s(self) -> float:
        """How old the newest thing in a list is."""
        late = self._faults.on("late")
        return late.seconds if late else 0.0

    def strike(self, name: Name, route: str) -> Fault | None:
        """Whether a fault happens to this answer."""
        return self._faults.strike(name, route)

    def listen_on(self, port: int, host: str = LOOPBACK) -> None:
        """Listen on ``port`` of an address of this machine from ``start`` on, and not on one that is free."""
        self._host, self._port = host, port

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end. It stays the same when it is stopped and started again."""
        if not self._port:
            self._listener = self._bound()
            # Who asked for the address may fail before it serves.
            weakref.finalize(self, self._listener.close)
            self._port = self._listener.getsockname()[1]
        return f"http://{self._host}:{self._port}"

    @property
    def origins(self) -> dict[str, str]:
        """Where a client must go in place of each of the provider's origins."""
        return dict.fromkeys(self.hosts, self.url)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to serve, and return when it does."""
        url = self.url
        listener = self._listener or self._bound()
        self._listener = None  # The server closes it.
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listener, ready), name=url, daemon=True)
        self._thread.start()
        if not ready.wait(_START_S):
            raise TimeoutError(f"{type(self).__name__} does not listen at {url} within {_START_S:g} s")

    def stop(self) -> None:
        """End every connection and the thread. Raises what failed in a handler meanwhile."""
        if self._thread is None:
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._thread = None
        if self._failures:
            raise ExceptionGroup(f"in handlers of {type(self).__name__}", self._failures)

    def _bound(self) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self._host, self._port))
        return listener

    def _run(self, listener: socket.socket, ready: threading.Event) -> None:
        asyncio.run(self._until_stopped(listener, ready))

    async def _until_stopped(self, listener: socket.socket, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        config = uvicorn.Config(
            self._serve,
            interface="asgi3",
            log_config=None,
            log_level="critical",
            lifespan="off",
            ws="none",
            date_header=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
        )
        await _Server(config, ready, self._stopping).serve(sockets=[listener])

    async def _pause(self, seconds: float) -> None:
        """Wait, but not beyond the end."""
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self._stopping.wait()
            except TimeoutError:
                pass

    async def _serve(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        try:
            await self._serve_one(scope, receive, send)
        except CutError:
            raise
        except Exception as exc:
            self._failures.append(exc)  # It is raised where the test is, at the end.
            raise

    async def _serve_one(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        asked, route = await self._asked(scope, receive)
        key, account = self.whose(asked)
        with self.requests.under_way(asked.route, key, account) as entry:
            answer = self.admit(entry)
            if answer is None:
                slow = self.strike("slow", asked.route)
                await self._pause(self.latency_s + (slow.seconds if slow else 0))
                answer = self._struck(asked.route) or self._answer(asked, route)
            entry.status = answer.status
            await self._tell(asked.route, answer, self.headers(entry), receive, send)

    async def _asked(self, scope: _Message, receive: _Receive) -> tuple[Asked, Route | None]:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        path, method = scope["path"], scope["method"]
        found = ((route, route.pattern.fullmatch(path)) for route in self.routes if route.method == method)
        route, match = next(((route, match) for route, match in found if match), (None, None))
        asked = Asked(
            method=method,
            path=path,
            params=dict(parse_qsl(scope["query_string"].decode(), keep_blank_values=True)),
            headers={name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
            body=body,
            parts={name: unquote(part) for name, part in match.groupdict().items()} if match else {},
            route=route.name if route else "none",
        )
        return asked, route

    def _struck(self, route: str) -> Answer | None:
        if self.strike("too_many_requests", route):
            return self.refusal(429)
        if fault := self.strike("errors", route):
            if fault.status == 502:  # From a proxy before the API, which knows nothing of its shapes.
                return Answer(502, _PROXY_PAGE, {"content-type": "text/html"})
            return self.refusal(fault.status)
        return None

    def _answer(self, asked: Asked, route: Route | None) -> Answer:
        if route is None:
            return self.refusal(404)
        with self.lock:
            return route.answer(asked)

    async def _tell(
        self, route: str, answer: Answer, common: Mapping[str, str], receive: _Receive, send: _Send
    ) -> None:
        body = answer.body
        date = format_datetime(self.clock.now(), usegmt=True)
        headers = {"content-type": "application/json", "date": date, **common, **answer.headers}
        whole = answer.status == 200
        endless = self.strike("endless", route) if whole else None
        if whole and self.strike("truncated", route):
            body = body[: len(body) // 2]
        cut = self.strike("cut", route) if whole else None
        if not endless:
            headers["content-length"] = str(len(body))
        named = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": named})
        if cut:
            await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
            raise CutError
        if endless:
            await self._tell_endlessly(body, receive, send)
        await send({"type": "http.response.body", "body": b"" if endless else body})

    async def _tell_endlessly(self, body: bytes, receive: _Receive, send: _Send) -> None:
        """The body without its last byte, and blanks for as long as anybody reads."""
        gone = asyncio.ensure_future(receive())
        await send({"type": "http.response.body", "body": body[:-1], "more_body": True})
        while not (self._stopping.is_set() or gone.done()):
            await send({"type": "http.response.body", "body": b" " * 1024, "more_body": True})
            await self._pause(_ENDLESS_PAUSE_S)
        gone.cancel()
