"""``POST /v1/sends``: what a tenant tells of messages that it sent, or could not send.

It takes the way of what providers tell: one callback of each channel, or a few, becomes durable, and is read by the
normalizer. So it is checked here as it is read there, and nothing of a request in which a send is wrong is stored.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import blake2b
from typing import Any

import msgspec
from backhaul_channels import Adapter, Context
from backhaul_channels.sends import Send, SendError, encoded, event_of, parse_send
from backhaul_common.errors import BackhaulError, Code, Violation
from backhaul_common.metering import Metrics
from backhaul_common.metrics import SENDS_STORED
from backhaul_common.names import channel_key
from backhaul_common.sendercallbacks import sender_callbacks
from backhaul_common.sizes import MAX_BODY_BYTES
from backhaul_proto.callback.v1.callback_pb2 import Callback
from fastapi import APIRouter, Request
from pydantic import BaseModel, ValidationError

from backhaul_gateway.admission.door import Admission
from backhaul_gateway.admission.refusals import DELETING, no_channel, not_active
from backhaul_gateway.admission.state import TenantState, TenantStates
from backhaul_gateway.admission.strangers import Strangers
from backhaul_gateway.ports import CallbackLog
from backhaul_gateway.reads.bodies import LargeBodies, body_of
from backhaul_gateway.reads.callers import By, Callers
from backhaul_gateway.reads.sendbodies import DOCUMENTED, parts_of
from backhaul_gateway.twins.turns import Steps
from backhaul_gateway.web.idempotency import IdempotencyKeyOfSends
from backhaul_gateway.web.masking import masked_body
from backhaul_gateway.web.openapi import problems
from backhaul_gateway.web.problems import TRACEPARENT

MAX_SENDS_BYTES = 4 * MAX_BODY_BYTES
"""Bytes of bodies that are held at once. A tenant may hold half of it while no other holds any."""

MAX_AHEAD = timedelta(days=1)
"""How much later than now a message may say that it was sent: of several for one person the one that was sent last
counts, so one from the year 2099 would count for ever."""

MAX_NAMED = 20
"""Sends of one request of which it is told what is wrong."""

_A_STEP = 20
"""Sends that one step of the work looks at; each takes some 10 µs."""


class SendsOut(BaseModel):
    """They are stored. ``callback_ids`` are of the callbacks that hold them; events name theirs."""

    accepted: int
    callback_ids: list[str]


class SendRoutes:
    """Takes in what senders tell."""

    def __init__(
        self,
        callers: Callers,
        admission: Admission,
        callbacks: CallbackLog,
        *,
        states: TenantStates,
        strangers: Strangers,
        adapters: Mapping[str, Adapter[Any]],
        metrics: Metrics,
    ) -> None:
        self._callers = callers
        self._admission = admission
        self._callbacks = callbacks
        self._states = states
        self._strangers = strangers
        self._adapters = adapters
        self._stored = metrics.counter(SENDS_STORED)
        self._bodies = LargeBodies(MAX_SENDS_BYTES, "Too many sends are being looked at.")

    def router(self) -> APIRouter:
        """The one route. It waits for no other service, so it has none of their problems."""
        router = self._callers.router("/v1", 422)
        router.add_api_route(
            "/sends",
            self.report,
            methods=["POST"],
            status_code=202,
            response_model=SendsOut,
            responses={202: {"description": "They are stored."}, **problems(400, 404, 413)},
            openapi_extra=DOCUMENTED,
        )
        return router

    async def report(self, request: Request, by: By, idempotency_key: IdempotencyKeyOfSends = "") -> SendsOut:
        """Tell what you sent, or could not send: an array, `{"sends": […]}`, or a send a line; 10,000 at most.

        They become events as what providers tell does, and a message that is told of here and there is one. The answer
        comes when all of it is stored. Where one is wrong, nothing is. What is told twice counts once, so repeat a
        request that was not answered. Counts as a callback, and as a read.
        """
        with self._bodies.room(request, by, by.tenant.limits.max_body_bytes):
            body = await body_of(request)
            state = self._present(by)
            self._admission.callback(state, len(body))
            parts = parts_of(body, request.headers.get("content-type", ""))
            sends = await self._callers.run(_parsed(parts))
            by_channel = await self._by_channel(state, sends)
            # The tenant may have changed while a channel was looked for.
            state = self._present(by)
            callbacks = await self._callers.run(
                self._read(state, sends, by_channel, idempotency_key, request.scope.get(TRACEPARENT, ""))
            )
            await self._store(state, callbacks)
        statuses = {key: Counter(sends[at].status for at in positions) for key, positions in by_channel.items()}
        for key, counts in statuses.items():
            for status, count in counts.items():
                self._stored.add(by.tenant.id, key, status.value, amount=count)
        return SendsOut(accepted=len(sends), callback_ids=[callback.id for callback in callbacks])

    def _present(self, by: TenantState) -> TenantState:
        """The tenant as it is now. FORBIDDEN where it is not any more, or may do nothing."""
        state = self._states.get(by.tenant.id)
        if state is None or state.tenant.registration != by.tenant.registration:
            raise BackhaulError(Code.FORBIDDEN, DELETING, fix="Stop calling.")
        if state.tenant.status != "active":
            raise not_active(state.tenant)
        return state

    async def _by_channel(self, state: TenantState, sends: Sequence[Send]) -> dict[str, list[int]]:
        """The positions of the sends of each channel, by its key. NOT_FOUND for a channel that the tenant lacks."""
        found: dict[str, list[int]] = {}
        for position, send in enumerate(sends):
            found.setdefault(channel_key(send.channel), []).append(position)
        for key, positions in found.items():
            present = state
            if key not in present.tenant.channels:
                await self._strangers.channel(present, key)
                present = self._present(state)
            if key not in present.tenant.channels:
                raise no_channel(present.tenant, sends[positions[0]].channel, f"sends[{positions[0]}].channel")
        return found

    def _read(
        self,
        state: TenantState,
        sends: Sequence[Send],
        by_channel: Mapping[str, Sequence[int]],
        key: str,
        traceparent: str,
    ) -> Steps[list[Callback]]:
        """The callbacks that hold all of ``sends``. INVALID_ARGUMENT where one could not be read."""
        mark = blake2b(key.encode(), digest_size=16).hexdigest() if key else ""
        bad: list[tuple[int, SendError]] = []
        kept: dict[str, list[bytes]] = {}
        for channel, positions in by_channel.items():
            adapter, context = self._reader(state, channel)
            parts = kept[channel] = []
            for count, position in enumerate(positions):
                if not count % _A_STEP:
                    yield
                send = sends[position]
                told_apart = f"{mark}:{position}" if mark and not send.names_itself else ""
                send = msgspec.structs.replace(send, channel="", idempotency=told_apart)
                try:
                    event_of(send, adapter, context)
                except SendError as exc:
                    bad.append((position, exc))
                    continue
                parts.append(encoded(send))
        if bad:
            raise _refused(bad)
        received_at_us = time.time_ns() // 1000
        callbacks = [
            callback
            for channel, parts in kept.items()
            for callback in sender_callbacks(
                state.tenant, channel, parts, received_at_us=received_at_us, traceparent=traceparent
            )
        ]
        for callback in callbacks:
            yield
            callback.body = masked_body(callback.body)
        return callbacks

    def _reader(self, state: TenantState, channel: str) -> tuple[Adapter[Any], Context[Any]]:
        """By what the sends of a channel are read. UNAVAILABLE where this copy knows no such provider, or reads no such
        settings: a newer one has stored them."""
        configured = state.tenant.channels[channel]
        adapter = self._adapters.get(configured.provider)
        try:
            if adapter is not None:
                settings = adapter.settings_model.of_stored(configured.settings)
                return adapter, Context(settings, received_at_us=time.time_ns() // 1000)
        except ValidationError:
            pass  # The log has said so when the channel was prepared.
        raise BackhaulError(
            Code.UNAVAILABLE,
            f"The channel {configured.label} cannot be used.",
            fix="Ask the platform team to store its settings again.",
            retry_after_s=5.0,
        )

    async def _store(self, state: TenantState, callbacks: Sequence[Callback]) -> None:
        """Return when all are durable; UNAVAILABLE where one is not, while others may be."""
        publish = partial(self._published, state)
        results = await asyncio.gather(*map(publish, callbacks), return_exceptions=True)
        for result in results:
            if result is not None:
                raise result

    async def _published(self, state: TenantState, callback: Callback) -> None:
        channel = state.channel(callback.channel)
        if channel is None:
            raise no_channel(state.tenant, callback.channel, "sends")
        await self._callbacks.publish(channel.subject, callback.id, callback.SerializeToString(), callback.traceparent)


def _parsed(parts: Sequence[bytes | msgspec.Raw]) -> Steps[list[Send]]:
    """Each as a send. INVALID_ARGUMENT where one is none."""
    sends: list[Send] = []
    bad: list[tuple[int, SendError]] = []
    for position, part in enumerate(parts):
        if not position % _A_STEP:
            yield
        try:
            sends.append(_send_of(part))
        except SendError as exc:
            bad.append((position, exc))
    if bad:
        raise _refused(bad)
    return sends


def _send_of(part: bytes | msgspec.Raw) -> Send:
    send = parse_send(part)
    if send.idempotency:
        raise SendError("idempotency", "A send has no field 'idempotency'.", "Send the header Idempotency-Key.")
    if not send.channel.strip():
        raise SendError("channel", "channel is missing.", "Give the label of the channel that it went by.")
    if send.sent_at is not None and send.sent_at > datetime.now(UTC) + MAX_AHEAD:
        fix = "Give the time at which it was sent, or leave it out."
        raise SendError("sent_at", "sent_at lies more than a day ahead.", fix)
    return send


def _refused(bad: Sequence[tuple[int, SendError]]) -> BackhaulError:
    """What is wrong with each, and how to mend it."""
    named = sorted(bad, key=lambda one: one[0])[:MAX_NAMED]
    return BackhaulError(
        Code.INVALID_ARGUMENT,
        f"{len(bad)} of the sends {'is' if len(bad) == 1 else 'are'} wrong; nothing is stored.",
        violations=[
            Violation(f"sends[{position}]" + (f".{exc.field}" if exc.field else ""), exc.message, exc.fix)
            for position, exc in named
        ],
    )
