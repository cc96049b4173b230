"""The checks over the buckets, as the service makes them."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Protocol

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.lifecycle import cancel
from backhaul_common.logs import get_logger
from backhaul_common.tenants import Tenant
from backhaul_digests.chain import Span, verify
from backhaul_digests.findings import Tally
from backhaul_digests.line import PREFIX
from backhaul_digests.model import Chain, ChainKey, Digest, Finding
from backhaul_digests.ports import NotThereError, Place, PublicKeys

from backhaul_audit.ports import Destinations, Objects, Verified, VerifyQuery

MAX_HEADS = 100
"""Hashes that one call may ask for."""

TOLD_S = 2.0
"""How often it is told how far a check is."""

MAX_FINDINGS = 200
"""Findings that are told at once."""

_HASH = re.compile(r"[0-9a-fA-F]{64}")


class InPlace(Protocol):
    """What the service knows of a chain."""

    async def uploaded(self, of: ChainKey) -> Digest | None:
        """The last digest that is in its place."""
        ...

    async def buckets(self, registration: str) -> Sequence[str]:
        """Every bucket that a digest was signed for."""
        ...


class BucketCopies:
    """A ``Stored`` of a tenant's objects where they lie: digests in the installation's bucket, or in one that it had
    before. Where there are several, a digest's own word counts for which it belongs into."""

    def __init__(self, destinations: Destinations, registration: str, buckets: Sequence[str]) -> None:
        """``buckets`` are those that digests were signed for. FAILED_PRECONDITION where the installation has none."""
        self._destinations = destinations
        self._registration = registration
        self._installation = destinations.named(registration, "")
        others = (name for name in buckets if name != self._installation.bucket)
        self._former = [destinations.lying(registration, "", name) for name in others]
        self._where: dict[str, Objects] = {}
        self._log = get_logger(component="verification")

    @property
    def bucket(self) -> str:
        """See ``Stored``."""
        return "" if self._former else self._installation.bucket

    async def digests(self, prefix: str) -> AsyncIterator[str]:
        """See ``Stored``."""
        for objects in (self._installation, *self._former):
            try:
                async for key in objects.keys(prefix):
                    # What somebody has copied is as good.
                    if self._where.setdefault(key, objects) is objects:
                        yield key
            except BackhaulError as exc:
                if objects is self._installation or exc.code is not Code.FAILED_PRECONDITION:
                    raise
                self._log.warning("former_bucket_unreadable", bucket=objects.bucket, error=str(exc))

    async def read(self, place: Place) -> AsyncIterator[bytes]:
        """See ``Stored``."""
        try:
            if place.bucket:
                objects = self._destinations.lying(self._registration, place.destination, place.bucket)
            else:
                objects = self._where.get(place.key, self._installation)
            async for piece in objects.read(place.key):
                yield piece
        except BackhaulError as exc:
            if exc.code is Code.NOT_FOUND:
                raise NotThereError("It is not there.") from exc
            # A file in a channel's own bucket that cannot be read is a finding; without digests nothing is.
            if exc.code is Code.FAILED_PRECONDITION and not place.key.startswith(PREFIX):
                raise NotThereError(str(exc)) from exc
            raise


class BucketVerification:
    """``Verification``."""

    def __init__(self, destinations: Destinations, digests: InPlace, keys: PublicKeys) -> None:
        self._destinations = destinations
        self._digests = digests
        self._keys = keys

    async def run(self, tenant: Tenant, query: VerifyQuery) -> AsyncGenerator[Verified, None]:
        """See ``Verification``. FAILED_PRECONDITION where the installation has no bucket."""
        _check(query.heads)
        buckets = await self._digests.buckets(tenant.registration)
        stored = BucketCopies(self._destinations, tenant.registration, buckets)
        chains = [ChainKey(tenant.registration, chain) for chain in Chain if query.chain in (None, chain)]
        last = {of: digest for of in chains if (digest := await self._digests.uploaded(of)) is not None}
        tally, findings = Tally(), list[Finding]()
        found = verify(stored, self._keys, chains, Span(*query.span), query.heads, tally, last)
        async with aclosing(found):
            step, told_at = None, time.monotonic()
            try:
                while True:
                    step = step or asyncio.ensure_future(anext(found, None))
                    done, _ = await asyncio.wait({step}, timeout=TOLD_S)
                    if done:
                        # Out of hand first: if it failed, the caller is told, and nothing is left to be cancelled.
                        ended, step = step, None
                        finding = ended.result()
                        if finding is None:
                            break
                        findings.append(finding)
                    if len(findings) >= MAX_FINDINGS or time.monotonic() - told_at > TOLD_S:
                        yield _verified(findings, tally)
                        findings, told_at = [], time.monotonic()
            finally:
                if step is not None:
                    await cancel(step)
        yield _verified(findings, tally, done=True)


def _verified(findings: Sequence[Finding], tally: Tally, *, done: bool = False) -> Verified:
    return Verified(
        findings,
        tally.digests,
        tally.valid_digests,
        tally.files,
        tally.valid_files,
        (tally.found_from_us, tally.found_to_us),
        done,
    )


def _check(heads: Sequence[str]) -> None:
    if len(heads) > MAX_HEADS or not all(_HASH.fullmatch(head) for head in heads):
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            f"Heads are at most {MAX_HEADS} hashes of 64 hex digits each.",
            field="heads",
            fix="Pass hashes as GetHead and the notices audit.digest give them.",
        )
