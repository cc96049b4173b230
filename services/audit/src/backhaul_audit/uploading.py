"""Files go to their buckets: each for as long as it takes, and none because another's bucket is away."""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.logs import get_logger
from backhaul_common.outages import Repeated
from backhaul_common.pauses import pauses

from backhaul_audit import contents
from backhaul_audit.asking import Asking
from backhaul_audit.counts import Counts
from backhaul_audit.inside import Inside
from backhaul_audit.late import Late
from backhaul_audit.model import Content, FileFormat, PileKey, Plan
from backhaul_audit.plans import Way, way_of
from backhaul_audit.ports import Destinations, Objects
from backhaul_audit.shaping import Made

AT_ONCE = 4
"""Uploads at once to one bucket."""

_FIRST_PAUSE_S, LONGEST_PAUSE_S, OWN_LONGEST_PAUSE_S = 0.5, 15.0, 600.0
"""How long a bucket that is away is left alone: the installation's, and a channel's own."""

MAX_LOOKED_AT = 1 << 30
"""Bytes of what lies in a file's place, and of what it inflates to. No file has as many."""

_PIECE = 1 << 20
_GZIP = 31

_FILE, _EVENTS, _SHA256, _FIRST, _LAST = (
    "backhaul-file",
    "backhaul-events",
    "backhaul-sha256",
    "backhaul-first-us",
    "backhaul-last-us",
)
"""Names of what an object says of itself."""

_NOTHING = "backhaul-probe/nothing"
"""What is asked for to see whether a bucket answers at all."""

T = TypeVar("T")


class ElsewhereError(Exception):
    """The file cannot lie where its plan says: something else does, or the bucket is not this one any more."""


class HomelessError(Exception):
    """The destination of the file is not set up any more."""


@dataclass(slots=True)
class _State:
    """One way. ``problem`` says in words what is wrong, and is empty while nothing is.

    ``users`` have something to bring there. ``through`` counts what got through. ``refused`` are whose files did not
    since the last one that did, if the bucket answers at all.
    """

    longest_pause_s: float
    away: Repeated
    waits: Iterator[float]
    free: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    problem: str = ""
    users: int = 0
    through: int = 0
    refused: frozenset[str] = frozenset()


