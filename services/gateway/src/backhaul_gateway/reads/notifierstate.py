"""What the notifier says of a tenant: how it goes with what its application is told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.tenants import Tenant
from backhaul_proto.notifier.v1 import notifier_pb2 as pb

from backhaul_gateway.reads.together import Together
from backhaul_gateway.web.problems import NotInstalledError

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; grpc.aio's channels make the one class answer awaitables.
    from backhaul_proto.notifier.v1.notifier_pb2_grpc import NotifierServiceAsyncStub

_PATIENCE_S = 2.0
"""Less than the status has for a part: of a tenant without subscriptions, the notifier's silence is no error."""


@dataclass(slots=True)
class NotifierState:
    """What is known; None where the notifier did not say."""

    active: int | None = None
    paused: int | None = None
    disabled: int | None = None
    failing: int | None = None
    waiting: int | None = None
    held: int | None = None
    failed: int | None = None
    waiting_since: datetime | None = None


class NotifierStates:
    """Asks the notifier, and remembers who depends on it."""

    def __init__(self, notifier: NotifierServiceAsyncStub) -> None:
        self._notifier = notifier
        self._answers = Together(self._ask)
        self._told: set[str] = set()
        """Registrations that had subscriptions when they were last asked about."""

    async def fill(self, state: NotifierState, tenant: Tenant) -> None:
        """Say in ``state`` what is known. UNAVAILABLE of a tenant that is known to have subscriptions;
        FAILED_PRECONDITION says in words what Backhaul has stopped, with ``state`` filled in all the same."""
        try:
            answer = await self._answers.of(tenant)
        except BackhaulError as exc:
            if tenant.registration in self._told or isinstance(exc, NotInstalledError):
                raise
            return
        state.active, state.paused, state.disabled = answer.active, answer.paused, answer.disabled
        state.failing, state.waiting, state.failed = answer.failing, answer.waiting, answer.failed
        state.held = answer.held
        if answer.oldest_waiting_at_us:
            state.waiting_since = datetime.fromtimestamp(answer.oldest_waiting_at_us / 1e6, UTC)
        if answer.active or answer.paused or answer.disabled:
            self._told.add(tenant.registration)
        else:
            self._told.discard(tenant.registration)
        if answer.problem:
            raise BackhaulError(Code.FAILED_PRECONDITION, answer.problem)

    async def _ask(self, tenant: Tenant) -> pb.GetStateResponse:
        return await self._notifier.GetState(pb.GetStateRequest(tenant_id=tenant.id), timeout=_PATIENCE_S)
