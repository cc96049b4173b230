"""The outbox: what is to be published because a transaction made it true.

A row is written in that transaction, so there is one if and only if the transaction committed. It is published
afterwards, and deleted when JetStream has it. Where a process dies in between, a sweep of any copy publishes it: at
least once, and always under the same ``Nats-Msg-Id``, by which JetStream drops a repetition while it remembers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pymongo import ASCENDING, IndexModel, UpdateOne

from backhaul_common.documents import Document
from backhaul_common.jetstream import Publisher, headers_of
from backhaul_common.logs import get_logger
from backhaul_common.mongo import Database, Session, ThreadDatabase, operation
from backhaul_common.outages import is_outage

SWEEP_S = 5.0
"""How often every copy looks for rows that nobody has published."""

MAX_PAYLOAD_BYTES = 64 << 10
"""Bytes of one entry. A page of them stays below what MongoDB and NATS take at once."""

_PAGE = 100
_TIMEOUT_S = 5.0

_ASKED_FOR_S = 1.0
"""How long MongoDB's answer is believed. Whoever marks a tenant waits longer before the tenant's notices are purged."""

INDEXES = [
    IndexModel([("at_us", ASCENDING), ("_id", ASCENDING)]),
    IndexModel([("registration", ASCENDING)]),
]
"""What a collection needs that is an outbox."""

Owners = Callable[[Collection[str]], Awaitable[Mapping[str, str]]]
"""The registrations that have these queue paths now, by path. UNAVAILABLE."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A message to be published to ``stream``, of a tenant's ``registration`` that has the queue path ``path``.

    ``id`` is the message's id on the stream, and the same whenever the same is written again. ``at_us`` is when it
    became true, in unix time: entries that wait together are published in that order.
    """

    id: str
    registration: str
    path: str
    stream: str
    subject: str
    payload: bytes
    at_us: int
    traceparent: str = ""

    def __post_init__(self) -> None:
        if len(self.payload) > MAX_PAYLOAD_BYTES:
            raise ValueError(f"An entry of the outbox has at most {MAX_PAYLOAD_BYTES} bytes, not {len(self.payload)}.")


def write(database: ThreadDatabase, session: Session, collection: str, entries: Sequence[Entry]) -> None:
    """Write ``entries`` in the transaction of ``session``. One that is there already stays as it is.

    The transaction must have proved that the registrations live: see ``fence.living``.
    """
    rows = [
        (
            entry.id,
            {
                "registration": entry.registration,
                "path": entry.path,
                "stream": entry.stream,
                "subject": entry.subject,
                "payload": entry.payload,
                "at_us": entry.at_us,
                "traceparent": entry.traceparent,
            },
        )
        for entry in entries
    ]
    if rows:
        # In one command: a transaction may have hundreds.
        database[collection].bulk_write(
            [UpdateOne({"_id": key}, {"$setOnInsert": row}, upsert=True) for key, row in rows],
            ordered=False,
            session=session,
        )


class Outbox:
    """Publishes what one service writes into its ``collection``. Several copies may: JetStream drops repetitions.

    Of a registration that is gone nothing is published. No stream has a fence, and this process may sleep at any
    moment: so that is asked before the first row, and again before any row that comes a second after the answer.
    """

    def __init__(
        self,
        database: Database,
        collection: str,
        publisher: Publisher,
        owners: Owners,
        *,
        sweep_s: float = SWEEP_S,
    ) -> None:
        self._rows = database[collection]
        self._publisher = publisher
        self._owners = owners
        self._sweep_s = sweep_s
        self._written = asyncio.Event()
        self._log = get_logger(component="outbox")

    def written(self) -> None:
        """To be called after a commit that may have written rows: they are published at once."""
        self._written.set()

    async def run(self) -> None:
        """Publish what is written, and sweep, until cancelled. UNAVAILABLE when MongoDB or JetStream is away."""
        while True:
            self._written.clear()
            while await self.publish_some():
                pass
            with suppress(TimeoutError):
                async with asyncio.timeout(self._sweep_s):
                    await self._written.wait()

    async def publish_some(self) -> bool:
        """Publish the oldest rows, as many as make a page; whether there may be more. UNAVAILABLE as ``run``."""
        async with operation():
            rows = await self._rows.find({}).sort([("at_us", 1), ("_id", 1)]).limit(_PAGE).to_list(None)
        if not rows:
            return False
        await self._publish(rows)
        async with operation():
            await self._rows.delete_many({"_id": {"$in": [row["_id"] for row in rows]}})
        return len(rows) == _PAGE

    async def _publish(self, rows: Sequence[Document]) -> None:
        now = asyncio.get_running_loop().time
        paths = {row["path"] for row in rows}
        asked_at, owners = now(), await self._owners(paths)
        try:
            async with self._publisher.together(_TIMEOUT_S) as send:
                for row in rows:
                    if now() - asked_at > _ASKED_FOR_S:
                        asked_at, owners = now(), await self._owners(paths)
                    if owners.get(row["path"]) == row["registration"]:
                        headers = headers_of(row["stream"], row["_id"], row["traceparent"])
                        await send([(row["subject"], row["payload"], headers)])
        except Exception as exc:
            if is_outage(exc):
                raise
            if len(rows) > 1:
                for row in rows:
                    await self._publish([row])
            else:
                # JetStream will never take it, and the others must not wait for it.
                self._log.error("not_published", message_id=rows[0]["_id"], subject=rows[0]["subject"], exc_info=exc)
