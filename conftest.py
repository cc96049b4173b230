"""What holds for every test of the repository."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import nats.errors
import pytest
import structlog
from backhaul_common import mongo
from backhaul_common.directory import TenantDirectory
from backhaul_local.nats_server import NatsServer
from hypothesis import HealthCheck, settings
from nats.aio.client import Client as NatsClient

pytest_plugins = ["backhaul_local.pytest_plugin"]


def pytest_configure(config: pytest.Config) -> None:
    """Before anything is collected."""
    _require_own_names(config.rootpath)
    # Everything that tests call is on this machine, where a web proxy is no way to.
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    # How long an example takes, or is being made, says how busy the machine is, and nothing of what is tested.
    usual = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    # The same examples each time: a change is judged by what it changes, and not by what was never looked at before.
    settings.register_profile("backhaul", usual, derandomize=True)
    # Of `make test-pythons`, by --hypothesis-profile: a few of these, on each Python.
    settings.register_profile("few", usual, max_examples=20, derandomize=True)
    # Of `make check`: a few, others each time.
    settings.register_profile("check", usual, max_examples=20)
    # For whoever looks for what is rare, and has an hour.
    settings.register_profile("deep", usual, max_examples=1000)
    # For properties whose failures are rare among the examples. They take longer than other tests may.
    chosen = config.getoption("--hypothesis-profile")
    thorough = {"few": 20, "check": 20, "deep": 5000}.get(chosen, 250)
    settings.register_profile("thorough", usual, max_examples=thorough, derandomize=chosen in (None, "few"))
    settings.load_profile("backhaul")


def _require_own_names(root: Path) -> None:
    """Every folder of tests is on the one path of modules: of two helpers of one name, a test would get either."""
    folders = (folder for part in ("libs", "services", "deploy", "tests") for folder in (root / part).rglob("tests"))
    names = Counter(
        path.name for path in {file for folder in (root / "tests", *folders) for file in folder.rglob("*.py")}
    )
    twice = [
        name for name, count in names.items() if count > 1 and not name.startswith(("test_", "conftest.", "__init__."))
    ]
    if twice:
        raise pytest.UsageError(
            f"Helpers of tests need names of their own: there are several {', '.join(sorted(twice))}."
        )


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """A service that a test runs in its own process sets up logging, which must not reach the tests after it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    # structlog's own way draws frames around every traceback, which takes longer than many a test.
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], plain])
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def patient_mongo(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that write themselves, and not through a service, which would try again on a busy machine."""
    for name in ("OPERATION_S", "STATEMENTS_S", "COMMIT_S"):
        monkeypatch.setattr(mongo, name, 60.0)


@dataclass
class FirstFollow:
    """What came of a service's first try to follow the tenants' changes, which fails."""

    clients: list[NatsClient] = field(default_factory=list)
    """Those over which it was tried."""
    failed: asyncio.Event = field(default_factory=asyncio.Event)


@pytest.fixture
def nats_fails_once_connected(fresh_nats: NatsServer, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], FirstFollow]:
    """``nats_fails_once_connected(dies)``: the server hangs when it was connected to first, or dies and comes back."""

    def prepare(dies: bool) -> FirstFollow:
        flush, follow = NatsClient.flush, TenantDirectory.follow
        first = FirstFollow()

        async def impatient(client: NatsClient, timeout: int = 10) -> None:  # noqa: ARG001, ASYNC109  # nats-py's signature
            await flush(client, timeout=0.3)  # type: ignore[arg-type]  # fractions work and are only not declared

        async def restart() -> None:
            await fresh_nats.kill()
            await fresh_nats.start()

        async def into_a_failure(directory: TenantDirectory, client: NatsClient) -> None:
            if client in first.clients:
                await follow(directory, client)
                return
            first.clients.append(client)
            fresh_nats.pause()
            with suppress(nats.errors.TimeoutError):  # The process takes its time to stop.
                while True:
                    await client.flush()
            restarting = asyncio.create_task(restart()) if dies else None
            try:
                await follow(directory, client)
            finally:
                if restarting is None:
                    fresh_nats.resume()
                else:
                    await restarting
                first.failed.set()

        monkeypatch.setattr(NatsClient, "flush", impatient)
        monkeypatch.setattr(TenantDirectory, "follow", into_a_failure)
        return first

    return prepare
