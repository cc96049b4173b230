"""How it stands with a tenant's files, as the copy that is asked knows it: what is stored, and what it has tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from backhaul_common.tenants import Tenant

from backhaul_audit.lateness import Lateness
from backhaul_audit.ports import Locked, Locks, Probed, States, Waiting


@dataclass(frozen=True, slots=True)
class ChannelStanding:
    """One channel that asks for files: see ``ChannelState`` of the contract."""

    channel: str
    problem: str
    waiting_since_us: int
    weaknesses: Sequence[str]
    locked: Locked


class Standing:
    """``asking`` are a tenant's channels that ask for audit files, with the destination of each."""

    def __init__(
        self,
        states: States,
        locks: Locks,
        probed: Probed,
        asking: Callable[[Tenant], Mapping[str, str]],
        lateness: Lateness,
        now_us: Callable[[], int],
    ) -> None:
        self._states = states
        self._locks = locks
        self._probed = probed
        self._asking = asking
        self._lateness = lateness
        self._now_us = now_us

    async def of(self, tenant: Tenant) -> tuple[Sequence[ChannelStanding], int]:
        """Each channel that asks for files, by name; and up to when EVENTS has been read, unix time in us, 0 before the
        first. UNAVAILABLE."""
        registration, asking = tenant.registration, self._asking(tenant)
        if not asking:
            return [], await self._states.read_to_us()
        waiting = {one.channel: one for one in await self._states.waiting(registration)}
        read_to_us = await self._states.read_to_us()
        locked = await self._locks.locked(registration)
        now_us = self._now_us()
        unread = self._lateness.unread(read_to_us, now_us)
        channels = []
        for channel, destination in sorted(asking.items()):
            waits = waiting.get(channel, Waiting(channel, "", 0))
            # Who files knows best; before the first event only the probe has tried the bucket.
            wrong = waits.problem or self._probed.problem(registration, destination)
            late = self._lateness.waiting(waits.stored_us, now_us) or unread
            channels.append(
                ChannelStanding(
                    channel,
                    " ".join(filter(None, (wrong, late))),
                    waits.since_us,
                    self._probed.weaknesses(registration, destination),
                    locked.get(channel, Locked(0, 0)),
                )
            )
        return channels, read_to_us
