"""The one door to what all tenants share: whoever spends some of it asks here first, whichever way a request came."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.logs import get_logger
from backhaul_common.metering import Metrics
from backhaul_common.metrics import RATE_LIMITED

from backhaul_gateway.admission.refusals import not_active
from backhaul_gateway.admission.room import CallbackRoom
from backhaul_gateway.admission.state import TenantState

_REPEAT = "Repeat the request after the time in Retry-After. The platform team can raise the tenant's limits ({})."
_OVER_SHARE_S = 5.0


class RefusedError(BackhaulError):
    """A refusal that is counted under a word of its own, ``outcome``. Others are counted under their code."""

    def __init__(
        self,
        outcome: str,
        code: Code,
        message: str,
        *,
        field: str = "",
        fix: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(code, message, field=field, fix=fix, retry_after_s=retry_after_s)
        self.outcome = outcome


class OverShareError(RefusedError):
    """The tenant fills its share of the callback log. Never a 4xx: providers drop what is answered with one."""

    def __init__(self) -> None:
        super().__init__(
            "quota",
            Code.UNAVAILABLE,
            "The tenant's share of the callback log is full.",
            fix="Repeat the request later; what is processed makes room.",
            retry_after_s=_OVER_SHARE_S,
        )


class Overdrafts(Protocol):
    """Where callbacks can wait that may not pass now."""

    def admits(self, path: str, size: int) -> bool:
        """Whether one of about ``size`` bytes can, under a queue path's key."""
        ...


class Admission:
    """Rates, questions at once, and shares of the callback log."""

    def __init__(self, room: CallbackRoom, metrics: Metrics, overdrafts: Overdrafts | None = None) -> None:
        self._room = room
        self._overdrafts = overdrafts
        self._rate_limited = metrics.counter(RATE_LIMITED)
        self._log = get_logger(component="admission")

    def callback(self, state: TenantState, size: int) -> None:
        """One message of about ``size`` bytes for the log may pass: a callback, or a dead letter that is sent again.

        Raises RATE_LIMITED, or OverShareError.
        """
        wait_s = state.bucket.take()
        if wait_s:
            raise self._too_many(state, wait_s)
        if not self._room.admits(state.path, size):
            if self._room.refused(state.path, size):
                self._log.warning("callback_log_share_full", tenant=state.tenant.id)
            raise OverShareError

    def posted(self, state: TenantState, size: int) -> BackhaulError | None:
        """The same for a provider's callback, of a tenant that may be suspended. None where it may pass; where it can
        be held instead, why it may not. Raises what ``callback`` raises, and FORBIDDEN."""
        try:
            if state.tenant.status != "active":
                raise not_active(state.tenant)
            self.callback(state, size)
        except BackhaulError as refusal:
            if state.tenant.status == "deleting" or self._overdrafts is None:
                raise
            if not self._overdrafts.admits(state.path, size):
                raise
            return refusal
        return None

    def token(self, state: TenantState) -> None:
        """A provider's request for an access token may pass, which the log holds nothing of. Raises RATE_LIMITED."""
        wait_s = state.bucket.take()
        if wait_s:
            raise self._too_many(state, wait_s)

    def _too_many(self, state: TenantState, wait_s: float) -> BackhaulError:
        self._rate_limited.add(state.tenant.id)
        return BackhaulError(
            Code.RATE_LIMITED,
            f"The tenant's limit is {state.tenant.limits.requests_per_second:g} requests a second.",
            fix=_REPEAT.format("requests_per_second, burst"),
            retry_after_s=wait_s,
        )

    @contextmanager
    def reading(self, state: TenantState) -> Iterator[None]:
        """Around the answer to a question; raises RATE_LIMITED."""
        reads, limits = state.reads, state.tenant.limits
        wait_s = reads.begin()
        if wait_s:
            self._rate_limited.add(state.tenant.id)
            raise BackhaulError(
                Code.RATE_LIMITED,
                f"The tenant's limit is {limits.reads_per_second:g} reads a second, {limits.concurrent_reads} at once.",
                fix=_REPEAT.format("reads_per_second, read_burst, concurrent_reads"),
                retry_after_s=wait_s,
            )
        try:
            yield
        finally:
            reads.end()