class Uploads:
    """Uploads files and looks after those that are there already. ``changed`` is called when a way opens or closes."""

    def __init__(self, destinations: Destinations, asking: Asking, counts: Counts, changed: Callable[[], None]) -> None:
        self._destinations = destinations
        self._asking = asking
        self._changed = changed
        self._states: dict[Way, _State] = {}
        self._aside: dict[PileKey, str] = {}
        self._late = Late(asking.gone)
        self._failed = counts.failed
        self._log = get_logger(component="uploads")

    @property
    def blocked(self) -> Collection[Way]:
        """The ways that are away."""
        return {way for way, state in self._states.items() if not state.open.is_set()}

    @property
    def problems(self) -> Mapping[Way, str]:
        """What is wrong with each of them."""
        return {way: state.problem for way, state in self._states.items() if state.problem}

    @property
    def refusing(self) -> Mapping[Way, Collection[str]]:
        """Of the ways that are away, those whose bucket answers: with the registrations that it refused so far."""
        return {way: state.refused for way, state in self._states.items() if not state.open.is_set() and state.refused}

    @property
    def aside(self) -> Mapping[PileKey, str]:
        """What keeps the files of these piles out of a bucket that takes others', in words."""
        return self._aside

    def bucket_of(self, plan: Plan) -> str:
        """The name of the bucket that the plan's destination is now; of a plan that raised ElsewhereError."""
        return self._destinations.named(plan.pile.registration, plan.destination).bucket

    def wake(self, registration: str) -> None:
        """Settings of the tenant were changed: try its own buckets at once."""
        for way, state in self._states.items():
            if way.registration == registration:
                state.woken.set()

    async def put(self, plan: Plan, made: Made) -> Content:
        """Have the file lie in its place; what lies there then. For as long as it takes.

        ElsewhereError where it never can; HomelessError where its channel has no bucket of its own any more.
        """
        return await self._through(plan, lambda objects: _put(objects, plan, made, self._late))

    async def look(self, plan: Plan) -> tuple[Content, contents.Content | None] | None:
        """What lies in the file's place and is this file, whole, and which events lie in it as far as that can be read
        from it; None where nothing is. Raises as ``put`` does."""
        return await self._through(plan, lambda objects: _look_inside(objects, plan))

    async def back(self, way: Way, key: str) -> None:
        """Returns when the bucket answers again. ``key`` is asked for: whether there is anything does not count."""
        state = self._state(way)
        waits = pauses(1.0, OWN_LONGEST_PAUSE_S)
        while True:
            try:
                await self._destinations.named(way.registration, way.destination).stat(key)
            except BackhaulError as exc:
                self._close(state, exc)
                await _pause(state, next(waits))
            else:
                self._opened(state)
                return

    async def refused(self, plan: Plan, reason: str, seconds: float) -> None:
        """The plan was made anew since it could not lie in its place, and this one cannot either. Returns after a
        pause, in which nothing is brought there: a bucket that refuses everything so keeps nobody busy."""
        state = self._state(way_of(plan.pile, plan.destination))
        fix = "Look whether it takes objects, and gives them back as they were stored."
        message = f"The bucket {plan.bucket!r} takes no file: {reason}."
        async with state.turn:
            try:
                self._close(state, BackhaulError(Code.FAILED_PRECONDITION, message, fix=fix))
                await _pause(state, seconds)
            finally:
                self._opened(state)

    async def _through(self, plan: Plan, attempt: Callable[[Objects], Awaitable[T]]) -> T:
        state = self._state(way_of(plan.pile, plan.destination))
        waits = pauses(_FIRST_PAUSE_S, state.longest_pause_s)
        failed_at = -1
        state.users += 1
        try:
            while True:
                # While it is open, some at once; while it is not, one after another finds out whether it is back.
                opened = state.open.is_set()
                async with state.free if opened else state.turn:
                    if not opened and not state.open.is_set():
                        await _pause(state, next(state.waits))
                    if opened != state.open.is_set():
                        continue
                    try:
                        result = await attempt(self._objects(plan))
                    except BackhaulError as exc:
                        others, failed_at = 0 <= failed_at < state.through, state.through
                        if others and not plan.destination:
                            # The bucket of all takes others' files. It is not closed to them for what this one lacks.
                            self._set_aside(plan, exc)
                        else:
                            self._close(state, exc)
                            answers = await self._answers(plan)
                            state.refused = state.refused | {plan.pile.registration} if answers else frozenset()
                    else:
                        state.through += 1
                        if state.problem:
                            self._opened(state)
                        return result
                if plan.pile in self._aside:
                    await _pause(state, next(waits))
        finally:
            state.users -= 1
            if self._aside.pop(plan.pile, None) is not None:
                self._changed()
            if not state.users and not state.open.is_set():
                self._opened(state)  # It was given up: the next one tries.

    async def _answers(self, plan: Plan) -> bool:
        """Whether the bucket of all answers to what has nothing to do with ``plan``."""
        if plan.destination:
            return False
        try:
            await self._objects(plan).stat(_NOTHING)
        except BackhaulError:
            return False
        return True

    def _set_aside(self, plan: Plan, error: BackhaulError) -> None:
        self._failed.add(error.code.value)
        if plan.pile not in self._aside:
            self._log.error("file_refused", registration=plan.pile.registration, key=plan.key, problem=str(error))
        self._aside[plan.pile] = said(error)
        self._changed()

    def _objects(self, plan: Plan) -> Objects:
        try:
            objects = self._destinations.named(plan.pile.registration, plan.destination)
        except BackhaulError as exc:
            if exc.code is Code.FAILED_PRECONDITION and plan.destination:
                ask = self._asking.now(plan.pile)
                if ask is None or ask.destination != plan.destination:
                    raise HomelessError(exc.message) from exc
            raise
        if objects.bucket != plan.bucket:
            raise ElsewhereError(f"the bucket is {objects.bucket} now, and not {plan.bucket}")
        return objects

    def _state(self, way: Way) -> _State:
        state = self._states.get(way)
        if state is None:
            away = Repeated("bucket_away", component="uploads", registration=way.registration, channel=way.destination)
            longest_s = OWN_LONGEST_PAUSE_S if way.destination else LONGEST_PAUSE_S
            state = self._states[way] = _State(longest_s, away, pauses(_FIRST_PAUSE_S, longest_s))
            state.open.set()
        return state

    def _close(self, state: _State, error: BackhaulError) -> None:
        self._failed.add(error.code.value)
        state.away.warning(str(error))
        state.problem = said(error)
        state.open.clear()
        self._changed()

    def _opened(self, state: _State) -> None:
        state.problem, state.refused = "", frozenset()
        state.waits = pauses(_FIRST_PAUSE_S, state.longest_pause_s)
        state.away.over()
        state.open.set()
        state.woken.set()  # Whoever pauses before the next try need not.
        self._changed()


