"""The hot path: one provider's POST, from the first byte to the answer.

An ASGI endpoint without Request, Depends or models: those cost more than everything that is done here. The body is
never parsed; whether it can be understood is the normalizer's question, and no reason to refuse an authentic request.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from backhaul_channels.adapter import RawCallback
from backhaul_common.errors import CATALOGUE, BackhaulError, Code
from backhaul_common.ids import new_callback_id
from backhaul_common.logs import get_logger
from backhaul_common.metrics import (
    CALLBACKS_ANSWERED,
    CALLBACKS_UNVERIFIED,
    INGEST_SECONDS,
    QUEUED_BYTES,
    Metrics,
)
from backhaul_common.names import channel_key
from backhaul_common.tracing import Tracing, new_traceparent, parse_traceparent, traceparent_of
from backhaul_proto.callback.v1.callback_pb2 import (
    VERIFICATION_OBSERVED_INVALID,
    VERIFICATION_OFF,
    Callback,
    Verification,
)
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from backhaul_gateway.admission.auth import CredentialIndex, sent_twice, unauthenticated
from backhaul_gateway.admission.door import Admission, OverShareError
from backhaul_gateway.admission.limits import MemoryBudget
from backhaul_gateway.admission.state import ChannelState, EncodedAnswer, TenantState, TenantStates
from backhaul_gateway.admission.strangers import Strangers
from backhaul_gateway.ingest.body import BodyReader, GoneError, Receive, SlowError
from backhaul_gateway.ports import CallbackLog
from backhaul_gateway.web.accesslog import AccessLog
from backhaul_gateway.web.clients import ClientAddress
from backhaul_gateway.web.masking import masked_body, masked_bytes
from backhaul_gateway.web.parameters import label_of
from backhaul_gateway.web.problems import of_error
from backhaul_gateway.web.refusals import (
    METHOD,
    MOST_HEADER_BYTES,
    MOST_QUERY_BYTES,
    Answer,
    body_timeout,
    method_not_allowed,
    no_channel,
    not_active,
    too_long,
    unverified,
)

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CALLBACK_ID_HEADER = b"backhaul-callback-id"
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_SAMPLE = 16
_LONGEST_REMEMBERED = 512
_LONGEST_LENGTH = 10
"""Digits of a Content-Length that are read here; whether it is true, and how much is too much, is found out later."""


@dataclass(slots=True)
class _Seen:
    """What is known of a request so far, for its log line and its metrics."""

    tenant: str = ""
    channel: str = ""
    callback_id: str = ""
    outcome: str = "stored"
    size: int = 0
    complete_at: float = 0.0


class IngestEndpoint:
    """``POST /api/postevents`` and ``POST /in/{token}/api/postevents``."""

    def __init__(
        self,
        *,
        states: TenantStates,
        credentials: CredentialIndex,
        strangers: Strangers,
        admission: Admission,
        log: CallbackLog,
        access_log: AccessLog,
        metrics: Metrics,
        tracing: Tracing,
        clients: ClientAddress,
        public_base_url: str,
        body_timeout_s: float,
        max_held_bytes: int,
        most_bodies: int,
    ) -> None:
        self._states = states
        self._credentials = credentials
        self._strangers = strangers
        self._admission = admission
        self._callbacks = log
        self._access_log = access_log
        self._tracing = tracing
        self._clients = clients
        self._base_url = public_base_url
        self._budget = MemoryBudget(max_held_bytes)
        metrics.gauge(QUEUED_BYTES, lambda: self._budget.used)
        self._bodies = BodyReader(body_timeout_s, self._budget, most_bodies)
        self._answered = metrics.counter(CALLBACKS_ANSWERED)
        self._unverified = metrics.counter(CALLBACKS_UNVERIFIED)
        self._ingest_seconds = metrics.histogram(INGEST_SECONDS)
        self._requests = 0
        self._log = get_logger(component="ingest")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        began = time.perf_counter()
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        # If a header is repeated, the last one counts. Of those that say who is asking, _known refuses two.
        named = dict(headers)
        incoming = named.get(b"traceparent", b"").decode("latin-1")
        span: Span | None = None
        if self._tracing.enabled:
            span = self._tracing.start("POST /api/postevents", parent=_valid(incoming) or None, kind=SpanKind.SERVER)
            traceparent = traceparent_of(span)
        else:
            traceparent = _valid(incoming) or new_traceparent()
        seen = _Seen()
        status = 200
        extra: list[tuple[bytes, bytes]] = []
        try:
            if scope["method"] != METHOD:
                seen.outcome = "method_not_allowed"
                status, body, extra = _measured(method_not_allowed(scope["method"], traceparent[3:35]))
            else:
                answer = await self._store(scope, headers, named, receive, traceparent, seen)
                status, body, extra = answer.status, answer.body, _identified(answer, seen.callback_id)
        except BackhaulError as exc:
            if seen.outcome == "stored":
                seen.outcome = exc.code.value
            status, body, extra = _measured(of_error(exc, traceparent[3:35]))
        except GoneError:
            seen.outcome, status, body = "client_gone", 0, b""
        except SlowError:
            seen.outcome = "body_timeout"
            status, body, extra = _measured(body_timeout(traceparent[3:35]))
        except Exception as exc:  # noqa: BLE001  # the edge: whatever is unexpected is a 500, which providers repeat
            self._log.error("ingest_failed", tenant=seen.tenant, channel=seen.channel, exc_info=exc)
            seen.outcome = Code.INTERNAL.value
            status, body, extra = _measured(
                of_error(BackhaulError(Code.INTERNAL, CATALOGUE[Code.INTERNAL].title), traceparent[3:35])
            )
        if status:
            await send({"type": "http.response.start", "status": status, "headers": extra})
            await send({"type": "http.response.body", "body": body})
        self._account(scope, headers, seen, status, began, traceparent)
        if span is not None:
            _end(span, seen, status)

    async def _store(
        self,
        scope: Scope,
        headers: list[tuple[bytes, bytes]],
        named: dict[bytes, bytes],
        receive: Receive,
        traceparent: str,
        seen: _Seen,
    ) -> EncodedAnswer:
        """Everything up to JetStream's acknowledgement, and what the provider is told then; raises BackhaulError with
        the reason of a refusal."""
        query: bytes = scope["query_string"]
        state = self._active(scope, self._known(scope, named) or await self._found(scope, named), seen)
        self._admit(state, named, seen)
        if len(query) > MOST_QUERY_BYTES:
            raise too_long(query)
        try:
            channel = self._channel(state, query, seen)
        except BackhaulError as exc:
            if exc.code is not Code.NOT_FOUND:
                raise
            await self._strangers.channel(state, channel_key(label_of(query)))
            state = self._active(scope, self._known(scope, named), seen)
            channel = self._channel(state, query, seen)
        kept = b"".join([name + b": " + value + b"\r\n" for name, value in headers if name not in channel.not_kept])
        if len(kept) > MOST_HEADER_BYTES:
            raise too_long(query)
        tenant_id = seen.tenant
        body = await self._bodies.read(named, receive, tenant_id, state.tenant.limits.max_body_bytes)
        try:
            seen.complete_at = time.perf_counter()
            seen.size = len(body)
            if self._states.get(tenant_id) is not state:
                # It was changed or deleted while the body came in, which may take long: what holds now counts.
                state = self._active(scope, self._known(scope, named), seen)
                channel = self._channel(state, query, seen)
            sent: bytes = scope["raw_path"] + b"?" + query if query else scope["raw_path"]
            raw = RawCallback(METHOD, self._base_url + sent.decode("latin-1"), headers, body)
            if channel.handshake is not None and (answer := channel.handshake(raw)) is not None:
                seen.outcome = "handshake"
                return EncodedAnswer(answer)
            callback = Callback()
            callback.CopyFrom(channel.template)
            callback_id = new_callback_id()
            callback.id = callback_id
            callback.verification = self._verified(state, channel, raw, seen)
            callback.method = METHOD
            # Where the ingest token is: in the path, and wherever a proxy or the provider repeats the path.
            callback.url = self._base_url + _shown(sent)
            callback.headers = masked_bytes(kept)
            callback.body = masked_body(body)
            callback.received_at_us = time.time_ns() // 1000
            callback.traceparent = traceparent
            await self._callbacks.publish(channel.subject, callback_id, callback.SerializeToString(), traceparent)
        finally:
            if body:
                self._budget.give_back(tenant_id, len(body))
        if callback.verification == VERIFICATION_OBSERVED_INVALID:
            seen.outcome = "stored_unverified"
        seen.callback_id = callback_id
        return channel.accepted

    def _known(self, scope: Scope, named: dict[bytes, bytes]) -> TenantState | None:
        """Whose request it is."""
        if len(named) != len(scope["headers"]) and sent_twice(scope["headers"]):
            raise unauthenticated("A header that carries a credential was sent twice.", "Send it once.")
        token = scope["path_params"].get("token")
        if token is None:
            tenant_id = self._credentials.from_values(named.get(b"x-api-key"), named.get(b"authorization"))
        else:
            tenant_id = self._credentials.from_token(token)
        return self._states.get(tenant_id) if tenant_id is not None else None

    async def _found(self, scope: Scope, named: dict[bytes, bytes]) -> TenantState | None:
        """The same after a look into the database: it may have been registered a moment ago, by way of another copy."""
        await self._strangers.credential(
            scope["path_params"].get("token"), named.get(b"x-api-key"), named.get(b"authorization")
        )
        return self._known(scope, named)

    def _active(self, scope: Scope, state: TenantState | None, seen: _Seen) -> TenantState:
        """The tenant, if it is known and active."""
        if state is None:
            if scope["path_params"].get("token") is not None:
                raise self._credentials.refusal(
                    "The ingest token in the path is not valid.", "Use the tenant's ingest token.", "token"
                )
            raise self._credentials.refusal()
        tenant = state.tenant
        seen.tenant = tenant.id
        if tenant.status != "active":
            raise not_active(tenant)
        return state

    def _admit(self, state: TenantState, named: dict[bytes, bytes], seen: _Seen) -> None:
        length = named.get(b"content-length", b"")
        try:
            self._admission.callback(state, int(length) if len(length) < _LONGEST_LENGTH and length.isdigit() else 0)
        except OverShareError:
            seen.outcome = "quota"
            raise

    def _channel(self, state: TenantState, query: bytes, seen: _Seen) -> ChannelState:
        label = label_of(query)
        channel = state.channel(channel_key(label)) if label else None
        if channel is None:
            raise no_channel(state.tenant, label)
        seen.channel = channel.key
        return channel

    def _verified(
        self, state: TenantState, channel: ChannelState, raw: RawCallback, seen: _Seen
    ) -> Verification.ValueType:
        """What the channel's verification says of the request; FORBIDDEN or TOO_LARGE when that refuses it."""
        if channel.mode == "off":
            return VERIFICATION_OFF
        refusal = channel.verifier.verify(raw)
        if refusal is None:
            return channel.proven
        tenant_id = state.tenant.id
        self._states.count_refused(tenant_id, channel.key)
        self._unverified.add(tenant_id, channel.key, channel.mode, refusal.code)
        if channel.mode == "observe":
            # A body that was too large to be looked at as well: nobody vouches for it, and nothing is lost.
            return VERIFICATION_OBSERVED_INVALID
        seen.outcome = refusal.code
        raise unverified(refusal)

    def _account(
        self,
        scope: Scope,
        headers: list[tuple[bytes, bytes]],
        seen: _Seen,
        status: int,
        began: float,
        traceparent: str,
    ) -> None:
        ended = time.perf_counter()
        self._answered.add(seen.tenant, seen.channel, seen.outcome)
        if seen.complete_at:
            self._requests += 1
            if not self._requests % _SAMPLE:
                # Recording costs as much as verifying, so every sixteenth request stands for all.
                self._ingest_seconds.record(ended - seen.complete_at)
        if self._access_log.enabled:
            self._access_log.write(
                time.time(),
                {
                    "event": "callback",
                    "tenant": seen.tenant,
                    "channel": seen.channel,
                    "callback_id": seen.callback_id,
                    "outcome": seen.outcome,
                    "status": status,
                    "bytes": seen.size,
                    "duration_ms": round((ended - began) * 1000, 2),
                    "client": self._clients.of(scope, headers),
                    "trace_id": traceparent[3:35],
                },
            )


