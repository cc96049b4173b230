"""The platform team's side of the API: tenants, their credentials and their channels; and who may call services."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypedDict, Unpack

from backhaul_client.adminmodels import (
    AdminHolder,
    Channel,
    IssuedKey,
    IssuedServiceToken,
    NewService,
    NewTenant,
    SecretKeys,
    Service,
    Tenant,
    TenantChange,
)
from backhaul_client.auditmodels import AuditKey
from backhaul_client.audits import listing_keys
from backhaul_client.calls import Call, all_of, call, given, nothing, of, page_of, path, rows
from backhaul_client.changes import Change, listing_changes
from backhaul_client.overviewmodels import Overview
from backhaul_client.own import ChannelIn, Scope, adding_key, putting_channel
from backhaul_client.paging import Page
from backhaul_client.replays import OperatorReplayCalls
from backhaul_client.suppressionmodels import Suppression, SuppressionOutcome
from backhaul_client.suppressions import LiftedIn, SuppressedIn, changing_row
from backhaul_client.transport import AsyncTransport, Transport


class LimitsIn(TypedDict, total=False):
    """The limits to set; those that are left out stay. ``overdraft_callbacks`` of None is the installation's."""

    requests_per_second: float
    burst: int
    max_body_bytes: int
    reads_per_second: float
    read_burst: int
    concurrent_reads: int
    overdraft_callbacks: int | None


class SuppressionIn(TypedDict, total=False):
    """How far the tenant's people mean it when they opt out: what is to be set; what is left out stays. ``topic``
    without ``topic_since`` holds from now on."""

    revocation_scope: Literal["all", "topic"]
    topic_since: datetime
    whatsapp: Literal["apart", "phone"]


class AuditRetentionIn(TypedDict, total=False):
    """For how many days audit files are kept, what is left out stays; 0 is for ever."""

    retention_days: int


class RetentionIn(TypedDict, total=False):
    """For how many days events, messages and their addresses are kept, what is left out stays; 0 is for ever."""

    event_retention_days: int
    message_retention_days: int
    address_retention_days: int


class ServiceLimitsIn(TypedDict, total=False):
    """The limits of a service to set; those that are left out stay."""

    requests_per_second: float
    burst: int
    checks_per_second: float
    checks_burst: int
    concurrent_streams: int


