"""HTTPS of the gateway itself: what is served by it, what is sent to it, and what stays in the clear."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from backhaul_client import AsyncAdminClient
from backhaul_gateway.admission.access import ROUTES
from backhaul_gateway.settings import GatewaySettings
from backhaul_local.nats_server import NatsServer
from backhaul_local.ports import Hold
from backhaul_testing.authority import Authority
from backhaul_testing.wire import read_answer
from gateway_rig import ADMIN_TOKEN, FORM, TWILIO_TOKEN, GatewayFactory, Running
from pydantic import ValidationError
from structlog.testing import capture_logs

PATH = "/api/postevents?channelLabel=Twilio"
PUBLIC = "https://callbacks.example.com"
YEAR_S = 31_536_000


@pytest.fixture
def trusting(authority: Authority) -> ssl.SSLContext:
    """What clients trust."""
    return ssl.create_default_context(cafile=str(authority.file))


Secured = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def secured(gateway_factory: GatewayFactory, fresh_nats: NatsServer, authority: Authority) -> Secured:
    """A gateway with a certificate; the keyword arguments are further settings."""

    @asynccontextmanager
    async def create(**settings: Any) -> AsyncIterator[Running]:
        files = authority.issue("gateway")
        given = {"gateway_tls_cert_file": files.cert, "gateway_tls_key_file": files.key, "gateway_https_port": 0}
        async with gateway_factory(fresh_nats.uri, **{**given, **settings}) as gateway:
            yield gateway

    return create


@pytest.fixture
def free_port() -> Iterator[int]:
    with Hold() as hold:
        yield hold.choose(1)[0]


def https(gateway: Running) -> str:
    return f"https://127.0.0.1:{gateway.listeners.https_port}"


async def post(client: httpx.AsyncClient, base: str, key: str, signed: str, **headers: str) -> int:
    """Twilio's callback to ``base``, signed over ``signed``."""
    answer = await client.post(
        base + PATH,
        content=urlencode(FORM),
        headers={
            "Content-Type": "application/x-www-form-urlencoded",
            "X-Twilio-Signature": Running.sign(signed + PATH, FORM),
            "X-Api-Key": key,
            **headers,
        },
    )
    return answer.status_code


async def test_a_signature_is_over_the_address_that_was_called(secured: Secured, trusting: ssl.SSLContext) -> None:
    async with secured() as gateway, httpx.AsyncClient(verify=trusting, timeout=60) as client:
        tenant = await gateway.tenant()
        answer = await gateway.channel()
        assert answer.json()["callback_url"].startswith(https(gateway) + "/in/")
        key, plain = tenant.api_key, gateway.url
        assert await post(client, https(gateway), key, https(gateway)) == 200
        # Twilio's products drop the port, or keep it.
        assert await post(client, https(gateway), key, "https://127.0.0.1") == 200
        assert await post(client, plain, key, plain) == 200
        assert await post(client, https(gateway), key, plain) == 403
        assert await post(client, plain, key, https(gateway)) == 403
        # What a client says of itself changes nothing.
        assert await post(client, plain, key, https(gateway), **{"X-Forwarded-Proto": "https"}) == 403
        urls = [callback.url for [callback] in await gateway.stored()]
        assert urls == [https(gateway) + PATH, https(gateway) + PATH, plain + PATH]


async def test_a_configured_address_is_what_is_signed_on_either_port(
    secured: Secured, trusting: ssl.SSLContext
) -> None:
    """As long as nothing says otherwise: a proxy that ends TLS may stand before the port without it."""
    async with (
        secured(gateway_public_base_url=PUBLIC) as gateway,
        httpx.AsyncClient(verify=trusting, timeout=60) as client,
    ):
        key = (await gateway.tenant()).api_key
        await gateway.channel()
        for base in (gateway.url, https(gateway)):
            assert await post(client, base, key, PUBLIC) == 200
            assert await post(client, base, key, base) == 403