def _identified(answer: EncodedAnswer, callback_id: str) -> list[tuple[bytes, bytes]]:
    """The answer's headers, with the callback's id where one was stored."""
    return [(CALLBACK_ID_HEADER, callback_id.encode()), *answer.headers] if callback_id else [*answer.headers]


def _measured(answer: Answer) -> Answer:
    """The answer with its length."""
    status, body, headers = answer
    return status, body, [*headers, (b"content-length", b"%d" % len(body))]


def _shown(address: bytes) -> str:
    """Path and query without credentials."""
    return _remembered_address(address) if len(address) <= _LONGEST_REMEMBERED else _mask_address(address)


def _mask_address(address: bytes) -> str:
    return masked_bytes(address).decode("latin-1")


# A campaign's callbacks all come to one address. Long ones are not kept, so that nobody can fill the memory with them.
_remembered_address = lru_cache(maxsize=4096)(_mask_address)


def _valid(traceparent: str) -> str:
    """The traceparent, without what a later version may append; empty when it is not one."""
    match = _TRACEPARENT.match(traceparent)
    return match[0] if match is not None and parse_traceparent(match[0]) is not None else ""


def _end(span: Span, seen: _Seen, status: int) -> None:
    span.set_attributes(
        {
            "http.request.method": METHOD,
            "http.response.status_code": status,
            "backhaul.tenant": seen.tenant,
            "backhaul.channel": seen.channel,
            "backhaul.callback_id": seen.callback_id,
            "backhaul.outcome": seen.outcome,
        }
    )
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR, seen.outcome))
    span.end()
