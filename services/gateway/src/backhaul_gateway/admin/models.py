"""The JSON of the admin API: requests (``…In``, ``…Patch``) and answers (``…Out``, ``…Page``, ``…List``)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from backhaul_common.names import QUEUE_PATH_PATTERN, TENANT_ID_PATTERN
from backhaul_common.secrets import CredentialKind
from backhaul_common.tenants import (
    AtOnce,
    BodyBytes,
    Burst,
    Channel,
    Credential,
    Limits,
    Processing,
    SuppressionSettings,
    Tenant,
    TenantStatus,
    VerificationMode,
)
from backhaul_common.tenants import (
    Rate as CommonRate,
)
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from backhaul_gateway.admin.addresses import PLACEHOLDER, Addresses
from backhaul_gateway.admin.channels import ChannelRequest, ChannelSecret
from backhaul_gateway.admin.retention import RetentionIn, RetentionOut
from backhaul_gateway.admin.tenants import IssuedCredential


def _printable(value: str) -> str:
    # Control characters would spoil log lines, and MongoDB cannot store lone surrogates.
    if not value.isprintable() or not value.strip():
        raise ValueError("It must be visible text.")
    return value


# One request in 17 minutes. For less, suspend the tenant. Much smaller rates overflow Retry-After.
Rate = Annotated[CommonRate, Field(ge=0.001, allow_inf_nan=False)]

Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LimitsIn(_Input):
    """Limits to change. A limit that is left out stays as it is."""

    requests_per_second: Rate | None = Field(None, description="Callbacks, and replays and discards of dead letters.")
    burst: Burst | None = None
    max_body_bytes: BodyBytes | None = None
    reads_per_second: Rate | None = Field(None, description="Calls of /v1 and /api/status.")
    read_burst: Burst | None = None
    concurrent_reads: AtOnce | None = Field(None, description="Of these, how many are answered at once.")

    def given(self) -> dict[str, Any]:
        """The limits that are not None."""
        return self.model_dump(exclude_none=True)


# Between the two, every time can be told in UTC, and as a number.
_Since = Annotated[AwareDatetime, Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(9999, 1, 1, tzinfo=UTC))]


class SuppressionSettingsIn(_Input):
    """How far a tenant's people mean it when they opt out: what is to change. What is left out, or null, stays."""

    revocation_scope: Literal["all", "topic"] | None = Field(
        None,
        description="What a STOP covers: all that the tenant sends; or, with topic, the messaging service that it came "
        "to, else the number.",
    )
    topic_since: _Since | None = Field(
        None,
        description="With topic: it holds for what people write from this time on, past or future. Left out, from now "
        "on.",
        examples=["2027-02-01T00:00:00Z"],
    )
    whatsapp: Literal["apart", "phone"] | None = Field(
        None,
        description="apart: what people say on WhatsApp is about WhatsApp alone. phone: it is about the number, as SMS "
        "and RCS are.",
    )

    def given(self) -> dict[str, Any]:
        """The settings that are not None."""
        return self.model_dump(exclude_none=True)


class AuditRetentionIn(_Input):
    """For how long audit files are kept: what is to change. What is left out, or null, stays."""

    retention_days: int | None = Field(
        None,
        ge=0,
        le=36_500,
        description="Files are deleted when the digest that lists them is so many days old; 0 keeps them for ever.",
    )

    def given(self) -> dict[str, Any]:
        """The setting, as a tenant has it, if it is to change."""
        return {} if self.retention_days is None else {"retention_days": self.retention_days or None}


class TenantIn(_Input):
    """A new tenant."""

    id: str = Field(min_length=1, max_length=64, pattern=f"^{TENANT_ID_PATTERN}$", examples=["acme"])
    name: Name = Field(examples=["Acme Ltd"])
    queue_path: str = Field(
        min_length=1,
        max_length=64,
        pattern=f"^{QUEUE_PATH_PATTERN}$",
        examples=["acme-prod"],
        description="One subject token, unique across tenants whatever its case. It cannot be changed.",
    )
    limits: LimitsIn = LimitsIn()
    suppression: SuppressionSettingsIn = SuppressionSettingsIn()
    audit: AuditRetentionIn = AuditRetentionIn()
    retention: RetentionIn = RetentionIn()


