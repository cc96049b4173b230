"""What the API answers about subscriptions and deliveries. Words are plain texts, so that a new one is no error."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from backhaul_client.models import Pair, Secret


class SubscriptionFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events are told: those that pass every list that is not empty."""

    channels: tuple[str, ...]
    communication_ids: tuple[str, ...]
    error_codes: tuple[str, ...]
    attributes: tuple[Pair, ...]
    kinds: tuple[str, ...]


class BasicCredentials(msgspec.Struct, frozen=True, kw_only=True):
    """HTTP Basic. The password is never told."""

    username: str
    password: str


class HeaderCredentials(msgspec.Struct, frozen=True, kw_only=True):
    """A header that only the two sides know. Its value is never told."""

    name: str
    value: str


class OAuthCredentials(msgspec.Struct, frozen=True, kw_only=True):
    """Client credentials. The secret is never told."""

    token_url: str
    client_id: str
    client_secret: str
    scope: str
    audience: str


class MutualTls(msgspec.Struct, frozen=True, kw_only=True):
    """PEM. The key is never told."""

    certificate: str
    private_key: str


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """How the endpoint is shown who calls. What is secret is an empty text."""

    basic: BasicCredentials | None
    bearer_token: str | None
    header: HeaderCredentials | None
    oauth: OAuthCredentials | None
    mutual_tls: MutualTls | None


class HttpDestination(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint. ``credentials`` is None where it is shown none."""

    method: str
    url: str
    headers: tuple[Pair, ...]
    credentials: Credentials | None


class MailDestination(msgspec.Struct, frozen=True, kw_only=True):
    """People, who are told by a digest."""

    addresses: tuple[str, ...]
    every_minutes: int


class Payload(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent: ``form`` is ``full``, ``thin``, ``cloudevents`` or ``spec``."""

    form: str
    max_events: int
    max_wait_s: int
    with_raw: bool


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """When is tried again: ``kind`` is ``standard``, ``dispatch``, ``rcs`` or ``custom``, of which the rest is."""

    kind: str
    retry_after_s: tuple[int, ...]
    timeout_s: int
    only_200: bool


class SigningSecret(msgspec.Struct, frozen=True, kw_only=True):
    """What calls are signed with. ``secret`` is told once, by the answer that made it. ``public_key`` is that of an
    ``ed25519``."""

    kind: str
    secret: Secret | None
    public_key: str | None
    created_at: datetime | None
    expires_at: datetime | None


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How it goes. ``held`` deliveries wait for their communication to be enabled. ``failing_since`` is None where the
    last attempt succeeded; until ``resting_until`` nothing but a probe is sent."""

    waiting: int
    oldest_waiting_at: datetime | None
    held: int
    failing_since: datetime | None
    last_success_at: datetime | None
    last_failure_at: datetime | None
    last_failure: str | None
    resting_until: datetime | None


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """What is told, where, and how it goes. ``http``, with a ``payload``, or ``mail`` is there. ``state`` is
    ``active``, ``paused`` or ``disabled``; ``state_text`` says why, where Backhaul decided it."""

    id: str
    revision: int
    name: str
    types: tuple[str, ...]
    filter: SubscriptionFilter
    http: HttpDestination | None
    mail: MailDestination | None
    payload: Payload | None
    policy: Policy
    ordering: str
    rate_per_s: int
    concurrency: int
    alert_addresses: tuple[str, ...]
    state: str
    state_text: str | None
    state_since: datetime | None
    created_at: datetime | None
    updated_at: datetime | None
    secrets: tuple[SigningSecret, ...]
    standing: Standing


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One try. ``status`` is 0 where nothing was answered; ``error`` is then a word, such as ``timeout``.
    ``redelivery`` is how often it had been asked for again by then; with each time ``number`` begins anew."""

    number: int
    at: datetime | None
    duration_ms: float
    status: int
    error: str | None
    text: str
    answer_text: str
    request: str
    redelivery: int = 0


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One telling of one event or notice to one subscription. ``state`` is ``waiting``, ``held`` (its communication
    is disabled), ``delivered`` or ``failed``; ``webhook_id`` is that of every attempt. What waits is sent at
    ``next_attempt_at`` at the earliest, or ``when_resumed``: its subscription is paused or disabled."""

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
    created_at: datetime | None
    next_attempt_at: datetime | None
    ended_at: datetime | None
    last_attempt: Attempt | None
    when_resumed: bool = False
    history: tuple[Attempt, ...] = ()
    """Its latest attempts, up to 30, the oldest first, where they were asked for; in lists each without its answer and
    what was called."""


class Redelivered(msgspec.Struct, frozen=True, kw_only=True):
    """How many are sent again, or would be; up to 100,000 are counted."""

    deliveries: int


class EventType(msgspec.Struct, frozen=True, kw_only=True):
    """What can be told. ``kinds`` are those of its events; it is empty of notices. ``json_schema`` and ``sample`` are
    of a payload of the form ``full``."""

    type: str
    title: str
    description: str
    kinds: tuple[str, ...]
    json_schema: Mapping[str, Any]
    sample: Mapping[str, Any]