@pytest.mark.parametrize(
    ("settings", "signed"),
    [
        ({"gateway_public_base_url": PUBLIC}, "http://callbacks.example.com"),
        ({"gateway_public_base_url": PUBLIC + ":8443/base"}, "http://callbacks.example.com/base"),
        (
            {"gateway_public_base_url": PUBLIC, "gateway_plain_base_url": "http://old.example.com:8080"},
            "http://old.example.com:8080",
        ),
    ],
)
async def test_a_providers_post_is_taken_in_the_clear_and_counted(
    secured: Secured, trusting: ssl.SSLContext, settings: dict[str, str], signed: str
) -> None:
    """It follows no redirection, and is lost where it is refused."""
    async with (
        secured(gateway_enable_https_redirection=True, gateway_trusted_proxies="127.0.0.0/8", **settings) as gateway,
        httpx.AsyncClient(verify=trusting, timeout=60) as client,
    ):
        platform = {"X-Forwarded-Proto": "https", **gateway.admin}
        gateway.client.headers["X-Forwarded-Proto"] = "https"
        tenant = await gateway.tenant()
        await gateway.channel()
        del gateway.client.headers["X-Forwarded-Proto"]
        key, public = tenant.api_key, settings["gateway_public_base_url"]
        assert await post(client, gateway.url, key, signed) == 200
        assert await post(client, gateway.url, key, public) == 403
        assert await post(client, https(gateway), key, public) == 200
        assert await post(client, gateway.url, key, public, **{"X-Forwarded-Proto": "https"}) == 200
        assert [callback.url for [callback] in await gateway.stored()] == [signed + PATH, public + PATH, public + PATH]
        # By the token in the path as well, access tokens too: the gateway looks at them, and does not send them away.
        for path, status in ((f"/in/{tenant.ingest_token}{PATH}", 403), ("/in/wrong/oauth/token", 401)):
            answer = await gateway.client.post(path, content=b"{}", headers={"Content-Type": "application/json"})
            assert answer.status_code == status, answer.text
        text = (await gateway.client.get("/metrics", headers=platform)).text
        series = [line for line in text.splitlines() if line.startswith("backhaul_gateway_callbacks_plain_total{")]
        assert sum(float(line.split()[-1]) for line in series) == 3, series
        assert all('tenant="acme"' in line and 'channel="twilio"' in line for line in series)


async def test_behind_a_proxy_that_is_not_trusted_callbacks_are_taken_and_the_log_names_the_setting(
    secured: Secured, trusting: ssl.SSLContext
) -> None:
    """All that comes through it was signed over the public address, and seems to come in the clear."""
    by_proxy, plain = {"X-Forwarded-Proto": "https"}, "http://callbacks.example.com"
    async with (
        secured(gateway_enable_https_redirection=True, gateway_public_base_url=PUBLIC) as gateway,
        httpx.AsyncClient(verify=trusting, timeout=60) as client,
    ):
        tenant = await AsyncAdminClient(https(gateway), ADMIN_TOKEN, http=client).create_tenant(
            "acme", name="Acme", queue_path="acme"
        )
        channel = f"{https(gateway)}/admin/v1/tenants/acme/channels/Twilio"
        answer = await client.put(channel, headers=gateway.admin, json={"secrets": [TWILIO_TOKEN]})
        assert answer.status_code == 201, answer.text
        with capture_logs() as lines:
            assert await post(client, gateway.url, tenant.api_key, PUBLIC, **by_proxy) == 200
            assert await post(client, gateway.url, tenant.api_key, plain, **by_proxy) == 403
            assert await post(client, gateway.url, tenant.api_key, plain) == 200
            assert await post(client, gateway.url, tenant.api_key, PUBLIC) == 403
            assert (await client.get(gateway.url + "/docs", headers=by_proxy)).status_code == 308
        assert [callback.url for [callback] in await gateway.stored()] == [PUBLIC + PATH, plain + PATH]
        # Once a minute, however many come.
        [line] = [line for line in lines if line["event"] == "proxy_not_trusted"]
        assert (line["log_level"], line["client"]) == ("warning", "127.0.0.1")
        assert "BACKHAUL_GATEWAY_TRUSTED_PROXIES" in line["error"]


