"""Callbacks of channels whose processing is held: set aside in CALLBACKS, and given to be processed when it goes on.

What is held lies under a subject of its own in the stream where all callbacks lie, so nothing else has to be kept of
it. Each message is stored at its new place before it leaves the old one. Whatever dies in between, it is then at both,
and what is processed twice counts once. (docs/decisions/0019-held-channels.md)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import NamedTuple, Protocol

from backhaul_common import metrics as catalogue
from backhaul_common.errors import BackhaulError
from backhaul_common.feed import StreamMessage
from backhaul_common.jetstream import Publisher, headers_of
from backhaul_common.logs import get_logger
from backhaul_common.metering import Metrics
from backhaul_common.names import CALLBACKS_STREAM, HELD_SUFFIX, callbacks_subject
from backhaul_common.outages import Repeated, is_outage
from backhaul_common.tenants import Tenant
from backhaul_proto.callback.v1.callback_pb2 import CallbackBatch

from backhaul_normalizer.heldstream import Stored
from backhaul_normalizer.ports import Holding, Tenants

SWEEP_S = 5.0
"""How often every copy looks at what is held, beside whenever a tenant changes."""

MAX_MARGIN_S = 86_400.0
"""How long before a held callback would be too old for the stream it is stored anew."""

_TIMEOUT_S = 5.0

_ASKED_FOR_S = 1.0
"""How long MongoDB's answer is believed. Whoever marks a tenant waits longer before the tenant's callbacks are
purged."""

Owners = Callable[[Collection[str]], Awaitable[Mapping[str, str]]]
"""The registrations of the living tenants that have these queue paths now, by path. UNAVAILABLE."""


class _Move(NamedTuple):
    """A message that lies at ``position``, and is to lie under ``subject``."""

    position: int
    subject: str
    data: bytes
    headers: dict[str, str]


class Held(Protocol):
    """What is held, as it lies in CALLBACKS. UNAVAILABLE from every method while JetStream is away."""

    async def subjects(self) -> Mapping[str, int]:
        """The subjects under which anything is held, each with its number of messages."""
        ...

    async def waiting(self) -> int:
        """Messages that are not processed yet, all tenants' together; none that are held among them."""
        ...

    async def read(self, subject: str, first: int = ..., messages: int = ...) -> Sequence[Stored]:
        """The messages of ``subject`` from the position ``first`` on, in their order, of a bounded number and size."""
        ...

    async def purge(self, subject: str, up_to: int) -> int:
        """Delete the messages of ``subject`` up to that position; how many there still were."""
        ...

    async def delete(self, positions: Sequence[int]) -> None:
        """Delete what lies at ``positions``, as far as that works."""
        ...


