"""The hot path: one provider's POST, from the first byte to the answer.

This is an ASGI endpoint without FastAPI's routes, dependencies or models, which would cost more than all that is done
here. The body is never parsed beyond what its signature needs. Whether it can be understood is the normalizer's
question, and no reason to refuse an authentic callback.
"""

from __future__ import annotations

import time

from backhaul_channels.adapter import RawCallback
from backhaul_common.errors import BackhaulError, Code, internal
from backhaul_common.ids import new_callback_id
from backhaul_common.logs import get_logger
from backhaul_common.metering import Metrics
from backhaul_common.metrics import (
    CALLBACKS_ANSWERED,
    CALLBACKS_PLAIN,
    CALLBACKS_UNVERIFIED,
    INGEST_SECONDS,
    QUEUED_BYTES,
)
from backhaul_common.names import channel_key
from backhaul_common.sizes import MAX_QUERY_BYTES
from backhaul_common.tracing import Tracing, new_traceparent, parse_traceparent, traceparent_of
from backhaul_proto.callback.v1.callback_pb2 import (
    VERIFICATION_OBSERVED_INVALID,
    Callback,
    Verification,
)
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from starlette.types import Receive, Scope, Send

from backhaul_gateway.admission.access import POST_EVENTS, ROUTES, lacking
from backhaul_gateway.admission.attempts import WrongCredentials
from backhaul_gateway.admission.auth import CredentialIndex, sent_twice, unauthenticated
from backhaul_gateway.admission.door import Admission, RefusedError
from backhaul_gateway.admission.limits import MemoryBudget
from backhaul_gateway.admission.refusals import no_channel, not_active
from backhaul_gateway.admission.state import ChannelState, EncodedAnswer, TenantState, TenantStates
from backhaul_gateway.admission.strangers import Strangers
from backhaul_gateway.ingest.body import BodyReader, GoneError
from backhaul_gateway.ingest.request import Request
from backhaul_gateway.ports import CallbackLog, Held
from backhaul_gateway.web.accesslog import AccessLog
from backhaul_gateway.web.clients import ClientAddress
from backhaul_gateway.web.http import answer
from backhaul_gateway.web.https import Https
from backhaul_gateway.web.kept import kept_headers, shown_address
from backhaul_gateway.web.masking import masked_body, masked_bytes
from backhaul_gateway.web.parameters import label_of
from backhaul_gateway.web.problems import Answer, of_error
from backhaul_gateway.web.refusals import (
    METHOD,
    method_not_allowed,
    query_too_long,
    unverified,
)

CALLBACK_ID_HEADER = b"backhaul-callback-id"
_SAMPLE = 16
_TRACEPARENT_LENGTH = 55
_NEEDED = ROUTES[POST_EVENTS].bits


