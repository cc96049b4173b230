"""What a tenant wants to be told, over HTTP: subscriptions, what can be told, and what became of each telling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypedDict
from uuid import uuid4

from backhaul_client.calls import Call, all_of, aware, call, given, nothing, of, page_of, path, rows
from backhaul_client.notificationmodels import Attempt, Delivery, EventType, Redelivered, Subscription
from backhaul_client.paging import Page
from backhaul_client.transport import AsyncPart, Part

_PAGE = 100
_PAGE_WITH_HISTORY = 50


class PairIn(TypedDict):
    """A name with its value."""

    name: str
    value: str


class FilterIn(TypedDict, total=False):
    """Which events are told: those that pass every list that is not empty."""

    channels: Sequence[str]
    communication_ids: Sequence[str]
    error_codes: Sequence[str]
    attributes: Sequence[PairIn]
    kinds: Sequence[str]


class _Url(TypedDict):
    url: str


class HttpIn(_Url, total=False):
    """An endpoint. ``credentials`` has one of ``basic``, ``bearer_token``, ``header`` and ``oauth``, and perhaps
    ``mutual_tls``."""

    method: str
    headers: Sequence[PairIn]
    credentials: Mapping[str, object] | None


class _Addresses(TypedDict):
    addresses: Sequence[str]


class MailIn(_Addresses, total=False):
    """People, who are told by a digest of so many minutes."""

    every_minutes: int


class PayloadIn(TypedDict, total=False):
    """What is sent."""

    form: str
    max_events: int
    max_wait_s: int
    with_raw: bool


class PolicyIn(TypedDict, total=False):
    """What is success, and when is tried again."""

    kind: str
    retry_after_s: Sequence[int]
    timeout_s: int
    only_200: bool


class SubscriptionCalls:
    """The calls about subscriptions, once for both clients."""

    @call
    def create(
        self,
        types: Sequence[str],
        *,
        http: HttpIn | None = None,
        mail: MailIn | None = None,
        name: str = "",
        filter: FilterIn | None = None,  # noqa: A002  # the field's public name
        payload: PayloadIn | None = None,
        policy: PolicyIn | None = None,
        ordering: str = "",
        rate_per_s: int = 0,
        concurrency: int = 0,
        alert_addresses: Sequence[str] = (),
        secret: str = "",
        idempotency_key: str = "",
    ) -> Call[Subscription]:
        """Make a subscription, to an endpoint (``http``) or to people (``mail``). The answer alone has the secret that
        verifies its calls. Repeated under one ``idempotency_key`` it is made once; without one, it has one of its
        own."""
        body = _defined(
            types, http, mail, name, filter, payload, policy, ordering, rate_per_s, concurrency, alert_addresses
        )
        return Call(
            method="POST",
            path="/v1/subscriptions",
            body={**body, **({"secret": secret} if secret else {})},
            headers={"Idempotency-Key": idempotency_key or uuid4().hex},
            answer=of(Subscription),
            repeatable=True,
        )

    @call
    def replace(
        self,
        subscription_id: str,
        types: Sequence[str],
        *,
        revision: int = 0,
        http: HttpIn | None = None,
        mail: MailIn | None = None,
        name: str = "",
        filter: FilterIn | None = None,  # noqa: A002  # the field's public name
        payload: PayloadIn | None = None,
        policy: PolicyIn | None = None,
        ordering: str = "",
        rate_per_s: int = 0,
        concurrency: int = 0,
        alert_addresses: Sequence[str] = (),
    ) -> Call[Subscription]:
        """Put a definition in place of the one that there is: what is left out is as it is by default, but for secrets
        of credentials that are empty. With ``revision`` only where nobody has changed it since that one."""
        body = _defined(
            types, http, mail, name, filter, payload, policy, ordering, rate_per_s, concurrency, alert_addresses
        )
        return Call(
            method="PUT",
            path=path("v1", "subscriptions", subscription_id),
            body={**body, **({"revision": revision} if revision else {})},
            answer=of(Subscription),
            # Whoever names a revision would be refused the second time, for what they did themselves.
            repeatable=not revision,
        )

    @call
    def get(self, subscription_id: str) -> Call[Subscription]:
        """One subscription, and how it goes."""
        return Call(path=path("v1", "subscriptions", subscription_id), answer=of(Subscription))

    @call
    def document(self, subscription_id: str) -> Call[dict[str, Any]]:
        """The same as it was answered, with what a newer service tells of it. Whoever replaces one takes away what they
        do not repeat."""
        return Call(path=path("v1", "subscriptions", subscription_id), answer=of(dict[str, Any]))

    @rows
    def list(self, *, page_size: int = _PAGE, cursor: str = "") -> Call[Page[Subscription]]:
        """Subscriptions, oldest first."""
        params = given(limit=page_size, cursor=cursor)
        return Call(path="/v1/subscriptions", params=params, answer=page_of("subscriptions", Subscription))

    @call
    def delete(self, subscription_id: str) -> Call[None]:
        """Delete one, with what waits for it and its history."""
        return Call(method="DELETE", path=path("v1", "subscriptions", subscription_id), answer=nothing)

    @call
    def pause(self, subscription_id: str) -> Call[Subscription]:
        """Send nothing more; what happens meanwhile waits. Repeated, it changes nothing."""
        return Call(
            method="POST",
            path=path("v1", "subscriptions", subscription_id, "pause"),
            answer=of(Subscription),
            repeatable=True,
        )

    @call
    def resume(self, subscription_id: str, *, rate_per_s: int = 0) -> Call[Subscription]:
        """Send what waits, in calls a second, and go on; also where Backhaul paused or disabled it."""
        return Call(
            method="POST",
            path=path("v1", "subscriptions", subscription_id, "resume"),
            body={"rate_per_s": rate_per_s},
            answer=of(Subscription),
            repeatable=True,
        )

    @call
    def rotate_secret(
        self,
        subscription_id: str,
        *,
        kind: Literal["hmac", "ed25519"] = "hmac",
        grace_s: int | None = None,
        secret: str = "",
    ) -> Call[Subscription]:
        """Make a new secret, which this answer alone has, or take one of your own. The one before is good until its
        grace is over; left out, for a day."""
        body = {"kind": kind, "grace_s": grace_s, "secret": secret}
        return Call(
            method="POST",
            path=path("v1", "subscriptions", subscription_id, "rotate-secret"),
            body={name: value for name, value in body.items() if value not in (None, "")},
            answer=of(Subscription),
        )

    @call
    def test(self, subscription_id: str, *, type: str = "") -> Call[Attempt]:  # noqa: A002  # the field's public name
        """Send a sample of a type now, once: what became of it. It may take as long as the policy lets an attempt take:
        give the client a ``timeout_s`` that is longer."""
        return Call(
            method="POST",
            path=path("v1", "subscriptions", subscription_id, "test"),
            body=given(type=type),
            answer=of(Attempt),
        )

    @call
    def redeliver(
        self,
        subscription_id: str,
        which: Literal["failed", "all", "never_attempted"],
        *,
        from_: datetime,
        to: datetime | None = None,
        types: Sequence[str] = (),
        channel: str = "",
        message_id: str = "",
        communication: str = "",
        event_id: str = "",
        rate_per_s: int = 0,
        dry_run: bool = False,
    ) -> Call[Redelivered]:
        """Have deliveries sent again that were made from ``from_`` to ``to``, of these only where they are given
        (``message_id`` needs ``channel``): how many. With ``dry_run`` nothing is sent."""
        body: dict[str, object] = {"which": which, "from": aware("from", from_)}
        if to is not None:
            body["to"] = aware("to", to)
        about = {"channel": channel, "message_id": message_id, "communication": communication, "event_id": event_id}
        more = {"types": list(types), **about, "rate_per_s": rate_per_s, "dry_run": dry_run}
        return Call(
            method="POST",
            path=path("v1", "subscriptions", subscription_id, "redeliver"),
            body={**body, **{name: value for name, value in more.items() if value}},
            answer=of(Redelivered),
            repeatable=dry_run,
        )

    @call
    def types(self) -> Call[tuple[EventType, ...]]:
        """All that can be told, each type with a JSON Schema and a sample."""
        return Call(path="/v1/event-types", answer=all_of("event_types", EventType))


class DeliveryCalls:
    """The calls about deliveries, once for both clients."""

    @rows
    def list(
        self,
        *,
        subscription_id: str = "",
        state: str = "",
        type: str = "",  # noqa: A002  # the parameter's public name
        event_id: str = "",
        channel: str = "",
        message_id: str = "",
        communication: str = "",
        never_attempted: bool = False,
        undelivered: bool = False,
        reason: str = "",
        history: bool = False,
        from_: datetime | None = None,
        to: datetime | None = None,
        page_size: int = _PAGE,
        cursor: str = "",
    ) -> Call[Page[Delivery]]:
        """Deliveries, newest first. ``from_`` and ``to`` bound when they were made; ``message_id`` needs ``channel``.
        ``reason`` is why the latest attempt failed: ``503``, ``5xx``, ``timeout``, or ``tls_*``, say.
        With ``history`` each has its attempts, and a page no more than 50 of them."""
        params = given(
            subscription_id=subscription_id,
            state=state,
            type=type,
            event_id=event_id,
            channel=channel,
            message_id=message_id,
            communication=communication,
            never_attempted=never_attempted or None,
            undelivered=undelivered or None,
            reason=reason,
            history=history or None,
            from_=from_,
            to=to,
            limit=min(page_size, _PAGE_WITH_HISTORY) if history else page_size,
            cursor=cursor,
        )
        return Call(path="/v1/deliveries", params=params, answer=page_of("deliveries", Delivery))

    @call
    def get(self, delivery_id: str) -> Call[Delivery]:
        """One delivery, with its attempts."""
        return Call(path=path("v1", "deliveries", delivery_id), answer=of(Delivery))

    @call
    def redeliver(self, delivery_id: str) -> Call[Redelivered]:
        """Have one sent again, under the same ``webhook-id``."""
        return Call(method="POST", path=path("v1", "deliveries", delivery_id, "redeliver"), answer=of(Redelivered))


def _defined(
    types: Sequence[str],
    http: HttpIn | None,
    mail: MailIn | None,
    name: str,
    filter_: FilterIn | None,
    payload: PayloadIn | None,
    policy: PolicyIn | None,
    ordering: str,
    rate_per_s: int,
    concurrency: int,
    alert_addresses: Sequence[str],
) -> dict[str, object]:
    """A definition without what says nothing."""
    parts = {
        "name": name,
        "filter": filter_,
        "http": http,
        "mail": mail,
        "payload": payload,
        "policy": policy,
        "ordering": ordering,
        "rate_per_s": rate_per_s,
        "concurrency": concurrency,
        "alert_addresses": list(alert_addresses),
    }
    return {"types": list(types), **{key: value for key, value in parts.items() if value}}


class Subscriptions(SubscriptionCalls, Part):
    """``TenantClient.subscriptions``."""


class AsyncSubscriptions(SubscriptionCalls, AsyncPart):
    """``AsyncTenantClient.subscriptions``."""


class Deliveries(DeliveryCalls, Part):
    """``TenantClient.deliveries``."""


class AsyncDeliveries(DeliveryCalls, AsyncPart):
    """``AsyncTenantClient.deliveries``."""
