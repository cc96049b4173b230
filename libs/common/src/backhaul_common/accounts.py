"""Service accounts: who may call services over gRPC, for which tenants, and what for. Immutable values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from backhaul_common.tenants import AtOnce, Burst, Rate

Verb = Literal[
    "check",
    "read",
    "add",
    "lift",
    "import",
    "export",
    "watch",
    "audit",
    "verify",
    "erase",
    "reports",
    "reconcile",
    "deliveries",
    "redeliver",
    "subscribe",
]
"""What a caller may do. Each method that others than Backhaul's own services may call needs one of them."""

READING: frozenset[Verb] = frozenset({"check", "read", "export", "watch", "audit", "verify", "reports", "deliveries"})
"""Those that change nothing."""

Purpose = Literal["marketing", "transactional"]
"""What a message is for."""

ALL_TENANTS = "*"
"""In a list of tenants: all, those that are still to come as well."""


def is_uri(name: str) -> bool:
    """Whether the name of a certificate is a URI's; else it is one of DNS. Neither ever passes for the other."""
    return ":" in name


class _Value(BaseModel):
    # Unknown fields are kept, so that an older copy of a service neither stumbles over what a newer one wrote nor
    # erases it: nested values are written back whole.
    model_config = ConfigDict(frozen=True, extra="allow")


class ServiceLimits(_Value):
    """How much a service may ask of one copy of a service. Checks are counted by address, everything else by call."""

    requests_per_second: Rate = 100
    burst: Burst = 200
    checks_per_second: Rate = 5000
    checks_burst: Burst = 20_000
    concurrent_streams: AtOnce = 50


class ServiceToken(_Value):
    """One token; only the digest of its secret part is kept. It opens nothing from ``expires_at`` on."""

    id: str
    digest: str
    created_at: datetime
    expires_at: datetime | None = None


class ServiceAccount(_Value):
    """Another system that may call Backhaul's services.

    It shows one of ``tokens``, or a client certificate with one of the names ``certificates`` (of DNS, in lower case,
    or URIs). ``tenants`` are ids, or ``*``. Without ``purposes`` it may ask for any. ``registration`` is one life of
    the id; ``revision`` grows with every write. ``verbs`` and ``purposes`` may hold words of a newer version.
    """

    # Unknown fields of the account itself stay in the store, where writing sets only those that are known.
    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    registration: str
    name: str
    disabled: bool = False
    tokens: tuple[ServiceToken, ...] = ()
    certificates: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    purposes: tuple[str, ...] = ()
    limits: ServiceLimits = ServiceLimits()
    revision: int = 1
    created_at: datetime
    updated_at: datetime

    def serves(self, tenant_id: str) -> bool:
        """Whether it may call for this tenant."""
        return tenant_id in self.tenants or ALL_TENANTS in self.tenants

    def to_document(self) -> dict[str, Any]:
        """The document that is stored."""
        document = self.model_dump(mode="python")
        document["_id"] = document.pop("id")
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> ServiceAccount:
        """The account that a stored document describes."""
        return cls.model_validate({**document, "id": document["_id"]})
