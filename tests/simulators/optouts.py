"""People who say that they want no messages, and that they want them again, while a test breaks something.

Each has one story, told by callbacks in its order: the next is sent when the one before was answered 200, and each is
sent until it is. What must follow from a story is written from the documentation of suppressions, and from nothing in
the service.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from backhaul_testing.posts import ACCEPTED, Post
from backhaul_testing.twilio import new_sid
from backhaul_testing.wire import Wire
from simulators.people import Tenant

CONNECTIONS = 3
RETRY_S = 0.1
AHEAD = 60
"""Callbacks that are answered beyond those that a test waits for: something is always under way when it goes on."""

STOP, START, HELP, BLOCKED, UNKNOWN, DELIVERED, UNREACHABLE = (
    "STOP", "START", "HELP", "blocked", "unknown", "delivered", "unreachable",
)  # fmt: skip
_REPLIES = (STOP, START, HELP)
_STATUSES = {
    BLOCKED: ("failed", "21610"),
    UNKNOWN: ("undelivered", "30005"),
    UNREACHABLE: ("undelivered", "30003"),
    DELIVERED: ("delivered", ""),
}

Rows = Mapping[str, bool]
"""The rows of one person by their kinds, all of the scope "everything", and whether each suppresses."""

STORIES: Sequence[tuple[tuple[str, ...], Rows]] = (
    ((STOP,), {"stop": True}),
    ((STOP, DELIVERED), {"stop": True}),
    ((HELP, STOP, HELP), {"stop": True}),
    ((STOP, START), {"stop": False}),
    ((STOP, START, STOP), {"stop": True}),
    ((START, DELIVERED), {}),
    ((DELIVERED, HELP, UNREACHABLE), {}),
    ((BLOCKED,), {"provider_block": True}),
    ((BLOCKED, STOP, START), {"provider_block": False, "stop": False}),
    ((UNKNOWN,), {"invalid_address": True}),
    ((UNKNOWN, DELIVERED), {"invalid_address": False}),
)
"""What is said, and what follows from it when all of it is known."""


@dataclass
class Person:
    """Somebody with a number. ``told`` is how much of the story was answered 200, ``sids`` are the messages."""

    tenant: Tenant
    number: str
    story: tuple[str, ...]
    rows: Rows
    told: int = 0
    sids: list[str] = field(default_factory=list)

    @property
    def suppressed(self) -> bool:
        """Whether any row says no, when the whole story is known."""
        return any(self.rows.values())

    def post(self, word: str) -> Post:
        """The callback of the next part of the story."""
        sid = new_sid()
        self.sids.append(sid)
        address = self.tenant.address("Twilio")
        if word in _REPLIES:
            return self.tenant.twilio.inbound(address, sid, word, sender=self.number)
        status, error = _STATUSES[word]
        fields = {"ErrorCode": error} if error else {}
        return self.tenant.twilio.status(address, sid, status, to=self.number, **fields)


class OptOuts:
    """``async with OptOuts(tenants) as people``: stories are told inside; each that was begun is told to its end.

    The same numbers write to every tenant, and mean another thing to each.
    """

    def __init__(self, tenants: Sequence[Tenant], *, seed: int = 1) -> None:
        self._tenants = tenants
        self._dice = random.Random(seed)  # noqa: S311  # a reproducible mix, no secret.
        self._stop = asyncio.Event()
        self._progress = asyncio.Condition()
        self._workers: list[asyncio.Task[None]] = []
        self._numbers = {tenant.id: 0 for tenant in tenants}
        self.people: list[Person] = []
        self._wanted = 0
        self.answered = 0
        self.failed = 0
        """Tries that were not answered 200."""

    async def __aenter__(self) -> Self:
        self._workers = [asyncio.create_task(self._work(), name=f"people-{n}") for n in range(CONNECTIONS)]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        async with self._progress:
            self._stop.set()
            self._progress.notify_all()
        if kind is not None:
            for worker in self._workers:
                worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=kind is not None)

    async def more(self, answers: int, *, within_s: float = 60.0) -> None:
        """Return when so many more callbacks than now have been answered 200."""
        goal = self.answered + answers
        async with self._progress:
            self._wanted = goal
            self._progress.notify_all()
        await self._until(f"{answers} more answers", lambda: self.answered >= goal, within_s)

    async def failing(self, tries: int, *, within_s: float = 60.0) -> None:
        """Return when so many more tries than now have failed."""
        goal = self.failed + tries
        self._wanted = self.answered
        await self._until(f"{tries} more failures", lambda: self.failed >= goal, within_s)

    def of(self, tenant: Tenant) -> list[Person]:
        """Those who were heard of by ``tenant``."""
        return [person for person in self.people if person.tenant is tenant]

    async def _until(self, what: str, reached: Callable[[], bool], within_s: float) -> None:
        try:
            async with asyncio.timeout(within_s), self._progress:
                await self._progress.wait_for(reached)
        except TimeoutError:
            raise AssertionError(f"not within {within_s:g} s: {what}") from None

    async def _work(self) -> None:
        async with Wire() as wire:
            while await self._something_is_wanted():
                tenant = self._dice.choice(self._tenants)
                self._numbers[tenant.id] += 1
                story, rows = self._dice.choice(STORIES)
                person = Person(tenant, f"+1415{self._numbers[tenant.id]:07}", story, rows)
                self.people.append(person)
                for word in story:
                    await self._tell(wire, person, person.post(word))

    async def _something_is_wanted(self) -> bool:
        async with self._progress:
            await self._progress.wait_for(
                lambda: self._stop.is_set() or self.answered < self._wanted + AHEAD,
            )
        return not self._stop.is_set()

    async def _tell(self, wire: Wire, person: Person, post: Post) -> None:
        while await wire.once(post) != ACCEPTED:
            async with self._progress:
                self.failed += 1
                self._progress.notify_all()
            await asyncio.sleep(RETRY_S)
        person.told += 1
        async with self._progress:
            self.answered += 1
            self._progress.notify_all()
