"""The state of one channel, with each part that it depends on.

As the callback service that this one stands in for: without object storage the overall state is Error, and callbacks
are processed all the same. Nothing here is asked when a callback is taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Literal

from backhaul_channels.adapter import RawCallback
from backhaul_common.errors import BackhaulError
from backhaul_common.logs import get_logger
from backhaul_common.names import queue_path_key
from backhaul_common.tenants import Channel, Processing, Tenant, VerificationMode
from pydantic import BaseModel

from backhaul_gateway.admission.state import TenantStates
from backhaul_gateway.ports import ObjectStorage, TenantStreams
from backhaul_gateway.reads.auditstate import AuditState, AuditStates
from backhaul_gateway.reads.notifierstate import NotifierState, NotifierStates
from backhaul_gateway.reads.overviewmodels import ProblemOut, TenantAtAGlance
from backhaul_gateway.reads.reconcilerstate import ReconcilerState, ReconcilerStates
from backhaul_gateway.spool.overdraft import Overdraft
from backhaul_gateway.spool.spool import Spool
from backhaul_gateway.web.problems import NotInstalledError

_TIMEOUT_S = 2.5
_NOT_REACHABLE = "not reachable"

_UNUSABLE = ("secret_unreadable", "provider_unknown")
"""Codes of refusals that are the channel's fault, whatever a request holds. A missing secret is one too, but only where
it refuses: without one, a channel can still observe."""

State = Literal["OK", "Error"]


class Part(BaseModel):
    """One part. ``detail`` says what is wrong with it."""

    state: State
    detail: str | None = None


class ObjectStoragePart(Part):
    """Object storage; in Error when it is not configured."""

    configured: bool


class SpoolPart(Part):
    """What of the tenant's callbacks this gateway process keeps on its own disk, since JetStream does not store them,
    and since when; null where it has no spool. In Error while nothing more of the tenant's can be kept."""

    kept: int | None
    kept_since: datetime | None


class HeldPart(Part):
    """What of the tenant's callbacks this gateway process holds on its own disk, since they were over its rate or its
    share of the log, or it is suspended: how many, their bytes, and the oldest one's time; null where it holds none for
    anybody. They are stored when that may be. In Error while no more are held."""

    callbacks: int | None
    bytes: int | None
    since: datetime | None


class CallbacksPart(Part):
    """When the channel's last callback was stored, as the log says; null when it holds none. What the reconciler
    backfills counts here, and not against silence.

    ``silence`` is ``silent``, which is an error, where messages were sent from ``silent_since`` on and nothing has been
    heard for five minutes since; ``none`` where callbacks come; ``cannot_be_told`` where nothing tells what was sent;
    null where no callbacks are expected, or the reconciler does not answer."""

    last_seen_at: datetime | None
    silence: str | None
    silent_since: datetime | None


class ProcessingPart(Part):
    """Whether the channel's callbacks are processed as they come, or held, and since when. That they are held is no
    error. ``held_messages`` are the stored messages, each of one callback or several, that wait to be processed; null
    while nobody knows. Some may be left for a while after processing went on."""

    mode: Processing
    held_since: datetime | None
    held_messages: int | None


class AuditPart(Part):
    """The channel's audit files; ``asked`` says whether its settings ask for them, and nothing else is known where they
    do not. In Error while something keeps them from being written, when half of the time has passed after which what
    waits is lost, or while the audit service does not answer.

    ``waiting_since`` is when the first event arrived that lies in no file yet; what was published before ``read_to``
    lies in files, or has been read by the copy that makes them (null before the first, and while a copy takes over);
    ``weaknesses`` say what the bucket was seen not to hold to. ``locked_files`` are over their time and still there,
    since locks hold them, the last one until ``locked_until``.
    """

    asked: bool
    waiting_since: datetime | None
    read_to: datetime | None
    weaknesses: tuple[str, ...]
    locked_files: int
    locked_until: datetime | None


class ReconciliationPart(Part):
    """How the channel's provider is asked for what its callbacks did not tell, by a word of
    ``/v1/reconciliation/channels``; null where the reconciler does not answer. In Error where the provider refuses the
    credentials, or answers what is not understood, and while a reconciler that should ask does not answer.
    """

    standing: str | None
    asked_at: datetime | None
    discovered_to: datetime | None


