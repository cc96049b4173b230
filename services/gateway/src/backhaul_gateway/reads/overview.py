"""How it stands with a tenant, at a glance: what ``/api/status`` tells of one channel, of all of them, and what the
services say about the rest. Nothing is counted here that is not counted already."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_common.logs import get_logger
from backhaul_common.names import queue_path_key
from backhaul_common.tenants import Channel, Tenant
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from backhaul_proto.suppression.v1.suppression_pb2 import ListRequest
from fastapi import APIRouter

from backhaul_gateway.admission.room import CallbackRoom
from backhaul_gateway.admission.state import TenantStates
from backhaul_gateway.reads.auditstate import unfiled
from backhaul_gateway.reads.callers import By, Callers
from backhaul_gateway.reads.notifierstate import NotifierState
from backhaul_gateway.reads.overviewmodels import (
    ChannelAtAGlance,
    DeadLettersAtAGlance,
    DeliveriesAtAGlance,
    ProblemOut,
    Severity,
    TenantAtAGlance,
)
from backhaul_gateway.reads.status import ServiceStates, unverifiable
from backhaul_gateway.reads.together import Together
from backhaul_gateway.spool.overdraft import Overdraft
from backhaul_gateway.spool.spool import Spool
from backhaul_gateway.web.problems import NotInstalledError

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; grpc.aio's channels make the one class answer awaitables.
    from backhaul_proto.normalizer.v1.normalizer_pb2_grpc import NormalizerServiceAsyncStub
    from backhaul_proto.suppression.v1.suppression_pb2_grpc import SuppressionServiceAsyncStub

TIMEOUT_S = 2.5
KEPT_S = 2.0
"""For how long a tenant's own is told again: a monitor asks for the status of each channel, of which all need it."""

_DEAD_LETTERS = 50
_MAX_PROBLEMS = 50
_NEARLY = 0.8
"""The part of its share of the callback log from which on a tenant is warned."""

_LOST_AFTER = 3
"""A service that did not answer so often, one time after another, is not asked any more by whoever asks for many."""

_RANK: dict[str, int] = {"ok": 0, "warning": 1, "error": 2}


class Away:
    """Which services did not answer whoever asks for many tenants: they are not waited for a thousand times."""

    def __init__(self) -> None:
        self._in_a_row: dict[str, int] = {}
        self.said: dict[str, str] = {}
        """What was answered in place of an answer, by service."""
        self.missing: set[str] = set()
        """Those that are not installed."""

    def skips(self, service: str) -> bool:
        """Whether it is asked no more."""
        return self._in_a_row.get(service, 0) >= _LOST_AFTER

    def answered(self, service: str) -> None:
        """It is there."""
        self._in_a_row[service] = 0
        self.said.pop(service, None)

    def failed(self, service: str, text: str) -> None:
        """It did not answer."""
        self._in_a_row[service] = self._in_a_row.get(service, 0) + 1
        self.said[service] = text


