"""What all webhook senders share: a POST, its answers, and when to send it again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import httpx

ACCEPTED: Final = 200


@dataclass(frozen=True, slots=True)
class Post:
    """One webhook request. ``url`` is the address as it was configured, but for its fragment, which is never sent."""

    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def with_header(self, name: str, value: str) -> Post:
        """The same with one header replaced, or added; for forgeries."""
        kept = tuple(pair for pair in self.headers if pair[0].lower() != name.lower())
        return replace(self, headers=(*kept, (name, value)))

    def without_header(self, name: str) -> Post:
        """The same without a header."""
        return replace(self, headers=tuple(pair for pair in self.headers if pair[0].lower() != name.lower()))


@dataclass(slots=True)
class Sending:
    """What became of one post: the outcome of every try, an HTTP status or the name of what failed."""

    outcomes: list[int | str] = field(default_factory=list)

    @property
    def accepted(self) -> bool:
        """Whether the last try was answered 200."""
        return bool(self.outcomes) and self.outcomes[-1] == ACCEPTED


TryOnce = Callable[[Post], Awaitable[int | str]]
"""Sends a post once: the HTTP status, or the name of what failed (``ConnectError`` where no connection stood)."""

TryAgain = Callable[[Sending], float | None]
"""After a try that was not accepted: the seconds to wait before the next one, None to give up."""


def signed_url(address: str) -> str:
    """``address`` as providers sign it: without its fragment, and without user and password."""
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, parts.query, ""))


def sent_url(address: str) -> str:
    """``address`` as it is requested: without its fragment; user and password become an Authorization header."""
    return address.partition("#")[0]


async def send(http: httpx.AsyncClient, post: Post) -> httpx.Response:
    """One try."""
    return await http.post(post.url, headers=list(post.headers), content=post.body)


def over(http: httpx.AsyncClient) -> TryOnce:
    """Tries over ``http``'s connections."""

    async def once(post: Post) -> int | str:
        try:
            return (await send(http, post)).status_code
        except httpx.TransportError as exc:
            return type(exc).__name__

    return once


async def deliver(once: TryOnce, post: Post, try_again: TryAgain) -> Sending:
    """Send ``post`` until it is accepted or ``try_again`` gives up."""
    sending = Sending()
    while True:
        sending.outcomes.append(await once(post))
        if sending.accepted:
            return sending
        pause_s = try_again(sending)
        if pause_s is None:
            return sending
        await asyncio.sleep(pause_s)
