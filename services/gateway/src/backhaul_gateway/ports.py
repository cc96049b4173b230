"""What the gateway's use cases need of the world."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from backhaul_common.accounts import ServiceAccount
from backhaul_common.tenants import Tenant

from backhaul_gateway.admission.room import LogState


class CallbackLog(Protocol):
    """Where callbacks become durable."""

    async def publish(self, subject: str, callback_id: str, encoded: bytes, traceparent: str) -> None:
        """Return when the serialised Callback is stored; UNAVAILABLE, in bounded time, when it is not."""
        ...


class Held(Protocol):
    """Where callbacks lie that may not be stored yet."""

    async def hold(self, subject: str, callback_id: str, encoded: bytes, traceparent: str) -> bool:
        """Whether it is durable there; no where there is no room for it."""
        ...


class TenantStore(Protocol):
    """Where tenants are kept. UNAVAILABLE from every method while it is away."""

    async def insert(self, tenant: Tenant) -> None:
        """Store a new tenant. CONFLICT, naming the field, when its id or its queue path is taken."""
        ...

    async def find(self, tenant_id: str) -> Tenant | None:
        """The tenant as stored now, or None."""
        ...

    async def owner_of(self, credential_id: str) -> str | None:
        """The id of the tenant that has the credential, or None."""
        ...

    async def page(self, after: str, limit: int) -> list[Tenant]:
        """At most ``limit`` tenants whose ids come after ``after``, by id."""
        ...

    async def replace(self, tenant: Tenant, revision: int) -> bool:
        """Store ``tenant`` if the stored one still has ``revision`` and is the same registration; False otherwise."""
        ...

    async def delete(self, tenant: Tenant) -> bool:
        """Forget the tenant if it is stored as it is given: same registration, same revision; False otherwise."""
        ...


class ServiceStore(Protocol):
    """Where service accounts are kept. UNAVAILABLE from every method while it is away."""

    async def insert(self, account: ServiceAccount) -> None:
        """Store a new account. CONFLICT, naming the field, when its id or a certificate's name is taken."""
        ...

    async def find(self, service_id: str) -> ServiceAccount | None:
        """The account as stored now, or None."""
        ...

    async def of_tenant(self, tenant_id: str) -> list[str]:
        """Ids of the accounts that name the tenant."""
        ...

    async def page(self, after: str, limit: int) -> list[ServiceAccount]:
        """At most ``limit`` accounts whose ids come after ``after``, by id."""
        ...

    async def replace(self, account: ServiceAccount, revision: int) -> bool:
        """Store ``account`` if the stored one still has ``revision`` and is the same registration; False otherwise.

        CONFLICT, naming the field, when a certificate's name is taken.
        """
        ...

    async def delete(self, account: ServiceAccount) -> bool:
        """Forget the account if it is stored as it is given: same registration, same revision; False otherwise."""
        ...


class Announcer(Protocol):
    """Tells every service that a tenant changed."""

    async def tenant_changed(self, tenant_id: str) -> None:
        """Refresh this process at once, and the others as far as they can be reached. Never raises."""
        ...


class ServiceAnnouncer(Protocol):
    """Tells every service that a service account changed."""

    async def service_changed(self, service_id: str) -> None:
        """Have those that let services in look at once, as far as they can be reached. Never raises."""
        ...


class TenantGrants(Protocol):
    """What other systems may do with a tenant's data."""

    async def forget(self, tenant_id: str) -> None:
        """Take the tenant out of every service account that names it. Idempotent. UNAVAILABLE."""
        ...


class OwnChanges(Protocol):
    """What is logged of what a tenant changed itself."""

    async def purge(self, tenant_id: str, registration: str) -> None:
        """Delete it, of a registration that lives no more. Idempotent. UNAVAILABLE, also where more is left."""
        ...


class TenantStreams(Protocol):
    """A tenant's part of the streams. UNAVAILABLE from every method while JetStream is away."""

    async def holds_messages(self, tenant: Tenant) -> bool:
        """Whether any stream has a message of the tenant."""
        ...

    async def ends(self) -> Mapping[str, int]:
        """The last position of each stream, by its name."""
        ...

    async def purge(self, tenant: Tenant, ends: Mapping[str, int]) -> None:
        """Delete what streams have under the tenant's queue path, up to the positions ``ends``. Idempotent.

        Whoever gets the queue path later keeps what lies behind them, however late this comes about.
        """
        ...

    async def last_callback_at(self, tenant: Tenant, channel: str) -> datetime | None:
        """When the channel's last callback was stored; None when the log holds none."""
        ...

    async def held(self, tenant: Tenant, channel: str) -> int:
        """How many messages of the channel's callbacks are held, or wait to be given to be processed."""
        ...

    async def check(self) -> None:
        """Return when the log is there; raises otherwise."""
        ...

    async def check_room(self) -> None:
        """Return when it is there and has room for any callback; raises otherwise."""
        ...


class WatchedLog(Protocol):
    """The callback log as a whole. UNAVAILABLE from every method while it is away."""

    async def state(self) -> LogState:
        """How full it is now, and of whose messages."""
        ...

    async def size_of_last(self, subject: str) -> int:
        """Bytes of the last message of ``subject``; 0 when there is none."""
        ...

    async def processed_up_to(self) -> int:
        """The last position up to which everything is processed; 0 when nothing is, or nobody knows."""
        ...

    async def purge_before(self, seq: int, path: str = "", *, spare_held: bool = True) -> None:
        """Delete what lies before position ``seq``; of one queue path only, when one is given. Idempotent.

        What is held stays. Where nothing is, ``spare_held`` false says so, and spares the broker looking at each
        message.
        """
        ...

    async def try_to_store(self) -> None:
        """Return when a message was stored, which is deleted again; raises when it was not."""
        ...


class TenantData(Protocol):
    """What all services keep of a tenant. UNAVAILABLE from every method while any of them is away."""

    async def usage(self, tenant: Tenant) -> Mapping[str, int]:
        """How much it has, by kind, each service counting to ``MAX_COUNTED``; all zero when it has nothing."""
        ...

    async def purge(self, tenant: Tenant) -> None:
        """Delete all that this registration has. Idempotent."""
        ...


class ObjectStorage(Protocol):
    """Object storage, as far as the status tells of it."""

    configured: bool

    async def check(self) -> None:
        """Return when the bucket answers; raises otherwise."""
        ...
