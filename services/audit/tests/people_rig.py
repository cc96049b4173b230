"""Keys of people in a database of a test's own, and copies that ask for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from backhaul_audit import people
from backhaul_audit.people import MongoPeople
from backhaul_audit.peoplesecrets import MongoSecrets, Name, Person
from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.names import AUDIT_PEOPLE_COLLECTION, TENANTS_COLLECTION
from backhaul_common.secrets import SecretBox
from backhaul_common.tenants import Tenant
from backhaul_testing import make
from filing_rig import KEY


def now_us() -> int:
    return time.time_ns() // 1000


@dataclass
class Copy:
    """One copy of the service, with a memory of its own."""

    people: MongoPeople
    secrets: MongoSecrets

    async def name(self, registration: str, address: str) -> Name:
        secrets = await self.secrets.made(registration)
        assert secrets is not None
        return secrets.name(address)

    async def key(self, registration: str, address: str) -> Person:
        """The person's, made where there is none."""
        name = await self.name(registration, address)
        return (await self.people.make([name]))[name]


@dataclass
class Rig:
    """A database with tenants, and nothing else."""

    database: mongo.Database
    tenants: dict[str, Tenant] = field(default_factory=dict)

    async def prepare(self) -> None:
        await mongo.make_indexes(self.database, people.INDEXES)

    def copy(self, *keys: str, clock: Callable[[], int] = now_us) -> Copy:
        secrets = MongoSecrets(self.database, SecretBox(keys or (KEY,)), clock)
        return Copy(MongoPeople(self.database, secrets, clock), secrets)

    async def register(self, tenant_id: str, **fields: object) -> str:
        """The registration of a tenant that is there now."""
        tenant = make.tenant(tenant_id).model_copy(update=fields)
        await self.database[TENANTS_COLLECTION].replace_one({"_id": tenant.id}, tenant.to_document(), upsert=True)
        return tenant.registration

    async def rows(self) -> list[Document]:
        """Everything that is stored of people."""
        return await self.database[AUDIT_PEOPLE_COLLECTION].find({}).to_list(None)