class TenantPatch(_Input):
    """Changes of a tenant. What is left out, or null, stays as it is."""

    name: Name | None = None
    limits: LimitsIn = LimitsIn()
    suppression: SuppressionSettingsIn = SuppressionSettingsIn()
    audit: AuditRetentionIn = AuditRetentionIn()
    retention: RetentionIn = RetentionIn()
    status: Literal["active", "suspended"] | None = None


class KeyIn(_Input):
    """Which kind of credential: an API key, or an ingest token for paths."""

    kind: CredentialKind = "api"


MAX_SECRET_PARTS = 8
MAX_PART_NAME = 64


def _text_or_texts(value: object) -> object:
    # Said here once, since a union would name each of its branches in the field's place.
    if isinstance(value, str):
        return value
    if not isinstance(value, dict) or not all(isinstance(part, str) for part in value.values()):
        raise ValueError("A secret is a text, or an object of texts where it has several parts.")
    if not 0 < len(value) <= MAX_SECRET_PARTS or max(map(len, value)) > MAX_PART_NAME:
        raise ValueError(f"A secret has 1 to {MAX_SECRET_PARTS} parts, with names of at most {MAX_PART_NAME} letters.")
    return value


_Parts = Annotated[dict[str, SecretStr], Field(min_length=1, max_length=MAX_SECRET_PARTS)]
Secret = Annotated[SecretStr | _Parts, BeforeValidator(_text_or_texts)]
"""A secret of a channel: a text, or an object where the provider's secrets have several parts."""


class ChannelIn(_Input):
    """A channel's configuration. A field that is left out, or null, stays as it is; any other is replaced as a whole.
    When the provider changes, the present secrets, credentials and settings go."""

    provider: str | None = Field(
        None, max_length=64, description="Left out, the present one stays; that of a new channel is found by its label."
    )
    secrets: list[Secret] | None = Field(
        None,
        max_length=8,
        description="All that are valid now: texts, and objects where the provider's secrets have several parts, "
        "such as a name and a password. Left out, the present ones stay; an empty list removes them.",
        examples=[["<verification key>", {"client_id": "backhaul", "client_secret": "<as long as you like>"}]],
    )
    pull_credentials: dict[str, SecretStr] | None = Field(
        None,
        max_length=16,
        description="By what the provider's API is asked, apart from the secrets that verify callbacks; for providers "
        "that have one. Left out, the present ones stay; an empty object removes them.",
    )
    audit_credentials: dict[str, SecretStr] | None = Field(
        None,
        max_length=16,
        description="The access_key and secret_key of the channel's own bucket for audit files, where audit.bucket in "
        "its settings says keys. Left out, the present ones stay; an empty object removes them.",
    )
    settings: dict[str, Any] | None = Field(
        None,
        description="By the provider's own schema. Left out, the present ones stay; an empty object restores the "
        "provider's defaults.",
    )
    verification: VerificationMode | None = Field(
        None, description="Left out, the present one stays; a new channel begins with enforce."
    )
    processing: Processing | None = Field(
        None,
        description="While it is held, callbacks are verified, stored and answered as ever, and processed when it is "
        "on again. Left out, the present one stays; a new channel begins with on.",
    )

    def request(self, label: str) -> ChannelRequest:
        """The use case's value, for the channel of that label."""
        return ChannelRequest(
            label=label,
            provider=self.provider,
            secrets=None if self.secrets is None else [_plain(secret) for secret in self.secrets],
            pull_credentials=None if self.pull_credentials is None else _texts(self.pull_credentials),
            audit_credentials=None if self.audit_credentials is None else _texts(self.audit_credentials),
            settings=self.settings,
            verification=self.verification,
            processing=self.processing,
        )


def _plain(secret: SecretStr | dict[str, SecretStr]) -> ChannelSecret:
    if isinstance(secret, SecretStr):
        return secret.get_secret_value()
    return _texts(secret)


def _texts(parts: dict[str, SecretStr]) -> dict[str, str]:
    return {name: part.get_secret_value() for name, part in parts.items()}


class KeyOut(BaseModel):
    """A credential without its text."""

    id: str
    kind: CredentialKind
    created_at: datetime

    @classmethod
    def of(cls, credential: Credential) -> KeyOut:
        """The public part of ``credential``."""
        return cls(id=credential.id, kind=credential.kind, created_at=credential.created_at)


class ChannelAddressOut(BaseModel):
    """The addresses of a channel, with the new ingest token in them."""

    label: str
    callback_url: str
    token_url: str | None


