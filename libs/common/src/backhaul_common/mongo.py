"""MongoDB, through motor. The only module that imports motor: docs/decisions/0009 says what its successor changes."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias, TypeVar

import pymongo
import pymongo.client_session
import pymongo.cursor
import pymongo.database
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

from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, unavailable

Client: TypeAlias = AsyncIOMotorClient[Document]
Database: TypeAlias = AsyncIOMotorDatabase[Document]
Collection: TypeAlias = AsyncIOMotorCollection[Document]
ThreadDatabase: TypeAlias = pymongo.database.Database[Document]
"""A database for code that runs in a thread of its own."""

ThreadCursor: TypeAlias = pymongo.cursor.Cursor[Document]

Moment: TypeAlias = AsyncIOMotorClientSession
"""A session in which all is read as it was when the first of it was."""

Session: TypeAlias = pymongo.client_session.ClientSession

T = TypeVar("T")

STATEMENTS_S, COMMIT_S = 6.0, 8.0
"""How long the statements of a transaction may take, and the whole of it, tries after conflicts included.

What lies between is for the commit, or for telling the server to abort, over another connection if need be: it would
keep the transaction's locks until its own patience is over."""

OPERATION_S = 8.0
"""How long any other operation may take that somebody waits for."""

PATIENT_S = 3600.0
"""How long work on all documents of a collection may take."""

PING_S = 2.0

_UNAUTHORIZED = 13
_TRANSIENT_CODES = frozenset({
    6, 7, 89, 91, 134, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436,  # the node is away, stepping down or starting
    43,  # a cursor that its node no longer has, after a restart
    175, 237, 11601,  # somebody or something on the server ended the operation: whoever asks again has another one
    239, 246, 365,  # a snapshot is gone or not there yet, or the cache is full
    290,  # a transaction lived for longer than the server lets one live, which says so without a label
    _UNAUTHORIZED, 18,  # credentials are being rotated: waiting is right, dropping a batch is not
    14031,  # the disk is full
})  # fmt: skip


_TRANSIENT_LABELS = ("TransientTransactionError", "UnknownTransactionCommitResult", "RetryableWriteError")


def connect(uri: str, *, timeout_ms: int = 5000, silence_ms: int = 10_000, tls: ssl.SSLContext | None = None) -> Client:
    """A client that finds its servers when first used. Writes wait for the majority, and are retried once.

    It looks for a server for ``timeout_ms``; what has no bound of its own is given up after ``silence_ms`` without a
    word, which is longer than the longest read may take on the server. With ``tls`` nothing is said without it.
    """
    encrypted: dict[str, Any] = {} if tls is None else {"tls": True}
    client: Client = AsyncIOMotorClient(
        uri,
        serverSelectionTimeoutMS=timeout_ms,
        connectTimeoutMS=timeout_ms,
        socketTimeoutMS=silence_ms,
        retryWrites=True,
        retryReads=True,
        appname="backhaul",
        tz_aware=True,
        **encrypted,
    )
    if tls is not None:
        # The driver takes files, once, and wants certificate and key in one of them. It has connected to nothing yet;
        # its name for the context is private: the lock file pins it, and the tests connect by it.
        client.delegate.options.pool_options._PoolOptions__ssl_context = tls
    return client


async def close(client: Client) -> None:
    """Close ``client``, which tells the server that its sessions are over, as far as that is there to hear it.

    The driver waits for the answer. Meanwhile the event loop has other things to end.
    """
    with pymongo.timeout(PING_S):
        await asyncio.to_thread(client.close)


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


async def make_indexes(database: Database, indexes: Mapping[str, Sequence[pymongo.IndexModel]]) -> None:
    """Make collections with their ``indexes``, by collection, where they are missing. UNAVAILABLE."""
    async with operation(PATIENT_S):
        for name, models in indexes.items():
            await database[name].create_indexes(models)


@asynccontextmanager
async def translated(what: str = "MongoDB") -> AsyncIterator[None]:
    """Turns "the database is away" into UNAVAILABLE; lets every other error through."""
    try:
        yield
    except PyMongoError as exc:
        if is_transient(exc):
            raise unavailable(what) from exc
        raise


