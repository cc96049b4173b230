"""What the admin API answers, as values; see ``models``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from backhaul_client.models import Secret


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant may ask of the gateway. Of ``overdraft_callbacks`` None is the installation's."""

    requests_per_second: float
    burst: int
    max_body_bytes: int
    reads_per_second: float
    read_burst: int
    concurrent_reads: int
    overdraft_callbacks: int | None = None


class SuppressionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How far a tenant's people mean it when they opt out. ``revocation_scope`` is ``all`` or ``topic``, from
    ``topic_since`` on; ``whatsapp`` is ``apart`` or ``phone``."""

    revocation_scope: str
    topic_since: datetime | None
    whatsapp: str


class AuditRetention(msgspec.Struct, frozen=True, kw_only=True):
    """For how many days a tenant's audit files are kept; None is for ever."""

    retention_days: int | None


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """For how many days a tenant's events, messages and their addresses are kept; None is for ever."""

    event_retention_days: int | None = None
    message_retention_days: int | None = None
    address_retention_days: int | None = None


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A credential without its text. ``kind`` is ``api`` or ``ingest``; ``scopes`` are what it opens, and
    ``expires_at`` is None where it does not expire; ``last_used_at`` is rounded down to the hour."""

    id: str
    kind: str
    created_at: datetime
    scopes: tuple[str, ...] = ()
    expires_at: datetime | None = None
    last_used_at: datetime | None = None


class KeyHolder(msgspec.Struct, frozen=True, kw_only=True):
    """Whose an API key is, and what it opens. ``expires_at`` is None where it does not expire; ``limits`` are, where an
    older gateway answers."""

    tenant_id: str
    key_id: str
    scopes: tuple[str, ...]
    expires_at: datetime | None
    limits: Limits | None = None


class AdminHolder(msgspec.Struct, frozen=True, kw_only=True):
    """Which admin token it is, and its role: ``operator``, ``support`` or ``auditor``."""

    name: str
    role: str


class ChannelAddress(msgspec.Struct, frozen=True, kw_only=True):
    """The addresses of a channel with a new ingest token in them, to be pasted at its provider. ``token_url`` is None
    for a provider that asks for no access tokens."""

    label: str
    callback_url: Secret
    token_url: Secret | None


class IssuedKey(Key, frozen=True, kw_only=True):
    """A new credential. ``key`` is never shown again, nor are the ``addresses`` with it, if it is an ingest token."""

    key: Secret
    addresses: tuple[ChannelAddress, ...]


class ServiceLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a service may ask of one copy of a service: checks are counted by address, everything else by call."""

    requests_per_second: float
    burst: int
    checks_per_second: float
    checks_burst: int
    concurrent_streams: int


class ServiceToken(msgspec.Struct, frozen=True, kw_only=True):
    """A service's token, without its text. ``expires_at`` is None where it does not expire."""

    id: str
    created_at: datetime
    expires_at: datetime | None


class IssuedServiceToken(ServiceToken, frozen=True, kw_only=True):
    """A new token. ``token`` is never shown again."""

    token: Secret


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """Another system that may call Backhaul's services over gRPC. ``tenants`` are ids, or ``*``; without ``purposes``
    it may ask for any."""

    id: str
    name: str
    disabled: bool
    tenants: tuple[str, ...]
    verbs: tuple[str, ...]
    purposes: tuple[str, ...]
    certificates: tuple[str, ...]
    limits: ServiceLimits
    tokens: tuple[ServiceToken, ...]
    revision: int
    created_at: datetime
    updated_at: datetime


class NewService(Service, frozen=True, kw_only=True):
    """A new service. ``token`` is never shown again."""

    token: Secret


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's channel without its secrets. ``callback_url`` is what to paste at the provider, with an ingest token
    in the place of ``{ingest_token}``; ``token_url`` is where the provider asks for access tokens, if it does."""

    label: str
    key: str
    provider: str
    secret_count: int
    has_pull_credentials: bool
    has_audit_credentials: bool
    settings: Mapping[str, Any]
    verification: str
    processing: str
    held_since: datetime | None
    callback_url: str
    token_url: str | None
    updated_at: datetime


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant. ``registration`` is one life of its id, and stands in each of its events."""

    id: str
    registration: str
    name: str
    queue_path: str
    status: str
    deleting_since: datetime | None
    limits: Limits
    suppression: SuppressionSettings
    audit: AuditRetention
    retention: Retention = Retention()
    keys: tuple[Key, ...]
    channels: tuple[Channel, ...]
    revision: int
    created_at: datetime
    updated_at: datetime


class NewTenant(Tenant, frozen=True, kw_only=True):
    """With its first credentials, which are never shown again."""

    api_key: Secret
    ingest_token: Secret


class SecretsKept(msgspec.Struct, frozen=True, kw_only=True):
    """How many secrets of a service were encrypted anew, are under the first key, are under another one, and cannot be
    decrypted. Nobody has looked at those of a service that is not ``installed``."""

    service: str
    installed: bool
    complete: bool
    renewed: int
    current: int
    older: int
    unreadable: int


class UnreadableSecret(msgspec.Struct, frozen=True, kw_only=True):
    """Where a secret is kept that no key decrypts; without a tenant it is the installation's."""

    service: str
    tenant_id: str | None
    id: str
    field: str


class SecretKeys(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at. ``key_id`` tells the first key of the ring from others."""

    key_id: str
    services: tuple[SecretsKept, ...]
    unreadable: tuple[UnreadableSecret, ...]
    next_cursor: str | None


class FieldChange(msgspec.Struct, frozen=True, kw_only=True):
    """A field, before and after; of a secret neither is told."""

    field: str
    before: Any
    after: Any


class PartChange(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a channel, or of a subscription: it was ``created`` or ``changed``, or is ``unchanged``.
    ``secret`` is what calls of a new subscription are signed with."""

    key: str | None
    name: str
    change: str
    fields: tuple[FieldChange, ...]
    secret: Secret | None


class OnlyHere(msgspec.Struct, frozen=True, kw_only=True):
    """What there is and the document does not name: it stays."""

    channels: tuple[str, ...]
    subscriptions: tuple[str, ...]


class TenantChange(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a tenant. ``api_key`` and ``ingest_token`` are those of a new one."""

    id: str
    change: str
    fields: tuple[FieldChange, ...]
    channels: tuple[PartChange, ...]
    subscriptions: tuple[PartChange, ...]
    only_here: OnlyHere
    api_key: Secret | None
    ingest_token: Secret | None
