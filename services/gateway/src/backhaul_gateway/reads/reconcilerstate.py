"""What the reconciler says of a channel: how its provider is asked, and whether anything is heard of what is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from backhaul_channels.adapter import Adapter
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.tenants import Channel, Tenant
from backhaul_common.vocabulary import Words
from backhaul_proto.reconciler.v1 import reconciler_pb2 as pb
from pydantic import ValidationError

from backhaul_gateway.reads.together import Together

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; grpc.aio's channels make the one class answer awaitables.
    from backhaul_proto.reconciler.v1.reconciler_pb2_grpc import ReconcilerServiceAsyncStub

_STANDINGS = Words(pb.Standing.DESCRIPTOR)
_SILENCES = Words(pb.Silence.DESCRIPTOR)
_WRONG = frozenset({pb.STANDING_CREDENTIALS_REFUSED, pb.STANDING_FAILING})
"""A provider that cannot answer now is asked again; these are for people to mend."""

_PATIENCE_S = 2.0
"""Less than the status has for a part: where nothing depends on the reconciler, its silence is no error."""


@dataclass(slots=True)
class ReconcilerState:
    """What is known of a channel; None where the reconciler did not say."""

    standing: str | None = None
    asked_at: datetime | None = None
    discovered_to: datetime | None = None
    silence: str | None = None
    silent_since: datetime | None = None

    def heard(self) -> str | None:
        """What is wrong where nothing is heard of what is sent."""
        if self.silent_since is None:
            return None
        since = self.silent_since.isoformat(timespec="seconds").replace("+00:00", "Z")
        return (
            f"Messages were sent since {since}, and no callback has come: check the address that the provider has, and "
            "what is refused."
        )


class ReconcilerStates:
    """Asks the reconciler. A channel whose provider is not asked does not depend on it."""

    def __init__(self, reconciler: ReconcilerServiceAsyncStub, adapters: Mapping[str, Adapter[Any]]) -> None:
        self._reconciler = reconciler
        self._answers = Together(self._ask)
        self._adapters = adapters

    async def fill(self, state: ReconcilerState, tenant: Tenant, channel: Channel) -> None:
        """Say in ``state`` what is known. UNAVAILABLE of a channel whose provider is asked; FAILED_PRECONDITION says in
        words why it tells nothing, with ``state`` filled in all the same."""
        try:
            told = await self._answers.of(tenant)
        except BackhaulError:
            if self._asked(channel):
                raise
            return
        one = told.get(channel.key)
        if one is not None:
            _take(state, one)
            if one.standing in _WRONG:
                raise BackhaulError(Code.FAILED_PRECONDITION, one.text)

    async def of(self, tenant: Tenant) -> Mapping[str, tuple[ReconcilerState, str | None]]:
        """The same of all the tenant's channels, by key, and what is wrong with asking each. UNAVAILABLE."""
        found: dict[str, tuple[ReconcilerState, str | None]] = {}
        for key, one in (await self._answers.of(tenant)).items():
            _take(state := ReconcilerState(), one)
            found[key] = state, one.text if one.standing in _WRONG else None
        return found

    async def _ask(self, tenant: Tenant) -> Mapping[str, pb.Channel]:
        answer = await self._reconciler.ListChannels(pb.ListChannelsRequest(tenant_id=tenant.id), timeout=_PATIENCE_S)
        return {one.channel: one for one in answer.channels}

    def _asked(self, channel: Channel) -> bool:
        adapter = self._adapters.get(channel.provider)
        if adapter is None or adapter.puller is None or not channel.pull_credentials:
            return False
        try:
            return adapter.settings_model.of_stored(channel.settings).reconcile.enabled
        except ValidationError:
            return False  # Such a channel takes no callbacks either.


def _take(state: ReconcilerState, one: pb.Channel) -> None:
    state.standing = _STANDINGS.by_number.get(one.standing)
    state.asked_at = _moment(one.asked_at_us)
    state.discovered_to = _moment(one.discovered_to_us)
    state.silence = _SILENCES.by_number.get(one.silence)
    if one.silence == pb.SILENCE_SILENT:
        state.silent_since = _moment(one.silent_since_us)


def _moment(microseconds: int) -> datetime | None:
    return datetime.fromtimestamp(microseconds / 1e6, UTC) if microseconds else None