REDIRECTED = [
    ("GET", "/v1/messages?limit=1", 308, PUBLIC + "/v1/messages?limit=1"),
    ("HEAD", "/v1/messages", 308, PUBLIC + "/v1/messages"),
    ("GET", "/docs", 308, PUBLIC + "/docs"),
    ("GET", "/api/test", 308, PUBLIC + "/api/test"),
    ("GET", "/admin/v1/tenants", 308, PUBLIC + "/admin/v1/tenants"),
    ("GET", "/nothing%2fhere?a=%20b", 308, PUBLIC + "/nothing%2fhere?a=%20b"),
    ("GET", "//evil.example/x", 308, PUBLIC + "//evil.example/x"),
    ("POST", "/v1/sends", 403, ""),
    ("PUT", "/v1/channels/x", 403, ""),
    ("DELETE", "/admin/v1/tenants/acme", 403, ""),
    ("PATCH", "/nothing", 403, ""),
    ("GET", "/healthz", 200, ""),
    ("GET", "/readyz", 200, ""),
    ("GET", "/metrics", 200, ""),
    # In any case, as on the platform team's own port: that nothing is there, the process says itself.
    ("GET", "/HealthZ", 404, ""),
    # A callback's address, though this is none.
    ("GET", "/api/postevents", 405, ""),
]


