"""What a tenant may change of itself: its keys and its channels, and less of both than the platform team may.

Who asks is looked at once more in the stored tenant that is changed: a key that was deleted a moment ago, or that
opened a tenant of the same id before, changes nothing.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.tenants import Channel, Credential, Tenant

from backhaul_gateway.admin.channels import ChannelRegistry, ChannelRequest
from backhaul_gateway.admin.tenants import IssuedCredential, TenantRegistry, WantedCredential
from backhaul_gateway.admin.updates import Check, utc_now
from backhaul_gateway.admission.access import lacking
from backhaul_gateway.admission.auth import unauthenticated
from backhaul_gateway.admission.principal import SCOPE_BITS, Principal, names_of, scope_bits

MAX_TENANT_BYTES = 2 << 20
"""Of a tenant's document, as JSON, where the tenant itself adds to it. Every service holds it in memory, and MongoDB
takes 16 MiB."""


class OwnKeys:
    """Keys that are managed by keys."""

    def __init__(self, registry: TenantRegistry) -> None:
        self._registry = registry

    async def tenant(self, by: Principal) -> Tenant:
        """The tenant of whoever asks, as it is stored now."""
        tenant = await self._registry.get(by.tenant_id)
        of_asking(by)(tenant, tenant, utc_now())
        return tenant

    async def add(self, by: Principal, wanted: WantedCredential) -> tuple[Tenant, IssuedCredential]:
        """Add a key or token that opens no more than ``by``, and no longer: FORBIDDEN names what it may not."""
        if wanted.kind == "ingest":
            asked = SCOPE_BITS["ingest"]
        else:
            asked = by.bits if wanted.scopes is None else scope_bits(wanted.scopes)
            # By name, even where it is all of them: of a newer version's scopes the maker may have none.
            wanted = replace(wanted, scopes=names_of(asked), expires_at=_end(by, wanted.expires_at))
        if missing := asked & ~by.bits:
            raise lacking(missing, "A key gives no more than it has")
        if wanted.kind == "ingest" and by.expires_at is not None:
            raise BackhaulError(
                Code.FORBIDDEN,
                "An ingest token does not expire, and the API key does: a key makes nothing that outlives it.",
                field="kind",
                fix="Ask with a key that does not expire.",
            )
        return await self._registry.add_credential(by.tenant_id, wanted, check=of_asking(by))

    async def remove(self, by: Principal, credential_id: str) -> None:
        """Revoke a key or token. NOT_FOUND; FAILED_PRECONDITION for the last key that manages."""

        def check(before: Tenant, after: Tenant, now: datetime) -> None:
            of_asking(by)(before, after, now)
            removed = next(one for one in before.credentials if one.id == credential_id)
            if _manages(removed, now) and not any(_manages(one, now) for one in after.credentials):
                raise BackhaulError(
                    Code.FAILED_PRECONDITION,
                    "It is the last key that has the scope manage.",
                    field="key_id",
                    fix="Make another one first, or ask the platform team to delete it.",
                )

        await self._registry.remove_credential(by.tenant_id, credential_id, check=check)


class OwnChannels:
    """Channels that are managed by keys."""

    def __init__(self, channels: ChannelRegistry) -> None:
        self._channels = channels

    async def put(self, by: Principal, request: ChannelRequest) -> tuple[Channel, bool]:
        """See ``ChannelRegistry``; FORBIDDEN for a bucket, which the audit service would open with what it has itself,
        wherever it is. INVALID_ARGUMENT where the tenant would become too large."""
        if request.audit_credentials is not None:
            raise _bucket("audit_credentials")

        def check(before: Tenant, after: Tenant, now: datetime) -> None:
            of_asking(by)(before, after, now)
            for key, channel in after.channels.items():
                bucket = _bucket_of(channel)
                if bucket is not None and bucket != _bucket_of(before.channels.get(key)):
                    raise _bucket("settings.audit.bucket")
            if len(after.model_dump_json()) > MAX_TENANT_BYTES:
                raise BackhaulError(
                    Code.TOO_LARGE,
                    f"All channels of a tenant have {MAX_TENANT_BYTES} bytes of configuration.",
                    field="settings",
                    fix="Send fewer settings, or delete channels that are no longer used.",
                )

        return await self._channels.put(by.tenant_id, request, check=check)

    async def delete(self, by: Principal, label: str) -> None:
        """See ``ChannelRegistry``."""
        await self._channels.delete(by.tenant_id, label, check=of_asking(by))


def of_asking(by: Principal) -> Check:
    """UNAUTHENTICATED where the tenant that is changed has no such key, or has it no longer."""

    def check(before: Tenant, _: Tenant, now: datetime) -> None:
        if not any(one.id == by.name and _lives(one, now) for one in before.credentials):
            raise unauthenticated("The API key is gone, or has expired.", "Use another one of the tenant's.")

    return check


def _lives(credential: Credential, now: datetime) -> bool:
    return credential.expires_at is None or credential.expires_at > now


def _manages(credential: Credential, now: datetime) -> bool:
    has = credential.kind == "api" and scope_bits(credential.scopes) & SCOPE_BITS["manage"]
    return bool(has) and _lives(credential, now)


def _end(by: Principal, wanted: datetime | None) -> datetime | None:
    if by.expires_at is None:
        return wanted
    end = datetime.fromtimestamp(by.expires_at, UTC)
    if wanted is not None and wanted > end:
        raise BackhaulError(
            Code.FORBIDDEN,
            f"The API key expires at {end.isoformat()}, and makes none that outlives it.",
            field="expires_at",
            fix="Send an earlier time, or leave it out.",
        )
    return wanted or end


def _bucket_of(channel: Channel | None) -> object:
    audit = channel.settings.get("audit") if channel is not None else None
    return audit.get("bucket") if isinstance(audit, dict) else None


def _bucket(field: str) -> BackhaulError:
    return BackhaulError(
        Code.FORBIDDEN,
        "Only the platform team gives a channel a bucket of its own.",
        field=field,
        fix="Leave it as it is, or ask the platform team.",
    )
