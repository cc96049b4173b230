"""The JSON of the admin API about tenants and keys: requests (``…In``, ``…Patch``), answers (``…Out``, ``…Page``)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from backhaul_common.names import QUEUE_PATH_PATTERN, TENANT_ID_PATTERN
from backhaul_common.secrets import CredentialKind
from backhaul_common.tenants import (
    SCOPES,
    AtOnce,
    BodyBytes,
    Burst,
    Credential,
    Limits,
    Overdrawn,
    Scope,
    SuppressionSettings,
    Tenant,
    TenantStatus,
)
from backhaul_common.tenants import (
    Rate as CommonRate,
)
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from backhaul_gateway.admin.addresses import Addresses
from backhaul_gateway.admin.channelmodels import ChannelAddressOut, ChannelOut
from backhaul_gateway.admin.retention import RetentionIn, RetentionOut
from backhaul_gateway.admin.tenants import IssuedCredential, WantedCredential
from backhaul_gateway.admission.principal import Principal, names_of
from backhaul_gateway.web.moments import AwareMoment


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
    overdraft_callbacks: Overdrawn | None = Field(
        None,
        description="Callbacks that are held while they may not be stored, at each gateway; 0 is none. null, where "
        "it is said: as many as BACKHAUL_GATEWAY_OVERDRAFT_CALLBACKS.",
    )

    def given(self) -> dict[str, Any]:
        """The limits that are not None, and the one of which None is said to be wanted."""
        said = {"overdraft_callbacks": None} if "overdraft_callbacks" in self.model_fields_set else {}
        return {**said, **self.model_dump(exclude_none=True)}


# Between the two, every time can be told in UTC, and as a number.
_Since = Annotated[AwareMoment, Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(9999, 1, 1, tzinfo=UTC))]


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


_SCOPES = (
    "What an API key opens: ingest (bring callbacks), read, check (ask who may be contacted), send (say what is sent), "
    "manage (change everything else). Left out: all of them."
)
_EXPIRES = "When an API key expires; left out: never."


class KeyIn(_Input):
    """Which kind of credential: an API key, or an ingest token for paths. A token takes no scopes, and does not
    expire."""

    kind: CredentialKind = "api"
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=len(SCOPES))] | None = Field(
        None, description=_SCOPES, examples=[["ingest"]]
    )
    expires_at: AwareMoment | None = Field(None, description=_EXPIRES, examples=["2027-11-01T00:00:00Z"])

    def wanted(self) -> WantedCredential:
        """The same for the use case."""
        return WantedCredential(self.kind, tuple(self.scopes) if self.scopes is not None else None, self.expires_at)


class KeyOut(BaseModel):
    """A credential without its text. ``scopes`` are those of an API key; what an ingest token opens is ingest."""

    id: str
    kind: CredentialKind
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(
        description="Rounded down to the hour. It is written down once an hour at most, so that use may go on for "
        "up to two hours after it; null: not yet."
    )

    @classmethod
    def of(cls, credential: Credential) -> KeyOut:
        """The public part of ``credential``."""
        return cls(
            id=credential.id,
            kind=credential.kind,
            scopes=list(names_of(Principal.of_credential("", credential).bits)),
            created_at=credential.created_at,
            expires_at=credential.expires_at,
            last_used_at=_hour(credential.last_used_at),
        )


def _hour(at: datetime | None) -> datetime | None:
    """As precisely as it is known: see ``KeyUses``."""
    return at and at.replace(minute=0, second=0, microsecond=0)


class KeyList(BaseModel):
    """A tenant's credentials."""

    keys: list[KeyOut]


class IssuedKeyOut(KeyOut):
    """A new credential. ``key`` is shown here and never again, and so are the ``addresses`` of the tenant's channels
    with it, where it is an ingest token."""

    key: str
    addresses: list[ChannelAddressOut]

    @classmethod
    def issued(cls, issued: IssuedCredential, tenant: Tenant, addresses: Addresses) -> IssuedKeyOut:
        """The credential of ``tenant`` with its text."""
        kind, text = issued.credential.kind, issued.text
        channels = [tenant.channels[key] for key in sorted(tenant.channels)] if kind == "ingest" else []
        shown = [
            ChannelAddressOut(
                label=one.label, callback_url=addresses.callback(one, text), token_url=addresses.token(one, text)
            )
            for one in channels
        ]
        return cls(**KeyOut.of(issued.credential).model_dump(), key=text, addresses=shown)


class LimitsOut(BaseModel):
    """How much a tenant may ask of the gateway. ``overdraft_callbacks`` is null where the installation's holds."""

    requests_per_second: float
    burst: int
    max_body_bytes: int
    reads_per_second: float
    read_burst: int
    concurrent_reads: int
    overdraft_callbacks: int | None

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
