"""A gateway of the tests, which answers what is written here: what the tests of the client over HTTP share."""

from __future__ import annotations

from typing import Any

import httpx
from backhaul_client import Retries

KEY = "bhk_0123456789ab_secret-half"
URL = "https://callbacks.example.com/backhaul/"
Outcome = httpx.Response | Exception


class Gateway:
    """Answers one after the other, and remembers what it was asked."""

    def __init__(self, *outcomes: Outcome) -> None:
        self._outcomes = iter(outcomes)
        self.requests: list[httpx.Request] = []
        self.pauses: list[float] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        outcome = next(self._outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        # A copy, since a response can be read once, and is a parameter of several tests.
        return httpx.Response(outcome.status_code, headers=outcome.headers, content=outcome.content)

    async def answer_later(self, request: httpx.Request) -> httpx.Response:
        return self.answer(request)

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)


EVEN = Retries(tries=3, max_pause_s=10, jitter=lambda: 0.5)


def problem(status: int, code: str, *, retry_after: str = "", **more: Any) -> httpx.Response:
    body = {"type": f"urn:backhaul:problem:{code}", "title": "A title", "status": status, "detail": "Words.", **more}
    headers = {"content-type": "application/problem+json", **({"retry-after": retry_after} if retry_after else {})}
    return httpx.Response(status, json={**body, "code": code, "newer_field": 1}, headers=headers)
