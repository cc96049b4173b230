"""What the admin API takes and gives, as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from backhaul_common.secrets import CredentialKind
from backhaul_common.tenants import Channel, Credential, Limits, Tenant, TenantStatus, VerificationMode
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from backhaul_gateway.admin.channels import ChannelRequest
from backhaul_gateway.admin.tenants import IssuedCredential


def _printable(value: str) -> str:
    # Control characters and lone surrogates would break logs, answers and the database's encoding.
    if not value.isprintable() or not value.strip():
        raise ValueError("It must be visible text.")
    return value


# One request in 17 minutes. Who means less means a suspended tenant, and what is far below overflows Retry-After.
_LEAST_RATE = 0.001

Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LimitsIn(_Input):
    """What is given replaces the present limit."""

    requests_per_second: float | None = Field(
        None,
        ge=_LEAST_RATE,
        le=1_000_000,
        allow_inf_nan=False,
        description="Callbacks, and replays and discards of dead letters.",
    )
    burst: int | None = Field(None, ge=1, le=10_000_000)
    max_body_bytes: int | None = Field(None, ge=1024, le=4_194_304)
    reads_per_second: float | None = Field(
        None, ge=_LEAST_RATE, le=1_000_000, allow_inf_nan=False, description="Calls of /v1 and /api/status."
    )
    read_burst: int | None = Field(None, ge=1, le=10_000_000)
    concurrent_reads: int | None = Field(None, ge=1, le=1000, description="Of these, how many are answered at once.")

    def given(self) -> dict[str, Any]:
        """The limits that are not None."""
        return self.model_dump(exclude_none=True)


class TenantIn(_Input):
    """A new tenant."""

    id: str = Field(min_length=1, max_length=64, pattern="^[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?$", examples=["acme"])
    name: Name = Field(examples=["Acme Ltd"])
    queue_path: str = Field(
        min_length=1,
        max_length=64,
        pattern="^[A-Za-z0-9_-]+$",
        examples=["acme-prod"],
        description="One subject token, unique across tenants whatever its case. It cannot be changed.",
    )
    limits: LimitsIn = LimitsIn()


class TenantPatch(_Input):
    """What is given replaces what there is."""

    name: Name | None = None
    limits: LimitsIn = LimitsIn()
    status: Literal["active", "suspended"] | None = None


class KeyIn(_Input):
    """Which kind of credential: an API key, or an ingest token for paths."""

    kind: CredentialKind = "api"


class ChannelIn(_Input):
    """A channel's configuration. What is given replaces what there is as a whole; what is left out, or null, stays as
    it is. Secrets and settings do not outlive a change of the provider."""

    provider: str | None = Field(
        None, max_length=64, description="Left out, the present one stays; that of a new channel is found by its label."
    )
    secrets: list[SecretStr] | None = Field(
        None,
        max_length=8,
        description="All that are valid now. Left out, the present ones stay; an empty list removes them.",
    )
    settings: dict[str, Any] | None = Field(
        None,
        description="By the provider's own schema. Left out, the present ones stay; an empty object restores the "
        "provider's defaults.",
    )
    verification: VerificationMode | None = Field(
        None, description="Left out, the present one stays; a new channel begins with enforce."
    )

    def request(self, label: str) -> ChannelRequest:
        """The use case's value, for the channel of that label."""
        return ChannelRequest(
            label=label,
            provider=self.provider,
            secrets=None if self.secrets is None else [secret.get_secret_value() for secret in self.secrets],
            settings=self.settings,
            verification=self.verification,
        )


class KeyOut(BaseModel):
    """A credential without its text."""

    id: str
    kind: CredentialKind
    created_at: datetime

    @classmethod
    def of(cls, credential: Credential) -> KeyOut:
        """The public part of ``credential``."""
        return cls(id=credential.id, kind=credential.kind, created_at=credential.created_at)


class IssuedKeyOut(BaseModel):
    """A new credential. ``key`` is shown here and never again."""

    id: str
    kind: CredentialKind
    key: str

    @classmethod
    def of(cls, issued: IssuedCredential) -> IssuedKeyOut:
        """With its text."""
        return cls(id=issued.credential.id, kind=issued.credential.kind, key=issued.text)


class ChannelOut(BaseModel):
    """A channel without its secrets."""

    label: str
    key: str
    provider: str
    secret_count: int
    settings: dict[str, Any]
    verification: VerificationMode
    updated_at: datetime

    @classmethod
    def of(cls, channel: Channel) -> ChannelOut:
        """The public part of ``channel``."""
        return cls(
            label=channel.label,
            key=channel.key,
            provider=channel.provider,
            secret_count=len(channel.secrets),
            settings=dict(channel.settings),
            verification=channel.verification,
            updated_at=channel.updated_at,
        )


class LimitsOut(BaseModel):
    """What a tenant may ask of the gateway."""

    requests_per_second: float
    burst: int
    max_body_bytes: int
    reads_per_second: float
    read_burst: int
    concurrent_reads: int

    @classmethod
    def of(cls, limits: Limits) -> LimitsOut:
        """Those that this version knows; others may be stored."""
        return cls(**{name: getattr(limits, name) for name in cls.model_fields})


class TenantOut(BaseModel):
    """A tenant without its secrets. ``registration`` is one life of its id, and stands in each of its events."""

    id: str
    registration: str
    name: str
    queue_path: str
    status: TenantStatus
    deleting_since: datetime | None
    limits: LimitsOut
    keys: list[KeyOut]
    channels: list[ChannelOut]
    revision: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, tenant: Tenant) -> TenantOut:
        """The public part of ``tenant``."""
        return cls(
            id=tenant.id,
            registration=tenant.registration,
            name=tenant.name,
            queue_path=tenant.queue_path,
            status=tenant.status,
            deleting_since=tenant.deleting_since,
            limits=LimitsOut.of(tenant.limits),
            keys=[KeyOut.of(credential) for credential in tenant.credentials],
            channels=[ChannelOut.of(tenant.channels[key]) for key in sorted(tenant.channels)],
            revision=tenant.revision,
            created_at=tenant.created_at,
            updated_at=tenant.updated_at,
        )


class NewTenantOut(TenantOut):
    """A new tenant. ``api_key`` and ``ingest_token`` are shown here and never again."""

    api_key: str
    ingest_token: str


class TenantPage(BaseModel):
    """Tenants by id. ``next_cursor`` is null on the last page."""

    tenants: list[TenantOut]
    next_cursor: str | None


class ChannelList(BaseModel):
    """A tenant's channels by key."""

    channels: list[ChannelOut]
