"""Copies that answer from memory, in this process and in others, and a writer, on real servers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from backhaul_common import mongo
from backhaul_common.lifecycle import cancel, keep_running
from backhaul_common.metering import Metrics
from backhaul_common.names import (
    SUPPRESSION_CHANGES_COLLECTION,
    SUPPRESSION_COUNTERS_COLLECTION,
    SUPPRESSIONS_COLLECTION,
)
from backhaul_suppression.lease import clock
from backhaul_suppression.memory import Memory
from backhaul_suppression.model import EVERYTHING, Address, Family, Kind, RowKey
from nats.aio.client import Client
from pymongo import ReplaceOne

REGISTRATION = "acme.0123456789abcdef"
SUPPRESSED, ALLOWED, UNAVAILABLE = ANSWERS = ("suppressed", "allowed", "unavailable")


def number(last: int) -> Address:
    """An address."""
    return Address(REGISTRATION, Family.PHONE, f"+1415{last:07}")


async def commit(database: mongo.Database, addresses: Sequence[Address], *, active: bool = True) -> int:
    """Change the row STOP of each of ``addresses`` in one transaction. The number of the last change."""

    def work(database: mongo.ThreadDatabase, session: mongo.Session) -> int:
        counters = database[SUPPRESSION_COUNTERS_COLLECTION]
        counter = counters.find_one_and_update(
            {"_id": "all"}, {"$inc": {"seq": len(addresses)}}, upsert=True, return_document=True, session=session
        )
        assert counter is not None
        last = int(counter["seq"])
        rows, changes = [], []
        for seq, address in enumerate(addresses, last - len(addresses) + 1):
            who = {"registration": address.registration, "family": address.family.value, "address": address.text}
            row = {"kind": "stop", "scope_kind": "all", "scope": "", "active": active, "since_us": seq}
            row_id = RowKey(address, Kind.STOP, EVERYTHING).id
            rows.append(ReplaceOne({"_id": row_id}, {**who, **row}, upsert=True))
            changes.append({"_id": seq, "position": seq, **who, "row": row})
        database[SUPPRESSIONS_COLLECTION].bulk_write(rows, session=session)
        database[SUPPRESSION_CHANGES_COLLECTION].insert_many(changes, session=session)
        return last

    return await mongo.in_transaction(database, work)


def shown(metrics: Metrics, name: str) -> float:
    """The present value of what has no labels of ours."""
    (line,) = (line for line in metrics.render().decode().splitlines() if line.startswith((name + "{", name + " ")))
    return float(line.rpartition(" ")[2])


@asynccontextmanager
async def copy(database: mongo.Database, nats: Client, metrics: Metrics | None = None) -> AsyncIterator[Memory]:
    """A copy that goes on until this is left, and says then that it is gone."""
    memory = Memory(database, nats, clock(), metrics or Metrics("suppression"))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(memory.barrier.close)
        if nats.is_connected:
            await memory.signals.subscribe()
        for work in (memory.signals.run, memory.follower.run, memory.renewing.run):
            stack.push_async_callback(cancel, asyncio.create_task(keep_running(work.__qualname__, work)))
        yield memory


class OtherCopy:
    """A copy in a process of its own (``memory_program.py``)."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def ask(self, address: Address) -> str:
        """``suppressed``, ``allowed`` or ``unavailable``."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{address.text}\n".encode())
        await self.process.stdin.drain()
        while (line := (await self.process.stdout.readline()).decode().strip()) not in ANSWERS:
            assert line, "the process has ended"  # Otherwise it is a line of its log.
        return line


@asynccontextmanager
async def other_copy(mongo_uri: str, database: str, nats_url: str) -> AsyncIterator[OtherCopy]:
    """A copy in another process, which is killed at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).parent / "memory_program.py"),
        mongo_uri,
        database,
        nats_url,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield OtherCopy(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
