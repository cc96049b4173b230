"""Both providers in a hurry: unique, late, disordered and repeated callbacks, and a record of what was answered.

The record is what a test can hold a system to that is being killed meanwhile: whatever was answered 200 must be there,
exactly once; what was sent and never answered 200 may be there; anything else may not.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from backhaul_testing.posts import ACCEPTED, Post, Sending
from backhaul_testing.sendgrid import new_message_id
from backhaul_testing.twilio import RetryRules, new_sid
from backhaul_testing.wire import Wire
from simulators.people import Tenant

CONNECTIONS = 8
PAUSE_S = 0.03
"""Of each connection, between two posts: enough are under way whenever something is killed. At full speed they take
the processor that others need to come back, and the longer that takes the more there is to check."""

COMMUNICATIONS = 4
MAIL_EVENTS = 12
"""Events of a SendGrid post; those of a few messages."""
_SHUFFLED = 24
"""Posts among which the next one is drawn: how far the order may be from that of the provider."""

_TWILIO_ENDS = (
    ("delivered", ""), ("delivered", ""), ("delivered", ""), ("undelivered", "30003"), ("failed", "30007"),
    ("undelivered", "21614"),
)  # fmt: skip
_MAIL_ENDS = ("delivered", "open", "click", "bounce", "dropped", "deferred")

Heard = Callable[[int | str, float, float], None]

Key = tuple[str, str, str]
"""Tenant, channel, and the provider's own id of the event."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One event as the provider knows it."""

    key: Key
    message_id: str
    word: str
    communication: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class _Job:
    tenant: Tenant
    channel: str
    post: Post
    facts: tuple[Fact, ...]
    rules: RetryRules


