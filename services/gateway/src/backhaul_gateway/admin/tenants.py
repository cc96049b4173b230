"""The platform team's use cases about tenants and their credentials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.ids import new_registration
from backhaul_common.names import check_queue_path, check_tenant_id
from backhaul_common.secrets import CredentialKind, new_credential
from backhaul_common.sizes import MAX_COUNTED
from backhaul_common.tenants import (
    SCOPES,
    AuditRetention,
    Credential,
    Limits,
    Retention,
    SuppressionSettings,
    Tenant,
    TenantStatus,
)
from pydantic import ValidationError

from backhaul_gateway.admin.retention import changed_retention
from backhaul_gateway.admin.updates import (
    Check,
    TenantUpdates,
    in_milliseconds,
    refuse_deleting,
    unchecked,
    unknown_tenant,
)
from backhaul_gateway.admission.unfit import violations
from backhaul_gateway.ports import OwnChanges, TenantData, TenantGrants, TenantStreams

MAX_CREDENTIALS = 20
MAX_TENANTS_A_PAGE = 500


@dataclass(frozen=True, slots=True)
class IssuedCredential:
    """A new credential with its text. The text is in one answer, and is never stored."""

    credential: Credential
    text: str


@dataclass(frozen=True, slots=True)
class WantedCredential:
    """A credential to be issued. ``scopes`` and ``expires_at`` are an API key's: None is all, and never."""

    kind: CredentialKind
    scopes: tuple[str, ...] | None = None
    expires_at: datetime | None = None