@asynccontextmanager
async def operation(within_s: float | None = None) -> AsyncIterator[None]:
    """``translated``, and bounded: what is done inside ends after ``within_s`` (None: OPERATION_S), on the server too.

    A connection that went silent would otherwise hold it, and one of motor's few threads, for much longer.
    """
    async with translated():
        with pymongo.timeout(OPERATION_S if within_s is None else within_s):
            yield


@asynccontextmanager
async def at_one_moment(database: Database) -> AsyncIterator[Moment]:
    """Gives a session for reads that belong together. It is good for some minutes."""
    async with await database.client.start_session(snapshot=True) as moment:
        yield moment


async def read_at_one_moment(database: Database, work: Callable[[ThreadDatabase, Session], T], within_s: float) -> T:
    """Run ``work``, which only reads, in a thread as ``in_transaction`` does: it sees all as it was at one moment, what
    was acknowledged before included. It may ask for ``within_s``; cancelled, it goes on until then."""
    plain: ThreadDatabase = database.delegate

    def run() -> T:
        with pymongo.timeout(within_s), plain.client.start_session(snapshot=True) as session:
            return work(plain, session)

    return await asyncio.to_thread(run)


def is_transient(exc: BaseException) -> bool:
    """Whether the same operation may succeed later without any change to it."""
    if isinstance(exc, BackhaulError):
        return exc.meaning.retryable
    if isinstance(exc, (AutoReconnect, ConnectionFailure, NetworkTimeout, ExecutionTimeout, WTimeoutError)):
        return True
    if isinstance(exc, PyMongoError) and exc.timeout:
        return True
    if isinstance(exc, PyMongoError) and any(exc.has_error_label(label) for label in _TRANSIENT_LABELS):
        return True
    return isinstance(exc, OperationFailure) and exc.code in _TRANSIENT_CODES


async def in_transaction(
    database: Database, work: Callable[[ThreadDatabase, Session], T], *, within_s: float | None = None
) -> T:
    """Run ``work`` in a transaction; on a conflict with another writer it runs again from its start.

    All of it takes ``within_s`` at most (None: ``COMMIT_S``), also over a connection that went silent; what is raised
    then is transient. It runs in a thread, all in one go, with the driver that motor is made of: motor would go to a
    thread and back for each of its calls, which costs a batch more than what it says to the server. Cancelled, it comes
    to its end first.
    """
    plain: ThreadDatabase = database.delegate

    def run() -> T:
        whole_s = COMMIT_S if within_s is None else within_s
        ends = time.monotonic() + whole_s * STATEMENTS_S / COMMIT_S

        def statements(session: Session) -> T:
            left_s = ends - time.monotonic()
            if left_s <= 0:
                raise ExecutionTimeout("the transaction's time is up", 50)
            with pymongo.timeout(left_s):
                return work(plain, session)

        with pymongo.timeout(whole_s), plain.client.start_session() as session:
            return session.with_transaction(
                statements,
                read_concern=ReadConcern("snapshot"),
                write_concern=WriteConcern("majority"),
                # A transaction takes the client's otherwise, which the connection string may have set.
                read_preference=pymongo.ReadPreference.PRIMARY,
            )

    running = asyncio.ensure_future(asyncio.to_thread(run))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        # Left to itself it might find its client closed, and its locks would stay until MongoDB's patience is over.
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({running})
        if not running.cancelled():
            running.exception()  # Whoever cancelled does not want to know; unasked, asyncio would complain.
        raise


async def transaction_lifetime_s(client: Client, otherwise_s: float) -> float:
    """The primary's transactionLifetimeLimitSeconds; ``otherwise_s`` where it may not be asked, or is not one's own.

    UNAVAILABLE when MongoDB is away.
    """
    name = "transactionLifetimeLimitSeconds"
    async with operation():
        try:
            answer = await client.admin.command({"getParameter": 1, name: 1})
        except OperationFailure as exc:
            if exc.code != _UNAUTHORIZED and is_transient(exc):
                raise
            # No privilege for it, a router (mongos), or an installation that hides its parameters.
            return otherwise_s
    return float(answer[name])


async def ping(client: Client) -> None:
    """Returns when the primary answers; UNAVAILABLE otherwise."""
    async with operation(PING_S):
        await client.admin.command("ping")