class IngestEndpoint:
    """``POST /api/postevents`` and ``POST /in/{token}/api/postevents``."""

    def __init__(
        self,
        *,
        states: TenantStates,
        credentials: CredentialIndex,
        strangers: Strangers,
        wrong: WrongCredentials,
        admission: Admission,
        callbacks: CallbackLog,
        held: Held | None,
        access_log: AccessLog,
        metrics: Metrics,
        tracing: Tracing,
        clients: ClientAddress,
        https: Https,
        body_timeout_s: float,
        max_held_bytes: int,
        max_bodies: int,
    ) -> None:
        self._states = states
        self._credentials = credentials
        self._strangers = strangers
        self._wrong = wrong
        self._admission = admission
        self._callbacks = callbacks
        self._held = held
        self._access_log = access_log
        self._tracing = tracing
        self._clients = clients
        self._https = https
        self._budget = MemoryBudget(max_held_bytes)
        metrics.gauge(QUEUED_BYTES, lambda: self._budget.used)
        self._bodies = BodyReader(body_timeout_s, self._budget, max_bodies)
        self._answered = metrics.counter(CALLBACKS_ANSWERED)
        self._unverified = metrics.counter(CALLBACKS_UNVERIFIED)
        self._plain = metrics.counter(CALLBACKS_PLAIN)
        self._ingest_seconds = metrics.histogram(INGEST_SECONDS)
        self._requests = 0
        self._log = get_logger(component="ingest")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        incoming = request.named.get(b"traceparent")
        parent = _valid(incoming.decode("latin-1")) if incoming else ""
        span: Span | None = None
        if self._tracing.enabled:
            span = self._tracing.start("POST /api/postevents", parent=parent or None, kind=SpanKind.SERVER)
            parent = traceparent_of(span)
        request.traceparent = parent or new_traceparent()
        status, body, headers = await self._answer(request)
        if status:
            await answer(send, status, (*headers, *self._https.strict(scope, request.headers)), body)
        self._account(request, status)
        if span is not None:
            _end(span, request, status)

    async def _answer(self, request: Request) -> Answer:
        """The answer to the provider. Sets the request's outcome, which nothing else does."""
        try:
            request.outcome, accepted = await self._take(request)
        except BackhaulError as exc:
            request.outcome = exc.outcome if isinstance(exc, RefusedError) else exc.code.value
            status, body, fields = of_error(exc, request.trace_id)
            if exc.code is Code.UNAUTHENTICATED:
                address = self._clients.of(request.scope, request.headers)
                if not await self._wrong.refused(address):
                    fields = (*fields, (b"connection", b"close"))
            return status, body, fields
        except GoneError:
            request.outcome = "client_gone"
            return 0, b"", ()
        except Exception as exc:  # noqa: BLE001  # the edge: whatever is unexpected is a 500, which providers repeat
            self._log.error("ingest_failed", tenant=request.tenant, channel=request.channel, exc_info=exc)
            request.outcome = Code.INTERNAL.value
            return of_error(internal(), request.trace_id)
        headers = accepted.headers
        if request.callback_id:
            headers = ((CALLBACK_ID_HEADER, request.callback_id.encode()), *headers)
        return accepted.status, accepted.body, headers

    async def _take(self, request: Request) -> tuple[str, EncodedAnswer]:
        """Do everything until JetStream has acknowledged it, or it is held. Returns the outcome, and the answer to the
        provider.

        Raises BackhaulError with the reason of a refusal, and GoneError.
        """
        if request.method != METHOD:
            raise method_not_allowed(request.method)
        state = self._present(request, self._known(request) or await self._found(request))
        limit = state.tenant.limits.max_body_bytes
        # The announced size of a body over the limit does not count here: the reader will refuse that body anyway.
        wait = self._admission.posted(state, request.declared if 0 < request.declared <= limit else 0)
        if len(request.query) > MAX_QUERY_BYTES:
            raise query_too_long()
        request.label = label_of(request.query)
        channel = self._channel(request, state) or await self._found_channel(request, state)
        kept = kept_headers(request.headers, channel.not_kept)
        tenant_id = request.tenant
        body = await self._bodies.read(request, limit)
        try:
            request.complete_at = time.perf_counter()
            request.size = len(body)
            if self._states.get(tenant_id) is not state:
                # The tenant was changed or deleted while the body came in. Judge the callback by what holds now.
                state = self._present(request, self._known(request))
                channel = self._configured(request, state)
                if state.tenant.status != "active":
                    wait = not_active(state.tenant)
            return await self._store(request, channel, kept, body, wait)
        finally:
            if body:
                # To the tenant that it was read for, whatever a second look at the credential has found since.
                self._budget.give_back(tenant_id, len(body))

    async def _store(
        self, request: Request, channel: ChannelState, kept: bytes, body: bytes, wait: BackhaulError | None
    ) -> tuple[str, EncodedAnswer]:
        """Verify the callback and store it, or hold it where ``wait`` says why it may not be stored yet; raised where
        it cannot be held. A provider's handshake is answered, and nothing of it is stored."""
        address = request.address
        received_at_us = time.time_ns() // 1000
        base_url = self._https.base_url(request.scope, request.headers)
        url = base_url + address.decode("latin-1")
        raw = RawCallback(METHOD, url, request.headers, body, received_at_us, channel.audience)
        if channel.handshake is not None and (answer := channel.handshake(raw)) is not None:
            return "handshake", EncodedAnswer(answer)
        verification = self._verified(channel, raw)
        callback = Callback()
        callback_id = new_callback_id()
        callback.id = callback_id
        callback.verification = verification
        callback.method = METHOD
        # The ingest token stands in the path, and wherever a proxy or the provider repeats the path.
        callback.url = base_url + shown_address(address)
        callback.headers = masked_bytes(kept)
        callback.body = masked_body(body)
        callback.received_at_us = received_at_us
        callback.traceparent = request.traceparent
        encoded = channel.prefix + callback.SerializeToString()
        if wait is None:
            await self._callbacks.publish(channel.subject, callback_id, encoded, request.traceparent)
        elif self._held is None or not await self._held.hold(
            channel.subject, callback_id, encoded, request.traceparent
        ):
            raise wait
        request.callback_id = callback_id
        if wait is not None:
            return "held", channel.accepted
        outcome = "stored_unverified" if verification == VERIFICATION_OBSERVED_INVALID else "stored"
        return outcome, channel.accepted

    def _known(self, request: Request) -> TenantState | None:
        """The tenant whose credential the request carries, if it is known in memory. FORBIDDEN for a key that may not
        bring callbacks."""
        if len(request.named) != len(request.headers) and sent_twice(request.headers):
            raise unauthenticated("A header that carries a credential was sent twice.", "Send it once.")
        if request.token is None:
            principal = self._credentials.from_values(
                request.named.get(b"x-api-key"), request.named.get(b"authorization")
            )
        else:
            principal = self._credentials.from_token(request.token)
        if principal is None:
            return None
        if not principal.bits & _NEEDED:
            request.tenant = principal.tenant_id
            raise lacking(_NEEDED)
        return self._states.get(principal.tenant_id)

    async def _found(self, request: Request) -> TenantState | None:
        """Look for the tenant in the database: another copy of the gateway may have registered it a moment ago."""
        await self._strangers.credential(
            request.token, request.named.get(b"x-api-key"), request.named.get(b"authorization")
        )
        return self._known(request)

    def _present(self, request: Request, state: TenantState | None) -> TenantState:
        """``state``, if the tenant is known, and not being deleted; UNAUTHENTICATED, UNAVAILABLE or FORBIDDEN
        otherwise."""
        if state is None:
            raise self._credentials.refusal() if request.token is None else self._credentials.token_refusal()
        request.tenant = state.tenant.id
        if state.tenant.status == "deleting":
            raise not_active(state.tenant)
        return state

    def _channel(self, request: Request, state: TenantState) -> ChannelState | None:
        """The channel that the query names, if the tenant has it."""
        channel = state.channel(channel_key(request.label))
        if channel is not None:
            request.channel = channel.key
        return channel

    async def _found_channel(self, request: Request, state: TenantState) -> ChannelState:
        """Look for the channel in the database. Raises what ``_configured`` raises."""
        if request.label:
            await self._strangers.channel(state, channel_key(request.label))
            state = self._present(request, self._known(request))
        return self._configured(request, state)

    def _configured(self, request: Request, state: TenantState) -> ChannelState:
        """The channel that the query names; NOT_FOUND, or INVALID_ARGUMENT where it names none."""
        channel = self._channel(request, state)
        if channel is None:
            raise no_channel(state.tenant, request.label)
        return channel

    def _verified(self, channel: ChannelState, raw: RawCallback) -> Verification.ValueType:
        """What the channel's verification says of the callback; FORBIDDEN or TOO_LARGE when that refuses it."""
        verification, refusal = channel.judge(raw)
        if refusal is None:
            return verification
        self._states.count_refused(channel.tenant_id, channel.key)
        self._unverified.add(channel.tenant_id, channel.key, channel.mode, refusal.code)
        if verification:
            return verification
        raise unverified(refusal)

    def _account(self, request: Request, status: int) -> None:
        """Count the request and write its line. ``status`` is 0 where nobody was there to be answered."""
        ended = time.perf_counter()
        self._answered.add(request.tenant, request.channel, request.outcome)
        if self._https.redirects and not self._https.is_secure(request.scope, request.headers):
            self._plain.add(request.tenant, request.channel)
        if request.complete_at:
            self._requests += 1
            if not self._requests % _SAMPLE:
                # Recording costs as much as verifying, so every sixteenth request stands for all.
                self._ingest_seconds.record(ended - request.complete_at)
        if self._access_log.enabled:
            self._access_log.write(
                time.time(),
                {
                    "event": "callback",
                    "tenant": request.tenant,
                    "channel": request.channel,
                    "callback_id": request.callback_id,
                    "outcome": request.outcome,
                    "status": status,
                    "bytes": request.size,
                    "duration_ms": round((ended - request.began) * 1000, 2),
                    "client": self._clients.of(request.scope, request.headers),
                    "trace_id": request.trace_id,
                },
            )


def _valid(traceparent: str) -> str:
    """The traceparent, without what a later version appends to it; empty when it is not one."""
    return traceparent[:_TRACEPARENT_LENGTH] if parse_traceparent(traceparent) is not None else ""


def _end(span: Span, request: Request, status: int) -> None:
    span.set_attributes(
        {
            "http.request.method": METHOD,
            "http.response.status_code": status,
            "backhaul.tenant": request.tenant,
            "backhaul.channel": request.channel,
            "backhaul.callback_id": request.callback_id,
            "backhaul.outcome": request.outcome,
        }
    )
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR, request.outcome))
    span.end()