class SubscriptionsPart(Part):
    """What the tenant's own application is told, of all channels: subscriptions by their states, how many of them are
    ``failing`` by their latest attempts, and deliveries that wait (the oldest since ``waiting_since``), are ``held``
    while their communication is disabled, or have failed for good, each up to 10,000. Null where the notifier does not
    answer.

    In Error while Backhaul has stopped a subscription, or the notifier of a tenant with subscriptions does not answer.
    """

    active: int | None
    paused: int | None
    disabled: int | None
    failing: int | None
    waiting: int | None
    held: int | None
    failed: int | None
    waiting_since: datetime | None


class VerificationPart(Part):
    """``refused`` counts requests that failed verification at this gateway process since it started."""

    mode: VerificationMode
    secret_count: int
    refused: int


class Parts(BaseModel):
    """Every part of a channel's state."""

    queue: Part
    spool: SpoolPart
    held: HeldPart
    store: Part
    object_storage: ObjectStoragePart
    callbacks: CallbacksPart
    processing: ProcessingPart
    audit: AuditPart
    reconciliation: ReconciliationPart
    subscriptions: SubscriptionsPart
    verification: VerificationPart


class StatusOut(BaseModel):
    """Error when any part is, or any of the ``problems``. These are what ``/v1/overview`` says of the channel and of
    all channels together, the worst first: a warning, such as of open dead letters, is no Error. ``away`` are the
    services that did not say what they know of problems."""

    state: State
    channel: str
    provider: str
    parts: Parts
    problems: list[ProblemOut]
    away: list[str]


@dataclass(frozen=True, slots=True)
class ServiceStates:
    """Whoever asks the services how it stands with a tenant."""

    audit: AuditStates
    reconciler: ReconcilerStates
    notifier: NotifierStates


