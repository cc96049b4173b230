"""What a service keeps of a tenant, and its end. docs/decisions/0013 tells how a tenant is deleted."""

from backhaul_common.tenantdata.servicer import SERVICE, TenantDataServicer, registrations
from backhaul_common.tenantdata.store import MongoTenantData, TenantData

__all__ = ["SERVICE", "MongoTenantData", "TenantData", "TenantDataServicer", "registrations"]
