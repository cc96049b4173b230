"""MongoDB, through motor. The only module that imports motor, so that its successor is one file's change."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, TypeVar

import pymongo
from bson.codec_options import CodecOptions
from motor.motor_asyncio import (
    AsyncIOMotorClient,
    AsyncIOMotorClientSession,
    AsyncIOMotorCollection,
    AsyncIOMotorDatabase,
)
from pymongo.errors import (
    AutoReconnect,
    ConnectionFailure,
    ExecutionTimeout,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    WTimeoutError,
)
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from backhaul_common.errors import BackhaulError, unavailable

Document: TypeAlias = dict[str, Any]
Client: TypeAlias = AsyncIOMotorClient[Document]
Database: TypeAlias = AsyncIOMotorDatabase[Document]
Collection: TypeAlias = AsyncIOMotorCollection[Document]
Session: TypeAlias = AsyncIOMotorClientSession

T = TypeVar("T")

_TRANSIENT_CODES = frozenset({
    6, 7, 89, 91, 134, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436,  # the node is away, stepping down or starting
    43,  # a cursor that its node no longer has, after a restart
    13, 18,  # credentials are being rotated: waiting is right, dropping a batch is not
})  # fmt: skip


_TRANSIENT_LABELS = ("TransientTransactionError", "UnknownTransactionCommitResult", "RetryableWriteError")


def connect(uri: str, *, timeout_ms: int = 5000) -> Client:
    """A client that finds its servers when first used. Writes wait for the majority, and are retried once."""
    return AsyncIOMotorClient(
        uri,
        serverSelectionTimeoutMS=timeout_ms,
        connectTimeoutMS=timeout_ms,
        socketTimeoutMS=60_000,
        retryWrites=True,
        retryReads=True,
        appname="backhaul",
        tz_aware=True,
    )


def database(client: Client, name: str) -> Database:
    """A database whose writes wait for the majority and whose reads see only what the majority has.

    A write that one node acknowledged can be lost when that node dies; the majority's cannot.
    """
    return client.get_database(
        name,
        codec_options=CodecOptions(tz_aware=True),
        write_concern=WriteConcern("majority", wtimeout=30_000),
        read_concern=ReadConcern("majority"),
        read_preference=pymongo.ReadPreference.PRIMARY,
    )


@asynccontextmanager
async def translated(what: str = "MongoDB") -> AsyncIterator[None]:
    """Turns "the database is away" into UNAVAILABLE; lets every other error through."""
    try:
        yield
    except PyMongoError as exc:
        if is_transient(exc):
            raise unavailable(what) from exc
        raise


def is_transient(exc: BaseException) -> bool:
    """Whether the same operation may succeed later without any change to it."""
    if isinstance(exc, BackhaulError):
        return exc.meaning.retryable
    if isinstance(exc, (AutoReconnect, ConnectionFailure, NetworkTimeout, ExecutionTimeout, WTimeoutError)):
        return True
    if isinstance(exc, PyMongoError) and any(exc.has_error_label(label) for label in _TRANSIENT_LABELS):
        return True
    return isinstance(exc, OperationFailure) and exc.code in _TRANSIENT_CODES


async def in_transaction(client: Client, work: Callable[[Session], Coroutine[Any, Any, T]]) -> T:
    """Run ``work`` in a transaction; on a conflict with another writer it runs again from its start."""
    async with await client.start_session() as session:
        result: T = await session.with_transaction(
            work,
            read_concern=ReadConcern("snapshot"),
            write_concern=WriteConcern("majority"),
            max_commit_time_ms=20_000,
        )
        return result


async def ping(client: Client) -> None:
    """Returns when the primary answers; UNAVAILABLE otherwise."""
    async with translated():
        await client.admin.command("ping")
