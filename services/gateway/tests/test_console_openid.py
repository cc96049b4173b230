"""Signing in to the console as somebody whom an OpenID provider vouches for, or seems to."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import httpx
import pytest
from backhaul_client import AsyncAdminClient
from backhaul_console import openid, vouching
from backhaul_gateway.settings import GatewaySettings
from backhaul_testing import waiting
from backhaul_testing.openid import CLIENT_ID, CLIENT_SECRET, Claims, OpenIdProvider, openid_provider
from cryptography.fernet import Fernet
from gateway_rig import ADMIN_TOKEN, GatewayFactory, Running
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from pydantic import ValidationError

if TYPE_CHECKING:
    from backhaul_local.nats_server import NatsServer

SAME = {"sec-fetch-site": "same-origin"}
CROSS = {"sec-fetch-site": "cross-site"}


@pytest.fixture
async def provider() -> AsyncIterator[OpenIdProvider]:
    async with openid_provider() as made:
        yield made


@pytest.fixture
async def gateway(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, provider: OpenIdProvider
) -> AsyncIterator[Running]:
    async with gateway_factory(fresh_nats.uri, **provider.settings) as running:
        yield running


@pytest.fixture
async def browser(gateway: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=20) as client:
        yield client


async def begun(browser: httpx.AsyncClient, to: str = "") -> str:
    """Leave for the provider; the address that it sends the browser back to."""
    away = await browser.get("/console/sign-in/openid", params={"to": to} if to else {}, headers=SAME)
    assert away.status_code == 303, away.text
    assert "SameSite=lax" in away.headers["set-cookie"]
    back = await browser.get(away.headers["location"])
    assert back.status_code == 303
    address: str = back.headers["location"]
    return address


async def sign_in(browser: httpx.AsyncClient, to: str = "") -> httpx.Response:
    return await came_back(browser, await begun(browser, to))


async def came_back(browser: httpx.AsyncClient, back: str) -> httpx.Response:
    """What the browser is answered that comes from another site, and then asks again from its own."""
    again = await browser.get(back, headers=CROSS)
    assert "http-equiv=refresh" in again.text
    return await browser.get(back, headers=SAME)


def refused(answer: httpx.Response, status: int, words: str) -> None:
    """It says why, on the page of the sign-in, and opens nothing."""
    assert answer.status_code == status, answer.text
    told = re.search(r'role="alert">([^<]*)<', answer.text)
    assert told, answer.text
    assert words in told[1]
    assert "backhaul-console=" not in answer.headers.get("set-cookie", "")


async def test_a_person_is_let_in_and_named_in_the_log_of_changes(
    gateway: Running, browser: httpx.AsyncClient, provider: OpenIdProvider
) -> None:
    provider.person = {"sub": "7", "email": "ana@example.com", "email_verified": True, "groups": ["x", "operators"]}
    form = await browser.get("/console/sign-in", params={"to": "/console/admin?x=1"})
    assert "Sign in at 127.0.0.1" in form.text
    assert "/console/sign-in/openid?to=%2Fconsole%2Fadmin%3Fx%3D1" in form.text
    let_in = await sign_in(browser, to="/console/admin?x=1")
    assert (let_in.status_code, let_in.headers["location"]) == (303, "/console/admin?x=1")
    page = await browser.get("/console/admin")
    assert page.status_code == 200, page.text
    assert "oidc:ana@example.com (operator)" in page.text


PEOPLE: tuple[tuple[Claims, str], ...] = (
    ({"sub": "7", "email": "ana@example.com", "groups": "helpdesk"}, "oidc:7 (support)"),
    ({"sub": "7", "email": "ana@example.com", "email_verified": "true", "groups": "helpdesk"}, "oidc:7 (support)"),
    ({"sub": "<b>admin</b>", "groups": ["auditors", "helpdesk"]}, "oidc:&lt;b&gt;admin&lt;/b&gt; (support)"),
    # Whoever chooses an id that looks like an address is not taken for whom it belongs to.
    ({"sub": "ana@example.com", "groups": "operators"}, "oidc:sub:ana@example.com (operator)"),
    (
        {"sub": "7", "email": "sub:ana@example.com", "email_verified": True, "groups": "operators"},
        "oidc:7 (operator)",
    ),
    ({"sub": "7", "email": "8", "email_verified": True, "groups": "operators"}, "oidc:7 (operator)"),
    # No token's name has a colon, so that whoever calls themselves admin is no token's admin.
    ({"sub": "admin", "groups": ["operators", "helpdesk", 7, None]}, "oidc:admin (operator)"),
)


async def test_the_name_and_the_role_are_those_that_the_provider_is_sure_of(
    browser: httpx.AsyncClient, provider: OpenIdProvider
) -> None:
    for person, said in PEOPLE:
        provider.person = person
        assert (await sign_in(browser)).status_code == 303
        assert said in (await browser.get("/console/admin")).text


async def test_nobody_else_can_say_that_they_are_a_person(gateway: Running, browser: httpx.AsyncClient) -> None:
    await sign_in(browser)
    assert "oidc:1 (operator)" in (await browser.get("/console/admin")).text
    for token in ("person", "oidc:1"):
        answer = await gateway.client.get("/admin/v1/whoami", headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 401


async def test_who_has_no_role_is_told_so(browser: httpx.AsyncClient, provider: OpenIdProvider) -> None:
    for person in ({"sub": "7"}, {"sub": "7", "groups": []}, {"sub": "7", "groups": ["guests"]}):
        provider.person = person
        refused(await sign_in(browser), 403, "oidc:7 has no role in Backhaul")


async def test_a_claim_can_lie_in_an_object(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, provider: OpenIdProvider
) -> None:
    settings = {**provider.settings, "gateway_console_oidc_claim": "realm_access.roles"}
    provider.person = {"sub": "7", "realm_access": {"roles": ["helpdesk"]}}
    async with (
        gateway_factory(fresh_nats.uri, **settings) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=20) as browser,
    ):
        assert (await sign_in(browser)).status_code == 303
        provider.person = {"sub": "7", "realm_access": ["helpdesk"]}
        refused(await sign_in(browser), 403, "no role")


async def test_either_kind_of_key_and_of_secret_will_do(browser: httpx.AsyncClient, provider: OpenIdProvider) -> None:
    provider.algorithm, provider.basic = "ES256", False
    assert (await sign_in(browser)).status_code == 303


async def test_what_is_told_of_itself_is_asked_once_and_newer_keys_when_needed(
    browser: httpx.AsyncClient, provider: OpenIdProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        assert (await sign_in(browser)).status_code == 303
    provider.rotate()
    refused(await sign_in(browser), 403, "does not hold")
    assert provider.asked.count("/.well-known/openid-configuration") == provider.asked.count("/keys") == 1
    monkeypatch.setattr(openid, "_KEYS_APART_S", 0.0)
    assert (await sign_in(browser)).status_code == 303
    assert provider.asked.count("/keys") == 2


OTHER = RSAKey.generate_key(2048)
LIES: dict[str, tuple[dict[str, Any], str]] = {
    "issuer": ({"iss": "https://evil.example"}, "does not hold"),
    "no issuer": ({"iss": None}, "does not hold"),
    "audience": ({"aud": "another client"}, "does not hold"),
    "audiences": ({"aud": [CLIENT_ID, "another"], "azp": "another"}, "does not hold"),
    "expired": ({"exp": 1}, "does not hold"),
    "never expires": ({"exp": None}, "does not hold"),
    "of tomorrow": ({"iat": time.time() + 86400}, "does not hold"),
    "nonce": ({"nonce": "another"}, "does not hold"),
    "no nonce": ({"nonce": None}, "does not hold"),
    "nobody": ({"sub": None}, "does not hold"),
    "a number": ({"sub": 7}, "does not hold"),
    "unprintable": ({"sub": "a\nb"}, "cannot be written down"),
    "long": ({"sub": "a" * 129}, "cannot be written down"),
    "another access token": ({"at_hash": "AAAA"}, "does not hold"),
}


async def test_a_token_that_is_not_for_this_sign_in_is_refused(
    browser: httpx.AsyncClient, provider: OpenIdProvider
) -> None:
    for lie, words in LIES.values():
        provider.lie = partial(_lied, lie)
        refused(await sign_in(browser), 403, words)
    assert "/token" in provider.asked


def _lied(lie: Claims, claims: Claims) -> Claims:
    return {name: value for name, value in {**claims, **lie}.items() if value is not None}


def _by_a_stranger(head: Claims, token: str, claims: Claims) -> str:
    """Signed by a key that is not the provider's; with its key's name where ``head`` asks for it."""
    told = json.loads(base64.urlsafe_b64decode(token.partition(".")[0] + "=="))
    return jwt.encode(
        {"alg": "RS256", **{name: told.get(name) or value for name, value in head.items()}}, claims, OTHER
    )


def _by_the_clients_secret(_: str, claims: Claims) -> str:
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(CLIENT_SECRET.ljust(32)))


def _unsigned(token: str, _: Claims) -> str:
    head = base64.urlsafe_b64encode(json.dumps({"alg": "none"}).encode()).rstrip(b"=").decode()
    return f"{head}.{token.split('.')[1]}."


def _changed(token: str, _: Claims) -> str:
    head, body, signature = token.split(".")
    return f"{head}.{body[:-8]}AAAAAAAA.{signature}"


FORGERIES = (
    _unsigned,
    _changed,
    _by_the_clients_secret,
    partial(_by_a_stranger, {}),
    partial(_by_a_stranger, {"kid": ""}),
    partial(_by_a_stranger, {"jwk": OTHER.as_dict(private=False)}),
    lambda _token, _claims: "",
    lambda _token, _claims: "a.b.c.d",
    lambda _token, _claims: "\N{SNOWMAN}",
)


async def test_a_forged_token_is_refused(browser: httpx.AsyncClient, provider: OpenIdProvider) -> None:
    for forgery in FORGERIES:
        provider.forge = forgery
        refused(await sign_in(browser), 403, "ID token")


async def test_a_code_is_good_once(
    gateway_factory: GatewayFactory,
    fresh_nats: NatsServer,
    gateway: Running,
    browser: httpx.AsyncClient,
    provider: OpenIdProvider,
) -> None:
    back = await begun(browser)
    kept = browser.cookies.get("backhaul-console-sign-in")
    assert kept
    assert (await came_back(browser, back)).status_code == 303
    # The browser has forgotten the sign-in; whoever has kept its cookie has the provider asked no more.
    refused(await came_back(browser, back), 400, "not begun in this browser")
    replay = {**SAME, "cookie": f"backhaul-console-sign-in={kept}"}
    refused(await browser.get(back, headers=replay), 400, "not begun in this browser")
    assert provider.asked.count("/token") == 1
    # Another copy of the gateway asks, and has an old code.
    keys = gateway.settings.secret_keys.get_secret_value()
    async with (
        gateway_factory(fresh_nats.uri, secret_keys=keys, **provider.settings) as other,
        httpx.AsyncClient(base_url=other.url, timeout=20) as elsewhere,
    ):
        refused(await elsewhere.get(back.replace(gateway.url, other.url), headers=replay), 403, "invalid_grant")


async def test_nobody_is_signed_in_by_what_another_browser_began(
    gateway: Running, browser: httpx.AsyncClient, provider: OpenIdProvider
) -> None:
    """Whoever has another follow a link with a code of their own would have them work under a foreign name."""
    back = await begun(browser)
    async with httpx.AsyncClient(base_url=gateway.url, timeout=20) as other:
        refused(await came_back(other, back), 400, "not begun in this browser")
        await begun(other)
        refused(await came_back(other, back), 400, "not begun in this browser")
    assert "/token" not in provider.asked
    # Nor does another site's page begin one.
    away = await browser.get("/console/sign-in/openid", headers=CROSS)
    assert away.headers["location"] == "/console/sign-in"


async def test_a_cookie_that_was_made_elsewhere_opens_nothing(gateway: Running) -> None:
    for cookie in ("", "x", "gAAAAA", "\N{SNOWMAN}", "a" * 4000):
        raw = f"backhaul-console-sign-in={cookie}".encode()
        headers: list[tuple[bytes, bytes]] = [(b"cookie", raw), (b"sec-fetch-site", b"same-origin")]
        answer = await gateway.client.get("/console/sign-in/callback?code=x&state=", headers=headers)
        refused(answer, 400, "not begun in this browser")


async def test_who_takes_too_long_begins_again(browser: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    back = await begun(browser)
    monkeypatch.setattr(vouching, "LASTS_S", -1)
    refused(await browser.get(back, headers=SAME), 400, "more than ten minutes ago")


async def test_what_the_provider_refuses_is_said(browser: httpx.AsyncClient) -> None:
    for error, said in (("access_denied", "access_denied"), ("<script>1</script>", "says no.")):
        back = httpx.URL(await begun(browser))
        asked = back.copy_remove_param("code").copy_merge_params({"error": error, "error_description": "<b>"})
        answer = await came_back(browser, str(asked))
        refused(answer, 403, said)
        assert "<script>1" not in answer.text


async def test_another_provider_cannot_answer_in_its_place(browser: httpx.AsyncClient) -> None:
    back = httpx.URL(await begun(browser)).copy_add_param("iss", "https://evil.example")
    refused(await came_back(browser, str(back)), 403, "another provider")


async def test_a_provider_that_is_away_is_told_in_words(
    browser: httpx.AsyncClient, provider: OpenIdProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openid, "_TIMEOUT_S", 0.2)
    provider.deaf = True
    refused(await browser.get("/console/sign-in/openid", headers=SAME), 503, "it does not answer")
    provider.deaf = False
    # For a moment it is not asked again.
    refused(await browser.get("/console/sign-in/openid", headers=SAME), 503, "it does not answer")
    assert len(provider.asked) == 1
    monkeypatch.setattr(openid, "_AWAY_S", -1.0)
    monkeypatch.setattr(openid, "_TIMEOUT_S", 20)
    back = await begun(browser)
    monkeypatch.setattr(openid, "_TIMEOUT_S", 0.2)
    provider.deaf = True
    refused(await came_back(browser, back), 503, "it does not answer")


async def test_many_who_come_at_once_have_it_asked_once(
    browser: httpx.AsyncClient, provider: OpenIdProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openid, "_TIMEOUT_S", 0.5)
    provider.deaf = True
    many = await asyncio.gather(*(browser.get("/console/sign-in/openid", headers=SAME) for _ in range(30)))
    for answer in many:
        refused(answer, 503, "it does not answer")
    assert len(provider.asked) == 1


async def test_a_stranger_has_few_questions_asked_at_a_time(
    gateway: Running, browser: httpx.AsyncClient, provider: OpenIdProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openid, "_TIMEOUT_S", 60)
    strangers = [httpx.AsyncClient(base_url=gateway.url, timeout=60) for _ in range(openid._AT_ONCE)]
    backs = [await begun(stranger) for stranger in strangers]
    back = await begun(browser)
    provider.deaf = True
    waiting_ = [
        asyncio.create_task(stranger.get(back, headers=SAME)) for stranger, back in zip(strangers, backs, strict=True)
    ]
    try:

        async def asked() -> bool:
            return provider.asked.count("/token") == openid._AT_ONCE

        await waiting.until("as many questions as there may be", asked)
        refused(await browser.get(back, headers=SAME), 503, "too many sign in at once")
        assert await asked()
    finally:
        for task in waiting_:
            task.cancel()
        await asyncio.wait(waiting_)
        # It lets go of whoever waits, so that the gateway can stop.
        provider.endpoint.ended.set()
        for stranger in strangers:
            await stranger.aclose()


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"issuer": "https://evil.example"}, "another issuer"),
        ({"token_endpoint": None}, "token_endpoint"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "authorization_endpoint"),
        ({"x": "a" * (1 << 20)}, "more than is taken"),
    ],
)
async def test_a_provider_that_tells_nonsense_of_itself_is_not_asked(
    browser: httpx.AsyncClient, provider: OpenIdProvider, told: Claims, words: str
) -> None:
    provider.told = told
    refused(await browser.get("/console/sign-in/openid", headers=SAME), 503, words)


async def test_a_person_keeps_the_tenants_that_were_open(gateway: Running, browser: httpx.AsyncClient) -> None:
    acme = await gateway.tenant("acme")
    await browser.post("/console/sign-in", data={"credential": acme.api_key}, headers=SAME)
    before = browser.cookies["backhaul-console"]
    assert (await sign_in(browser)).status_code == 303
    assert browser.cookies["backhaul-console"] != before, "a session that was there before could be another's"
    page = await browser.get("/console/t/acme")
    assert page.status_code == 200
    assert (await browser.get("/console/admin")).status_code == 200
    assert (await gateway.client.get("/console/admin", headers={"cookie": f"backhaul-console={before}"})).is_redirect


async def test_admin_tokens_can_be_kept_out(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, provider: OpenIdProvider
) -> None:
    settings = {**provider.settings, "gateway_console_admin_tokens": False}
    async with (
        gateway_factory(fresh_nats.uri, **settings) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=20) as browser,
    ):
        acme = await gateway.tenant("acme")
        form = await browser.get("/console/sign-in")
        assert "admin token" not in form.text
        by_token = await browser.post("/console/sign-in", data={"credential": ADMIN_TOKEN}, headers=SAME)
        refused(by_token, 422, "Admin tokens are not taken here")
        assert (await sign_in(browser)).status_code == 303
        by_key = await browser.post("/console/sign-in", data={"credential": acme.api_key}, headers=SAME)
        assert by_key.status_code == 303
        who = await AsyncAdminClient(gateway.url, ADMIN_TOKEN, http=gateway.client).whoami()
        assert who.role == "operator"


async def test_without_a_provider_there_is_no_such_way(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> None:
    async with gateway_factory(fresh_nats.uri) as gateway:
        assert "openid" not in (await gateway.client.get("/console/sign-in")).text
        for path in ("openid", "callback?code=x&state=y"):
            assert (await gateway.client.get(f"/console/sign-in/{path}")).status_code == 404


@pytest.mark.browser
async def test_a_browser_comes_back_from_another_site(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, provider: OpenIdProvider
) -> None:
    """It keeps the session's cookie back there, and the tenants that are open with it, until its own page asks."""
    from playwright.async_api import async_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium here (Debian: apt install chromium)")
    provider.host = "localhost"
    async with (
        gateway_factory(fresh_nats.uri, **provider.settings) as gateway,
        async_playwright() as playwright,
        await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"]) as browser,
    ):
        acme = await gateway.tenant("acme")
        page = await browser.new_page()
        wrong: list[str] = []
        page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        await page.goto(f"{gateway.url}/console/sign-in")
        await page.get_by_label("API key").fill(acme.api_key)
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_role("heading", name="acme").wait_for()
        await page.goto(f"{gateway.url}/console/sign-in?to=/console/admin")
        await page.get_by_role("link", name="Sign in at localhost").click()
        await page.get_by_text("oidc:1 (operator)").wait_for()
        assert page.url == f"{gateway.url}/console/admin"
        assert await page.get_by_role("link", name="acme").count()
        # Whoever comes by a link of another site is still signed in.
        await page.goto(provider.issuer + "/link?" + urlencode({"to": f"{gateway.url}/console/t/acme"}))
        await page.get_by_role("link", name="Go").click()
        await page.get_by_role("heading", name="acme").wait_for()
        assert not wrong


