"""What the client's test files share."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import httpx
import pytest
from backhaul_client import AsyncTenantClient, Rows, TenantClient
from backhaul_client.suppression import SuppressionClient

# Test folders are no packages: what several test files of this one share is found by its name.
sys.path.insert(0, str(Path(__file__).parent))

from http_rig import EVEN, KEY, URL, Gateway  # found by the line above
from stand_in import STOPPED, TOKEN, StandIn, serving  # as above


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


@pytest.fixture(params=["blocking", "asynchronous"])
def tenant_call(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """``tenant_call(gateway, name, *args)``: the outcome of a call of either client; the rows where it has rows."""

    def blocking(gateway: Gateway, name: str, /, *args: Any, **kwargs: Any) -> Any:
        with httpx.Client(transport=httpx.MockTransport(gateway.answer)) as http:
            client = TenantClient(URL, KEY, http=http, retries=EVEN, sleep=gateway.pauses.append)
            found = attrgetter(name)(client)(*args, **kwargs)
            return list(found) if isinstance(found, Rows | Iterator) else found

    async def asynchronous(gateway: Gateway, name: str, /, *args: Any, **kwargs: Any) -> Any:
        async with httpx.AsyncClient(transport=httpx.MockTransport(gateway.answer_later)) as http:
            client = AsyncTenantClient(URL, KEY, http=http, retries=EVEN, sleep=gateway.pause)
            found = attrgetter(name)(client)(*args, **kwargs)
            return [row async for row in found] if isinstance(found, AsyncIterable) else await found

    if request.param == "blocking":
        return blocking
    return lambda *args, **kwargs: asyncio.run(asynchronous(*args, **kwargs))
