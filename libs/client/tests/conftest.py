"""What the client's test files share."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from backhaul_client.suppression import SuppressionClient

# Test folders are no packages: what several test files of this one share is found by its name.
sys.path.insert(0, str(Path(__file__).parent))

from stand_in import STOPPED, TOKEN, StandIn, serving  # found by the line above


@pytest.fixture
async def service() -> StandIn:
    """A service for which one person of acme's is suppressed."""
    service = StandIn()
    service.suppressed.add(("acme", STOPPED))
    return service


@pytest.fixture
async def port(service: StandIn) -> AsyncIterator[int]:
    """Where it listens."""
    async with serving(service) as port:
        yield port


@pytest.fixture
async def client(port: int) -> AsyncIterator[SuppressionClient]:
    """A client of it."""
    # A busy machine may take longer than checks have by themselves.
    async with SuppressionClient(f"127.0.0.1:{port}", token=TOKEN, check_timeout_s=10.0) as client:
        yield client
