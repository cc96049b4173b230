"""Watch: changes of a tenant's rows in the order of their positions, from one on, and then as they happen."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.places import Places
from backhaul_common.tenants import Tenant
from backhaul_proto.suppression.v1 import suppression_pb2 as pb

from backhaul_suppression.messages import FAMILIES, KINDS, change_message
from backhaul_suppression.model import Change, Family, Kind
from backhaul_suppression.ports import Changes, Reads
from backhaul_suppression.tenancy import KnownTenants

MAX_WATCHES_OF_TENANT = 20
MAX_WATCHES = 500

PAGE_CHANGES = 200
"""Changes that are read at once, and all that a watch keeps, however slowly it is read."""

LOOK_S = 5.0
"""A watch that hears of nothing looks so often whether there is something, whether MongoDB is there, and whether the
tenant is."""

MAX_UNTOLD = 1_000
"""Changes that the filter leaves out before the position is told all the same."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which changes are told of. What is None or empty does not filter."""

    family: Family | None = None
    kinds: frozenset[Kind] = frozenset()

    def has(self, change: Change) -> bool:
        """Whether the change is told of."""
        key = change.row.key
        return self.family in {None, key.address.family} and (not self.kinds or key.kind in self.kinds)


class Moved(NamedTuple):
    """``change`` happened, or nothing that is told of did; whoever watches again begins behind ``position``."""

    position: int
    change: Change | None = None


class Watching:
    """Follows changes for those who watch."""

    def __init__(self, reads: Reads, tenants: KnownTenants, changes: Changes) -> None:
        self._reads = reads
        self._tenants = tenants
        self._places = Places("watches", of_tenant=MAX_WATCHES_OF_TENANT, of_all=MAX_WATCHES)
        self._woken: dict[str, set[asyncio.Event]] = defaultdict(set)
        changes.listen(self._changed)

    async def run(self, tenant: Tenant, after: int | None, wanted: Wanted) -> AsyncGenerator[Moved, None]:
        """Every change that is ``wanted`` behind the position ``after`` (None: that of now, which is told first),
        without end. Where there is none yet, the position is told at once, so that nobody waits to learn that.

        No change is left out or told twice, and each is told after those before it. INVALID_ARGUMENT for a position
        that no change has yet; RATE_LIMITED; NOT_FOUND when the tenant is deleted; UNAVAILABLE when MongoDB is away.
        """
        registration = tenant.registration
        with self._places.taken(registration), self._waking(registration) as woken:
            position = told = await self._beginning(registration, after)
            silent = after is not None
            if not silent:
                yield Moved(position)
            while True:
                await self._still(tenant)
                # Before the changes are read: one that comes later wakes this watch again.
                woken.clear()
                page = await self._reads.changes_after(registration, position, PAGE_CHANGES)
                for change in page:
                    position = change.position
                    if wanted.has(change):
                        yield Moved(position, change)
                        told, silent = position, False
                at_end = len(page) < PAGE_CHANGES
                if position - told >= MAX_UNTOLD or (silent and at_end):
                    yield Moved(position)
                    told, silent = position, False
                if not at_end:
                    continue
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await woken.wait()
                if told < position and not woken.is_set():
                    yield Moved(position)
                    told = position

    async def _beginning(self, registration: str, after: int | None) -> int:
        last = await self._reads.last_position(registration)
        if after is None:
            return last
        if not 0 <= after <= last:
            raise BackhaulError(
                Code.INVALID_ARGUMENT,
                f"No change has the position {after}; the last has {last}.",
                field="after_position",
                fix="Begin behind a position that was told, or at 0. Where it was told, an older state was restored, "
                "or the tenant deleted and created anew: begin at 0 with nothing.",
            )
        return after

    async def _still(self, tenant: Tenant) -> None:
        """Returns while the registration lives. NOT_FOUND; UNAVAILABLE."""
        now = await self._tenants.require(tenant.id)
        if now.registration != tenant.registration:
            raise BackhaulError(
                Code.NOT_FOUND,
                "The tenant was deleted, and created anew.",
                field="tenant_id",
                fix="Begin at 0 with nothing.",
            )

    @contextmanager
    def _waking(self, registration: str) -> Iterator[asyncio.Event]:
        woken = asyncio.Event()
        self._woken[registration].add(woken)
        try:
            yield woken
        finally:
            self._woken[registration].discard(woken)
            if not self._woken[registration]:
                del self._woken[registration]

    def _changed(self, registration: str) -> None:
        for woken in self._woken.get(registration, ()):
            woken.set()


class WatchCalls:
    """``Watch`` as the servicer serves it."""

    def __init__(self, watching: Watching) -> None:
        self._watching = watching

    async def run(self, tenant: Tenant, request: pb.WatchRequest) -> AsyncGenerator[pb.WatchResponse, None]:
        """See ``Watching.run``. INVALID_ARGUMENT names the field."""
        kinds = [KINDS.value(kind, "kinds") for kind in request.kinds]
        if None in kinds:
            raise BackhaulError(
                Code.INVALID_ARGUMENT, "kinds has one that says nothing.", field="kinds", fix="Take it out."
            )
        wanted = Wanted(FAMILIES.value(request.family, "family"), frozenset(kind for kind in kinds if kind))
        after = request.after_position if request.HasField("after_position") else None
        async with aclosing(self._watching.run(tenant, after, wanted)) as moves:
            async for moved in moves:
                change = change_message(moved.change) if moved.change is not None else None
                yield pb.WatchResponse(change=change, position=moved.position)
