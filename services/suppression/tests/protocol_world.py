"""The protocol of leases in a world whose every step is chosen: when a request arrives, when its answer does, whether
either is lost, how time goes by, and which process stands still meanwhile.

What runs are ``Holder`` and ``everybody`` themselves. A process is a coroutine that stands wherever it waits for the
database; one that is not chosen is one that was stopped (SIGSTOP).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Generator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from backhaul_common.errors import BackhaulError, unavailable
from backhaul_suppression import barrier
from backhaul_suppression.lease import Lease
from backhaul_suppression.leases import Holder
from backhaul_suppression.ports import Copies

T = TypeVar("T")
Happening = Callable[[], None]
Writing = Callable[[int, Copies, Callable[[], float], barrier.Pause], Coroutine[Any, Any, None]]


class Request(Generic[T]):
    """One step of the database that somebody waits for. ``do`` is what it does."""

    def __init__(self, do: Callable[[], T], *, fails: bool = True) -> None:
        self.do = do
        self.fails = fails
        self.done = False
        self.result: T | None = None

    def __await__(self) -> Generator[Request[T], T, T]:
        return (yield self)


@dataclass
class Document:
    """A copy as the database has it."""

    applied: int
    need: int = 0


@dataclass
class Database:
    """``Copies`` at one moment each."""

    last: int = 0
    copies: dict[str, Document] = field(default_factory=dict)

    def register(self, copy: str, applied: int) -> None:
        self.copies.setdefault(copy, Document(applied))

    def renew(self, copy: str, applied: int) -> int | None:
        document = self.copies.get(copy)
        if document is None:
            return None
        document.applied = max(document.applied, applied)
        return document.need

    def bar(self, seq: int) -> None:
        for document in self.copies.values():
            if document.applied < seq:
                document.need = max(document.need, seq)

    def behind(self, seq: int) -> Collection[str]:
        return [name for name, document in self.copies.items() if document.applied < seq <= document.need]

    def forget(self, copies: Collection[str], seq: int) -> None:
        for name in copies:
            if name in self.copies and self.copies[name].applied < seq:
                del self.copies[name]

    def commit(self) -> int:
        self.last += 1
        return self.last


class Wire:
    """``Copies`` over a network."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def register(self, copy: str, applied: int) -> None:
        await Request(partial(self._database.register, copy, applied))

    async def last(self) -> int:
        last: int = await Request(lambda: self._database.last)
        return last

    async def renew(self, copy: str, applied: int) -> int | None:
        need: int | None = await Request(partial(self._database.renew, copy, applied))
        return need

    async def bar(self, seq: int) -> None:
        await Request(partial(self._database.bar, seq))

    async def behind(self, seq: int) -> Collection[str]:
        behind: Collection[str] = await Request(partial(self._database.behind, seq))
        return behind

    async def forget(self, copies: Collection[str], seq: int) -> None:
        await Request(partial(self._database.forget, copies, seq))

    async def leave(self, copy: str) -> None:
        await Request(lambda: self._database.copies.pop(copy, None) and None)


class Process:
    """A coroutine, and the request that it waits for."""

    def __init__(self, life: Coroutine[Request[Any], Any, None]) -> None:
        self._life = life
        self.waits: Request[Any] | None = None
        self._go_on(lambda: self._life.send(None))

    def answer(self) -> None:
        request = self.waits
        assert request is not None
        self._go_on(lambda: self._life.send(request.result))

    def fail(self) -> None:
        self._go_on(lambda: self._life.throw(unavailable("The database")))

    def kill(self) -> None:
        self._life.close()
        self.waits = None

    def _go_on(self, resume: Callable[[], Request[Any]]) -> None:
        try:
            self.waits = resume()
        except StopIteration:
            self.waits = None


@dataclass
class Question:
    """A look-up on its way: what had passed when it began, whether the lease was asked for, and what was read."""

    passed: int
    asked: bool = False
    read: int | None = None


