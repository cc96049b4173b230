"""Making digests, aligned to the hour, and putting them into their places. Every copy does it, and one succeeds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from itertools import groupby
from typing import Protocol, TypeVar

from backhaul_common import fence, mongo
from backhaul_common.directory import TenantDirectory
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.logs import get_logger
from backhaul_common.metering import Metrics
from backhaul_common.metrics import AUDIT_DIGESTS_SIGNED, AUDIT_DIGESTS_WAITING
from backhaul_common.pauses import pauses
from backhaul_common.tenants import Tenant
from backhaul_digests.line import to_object
from backhaul_digests.model import Chain, ChainKey, Digest

from backhaul_audit.digests.keys import MongoKeys
from backhaul_audit.digests.store import Due, MongoDigests
from backhaul_audit.ports import Destinations

MAX_AT_ONCE = 4
"""Chains whose digests a copy makes at the same time."""

INSTALLATION = ""
"""The destination of all digests."""


_T = TypeVar("_T")


class Told(Protocol):
    """Who publishes what was written into the outbox."""

    def written(self) -> None:
        """See ``Outbox``."""
        ...


class DigestMaker:
    """Makes the digests that are due, and uploads those that are recorded. An object store that is away delays the
    upload alone."""

    def __init__(
        self,
        database: mongo.Database,
        digests: MongoDigests,
        keys: MongoKeys,
        destinations: Destinations,
        tenants: TenantDirectory,
        asks: Callable[[Tenant], bool],
        told: Told,
        metrics: Metrics,
        now_us: Callable[[], int],
        *,
        every_s: float,
    ) -> None:
        """``asks``: whether a tenant has a channel that asks for audit files."""
        self._database = database
        self._digests = digests
        self._keys = keys
        self._destinations = destinations
        self._tenants = tenants
        self._asks = asks
        self._told = told
        self._signed = metrics.counter(AUDIT_DIGESTS_SIGNED)
        self._waiting = 0
        metrics.gauge(AUDIT_DIGESTS_WAITING, lambda: self._waiting)
        self._now_us = now_us
        self._every_us = round(every_s * 1_000_000)
        self._at_once = asyncio.Semaphore(MAX_AT_ONCE)
        self._refused: set[str] = set()
        self._log = get_logger(component="digests")

    async def run(self) -> None:
        """Make and upload until cancelled. UNAVAILABLE when MongoDB is away."""
        waits = pauses(1.0, 60.0)
        while True:
            whole = await self.make_due() and await self.upload()
            if whole:
                waits = pauses(1.0, 60.0)
            left_s = (self._every_us - self._now_us() % self._every_us) / 1e6
            await asyncio.sleep(left_s if whole else min(left_s, next(waits)))

    async def make_due(self) -> bool:
        """Make whatever is due now; whether all could be made."""
        to_us = self._now_us() // self._every_us * self._every_us
        await self._begin()
        due = await self._digests.due(to_us)
        return not due or await self._each(due, lambda one: self._make(one, to_us))

    async def upload(self) -> bool:
        """Put into their places what is recorded; whether all are."""
        while waiting := await self._digests.waiting():
            self._waiting = len(waiting)
            by_chain = groupby(sorted(waiting, key=lambda one: (one.of, one.number)), key=lambda one: one.of)
            if not await self._each([list(some) for _, some in by_chain], self._put_all):
                return False
        self._waiting = 0
        return True

    async def _begin(self) -> None:
        """A chain begins when a channel asks for files, so that its digests say of the first hour too that it was
        empty."""
        asking = {
            ChainKey(tenant.registration, Chain.EVENTS): tenant.id
            for tenant in self._tenants.tenants.values()
            if tenant.status != "deleting" and self._asks(tenant)
        }
        for of in asking.keys() - await self._digests.begun():
            await self._digests.begin(of, asking[of])

    async def _make(self, due: Due, to_us: int) -> None:
        bucket = self._destinations.named(due.of.registration, INSTALLATION).bucket
        key = await self._keys.present()
        from_us = to_us - self._every_us
        while (digest := await self._digests.make(due, bucket, key, from_us, to_us)) is not None:
            self._told.written()
            self._signed.add(due.tenant_id, due.of.chain.value)
            self._log.info(
                "digest_made",
                tenant=due.tenant_id,
                chain=due.of.chain,
                number=digest.number,
                files=digest.files,
                deletions=digest.deletions,
                hash=digest.hash,
            )

    async def _put_all(self, digests: Sequence[Digest]) -> None:
        """In their order, so that whoever looks meanwhile finds no gap."""
        for digest in digests:
            await self._put(digest)

    async def _put(self, digest: Digest) -> None:
        if not await fence.lives(self._database, digest.tenant_id, digest.of.registration):
            await self._digests.forget(digest)
            return
        # Where it was signed to lie, though the installation may have another bucket by now.
        objects = self._destinations.lying(digest.of.registration, INSTALLATION, digest.bucket)
        data = to_object(digest.line, digest.key_id, digest.signature)
        if not await objects.create(digest.key, data, {"digest-hash": digest.hash}):
            # This copy before it died, or another one; or somebody who wanted the place.
            there = bytearray()
            async for piece in objects.read(digest.key):
                there += piece
                if len(there) > len(data):
                    break
            if there != data:
                raise BackhaulError(
                    Code.FAILED_PRECONDITION,
                    f"Where the digest {digest.key} belongs lies something else.",
                    fix="Find out who put it there, and take it away.",
                )
        await self._digests.in_place(digest)

    async def _each(self, items: Collection[_T], work: Callable[[_T], Awaitable[None]]) -> bool:
        """Do ``work`` with each; whether it succeeded with all. What one tenant's lacks does not hold up another's."""

        async def one(item: _T) -> bool:
            async with self._at_once:
                try:
                    await work(item)
                except BackhaulError as exc:
                    if str(exc) not in self._refused:
                        self._refused.add(str(exc))
                        self._log.warning("digest_waits", problem=str(exc))
                    return False
                except Exception as exc:  # noqa: BLE001  # whatever is wrong with one chain, the others are signed
                    self._log.error("digest_not_made", exc_info=exc)
                    return False
            return True

        done = await asyncio.gather(*(one(item) for item in items))
        if all(done):
            self._refused.clear()
        return all(done)