class ChannelStatus:
    """Asks every part at the same time, each for a bounded time."""

    def __init__(
        self,
        *,
        streams: TenantStreams,
        check_store: Callable[[], Awaitable[None]],
        object_storage: ObjectStorage,
        states: TenantStates,
        services: ServiceStates,
        spool: Spool | None,
        overdraft: Overdraft | None,
        at_a_glance: Callable[[Tenant], Awaitable[TenantAtAGlance]],
    ) -> None:
        self._at_a_glance = at_a_glance
        self._streams = streams
        self._overdraft = overdraft
        self._spool = spool
        self._check_store = check_store
        self._object_storage = object_storage
        self._states = states
        self._services = services

    async def of(self, tenant: Tenant, channel: Channel) -> StatusOut:
        """The channel's state now. Never raises."""
        last_seen: datetime | None = None
        held_messages: int | None = None
        files, reconciled, told = AuditState(), ReconcilerState(), NotifierState()

        async def ask_last() -> None:
            nonlocal last_seen
            last_seen = await self._streams.last_callback_at(tenant, channel.key)

        async def ask_held() -> None:
            nonlocal held_messages
            held_messages = await self._streams.held(tenant, channel.key)

        asked = asyncio.gather(
            problem_of("queue", self._streams.check_room),
            problem_of("store", self._check_store),
            problem_of("object_storage", self._object_storage.check),
            problem_of("callbacks", ask_last),
            problem_of("processing", ask_held),
            problem_of("audit", lambda: self._services.audit.fill(files, tenant, channel)),
            problem_of("reconciliation", lambda: self._services.reconciler.fill(reconciled, tenant, channel)),
            problem_of("subscriptions", lambda: self._services.notifier.fill(told, tenant)),
        )
        glance, found = await asyncio.gather(self._at_a_glance(tenant), asked)
        queue, store, storage, callbacks, held, audit, reconciliation, telling = found
        unproven = unverifiable(self._states, tenant, channel)
        spool = await self._spooled(tenant)
        parts = Parts(
            queue=Part(state=_state(queue), detail=queue),
            spool=spool,
            held=self._held(tenant),
            store=Part(state=_state(store), detail=store),
            object_storage=ObjectStoragePart(
                state=_state(storage), detail=storage, configured=self._object_storage.configured
            ),
            callbacks=CallbacksPart(
                state=_state(silent := callbacks or reconciled.heard()),
                detail=silent,
                last_seen_at=last_seen,
                silence=reconciled.silence,
                silent_since=reconciled.silent_since,
            ),
            processing=ProcessingPart(
                state=_state(held),
                detail=held,
                mode=channel.processing,
                held_since=channel.held_since,
                held_messages=held_messages,
            ),
            audit=AuditPart(
                state=_state(audit),
                detail=audit,
                asked=files.asked,
                waiting_since=files.waiting_since,
                read_to=files.read_to,
                weaknesses=files.weaknesses,
                locked_files=files.locked_files,
                locked_until=files.locked_until,
            ),
            reconciliation=ReconciliationPart(
                state=_state(reconciliation),
                detail=reconciliation,
                standing=reconciled.standing,
                asked_at=reconciled.asked_at,
                discovered_to=reconciled.discovered_to,
            ),
            subscriptions=SubscriptionsPart(state=_state(telling), detail=telling, **asdict(told)),
            verification=VerificationPart(
                state=_state(unproven),
                detail=unproven,
                mode=channel.verification,
                secret_count=len(channel.secrets),
                refused=self._states.refused(tenant.id, channel.key),
            ),
        )
        whole = (
            parts.queue,
            parts.spool,
            parts.held,
            parts.store,
            parts.object_storage,
            parts.callbacks,
            parts.processing,
            parts.audit,
            parts.reconciliation,
            parts.subscriptions,
            parts.verification,
        )
        problems = [one for one in glance.problems if one.channel in (None, channel.label)]
        wrong = any(part.state == "Error" for part in whole) or any(one.severity == "error" for one in problems)
        return StatusOut(
            state="Error" if wrong else "OK",
            channel=channel.label,
            provider=channel.provider,
            parts=parts,
            problems=problems,
            away=glance.away,
        )

    async def _spooled(self, tenant: Tenant) -> SpoolPart:
        spool = self._spool
        if spool is None:
            return SpoolPart(state="OK", kept=None, kept_since=None)
        path = queue_path_key(tenant.queue_path)
        held = spool.of(path)
        problem = await problem_of("spool", partial(spool.check, path))
        since = datetime.fromtimestamp(held.since_us / 1e6, UTC) if held.callbacks else None
        return SpoolPart(state=_state(problem), detail=problem, kept=held.callbacks, kept_since=since)

    def _held(self, tenant: Tenant) -> HeldPart:
        overdraft = self._overdraft
        if overdraft is None:
            return HeldPart(state="OK", callbacks=None, bytes=None, since=None)
        path = queue_path_key(tenant.queue_path)
        held = overdraft.spool.of(path)
        # What holds nothing at all by its settings is nothing that somebody need mend.
        problem = (overdraft.full(path) or None) if overdraft.most(path) else None
        since = datetime.fromtimestamp(held.since_us / 1e6, UTC) if held.callbacks else None
        return HeldPart(state=_state(problem), detail=problem, callbacks=held.callbacks, bytes=held.bytes, since=since)


def unverifiable(states: TenantStates, tenant: Tenant, channel: Channel) -> str | None:
    """Why nothing of the channel can be verified, or None."""
    state = states.get(tenant.id)
    ready = state.channel(channel.key) if state is not None else None
    if ready is None or channel.verification == "off":
        return None
    # The verifier itself is asked. An empty request is refused unless the tenant's credential is all the proof that
    # there is, and the reason tells whose fault it is.
    refusal = ready.verifier.verify(RawCallback("POST", "", [], b""))
    if refusal is None:
        return None
    if channel.verification == "enforce" and not channel.secrets:
        return "No secret is set, so every callback is refused."
    # There are secrets, but none of the kind that the channel's settings ask for.
    if channel.verification == "enforce" and refusal.code == "secret_missing":
        return f"{refusal.detail} Every callback is refused."
    return refusal.detail if refusal.code in _UNUSABLE else None


def _state(problem: str | None) -> State:
    return "OK" if problem is None else "Error"


async def problem_of(part: str, check: Callable[[], Awaitable[None]]) -> str | None:
    """What is wrong with a part, in words for everybody; None where ``check`` returns in time."""
    log = get_logger(component="status")
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            await check()
    except TimeoutError:
        return "no answer in time"
    except NotInstalledError:
        return None  # Nobody waits for what the installation does without.
    except BackhaulError as exc:
        return exc.message
    except Exception as exc:  # noqa: BLE001  # a part may fail in any way, and each means Error
        # Tenants are shown this. What a driver says names hosts and ports, and is for the platform team alone.
        log.warning("part_not_reachable", part=part, error=repr(exc))
        return _NOT_REACHABLE
    return None
