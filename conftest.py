"""What holds for every test of the repository."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

pytest_plugins = ["backhaul_local.pytest_plugin"]


def pytest_configure() -> None:
    """Before anything is collected."""
    # Everything that tests call is on this machine, where a web proxy is no way to.
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    # How long an example takes, or is being made, says how busy the machine is, and nothing of what is tested.
    settings.register_profile("backhaul", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("backhaul")


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """A service that a test runs in its own process sets up logging, which must not reach the tests after it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