class HeldCallbacks:
    """Sets callbacks aside, and gives them to be processed when their channel's are no longer held.

    Every copy of the normalizer does both. Where two move the same messages, JetStream drops the second of each, and
    the copy that finds nothing left to delete leaves the rest to the other one.
    """

    def __init__(
        self,
        held: Held,
        publisher: Publisher,
        tenants: Tenants,
        owners: Owners,
        metrics: Metrics,
        *,
        max_age_s: float,
        max_waiting: int,
    ) -> None:
        """``max_age_s`` is the stream's. While more than ``max_waiting`` messages are not processed yet, no more are
        added to them: at a limit all tenants would have to wait."""
        margin_s = min(MAX_MARGIN_S, max_age_s / 2)
        self._held = held
        self._publisher = publisher
        self._owners = owners
        self._kept_s = max_age_s - margin_s
        self._sweep_s = min(SWEEP_S, margin_s / 4)
        self._max_waiting = max_waiting
        self._tenants: dict[str, Tenant] = {}
        self._registrations: dict[str, str] = {}
        self._changed = asyncio.Event()
        # By subject, when its first message has to be stored anew at the earliest; in the loop's time.
        self._due: dict[str, float] = {}
        # By subject, the position behind what this copy moved last.
        self._next: dict[str, int] = {}
        self._messages = 0
        self._set_aside = metrics.counter(catalogue.CALLBACKS_HELD)
        self._resumed = metrics.counter(catalogue.CALLBACKS_RESUMED)
        metrics.gauge(catalogue.HELD_MESSAGES, lambda: self._messages)
        self._log = get_logger(component="holds")
        self._not_stored = Repeated("held_not_stored", component="holds")
        tenants.listen(self._tenant_changed)

    def _tenant_changed(self, tenant_id: str, tenant: Tenant | None) -> None:
        self._tenants.pop(self._registrations.pop(tenant_id, ""), None)
        if tenant is not None:
            self._registrations[tenant_id] = tenant.registration
            self._tenants[tenant.registration] = tenant
        self._changed.set()

    def holds(self, registration: str, channel: str, subject: str) -> bool:
        """See ``Holds``."""
        tenant = self._tenants.get(registration)
        return tenant is not None and _is_held(tenant, channel) and subject == _subject(tenant, channel)

    async def set_aside(self, held: Sequence[Holding]) -> Sequence[StreamMessage]:
        """See ``Holds``. They are stored where what is held lies, and deleted where they lie now."""
        owners = await self._owners({one.message.path for one in held})
        own = [one for one in held if owners.get(one.message.path) == one.registration]
        moves = [
            _Move(
                one.message.stream_seq,
                one.message.subject + HELD_SUFFIX,
                _known_by(one.position, one.message),
                headers_of(CALLBACKS_STREAM, f"aside-{one.message.stream_seq}", one.message.traceparent),
            )
            for one in own
        ]
        count = await self._move(moves, self._held.delete)
        for one in own[:count]:
            self._set_aside.add(one.tenant, one.channel, amount=one.callbacks)
        return [one.message for one in own[count:]]

    async def run(self) -> None:
        """Look at what is held until cancelled. UNAVAILABLE when MongoDB or JetStream is away."""
        while True:
            self._changed.clear()
            while await self.sweep():
                pass
            with suppress(TimeoutError):
                async with asyncio.timeout(self._sweep_s):
                    await self._changed.wait()

    async def sweep(self) -> bool:
        """Move some messages of each channel that is no longer held, so that none waits for the end of another's; and
        store those anew that would soon be too old. Whether there may be more to do at once. UNAVAILABLE as ``run``."""
        subjects = await self._held.subjects()
        self._messages = sum(subjects.values())
        self._due = {subject: due for subject, due in self._due.items() if subject in subjects}
        self._next = {subject: first for subject, first in self._next.items() if subject in subjects}
        now = asyncio.get_running_loop().time
        paths = {subject.split(".")[1] for subject in subjects}
        asked_at, owners = now(), await self._owners(paths) if paths else {}
        more = False
        for subject in subjects:
            if now() - asked_at > _ASKED_FOR_S:
                asked_at, owners = now(), await self._owners(paths)
            _, path, channel, _ = subject.split(".")
            # Where nobody has the path, its tenant was deleted: what is left of it there is purged, or gets too old.
            tenant = self._tenants.get(owners.get(path, ""))
            if tenant is None:
                continue
            try:
                if _is_held(tenant, channel):
                    more |= await self._renew(subject, tenant, channel)
                else:
                    more |= await self._resume(subject, tenant, channel)
            except Exception as exc:
                if is_outage(exc):
                    raise
                # Other channels must not wait for this one.
                self._log.error("held_not_moved", tenant=tenant.id, channel=channel, exc_info=exc)
        return more

    async def _resume(self, subject: str, tenant: Tenant, channel: str) -> bool:
        if await self._held.waiting() > self._max_waiting:
            return False
        first = self._next.pop(subject, 1)
        page = await self._held.read(subject, first)
        if not page:
            return first > 1  # What lies before it, if anything does, comes next.
        moved = page[: await self._move_page(page, subject, _subject(tenant, channel), "held")]
        if moved:
            self._next[subject] = moved[-1].stream_seq + 1
            callbacks = sum(len(CallbackBatch.FromString(one.data).callbacks) for one in moved)
            self._resumed.add(tenant.id, channel, amount=callbacks)
            self._log.info("callbacks_resumed", tenant=tenant.id, channel=channel, callbacks=callbacks)
        return bool(moved)

    async def _renew(self, subject: str, tenant: Tenant, channel: str) -> bool:
        """Store those anew that would soon be too old. They stay held."""
        now = asyncio.get_running_loop().time()
        if now < self._due.get(subject, 0.0):
            return False
        page = await self._held.read(subject, messages=1)
        if page and page[0].age_s >= self._kept_s:
            page = list(takewhile(lambda one: one.age_s >= self._kept_s, await self._held.read(subject)))
            moved = await self._move_page(page, subject, subject, "kept")
            if moved:
                self._log.warning("held_for_long", tenant=tenant.id, channel=channel, stream_messages=moved)
            return moved > 0
        if page:
            self._due[subject] = now + self._kept_s - page[0].age_s
        return False

    async def _move_page(self, page: Sequence[Stored], source: str, target: str, why: str) -> int:
        """Move ``page`` from ``source`` to ``target``; how much of it, from its first.

        0 where another copy did that before, or there is no room.
        """
        moves = [
            _Move(
                one.stream_seq,
                target,
                one.data,
                headers_of(CALLBACKS_STREAM, f"{why}-{one.stream_seq}", one.traceparent),
            )
            for one in page
        ]
        deleted = 0

        async def leave(positions: Sequence[int]) -> None:
            nonlocal deleted
            deleted += await self._held.purge(source, positions[-1])

        count = await self._move(moves, leave)
        return count if deleted else 0

    async def _move(self, moves: Sequence[_Move], leave: Callable[[Sequence[int]], Awaitable[None]]) -> int:
        """Store the messages where they shall be, and then have ``leave`` delete them, by position, where they were.

        How many are done, from the first: fewer than all where JetStream is full, away or slow. In a stream that is
        full there may be room for one only when the one before it was deleted, so they are then moved one by one.
        """
        try:
            await self._store(moves)
        except BackhaulError as exc:
            self._not_stored.warning(repr(exc.__cause__ or exc), stream_messages=len(moves))
        else:
            self._not_stored.over()
            if moves:
                await leave([one.position for one in moves])
            return len(moves)
        for count, one in enumerate(moves):
            try:
                await self._store([one])
            except BackhaulError:
                return count
            await leave([one.position])
        return len(moves)

    async def _store(self, moves: Sequence[_Move]) -> None:
        async with self._publisher.together(_TIMEOUT_S) as send:
            await send([(one.subject, one.data, one.headers) for one in moves])


def _known_by(position: int, message: StreamMessage) -> bytes:
    """The data of ``message``, which says by what position it is known.

    By it the store tells that this very message brought an event which may not have been published yet: a copy may have
    died between the two, and the channel be held since.
    """
    if position != message.stream_seq:
        return message.data  # It says so already.
    # Serialised messages that follow each other are one message with the fields of both.
    return message.data + CallbackBatch(position=position).SerializeToString()


def _is_held(tenant: Tenant, channel: str) -> bool:
    # One that is gone is not: its callbacks are processed as they come.
    return channel in tenant.channels and tenant.channels[channel].processing == "held"


def _subject(tenant: Tenant, channel: str) -> str:
    return callbacks_subject(tenant.queue_path, channel)