class _AdminCalls:
    """The calls, once for both clients."""

    _credential_header = "Authorization"
    _credential_form = "Bearer {}"

    @call
    def whoami(self) -> Call[AdminHolder]:
        """Which admin token this is, and its role."""
        return Call(path="/admin/v1/whoami", answer=of(AdminHolder))

    @call
    def create_tenant(
        self,
        tenant_id: str,
        *,
        name: str,
        queue_path: str,
        limits: LimitsIn | None = None,
        suppression: SuppressionIn | None = None,
        audit: AuditRetentionIn | None = None,
        retention: RetentionIn | None = None,
    ) -> Call[NewTenant]:
        """Register a tenant. Its API key and ingest token are in this answer and nowhere else."""
        body = _given(
            id=tenant_id,
            name=name,
            queue_path=queue_path,
            limits=limits,
            suppression=suppression,
            audit=audit,
            retention=retention,
        )
        return Call(method="POST", path=path(*_TENANTS), body=body, answer=of(NewTenant))

    @rows
    def tenants(self, *, page_size: int = 100, cursor: str = "") -> Call[Page[Tenant]]:
        """All tenants by id."""
        return Call(
            path=path(*_TENANTS), params=given(limit=page_size, cursor=cursor), answer=page_of("tenants", Tenant)
        )

    @call
    def tenant(self, tenant_id: str) -> Call[Tenant]:
        """One tenant."""
        return Call(path=path(*_TENANTS, tenant_id), answer=of(Tenant))

    @call
    def change_tenant(
        self,
        tenant_id: str,
        *,
        name: str | None = None,
        status: Literal["active", "suspended"] | None = None,
        limits: LimitsIn | None = None,
        suppression: SuppressionIn | None = None,
        audit: AuditRetentionIn | None = None,
        retention: RetentionIn | None = None,
    ) -> Call[Tenant]:
        """Change what is given."""
        body = _given(
            name=name, status=status, limits=limits, suppression=suppression, audit=audit, retention=retention
        )
        return Call(method="PATCH", path=path(*_TENANTS, tenant_id), body=body, answer=of(Tenant))

    @call
    def delete_tenant(self, tenant_id: str, *, purge: bool = False, registration: str = "") -> Call[Tenant | None]:
        """Delete a tenant; with ``purge`` with all its data, which cannot be taken back.

        Returns None when it is gone, and the tenant while it is being deleted: it is gone when ``tenant`` raises
        NotFoundError. With ``registration`` only that life of the id is deleted.
        """
        return Call(
            method="DELETE",
            path=path(*_TENANTS, tenant_id),
            params=given(purge=purge, registration=registration),
            answer=lambda body: of(Tenant)(body) if body else None,
        )

    @call
    def overview(self, *, page_size: int = 100, cursor: str = "") -> Call[Overview]:
        """All tenants at a glance, the worst first, and what concerns them all."""
        params = given(limit=page_size, cursor=cursor)
        return Call(path="/admin/v1/overview", params=params, answer=of(Overview))

    @rows
    def changes(
        self,
        *,
        tenant: str = "",
        author: str = "",
        action: str = "",
        application: str = "",
        from_: datetime | None = None,
        to: datetime | None = None,
        page_size: int = 100,
        cursor: str = "",
    ) -> Call[Page[Change]]:
        """What was changed, of a tenant in all of its lives, by one application, or of everything, newest first."""
        where = "/admin/v1/changes"
        return listing_changes(where, author, action, application, from_, to, page_size, cursor, tenant=tenant)

    @call
    def add_key(
        self,
        tenant_id: str,
        kind: Literal["api", "ingest"] = "api",
        *,
        scopes: Sequence[Scope] | None = None,
        expires_at: datetime | None = None,
    ) -> Call[IssuedKey]:
        """One more API key or ingest token; the others stay valid. An API key opens what its ``scopes`` say, without
        them everything, until it expires."""
        return adding_key(path(*_TENANTS, tenant_id, "keys"), kind, scopes, expires_at)

    @call
    def delete_key(self, tenant_id: str, key_id: str) -> Call[None]:
        """Revoke a key or token."""
        return Call(method="DELETE", path=path(*_TENANTS, tenant_id, "keys", key_id), answer=nothing)

    @call
    def channels(self, tenant_id: str) -> Call[tuple[Channel, ...]]:
        """A tenant's channels."""
        return Call(path=path(*_TENANTS, tenant_id, "channels"), answer=all_of("channels", Channel))

    @call
    def channel(self, tenant_id: str, label: str) -> Call[Channel]:
        """One channel."""
        return Call(path=path(*_TENANTS, tenant_id, "channels", label), answer=of(Channel))

    @call
    def put_channel(self, tenant_id: str, label: str, **fields: Unpack[ChannelIn]) -> Call[Channel]:
        """Create a channel, or change what is given of it."""
        return putting_channel(path(*_TENANTS, tenant_id, "channels", label), fields)

    @call
    def delete_channel(self, tenant_id: str, label: str) -> Call[None]:
        """Remove a channel. What it brought stays."""
        return Call(method="DELETE", path=path(*_TENANTS, tenant_id, "channels", label), answer=nothing)

    @call
    def create_service(
        self,
        service_id: str,
        *,
        name: str,
        tenants: Sequence[str],
        verbs: Sequence[str],
        purposes: Sequence[str] = (),
        certificates: Sequence[str] = (),
        limits: ServiceLimitsIn | None = None,
        token_expires_at: datetime | None = None,
    ) -> Call[NewService]:
        """Let a system call Backhaul's services over gRPC, for ``tenants`` (ids, or ``*``). Its token is in this answer
        and nowhere else."""
        body = _given(
            id=service_id,
            name=name,
            tenants=tenants,
            verbs=verbs,
            purposes=purposes,
            certificates=certificates,
            limits=limits,
            token_expires_at=token_expires_at,
        )
        return Call(method="POST", path=path(*_SERVICES), body=body, answer=of(NewService))

    @rows
    def services(self, *, page_size: int = 100, cursor: str = "") -> Call[Page[Service]]:
        """All services by id."""
        return Call(
            path=path(*_SERVICES), params=given(limit=page_size, cursor=cursor), answer=page_of("services", Service)
        )

    @call
    def service(self, service_id: str) -> Call[Service]:
        """One service."""
        return Call(path=path(*_SERVICES, service_id), answer=of(Service))

    @call
    def change_service(
        self,
        service_id: str,
        *,
        name: str | None = None,
        tenants: Sequence[str] | None = None,
        verbs: Sequence[str] | None = None,
        purposes: Sequence[str] | None = None,
        certificates: Sequence[str] | None = None,
        limits: ServiceLimitsIn | None = None,
        disabled: bool | None = None,
    ) -> Call[Service]:
        """Change what is given. A list replaces the present one. What the service may not do any more is refused at
        once, and streams that it has open for that end."""
        body = _given(
            name=name,
            tenants=tenants,
            verbs=verbs,
            purposes=purposes,
            certificates=certificates,
            limits=limits,
            disabled=disabled,
        )
        return Call(method="PATCH", path=path(*_SERVICES, service_id), body=body, answer=of(Service))

    @call
    def delete_service(self, service_id: str) -> Call[None]:
        """Delete a service: whatever it shows is refused from now on."""
        return Call(method="DELETE", path=path(*_SERVICES, service_id), answer=nothing)

    @call
    def add_service_token(
        self, service_id: str, *, expires_at: datetime | None = None, others_expire_at: datetime | None = None
    ) -> Call[IssuedServiceToken]:
        """One more token. The others stay valid, or until ``others_expire_at`` and no longer."""
        body = _given(expires_at=expires_at, others_expire_at=others_expire_at)
        return Call(
            method="POST", path=path(*_SERVICES, service_id, "tokens"), body=body, answer=of(IssuedServiceToken)
        )

    @call
    def delete_service_token(self, service_id: str, token_id: str) -> Call[None]:
        """Revoke a token."""
        return Call(method="DELETE", path=path(*_SERVICES, service_id, "tokens", token_id), answer=nothing)

    @call
    def audit_keys(self) -> Call[tuple[AuditKey, ...]]:
        """All public keys that digests were ever signed with, the present one first."""
        return listing_keys()

    @call
    def rotate_audit_key(self) -> Call[AuditKey]:
        """Make a new key, which signs digests of audit files from now on. Old ones are published for ever."""
        return Call(method="POST", path="/admin/v1/audit-keys/rotate", answer=of(AuditKey))

    @call
    def export(self, *, tenant: str = "", cursor: str = "", limit: int = 100) -> Call[dict[str, Any]]:
        """Tenants with their channels and subscriptions as a document, or the one ``tenant``. References stand in the
        place of secrets. Ask again with its ``next_cursor``, where there is one, for the others."""
        params = given(tenant=tenant, cursor=cursor, limit=limit)
        return Call(path="/admin/v1/export", params=params, answer=of(dict[str, Any]))

    @call
    def apply(
        self,
        document: Mapping[str, Any],
        *,
        secrets: Mapping[str, str | Mapping[str, str]] | None = None,
        dry_run: bool = False,
    ) -> Call[tuple[TenantChange, ...]]:
        """Make true what a document says, and tell what changed; with ``dry_run`` only tell. ``secrets`` are the values
        of its references; those without one stay as they are stored. Nothing is deleted. May be repeated."""
        body = {**document, **_given(secrets=secrets)}
        params = given(dry_run=dry_run)
        return Call(
            method="POST", path="/admin/v1/apply", params=params, body=body, answer=all_of("tenants", TenantChange)
        )

    @call
    def secret_keys(self, *, cursor: str = "") -> Call[SecretKeys]:
        """Under which keys of the ring the secrets are that all services keep. Ask again with ``next_cursor``, where
        there is one, for the others."""
        return Call(path="/admin/v1/secret-keys", params=given(cursor=cursor), answer=of(SecretKeys))

    @call
    def rotate_secret_keys(self, *, cursor: str = "") -> Call[SecretKeys]:
        """Have what is not under the first key of the ring encrypted anew. May be repeated, with ``next_cursor`` or
        from the beginning."""
        where, params = "/admin/v1/secret-keys/rotate", given(cursor=cursor)
        return Call(method="POST", path=where, params=params, answer=of(SecretKeys))

    @rows
    def suppressions(
        self, tenant_id: str, *, kind: str = "legal", standing: str = "", page_size: int = 100, cursor: str = ""
    ) -> Call[Page[Suppression]]:
        """A tenant's suppressions of a kind, the latest change first; of all kinds with an empty one."""
        params = {"kind": kind, **given(standing=standing, limit=page_size, cursor=cursor)}
        where = path(*_TENANTS, tenant_id, "suppressions")
        return Call(path=where, params=params, answer=page_of("suppressions", Suppression))

    @call
    def suppress(
        self, tenant_id: str, address: str, *, kind: str = "", **said: Unpack[SuppressedIn]
    ) -> Call[SuppressionOutcome]:
        """Suppress an address for the operator, for legal reasons unless ``kind`` says otherwise."""
        return changing_row(path(*_TENANTS, tenant_id, "suppressions"), address, kind, **said)

    @call
    def lift_suppression(
        self, tenant_id: str, address: str, *, kind: str = "", **said: Unpack[LiftedIn]
    ) -> Call[SuppressionOutcome]:
        """Lift what only the operator lifts, and what is ``manual``."""
        return changing_row(path(*_TENANTS, tenant_id, "suppressions", "lift"), address, kind, **said)


_TENANTS = ("admin", "v1", "tenants")
_SERVICES = ("admin", "v1", "services")


def _given(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


class AdminClient(_AdminCalls, OperatorReplayCalls, Transport):
    """``with AdminClient("https://callbacks.example.com", admin_token) as platform``. May be shared by threads."""


class AsyncAdminClient(_AdminCalls, OperatorReplayCalls, AsyncTransport):
    """``async with AsyncAdminClient("https://callbacks.example.com", admin_token) as platform``."""
