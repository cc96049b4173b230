"""Following a stream by position: batch after batch in order, with one disposition for what fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from backhaul_common.disposition import Disposition, disposition, pause_s
from backhaul_common.feed import PositionReader, StreamMessage
from backhaul_common.logs import get_logger


class Progress(Protocol):
    """What a service makes of the messages, and how far it is: stored together."""

    async def position(self) -> int:
        """The position of the last message that is stored; 0 before the first. Waits while another copy is at it."""
        ...

    async def apply(self, messages: Sequence[StreamMessage]) -> None:
        """Store what ``messages`` bring and the position of the last of them, all or nothing.

        Store it on the condition that the stored position is still what it was, and raise UNAVAILABLE if it is not:
        another copy went on. Everything is then read again from the position that is stored.
        """
        ...

    async def dead_letter(self, message: StreamMessage, error: Exception) -> None:
        """Keep ``message``, which failed with ``error`` too often, for people to look at, and store its position."""
        ...


class Follower:
    """Applies the messages of ``reader`` to ``progress``, in order."""

    def __init__(self, reader: PositionReader, progress: Progress) -> None:
        self._reader = reader
        self._progress = progress
        self._log = get_logger(component="follower")

    async def run(self) -> None:
        """Follow until cancelled. Raises what says that a part is away: run it again, as ``keep_running`` does."""
        self._reader.seek(await self._progress.position())
        while True:
            await self._apply(await self._reader.next_batch())

    async def _apply(self, messages: Sequence[StreamMessage], tries: int = 1) -> None:
        """Apply ``messages``; what is at fault among them is found by halves, since order must be kept."""
        try:
            await self._progress.apply(messages)
        except Exception as exc:
            what = disposition(exc, tries)
            if what is Disposition.AWAY:
                raise
            self._log.error("batch_failed", stream_messages=len(messages), exc_info=exc)
            if len(messages) > 1:
                middle = len(messages) // 2
                await self._apply(messages[:middle])
                await self._apply(messages[middle:])
            elif what is Disposition.LATER:
                await asyncio.sleep(pause_s(tries))
                await self._apply(messages, tries + 1)
            else:
                (message,) = messages
                await self._progress.dead_letter(message, exc)
                self._log.error("message_given_up", subject=message.subject, stream_seq=message.stream_seq, tries=tries)
