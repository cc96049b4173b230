"""Who makes a call, for the handlers: one of Backhaul's own services, or a service account."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextvars import ContextVar
from math import ceil

from backhaul_common.accounts import ServiceAccount
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.limits import TokenBucket

_CURRENT: ContextVar[Caller | None] = ContextVar("backhaul_caller", default=None)


class Caller:
    """One of Backhaul's own services, which may do everything; or a service account, with what it has left of its
    limits. Of an account there is one, for all its calls, and it is always as the account is now."""

    def __init__(self, account: ServiceAccount | None = None, clock: Callable[[], float] | None = None) -> None:
        """``clock`` tells seconds, and is needed with an account."""
        self.account = account
        self.streams = 0
        """How many streams are under way."""
        if account is not None and clock is not None:
            limits = account.limits
            self._requests = TokenBucket(limits.requests_per_second, limits.burst, clock)
            self._checks = TokenBucket(limits.checks_per_second, limits.checks_burst, clock)

    def become(self, account: ServiceAccount) -> None:
        """The account was changed. What is spent of the limits stays spent."""
        limits = account.limits
        self.account = account
        self._requests = self._requests.adjusted(limits.requests_per_second, limits.burst)
        self._checks = self._checks.adjusted(limits.checks_per_second, limits.checks_burst)

    @property
    def internal(self) -> bool:
        """Whether it is one of Backhaul's own services: only they act for the operator, or in another's name."""
        return self.account is None

    @property
    def author(self) -> str:
        """How its doings are signed: ``service:<id>``; empty of Backhaul's own, which say themselves for whom they
        act."""
        return f"service:{self.account.id}" if self.account is not None else ""

    @property
    def purposes(self) -> Collection[str]:
        """What it may ask for and see; empty: everything."""
        return self.account.purposes if self.account is not None else ()

    def require_purpose(self, purpose: str, *, field: str = "sending.purpose") -> None:
        """FORBIDDEN where it may not ask for ``purpose``; empty is any, which who is bound to some may not ask for."""
        if (purposes := self.purposes) and purpose not in purposes:
            raise BackhaulError(
                Code.FORBIDDEN,
                f"{self} may ask for {' and '.join(purposes)} messages only.",
                field=field,
                fix=f"Name the purpose: {' or '.join(purposes)}.",
            )

    def take_request(self) -> None:
        """Count one call other than a check. RATE_LIMITED, with the time to wait."""
        if self.account is not None and (wait_s := self._requests.take()):
            raise self._too_many("calls", self.account.limits.requests_per_second, wait_s)

    def take_check(self) -> None:
        """Count one call that checks, as one address. RATE_LIMITED, with the time to wait."""
        if self.account is not None and (wait_s := self._checks.take_many(1)):
            raise self._too_many("checks", self.account.limits.checks_per_second, wait_s)

    def take_checks(self, count: int) -> None:
        """Count the ``count`` addresses of one call that checks, with the one as which it was counted. RATE_LIMITED,
        with the time to wait.

        More at once than the burst pass when nothing is spent.
        """
        if self.account is not None and count > 1 and (wait_s := self._checks.take_many(count, taken=1)):
            raise self._too_many("checks", self.account.limits.checks_per_second, wait_s)

    async def wait_for_checks(self, count: int) -> None:
        """Count ``count`` addresses of a stream, which goes on when it is its turn: who sends more waits, since nothing
        more is read."""
        while self.account is not None and count > 0 and (wait_s := self._checks.take_many(count)):  # noqa: ASYNC110  # a rate is time that passes
            await asyncio.sleep(wait_s)

    def begin_stream(self) -> None:
        """Count a stream that begins; ``streams`` is to be lowered at its end. RATE_LIMITED."""
        if self.account is not None and self.streams >= self.account.limits.concurrent_streams:
            raise BackhaulError(
                Code.RATE_LIMITED,
                f"{self} has {self.streams} streams under way, as many as it may.",
                fix="End those that are no longer read, or use one for several things.",
                retry_after_s=1.0,
            )
        self.streams += 1

    def _too_many(self, what: str, rate: float, wait_s: float) -> BackhaulError:
        return BackhaulError(
            Code.RATE_LIMITED,
            f"{self} may make {rate:g} {what} a second.",
            fix="Wait as long as retry_after_s says, and spread them.",
            # Rounded up: whoever comes back by then must not be a moment early.
            retry_after_s=ceil(wait_s * 1000) / 1000,
        )

    def __str__(self) -> str:
        return f"The service {self.account.id!r}" if self.account is not None else "Backhaul"


def caller() -> Caller:
    """Who makes the call that is being handled. Where a server asks for no credential, that is Backhaul itself."""
    return _CURRENT.get() or Caller()


def is_called_by(caller: Caller) -> None:
    """What follows in this task is done for ``caller``."""
    _CURRENT.set(caller)