class Load:
    """``async with Load(tenants) as load``: callbacks flow inside, and every retry is done with outside.

    They flow on while something starts, by each of ``connections``: the slower the machine, the more of them.

    ``heard`` is told of every try: its outcome, and when it began and ended, as unix times in seconds.

    ``attempted`` holds every event that was sent at least once, ``answered`` the keys of those whose callback was
    answered 200, with when that first was.
    """

    def __init__(
        self,
        tenants: Sequence[Tenant],
        *,
        seed: int = 1,
        connections: int = CONNECTIONS,
        pause_s: float = PAUSE_S,
        heard: Heard = lambda _outcome, _began, _ended: None,
    ) -> None:
        self._tenants = tenants
        self._pause_s = pause_s
        self._heard = heard
        self._connections = connections
        self._dice = random.Random(seed)  # noqa: S311  # a reproducible mix, no secret.
        self._jobs = self._endless()
        self._stop = asyncio.Event()
        self._progress = asyncio.Condition()
        self._workers: list[asyncio.Task[None]] = []
        self.attempted: dict[Key, Fact] = {}
        self.answered: dict[Key, datetime] = {}
        self.tries: Counter[Key] = Counter()
        """How often the callback of each event was sent, whatever was answered."""
        self.accepted_posts = 0
        self.repeated_posts = 0
        self.failures: Counter[int | str] = Counter()
        """Tries that were not answered 200, by status or by what went wrong."""

    async def __aenter__(self) -> Self:
        self._workers = [asyncio.create_task(self._work(), name=f"provider-{n}") for n in range(self._connections)]
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        self._stop.set()
        try:
            await asyncio.gather(*self._workers)
        finally:
            for worker in self._workers:
                worker.cancel()

    def note(self, tenant: Tenant, sid: str, word: str, communication: str) -> None:
        """Put a status callback on record that a test has sent itself, and that was answered 200."""
        fact = Fact((tenant.id, "twilio", f"{sid}:{word}"), sid, word, communication)
        self.attempted[fact.key] = fact
        self.answered.setdefault(fact.key, datetime.now(UTC))

    async def more(self, posts: int, *, within_s: float = 60.0) -> None:
        """Return when ``posts`` more posts than now have been answered 200."""
        goal = self.accepted_posts + posts
        await self._until(f"{posts} more accepted posts", lambda: self.accepted_posts >= goal, within_s)

    async def failing(self, tries: int, *, within_s: float = 60.0) -> None:
        """Return when ``tries`` more tries than now have failed."""
        goal = self.failures.total() + tries
        await self._until(f"{tries} more failed tries", lambda: self.failures.total() >= goal, within_s)

    async def _until(self, what: str, reached: Callable[[], bool], within_s: float) -> None:
        waiting = asyncio.create_task(self._wait_for(reached))
        done, _ = await asyncio.wait([waiting, *self._workers], timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        if waiting in done:
            return
        waiting.cancel()
        for worker in self._workers:
            if worker.done():
                worker.result()  # A worker ends early by an error only.
        raise AssertionError(f"not within {within_s:g} s: {what}; failures so far: {dict(self.failures)}")

    async def _wait_for(self, reached: Callable[[], bool]) -> None:
        async with self._progress:
            await self._progress.wait_for(reached)

    async def _work(self) -> None:
        async with Wire() as wire:
            while not self._stop.is_set():
                await self._send(wire, next(self._jobs))
                await asyncio.sleep(self._pause_s)

    async def _send(self, wire: Wire, job: _Job) -> None:
        # Noted before the first byte is sent: from then on they may be stored.
        self.attempted.update((fact.key, fact) for fact in job.facts)
        sending = await self._deliver(wire, job)
        if sending.accepted:
            known = len(self.answered)
            now = datetime.now(UTC)
            for fact in job.facts:
                self.answered.setdefault(fact.key, now)
            self.repeated_posts += len(self.answered) == known
        async with self._progress:
            self.accepted_posts += sending.accepted
            self._progress.notify_all()

    def _deliver(self, wire: Wire, job: _Job) -> Awaitable[Sending]:
        async def once(post: Post) -> int | str:
            self.tries.update(fact.key for fact in job.facts)
            began = time.time()
            outcome = await wire.once(post)
            self._heard(outcome, began, time.time())
            if outcome != ACCEPTED:
                # At once: the provider may try again for a while before the sending is over.
                async with self._progress:
                    self.failures[outcome] += 1
                    self._progress.notify_all()
            return outcome

        if job.channel == "sendgrid":
            return job.tenant.sendgrid.deliver(once, job.post)
        return job.tenant.twilio.deliver(once, job.post, job.rules)

    def _endless(self) -> Iterator[_Job]:
        """Jobs out of order and some of them repeatedly, a few of them much later."""
        pool: list[_Job] = []
        old: list[_Job] = []
        while True:
            while len(pool) < _SHUFFLED:
                tenant = self._dice.choice(self._tenants)
                pool += self._mail(tenant) if self._dice.random() < 0.15 else self._texts(tenant)
            job = pool.pop(self._dice.randrange(len(pool)))
            yield job
            if self._dice.random() < 0.15:
                pool.append(job)
            if self._dice.random() < 0.2:
                old.append(job)
            if old and self._dice.random() < 0.05:
                yield self._dice.choice(old)

    def _communication(self) -> str:
        return f"offer-{self._dice.randrange(COMMUNICATIONS)}"

    def _texts(self, tenant: Tenant) -> list[_Job]:
        """The callbacks of one text message."""
        sid = new_sid()
        end, error = self._dice.choice(_TWILIO_ENDS)
        communication = self._communication()
        # Half of the tenants have read how to make Twilio try again; by default it does not, and callbacks get lost.
        fragment = "rc=5&rp=all" if self._dice.random() < 0.7 else ""
        address = tenant.address("Twilio", fragment=fragment, communicationId=communication)
        jobs = []
        for word in ("queued", "sent", end):
            fields = {"ErrorCode": error} if error and word == end else {}
            fact = Fact((tenant.id, "twilio", f"{sid}:{word}"), sid, word, communication, fields.get("ErrorCode", ""))
            post = tenant.twilio.status(address, sid, word, **fields)
            jobs.append(_Job(tenant, "twilio", post, (fact,), RetryRules.of(address)))
        return jobs

    def _mail(self, tenant: Tenant) -> list[_Job]:
        """Two posts with the events of a few e-mails spread over them."""
        halves: tuple[list[tuple[Fact, Any]], list[tuple[Fact, Any]]] = ([], [])
        for _ in range(MAIL_EVENTS // 2):
            message_id = new_message_id()
            communication = self._communication()
            for word in ("processed", *self._dice.sample(_MAIL_ENDS, 3)):
                event = tenant.sendgrid.event(message_id, word, communicationId=communication)
                fact = Fact((tenant.id, "sendgrid", event["sg_event_id"]), message_id, word, communication)
                self._dice.choice(halves).append((fact, event))
        return [
            _Job(
                tenant,
                "sendgrid",
                tenant.sendgrid.batch(tenant.address("SendGrid"), [event for _, event in half]),
                tuple(fact for fact, _ in half),
                RetryRules(),
            )
            for half in halves
            if half
        ]
