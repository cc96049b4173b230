"""The state of one channel, with each part that it depends on.

As the callback service that this one stands in for: without object storage the overall state is Error, and callbacks
are processed all the same. Nothing here is asked when a callback is taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Literal

from backhaul_channels.adapter import RawCallback
from backhaul_common.errors import BackhaulError
from backhaul_common.logs import get_logger
from backhaul_common.tenants import Channel, Processing, Tenant, VerificationMode
from pydantic import BaseModel

from backhaul_gateway.admission.state import TenantStates
from backhaul_gateway.ports import ObjectStorage, TenantStreams
from backhaul_gateway.reads.auditstate import AuditState, AuditStates

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


class CallbacksPart(Part):
    """When the channel's last callback was stored, as the log says; null when it holds none."""

    last_seen_at: datetime | None


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


class VerificationPart(Part):
    """``refused`` counts requests that failed verification at this gateway process since it started."""

    mode: VerificationMode
    secret_count: int
    refused: int


class Parts(BaseModel):
    """Every part of a channel's state."""

    queue: Part
    store: Part
    object_storage: ObjectStoragePart
    callbacks: CallbacksPart
    processing: ProcessingPart
    audit: AuditPart
    verification: VerificationPart


class StatusOut(BaseModel):
    """Error when any part is."""

    state: State
    channel: str
    provider: str
    parts: Parts


class ChannelStatus:
    """Asks every part at the same time, each for a bounded time."""

    def __init__(
        self,
        *,
        streams: TenantStreams,
        check_store: Callable[[], Awaitable[None]],
        object_storage: ObjectStorage,
        states: TenantStates,
        audit: AuditStates,
    ) -> None:
        self._streams = streams
        self._check_store = check_store
        self._object_storage = object_storage
        self._states = states
        self._audit = audit

    async def of(self, tenant: Tenant, channel: Channel) -> StatusOut:
        """The channel's state now. Never raises."""
        last_seen: datetime | None = None
        held_messages: int | None = None
        files = AuditState()

        async def ask_last() -> None:
            nonlocal last_seen
            last_seen = await self._streams.last_callback_at(tenant, channel.key)

        async def ask_held() -> None:
            nonlocal held_messages
            held_messages = await self._streams.held(tenant, channel.key)

        queue, store, storage, callbacks, held, audit = await asyncio.gather(
            _problem("queue", self._streams.check_room),
            _problem("store", self._check_store),
            _problem("object_storage", self._object_storage.check),
            _problem("callbacks", ask_last),
            _problem("processing", ask_held),
            _problem("audit", lambda: self._audit.fill(files, tenant, channel)),
        )
        unverifiable = self._unverifiable(tenant, channel)
        parts = Parts(
            queue=Part(state=_state(queue), detail=queue),
            store=Part(state=_state(store), detail=store),
            object_storage=ObjectStoragePart(
                state=_state(storage), detail=storage, configured=self._object_storage.configured
            ),
            callbacks=CallbacksPart(state=_state(callbacks), detail=callbacks, last_seen_at=last_seen),
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
            verification=VerificationPart(
                state=_state(unverifiable),
                detail=unverifiable,
                mode=channel.verification,
                secret_count=len(channel.secrets),
                refused=self._states.refused(tenant.id, channel.key),
            ),
        )
        whole = (
            parts.queue,
            parts.store,
            parts.object_storage,
            parts.callbacks,
            parts.processing,
            parts.audit,
            parts.verification,
        )
        return StatusOut(
            state="Error" if any(part.state == "Error" for part in whole) else "OK",
            channel=channel.label,
            provider=channel.provider,
            parts=parts,
        )

    def _unverifiable(self, tenant: Tenant, channel: Channel) -> str | None:
        """Why nothing can be verified, or None."""
        state = self._states.get(tenant.id)
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


async def _problem(part: str, check: Callable[[], Awaitable[None]]) -> str | None:
    log = get_logger(component="status")
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            await check()
    except TimeoutError:
        return "no answer in time"
    except BackhaulError as exc:
        return exc.message
    except Exception as exc:  # noqa: BLE001  # a part may fail in any way, and each means Error
        # Tenants are shown this. What a driver says names hosts and ports, and is for the platform team alone.
        log.warning("part_not_reachable", part=part, error=repr(exc))
        return _NOT_REACHABLE
    return None
