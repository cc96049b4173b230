"""Tenants as every service sees them: immutable values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from backhaul_common.names import queue_path_key
from backhaul_common.secrets import CredentialKind
from backhaul_common.sizes import MAX_BODY_BYTES

VerificationMode = Literal["enforce", "observe", "off"]
TenantStatus = Literal["active", "suspended", "deleting"]
Processing = Literal["on", "held"]


Scope = Literal["ingest", "read", "check", "send", "manage"]
"""What an API key opens: bring callbacks; read; ask who may be contacted; say what is sent; change everything else."""
SCOPES: tuple[Scope, ...] = get_args(Scope)


class _Value(BaseModel):
    # Unknown fields are kept, so that an older copy of a service neither stumbles over what a newer one wrote nor
    # erases it: nested values are written back whole.
    model_config = ConfigDict(frozen=True, extra="allow")


Rate = Annotated[float, Field(gt=0, le=1_000_000)]
Burst = Annotated[int, Field(ge=1, le=10_000_000)]
BodyBytes = Annotated[int, Field(ge=1024, le=MAX_BODY_BYTES)]
AtOnce = Annotated[int, Field(ge=1, le=1000)]
Overdrawn = Annotated[int, Field(ge=0, le=10_000_000)]


class Limits(_Value):
    """How much a tenant may ask of the gateway. Of ``overdraft_callbacks`` None stands for the gateway's setting."""

    requests_per_second: Rate = 5000
    burst: Burst = 10_000
    max_body_bytes: BodyBytes = 1_048_576
    reads_per_second: Rate = 50
    read_burst: Burst = 200
    concurrent_reads: AtOnce = 8
    overdraft_callbacks: Overdrawn | None = None


class Credential(_Value):
    """One API key or ingest token; only the digest of its secret part is kept.

    ``scopes`` are what an API key opens, those of newer versions too; None, as keys have it that were made before there
    were scopes: everything. It opens nothing from ``expires_at`` on. ``last_used_at`` is written once in an hour, and
    without a revision: nothing is decided by it.
    """

    id: str
    kind: CredentialKind
    digest: str
    created_at: datetime
    scopes: tuple[str, ...] | None = None
    expires_at: datetime | None = None
    last_used_at: datetime | None = None


class Channel(_Value):
    """A tenant's configured source. ``settings`` fit the provider's own model.

    ``secrets``, which verify callbacks, are encrypted one by one. ``pull_credentials``, by which the provider's API is
    asked, and ``audit_credentials``, which open a bucket of the channel's own, are one encrypted JSON object each, or
    empty. While ``processing`` is ``held``, callbacks are verified, stored and
    answered, and wait to be processed; ``held_since`` tells people since when.
    """

    label: str
    key: str
    provider: str
    secrets: tuple[str, ...] = ()
    pull_credentials: str = ""
    audit_credentials: str = ""
    settings: Mapping[str, Any] = {}
    verification: VerificationMode = "enforce"
    processing: Processing = "on"
    held_since: datetime | None = None
    updated_at: datetime


class SuppressionSettings(_Value):
    """How far a tenant's people mean it when they opt out.

    With ``topic`` a STOP covers the messaging service that it came to, else the number, instead of all that the tenant
    sends; of those from ``topic_since`` on, by when they were written, or of all if it is None. With ``phone`` what
    people say on WhatsApp and what they say by SMS, MMS or RCS is about both; ``apart``, about the one alone. Either
    holds for what is said from then on.
    """

    revocation_scope: Literal["all", "topic"] = "all"
    topic_since: AwareDatetime | None = None
    whatsapp: Literal["apart", "phone"] = "apart"


RetentionDays = Annotated[int, Field(ge=1, le=36_500)]


class AuditRetention(_Value):
    """For how many days a tenant's audit files are kept; None: for ever."""

    retention_days: RetentionDays | None = None


class Retention(_Value):
    """For how many days the normalizer keeps what it has of a tenant; None: for ever.

    Events go by their arrival; messages when nothing was told of them for so long, and not before their events; their
    addresses by the arrival of what first named them.
    """

    event_retention_days: RetentionDays | None = None
    message_retention_days: RetentionDays | None = None
    address_retention_days: RetentionDays | None = None

    @property
    def ends(self) -> bool:
        """Whether anything is kept for less than ever."""
        return any(getattr(self, name) is not None for name in Retention.model_fields)


class Tenant(_Value):
    """A customer of the platform team. ``channels`` are by key; ``revision`` grows with every write.

    ``registration`` is one life of the id: made when the tenant is created, and never used again. Whatever belongs to a
    tenant names it, so that nothing of a deleted tenant ever passes for its successor's.

    The status ``deleting`` is the fence of its deletion, and final: whatever commits reads it, and stores nothing of
    the tenant from then on. ``deleting_since`` tells people when that began; nothing is decided by it.
    """

    # Unknown fields of the tenant itself stay in the store, where writing sets only those that are known.
    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    registration: str
    name: str
    queue_path: str
    status: TenantStatus = "active"
    deleting_since: datetime | None = None
    limits: Limits = Limits()
    suppression: SuppressionSettings = SuppressionSettings()
    audit: AuditRetention = AuditRetention()
    retention: Retention = Retention()
    credentials: tuple[Credential, ...] = ()
    channels: Mapping[str, Channel] = {}
    revision: int = 1
    created_at: datetime
    updated_at: datetime

    def to_document(self) -> dict[str, Any]:
        """The document that is stored; ``queue_path_key`` carries the unique index."""
        document = self.model_dump(mode="python")
        document["_id"] = document.pop("id")
        document["queue_path_key"] = queue_path_key(self.queue_path)
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Tenant:
        """The tenant that a stored document describes."""
        return cls.model_validate({**document, "id": document["_id"]})


Listener = Callable[[str, Tenant | None], None]
"""Told the id and the new value of a tenant, None when it is gone."""