ISSUER = "https://accounts.example.com"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"gateway_console_oidc_issuer": ISSUER}, "_OIDC_CLIENT_ID"),
        ({"gateway_console_oidc_issuer": "http://accounts.example.com"}, "must be like https://"),
        ({"gateway_console_oidc_issuer": "https://a:b@accounts.example.com"}, "must be like https://"),
        ({"gateway_console_base_url": "ftp://x"}, "must be like https://"),
        ({"gateway_console_oidc_roles": "x=king"}, "roles are operator, support, auditor"),
        ({"gateway_console_oidc_roles": "=operator"}, "part 1 must be"),
        ({"gateway_console_oidc_scopes": "email"}, "openid"),
        ({"gateway_console_admin_tokens": "false"}, "BACKHAUL_GATEWAY_CONSOLE_OIDC_ISSUER"),
    ],
)
def test_settings_that_do_not_fit_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        settings(**given)


def test_a_group_may_have_an_equals_sign() -> None:
    roles = settings(gateway_console_oidc_roles="cn=ops=operator, help desk=support").gateway_console_oidc_roles
    assert roles == {"cn=ops": "operator", "help desk": "support"}


def settings(**given: Any) -> GatewaySettings:
    needed: dict[str, Any] = {"gateway_admin_token": ADMIN_TOKEN, "secret_keys": Fernet.generate_key().decode()}
    return GatewaySettings(**{**needed, **given})
