"""Files go to their buckets: each for as long as it takes, and none because another's bucket is away."""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import Awaitable, Callable, Collection, Mapping
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
from backhaul_audit.model import Content, FileFormat, Plan
from backhaul_audit.plans import Way, way_of
from backhaul_audit.ports import Destinations, Objects
from backhaul_audit.shaping import Made

AT_ONCE = 4
"""Uploads at once to one bucket."""

LONGEST_PAUSE_S, OWN_LONGEST_PAUSE_S = 15.0, 600.0
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

T = TypeVar("T")


class ElsewhereError(Exception):
    """The file cannot lie where its plan says: something else does, or the bucket is not this one any more."""


class HomelessError(Exception):
    """The destination of the file is not set up any more."""


@dataclass(slots=True)
class _State:
    """One way. ``problem`` says in words what is wrong, and is empty while nothing is."""

    free: asyncio.Semaphore
    away: Repeated
    open: asyncio.Event = field(default_factory=asyncio.Event)
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    problem: str = ""


class Uploads:
    """Uploads files and looks after those that are there already. ``changed`` is called when a way opens or closes."""

    def __init__(self, destinations: Destinations, asking: Asking, counts: Counts, changed: Callable[[], None]) -> None:
        self._destinations = destinations
        self._asking = asking
        self._changed = changed
        self._states: dict[Way, _State] = {}
        self._late = Late(asking.gone)
        self._failed = counts.failed
        self._log = get_logger(component="uploads")

    @property
    def blocked(self) -> Collection[Way]:
        """The ways that are away."""
        return {way for way, state in self._states.items() if state.problem}

    @property
    def problems(self) -> Mapping[Way, str]:
        """What is wrong with each of them."""
        return {way: state.problem for way, state in self._states.items() if state.problem}

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
        try:
            self._close(state, BackhaulError(Code.FAILED_PRECONDITION, message, fix=fix))
            await _pause(state, seconds)
        finally:
            self._opened(state)

    async def _through(self, plan: Plan, attempt: Callable[[Objects], Awaitable[T]]) -> T:
        state = self._state(way_of(plan.pile, plan.destination))
        waits = pauses(0.5, OWN_LONGEST_PAUSE_S if plan.destination else LONGEST_PAUSE_S)
        trying = False
        try:
            while True:
                if not trying:
                    await state.open.wait()
                async with state.free:
                    if not trying and not state.open.is_set():
                        continue
                    try:
                        result = await attempt(self._objects(plan))
                    except BackhaulError as exc:
                        # The first that fails tries again, and the others wait until it has got through.
                        trying = trying or state.open.is_set()
                        self._close(state, exc)
                    else:
                        return result
                if trying:
                    await _pause(state, next(waits))
        finally:
            if trying:
                self._opened(state)  # Also where it was given up: the next one tries.

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
            state = self._states[way] = _State(asyncio.Semaphore(AT_ONCE), away)
            state.open.set()
        return state

    def _close(self, state: _State, error: BackhaulError) -> None:
        self._failed.add(error.code.value)
        state.away.warning(str(error))
        state.problem = error.message if not error.fix else f"{error.message} {error.fix}"
        state.open.clear()
        self._changed()

    def _opened(self, state: _State) -> None:
        state.problem = ""
        state.away.over()
        state.open.set()
        self._changed()


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