class Copy:
    """One that answers: it applies changes and holds a lease, and is asked one question after another."""

    def __init__(self, world: World, name: str, speed: float, holder: type[Holder]) -> None:
        self._world = world
        self.name = name
        self._lives = 0
        self._clock = lambda: world.now * speed
        self._holder_type = holder
        self.begin()

    def begin(self) -> None:
        """A new process, which knows nothing."""
        self._lives += 1
        ids = iter(range(1_000_000))
        name = f"{self.name}.{self._lives}"
        self.applied = -1
        self.lease = Lease(self._clock)
        holder = self._holder_type(
            Wire(self._world.database),
            self.lease,
            lambda: self.applied,
            self._clock,
            new_id=lambda: f"{name}.{next(ids)}",
        )
        self.processes = {"holds": Process(self._hold(holder)), "follows": Process(self._follow())}
        self.question: Question | None = None

    async def _hold(self, holder: Holder) -> None:
        while True:
            try:
                await holder.step()
            except BackhaulError:
                self._world.failures += 1
            await Request(lambda: None, fails=False)

    async def _follow(self) -> None:
        while True:
            try:
                seen = await Request(lambda: self._world.database.last)
            except BackhaulError:
                continue
            self.applied = max(self.applied, seen)

    def restart(self) -> None:
        for process in self.processes.values():
            process.kill()
        self.begin()

    def ask_next(self) -> None:
        """One step of a question: it comes, the lease is asked for, the rows are read, the lease is asked for again.

        In the service nothing else of its process comes between these. Here it may, as if they were in other threads.
        """
        question = self.question
        if question is None:
            self.question = Question(self._world.passed, asked=not self._world.asks_first)
        elif not question.asked:
            question.asked = True
            if not self.lease.held:
                self.question = None
        elif question.read is None:
            question.read = self.applied
        else:
            self.question = None
            if self.lease.held:
                self._world.answers += 1
                if question.read < question.passed:
                    raise StaleError(f"{self.name} read {question.read} after {question.passed} had passed")


class StaleError(AssertionError):
    """A copy answered without what had passed before it was asked."""


class World:
    """Two copies and two writers."""

    def __init__(
        self, *, holder: type[Holder] = Holder, writing: Writing = barrier.everybody, asks_first: bool = True
    ) -> None:
        self.asks_first = asks_first
        self.now = 0.0
        self.database = Database()
        self.passed = self.answers = self.failures = self.waited = 0
        self._writing = writing
        self._late: list[Request[Any]] = []
        # Clocks that differ by a fifth: a writer's patience is a quarter more than a lease.
        self.copies = [Copy(self, "one", 0.9, holder), Copy(self, "two", 1.0, holder)]
        self._writers = {f"writer {speed}": Process(self._write(speed)) for speed in (1.0, 1.08)}

    async def _write(self, speed: float) -> None:
        while True:
            try:
                seq = await Request(self.database.commit)
                await self._writing(seq, Wire(self.database), lambda: self.now * speed, self._pause)
            except BackhaulError:
                self.failures += 1
                continue
            self.passed = max(self.passed, seq)
            self.waited += 1

    async def _pause(self, _: float) -> None:
        await Request(lambda: None, fails=False)

    def happenings(self) -> dict[str, Happening]:
        """All that may happen next, by a name that says whose it is."""
        may: dict[str, Happening] = {"time": partial(self._pass, 0.1), "more time": partial(self._pass, 1.0)}
        for copy in self.copies:
            may[f"{copy.name} is asked"] = copy.ask_next
            may[f"{copy.name} is killed"] = copy.restart
        for name, process in self._processes().items():
            request = process.waits
            if request is None:
                continue
            may[name] = process.answer if request.done else partial(self._arrive, request)
            if request.fails:
                may[f"{name} fails"] = partial(self._lose, process)
        for number, request in enumerate(self._late):
            may[f"late {number}"] = partial(self._arrive, request)
        return may

    def _processes(self) -> dict[str, Process]:
        return self._writers | {
            f"{copy.name} {what}": one for copy in self.copies for what, one in copy.processes.items()
        }

    def _pass(self, seconds: float) -> None:
        self.now += seconds

    def _arrive(self, request: Request[Any]) -> None:
        if request in self._late:
            self._late.remove(request)
        request.result, request.done = request.do(), True

    def _lose(self, process: Process) -> None:
        """Whoever waits is told that the database is away. The request may still arrive, much later."""
        request = process.waits
        if request is not None and not request.done:
            self._late = [*self._late[-3:], request]
        process.fail()

    def close(self) -> None:
        for process in self._processes().values():
            process.kill()
