"""Who is asking, as one value: what decides whether they may, and what a log of changes can name them by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from backhaul_common.tenants import SCOPES, Credential

Kind = Literal["key", "token", "admin"]

PRINCIPAL = "backhaul.principal"
"""Where a request's scope has who is asking. Of admin tokens ``Edge`` puts it there, of API keys ``Guard``."""

SCOPE_BITS: dict[str, int] = {scope: 1 << place for place, scope in enumerate(SCOPES)}
ALL_SCOPES = (1 << len(SCOPES)) - 1

ROLES = ("operator", "support", "auditor")
"""What an admin token may do: everything; read; read what auditors need."""
ROLE_BITS = {role: 1 << place for place, role in enumerate(ROLES)}


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever has shown a valid credential.

    ``kind`` says which one, and ``name`` names it: a ``key`` (an API key) or a ``token`` (an ingest token) by its
    public id, an ``admin`` token by the name that it has in the settings. ``tenant_id`` is empty for an admin, and
    ``role`` for everybody else. ``bits`` are the scopes of a key, or the bit of the role.
    """

    kind: Kind
    name: str
    bits: int
    tenant_id: str = ""
    role: str = ""
    expires_at: float | None = None
    """In seconds since 1970; None: never."""

    @property
    def author(self) -> str:
        """By whom something was done, in one word: ``key:<id>``, ``token:<id>`` or ``admin:<name>``."""
        return f"{self.kind}:{self.name}"

    @classmethod
    def of_credential(cls, tenant_id: str, credential: Credential) -> Principal:
        """Whoever shows a tenant's ``credential``. An ingest token brings callbacks, and nothing else."""
        bits = SCOPE_BITS["ingest"] if credential.kind == "ingest" else scope_bits(credential.scopes)
        end = credential.expires_at
        kind: Kind = "token" if credential.kind == "ingest" else "key"
        return cls(kind, credential.id, bits, tenant_id, expires_at=end.timestamp() if end is not None else None)

    @classmethod
    def admin(cls, name: str, role: str) -> Principal:
        """Whoever shows an admin token."""
        return cls("admin", name, ROLE_BITS[role], role=role)


def scope_bits(scopes: Iterable[str] | None) -> int:
    """The bits of the scopes of an API key; None stands for all. What a newer version calls a scope opens nothing."""
    if scopes is None:
        return ALL_SCOPES
    return sum(SCOPE_BITS.get(scope, 0) for scope in set(scopes))


def names_of(bits: int) -> tuple[str, ...]:
    """The scopes whose bits these are."""
    return tuple(scope for scope, bit in SCOPE_BITS.items() if bits & bit)