class IssuedKeyOut(BaseModel):
    """A new credential. ``key`` is shown here and never again, and so are the ``addresses`` of the tenant's channels
    with it, where it is an ingest token."""

    id: str
    kind: CredentialKind
    key: str
    addresses: list[ChannelAddressOut]

    @classmethod
    def of(cls, issued: IssuedCredential, tenant: Tenant, addresses: Addresses) -> IssuedKeyOut:
        """The credential of ``tenant`` with its text."""
        kind, text = issued.credential.kind, issued.text
        channels = [tenant.channels[key] for key in sorted(tenant.channels)] if kind == "ingest" else []
        shown = [
            ChannelAddressOut(
                label=one.label, callback_url=addresses.callback(one, text), token_url=addresses.token(one, text)
            )
            for one in channels
        ]
        return cls(id=issued.credential.id, kind=kind, key=text, addresses=shown)


class ChannelOut(BaseModel):
    """A channel without its secrets and credentials."""

    label: str
    key: str
    provider: str
    secret_count: int
    has_pull_credentials: bool
    has_audit_credentials: bool
    settings: dict[str, Any]
    verification: VerificationMode
    processing: Processing
    held_since: datetime | None
    callback_url: str = Field(
        description="What to paste at the provider, with an ingest token in the place of {ingest_token}. Custom "
        "parameters follow as &name=value, in front of a # where there is one."
    )
    token_url: str | None = Field(
        description="Where a provider that shows access tokens asks for them, likewise; null for one that shows none."
    )
    updated_at: datetime

    @classmethod
    def of(cls, channel: Channel, addresses: Addresses, token: str = PLACEHOLDER) -> ChannelOut:
        """The public part of ``channel``; ``token`` stands in its addresses."""
        return cls(
            label=channel.label,
            key=channel.key,
            provider=channel.provider,
            callback_url=addresses.callback(channel, token),
            token_url=addresses.token(channel, token),
            secret_count=len(channel.secrets),
            has_pull_credentials=bool(channel.pull_credentials),
            has_audit_credentials=bool(channel.audit_credentials),
            settings=dict(channel.settings),
            verification=channel.verification,
            processing=channel.processing,
            held_since=channel.held_since,
            updated_at=channel.updated_at,
        )


class LimitsOut(BaseModel):
    """How much a tenant may ask of the gateway."""

    requests_per_second: float
    burst: int
    max_body_bytes: int
    reads_per_second: float
    read_burst: int
    concurrent_reads: int

    @classmethod
    def of(cls, limits: Limits) -> LimitsOut:
        """The limits that this version knows. A newer version may have stored more."""
        return cls(**{name: getattr(limits, name) for name in cls.model_fields})


class SuppressionSettingsOut(BaseModel):
    """How far the tenant's people mean it when they opt out. ``topic_since`` is null unless the scope is ``topic``."""

    revocation_scope: Literal["all", "topic"]
    topic_since: datetime | None
    whatsapp: Literal["apart", "phone"]

    @classmethod
    def of(cls, settings: SuppressionSettings) -> SuppressionSettingsOut:
        """The settings that this version knows. A newer version may have stored more."""
        return cls(**{name: getattr(settings, name) for name in cls.model_fields})


class AuditRetentionOut(BaseModel):
    """For how many days audit files are kept; null is for ever."""

    retention_days: int | None


class TenantOut(BaseModel):
    """A tenant without its secrets. ``registration`` is new each time that the id is registered; every event has it."""

    id: str
    registration: str
    name: str
    queue_path: str
    status: TenantStatus
    deleting_since: datetime | None
    limits: LimitsOut
    suppression: SuppressionSettingsOut
    audit: AuditRetentionOut
    retention: RetentionOut
    keys: list[KeyOut]
    channels: list[ChannelOut]
    revision: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, tenant: Tenant, addresses: Addresses) -> TenantOut:
        """The public part of ``tenant``."""
        return cls(
            id=tenant.id,
            registration=tenant.registration,
            name=tenant.name,
            queue_path=tenant.queue_path,
            status=tenant.status,
            deleting_since=tenant.deleting_since,
            limits=LimitsOut.of(tenant.limits),
            suppression=SuppressionSettingsOut.of(tenant.suppression),
            audit=AuditRetentionOut(retention_days=tenant.audit.retention_days),
            retention=RetentionOut.of(tenant.retention),
            keys=[KeyOut.of(credential) for credential in tenant.credentials],
            channels=[ChannelOut.of(tenant.channels[key], addresses) for key in sorted(tenant.channels)],
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
