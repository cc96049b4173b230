"""Sessions of the console in their real store: what ends them, what they believe, and the keys that are made for
them."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest
from backhaul_client import AsyncAdminClient, AsyncTenantClient
from backhaul_common import mongo
from backhaul_common.secrets import SecretBox
from backhaul_common.store_format import StoreFormat
from backhaul_console.sessions import (
    GRACE_S,
    RENEWED_S,
    Access,
    Admin,
    Person,
    Session,
    SessionMovedError,
    Sessions,
    Stored,
    Tenant,
)
from backhaul_gateway.console.store import SESSION, MongoSessionStore
from backhaul_local.ports import Hold
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from gateway_rig import ADMIN_TOKEN, GatewayFactory, Running

if TYPE_CHECKING:
    from backhaul_local.mongod import MongoServer
    from backhaul_local.nats_server import NatsServer

SAME = {"sec-fetch-site": "same-origin"}
OPERATOR = Admin(name="admin", role="operator", token=ADMIN_TOKEN)
PERSON = Admin(name="oidc:7", role="operator", person=Person(name="oidc:7", role="operator"))


@pytest.fixture
def free_port() -> Iterator[int]:
    with Hold() as hold:
        yield hold.choose(1)[0]


@pytest.fixture
async def database(mongo_server: MongoServer) -> AsyncIterator[mongo.Database]:
    client = mongo.connect(mongo_server.uri)
    name = f"sessions-{time.time_ns()}"
    try:
        yield mongo.database(client, name)
        await client.drop_database(name)
    finally:
        await mongo.close(client)


class Interrupted(MongoSessionStore):
    """A store with something that happens ``before`` a named call of it is made, once."""

    before: dict[str, Callable[[], Awaitable[None]]]

    async def put(self, session: Stored) -> None:
        await self._meanwhile("put")
        await super().put(session)

    async def leave(self, session_id: str, until: float) -> bool:
        await self._meanwhile("leave")
        return await super().leave(session_id, until)

    async def take(self, session_id: str) -> bool:
        await self._meanwhile("take")
        return await super().take(session_id)

    async def _meanwhile(self, call: str) -> None:
        if (happens := self.before.pop(call, None)) is not None:
            await happens()


def store_of(database: mongo.Database) -> Interrupted:
    store = Interrupted(database, StoreFormat(database))
    store.before = {}
    return store


def sessions_of(
    store: MongoSessionStore, ring: list[str], ahead_s: float = 0.0, admits: Callable[[Admin], bool] = lambda _: True
) -> Sessions:
    return Sessions(store, SecretBox(ring).of(SESSION), admits, now=lambda: time.time() + ahead_s)


def access() -> Access:
    return Access(began_at=time.time(), admin=OPERATOR)


async def count(database: mongo.Database) -> int:
    return await database["console_sessions"].count_documents({})


async def test_of_all_that_come_with_an_old_cookie_one_gets_another(database: mongo.Database) -> None:
    store, ring = store_of(database), [Fernet.generate_key().decode()]
    session = await sessions_of(store, ring).begin(access())
    later = sessions_of(store, ring, ahead_s=RENEWED_S + 1)
    found = await asyncio.gather(*(later.find(session.token) for _ in range(50)))
    assert [one.access for one in found if one is not None] == [session.access] * 50
    assert len([one for one in found if one is not None and one.renewed]) == 1
    assert await count(database) == 2


@pytest.mark.parametrize("call", ["leave", "put"])
async def test_a_request_that_is_under_way_brings_no_session_back(database: mongo.Database, call: str) -> None:
    store, ring = store_of(database), [Fernet.generate_key().decode()]
    session = await sessions_of(store, ring).begin(access())
    later = sessions_of(store, ring, ahead_s=RENEWED_S + 1)

    async def sign_out() -> None:
        await later.end(session)

    store.before[call] = sign_out
    found = await later.find(session.token)
    assert not store.before
    # Who was let in before may go on; nobody has another cookie.
    assert found is None or not found.renewed
    assert await count(database) == 0


@pytest.mark.parametrize("call", ["put", "take"])
async def test_a_change_that_is_under_way_brings_no_session_back(database: mongo.Database, call: str) -> None:
    store = store_of(database)
    sessions = sessions_of(store, [Fernet.generate_key().decode()])
    session = await sessions.begin(access())

    async def sign_out() -> None:
        await sessions.end(session)

    store.before[call] = sign_out
    with pytest.raises(SessionMovedError):
        await sessions.change(session, access())
    assert await count(database) == 0


async def test_of_two_changes_at_once_one_counts(database: mongo.Database) -> None:
    store, ring = store_of(database), [Fernet.generate_key().decode()]
    sessions = sessions_of(store, ring)
    session = await sessions.begin(access())
    done = await asyncio.gather(*(sessions.change(session, access()) for _ in range(8)), return_exceptions=True)
    assert len([one for one in done if isinstance(one, Session)]) == 1
    assert len([one for one in done if isinstance(one, SessionMovedError)]) == 7
    assert await count(database) == 1
    # Nor is one changed that has moved to another cookie: what it opens may be something else by now.
    later = sessions_of(store, ring, ahead_s=RENEWED_S + 1)
    (current,) = (one for one in done if isinstance(one, Session))
    assert await later.find(current.token) is not None
    with pytest.raises(SessionMovedError):
        await later.change(current, access())


async def test_what_was_left_ends_soon(database: mongo.Database) -> None:
    store, ring = store_of(database), [Fernet.generate_key().decode()]
    session = await sessions_of(store, ring).begin(access())
    await sessions_of(store, ring, ahead_s=RENEWED_S + 1).find(session.token)
    assert await sessions_of(store, ring, ahead_s=RENEWED_S + GRACE_S).find(session.token) is not None
    assert await sessions_of(store, ring, ahead_s=RENEWED_S + GRACE_S + 2).find(session.token) is None


async def test_who_writes_to_the_store_makes_no_session(database: mongo.Database) -> None:
    """The installation's keys seal it as well, and all keys of the ring open it."""
    store = store_of(database)
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    token = "A" * 43
    by_token = AESGCM(sha256(b"seal:" + token.encode()).digest())
    plain = b"0" * 12 + by_token.encrypt(
        b"0" * 12, msgspec.json.encode(Access(began_at=time.time(), admin=PERSON)), None
    )
    written = base64.b64encode(plain).decode()
    for sealed in (
        plain,
        written.encode(),
        SecretBox([new]).of(SESSION).encrypt(written).encode(),
        SecretBox([old]).encrypt(written).encode(),
    ):
        made = Stored(
            id=sha256(b"id:" + token.encode()).hexdigest(),
            sealed=sealed,
            owner="x",
            made_at=time.time(),
            expires_at=time.time() + 60,
        )
        await store.put(made)
        assert await sessions_of(store, [old]).find(token) is None
        await store.delete(made.id)

    session = await sessions_of(store, [old]).begin(access())
    rotated = sessions_of(store, [new, old])
    assert await rotated.find(session.token) is not None
    newer = await rotated.change(session, access())
    assert await sessions_of(store, [old]).find(newer.token) is None
    assert await sessions_of(store, [new]).find(newer.token) is not None


