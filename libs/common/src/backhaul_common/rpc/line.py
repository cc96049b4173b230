"""A channel of gRPC that is left for another one while calls go over it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import grpc


class Line:
    """Counts the calls. Once it is left, ``channel`` is closed with the last of them."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self._closing: asyncio.Task[None] | None = None
        self._calls = 0
        self._left = False

    @contextmanager
    def call(self) -> Iterator[None]:
        """Around a call, until nothing of it is wanted any more."""
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
            self._close_if_done()

    def leave(self) -> None:
        """No more calls begin over it."""
        self._left = True
        self._close_if_done()

    async def close(self, grace: float | None) -> None:
        """End every call over it, after ``grace`` seconds."""
        await self._begin_closing(grace)

    @property
    def is_closed(self) -> bool:
        return self._closing is not None and self._closing.done()

    def _close_if_done(self) -> None:
        if self._left and not self._calls:
            self._begin_closing(None)

    def _begin_closing(self, grace: float | None) -> asyncio.Task[None]:
        if self._closing is None:
            self._closing = asyncio.create_task(self.channel.close(grace), name="close_channel")
        return self._closing
