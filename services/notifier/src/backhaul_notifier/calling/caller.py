"""Calls by HTTP, and whom a delivery is given to."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Final, Literal

from backhaul_common.errors import BackhaulError
from backhaul_common.tracing import Tracing, traceparent_of
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from backhaul_notifier.calling.credentials import Shown, shown
from backhaul_notifier.calling.knowing import NORMALIZER_AWAY, AwayError, Knowing
from backhaul_notifier.calling.oauth import Client, TokenError, Tokens
from backhaul_notifier.calling.once import Kept
from backhaul_notifier.calling.opening import Opens
from backhaul_notifier.catalogue.types import TYPES
from backhaul_notifier.door import outcome as door_outcome
from backhaul_notifier.door.client import Door
from backhaul_notifier.door.outcome import Failure, Request
from backhaul_notifier.model import Attempted, Delivery, Subscription
from backhaul_notifier.payloads import Body, Form, Renderer, Told
from backhaul_notifier.ports import Caller, always
from backhaul_notifier.schedules import UNRESOLVED, Outcome
from backhaul_notifier.signing import SigningKey, signed_headers
from backhaul_notifier.urls import Template, UnresolvedError, parse
from backhaul_notifier.variables import PREFIXES, Known, Variables, needed

MAX_COMPILED: Final = 20_000
"""Subscriptions of which is kept what their calls have in common."""

SECRETS_UNREADABLE: Final = "secrets_unreadable"
"""The word for an attempt that could not be made, since no key opens the subscription's credentials."""

ASKING: Final = 0.5
"""The part of an attempt's time that asking for what an address needs may take: the rest is the endpoint's."""

USER_AGENT: Final = "Backhaul"

_FORMS: Final = {
    pb.PAYLOAD_FORM_UNSPECIFIED: Form.FULL,
    pb.PAYLOAD_FORM_FULL: Form.FULL,
    pb.PAYLOAD_FORM_THIN: Form.THIN,
    pb.PAYLOAD_FORM_CLOUDEVENTS: Form.CLOUDEVENTS,
    pb.PAYLOAD_FORM_SPEC: Form.SPEC,
}


class Calling:
    """``ports.Caller``: gives what is to be told to whom tells it."""

    def __init__(self, http: Caller, mail: Caller) -> None:
        self._http = http
        self._mail = mail

    async def call(
        self,
        subscription: Subscription,
        deliveries: Sequence[Delivery],
        webhook_id: str,
        may_send: Callable[[], bool] = always,
    ) -> Attempted:
        """See ``Caller``."""
        by_mail = subscription.definition.WhichOneof("destination") == "mail"
        return await (self._mail if by_mail else self._http).call(subscription, deliveries, webhook_id, may_send)


@dataclass(frozen=True, slots=True)
class _Compiled:
    """What all calls of one revision of a subscription have in common. ``url`` is empty where it has variables, and
    ``asks`` then says whether what is told may not be enough to give them values."""

    revision: int
    registration: str
    method: Literal["GET", "POST"]
    template: Template
    names: tuple[str, ...]
    asks: bool
    url: str
    request: str
    keys: Sequence[SigningKey] = field(repr=False)
    shown: Shown
    client: Client | None
    form: Form
    batched: bool
    with_raw: bool


@dataclass(slots=True)
class _Call:
    """One call. ``ends_at``, by the clock, is when its time is over; ``tokens`` are those that it has shown."""

    compiled: _Compiled
    url: str
    body: Body
    webhook_id: str
    traceparent: str
    ends_at: float
    may_send: Callable[[], bool]
    tokens: list[str] = field(default_factory=list)


class _NotSentError(Exception):
    """The attempt ended before anything was sent to the endpoint."""

    def __init__(self, error: str, text: str) -> None:
        super().__init__(text)
        self.error = error


