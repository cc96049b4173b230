"""Whole stacks of real processes, and the people and providers that call them."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from backhaul_local.pytest_plugin import START_S

# Test folders are no packages, and several files of this one share the simulators.
sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from backhaul_local.mongod import MongoServer
    from backhaul_local.pytest_plugin import StackFactory
    from backhaul_local.stack import Stack
    from simulators.archive import Archive
    from simulators.callers import InternalService
    from simulators.people import PlatformTeam, Town

StackOnSharedMongo = Callable[..., "AbstractAsyncContextManager[Stack]"]

LOG_LEVEL = "info"
DEAD_TRANSACTION_S = 3

KEPT = (
    "installation", "storing_installation", "pair_of_copies", "two_that_file", "two_that_fold", "one_of_each",
    "extracted", "two_that_ask", "two_that_tell",
)  # fmt: skip
"""Fixtures that make what takes longer than most tests of it, above all whole stacks, once in a process."""


def pytest_configure(config: pytest.Config) -> None:
    """Tests of one kept stack run one after another, and it ends with the last of them."""
    from keeping import Keeping

    config.pluginmanager.register(Keeping(KEPT, start_s=START_S))


@pytest.fixture(scope="session")
def installation(mongo_server: MongoServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One installation for all tests that break nothing in it. They keep apart by registering tenants of their own."""
    from kept_stacks import kept
    from simulators.visits_as import VOUCHED

    with kept(
        tmp_path_factory.mktemp("installation"),
        mongo_uri=mongo_server.uri,
        mongo_database="e2e",
        with_object_store=False,
        service_env={"gateway": VOUCHED},
        log_level=LOG_LEVEL,
    ) as stack:
        yield stack


@pytest.fixture
async def town(installation: Stack) -> AsyncIterator[Town]:
    """The people around the shared installation. Whatever a test makes its services do, they log no credential."""
    from simulators.people import CREDENTIAL, Town

    seen = {service.name: service.log_path.stat().st_size for service in installation.services}
    async with Town(installation.gateway_url, installation.admin_token) as people:
        yield people
    for service in installation.services:
        with service.log_path.open("rb") as log:
            log.seek(seen[service.name])
            text = log.read().decode("utf-8", "replace")
        assert not CREDENTIAL.search(text), f"{service.name} logged a tenant's key or token"
        assert installation.admin_token not in text, f"{service.name} logged the admin token"
        assert installation.credentials.internal_token not in text, (
            f"{service.name} logged what services show each other"
        )


@pytest.fixture(scope="session")
def storing_installation(mongo_server: MongoServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Likewise, with object storage and an audit service that closes files and signs digests at once."""
    from kept_stacks import kept
    from simulators.archive import QUICK

    with kept(
        tmp_path_factory.mktemp("storing"),
        mongo_uri=mongo_server.uri,
        mongo_database="audits",
        service_env={"audit": QUICK},
        log_level=LOG_LEVEL,
    ) as stack:
        yield stack


@pytest.fixture
async def storing_town(storing_installation: Stack) -> AsyncIterator[Town]:
    """The people around it."""
    from simulators.people import Town

    async with Town(storing_installation.gateway_url, storing_installation.admin_token) as people:
        yield people
        # Otherwise their digests, signed every other second, would soon take all that the machine has.
        await people.platform.let_go()


@pytest.fixture
def archive(storing_installation: Stack) -> Archive:
    """Its bucket."""
    from simulators.archive import Archive

    assert storing_installation.object_store is not None
    return Archive(storing_installation.object_store)


@pytest.fixture
def admin_token(installation: Stack) -> str:
    """What the platform team of the shared installation holds."""
    return installation.admin_token


@pytest.fixture
def platform(town: Town) -> PlatformTeam:
    """The platform team of the shared installation."""
    return town.platform


@pytest.fixture
async def crm(installation: Stack, platform: PlatformTeam) -> AsyncIterator[InternalService]:
    """An internal service that may do everything, for every tenant of the shared installation."""
    from simulators.callers import internal_service

    async with internal_service(installation, platform, "*") as service:
        yield service


@pytest.fixture
def own_stack(
    stack_factory: StackFactory, mongo_server: MongoServer, mongo_database: str
) -> Iterator[StackOnSharedMongo]:
    """``async with own_stack(…) as stack``: a stack of the test's own, to be broken, that leaves mongod alone.

    The arguments are those of ``stack_factory``.
    """

    @asynccontextmanager
    async def create(**overrides: Any) -> AsyncIterator[Stack]:
        settings: dict[str, Any] = {
            "mongo_uri": mongo_server.uri,
            "mongo_database": mongo_database,
            "log_level": LOG_LEVEL,
            **overrides,
        }
        async with stack_factory(**settings) as stack:
            yield stack

    # MongoDB keeps the transaction of a client that died, with its locks, for a minute unless told otherwise; whoever
    # takes the work over waits for it. An installation should set this too, a little above its longest commit.
    # Restored afterwards: the other tests' commits may take their time.
    with mongo_server.transactions_live(DEAD_TRANSACTION_S):
        yield create
