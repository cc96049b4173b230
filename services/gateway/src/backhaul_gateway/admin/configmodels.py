"""The JSON of ``/admin/v1/export`` and ``/admin/v1/apply``: what is configured, and what would become of it."""

from __future__ import annotations

from typing import Any, Literal

from backhaul_common.tenants import Channel, Tenant
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from backhaul_gateway.admin.models import LimitsOut, SuppressionSettingsOut, TenantIn
from backhaul_gateway.admin.retention import RetentionOut

VERSION = 1
MAX_TENANTS = 100
"""Tenants of one document."""

REF = "secret_ref"
Json = dict[str, Any]

PLACES = (
    ("basic", "password"),
    ("", "bearer_token"),
    ("header", "value"),
    ("oauth", "client_secret"),
    ("mutual_tls", "private_key"),
)
"""Where the credentials of a subscription have a secret."""


class TenantConfigIn(TenantIn):
    """A tenant as it is to be. What is left out stays. ``channels`` and ``subscriptions`` are as a PUT of each has
    them, with references in the place of secrets."""

    status: Literal["active", "suspended"] | None = None
    channels: list[Json] = Field([], max_length=100)
    subscriptions: list[Json] = Field([], max_length=1000)


class ApplyIn(BaseModel):
    """A document as an export gives it. ``secrets`` has the values of its references; those without one stay as they
    are stored."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[1]
    tenants: list[TenantConfigIn] = Field(max_length=MAX_TENANTS)
    secrets: dict[str, SecretStr | dict[str, SecretStr]] = Field({}, max_length=10_000)
    next_cursor: str | None = Field(None, description="Of an export; it says nothing here.")


class ExportOut(BaseModel):
    """Tenants by id. ``next_cursor`` is null on the last page."""

    version: Literal[1] = 1
    tenants: list[Json]
    next_cursor: str | None


class FieldChange(BaseModel):
    """A field, before and after. Of a secret neither is told."""

    field: str
    before: Any
    after: Any


Change = Literal["created", "changed", "unchanged"]


class PartChange(BaseModel):
    """What becomes of a channel (``key``), or of a subscription (``key`` is its id, null where it is to be made).
    ``secret`` is what calls of a new subscription are signed with: it is told here alone."""

    key: str | None
    name: str
    change: Change
    fields: list[FieldChange] = []
    secret: str | None = None


class OnlyHere(BaseModel):
    """What there is and the document does not name: it stays."""

    channels: list[str]
    subscriptions: list[str]


class TenantChange(BaseModel):
    """What becomes of a tenant. ``api_key`` and ``ingest_token`` are those of a new one, told here alone."""

    id: str
    change: Change
    fields: list[FieldChange] = []
    channels: list[PartChange] = []
    subscriptions: list[PartChange] = []
    only_here: OnlyHere = OnlyHere(channels=[], subscriptions=[])
    api_key: str | None = None
    ingest_token: str | None = None


class AppliedOut(BaseModel):
    """What was done, or with ``dry_run`` would be."""

    dry_run: bool
    tenants: list[TenantChange]


def of_tenant(tenant: Tenant) -> Json:
    """A tenant's own configuration; 0 days are for ever, as in what is asked for."""
    topic = SuppressionSettingsOut.of(tenant.suppression).model_dump(mode="json", exclude_none=True)
    kept = RetentionOut.of(tenant.retention).model_dump()
    return {
        "id": tenant.id,
        "name": tenant.name,
        "queue_path": tenant.queue_path,
        "status": tenant.status,
        "limits": LimitsOut.of(tenant.limits).model_dump(),
        "suppression": topic,
        "audit": {"retention_days": tenant.audit.retention_days or 0},
        "retention": {name: days or 0 for name, days in kept.items()},
    }


def of_channel(tenant_id: str, channel: Channel) -> Json:
    """A channel's configuration, with references in the place of secrets."""
    at = f"{tenant_id}/{channel.key}"
    return {
        "label": channel.label,
        "provider": channel.provider,
        "settings": dict(channel.settings),
        "verification": channel.verification,
        "processing": channel.processing,
        "secrets": [{REF: f"{at}/secrets/{number}"} for number in range(len(channel.secrets))],
        **{
            name: {REF: f"{at}/{name}"} if getattr(channel, name) else {}
            for name in ("pull_credentials", "audit_credentials")
        },
    }


_OF_SUBSCRIPTION = (
    "name", "types", "filter", "http", "mail", "payload", "policy", "ordering", "rate_per_s", "concurrency",
    "alert_addresses",
)  # fmt: skip


def of_subscription(shown: Json) -> Json:
    """The definition of a subscription as the API shows it."""
    return {name: shown[name] for name in _OF_SUBSCRIPTION}


def with_references(tenant_id: str, id_: str, definition: Json) -> Json:
    """``definition`` with references in the place of its secrets, which are empty."""
    credentials = (definition["http"] or {}).get("credentials")
    if not credentials:
        return definition
    credentials = dict(credentials)
    for owner, name in PLACES:
        ref = {REF: f"{tenant_id}/{id_}/{name}"}
        if owner and credentials[owner] is not None:
            credentials[owner] = {**credentials[owner], name: ref}
        elif not owner and credentials[name] is not None:
            credentials[name] = ref
    return {**definition, "http": {**definition["http"], "credentials": credentials}}


def changes(before: Json, after: Json) -> list[FieldChange]:
    """The fields that differ, by their paths."""
    old, new = _flat(before), _flat(after)
    return [
        FieldChange(field=name, before=old.get(name), after=new.get(name))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _flat(value: Any, path: str = "") -> Json:
    if isinstance(value, dict) and value:
        found: Json = {}
        for name, inner in value.items():
            found |= _flat(inner, f"{path}.{name}" if path else name)
        return found
    return {path: value}