class HttpCalling:
    """``ports.Caller`` for endpoints. ``clock`` counts seconds, ``now_us`` is unix time in microseconds.

    Without a ``knowing`` it tells examples, whose members nobody knows: a variable without a value stands as its name.
    """

    def __init__(
        self,
        door: Door,
        renderer: Renderer,
        opens: Opens,
        knowing: Knowing | None,
        tokens: Tokens,
        tracing: Tracing,
        *,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._door = door
        self._renderer = renderer
        self._opens = opens
        self._knowing = knowing
        self._tokens = tokens
        self._tracing = tracing
        self._now_us = now_us
        self._clock = clock
        self._known: OrderedDict[str, _Compiled] = OrderedDict()

    async def call(
        self,
        subscription: Subscription,
        deliveries: Sequence[Delivery],
        webhook_id: str,
        may_send: Callable[[], bool] = always,
    ) -> Attempted:
        """See ``Caller``."""
        told = [Told(one.type, one.said) for one in deliveries]
        if not self._tracing.enabled:
            return await self._call(subscription, told, webhook_id, told[0].said.traceparent, may_send)
        span = self._span(subscription, told)
        try:
            attempted = await self._call(subscription, told, webhook_id, traceparent_of(span), may_send)
            _tell(span, attempted)
            return attempted
        finally:
            span.end()

    async def _call(
        self,
        subscription: Subscription,
        told: Sequence[Told],
        webhook_id: str,
        traceparent: str,
        may_send: Callable[[], bool],
    ) -> Attempted:
        at_us, began = self._now_us(), self._clock()
        request, answered = "", ""
        timeout_s = subscription.policy.timeout_s
        try:
            compiled = self._compiled(subscription)
            request = compiled.request
            url = compiled.url
            if not url:
                url = await self._url(subscription, compiled, told[0], timeout_s * ASKING)
                request = f"{compiled.method} {_without_query(url)}"
            body = self._renderer.body(
                compiled.form,
                told,
                batched=compiled.batched,
                post=compiled.method == "POST",
                with_raw=compiled.with_raw,
            )
            call = _Call(compiled, url, body, webhook_id, traceparent, began + timeout_s, may_send)
            outcome = await self._sent(call)
            result = _outcome(outcome)
            text = outcome.sentence or f"The endpoint answered {outcome.status}."
            if outcome.answer:
                answered = compiled.shown.without_secrets(outcome.answer, *call.tokens)
        except _NotSentError as exc:
            result, text = Outcome(error=exc.error), str(exc)
        return Attempted(at_us, round((self._clock() - began) * 1e6), result, text, answered, request)

    async def _sent(self, call: _Call) -> door_outcome.Outcome:
        """What became of a request; of a second one where the endpoint did not take a token that was there already."""
        client = call.compiled.client
        if client is None:
            return await self._door.send(self._request(call, ""))
        began = self._clock()
        token = await self._token(client, call)
        outcome = await self._door.send(self._request(call, token.value))
        if outcome.status != HTTPStatus.UNAUTHORIZED or token.made_at >= began:
            return outcome
        self._tokens.refused(client, token.value)
        try:
            token = await self._token(client, call)
        except _NotSentError:
            return outcome
        return await self._door.send(self._request(call, token.value))

    async def _token(self, client: Client, call: _Call) -> Kept[str]:
        try:
            async with asyncio.timeout(call.ends_at - self._clock()):
                token = await self._tokens.get(client)
        except TimeoutError as exc:
            raise _NotSentError("token_timeout", "The token's server did not answer in time.") from exc
        except TokenError as exc:
            raise _NotSentError(exc.error, str(exc)) from exc
        call.tokens.append(token.value)
        return token

    def _request(self, call: _Call, token: str) -> Request:
        compiled, body = call.compiled, call.body
        headers = {
            **compiled.shown.headers,
            **signed_headers(call.webhook_id, body.content, compiled.keys, self._now_us()),
        }
        headers["user-agent"] = USER_AGENT
        if body.content_type:
            headers["content-type"] = body.content_type
        if call.traceparent:
            headers["traceparent"] = call.traceparent
        timeout_s = call.ends_at - self._clock()
        if token:
            headers["authorization"] = f"Bearer {token}"
        return Request(
            compiled.method,
            call.url,
            headers,
            body.content,
            timeout_s,
            compiled.shown.tls,
            of=compiled.registration,
            may_send=call.may_send,
        )

    def _compiled(self, subscription: Subscription) -> _Compiled:
        known = self._known.get(subscription.id)
        if known is not None and (known.revision, known.registration) == (
            subscription.revision,
            subscription.registration,
        ):
            return known
        try:
            made = _compiled_of(subscription, *self._opened(subscription))
        except BackhaulError as exc:
            raise _NotSentError(Failure.REQUEST_INVALID, f"The address cannot be called: {exc.message}") from exc
        self._known[subscription.id] = made
        self._known.move_to_end(subscription.id)
        if len(self._known) > MAX_COMPILED:
            self._known.popitem(last=False)
        return made

    def _opened(self, subscription: Subscription) -> tuple[pb.Credentials, Sequence[SigningKey]]:
        try:
            return self._opens.credentials(subscription), self._opens.keys(subscription, self._now_us())
        except ValueError as exc:
            text = "No key opens what the subscription's calls are signed with, or what they show."
            raise _NotSentError(SECRETS_UNREADABLE, text) from exc

    async def _url(self, subscription: Subscription, compiled: _Compiled, told: Told, within_s: float) -> str:
        known = Known()
        if self._knowing is not None and compiled.asks:
            try:
                async with asyncio.timeout(within_s):
                    known = await self._knowing.known(subscription, told.said, told.type, compiled.names)
            except TimeoutError as exc:
                text = "The normalizer did not say in time what the address needs."
                raise _NotSentError(NORMALIZER_AWAY, text) from exc
            except AwayError as exc:
                raise _NotSentError(NORMALIZER_AWAY, str(exc)) from exc
        get = Variables(told.said, told.type, known).get
        if self._knowing is None:
            get = partial(_or_its_name, get)
        try:
            return compiled.template.expanded(get)
        except UnresolvedError as exc:
            raise _NotSentError(UNRESOLVED, str(exc)) from exc

    def _span(self, subscription: Subscription, told: Sequence[Told]) -> Span:
        """In the trace of the event; of several, in one of its own that is linked to theirs."""
        traces = [one.said.traceparent for one in told if one.said.traceparent]
        return self._tracing.start(
            "endpoint.call",
            parent=traces[0] if len(told) == 1 and traces else None,
            kind=SpanKind.CLIENT,
            attributes={
                "tenant": subscription.tenant,
                "subscription": subscription.id,
                "type": told[0].type,
                "events": len(told),
            },
            links=traces if len(told) > 1 else (),
        )


def _compiled_of(subscription: Subscription, credentials: pb.Credentials, keys: Sequence[SigningKey]) -> _Compiled:
    definition = subscription.definition
    destination, payload = definition.http, definition.payload
    # Whether its variables can have values was checked against its types when it was written.
    template = parse(destination.url, tuple(TYPES.values()), field="definition.http.url")
    method: Literal["GET", "POST"] = "GET" if destination.method == pb.HTTP_METHOD_GET else "POST"
    showing = shown(destination, credentials)
    names = template.variables
    return _Compiled(
        subscription.revision,
        subscription.registration,
        method,
        template,
        names,
        bool(needed(names)),
        "" if names else template.text,
        f"{method} {_without_query(template.text)}",
        keys,
        showing,
        Client.of(subscription.registration, showing.oauth, showing.tls) if showing.oauth else None,
        _FORMS[payload.form],
        payload.max_events > 1,
        payload.with_raw,
    )


def _or_its_name(get: Callable[[str], str | None], name: str) -> str:
    """The value of ``name``, or its own last part: what an example does not say may be any text."""
    return get(name) or next((name.removeprefix(prefix) for prefix in PREFIXES if name.startswith(prefix)), name)


def _without_query(url: str) -> str:
    return url.partition("#")[0].partition("?")[0]


def _outcome(answered: door_outcome.Outcome) -> Outcome:
    return Outcome(answered.status or 0, answered.failure or "", answered.retry_after_s)


def _tell(span: Span, attempted: Attempted) -> None:
    outcome = attempted.outcome
    if outcome.status:
        span.set_attribute("http.response.status_code", outcome.status)
    if outcome.error or not HTTPStatus.OK <= outcome.status < HTTPStatus.MULTIPLE_CHOICES:
        span.set_status(Status(StatusCode.ERROR, outcome.error or str(outcome.status)))
