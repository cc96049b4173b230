"""What a service keeps of a tenant and of people, and its end. docs/decisions/0013 tells how a tenant is deleted,
0038 how a person is erased."""

from backhaul_common.tenantdata.erasures import (
    ERASE_S,
    Asked,
    Erasure,
    Erasures,
    KeepsNobody,
    Kept,
    Receipt,
    RecipientData,
    key_of,
    more_to_erase,
    no_address,
)
from backhaul_common.tenantdata.servicer import SERVICE, TenantDataServicer, registrations
from backhaul_common.tenantdata.store import MongoTenantData, TenantData

__all__ = [
    "ERASE_S",
    "SERVICE",
    "Asked",
    "Erasure",
    "Erasures",
    "KeepsNobody",
    "Kept",
    "MongoTenantData",
    "Receipt",
    "RecipientData",
    "TenantData",
    "TenantDataServicer",
    "key_of",
    "more_to_erase",
    "no_address",
    "registrations",
]