async def test_who_could_not_sign_in_so_any_more_is_not_signed_in(database: mongo.Database) -> None:
    store, ring = store_of(database), [Fernet.generate_key().decode()]
    own = Tenant(id="own", key="k", key_id="1", scopes=("read",))
    lent = Tenant(id="lent", key="k", key_id="2", scopes=("read",), temporary=True)
    whole = Access(began_at=time.time(), admin=OPERATOR, tenants={"own": own, "lent": lent})
    session = await sessions_of(store, ring).begin(whole)
    found = await sessions_of(store, ring, admits=lambda _: False).find(session.token)
    assert found is not None
    assert (found.access.admin, list(found.access.tenants)) == (None, ["own"])


# Over HTTP.


def settings_of(provider: str = "https://accounts.example.com") -> dict[str, Any]:
    return {
        "gateway_console_oidc_issuer": provider,
        "gateway_console_oidc_client_id": "console",
        "gateway_console_oidc_client_secret": "secret",
        "gateway_console_oidc_roles": "operators=operator",
    }


async def forged(gateway: Running, access: Access, ago_s: float = 0.0) -> dict[str, str]:
    """The cookie of a session as the gateway itself would have made it, perhaps a while ago."""
    client = mongo.connect(gateway.settings.mongo_uri.get_secret_value())
    try:
        found = mongo.database(client, gateway.settings.mongo_database)
        store = MongoSessionStore(found, StoreFormat(found))
        session = await sessions_of(store, gateway.settings.encryption_keys(), ahead_s=-ago_s).begin(access)
    finally:
        await mongo.close(client)
    return {"cookie": f"backhaul-console={session.token}"}