async def test_what_is_sent_to_https(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> None:
    """Behind a proxy that ends TLS as well, without a certificate of the gateway's own."""
    async with gateway_factory(
        fresh_nats.uri,
        gateway_public_base_url=PUBLIC,
        gateway_enable_https_redirection=True,
        gateway_trusted_proxies="127.0.0.2/32",
    ) as gateway:
        for method, path, status, location in REDIRECTED:
            # The second header is anybody's word: 127.0.0.1 is no proxy here.
            for headers in ({}, {"Host": "evil.example", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil"}):
                answer = await gateway.client.request(method, gateway.url + path, headers=headers)
                assert (answer.status_code, answer.headers.get("location", "")) == (status, location), path
                assert "strict-transport-security" not in answer.headers
                if status == 403:
                    problem = gateway.problem(answer, 403, "scheme")
                    assert PUBLIC in problem["errors"][0]["fix"]


async def test_what_is_no_path_leads_to_no_other_host(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> None:
    """Behind the public base URL it would be a part of the host's name."""
    async with gateway_factory(
        fresh_nats.uri,
        gateway_public_base_url=PUBLIC,
        gateway_enable_https_redirection=True,
        gateway_trusted_proxies="127.0.0.2/32",
    ) as gateway:
        for target in (b"*.evil.example", b"*", b"*@evil.example/", b"*:80@evil.example"):
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % target)
            async with asyncio.timeout(60):
                assert (await read_answer(reader)).status == 404, target
            writer.close()


async def test_who_came_by_https_to_a_trusted_proxy_stays(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    async with gateway_factory(
        fresh_nats.uri,
        gateway_public_base_url=PUBLIC,
        gateway_enable_https_redirection=True,
        gateway_trusted_proxies="127.0.0.0/8",
        gateway_hsts_max_age_s=YEAR_S,
    ) as gateway:
        for said, stays in (
            ([], False),
            (["http"], False),
            (["https"], True),
            (["HTTPS"], True),
            (["http, https"], True),
            # The nearest proxy's word is the last.
            (["https, http"], False),
            (["https", "http"], False),
            (["http", "https"], True),
        ):
            headers = [("X-Forwarded-Proto", word) for word in said]
            answer = await gateway.client.get("/api/test", headers=headers)
            assert answer.status_code == (200 if stays else 308), said
            assert answer.headers.get("strict-transport-security") == (f"max-age={YEAR_S}" if stays else None), said


@pytest.mark.parametrize("max_age_s", [0, YEAR_S])
async def test_only_answers_over_https_bind_browsers_to_it(
    secured: Secured, trusting: ssl.SSLContext, max_age_s: int
) -> None:
    async with (
        secured(gateway_hsts_max_age_s=max_age_s) as gateway,
        httpx.AsyncClient(verify=trusting, timeout=60) as client,
    ):
        key = (await gateway.tenant()).api_key
        for method, path, headers, status in (
            ("GET", "/api/test", {}, 200),
            ("GET", "/docs", {}, 200),
            ("GET", "/nothing", {}, 404),
            ("GET", "/v1/messages", {}, 401),
            ("GET", "/v1/keys", {"X-Api-Key": key}, 200),
            ("POST", PATH, {"X-Api-Key": key}, 404),
            ("POST", PATH, {}, 401),
        ):
            for base in (gateway.url, https(gateway)):
                answer = await client.request(method, base + path, headers=headers)
                assert answer.status_code == status
                wanted = [f"max-age={max_age_s}"] if max_age_s and base.startswith("https") else []
                assert answer.headers.get_list("strict-transport-security") == wanted, (base, path)


APART = ("/admin/", "/metrics", "/docs", "/openapi.json")
BOTH = ("/healthz", "/readyz")


async def test_each_route_is_on_one_port(secured: Secured, trusting: ssl.SSLContext, free_port: int) -> None:
    """With the platform team's token: what is not there is not there for them either."""
    async with (
        secured(gateway_admin_port=free_port) as gateway,
        httpx.AsyncClient(verify=trusting, timeout=60, headers=gateway.admin) as client,
    ):
        there = f"https://127.0.0.1:{free_port}"
        seen = 0
        for route in ROUTES:
            method, path = route.replace("{", "").replace("}", "").split()
            apart = path.startswith(APART)
            seen += path.startswith("/admin/")
            answers = {base: await client.request(method, base + path) for base in (gateway.url, https(gateway), there)}
            nothing = {base: "There is nothing at" in answer.text for base, answer in answers.items()}
            both = path in BOTH
            assert nothing == {gateway.url: apart, https(gateway): apart, there: not apart and not both}, route
            for base, answer in answers.items():
                if nothing[base]:
                    gateway.problem(answer, 404)
        assert seen > 30
        # Plain HTTP gets nothing from a port that has TLS.
        with pytest.raises(httpx.TransportError):
            await client.get(f"http://127.0.0.1:{free_port}/healthz")


async def test_the_platform_teams_port_is_not_sent_elsewhere(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, free_port: int
) -> None:
    """The public address does not lead to it."""
    async with gateway_factory(
        fresh_nats.uri,
        gateway_public_base_url=PUBLIC,
        gateway_enable_https_redirection=True,
        gateway_trusted_proxies="127.0.0.2/32",
        gateway_admin_port=free_port,
    ) as gateway:
        there = f"http://127.0.0.1:{free_port}/admin/v1/tenants"
        assert (await gateway.client.get(there, headers=gateway.admin)).status_code == 200
        assert (await gateway.client.get("/admin/v1/tenants", headers=gateway.admin)).status_code == 308


async def test_https_alone(secured: Secured, trusting: ssl.SSLContext) -> None:
    async with secured(gateway_http=False, wait=False) as gateway:
        assert gateway.listeners.http_port == 0
        assert len(gateway.listeners.all) == 1
        async with httpx.AsyncClient(verify=trusting, base_url=https(gateway), timeout=60) as client:
            assert (await client.get("/api/test")).status_code == 200


async def test_a_stop_drains_every_port(secured: Secured, trusting: ssl.SSLContext) -> None:
    """Whose body is under way is answered, and stored; nobody new gets in."""
    async with secured(gateway_shutdown_grace_s=60) as gateway:
        key = (await gateway.tenant()).api_key
        await gateway.channel(verification="off")
        ports = {gateway.port: None, gateway.listeners.https_port: trusting}
        open_ones = []
        for port, context in ports.items():
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.write(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {key}\r\nContent-Length: 2\r\n\r\n{{".encode())
            await writer.drain()
            open_ones.append((reader, writer))
        # Of one that only connects nothing is to come: it holds up no stop.
        _, silent = await asyncio.open_connection("127.0.0.1", gateway.listeners.https_port)
        async with asyncio.timeout(60):
            # Until both heads are with the application: seen from outside there is nothing else to wait for.
            while len(gateway.server.server_state.tasks) < len(ports):
                await asyncio.sleep(0.01)
        gateway.server.should_exit = True
        for port in ports:
            async with asyncio.timeout(60):
                while True:
                    try:
                        _, extra = await asyncio.open_connection("127.0.0.1", port)
                    except ConnectionError:
                        break
                    extra.close()
                    await asyncio.sleep(0.02)
        for reader, writer in open_ones:
            writer.write(b"}")
            async with asyncio.timeout(60):
                assert (await read_answer(reader)).status == 200
            writer.close()
        silent.close()
        assert sum(map(len, await gateway.stored())) == 2


BEHIND_A_PROXY: dict[str, object] = {
    "gateway_enable_https_redirection": True,
    "gateway_public_base_url": PUBLIC,
    "gateway_tls_cert_file": None,
    "gateway_tls_key_file": None,
}
WRONG: list[tuple[str, dict[str, object]]] = [
    ("BACKHAUL_GATEWAY_TLS_KEY_FILE", {"gateway_tls_key_file": None}),
    ("BACKHAUL_GATEWAY_TLS_CERT_FILE", {"gateway_tls_cert_file": None}),
    ("BACKHAUL_GATEWAY_HTTPS_PORT", {"gateway_port": 9001, "gateway_https_port": 9001}),
    ("BACKHAUL_GATEWAY_ADMIN_PORT", {"gateway_admin_port": 9001, "gateway_https_port": 9001}),
    ("BACKHAUL_GATEWAY_HTTP", {"gateway_http": False, "gateway_tls_cert_file": None, "gateway_tls_key_file": None}),
    (
        "BACKHAUL_GATEWAY_ENABLE_HTTPS_REDIRECTION",
        {"gateway_enable_https_redirection": True, "gateway_public_base_url": "http://callbacks.example.com"},
    ),
    (
        "BACKHAUL_GATEWAY_ENABLE_HTTPS_REDIRECTION",
        {"gateway_enable_https_redirection": True, "gateway_tls_cert_file": None, "gateway_tls_key_file": None},
    ),
    # Nobody could come to it encrypted, and a proxy that ends TLS would be sent to itself.
    ("BACKHAUL_GATEWAY_TRUSTED_PROXIES", BEHIND_A_PROXY),
]


@pytest.mark.parametrize(("named", "settings"), WRONG)
def test_settings_that_do_not_go_together_are_named(
    authority: Authority, named: str, settings: dict[str, object]
) -> None:
    files = authority.issue("gateway")
    whole = {
        "gateway_admin_token": "x" * 16,
        "secret_keys": "A" * 43 + "=",
        "gateway_tls_cert_file": files.cert,
        "gateway_tls_key_file": files.key,
    }
    GatewaySettings.model_validate(whole)
    with pytest.raises(ValidationError, match=named):
        GatewaySettings.model_validate(whole | settings)


def test_the_ports_of_an_installation_without_a_certificate_are_its_own() -> None:
    """8443 may be taken there, even by the port of the platform team."""
    settings = GatewaySettings.model_validate(
        {
            "gateway_admin_token": "x" * 16,
            "secret_keys": "A" * 43 + "=",
            "gateway_port": 8443,
            "gateway_admin_port": 8444,
            "gateway_tls_cert_file": "",
            "gateway_tls_key_file": "",
        }
    )
    assert not settings.serves_https
    assert settings.public_base_url(8443) == "http://127.0.0.1:8443"
    assert settings.plain_base_url(8443) == ""


def test_behind_a_proxy_that_is_trusted_redirection_needs_no_certificate() -> None:
    whole = {"gateway_admin_token": "x" * 16, "secret_keys": "A" * 43 + "=", **BEHIND_A_PROXY}
    settings = GatewaySettings.model_validate({**whole, "gateway_trusted_proxies": "10.0.0.0/8"})
    assert settings.public_base_url(8080) == PUBLIC
