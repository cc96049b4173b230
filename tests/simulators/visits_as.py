"""Sessions of the console as whoever a test wants: written where the gateway keeps them, as it writes them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
from backhaul_common import mongo
from backhaul_common.secrets import SecretBox
from backhaul_common.store_format import StoreFormat
from backhaul_console.sessions import Access, Admin, Person, Session, Sessions, Tenant
from backhaul_gateway.console.store import SESSION, MongoSessionStore

if TYPE_CHECKING:
    from backhaul_local.stack import Stack

VOUCHED = {
    "BACKHAUL_GATEWAY_CONSOLE_OIDC_ISSUER": "https://accounts.example.com",
    "BACKHAUL_GATEWAY_CONSOLE_OIDC_CLIENT_ID": "console",
    "BACKHAUL_GATEWAY_CONSOLE_OIDC_CLIENT_SECRET": "secret",
    "BACKHAUL_GATEWAY_CONSOLE_OIDC_ROLES": "operators=operator",
}
"""Settings of a gateway that believes a ``person``; nobody asks that provider."""
SAME = {"sec-fetch-site": "same-origin"}


@asynccontextmanager
async def sessions_of(stack: Stack) -> AsyncIterator[Sessions]:
    """The sessions of a stack's gateways."""
    client = mongo.connect(stack.mongo_uri)
    try:
        database = mongo.database(client, stack.mongo_database)
        seal = SecretBox(stack.credentials.secret_keys).of(SESSION)
        yield Sessions(MongoSessionStore(database, StoreFormat(database)), seal, lambda _: True)
    finally:
        await mongo.close(client)


def person(role: str) -> Access:
    """Somebody of the platform team in that role."""
    name = f"oidc:{role}"
    return Access(began_at=time.time(), admin=Admin(name=name, role=role, person=Person(name=name, role=role)))


def holder(tenant_id: str, key: str, scopes: tuple[str, ...]) -> Access:
    """Whoever has signed in with a tenant's key."""
    tenant = Tenant(id=tenant_id, key=key[:], key_id=key.split("_")[1], scopes=scopes)
    return Access(began_at=time.time(), tenants={tenant_id: tenant})


def browser_of(base_url: str, session: Session | None, **headers: str) -> httpx.AsyncClient:
    """A browser that has the session's cookie, and follows nothing."""
    cookies = {"backhaul-console": session.token} if session is not None else {}
    return httpx.AsyncClient(base_url=base_url, timeout=60, cookies=cookies, headers={**SAME, **headers})