async def test_turning_a_way_in_off_turns_out_who_came_by_it(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    ways: tuple[tuple[dict[str, Any], Admin, Admin], ...] = (
        ({}, OPERATOR, PERSON),
        ({**settings_of(), "gateway_console_admin_tokens": False}, PERSON, OPERATOR),
    )
    for settings, stays, goes in ways:
        async with gateway_factory(fresh_nats.uri, **settings) as gateway:
            for admin, status in ((stays, 200), (goes, 303)):
                cookie = await forged(gateway, Access(began_at=time.time(), admin=admin))
                assert (await gateway.client.get("/console/admin", headers=cookie)).status_code == status, admin


@pytest.mark.parametrize(
    ("method", "path", "sent", "status"),
    [
        ("GET", "", {}, 303),
        ("GET", "/admin", {}, 200),
        # "Add…", and what it refuses.
        ("GET", "/sign-in", {}, 200),
        ("POST", "/sign-in", {"data": {"credential": ""}}, 422),
        ("POST", "/sign-in", {"data": {"credential": "bhk_000000000000_" + "0" * 48}}, 401),
        # A page of a tenant that is not open, forms of another session, and one that is not read.
        ("GET", "/t/acme", {}, 303),
        ("POST", "/sign-out", {"data": {"form_token": ""}}, 303),
        ("POST", "/admin/new-tenant", {"data": {"form_token": ""}}, 403),
        ("POST", "/admin/new-tenant", {"content": "&" * 1000}, 400),
    ],
)
async def test_whatever_an_old_cookie_is_answered_it_is_given_the_new_one(
    gateway: Running, method: str, path: str, sent: dict[str, Any], status: int
) -> None:
    old = await forged(gateway, access(), ago_s=RENEWED_S + 60)
    answer = await gateway.client.request(method, f"/console{path}", headers={**SAME, **old}, **sent)
    assert answer.status_code == status, answer.text
    # What the browser has held so far opens nothing a minute later.
    stored = gateway.mongo[gateway.settings.mongo_database]["console_sessions"]
    assert stored.count_documents({}) == 2
    stored.delete_one({"_id": sha256(b"id:" + old["cookie"].partition("=")[2].encode()).hexdigest()})
    (given,) = answer.headers.get_list("set-cookie")
    new = {"cookie": given.partition(";")[0]}
    assert (await gateway.client.get("/console/admin", headers=new)).status_code == 200


def form_token(page: httpx.Response) -> str:
    found = re.search(r'name="form_token" value="([0-9a-f]{64})"', page.text)
    assert found, page.text
    return found[1]


async def sign_in(browser: httpx.AsyncClient, credential: str) -> None:
    begun = await browser.post("/console/sign-in", data={"credential": credential}, headers=SAME)
    assert begun.status_code == 303, begun.text


async def open_acme(browser: httpx.AsyncClient, scope: str = "read") -> httpx.Response:
    page = await browser.get("/console/admin/tenants/acme")
    form = {"form_token": form_token(page), "scope": scope}
    return await browser.post("/console/admin/tenants/acme/open", data=form, headers=SAME)


async def keys_of_acme(gateway: Running, url: str = "") -> set[str]:
    client = AsyncAdminClient(url or gateway.url, ADMIN_TOKEN, http=gateway.client)
    return {key.id for key in (await client.tenant("acme")).keys}


async def test_signing_out_on_the_tenants_port_revokes_what_was_made_for_the_session(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, free_port: int
) -> None:
    apart = f"http://127.0.0.1:{free_port}"
    async with (
        gateway_factory(fresh_nats.uri, gateway_admin_port=free_port) as gateway,
        httpx.AsyncClient(base_url=apart, timeout=20) as browser,
    ):
        await AsyncAdminClient(apart, ADMIN_TOKEN, http=gateway.client).create_tenant(
            "acme", name="a", queue_path="acme"
        )
        before = await keys_of_acme(gateway, apart)
        await sign_in(browser, ADMIN_TOKEN)
        assert (await open_acme(browser)).status_code == 303
        assert len(await keys_of_acme(gateway, apart)) == len(before) + 1
        cookie = {"cookie": f"backhaul-console={browser.cookies['backhaul-console']}"}
        page = await gateway.client.get("/console/t/acme", headers=cookie)
        assert page.status_code == 200, page.text
        out = await gateway.client.post(
            "/console/sign-out", data={"form_token": form_token(page)}, headers={**SAME, **cookie}
        )
        assert out.status_code == 303
        assert await keys_of_acme(gateway, apart) == before


async def test_a_key_of_ones_own_in_its_place_revokes_it(gateway: Running) -> None:
    acme = await gateway.tenant("acme")
    before = await keys_of_acme(gateway)
    async with httpx.AsyncClient(base_url=gateway.url, timeout=20) as browser:
        await sign_in(browser, ADMIN_TOKEN)
        await open_acme(browser)
        assert len(await keys_of_acme(gateway)) == len(before) + 1
        await sign_in(browser, acme.api_key)
        assert await keys_of_acme(gateway) == before
        assert (await browser.get("/console/t/acme")).status_code == 200


async def test_another_admin_does_not_have_what_was_opened_by_the_one_before(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    other = "another-token-0123456789"
    named = f"watcher:auditor:{sha256(other.encode()).hexdigest()}"
    async with (
        gateway_factory(fresh_nats.uri, gateway_admin_tokens=named) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=20) as browser,
    ):
        await gateway.tenant("acme")
        before = await keys_of_acme(gateway)
        await sign_in(browser, ADMIN_TOKEN)
        await open_acme(browser, "manage")
        # The same one again keeps it.
        await sign_in(browser, ADMIN_TOKEN)
        assert (await browser.get("/console/t/acme")).status_code == 200
        await sign_in(browser, other)
        assert await keys_of_acme(gateway) == before
        assert (await browser.get("/console/t/acme")).is_redirect
        assert (await browser.get("/console/admin/tenants")).status_code == 200


async def test_of_two_tabs_that_open_it_at_once_no_key_is_left_over(gateway: Running) -> None:
    await gateway.tenant("acme")
    before = await keys_of_acme(gateway)
    async with httpx.AsyncClient(base_url=gateway.url, timeout=20) as browser:
        await sign_in(browser, ADMIN_TOKEN)
        page = await browser.get("/console/admin/tenants/acme")
        form, cookie = {"form_token": form_token(page)}, f"backhaul-console={browser.cookies['backhaul-console']}"
        answers = await asyncio.gather(
            *(
                gateway.client.post("/console/admin/tenants/acme/open", data=form, headers={**SAME, "cookie": cookie})
                for _ in range(4)
            )
        )
        opened = [answer for answer in answers if answer.status_code == 303 and "/t/acme" in answer.headers["location"]]
        assert len(opened) == 1
        assert len(await keys_of_acme(gateway)) == len(before) + 1
        cookie = opened[0].headers["set-cookie"].partition(";")[0]
        out = await gateway.client.post("/console/sign-out", data=form, headers={**SAME, "cookie": cookie})
        assert out.status_code == 303
        assert await keys_of_acme(gateway) == before


async def test_a_key_that_is_revoked_closes_its_pages_and_no_others(gateway: Running) -> None:
    acme, other = await gateway.tenant("acme"), await gateway.tenant("other")
    client = AsyncTenantClient(gateway.url, acme.api_key, http=gateway.client)
    sessions = gateway.mongo[gateway.settings.mongo_database]["console_sessions"]
    for further in (other.api_key, ""):
        key = await client.add_key(scopes=["read"])
        async with httpx.AsyncClient(base_url=gateway.url, timeout=20) as browser:
            await sign_in(browser, key.key)
            if further:
                await sign_in(browser, further)
            await client.delete_key(key.id)
            refused = await browser.get("/console/t/acme")
            assert refused.status_code == 401
            assert (await browser.get("/console/t/acme")).is_redirect
            assert (await browser.get("/console/t/other")).status_code == (200 if further else 303)
            assert sessions.count_documents({}) == (1 if further else 0)
            sessions.delete_many({})


async def test_the_form_says_whose_pages_these_are_and_nothing_else_of_an_address(gateway: Running) -> None:
    for tenant, said in (("acme-1", True), ("Call +1 555 0100", False), ("a" * 65, False)):
        page = await gateway.client.get("/console/sign-in", params={"tenant": tenant})
        assert ("These pages are of" in page.text) == said, json.dumps(tenant)