def said(error: BackhaulError) -> str:
    """What is wrong, and what to do about it."""
    return error.message if not error.fix else f"{error.message} {error.fix}"


async def _put(objects: Objects, plan: Plan, made: Made, late: Late) -> Content:
    said = {
        _FILE: plan.id,
        _EVENTS: str(made.content.events),
        _SHA256: made.content.sha256,
        _FIRST: str(made.content.first_at_us),
        _LAST: str(made.content.last_at_us),
    }
    if await late.created(objects, plan, objects.create(plan.key, made.pieces, said)):
        return made.content
    # Somebody was faster: this copy in a try of which it has not heard the end, or another that was asleep since.
    there = await _look(objects, plan)
    if there is None:
        raise BackhaulError(Code.UNAVAILABLE, f"{plan.bucket}/{plan.key} is there, and is not.")
    if there.events != made.content.events:
        raise ElsewhereError(f"{plan.key} has {there.events} events, and not {made.content.events}")
    return there


async def _look_inside(objects: Objects, plan: Plan) -> tuple[Content, contents.Content | None] | None:
    inside = Inside(plan.shape)
    content = await _look(objects, plan, inside)
    return (content, inside.content(content.events)) if content is not None else None


async def _look(objects: Objects, plan: Plan, inside: Inside | None = None) -> Content | None:
    info = await objects.stat(plan.key)
    if info is None:
        return None
    said = info.metadata
    try:
        if said[_FILE] != plan.id:
            raise ElsewhereError(f"{plan.key} is there, and is another file")
        events, sha256 = int(said[_EVENTS]), said[_SHA256]
        first_at_us, last_at_us = int(said[_FIRST]), int(said[_LAST])
    except (KeyError, ValueError) as exc:
        raise ElsewhereError(f"{plan.key} is there, and is no file of Backhaul's") from exc
    try:
        read = await _read(objects, plan, inside)
    except BackhaulError as exc:
        if exc.code is Code.NOT_FOUND:
            return None
        raise
    if read is None or read.sha256 != sha256 or read.events != events:
        raise ElsewhereError(f"{plan.key} is there, and is not what it was stored as")
    return Content(events, read.bytes, sha256, read.inflated_bytes, read.inflated_sha256, first_at_us, last_at_us)


@dataclass(frozen=True, slots=True)
class _Read:
    """An object as it was found."""

    events: int
    bytes: int
    sha256: str
    inflated_bytes: int
    inflated_sha256: str


async def _read(objects: Objects, plan: Plan, inside: Inside | None) -> _Read | None:
    """What is in the file's place, None where it is no whole file. Events are counted by their line breaks; ``inside``
    looks which they are."""
    stored, inflated = hashlib.sha256(), hashlib.sha256()
    size = inflated_size = breaks = 0
    gunzip = zlib.decompressobj(_GZIP) if plan.shape.gzip else None
    async for piece in objects.read(plan.key, chunk=_PIECE):
        stored.update(piece)
        size += len(piece)
        if size > MAX_LOOKED_AT:
            return None
        rest = piece
        while rest:
            if gunzip is None:
                out, rest = rest, b""
            elif gunzip.eof:
                return None
            else:
                try:
                    out = await asyncio.to_thread(gunzip.decompress, rest, _PIECE)
                except zlib.error:
                    return None
                rest = gunzip.unconsumed_tail
            inflated.update(out)
            inflated_size += len(out)
            if inflated_size > MAX_LOOKED_AT:
                return None
            breaks += out.count(b"\n")
            if inside is not None:
                inside.add(out)
            await asyncio.sleep(0)
    if gunzip is not None and (not gunzip.eof or gunzip.unused_data):
        return None
    events = breaks - 2 if plan.shape.format is FileFormat.ARRAY else breaks
    return _Read(events, size, stored.hexdigest(), inflated_size, inflated.hexdigest())


async def _pause(state: _State, seconds: float) -> None:
    state.woken.clear()
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await state.woken.wait()
