"""Signing in to the console, and what its sessions hold. What its pages show is tried in tests/console."""

from __future__ import annotations

import html
import json
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from backhaul_client import AsyncAdminClient, AsyncTenantClient
from gateway_rig import ADMIN_TOKEN, GatewayFactory, Running

if TYPE_CHECKING:
    from backhaul_local.nats_server import NatsServer

SAME = {"sec-fetch-site": "same-origin"}


@pytest.fixture
async def browser(gateway: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with browser_of(gateway) as client:
        yield client


def browser_of(gateway: Running) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=gateway.url, timeout=20)


async def sign_in(browser: httpx.AsyncClient, credential: str, **more: str) -> httpx.Response:
    return await browser.post("/console/sign-in", data={"credential": credential, **more}, headers=SAME)


def cookie_of(browser: httpx.AsyncClient) -> str:
    return "; ".join(f"{name}={value}" for name, value in browser.cookies.items())


def form_token(page: httpx.Response) -> str:
    found = re.search(r'name="form_token" value="([0-9a-f]{64})"', page.text)
    assert found, page.text
    return found[1]


def sessions(gateway: Running) -> list[dict[str, Any]]:
    return list(gateway.mongo[gateway.settings.mongo_database]["console_sessions"].find())


async def test_a_tenants_key_opens_its_own_pages_and_no_others(gateway: Running, browser: httpx.AsyncClient) -> None:
    acme, other = await gateway.tenant("acme"), await gateway.tenant("other")
    asked = await browser.get("/console/t/acme?x=1")
    assert asked.status_code == 303
    assert asked.headers["location"] == "/console/sign-in?to=%2Fconsole%2Ft%2Facme%3Fx%3D1&tenant=acme"

    begun = await sign_in(browser, acme.api_key, to="/console/t/acme?x=1")
    assert (begun.status_code, begun.headers["location"]) == (303, "/console/t/acme?x=1")
    cookie = begun.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    page = await browser.get("/console/t/acme")
    assert page.status_code == 200, page.text
    assert "<h1>acme</h1>" in page.text
    # The normalizer, which counts events, is away: all else is told.
    assert "Not told now." in page.text
    assert page.headers["content-security-policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    for closed in ("/console/t/other", "/console/admin"):
        refused = await browser.get(closed)
        assert refused.status_code == 303, closed
        assert refused.headers["location"].startswith("/console/sign-in?")

    # Whoever reads the database learns no key of it.
    stored = repr(sessions(gateway))
    assert acme.api_key not in stored
    assert other.api_key not in stored


async def test_what_enforcing_would_refuse_is_not_told_while_events_are_not_answered(
    gateway: Running, browser: httpx.AsyncClient
) -> None:
    acme = await gateway.tenant("acme")
    await gateway.channel()
    await sign_in(browser, acme.api_key)
    # The normalizer, which has the events, is away.
    page = await browser.get("/console/t/acme/channels/Twilio/verification?to=enforce")
    assert page.status_code == 200, page.text
    assert "cannot be told now" in page.text
    assert "Nothing has come yet" not in page.text
    assert "Latest events looked at" not in page.text


async def test_an_admin_token_opens_the_platforms_pages(gateway: Running, browser: httpx.AsyncClient) -> None:
    await gateway.tenant("acme")
    begun = await sign_in(browser, ADMIN_TOKEN)
    assert begun.headers["location"] == "/console/admin"
    page = await browser.get("/console/admin")
    assert page.status_code == 200, page.text
    assert "acme" in page.text
    assert "(operator)" in page.text


@pytest.mark.parametrize("credential", ["", "wrong", "bhk_000000000000_" + "0" * 48, "two words", "naïve", "bhk_\x00"])
async def test_a_wrong_credential_is_refused_in_words(
    gateway: Running, browser: httpx.AsyncClient, credential: str
) -> None:
    refused = await sign_in(browser, credential)
    assert refused.status_code in (401, 422), refused.text
    assert 'role="alert"' in refused.text
    assert "set-cookie" not in refused.headers
    assert not sessions(gateway)


async def test_a_key_that_does_not_read_opens_nothing(gateway: Running, browser: httpx.AsyncClient) -> None:
    acme = await gateway.tenant("acme")
    ingest = await AsyncTenantClient(gateway.url, acme.api_key, http=gateway.client).add_key(scopes=["ingest"])
    refused = await sign_in(browser, ingest.key)
    assert refused.status_code == 422
    assert "lacks the scope read" in refused.text


async def test_a_key_that_is_revoked_opens_no_page_from_then_on(gateway: Running, browser: httpx.AsyncClient) -> None:
    acme = await gateway.tenant("acme")
    client = AsyncTenantClient(gateway.url, acme.api_key, http=gateway.client)
    key = await client.add_key(scopes=["read"])
    await sign_in(browser, key.key)
    assert (await browser.get("/console/t/acme")).status_code == 200
    await client.delete_key(key.id)
    refused = await browser.get("/console/t/acme")
    assert refused.status_code == 401
    assert "no longer opens this" in refused.text


async def test_signing_out_ends_the_session_wherever_its_cookie_is(
    gateway: Running, browser: httpx.AsyncClient
) -> None:
    acme = await gateway.tenant("acme")
    await sign_in(browser, acme.api_key)
    stolen = cookie_of(browser)
    page = await browser.get("/console/t/acme")

    # Another site's form does nothing, and neither does one without the session's token.
    for headers, token in (({"sec-fetch-site": "cross-site"}, form_token(page)), (SAME, "0" * 64), (SAME, "")):
        await browser.post("/console/sign-out", data={"form_token": token}, headers=headers)
        assert (await browser.get("/console/t/acme")).status_code == 200

    out = await browser.post("/console/sign-out", data={"form_token": form_token(page)}, headers=SAME)
    assert out.status_code == 303
    assert not sessions(gateway)
    assert (await gateway.client.get("/console/t/acme", headers={"cookie": stolen})).status_code == 303


async def test_what_is_shown_once_is_kept_nowhere(gateway: Running, browser: httpx.AsyncClient) -> None:
    acme = await gateway.tenant("acme")
    await sign_in(browser, acme.api_key)
    page = await browser.get("/console/t/acme/keys")
    form = {"form_token": form_token(page), "kind": "api", "scopes": "read"}
    made = await browser.post("/console/t/acme/keys", data=form, headers=SAME)
    found = re.findall(r"<code>(bhk_[0-9a-f_]+)</code>", made.text)
    assert (made.status_code, len(found)) == (200, 1), made.text
    # Neither browsers nor what stands between keep it, and no page has it again.
    assert made.headers["cache-control"] == "no-store"
    assert found[0] not in (await browser.get("/console/t/acme/keys")).text
    assert found[0] not in repr(sessions(gateway))
    assert (await AsyncTenantClient(gateway.url, found[0], http=gateway.client).whoami()).scopes == ("read",)

    # Another site's form makes none.
    keys = len(await AsyncTenantClient(gateway.url, acme.api_key, http=gateway.client).keys())
    for headers, token in (({"sec-fetch-site": "cross-site"}, form_token(page)), (SAME, "0" * 64)):
        foreign = await browser.post("/console/t/acme/keys", data={**form, "form_token": token}, headers=headers)
        assert foreign.status_code == 403
    assert len(await AsyncTenantClient(gateway.url, acme.api_key, http=gateway.client).keys()) == keys


async def test_a_link_from_elsewhere_finds_the_session(gateway: Running, browser: httpx.AsyncClient) -> None:
    """Browsers keep a strict cookie back there, so the page asks once more by itself."""
    again = await browser.get("/console/t/acme", headers={"sec-fetch-site": "cross-site"})
    assert again.status_code == 200
    assert "http-equiv=refresh" in again.text


async def test_nobody_is_led_elsewhere_by_a_sign_in(gateway: Running, browser: httpx.AsyncClient) -> None:
    acme = await gateway.tenant("acme")
    for to in (
        "https://evil.example/",
        "//evil.example",
        "/console/\\evil.example",
        "/console@evil.example",
        "/api/test",
    ):
        begun = await sign_in(browser, acme.api_key, to=to)
        assert begun.headers["location"] == "/console/t/acme", to


async def test_a_session_moves_to_another_cookie_and_ends_by_itself(
    gateway: Running, browser: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme = await gateway.tenant("acme")
    await sign_in(browser, acme.api_key)
    (stored,) = sessions(gateway)
    collection = gateway.mongo[gateway.settings.mongo_database]["console_sessions"]

    old = stored["made_at"].replace(year=stored["made_at"].year - 1)
    collection.update_one({"_id": stored["_id"]}, {"$set": {"made_at": old}})
    before = cookie_of(browser)
    page = await browser.get("/console/t/acme")
    assert page.status_code == 200
    assert "set-cookie" in page.headers
    assert cookie_of(browser) != before
    # What was under way with the cookie before is still answered, and for a moment only.
    assert (await gateway.client.get("/console/t/acme", headers={"cookie": before})).status_code == 200
    assert sorted(one["_id"] == stored["_id"] for one in sessions(gateway)) == [False, True]

    collection.update_many({}, {"$set": {"expires_at": old}})
    assert (await browser.get("/console/t/acme")).status_code == 303


async def test_what_the_console_asks_comes_from_its_visitor(gateway: Running, browser: httpx.AsyncClient) -> None:
    """The edge sees the visitor's own address, so that wrong credentials count as theirs, and changes name it."""
    platform = AsyncAdminClient(gateway.url, ADMIN_TOKEN, http=gateway.client)
    await gateway.tenant("acme")
    await sign_in(browser, ADMIN_TOKEN)
    assert (await browser.get("/console/admin")).status_code == 200
    assert [change.client async for change in platform.changes()] == ["127.0.0.1"]


async def test_without_a_database_a_page_says_so(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway_factory(fresh_nats.uri) as gateway, browser_of(gateway) as browser:
        acme = await gateway.tenant("acme")
        await sign_in(browser, acme.api_key)
        monkeypatch.setattr("backhaul_gateway.console.store.ANSWERS_S", 0.0001)
        away = await browser.get("/console/t/acme")
        assert away.status_code == 503
        assert "database does not answer" in away.text


async def test_it_can_be_left_out(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> None:
    async with gateway_factory(fresh_nats.uri, gateway_console=False) as gateway:
        assert (await gateway.client.get("/console/sign-in")).status_code == 404


async def test_static_files_are_kept_by_their_content(gateway: Running) -> None:
    page = await gateway.client.get("/console/sign-in")
    (path,) = re.findall(r'href="(/console/static/[0-9a-f]{16}/console\.css)"', page.text)
    style = await gateway.client.get(path)
    assert style.headers["content-type"].startswith("text/css")
    assert style.headers["cache-control"] == "public, max-age=31536000, immutable"
    outdated = await gateway.client.get("/console/static/0000000000000000/console.css")
    assert outdated.headers["cache-control"] == "no-store"
    for name in ("app.py", "..%2Fapp.py", "nothing.css", "%2Fetc%2Fpasswd"):
        assert (await gateway.client.get(f"/console/static/0000000000000000/{name}")).status_code == 404, name


async def test_a_form_that_nobody_can_take_now_comes_back_as_it_was_typed(
    gateway: Running, browser: httpx.AsyncClient
) -> None:
    acme = await gateway.tenant("acme")
    await sign_in(browser, acme.api_key)
    token = form_token(await browser.get("/console/t/acme/suppressions/add"))
    typed = {"address": "+14155550123", "kind": "manual", "note": "He said so <at> noon.", "key": "k" * 32}
    answer = await browser.post("/console/t/acme/suppressions/add", data={**typed, "form_token": token}, headers=SAME)
    assert answer.status_code == 503, answer.text
    assert 'role="alert"' in answer.text
    for shown in ('value="+14155550123"', "He said so &lt;at&gt; noon.", f'value="{"k" * 32}"'):
        assert shown in answer.text, shown


async def test_a_page_of_large_changes_stays_small_and_leads_to_the_whole(
    gateway: Running, browser: httpx.AsyncClient
) -> None:
    acme = await gateway.tenant("acme")
    client = AsyncTenantClient(gateway.url, acme.api_key, http=gateway.client)
    await client.put_channel("Twilio", verification="observe")
    # As many as a page has, of the size that the log keeps of each side.
    log = gateway.mongo[gateway.settings.mongo_database]["changes"]
    large = {"settings": {f"name_{number}": "<'quoted'>" for number in range(300)}}
    latest = log.find_one(sort=[("_id", -1)])
    assert latest is not None
    for _ in range(25):
        latest["_id"] = f"{int(latest['_id'], 16) + 1:0{len(latest['_id'])}x}"
        log.insert_one({**latest, "after": json.dumps(large), "before": "{}"})
    await sign_in(browser, acme.api_key)
    page = await browser.get("/console/t/acme/changes")
    assert page.status_code == 200, page.text
    assert page.text.count("<section") == 25
    assert page.text.count("more fields are not shown") == 25
    assert len(page.content) < 100_000
    links = re.findall(r'href="([^"]*/changes/whole[^"]*)"', page.text)
    assert len(links) == 25
    whole = (await browser.get(html.unescape(links[0]))).json()
    assert whole["id"] == latest["_id"]
    assert whole["after"] == large
    assert (await browser.get("/console/t/acme/changes/whole?id=nobodys&at=2h")).status_code == 404
