"""When a call is repeated. Pure: what happened goes in, a pause or the final error comes out."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from backhaul_client.errors import (
    BackhaulError,
    DeadlineExceededError,
    ProblemError,
    RateLimitedError,
    UnavailableError,
)

_FIRST_PAUSE_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How often, and for how long altogether, a call is repeated that may be.

    What only reads is repeated after any failure that may pass. What changes something is repeated only when it
    certainly was not carried out: there was no connection, or it was over the tenant's limit. ``tries`` counts the
    first one. Each pause is twice the one before, up to ``longest_pause_s``. A service that asks for a longer pause
    than is left of ``max_pause_s`` is not asked again.
    """

    tries: int = 4
    max_pause_s: float = 15.0
    longest_pause_s: float = inf
    jitter: Callable[[], float] = random.random
    """From 0 to 1: clients that failed together must not come back together."""

    def __post_init__(self) -> None:
        if self.tries < 1 or self.max_pause_s < 0:
            raise ValueError("Retries needs tries of at least 1 and a max_pause_s of at least 0.")


class Tries:
    """The tries of one call. ``reads`` says whether it changes nothing."""

    def __init__(self, retries: Retries, *, reads: bool) -> None:
        self._retries = retries
        self._reads = reads
        self._left = retries.tries
        self._pause_left_s = retries.max_pause_s
        self._next_pause_s = _FIRST_PAUSE_S

    def pause_after(self, error: BackhaulError, *, sent: bool) -> float:
        """Seconds to wait before the next try; raises ``error`` when there is none.

        ``sent`` is False where the request cannot have reached the service.
        """
        self._left -= 1
        if not self._left or not self._may_pass(error, sent=sent):
            raise error
        pause_s = self._next_pause_s * (0.5 + self._retries.jitter())
        self._next_pause_s = min(self._next_pause_s * 2, self._retries.longest_pause_s)
        if isinstance(error, ProblemError) and error.retry_after_s is not None:
            pause_s = max(pause_s, error.retry_after_s)
        if pause_s > self._pause_left_s:
            raise error
        self._pause_left_s -= pause_s
        return pause_s

    def _may_pass(self, error: BackhaulError, *, sent: bool) -> bool:
        if not sent or isinstance(error, RateLimitedError):
            return True
        if isinstance(error, ProblemError):
            return self._reads and isinstance(error, UnavailableError | DeadlineExceededError)
        return self._reads
