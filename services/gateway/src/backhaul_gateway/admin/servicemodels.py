"""The JSON of the admin API about service accounts: requests (``…In``, ``…Patch``) and answers (``…Out``)."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, get_args

from backhaul_common.accounts import ALL_TENANTS, Purpose, ServiceAccount, ServiceLimits, ServiceToken, Verb, is_uri
from backhaul_common.names import TENANT_ID_PATTERN
from backhaul_common.tenants import AtOnce, Burst
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from backhaul_gateway.admin.models import Name, Rate
from backhaul_gateway.admin.services import MAX_CERTIFICATES, MAX_TENANTS_OF_A_SERVICE
from backhaul_gateway.web.moments import AwareMoment

_DNS = re.compile(r"(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?)*")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[\x21-\x7e]+")


def _tenant(value: str) -> str:
    if value != ALL_TENANTS and not re.fullmatch(TENANT_ID_PATTERN, value):
        raise ValueError("It must be a tenant's id, or * for all tenants.")
    return value


def _all_or_some(value: list[str]) -> list[str]:
    if ALL_TENANTS in value and len(value) > 1:
        raise ValueError("* is all tenants: send it alone.")
    return list(dict.fromkeys(value))


def _certificate(value: str) -> str:
    name = value if is_uri(value) else value.lower()
    if not (_URI if is_uri(name) else _DNS).fullmatch(name):
        raise ValueError("It must be a name of DNS without wildcards, such as crm.example.com, or a URI.")
    return name


def _once(value: list[Any]) -> list[Any]:
    return list(dict.fromkeys(value))


Tenants = Annotated[
    list[Annotated[str, Field(max_length=64), AfterValidator(_tenant)]],
    Field(min_length=1, max_length=MAX_TENANTS_OF_A_SERVICE),
    AfterValidator(_all_or_some),
]
Verbs = Annotated[list[Verb], Field(min_length=1, max_length=len(get_args(Verb))), AfterValidator(_once)]
Purposes = Annotated[list[Purpose], Field(max_length=2), AfterValidator(_once)]
Certificates = Annotated[
    list[Annotated[str, Field(max_length=255), AfterValidator(_certificate)]],
    Field(max_length=MAX_CERTIFICATES),
    AfterValidator(_once),
]

_TENANTS = "Ids of tenants, or * alone for all of them, those that are still to come as well."
_VERBS = "What it may do: each method needs one of them."
_PURPOSES = "Bound to some, it may ask and see for these alone; empty: for any."
_CERTIFICATES = (
    "Names of DNS or URIs in the client certificate by which it is known where it sends no token. A name belongs to "
    "one service."
)


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid")

    def given(self) -> dict[str, Any]:
        """The fields that are not None."""
        return self.model_dump(exclude_none=True)


class ServiceLimitsIn(_Input):
    """Limits to change. A limit that is left out stays as it is. Each holds for one copy of a service."""

    requests_per_second: Rate | None = Field(None, description="Calls other than checks.")
    burst: Burst | None = None
    checks_per_second: Rate | None = Field(None, description="Addresses that are checked.")
    checks_burst: Burst | None = None
    concurrent_streams: AtOnce | None = None


class ServiceIn(_Input):
    """A new service account."""

    id: str = Field(
        min_length=1,
        max_length=64,
        pattern=f"^{TENANT_ID_PATTERN}$",
        examples=["crm"],
        description="What it adds and lifts is signed service:<id>. It cannot be changed.",
    )
    name: Name = Field(examples=["CRM of the south"])
    tenants: Tenants = Field(description=_TENANTS, examples=[["acme"]])
    verbs: Verbs = Field(description=_VERBS, examples=[["check", "add"]])
    purposes: Purposes = Field([], description=_PURPOSES)
    certificates: Certificates = Field([], description=_CERTIFICATES, examples=[["crm.example.com"]])
    limits: ServiceLimitsIn = ServiceLimitsIn()
    token_expires_at: AwareMoment | None = Field(None, description="When its first token expires; left out: never.")

    def values(self) -> dict[str, Any]:
        """The fields of an account that are lists or texts."""
        return {"name": self.name, **_tuples(self)}


class ServicePatch(_Input):
    """Changes of a service account. What is left out, or null, stays as it is; a list replaces the present one."""

    name: Name | None = None
    tenants: Tenants | None = Field(None, description=_TENANTS)
    verbs: Verbs | None = Field(None, description=_VERBS)
    purposes: Purposes | None = Field(None, description=_PURPOSES)
    certificates: Certificates | None = Field(None, description=_CERTIFICATES)
    limits: ServiceLimitsIn = ServiceLimitsIn()
    disabled: bool | None = Field(None, description="While it is, every call is refused, and its streams end.")

    def values(self) -> dict[str, Any]:
        """The fields of an account that are to be changed, but for the limits."""
        plain = {"name": self.name, "disabled": self.disabled}
        return {**{name: value for name, value in plain.items() if value is not None}, **_tuples(self)}


def _tuples(body: ServiceIn | ServicePatch) -> dict[str, tuple[str, ...]]:
    lists = {name: getattr(body, name) for name in ("tenants", "verbs", "purposes", "certificates")}
    return {name: tuple(value) for name, value in lists.items() if value is not None}


class TokenIn(_Input):
    """When the new token expires, and when the present ones shall."""

    expires_at: AwareMoment | None = Field(None, description="Left out: it does not expire.")
    others_expire_at: AwareMoment | None = Field(
        None, description="The present tokens are valid until then and no longer; left out: as long as before."
    )


class TokenOut(BaseModel):
    """A token without its text."""

    id: str
    created_at: datetime
    expires_at: datetime | None

    @classmethod
    def of(cls, token: ServiceToken) -> TokenOut:
        """The public part of ``token``."""
        return cls(id=token.id, created_at=token.created_at, expires_at=token.expires_at)


class IssuedTokenOut(TokenOut):
    """A new token. ``token`` is shown here and never again."""

    token: str


class ServiceLimitsOut(BaseModel):
    """How much a service may ask of one copy of a service."""

    requests_per_second: float
    burst: int
    checks_per_second: float
    checks_burst: int
    concurrent_streams: int

    @classmethod
    def of(cls, limits: ServiceLimits) -> ServiceLimitsOut:
        """The limits that this version knows. A newer version may have stored more."""
        return cls(**{name: getattr(limits, name) for name in cls.model_fields})


class ServiceOut(BaseModel):
    """A service account without its tokens' texts. ``verbs`` and ``purposes`` may hold words of a newer version."""

    id: str
    name: str
    disabled: bool
    tenants: list[str]
    verbs: list[str]
    purposes: list[str]
    certificates: list[str]
    limits: ServiceLimitsOut
    tokens: list[TokenOut]
    revision: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, account: ServiceAccount) -> ServiceOut:
        """The public part of ``account``."""
        return cls(
            id=account.id,
            name=account.name,
            disabled=account.disabled,
            tenants=list(account.tenants),
            verbs=list(account.verbs),
            purposes=list(account.purposes),
            certificates=list(account.certificates),
            limits=ServiceLimitsOut.of(account.limits),
            tokens=[TokenOut.of(token) for token in account.tokens],
            revision=account.revision,
            created_at=account.created_at,
            updated_at=account.updated_at,
        )


class NewServiceOut(ServiceOut):
    """A new service account. ``token`` is shown here and never again."""

    token: str


class ServicePage(BaseModel):
    """Service accounts by id. ``next_cursor`` is null on the last page."""

    services: list[ServiceOut]
    next_cursor: str | None
