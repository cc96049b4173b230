"""Who takes part in the demo, and how its steps ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import httpx
from backhaul_client import AsyncTenantClient, NotFoundError, ProblemError
from backhaul_client.adminmodels import NewTenant
from backhaul_testing.sendgrid import OAuthClient, SendGridSimulator
from backhaul_testing.twilio import TwilioSimulator
from backhaul_testing.wire import Connection

from backhaul_local.demo_script import BURST_CONNECTIONS
from backhaul_local.errors import LocalStackError

T = TypeVar("T")

_DEADLINE_S = 15.0
_ANSWER_TIMEOUT_S = 30.0
# States appear by themselves and send no event to who waits for them: they are asked for, this many seconds apart.
_POLL_INTERVAL_S = 0.005


@dataclass(frozen=True, kw_only=True)
class Account:
    """A tenant with its client, and the providers that it has contracts with."""

    tenant: NewTenant
    client: AsyncTenantClient
    twilio: TwilioSimulator
    sendgrid: SendGridSimulator
    oauth: OAuthClient
    """What SendGrid fetches access tokens by."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """Something that must be refused: the status and code that are due, those of the answer, and its reason."""

    what: str
    due: str
    got: str
    why: str


class DemoError(LocalStackError):
    """The demo cannot go on."""


async def if_there(asking: Awaitable[T]) -> T | None:
    """The answer; None while nothing is there."""
    try:
        return await asking
    except NotFoundError:
        return None


async def refused(what: str, due: str, asking: Awaitable[object]) -> Attempt:
    """An attempt by a call of the API."""
    try:
        await asking
    except ProblemError as problem:
        return Attempt(what=what, due=due, got=f"{problem.status} {problem.code}", why=problem.detail)
    return Attempt(what=what, due=due, got="was let in", why="")


async def poll(ask: Callable[[], Awaitable[T]], until: Callable[[T], bool]) -> T:
    """Ask until the answer is as wanted, or the time is over; returns the last answer, right or wrong."""
    deadline = time.monotonic() + _DEADLINE_S
    while True:
        answer = await ask()
        if until(answer) or time.monotonic() >= deadline:
            return answer
        await asyncio.sleep(_POLL_INTERVAL_S)


async def burst(base_url: str, requests: Sequence[bytes]) -> list[tuple[int, float]]:
    """Status and seconds of each. An HTTP client would take more of the machine than the gateway does."""
    url = httpx.URL(base_url)
    answers: list[tuple[int, float]] = []
    left = iter(requests)  # All connections take from it, so that a slow one holds no requests back.

    async def one() -> None:
        connection = await Connection.open(url.host, url.port or 80)
        try:
            for request in left:
                began = time.perf_counter()
                answer = await connection.ask(request)
                answers.append((answer.status, time.perf_counter() - began))
        finally:
            connection.close()

    workers = [asyncio.create_task(one()) for _ in range(BURST_CONNECTIONS)]
    try:
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            await asyncio.gather(*workers)
    except (OSError, EOFError) as cut:
        raise DemoError(f"The gateway answered {len(answers)} of {len(requests)} callbacks: {cut!r}") from cut
    finally:
        for worker in workers:
            worker.cancel()
    return answers
