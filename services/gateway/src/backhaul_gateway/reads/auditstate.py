"""How it stands with a channel's audit files, as the audit service says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from backhaul_channels.adapter import Adapter
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.tenants import Channel, Tenant
from backhaul_proto.audit.v1 import audit_pb2 as pb
from pydantic import ValidationError

from backhaul_gateway.reads.together import Together
from backhaul_gateway.web.problems import NotInstalledError

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; grpc.aio's channels make the one class answer awaitables.
    from backhaul_proto.audit.v1.audit_pb2_grpc import AuditServiceAsyncStub


@dataclass(slots=True)
class AuditState:
    """What is known of a channel's files; of one that does not ask for any, nothing."""

    asked: bool = False
    waiting_since: datetime | None = None
    read_to: datetime | None = None
    weaknesses: tuple[str, ...] = ()
    locked_files: int = 0
    locked_until: datetime | None = None


class AuditStates:
    """Asks audit, but not about channels that ask for no files: those do not depend on it."""

    def __init__(self, audit: AuditServiceAsyncStub, adapters: Mapping[str, Adapter[Any]]) -> None:
        self._audit = audit
        self._adapters = adapters
        self._answers = Together(self._ask)

    async def fill(self, state: AuditState, tenant: Tenant, channel: Channel) -> None:
        """Say in ``state`` what is known. UNAVAILABLE; FAILED_PRECONDITION says in words what keeps the files from
        being written, with ``state`` filled in all the same."""
        state.asked = self._asked(channel)
        if not state.asked:
            return
        try:
            answer = await self._answers.of(tenant)
        except NotInstalledError as exc:
            # The others' work is not missed where they are not installed; these files are asked for.
            raise BackhaulError(Code.FAILED_PRECONDITION, unfiled(exc)) from exc
        if answer.read_to_us:
            state.read_to = datetime.fromtimestamp(answer.read_to_us / 1e6, UTC)
        for one in answer.channels:
            if one.channel == channel.key:
                if one.waiting_since_us:
                    state.waiting_since = datetime.fromtimestamp(one.waiting_since_us / 1e6, UTC)
                state.weaknesses = tuple(one.weaknesses)
                state.locked_files = one.locked_files
                if one.locked_until_us:
                    state.locked_until = datetime.fromtimestamp(one.locked_until_us / 1e6, UTC)
                if one.problem:
                    raise BackhaulError(Code.FAILED_PRECONDITION, one.problem)

    def asking(self, tenant: Tenant) -> Sequence[Channel]:
        """The channels that ask for files."""
        return [channel for channel in tenant.channels.values() if self._asked(channel)]

    async def of(self, tenant: Tenant) -> Mapping[str, str]:
        """What keeps files from being written, in words, by the keys of channels. UNAVAILABLE; a tenant that asks for
        no files does not depend on it."""
        if not self.asking(tenant):
            return {}
        answer = await self._answers.of(tenant)
        return {one.channel: one.problem for one in answer.channels if one.problem}

    async def _ask(self, tenant: Tenant) -> pb.GetStateResponse:
        return await self._audit.GetState(pb.GetStateRequest(tenant_id=tenant.id))

    def _asked(self, channel: Channel) -> bool:
        adapter = self._adapters.get(channel.provider)
        try:
            return adapter is not None and adapter.settings_model.of_stored(channel.settings).audit_files() is not None
        except ValidationError:
            return False  # Such a channel takes no callbacks either.


def unfiled(exc: NotInstalledError) -> str:
    """What is wrong with a channel that asks for files where audit is not installed."""
    return f"The channel asks for audit files. {exc.message}"
