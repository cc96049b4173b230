"""What tenants are answered about subscriptions, deliveries and types of events.

The models are the documentation, and what is written: each twin fills one from the notifier's answer.
"""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from backhaul_common.vocabulary import Words
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from pydantic import BaseModel

from backhaul_gateway.twins.pairs import NameValue
from backhaul_gateway.twins.turns import Steps
from backhaul_gateway.twins.twin import Of, Twin

METHODS = Words(pb.HttpMethod.DESCRIPTOR, str.upper)
STATES = Words(pb.DeliveryState.DESCRIPTOR)

_ENUMS = {pb.HttpMethod.DESCRIPTOR.full_name: METHODS}


class SubscriptionFilterOut(BaseModel):
    """Which events are told: those that pass every list that is not empty."""

    channels: list[str]
    communication_ids: list[str]
    error_codes: list[str]
    attributes: list[NameValue]
    kinds: list[str]


class BasicOut(BaseModel):
    """The password is never told."""

    username: str
    password: str


class HeaderOut(BaseModel):
    """The value is never told."""

    name: str
    value: str


class OAuthOut(BaseModel):
    """The secret is never told."""

    token_url: str
    client_id: str
    client_secret: str
    scope: str
    audience: str


class MutualTlsOut(BaseModel):
    """The key is never told."""

    certificate: str
    private_key: str


class CredentialsOut(BaseModel):
    """How the endpoint is shown who calls. What is secret is an empty text: put so again, it stays as it is."""

    basic: BasicOut | None
    bearer_token: str | None
    header: HeaderOut | None
    oauth: OAuthOut | None
    mutual_tls: MutualTlsOut | None


class HttpDestinationOut(BaseModel):
    """An endpoint. ``credentials`` is null where it is shown none."""

    method: str
    url: str
    headers: list[NameValue]
    credentials: CredentialsOut | None


class MailDestinationOut(BaseModel):
    """People, who are told by a digest."""

    addresses: list[str]
    every_minutes: int


class PayloadOut(BaseModel):
    """What is sent: ``form`` is ``full``, ``thin``, ``cloudevents`` or ``spec``."""

    form: str
    max_events: int
    max_wait_s: int
    with_raw: bool


class PolicyOut(BaseModel):
    """When is tried again: ``kind`` is ``standard``, ``dispatch``, ``rcs`` or ``custom``, of which the rest is."""

    kind: str
    retry_after_s: list[int]
    timeout_s: int
    only_200: bool


class SecretOut(BaseModel):
    """What calls are signed with. ``secret`` is told by the answer that made it, and never again: null. ``public_key``
    is that of an ``ed25519``."""

    kind: str
    secret: str | None
    public_key: str | None
    created_at: str | None
    expires_at: str | None


class StandingOut(BaseModel):
    """How it goes. ``waiting`` deliveries wait, and ``held`` ones for their communication to be enabled; of each, up to
    100,000 are counted. ``failing_since`` is null where the last attempt succeeded; until ``resting_until`` nothing but
    a probe is sent."""

    waiting: int
    oldest_waiting_at: str | None
    held: int
    failing_since: str | None
    last_success_at: str | None
    last_failure_at: str | None
    last_failure: str | None
    resting_until: str | None


class SubscriptionOut(BaseModel):
    """What a tenant wants to be told, where, and how it goes. Either ``http``, with a ``payload``, or ``mail`` is
    there. ``state`` is ``active``, ``paused`` or ``disabled``; ``state_text`` says why, where Backhaul decided it.
    ``revision`` grows with each change."""

    id: str
    revision: int
    name: Annotated[str, Of("definition.name")]
    types: Annotated[list[str], Of("definition.types")]
    filter: Annotated[SubscriptionFilterOut, Of("definition.filter")]
    http: Annotated[HttpDestinationOut | None, Of("definition.http")]
    mail: Annotated[MailDestinationOut | None, Of("definition.mail")]
    payload: Annotated[PayloadOut | None, Of("definition.payload")]
    policy: Annotated[PolicyOut, Of("definition.policy")]
    ordering: Annotated[str, Of("definition.ordering")]
    rate_per_s: Annotated[int, Of("definition.rate_per_s")]
    concurrency: Annotated[int, Of("definition.concurrency")]
    alert_addresses: Annotated[list[str], Of("definition.alert_addresses")]
    state: str
    state_text: str | None
    state_since: str | None
    created_at: str | None
    updated_at: str | None
    secrets: list[SecretOut]
    standing: StandingOut