class TenantRegistry:
    """Creates, changes and removes tenants."""

    def __init__(
        self,
        updates: TenantUpdates,
        streams: TenantStreams,
        data: TenantData,
        grants: TenantGrants,
        changes: OwnChanges,
        *,
        stream_max_age_s: float,
    ) -> None:
        self._updates = updates
        self._streams = streams
        self._data = data
        self._grants = grants
        self._changes = changes
        self._stream_max_age_s = stream_max_age_s

    def over(self, updates: TenantUpdates) -> TenantRegistry:
        """The same use cases over other tenants."""
        return TenantRegistry(
            updates,
            self._streams,
            self._data,
            self._grants,
            self._changes,
            stream_max_age_s=self._stream_max_age_s,
        )

    async def create(
        self,
        tenant_id: str,
        name: str,
        queue_path: str,
        limits: Mapping[str, Any],
        suppression: Mapping[str, Any],
        audit: Mapping[str, Any],
        retention: Mapping[str, Any],
    ) -> tuple[Tenant, IssuedCredential, IssuedCredential]:
        """The new tenant, its API key and its ingest token. CONFLICT names ``id`` or ``queue_path``."""
        now = self._updates.now()
        api_key, ingest_token = _issue(WantedCredential("api"), now), _issue(WantedCredential("ingest"), now)
        tenant = Tenant(
            id=check_tenant_id(tenant_id),
            registration=new_registration(tenant_id),
            name=name,
            queue_path=check_queue_path(queue_path),
            limits=_limits(Limits(), limits),
            suppression=_suppression(SuppressionSettings(), suppression, now),
            audit=AuditRetention(**audit),
            retention=changed_retention(Retention(), retention, self._stream_max_age_s),
            credentials=(api_key.credential, ingest_token.credential),
            created_at=now,
            updated_at=now,
        )
        await self._updates.store.insert(tenant)
        await self._updates.announcer.tenant_changed(tenant.id)
        return tenant, api_key, ingest_token

    async def get(self, tenant_id: str) -> Tenant:
        """The tenant; NOT_FOUND."""
        return await self._updates.find(tenant_id)

    async def page(self, after: str, limit: int) -> list[Tenant]:
        """Tenants by id, those after ``after``."""
        return await self._updates.store.page(after, limit)

    async def change(
        self,
        tenant_id: str,
        *,
        name: str | None,
        limits: Mapping[str, Any],
        suppression: Mapping[str, Any],
        audit: Mapping[str, Any],
        retention: Mapping[str, Any],
        status: Literal["active", "suspended"] | None,
    ) -> Tenant:
        """Change what is given. What is None stays as it is, and so does a limit or a setting that is missing."""

        def apply(tenant: Tenant, now: datetime) -> Tenant:
            refuse_deleting(tenant)
            update: dict[str, Any] = {
                "limits": _limits(tenant.limits, limits),
                "suppression": _suppression(tenant.suppression, suppression, now),
                "audit": tenant.audit.model_copy(update=audit),
                "retention": changed_retention(tenant.retention, retention, self._stream_max_age_s),
            }
            if name is not None:
                update["name"] = name
            if status is not None:
                update["status"] = status
            return tenant.model_copy(update=update)

        return await self._updates.apply(tenant_id, apply)

    async def add_credential(
        self, tenant_id: str, wanted: WantedCredential, check: Check = unchecked
    ) -> tuple[Tenant, IssuedCredential]:
        """Add a key or token; the present ones stay valid. FAILED_PRECONDITION when there are too many,
        INVALID_ARGUMENT for a time that is past, and for what a token does not have; and what ``check`` raises."""
        issued = _issue(wanted, self._updates.now())

        def apply(tenant: Tenant, now: datetime) -> Tenant:
            refuse_deleting(tenant)
            if len(tenant.credentials) >= MAX_CREDENTIALS:
                raise BackhaulError(
                    Code.FAILED_PRECONDITION,
                    f"The tenant has {MAX_CREDENTIALS} credentials already.",
                    fix="Delete those that are no longer used.",
                )
            after = tenant.model_copy(update={"credentials": (*tenant.credentials, issued.credential)})
            check(tenant, after, now)
            return after

        return await self._updates.apply(tenant_id, apply), issued

    async def remove_credential(self, tenant_id: str, credential_id: str, check: Check = unchecked) -> None:
        """Revoke a key or token: it is refused from now on. NOT_FOUND, and what ``check`` raises."""

        def apply(tenant: Tenant, now: datetime) -> Tenant:
            left = tuple(credential for credential in tenant.credentials if credential.id != credential_id)
            if len(left) == len(tenant.credentials):
                raise BackhaulError(
                    Code.NOT_FOUND,
                    f"The tenant has no key {credential_id[:64]!r}.",
                    field="key_id",
                    fix="GET the tenant lists the ids of its keys.",
                )
            after = tenant.model_copy(update={"credentials": left})
            check(tenant, after, now)
            return after

        await self._updates.apply(tenant_id, apply)

    async def delete(self, tenant_id: str, *, purge: bool, registration: str = "") -> Tenant | None:
        """Delete a tenant. Returns None when it is gone, and the marked tenant when its removal takes a while.

        With ``purge`` the tenant is marked, which is final, and ``TenantRemoval`` removes it with all its data. Without
        ``purge`` it is gone at once, or FAILED_PRECONDITION where it has data. NOT_FOUND when a ``registration`` is
        given and the id belongs to another one. Calls may overlap, and may be repeated.
        """
        tenant = await self._updates.find(tenant_id)
        if registration and tenant.registration != registration:
            raise unknown_tenant(tenant_id)
        try:
            if purge or tenant.status == "deleting":
                return await self._mark(tenant)
            return await self._delete_empty(tenant)
        except BackhaulError as exc:
            if exc.code is not Code.NOT_FOUND:
                raise
            return None

    async def _mark(self, tenant: Tenant) -> Tenant:
        def apply(found: Tenant, now: datetime) -> Tenant:
            _require_same(found, tenant)
            if found.status == "deleting":
                return found
            return found.model_copy(update={"status": "deleting", "deleting_since": now})

        return await self._updates.apply(tenant.id, apply)

    async def _delete_empty(self, tenant: Tenant) -> Tenant | None:
        """Delete a tenant that has no data.

        It has none if the normalizer has stored nothing of it, and the streams hold none of its callbacks. Then nothing
        of it can be on its way from the streams into the store.
        """
        await self._refuse_with_data(tenant)
        # Suspended, so that no callback arrives between the second look for data and the deletion. Not ``deleting``:
        # that is final, and a callback that has just arrived would be dropped.
        suspended = await self._set_status(tenant, "suspended")
        try:
            await self._refuse_with_data(suspended)
        except BackhaulError:
            await self._restore(suspended, tenant.status)
            raise
        # Before: nobody who registers the id next may be in another's service accounts for a moment.
        await self._grants.forget(tenant.id)
        if await self._updates.store.delete(suspended):
            await self._updates.announcer.tenant_changed(tenant.id)
            await self._changes.purge(tenant.id, tenant.registration)
            return None
        found = await self._updates.find(tenant.id)
        _require_same(found, tenant)
        if found.status == "deleting":
            return found
        raise BackhaulError(
            Code.FAILED_PRECONDITION,
            "The tenant was changed while it was being deleted.",
            field="status",
            fix="Look at the tenant, which may be suspended, and repeat the request.",
        )

    async def _set_status(self, tenant: Tenant, status: TenantStatus) -> Tenant:
        """Set the status of this registration. NOT_FOUND when it is gone, even if another one has its id."""

        def apply(found: Tenant, _: datetime) -> Tenant:
            _require_same(found, tenant)
            refuse_deleting(found)
            return found.model_copy(update={"status": status})

        return await self._updates.apply(tenant.id, apply)

    async def _restore(self, suspended: Tenant, status: TenantStatus) -> None:
        """Give the tenant its status back, unless somebody has changed the tenant since it was suspended."""

        def apply(found: Tenant, _: datetime) -> Tenant:
            _require_same(found, suspended)
            # By the time: when its keys were last used is written without one, and so is what encrypts secrets anew.
            return found.model_copy(update={"status": status}) if found.updated_at == suspended.updated_at else found

        await self._updates.apply(suspended.id, apply)

    async def _refuse_with_data(self, tenant: Tenant) -> None:
        usage = {kind: count for kind, count in (await self._data.usage(tenant)).items() if count}
        if usage:
            has = ", ".join(f"{_counted(count)} {kind.replace('_', ' ')}" for kind, count in usage.items())
        elif await self._streams.holds_messages(tenant):
            has = "stored callbacks"
        else:
            return
        raise BackhaulError(
            Code.FAILED_PRECONDITION,
            f"The tenant has data: {has}.",
            field="purge",
            fix="Repeat with ?purge=true to delete the tenant with all its data.",
        )