class Overview:
    """Asks every part at the same time, each for a bounded time."""

    def __init__(
        self,
        states: TenantStates,
        room: CallbackRoom,
        *,
        normalizer: NormalizerServiceAsyncStub,
        suppression: SuppressionServiceAsyncStub,
        services: ServiceStates,
        spool: Spool | None,
        overdraft: Overdraft | None,
    ) -> None:
        self._states = states
        self._room = room
        self._normalizer = normalizer
        self._suppression = suppression
        self._services = services
        self._spool = spool
        self._overdraft = overdraft
        self._wholes = Together(self._whole, KEPT_S)
        self._log = get_logger(component="overview")

    def router(self, callers: Callers) -> APIRouter:
        """A tenant's own. It waits for no service longer than it waits for all of them."""
        router = callers.router("/v1", 422)
        get = partial(router.add_api_route, methods=["GET"])
        get("/overview", self.own, response_model=TenantAtAGlance)
        return router

    async def own(self, by: By) -> TenantAtAGlance:
        """All your channels at a glance, and what is wrong, the worst first. What a service that is away would say is
        missing, and all else is there. `/api/status` tells more of one channel."""
        return _cut(await self.whole(by.tenant))

    async def of(self, tenant: Tenant, away: Away) -> TenantAtAGlance:
        """How it stands with the tenant now. Never raises."""
        return _cut(await self._whole(tenant, away))

    async def whole(self, tenant: Tenant) -> TenantAtAGlance:
        """The same with all problems, however many, as it was KEPT_S ago at most. Whoever asks meanwhile shares it."""
        return await self._wholes.of(tenant)

    async def _whole(self, tenant: Tenant, away: Away | None = None) -> TenantAtAGlance:
        look = _Look(tenant, away if away is not None else Away())
        keys = sorted(tenant.channels)
        look.found.channels = [self._channel(look, tenant.channels[key]) for key in keys]
        self._tenant(look)
        await asyncio.gather(
            self._asked(look, "normalizer", self._dead_letters),
            self._asked(look, "reconciler", self._reconciled),
            self._asked(look, "audit", self._audited),
            self._asked(look, "notifier", self._told),
        )
        self._spooled(look)
        found = look.found
        found.problems = sorted(look.problems, key=lambda one: (-_RANK[one.severity], one.part, one.channel or ""))
        for glance in found.channels:
            severities = [one.severity for one in found.problems if one.channel == glance.label]
            glance.state = max(("ok", *severities), key=_RANK.__getitem__)
        found.away.sort()
        return found

    async def hear(self, tenant: Tenant, away: Away) -> None:
        """Hear whether suppression answers, of which no tenant's row tells. Never raises."""
        await self._asked(_Look(tenant, away), "suppression", self._suppressed)

    async def _suppressed(self, look: _Look) -> None:
        try:
            await self._suppression.List(ListRequest(tenant_id=look.tenant.id, page_size=1))
        except BackhaulError as exc:
            # It answers, and has not heard of the tenant yet.
            if exc.code is not Code.NOT_FOUND:
                raise

    def _channel(self, look: _Look, channel: Channel) -> ChannelAtAGlance:
        tenant, label = look.tenant, channel.label
        status = f"/api/status?channelLabel={label}"
        refused = self._states.refused(tenant.id, channel.key)
        if wrong := unverifiable(self._states, tenant, channel):
            look.add("error", "verification", wrong, "the channel's secrets, and " + status, label)
        if refused:
            text = f"{refused} requests failed verification at this gateway since it started."
            look.add(
                "warning", "verification", text, "the channel's secrets, and the log's outcomes of callbacks", label
            )
        if channel.processing == "held":
            since = f" since {_at(channel.held_since)}" if channel.held_since else ""
            look.add("warning", "processing", f"Its callbacks are held{since}.", status, label)
        return ChannelAtAGlance(
            label=label,
            provider=channel.provider,
            processing=channel.processing,
            verification=channel.verification,
            refused=refused,
        )

    def _tenant(self, look: _Look) -> None:
        tenant, path = look.tenant, queue_path_key(look.tenant.queue_path)
        if tenant.status != "active":
            text = f"The tenant is {tenant.status}: none of its callbacks are processed now."
            look.add("warning", "tenant", text, f"/admin/v1/tenants/{tenant.id}")
        if not self._room.fill:
            return
        held, free = self._room.held(path), self._room.free
        quota = look.found.quota = round(min(1.0, held / max(1, free)), 3) if held else 0.0
        if self._room.is_pressed(path, _NEARLY):
            # Whoever sends large callbacks is refused before all of the share is taken.
            severity: Severity = "error" if self._room.is_pressed(path, 1.0) else "warning"
            text = f"{quota:.0%} of its share of the callback log is taken. What does not fit is held, or answered 503."
            look.add(severity, "quota", text, "what processes too slowly, and BACKHAUL_STREAM_MAX_BYTES")

    async def _asked(self, look: _Look, service: str, ask: Callable[[_Look], Awaitable[None]]) -> None:
        away = look.away
        if away.skips(service):
            look.found.away.append(service)
            return
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await ask(look)
        except TimeoutError:
            text = "no answer in time"
        except NotInstalledError as exc:
            away.missing.add(service)
            # The others' work is not missed where they are not installed; files are, by the channels that ask for them.
            for channel in self._services.audit.asking(look.tenant) if service == "audit" else ():
                look.add("error", service, unfiled(exc), "the channel's settings", channel.label)
            return
        except BackhaulError as exc:
            text = exc.message
        except Exception as exc:  # noqa: BLE001  # a part may fail in any way, and the others are told all the same
            self._log.warning("part_not_reachable", part=service, error=repr(exc))
            text = "not reachable"
        else:
            away.answered(service)
            return
        away.failed(service, text)
        look.found.away.append(service)

    async def _dead_letters(self, look: _Look) -> None:
        if not look.tenant.channels:
            look.found.dead_letters = DeadLettersAtAGlance(open=0)
            return
        answer = await self._normalizer.ListDeadLetters(
            pb.ListDeadLettersRequest(
                tenant_id=look.tenant.id, state=pb.DEAD_LETTER_STATE_OPEN, page_size=_DEAD_LETTERS
            )
        )
        count, more = len(answer.dead_letters), bool(answer.next_page_token)
        found = look.found.dead_letters = DeadLettersAtAGlance(open=count, more=more)
        if count:
            latest = answer.dead_letters[0]
            found.latest_at = datetime.fromtimestamp(latest.last_seen_at_us / 1e6, UTC)
            many = (
                f"More than {count} dead letters are"
                if more
                else f"{count} dead letters are"
                if count > 1
                else "A dead letter is"
            )
            text = f"{many} open, the latest of {_at(found.latest_at)}: {latest.reason[:200]}"
            look.add("warning", "dead_letters", text, "/v1/dead-letters?state=open")

    async def _reconciled(self, look: _Look) -> None:
        if not look.tenant.channels:
            return
        told = await self._services.reconciler.of(look.tenant)
        for key, glance in zip(sorted(look.tenant.channels), look.found.channels, strict=True):
            if key not in told:
                continue
            state, wrong = told[key]
            glance.silence, glance.silent_since = state.silence, state.silent_since
            glance.standing = state.standing
            if heard := state.heard():
                look.add("error", "silence", heard, "/v1/reconciliation/channels", glance.label)
            if wrong:
                look.add("error", "reconciliation", wrong, "/v1/reconciliation/channels", glance.label)

    async def _audited(self, look: _Look) -> None:
        for key, problem in (await self._services.audit.of(look.tenant)).items():
            channel = look.tenant.channels.get(key)
            look.add("error", "audit", problem, "/v1/audits", channel.label if channel is not None else key)

    async def _told(self, look: _Look) -> None:
        state = NotifierState()
        try:
            await self._services.notifier.fill(state, look.tenant)
        except BackhaulError as exc:
            if state.active is None:
                raise
            look.add("error", "subscriptions", exc.message, "/v1/subscriptions")
        if state.active is None:
            raise unavailable("The notifier")
        look.found.deliveries = DeliveriesAtAGlance(
            failing=state.failing,
            waiting=state.waiting,
            held=state.held,
            failed=state.failed,
            waiting_since=state.waiting_since,
        )
        if state.failing:
            since = f", the oldest since {_at(state.waiting_since)}" if state.waiting_since else ""
            text = (
                f"The latest attempts of {_many(state.failing, 'subscription')} failed; "
                f"{_many(state.waiting or 0, 'delivery waits', 'deliveries wait')}{since}."
            )
            look.add("warning", "subscriptions", text, "/v1/subscriptions, and /v1/deliveries?state=waiting")
        if state.failed:
            text = f"{_many(state.failed, 'delivery has', 'deliveries have')} failed for good."
            look.add("warning", "deliveries", text, "/v1/deliveries?state=failed")

    def _spooled(self, look: _Look) -> None:
        path = queue_path_key(look.tenant.queue_path)
        if self._spool is not None and (kept := self._spool.of(path).callbacks):
            text = f"{_many(kept, 'callback lies', 'callbacks lie')} on this gateway's disk: JetStream stores nothing."
            look.add("warning", "spool", text, "JetStream")
        if self._spool is not None:
            look.found.spooled = self._spool.of(path).callbacks
        if self._overdraft is not None and (held := self._overdraft.spool.of(path).callbacks):
            look.found.held = held
            full = self._overdraft.full(path)
            text = f"Held at this gateway: {_many(held, 'callback')} over its rate or share, or of a suspended tenant."
            if full:
                text = f"{text} Further ones are refused: {full}"
            look.add("error" if full else "warning", "held", text, "the tenant's limits")


class _Look:
    """One look at a tenant: what is found, and who does not answer."""

    def __init__(self, tenant: Tenant, away: Away) -> None:
        self.tenant = tenant
        self.away = away
        self.problems: list[ProblemOut] = []
        self.found = TenantAtAGlance(tenant=tenant.id, name=tenant.name, status=tenant.status)

    def add(self, severity: Severity, part: str, text: str, look: str, channel: str | None = None) -> None:
        """One more problem."""
        self.problems.append(ProblemOut(severity=severity, part=part, channel=channel, text=text, look=look))


def _cut(whole: TenantAtAGlance) -> TenantAtAGlance:
    return whole.model_copy(update={"problems": whole.problems[:_MAX_PROBLEMS]})


def _many(count: int, one: str, more: str = "") -> str:
    """A count with what is counted; ``more`` is the plural where it is not ``one`` with an s."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def _at(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
