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
from backhaul_common.tenants import Tenant

from backhaul_audit.model import Chain, ChainKey, Digest
from backhaul_audit.ports import Destinations, Finding, Objects, Verified, VerifyQuery
from backhaul_audit.verification.chain import Span, verify
from backhaul_audit.verification.findings import Tally
from backhaul_audit.verification.ports import Place, PublicKeys

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


class BucketCopies:
    """A ``Stored`` of a tenant's objects where they lie."""

    def __init__(self, destinations: Destinations, registration: str) -> None:
        """FAILED_PRECONDITION where the installation has no bucket."""
        self._destinations = destinations
        self._registration = registration
        self._installation = destinations.named(registration, "")

    @property
    def bucket(self) -> str:
        """See ``Stored``."""
        return self._installation.bucket

    def digests(self, prefix: str) -> AsyncIterator[str]:
        """See ``Stored``."""
        return self._installation.keys(prefix)

    async def read(self, place: Place) -> AsyncIterator[bytes]:
        """See ``Stored``."""
        async for piece in self._objects(place).read(place.key):
            yield piece

    def _objects(self, place: Place) -> Objects:
        objects = self._destinations.named(self._registration, place.destination)
        if objects.bucket != place.bucket:
            raise BackhaulError(
                Code.FAILED_PRECONDITION, f"It was put into the bucket {place.bucket}, which is not used any more."
            )
        return objects


class BucketVerification:
    """``Verification``."""

    def __init__(self, destinations: Destinations, digests: InPlace, keys: PublicKeys) -> None:
        self._destinations = destinations
        self._digests = digests
        self._keys = keys

    async def run(self, tenant: Tenant, query: VerifyQuery) -> AsyncGenerator[Verified, None]:
        """See ``Verification``. FAILED_PRECONDITION where the installation has no bucket."""
        _check(query.heads)
        stored = BucketCopies(self._destinations, tenant.registration)
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
                        finding, step = step.result(), None
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
