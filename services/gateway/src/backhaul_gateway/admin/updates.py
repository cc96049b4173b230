"""Changing what is kept by revision: read it, change it, write it unless somebody else has meanwhile, announce it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Generic, Protocol, Self, TypeVar

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.pauses import pauses
from backhaul_common.tenants import Tenant

from backhaul_gateway.admission.refusals import DELETING
from backhaul_gateway.ports import Announcer, TenantStore

_FIRST_PAUSE_S = 0.005
_MAX_PAUSE_S = 0.1


def utc_now() -> datetime:
    """The time in whole milliseconds."""
    return in_milliseconds(datetime.now(UTC))


def in_milliseconds(moment: datetime) -> datetime:
    """``moment`` in UTC and whole milliseconds. MongoDB keeps no more, so an answer shows just what is stored."""
    moment = moment.astimezone(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


class Changed(Protocol):
    """What is kept by revision: a tenant, or a service account."""

    @property
    def revision(self) -> int: ...

    def model_copy(self, *, update: Mapping[str, Any] | None = None) -> Self: ...


V = TypeVar("V", bound=Changed)


class Kept(Protocol[V]):
    """Where they are kept. UNAVAILABLE from every method while it is away."""

    async def find(self, id_: str, /) -> V | None:
        """The one with this id as stored now, or None."""
        ...

    async def replace(self, value: V, revision: int, /) -> bool:
        """Store ``value`` if the stored one still has ``revision`` and is the same registration; False otherwise."""
        ...


class Updates(Generic[V]):
    """Changes what is kept one revision at a time, however many copies of the gateway change one at once."""

    def __init__(
        self,
        noun: str,
        kept: Kept[V],
        announce: Callable[[str], Awaitable[None]],
        now: Callable[[], datetime] = utc_now,
        *,
        patience_s: float = 5.0,
    ) -> None:
        """``patience_s`` is how long a change is tried again while others write the same one first. ``announce`` is
        told the id of one that was changed."""
        self.noun = noun
        self.announce = announce
        self.now = now
        self._kept = kept
        self._patience_s = patience_s

    async def find(self, id_: str) -> V:
        """The one with this id as stored now; NOT_FOUND."""
        value = await self._kept.find(id_)
        if value is None:
            raise unknown(self.noun, id_)
        return value

    async def apply(self, id_: str, change: Callable[[V, datetime], V]) -> V:
        """The value after ``change``; raises what ``change`` of this class raises."""
        _, after = await self.change(id_, change)
        return after

    async def change(self, id_: str, change: Callable[[V, datetime], V]) -> tuple[V, V]:
        """The value before and after ``change``; NOT_FOUND, and UNAVAILABLE when others keep writing it.

        ``change`` is a pure function of the stored value and the time. It returns the changed one, or raises. It may be
        called several times for one change.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._patience_s
        # Spread, so that writers who met once do not meet again.
        for pause_s in pauses(_FIRST_PAUSE_S, _MAX_PAUSE_S, spread=0.5):
            before = await self.find(id_)
            now = self.now()
            after = change(before, now)
            if after == before:
                return before, before
            after = after.model_copy(update={"revision": before.revision + 1, "updated_at": now})
            if await self._kept.replace(after, before.revision):
                await self.announce(id_)
                return before, after
            if loop.time() + pause_s > give_up_at:
                break
            await asyncio.sleep(pause_s)
        raise BackhaulError(
            Code.UNAVAILABLE,
            f"The {self.noun} is being changed by others at the same time.",
            fix="Repeat the request.",
            retry_after_s=1,
        )


class TenantUpdates(Updates[Tenant]):
    """Changes tenants."""

    def __init__(
        self,
        store: TenantStore,
        announcer: Announcer,
        now: Callable[[], datetime] = utc_now,
        *,
        patience_s: float = 5.0,
    ) -> None:
        """See ``Updates``."""
        super().__init__("tenant", store, announcer.tenant_changed, now, patience_s=patience_s)
        self.store = store
        self.announcer = announcer


Check = Callable[[Tenant, Tenant, datetime], None]
"""Looks at a tenant before and after a change, and raises where whoever asks may not make it."""


def unchecked(_before: Tenant, _after: Tenant, _now: datetime) -> None:
    """The check of those who may make any change."""


def refuse_deleting(tenant: Tenant) -> None:
    """FAILED_PRECONDITION for a tenant that is being deleted."""
    if tenant.status == "deleting":
        raise BackhaulError(
            Code.FAILED_PRECONDITION,
            DELETING,
            field="status",
            fix="Wait until GET answers 404. Its id and its queue path are free then.",
        )


def unknown(noun: str, id_: str) -> BackhaulError:
    """The error for an id that no ``noun`` has."""
    return BackhaulError(Code.NOT_FOUND, f"There is no {noun} {id_[:64]!r}.", field="id", fix="Check the id.")


def unknown_tenant(tenant_id: str) -> BackhaulError:
    """The error for an id that no tenant has."""
    return unknown("tenant", tenant_id)


def queue_path_taken(tenant: Tenant) -> BackhaulError:
    """The error for a queue path that another tenant has."""
    return BackhaulError(
        Code.CONFLICT,
        f"The queue path {tenant.queue_path!r} belongs to another tenant (upper and lower case count as one).",
        field="queue_path",
        fix="Choose a queue path that no other tenant has.",
    )


def id_taken(tenant: Tenant) -> BackhaulError:
    """The error for an id that another tenant has."""
    return BackhaulError(
        Code.CONFLICT,
        f"There is a tenant {tenant.id!r} already.",
        field="id",
        fix="Choose another id. That of a tenant that is being deleted is free as soon as GET answers 404.",
    )