class SubscriptionPage(BaseModel):
    """Oldest first. ``next_cursor`` is null on the last page."""

    subscriptions: list[SubscriptionOut]
    next_cursor: Annotated[str | None, Of("next_page_token")]


class AttemptOut(BaseModel):
    """One try. ``status`` is the endpoint's, 0 where it answered nothing; ``error`` is then a word, such as ``timeout``
    or ``address_refused``. ``answer_text`` is the beginning of what it answered, and ``request`` what was called,
    without the query. ``redelivery`` is how often it had been asked for again by then, 0 where it was made by itself:
    with each time ``number`` begins anew."""

    number: int
    at: str | None
    duration_ms: Annotated[float, Of("duration_us")]
    status: int
    error: str | None
    text: str
    answer_text: str
    request: str
    redelivery: int


class DeliveryOut(BaseModel):
    """One telling of one event or notice to one subscription. ``state`` is ``waiting``, ``held`` (its communication
    is disabled), ``delivered`` or ``failed``; ``webhook_id`` is that of every attempt. What waits is sent at
    ``next_attempt_at`` at the earliest, not before its endpoint's rest is over; or ``when_resumed`` is true, and that
    is null: its subscription is paused or disabled."""

    id: str
    subscription_id: str
    webhook_id: str
    type: str
    event_id: str
    revision: int
    channel: str | None
    message_id: str | None
    communication_id: str | None
    state: str
    attempts: int
    created_at: str | None
    next_attempt_at: str | None
    when_resumed: bool
    ended_at: str | None
    last_attempt: AttemptOut | None


class DeliveryWithHistoryOut(DeliveryOut):
    """With its latest attempts, up to 30, the oldest first."""

    attempts: Annotated[int, Of("delivery.attempts")]
    history: Annotated[list[AttemptOut], Of("attempts")]


class ListedDeliveryOut(DeliveryOut):
    """With its latest attempts, up to 30, the oldest first, where ``history`` was asked for; each without its answer
    and what was called, which ``last_attempt`` has."""

    history: list[AttemptOut]


class DeliveryPage(BaseModel):
    """Newest first. ``next_cursor`` is null on the last page."""

    deliveries: list[ListedDeliveryOut]
    next_cursor: Annotated[str | None, Of("next_page_token")]


class RedeliveredOut(BaseModel):
    """How many are sent again, or would be; up to 100,000 are counted."""

    deliveries: int


class EventTypeOut(BaseModel):
    """What can be told. ``kinds`` are those of its events; it is empty of notices. ``json_schema`` (JSON Schema
    2020-12) and ``sample`` are of a payload of the form ``full``."""

    type: str
    title: str
    description: str
    kinds: list[str]
    json_schema: dict[str, Any]
    sample: dict[str, Any]


class EventTypesOut(BaseModel):
    """The whole catalogue."""

    event_types: list[EventTypeOut]


def _as_it_is(name: str) -> Any:
    def read(row: pb.EventType) -> Steps[orjson.Fragment]:
        yield
        return orjson.Fragment(getattr(row, name))

    return read


_EVENT_TYPE: Twin[pb.EventType] = Twin(
    EventTypeOut,
    pb.EventType.DESCRIPTOR,
    computed={"json_schema": _as_it_is("schema"), "sample": _as_it_is("sample")},
)


def event_types_json(types: pb.ListEventTypesResponse) -> Steps[bytes]:
    """``EventTypesOut``."""
    rows = []
    for each in types.types:
        rows.append((yield from _EVENT_TYPE.json(each)))
        yield
    return b'{"event_types":[' + b",".join(rows) + b"]}"


SUBSCRIPTION: Twin[pb.Subscription] = Twin(SubscriptionOut, pb.Subscription.DESCRIPTOR, _ENUMS)
SUBSCRIPTIONS: Twin[pb.ListSubscriptionsResponse] = Twin(
    SubscriptionPage, pb.ListSubscriptionsResponse.DESCRIPTOR, _ENUMS
)
ATTEMPT: Twin[pb.Attempt] = Twin(AttemptOut, pb.Attempt.DESCRIPTOR)
DELIVERIES: Twin[pb.ListDeliveriesResponse] = Twin(DeliveryPage, pb.ListDeliveriesResponse.DESCRIPTOR)
DELIVERY: Twin[pb.GetDeliveryResponse] = Twin(
    DeliveryWithHistoryOut, pb.GetDeliveryResponse.DESCRIPTOR, inside="delivery"
)
REDELIVERED: Twin[pb.RedeliverResponse] = Twin(RedeliveredOut, pb.RedeliverResponse.DESCRIPTOR)
