"""What buckets cannot promise: each is tried out when it is new here, and then every hour."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from backhaul_common.directory import TenantDirectory
from backhaul_common.errors import BackhaulError
from backhaul_common.logs import get_logger
from backhaul_common.pauses import pauses

from backhaul_audit.objects.bucket import Bucket
from backhaul_audit.objects.destinations import OWN, Buckets
from backhaul_audit.objects.failures import in_words
from backhaul_audit.objects.leftovers import end_uploads
from backhaul_audit.objects.trial import HOLD_S, PREFIX, cleared, tried

EVERY_S = 3600.0
MAX_AT_ONCE = 4
"""Buckets that are tried at the same time."""

MAX_UPLOAD_S = 86_400.0
"""No upload takes so long: whoever began it was killed."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 600.0
_CLEAR_AFTER_S = HOLD_S + 5.0


@dataclass(slots=True)
class _Probed:
    """What is known of one bucket. ``due`` is when it is tried again, ``clear`` when what is left there is deleted, by
    the clock of ``Probes``."""

    bucket: Bucket
    registration: str
    """Empty for the installation's."""
    due: float
    clear: float = float("inf")
    problem: str = ""
    weaknesses: tuple[str, ...] = ()
    left: int = 0
    failed: Iterator[float] = field(default_factory=lambda: pauses(_FIRST_PAUSE_S, _LONGEST_PAUSE_S))


class Probes:
    """``Probed``. Every copy asks for itself, as each answers for all."""

    def __init__(
        self,
        buckets: Buckets,
        tenants: TenantDirectory,
        *,
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._buckets = buckets
        self._every_s = every_s
        self._clock = clock
        self._probed: dict[tuple[str, str], _Probed] = {}
        self._changed = asyncio.Event()
        self._log = get_logger(component="bucket_probe")
        tenants.listen(lambda _id, _tenant: self._changed.set())

    def problem(self, registration: str, destination: str) -> str:
        """See ``Probed``. Only what a trial found: that another call failed may be over by now, and this is tried again
        until it is."""
        try:
            self._buckets.named(registration, destination)
        except BackhaulError as exc:
            return in_words(exc)
        probed = self._probed.get(_key(registration, destination))
        return probed.problem if probed is not None else ""

    def weaknesses(self, registration: str, destination: str) -> Sequence[str]:
        """See ``Probed``. Empty before the bucket was tried."""
        probed = self._probed.get(_key(registration, destination))
        if probed is None:
            return ()
        if not probed.left:
            return probed.weaknesses
        left = f"A lock, or missing rights, keep what a probe has written there: {probed.left} under {PREFIX}."
        return (*probed.weaknesses, left)

    async def run(self) -> None:
        """Try what is due, for ever."""
        while True:
            self._changed.clear()
            wait_s = await self.step()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()

    async def step(self) -> float:
        """Try what is due now; in how many seconds something is due again."""
        now = self._clock()
        everywhere = self._buckets.everywhere()
        self._probed = {
            key: probed
            if (probed := self._probed.get(key)) and probed.bucket is bucket
            else _Probed(bucket, key[0], now)
            for key, bucket in everywhere.items()
        }
        turns = asyncio.Semaphore(MAX_AT_ONCE)

        async def in_turn(probed: _Probed) -> None:
            async with turns:
                await self._try(probed)

        await asyncio.gather(*(in_turn(each) for each in self._probed.values() if min(each.due, each.clear) <= now))
        next_due = min((min(each.due, each.clear) for each in self._probed.values()), default=float("inf"))
        return min(max(next_due - self._clock(), 0.0), self._every_s)

    async def _try(self, probed: _Probed) -> None:
        bucket = probed.bucket
        try:
            if probed.due > self._clock():
                probed.left = await bucket.trial(lambda plain, creating: cleared(plain, creating, bucket.bucket))
                probed.clear = float("inf")
                return
            outcome = await bucket.trial(lambda plain, creating: tried(plain, creating, bucket.bucket))
            await self._end_uploads(probed)
        except BackhaulError as exc:
            probed.problem = in_words(exc)
            probed.due = self._clock() + next(probed.failed)
            probed.clear = float("inf")
            return
        before = probed.weaknesses
        probed.problem, probed.weaknesses, probed.left = "", tuple(outcome.weaknesses), 0
        probed.failed = pauses(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        probed.due = self._clock() + self._every_s
        probed.clear = self._clock() + _CLEAR_AFTER_S if outcome.left else float("inf")
        if probed.weaknesses != before:
            self._log.warning("bucket_weaknesses", bucket=bucket.bucket, weaknesses=list(probed.weaknesses))

    async def _end_uploads(self, probed: _Probed) -> None:
        name, before = probed.bucket.bucket, datetime.now(UTC) - timedelta(seconds=MAX_UPLOAD_S)
        own = (f"tenants/{probed.registration}/",) if probed.registration else ("tenants/", "digests/")
        ended = await probed.bucket.trial(lambda plain, _: end_uploads(plain, name, (*own, PREFIX), before))
        if ended:
            self._log.info("uploads_ended", bucket=name, uploads=ended)


def _key(registration: str, destination: str) -> tuple[str, str]:
    return ("", OWN) if destination == OWN else (registration, destination)
