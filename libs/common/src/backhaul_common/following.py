"""Following a stream by position: batch after batch in order, with one disposition for what fails."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Generic, Protocol, TypeVar
from uuid import uuid4

from backhaul_common import mongo
from backhaul_common.disposition import Disposition, disposition, pause_s
from backhaul_common.errors import BackhaulError, unavailable
from backhaul_common.feed import PositionReader, StreamMessage
from backhaul_common.lifecycle import cancel
from backhaul_common.logs import get_logger

OWNED_S = 10.0
"""How long a copy that is not heard of keeps the others waiting: longer than a commit may take."""

_RENEW_S, _LOOK_S = 3.0, 1.0


class Progress(Protocol):
    """What a service makes of the messages, and how far it is: stored together."""

    async def position(self) -> int:
        """The position of the last message that is stored; 0 before the first. Waits while another copy is at it."""
        ...

    async def keep(self) -> None:
        """Have the other copies wait in ``position`` until this is cancelled, and let one of them go on then.

        It begins when ``position`` has returned. What is stored must not depend on it: see ``apply``. UNAVAILABLE where
        it was heard that another copy has gone on.
        """
        ...

    async def apply(self, messages: Sequence[StreamMessage]) -> None:
        """Store what ``messages`` bring and the position of the last of them, all or nothing.

        Store it on the condition that the stored position is still what it was, and raise UNAVAILABLE if it is not:
        another copy went on. Everything is then read again from the position that is stored.
        """
        ...

    async def dead_letter(self, message: StreamMessage, error: Exception) -> None:
        """Keep ``message``, which failed with ``error`` too often, for people to look at, and store its position.

        Where this fails, nothing goes on: see ``Follower``.
        """
        ...


R = TypeVar("R")
T = TypeVar("T")


class MongoProgress(ABC, Generic[R]):
    """A ``Progress`` whose results are in MongoDB: each batch is one transaction, which also moves the position.

    One copy owns the position and the others wait. The owner says so with each batch and every three seconds; the next
    takes over when the owner stops, or was not heard of for ``OWNED_S`` by the clock of MongoDB. No clock decides what
    is stored: a batch is, on the condition that the position is where its copy left it, and that copy's.
    """

    def __init__(self, database: mongo.Database, collection: str, stream: str) -> None:
        """The position in ``stream`` is a document of ``collection``."""
        self._database = database
        self._collection = collection
        self._stream = stream
        self._position = 0
        self._owner = uuid4().hex
        # A renewal during a transaction would be a conflict, and the transaction begin anew.
        self._writing = asyncio.Lock()
        self.changed = asyncio.Event()
        """Set at the next change of the results, by this copy or another; a new one is here from then on."""

    @abstractmethod
    def store(self, messages: Sequence[StreamMessage], database: mongo.ThreadDatabase, session: mongo.Session) -> R:
        """Store what ``messages`` bring, in the transaction of ``session``, which is begun anew after a conflict."""

    def stored(self, result: R) -> None:
        """What ``store`` returned is committed: count it. Must not raise."""

    async def position(self) -> int:
        """See ``Progress``. ``changed`` is set while this waits, too: a second after another copy stored something."""
        while (row := await self._take())["owner"] != self._owner:
            if row["position"] != self._position:
                self._moved(row["position"])
            await asyncio.sleep(_LOOK_S)
        self._moved(row["position"])
        return self._position

    async def keep(self) -> None:
        """See ``Progress``."""
        try:
            while True:
                await asyncio.sleep(_RENEW_S)
                if not await self._as_owner({"$currentDate": {"seen_at": True}}):
                    raise unavailable("The position")
        finally:
            await self._as_owner({"$unset": {"owner": ""}})

    async def apply(self, messages: Sequence[StreamMessage]) -> None:
        """See ``Progress``."""
        self.stored(await self._commit(messages[-1].stream_seq, partial(self.store, messages)))

    async def dead_letter(self, message: StreamMessage, error: Exception) -> None:  # noqa: ARG002  # for those that override it
        """See ``Progress``. It is left out: ``Follower`` logs its place, and the stream keeps it for its age."""
        await self._commit(message.stream_seq, lambda _, __: None)

    async def _commit(self, after: int, work: Callable[[mongo.ThreadDatabase, mongo.Session], T]) -> T:
        """Do ``work`` and move the position to ``after``, or leave it where it is if it is further."""

        def transaction(database: mongo.ThreadDatabase, session: mongo.Session) -> T:
            if not database[self._collection].update_one(query, update, session=session).matched_count:
                raise unavailable("The position")
            return work(database, session)

        async with self._writing, mongo.translated():
            # Not before: whoever waited here finds the position where the commit before has left it.
            query = {"_id": self._stream, "position": self._position, "owner": self._owner}
            position = max(after, self._position)
            update = {"$set": {"position": position}, "$currentDate": {"seen_at": True}}
            result = await mongo.in_transaction(self._database, transaction)
            self._moved(position)
        return result

    async def _take(self) -> dict[str, Any]:
        """The document of the position, this copy's now if it was nobody's."""
        past = {"$subtract": ["$$NOW", int(OWNED_S * 1000)]}
        free = {"$or": [{"$in": [{"$ifNull": ["$owner", ""]}, ["", self._owner]]}, {"$lt": ["$seen_at", past]}]}
        update = {
            "position": {"$ifNull": ["$position", 0]},
            "owner": {"$cond": [free, self._owner, "$owner"]},
            "seen_at": {"$cond": [free, "$$NOW", "$seen_at"]},
        }
        async with mongo.operation():
            row: dict[str, Any] = await self._database[self._collection].find_one_and_update(
                {"_id": self._stream}, [{"$set": update}], upsert=True, return_document=True
            )
        return row

    async def _as_owner(self, update: dict[str, Any]) -> bool:
        """Change the position's document. False: another copy owns it."""
        query = {"_id": self._stream, "owner": self._owner}
        with suppress(BackhaulError):  # What MongoDB does not hear of is made up for by time.
            async with self._writing, mongo.operation():
                return bool((await self._database[self._collection].update_one(query, update)).matched_count)
        return True

    def _moved(self, position: int) -> None:
        self._position = position
        self.changed.set()
        self.changed = asyncio.Event()


class Follower:
    """Applies the messages of ``reader`` to ``progress``, in order.

    Where ``Progress.dead_letter`` itself fails, this stands still at that message: the error is raised and logged, and
    all is tried again from the stored position, for as long as it takes. Results by position are exact, so nothing is
    passed over of which no record was kept; somebody has to mend what fails. (``Batches`` goes on then, since the
    broker keeps what it passes over.)
    """

    def __init__(self, reader: PositionReader, progress: Progress) -> None:
        self._reader = reader
        self._progress = progress
        self._log = get_logger(component="follower")

    async def run(self) -> None:
        """Follow until cancelled. Raises what says that a part is away: run it again, as ``keep_running`` does."""
        self._reader.seek(await self._progress.position())
        keeping = asyncio.create_task(self._progress.keep(), name="keep_position")
        try:
            while True:
                await self._apply(await self._reader.next_batch())
        finally:
            await cancel(keeping)

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
