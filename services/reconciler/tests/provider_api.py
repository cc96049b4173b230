"""A provider's API, over HTTP on a real port, and the puller that asks it. It does as it should until a test says what
it does instead."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar, NamedTuple
from urllib.parse import parse_qs, quote, urlsplit

from backhaul_channels import Adapter, load_adapters
from backhaul_channels.pull import (
    Ask,
    Budget,
    Listing,
    Page,
    PullCredentials,
    Puller,
    Response,
    Span,
    Transport,
    UnreadableAnswerError,
    answered,
)
from backhaul_channels.settings import ChannelSettings

ORIGIN = "https://api.example.com"
DAY_US = 86_400_000_000


class Keys(PullCredentials):
    """``sender`` is what of the account is the channel's."""

    public: ClassVar[frozenset[str]] = frozenset({"account", "sender"})

    account: str
    sender: str
    token: str


class Messages(Puller[Keys, ChannelSettings]):
    """Messages by time, and single ones."""

    credentials_model: ClassVar[type[PullCredentials]] = Keys
    origins: ClassVar[frozenset[str]] = frozenset({ORIGIN})
    budgets: ClassVar[Mapping[str, Budget]] = {"api": Budget(per_minute=None, at_once=4)}
    message_budget: ClassVar[str] = "api"
    reaches_back_days: ClassVar[int] = 400
    lists: ClassVar[Sequence[Listing]] = (Listing("messages", "api", whole=True, rows=10),)

    def account(self, credentials: Keys) -> str:
        return credentials.account

    def listings(self, settings: ChannelSettings) -> Sequence[Listing]:  # none needed
        return self.lists

    async def window(
        self, transport: Transport, ask: Ask[Keys, ChannelSettings], listing: str, span: Span, cursor: str = ""
    ) -> Page:
        params = {"from": str(span.from_us), "to": str(span.to_us), "page": cursor}
        answer = answered(await transport.get(f"{ORIGIN}/{listing}", params, _headers(ask)))
        return _page(answer)

    async def message(self, transport: Transport, ask: Ask[Keys, ChannelSettings], message_id: str) -> Page:
        answer = answered(await transport.get(f"{ORIGIN}/message/{quote(message_id)}", {}, _headers(ask)))
        return Page([]) if answer.status == 404 else Page([answer.body])


def _headers(ask: Ask[Keys, ChannelSettings]) -> dict[str, str]:
    return {"authorization": f"{ask.credentials.account} {ask.credentials.sender} {ask.credentials.token}"}


def _page(answer: Response) -> Page:
    try:
        content = json.loads(answer.body)
        return Page([json.dumps(row).encode() for row in content["rows"]], content["next"], content.get("wait_s", 0.0))
    except (ValueError, KeyError, TypeError) as exc:
        raise UnreadableAnswerError("The answer cannot be read.") from exc


def adapters(puller: Puller[Any, Any] | None = None) -> Mapping[str, Adapter[Any]]:
    """Twilio's, with this API."""
    found = load_adapters()
    return {**found, "twilio": type("Asked", (type(found["twilio"]),), {"puller": puller or Messages()})()}


class Request(NamedTuple):
    """One that came, and when, in the loop's time."""

    at: float
    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]


Answer = tuple[int, Mapping[str, str], bytes]
Misbehaviour = Callable[[Request, asyncio.StreamWriter], Awaitable[Answer | None]]
"""What is answered in place of what should be; None for that. It may also write whatever it likes, and raise
``ConnectionError`` then."""


class ProviderApi:
    """``rows`` are the messages, by sender and id: {id, state, at}."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.rows: dict[str, dict[str, dict[str, Any]]] = {}
        self.tokens: set[str] = {"good"}
        self.page_rows = 10
        self.requests: list[Request] = []
        self.misbehave: Misbehaviour | None = None
        self.writers: set[asyncio.StreamWriter] = set()
        self.ended = asyncio.Event()

    def send(self, message_id: str, state: str, at_us: int, *, sender: str = "acme") -> None:
        """A message is at the provider."""
        self.rows.setdefault(sender, {})[message_id] = {"id": message_id, "state": state, "at": at_us}

    def asked(self, path: str) -> list[Request]:
        """The requests for a path."""
        return [one for one in self.requests if one.path.startswith(path)]

    async def hang(self) -> None:
        """Answer nothing until the end of the test."""
        await self.ended.wait()
        raise ConnectionError

    def answer(self, request: Request) -> Answer:
        _, sender, token = request.headers.get("authorization", "  ").split(" ")
        if token not in self.tokens:
            return 401, {}, b"{}"
        mine = self.rows.get(sender, {})
        if request.path.startswith("/message/"):
            row = mine.get(request.path.removeprefix("/message/"))
            return (200, {}, json.dumps(row).encode()) if row else (404, {}, b"{}")
        begin, end = int(request.params["from"]), int(request.params["to"])
        rows = sorted(
            (one for one in mine.values() if begin <= one["at"] < end), key=lambda one: (one["at"], one["id"])
        )
        offset = int(request.params["page"] or 0)
        following = offset + self.page_rows
        content = {"rows": rows[offset:following], "next": str(following) if following < len(rows) else ""}
        return 200, {}, json.dumps(content).encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                line, *lines = head.decode().split("\r\n")
                headers = {
                    name.lower(): value.strip() for name, _, value in (one.partition(":") for one in lines if one)
                }
                if length := int(headers.get("content-length", 0)):
                    await reader.readexactly(length)
                parts = urlsplit(line.split(" ")[1])
                params = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
                request = Request(asyncio.get_running_loop().time(), parts.path, params, headers)
                self.requests.append(request)
                answer = await self.misbehave(request, writer) if self.misbehave is not None else None
                status, more, body = answer or self.answer(request)
                fields = {"content-length": str(len(body)), "set-cookie": "who=somebody; Path=/", **more}
                told = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
                writer.write(f"HTTP/1.1 {status} X\r\n{told}\r\n".encode() + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.writers.discard(writer)
            writer.close()


@asynccontextmanager
async def provider_api() -> AsyncIterator[ProviderApi]:
    """The API on a free port."""
    api = ProviderApi("")
    server = await asyncio.start_server(api.serve, "127.0.0.1", 0)
    api.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield api
    finally:
        server.close()
        api.ended.set()
        for writer in list(api.writers):
            writer.transport.abort()
