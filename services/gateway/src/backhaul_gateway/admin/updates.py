"""Changing a tenant: read it, change it, write it unless somebody else has written meanwhile, announce it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.pauses import pauses
from backhaul_common.tenants import Tenant

from backhaul_gateway.admission.refusals import DELETING
from backhaul_gateway.ports import Announcer, TenantStore

Change = Callable[[Tenant, datetime], Tenant]
"""A pure function of the stored tenant and the time. It returns the changed tenant, or raises. It may be called several
times for one change."""

_FIRST_PAUSE_S = 0.005
_MAX_PAUSE_S = 0.1


def utc_now() -> datetime:
    """The time in whole milliseconds."""
    return in_milliseconds(datetime.now(UTC))


def in_milliseconds(moment: datetime) -> datetime:
    """``moment`` in UTC and whole milliseconds. MongoDB keeps no more, so an answer shows just what is stored."""
    moment = moment.astimezone(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


class TenantUpdates:
    """Changes tenants one revision at a time, however many copies of the gateway change one at once."""

    def __init__(
        self,
        store: TenantStore,
        announcer: Announcer,
        now: Callable[[], datetime] = utc_now,
        *,
        patience_s: float = 5.0,
    ) -> None:
        """``patience_s`` is how long a change is tried again while others write the tenant first."""
        self.store = store
        self.announcer = announcer
        self.now = now
        self._patience_s = patience_s

    async def find(self, tenant_id: str) -> Tenant:
        """The tenant as stored now; NOT_FOUND."""
        tenant = await self.store.find(tenant_id)
        if tenant is None:
            raise unknown_tenant(tenant_id)
        return tenant

    async def apply(self, tenant_id: str, change: Change) -> Tenant:
        """The tenant after ``change``; raises what ``change`` of this class raises."""
        _, after = await self.change(tenant_id, change)
        return after

    async def change(self, tenant_id: str, change: Change) -> tuple[Tenant, Tenant]:
        """The tenant before and after ``change``; NOT_FOUND, and UNAVAILABLE when others keep writing it."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._patience_s
        # Spread, so that writers who met once do not meet again.
        for pause_s in pauses(_FIRST_PAUSE_S, _MAX_PAUSE_S, spread=0.5):
            before = await self.find(tenant_id)
            now = self.now()
            after = change(before, now)
            if after == before:
                return before, before
            after = after.model_copy(update={"revision": before.revision + 1, "updated_at": now})
            if await self.store.replace(after, before.revision):
                await self.announcer.tenant_changed(tenant_id)
                return before, after
            if loop.time() + pause_s > give_up_at:
                break
            await asyncio.sleep(pause_s)
        raise BackhaulError(
            Code.UNAVAILABLE,
            "The tenant is being changed by others at the same time.",
            fix="Repeat the request.",
            retry_after_s=1,
        )


def refuse_deleting(tenant: Tenant) -> None:
    """FAILED_PRECONDITION for a tenant that is being deleted."""
    if tenant.status == "deleting":
        raise BackhaulError(
            Code.FAILED_PRECONDITION,
            DELETING,
            field="status",
            fix="Wait until GET answers 404. Its id and its queue path are free then.",
        )


def unknown_tenant(tenant_id: str) -> BackhaulError:
    """The error for an id that no tenant has."""
    return BackhaulError(Code.NOT_FOUND, f"There is no tenant {tenant_id[:64]!r}.", field="id", fix="Check the id.")
