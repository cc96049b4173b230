"""Following a stream by position: batch after batch in order, with one disposition for what fails."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, Protocol, TypeVar

from backhaul_common import mongo
from backhaul_common.disposition import Disposition, disposition, pause_s
from backhaul_common.errors import unavailable
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


R = TypeVar("R")
T = TypeVar("T")


class MongoProgress(ABC, Generic[R]):
    """A ``Progress`` whose results are in MongoDB: each batch is one transaction, which also moves the position."""

    def __init__(self, database: mongo.Database, collection: str, stream: str) -> None:
        """The position in ``stream`` is a document of ``collection``."""
        self._database = database
        self._collection = collection
        self._stream = stream
        self._position = 0
        self.changed = asyncio.Event()
        """Set at the next change of the results, by this copy or another; a new one is here from then on."""

    @abstractmethod
    def store(self, messages: Sequence[StreamMessage], database: mongo.ThreadDatabase, session: mongo.Session) -> R:
        """Store what ``messages`` bring, in the transaction of ``session``, which is begun anew after a conflict."""

    def stored(self, result: R) -> None:
        """What ``store`` returned is committed: count it. Must not raise."""

    async def position(self) -> int:
        """See ``Progress``. The copies of a service all read; whichever commits first makes the others read anew."""
        async with mongo.operation():
            row = await self._database[self._collection].find_one_and_update(
                {"_id": self._stream}, {"$setOnInsert": {"position": 0}}, upsert=True, return_document=True
            )
        self._moved(row["position"])
        return self._position

    async def apply(self, messages: Sequence[StreamMessage]) -> None:
        """See ``Progress``."""
        self.stored(await self._commit(messages[-1].stream_seq, partial(self.store, messages)))

    async def dead_letter(self, message: StreamMessage, error: Exception) -> None:  # noqa: ARG002  # for those that override it
        """See ``Progress``. It is left out: ``Follower`` logs its place, and the stream keeps it for its age."""
        await self._commit(message.stream_seq, lambda _, __: None)

    async def _commit(self, after: int, work: Callable[[mongo.ThreadDatabase, mongo.Session], T]) -> T:
        query, update = {"_id": self._stream, "position": self._position}, {"$set": {"position": after}}

        def transaction(database: mongo.ThreadDatabase, session: mongo.Session) -> T:
            if not database[self._collection].update_one(query, update, session=session).matched_count:
                raise unavailable("The position")
            return work(database, session)

        async with mongo.translated():
            result = await mongo.in_transaction(self._database, transaction)
        self._moved(after)
        return result

    def _moved(self, position: int) -> None:
        self._position = position
        self.changed.set()
        self.changed = asyncio.Event()


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
