"""A tenant's own application, as far as being told needs it: it keeps what comes, and answers as it is asked to."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections import defaultdict, deque
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Self

from backhaul_testing.endpoints import LOOPBACK, Call, Endpoint, endpoint


@dataclass(frozen=True, slots=True)
class Received:
    """A call and the status that it was answered. Names of headers are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    status: int

    def is_signed_by(self, secret: str) -> bool:
        """Whether a signature of the kind v1 is that of ``secret`` (``whsec_…``), as Standard Webhooks say."""
        signed = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + self.body
        key = base64.b64decode(secret.removeprefix("whsec_"))
        due = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
        return any(hmac.compare_digest(due, one) for one in self.headers["webhook-signature"].split())


class Receiver:
    """``async with Receiver() as receiver``: listens on ``host``, and answers 200 unless told otherwise."""

    def __init__(self, host: str = LOOPBACK) -> None:
        self._host = host
        self.calls: list[Received] = []
        self._due: dict[str, deque[int]] = defaultdict(deque)
        self._open = AsyncExitStack()
        self._endpoint: Endpoint | None = None

    def url(self, path: str) -> str:
        """The address of a path, which begins with a slash."""
        assert self._endpoint is not None  # noqa: S101  # narrows the type; a receiver is used inside of its block
        return self._endpoint.url(path)

    def answers(self, path: str, *statuses: int) -> None:
        """What the next calls of a path are answered, each after the one before."""
        self._due[path].extend(statuses)

    def of(self, path: str) -> list[Received]:
        """The calls of a path so far, whatever their queries."""
        return [call for call in self.calls if call.target.partition("?")[0] == path]

    async def __aenter__(self) -> Self:
        self._endpoint = await self._open.enter_async_context(endpoint(self._answer, host=self._host))
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._open.aclose()

    async def _answer(self, call: Call) -> None:
        method, target, _ = call.head.partition("\r\n")[0].split(" ")
        due = self._due[target.partition("?")[0]]
        received = Received(method, target, call.headers, call.body, due.popleft() if due else 200)
        self.calls.append(received)
        await call.answer(b"Thank you." if received.status == 200 else b"We are closed.", received.status)