def _counted(count: int) -> str:
    return str(count) if count < MAX_COUNTED else f"{count} or more"


def _require_same(found: Tenant, tenant: Tenant) -> None:
    """NOT_FOUND when another registration has the tenant's id."""
    if found.registration != tenant.registration:
        raise unknown_tenant(tenant.id)


def _issue(wanted: WantedCredential, now: datetime) -> IssuedCredential:
    if wanted.kind == "ingest":
        for field in ("scopes", "expires_at"):
            if getattr(wanted, field) is not None:
                raise BackhaulError(
                    Code.INVALID_ARGUMENT,
                    f"An ingest token has no {field}: it brings callbacks until it is deleted.",
                    field=field,
                    fix="Leave it out.",
                )
    end = wanted.expires_at
    if end is not None and end <= now:
        raise BackhaulError(
            Code.INVALID_ARGUMENT, "A key cannot expire in the past.", field="expires_at", fix="Send a later time."
        )
    credential_id, text, digest = new_credential(wanted.kind)
    return IssuedCredential(
        Credential(
            id=credential_id,
            kind=wanted.kind,
            digest=digest,
            created_at=now,
            # In the order of SCOPES, each once.
            scopes=tuple(scope for scope in SCOPES if scope in wanted.scopes) if wanted.scopes is not None else None,
            expires_at=in_milliseconds(end) if end is not None else None,
        ),
        text,
    )


def _limits(present: Limits, changes: Mapping[str, Any]) -> Limits:
    try:
        return Limits.model_validate({**present.model_dump(), **changes})
    except ValidationError as exc:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            "A limit is out of range.",
            violations=violations(exc.errors(), Limits, changes, "limits"),
        ) from exc


def _suppression(present: SuppressionSettings, changes: Mapping[str, Any], now: datetime) -> SuppressionSettings:
    """``present`` with ``changes``. A topic scope that is new, and has no date, holds from ``now`` on."""
    scope = changes.get("revocation_scope", present.revocation_scope)
    since: datetime | None = changes.get("topic_since")
    if scope == "all":
        if since is not None:
            raise BackhaulError(
                Code.INVALID_ARGUMENT,
                "With the revocation_scope all there is no date from which topics count.",
                field="suppression.topic_since",
                fix='Send "revocation_scope": "topic" with it, or leave it out.',
            )
    elif since is None:
        since = present.topic_since if present.revocation_scope == scope else now
    return present.model_copy(
        update={**changes, "topic_since": since and in_milliseconds(since), "revocation_scope": scope}
    )
