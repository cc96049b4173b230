"""What a callback would become: read by what the consumer reads with, and kept nowhere."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import islice

from backhaul_channels import Ignored
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import channel_key, queue_path_key
from backhaul_common.sizes import PAGE_BYTES
from backhaul_common.tenants import Tenant
from backhaul_common.turns import Turn
from backhaul_proto.callback.v1.callback_pb2 import SOURCE_CALLBACK, Callback

from backhaul_normalizer.model import Fact, Rejection
from backhaul_normalizer.normalize import Normalizer
from backhaul_normalizer.ports import KnownTenants
from backhaul_normalizer.scans import Scans

MAX_PREVIEWED = 1000
"""Parts that are told of one callback."""

MAX_PREVIEW_S = 4.0
"""A preview ends after this, a little before whoever called gives up."""

_TURN_S = 0.005
"""How long a preview may keep the event loop to itself: less than the consumer, which has what came in to read."""

_REST = 1.0
"""For how much of that time it then leaves the loop to others. The consumer needs it some twenty times for a batch, and
would otherwise wait for as many parts of previews: the largest take half a second each."""

Read = Fact | Ignored | Rejection


class Previews:
    """Reads one callback at a time, by turns of the tenants."""

    def __init__(self, directory: KnownTenants, normalizer: Normalizer) -> None:
        self._directory = directory
        self._normalizer = normalizer
        self._turns = Scans(1, outlives_asker=False)

    async def of(self, tenant_id: str, channel: str, callback: Callback) -> tuple[list[Read], bool]:
        """What the parts of ``callback`` would become, in the order of its body; and whether there are more.

        MAX_PREVIEWED at most, and PAGE_BYTES of events. The callback's tenant, channel and provider are set to those of
        the tenant's channel. NOT_FOUND where there is none; DEADLINE_EXCEEDED.
        """
        tenant = await tenant_with(self._directory, tenant_id, channel_key(channel))
        own = Callback()
        own.CopyFrom(callback)
        own.tenant_id, own.registration = tenant.id, tenant.registration
        own.channel = channel_key(channel)
        own.provider = tenant.channels[own.channel].provider
        own.source = SOURCE_CALLBACK
        try:
            async with self._turns.turn(tenant.registration, MAX_PREVIEW_S) as left_s, asyncio.timeout(left_s):
                return await self._read(own, queue_path_key(tenant.queue_path))
        except TimeoutError as exc:
            raise _too_long() from exc

    async def _read(self, callback: Callback, path: str) -> tuple[list[Read], bool]:
        turn = Turn(_TURN_S, _REST)
        read: list[Read] = []
        rejected: dict[int, Rejection] = {}
        size, more = 0, False
        for one in self._normalizer.read(callback, 0, path):
            await turn.over()
            if isinstance(one, Rejection):
                rejected[one.position] = one
                continue
            size += len(one.payload) if isinstance(one, Fact) else 0
            more = more or len(read) == MAX_PREVIEWED or (size > PAGE_BYTES and bool(read))
            if not more:
                read.append(one)
        parts = list(islice(_in_order(read, rejected, more=more), MAX_PREVIEWED + 1))
        return parts[:MAX_PREVIEWED], more or len(parts) > MAX_PREVIEWED


async def tenant_with(directory: KnownTenants, tenant_id: str, channel: str) -> Tenant:
    """The tenant, which has a channel of that key. NOT_FOUND; UNAVAILABLE."""
    tenant: Tenant | None = await directory.require(tenant_id)
    if tenant is None or channel not in tenant.channels:
        # Whoever made the channel a moment ago may have been heard of elsewhere only.
        tenant = await directory.reload(tenant_id)
    if tenant is None or channel not in tenant.channels:
        raise BackhaulError(
            Code.NOT_FOUND,
            "The tenant has no such channel.",
            field="channel",
            fix="Check the label; the tenant's channels are those that the platform team has configured.",
        )
    return tenant


def _in_order(read: Iterable[Read], rejected: dict[int, Rejection], *, more: bool) -> Iterable[Read]:
    """Dead letters, which the normalizer tells last, at their places among the other parts. Where these were cut there
    are ``more``, and what stands behind the cut is left out."""
    position = 0
    for one in read:
        while position in rejected:
            yield rejected[position]
            position += 1
        yield one
        position += 1
    if not more:
        yield from (rejected[place] for place in sorted(rejected) if place >= position)


def _too_long() -> BackhaulError:
    return BackhaulError(
        Code.DEADLINE_EXCEEDED,
        f"The callback could not be read within {MAX_PREVIEW_S:g} s.",
        field="body",
        fix="Send fewer of its events at once.",
    )
