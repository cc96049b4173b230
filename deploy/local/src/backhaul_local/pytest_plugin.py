"""Fixtures with real servers. Nothing is started before a test asks for it, and nothing is left behind.

The servers are driven with blocking calls: a session's server outlives the event loop of every single test.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from backhaul_local.member import start_timeout_s
from backhaul_local.scratch import scratch

if TYPE_CHECKING:
    # At run time each is imported by the fixture that needs it: test runs without servers start faster.
    from pymongo import MongoClient

    from backhaul_local.member import Member
    from backhaul_local.mongod import MongoServer
    from backhaul_local.nats_server import NatsServer
    from backhaul_local.object_store import ObjectStoreServer
    from backhaul_local.stack import Stack

M = TypeVar("M", bound="Member")


START_S = start_timeout_s(os.environ, default=300.0)
"""Test runs keep a machine busier than anything else does."""

SERVERS = {"server_data_dir", "fresh_nats", "stack_factory"}
"""Fixtures that every server of a test comes from."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that ask for a server, through whichever fixtures."""
    for item in items:
        if SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker("servers")


@pytest.fixture(scope="session")
def server_data_dir() -> Iterator[Path]:
    """Where the servers of this session keep their data; removed at its end, unlike pytest's own folders."""
    with scratch() as folder:
        yield folder


@pytest.fixture(scope="session")
def mongo_server(server_data_dir: Path) -> Iterator[MongoServer]:
    """One mongod (a replica set of one node) for the whole session; see `mongo_database` for isolation."""
    from backhaul_local.mongod import MongoConfig, MongoServer

    # Lists are read as of a moment of some seconds ago. Every test drops a database at its end.
    yield from _run(MongoServer(MongoConfig(data_dir=server_data_dir / "mongo", history_s=20, journal_ms=10)))


@pytest.fixture(scope="session")
def nats_server(server_data_dir: Path) -> Iterator[NatsServer]:
    """One nats-server for the whole session. Stream names are global in it: use `fresh_nats` where they would clash."""
    from backhaul_local.nats_server import NatsConfig, NatsServer

    yield from _run(NatsServer(NatsConfig(data_dir=server_data_dir / "nats", sync_always=False)))


@pytest.fixture(scope="session")
def s3_server(server_data_dir: Path) -> Iterator[ObjectStoreServer]:
    """One S3 server for the whole session, with the bucket of its `config`."""
    from backhaul_local.object_store import ObjectStoreConfig, ObjectStoreServer

    yield from _run(ObjectStoreServer(ObjectStoreConfig(data_dir=server_data_dir / "s3")))


@pytest.fixture(scope="session")
def mongo_client(mongo_server: MongoServer) -> Iterator[MongoClient[dict[str, Any]]]:
    """For what a test reads or writes beside what it tests: to find a server takes a client longer than to ask it."""
    from pymongo import MongoClient

    client: MongoClient[dict[str, Any]] = MongoClient(mongo_server.uri)
    with client:
        yield client


@pytest.fixture
def mongo_database(mongo_server: MongoServer, mongo_client: MongoClient[dict[str, Any]]) -> Iterator[str]:
    """The name of a database that no other test uses; dropped afterwards."""
    name = f"test_{secrets.token_hex(8)}"
    _require_running(mongo_server)
    yield name
    _require_running(mongo_server)
    mongo_client.drop_database(name)


@pytest.fixture
def quick_deletions(mongo_server: MongoServer) -> Iterator[None]:
    """Deleting a tenant takes some 3 seconds, since transactions on the session's mongod live for one."""
    with mongo_server.transactions_live(1):
        yield


@pytest.fixture
def fresh_nats() -> Iterator[NatsServer]:
    """A nats-server of this test's own, empty; it starts in some ten milliseconds, and may be killed and restarted."""
    from backhaul_local.nats_server import NatsConfig, NatsServer

    with scratch() as folder:
        yield from _run(NatsServer(NatsConfig(data_dir=folder, sync_always=False)))


@pytest.fixture
def nats_url(fresh_nats: NatsServer) -> str:
    """The URL of a nats-server of this test's own."""
    return fresh_nats.uri


StackFactory = Callable[..., AbstractAsyncContextManager["Stack"]]


@pytest.fixture
def stack_factory(tmp_path: Path) -> StackFactory:
    """Whole stacks: ``async with stack_factory(service_env={"gateway": {...}}) as stack``.

    The keyword arguments are those of `StackConfig`. Object storage is left out unless `with_object_store=True`.
    ``start=False`` gives a stack of which nothing runs yet, for tests of the order of starting. Data goes to a folder
    that is removed; the logs go to pytest's `tmp_path`, which is kept for a look at a failed test.
    """

    @asynccontextmanager
    async def create(*, start: bool = True, **overrides: Any) -> AsyncIterator[Stack]:
        from backhaul_local.stack import Stack, StackConfig

        with scratch() as folder:
            settings: dict[str, Any] = {
                "data_dir": folder,
                "log_dir": tmp_path / f"logs-{secrets.token_hex(2)}",
                "with_object_store": False,
                "start_timeout": START_S,
                **overrides,
            }
            stack = Stack(StackConfig(**settings))
            try:
                if start:
                    await stack.start()
                yield stack
            finally:
                await stack.stop()

    return create


def _require_running(server: Member) -> None:
    """Start a session's server again that has ended, and raise `EndedError`, which says of what.

    One test fails for it that way, with the reason, and not each that is still to come.
    """
    if server.running:
        return
    ended = server.ended()
    server.launch()
    server.wait_ready_blocking(START_S)
    raise ended


def _run(server: M) -> Iterator[M]:
    server.launch()
    try:
        server.wait_ready_blocking(START_S)
        yield server
    finally:
        # Its data is about to be removed, so there is nothing that an orderly end would save.
        server.kill_blocking()
