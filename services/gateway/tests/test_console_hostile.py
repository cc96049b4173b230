"""What the console does with what no browser sends, and where it is reached in other ways than usual."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from backhaul_local.ports import Hold
from backhaul_testing.proxy import SilentProxy
from gateway_rig import ADMIN_TOKEN, GatewayFactory, Running

if TYPE_CHECKING:
    from backhaul_local.mongod import MongoServer
    from backhaul_local.nats_server import NatsServer
    from backhaul_testing.authority import Authority

SAME = {"sec-fetch-site": "same-origin"}
FORM = {**SAME, "content-type": "application/x-www-form-urlencoded"}
MULTIPART = {**SAME, "content-type": "multipart/form-data; boundary=x"}
PART = b'--x\r\nContent-Disposition: form-data; name="credential"\r\n\r\n'


@pytest.fixture
def free_port() -> Iterator[int]:
    with Hold() as hold:
        yield hold.choose(1)[0]


async def sign_in(browser: httpx.AsyncClient, credential: str = ADMIN_TOKEN) -> httpx.Response:
    answer = await browser.post("/console/sign-in", data={"credential": credential}, headers=SAME)
    assert answer.status_code == 303, answer.text
    return answer


SENT: dict[str, tuple[dict[str, str], bytes]] = {
    "many fields": (FORM, b"&".join(b"a%d=1" % number for number in range(10_000))),
    "one field, often": (FORM, b"credential=x&" * 10_000),
    "bad UTF-8": (FORM, b"credential=\xff\xfe%ff%fe"),
    "a zero": (FORM, b"credential=%00&to=%00"),
    "half a surrogate": (FORM, b"credential=%ed%a0%80&to=/console/%ed%a0%80"),
    "a token of no letters": (FORM, "form_token=\N{SNOWMAN}".encode()),
    "no form": ({**SAME, "content-type": "application/json"}, b"{"),
    "no type": (SAME, b"credential=x"),
    "a broken type": ({**SAME, "content-type": 'multipart/form-data; boundary="'}, b"x"),
    "no boundary": ({**SAME, "content-type": "multipart/form-data"}, b"x"),
    "no parts": (MULTIPART, b"nothing"),
    "a part without an end": (MULTIPART, PART + b"x"),
    "a part without a name": (MULTIPART, b"--x\r\nContent-Disposition: form-data\r\n\r\nx\r\n--x--\r\n"),
    "parts in thousands": (MULTIPART, (PART + b"x\r\n") * 3000 + b"--x--\r\n"),
    "a file in place of a field": (
        MULTIPART,
        b'--x\r\nContent-Disposition: form-data; name="credential"; filename="a"\r\n\r\nx\r\n--x--\r\n',
    ),
    "more than is taken": (FORM, b"credential=" + b"x" * 300_000),
}


async def test_what_is_no_form_is_refused_in_words(gateway: Running) -> None:
    for name, (headers, body) in SENT.items():
        for path in ("/console/sign-in", "/console/sign-out"):
            answer = await gateway.client.post(path, content=body, headers=headers)
            # Who is not signed in is signed out, whatever they send.
            assert answer.status_code in ((303, 400, 413) if "out" in path else (400, 401, 413, 422)), (name, path)
            assert answer.status_code == 303 or answer.headers["content-type"].startswith("text/html"), name
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"], name
    assert (await gateway.client.get("/console/sign-in")).status_code == 200


async def test_a_form_of_somebody_who_is_signed_in_may_be_broken_too(gateway: Running) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=20) as browser:
        await sign_in(browser)
        for name, (headers, body) in SENT.items():
            answer = await browser.post("/console/sign-out", content=body, headers=headers)
            assert answer.status_code in (303, 400, 413), name
            assert (await browser.get("/console/admin")).status_code == 200, name


COOKIES = ("", "x", "=", ";;;", "a" * 6000, '"', "\N{SNOWMAN}", "%00", "x; backhaul-console=y", "x" * 43)
ADDRESSES = ("/t/%00", "/t/%ff%fe", "/t/%ed%a0%80", "/t/..%2f..%2fadmin", "/t/a/nothing", "/T/a", "/nothing", "//admin")


async def test_cookies_and_addresses_that_nobody_made_open_nothing(gateway: Running) -> None:
    for cookie in COOKIES:
        raw: list[tuple[bytes, bytes]] = [(b"cookie", b"backhaul-console=" + cookie.encode())]
        for path in ("/console", "/console/admin", "/console/t/acme"):
            answer = await gateway.client.get(path, headers=raw)
            assert answer.status_code in (303, 413), cookie[:10]
        out = await gateway.client.post("/console/sign-out", headers=[*raw, (b"sec-fetch-site", b"same-origin")])
        assert out.status_code in (303, 413), cookie[:10]
    async with httpx.AsyncClient(base_url=gateway.url, timeout=20) as browser:
        await sign_in(browser)
        for path in ADDRESSES:
            answer = await browser.get(f"/console{path}")
            assert answer.status_code in (303, 404), path
        long = await browser.get("/console/admin", params={"q": "x" * 9000})
        assert long.status_code == 413
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
            assert (await browser.request(method, "/console/admin")).status_code == 404
        head = await browser.head("/console/admin")
        assert (head.status_code, head.content) == (200, b"")


async def test_a_cookie_that_somebody_else_has_set_is_not_the_one_that_a_sign_in_gives(gateway: Running) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=20) as browser:
        planted = {"cookie": "backhaul-console=planted-by-somebody-else-0123456789abcdef"}
        answer = await browser.post("/console/sign-in", data={"credential": ADMIN_TOKEN}, headers={**SAME, **planted})
        given = answer.cookies["backhaul-console"]
        assert "planted" not in given
        again = await sign_in(browser)
        assert again.cookies["backhaul-console"] != given
        # A sign-in moves the session: what was known of it before opens nothing.
        assert (await gateway.client.get("/console/admin", headers={"cookie": f"backhaul-console={given}"})).is_redirect


async def test_over_tls_the_cookie_is_the_hosts_own(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, authority: Authority
) -> None:
    files = authority.issue("gateway")
    given: dict[str, Any] = {
        "gateway_tls_cert_file": files.cert,
        "gateway_tls_key_file": files.key,
        "gateway_https_port": 0,
        "gateway_trusted_proxies": "127.0.0.2/32",
    }
    trusting = ssl.create_default_context(cafile=str(authority.file))
    async with gateway_factory(fresh_nats.uri, **given) as gateway:
        base = f"https://127.0.0.1:{gateway.listeners.https_port}"
        async with httpx.AsyncClient(base_url=base, verify=trusting, timeout=20) as browser:
            cookie = (await sign_in(browser)).headers["set-cookie"]
            assert cookie.startswith("__Host-backhaul-console=")
            assert "; Secure" in cookie
            assert "Path=/;" in cookie
            assert "Domain" not in cookie
            assert (await browser.get("/console/admin")).status_code == 200
            name, _, token = cookie.partition(";")[0].partition("=")
        # In the clear there is no such cookie, and one of the other name is another session's.
        plain = {"cookie": f"{name}={token}"}
        assert (await gateway.client.get("/console/admin", headers=plain)).is_redirect
        # Whoever is no trusted proxy may say what they like of how they were called.
        for headers, transport in (
            ({"x-forwarded-proto": "https"}, None),
            ({"x-forwarded-proto": "https"}, httpx.AsyncHTTPTransport(local_address="127.0.0.2")),
        ):
            async with httpx.AsyncClient(base_url=gateway.url, transport=transport, timeout=20) as browser:
                answer = await browser.post(
                    "/console/sign-in", data={"credential": ADMIN_TOKEN}, headers={**SAME, **headers}
                )
                assert answer.headers["set-cookie"].startswith("__Host-") == (transport is not None)


async def test_the_platform_teams_pages_work_on_their_own_port_alone(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, free_port: int
) -> None:
    async with gateway_factory(fresh_nats.uri, gateway_admin_port=free_port) as gateway:
        apart = f"http://127.0.0.1:{free_port}"
        key = await gateway.client.post("/console/sign-in", data={"credential": ADMIN_TOKEN}, headers=SAME)
        assert key.status_code == 404
        assert "set-cookie" not in key.headers
        async with httpx.AsyncClient(base_url=apart, timeout=20) as browser:
            await sign_in(browser)
            page = await browser.get("/console/admin")
            assert page.status_code == 200, page.text
            # The same cookie, on the port that the world reaches: the API is not there.
            elsewhere = await gateway.client.get(
                "/console/admin", headers={"cookie": f"backhaul-console={browser.cookies['backhaul-console']}"}
            )
            assert elsewhere.status_code == 404
            assert "Tenants" not in re.sub(r"<nav.*?</nav>", "", elsewhere.text, flags=re.DOTALL)


async def test_a_session_is_open_at_each_copy(
    gateway: Running, gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=20) as browser:
        await sign_in(browser)
        cookie = {"cookie": f"backhaul-console={browser.cookies['backhaul-console']}"}
        keys = gateway.settings.secret_keys.get_secret_value()
        async with gateway_factory(fresh_nats.uri, secret_keys=keys) as other:
            assert (await other.client.get("/console/admin", headers=cookie)).status_code == 200
            page = await other.client.get("/console/admin", headers=cookie)
            token = re.search(r'name="form_token" value="(\w+)"', page.text)
            assert token
            out = await other.client.post(
                "/console/sign-out", data={"form_token": token[1]}, headers={**SAME, **cookie}
            )
            assert out.status_code == 303
        assert (await browser.get("/console/admin")).is_redirect


async def test_while_the_database_hangs_a_page_says_so_and_callbacks_are_taken(
    gateway_factory: GatewayFactory,
    fresh_nats: NatsServer,
    mongo_server: MongoServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("backhaul_gateway.console.store.ANSWERS_S", 1.0)
    async with (
        SilentProxy(mongo_server.port) as proxy,
        gateway_factory(
            fresh_nats.uri, mongo_uri=f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true"
        ) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=60) as browser,
    ):
        acme = await gateway.tenant("acme")
        await gateway.channel("acme")
        await sign_in(browser, acme.api_key)
        proxy.go_silent()
        try:
            page, callback, form = await asyncio.gather(
                browser.get("/console/t/acme"),
                gateway.post(acme),
                browser.post("/console/sign-in", data={"credential": acme.api_key}, headers=SAME),
            )
        finally:
            proxy.speak()
        assert callback.status_code == 200
        assert page.status_code == form.status_code == 503
        assert "database does not answer" in page.text
        assert "database does not answer" in form.text
        async with asyncio.timeout(60):
            while (await browser.get("/console/t/acme")).status_code != 200:  # seen from outside
                await asyncio.sleep(0.05)
