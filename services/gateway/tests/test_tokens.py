"""Access tokens that a provider fetches and shows with its callbacks, at a gateway that runs."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest
from backhaul_channels import RawCallback
from backhaul_channels.engines.oauth import GRACE_S, LIFETIME_S, ClientSecret, token_answer
from backhaul_client.adminmodels import NewTenant
from backhaul_common.directory import TenantDirectory
from backhaul_gateway.ingest.tokens import MAX_TOKEN_REQUEST_BYTES
from backhaul_local.nats_server import NatsServer
from backhaul_proto.callback.v1.callback_pb2 import VERIFICATION_OBSERVED_INVALID, VERIFICATION_VERIFIED
from backhaul_testing.posts import Post, send
from backhaul_testing.sendgrid import OAuthClient, SendGridSimulator, bearing
from gateway_rig import GatewayFactory, Running

LABEL = "?channelLabel=SendGrid"
WEBHOOK, CLIENT = SendGridSimulator(), OAuthClient()


def callbacks(gateway: Running, tenant: NewTenant, label: str = "SendGrid") -> str:
    return f"{gateway.url}/in/{tenant.ingest_token}/api/postevents?channelLabel={label}"


def tokens(gateway: Running, tenant: NewTenant, query: str = "") -> str:
    return f"{gateway.url}/in/{tenant.ingest_token}/oauth/token{query}"


async def configured(gateway: Running, tenant_id: str = "acme", **channel: Any) -> NewTenant:
    """A tenant whose channel asks for both proofs, unless ``channel`` says otherwise."""
    tenant = await gateway.tenant(tenant_id)
    both = {"secrets": [WEBHOOK.public_key, CLIENT.secret]}
    await gateway.channel(tenant_id, **{"label": "SendGrid", "provider": "sendgrid", **both, **channel})
    return tenant


def posted(gateway: Running, tenant: NewTenant, token: str, label: str = "SendGrid") -> Post:
    """A signed post with the token."""
    return bearing(WEBHOOK.batch(callbacks(gateway, tenant, label), [WEBHOOK.event("m", "delivered")]), token)


async def outcome(gateway: Running, post: Post) -> tuple[int, str]:
    """The status, and what is said of it where it is none of success."""
    answer = await send(gateway.client, post)
    return answer.status_code, "" if answer.is_success else gateway.problem(answer, answer.status_code)["detail"]


def error_of(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/json"
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    assert ("www-authenticate" in answer.headers) == (answer.status_code == 401)
    assert CLIENT.client_secret not in answer.text
    return answer.status_code, answer.json()["error"]


async def test_a_token_and_the_signature_prove_together(gateway: Running) -> None:
    tenant = await configured(gateway)
    asked = await send(gateway.client, CLIENT.asking(tokens(gateway, tenant)))
    assert (asked.status_code, asked.headers["content-type"]) == (200, "application/json")
    assert (asked.headers["cache-control"], asked.headers["pragma"]) == ("no-store", "no-cache")
    told = asked.json()
    assert (told.keys(), told["token_type"]) == ({"access_token", "token_type", "expires_in"}, "Bearer")
    post = posted(gateway, tenant, told["access_token"])
    assert (await send(gateway.client, post)).status_code == 200
    stored = (await gateway.stored())[-1][-1]
    assert stored.verification == VERIFICATION_VERIFIED
    # Neither proof is kept.
    assert b"user-agent" in stored.headers
    for word in (b"signature", b"authorization", told["access_token"].encode()):
        assert word not in stored.headers


async def test_one_proof_of_two_is_none(gateway: Running) -> None:
    tenant = await configured(gateway)
    token = await CLIENT.token(gateway.client, tokens(gateway, tenant))
    post = posted(gateway, tenant, token)
    for wrong, said in (
        (post.without_header("Authorization"), "no Authorization header of the scheme Bearer"),
        (post.with_header("Authorization", "Bearer x"), "none that was issued"),
        (post.without_header("X-Twilio-Email-Event-Webhook-Signature"), "carries no signature"),
        (SendGridSimulator().signed(post.url, post.body).with_header("Authorization", f"Bearer {token}"), "fits none"),
        # An API key is not one under /in/, whoever's it is.
        (post.with_header("Authorization", f"Bearer {tenant.api_key}"), "none that was issued"),
    ):
        status, detail = await outcome(gateway, wrong)
        assert (status, said in detail) == (403, True), detail
    assert not await gateway.stored()
    twice = httpx.Headers([*post.headers, ("Authorization", "Bearer x")])
    gateway.problem(await gateway.client.post(post.url, headers=twice, content=post.body), 401)
    # In observe each is accepted, and marked.
    await gateway.channel(label="SendGrid", secrets=[WEBHOOK.public_key, CLIENT.secret], verification="observe")
    assert (await outcome(gateway, post.without_header("Authorization")))[0] == 200
    assert (await gateway.stored())[-1][-1].verification == VERIFICATION_OBSERVED_INVALID


async def test_a_token_may_be_the_only_proof(gateway: Running) -> None:
    tenant = await configured(gateway, secrets=[CLIENT.secret])
    token = await CLIENT.token(gateway.client, tokens(gateway, tenant))
    body = b'[{"event": "open", "timestamp": 1}]'
    url = callbacks(gateway, tenant)
    assert (await gateway.client.post(url, content=body)).status_code == 403
    shown = {"Authorization": f"Bearer {token}"}
    assert (await gateway.client.post(url, content=body, headers=shown)).status_code == 200
    # Beside an API key in its own header the token is read as well; alone it is no API key.
    url = f"/api/postevents{LABEL}"
    both = shown | {"X-Api-Key": tenant.api_key}
    assert (await gateway.client.post(url, content=body, headers=both)).status_code == 200
    gateway.problem(await gateway.client.post(url, content=body, headers=shown), 401)


async def test_a_token_expires(gateway: Running) -> None:
    tenant = await configured(gateway)
    form = CLIENT.asking(tokens(gateway, tenant), by_form=True)
    headers = [(name.lower().encode(), value.encode()) for name, value in form.headers]

    def issued(ago_s: int) -> str:
        """A token as the gateway issued it so long ago."""
        then_us = (time.time_ns() // 1000) - ago_s * 1_000_000
        asking = RawCallback("POST", form.url, headers, form.body, then_us, f"{tenant.registration}/sendgrid")
        token: str = json.loads(token_answer(asking, [ClientSecret(**CLIENT.secret)]).body)["access_token"]
        return token

    assert (await outcome(gateway, posted(gateway, tenant, issued(LIFETIME_S))))[0] == 200
    status, detail = await outcome(gateway, posted(gateway, tenant, issued(LIFETIME_S + GRACE_S)))
    assert (status, "expired" in detail) == (403, True)


async def test_a_secret_ends_with_its_tokens(gateway: Running) -> None:
    tenant = await configured(gateway)
    old = posted(gateway, tenant, await CLIENT.token(gateway.client, tokens(gateway, tenant)))
    renewed = OAuthClient(CLIENT.client_id)
    await gateway.channel(label="SendGrid", secrets=[WEBHOOK.public_key, CLIENT.secret, renewed.secret])
    new = posted(gateway, tenant, await renewed.token(gateway.client, tokens(gateway, tenant)))
    assert [(await outcome(gateway, post))[0] for post in (old, new)] == [200, 200]
    await gateway.channel(label="SendGrid", secrets=[WEBHOOK.public_key, renewed.secret])
    assert [(await outcome(gateway, post))[0] for post in (old, new)] == [403, 200]
    refused = await send(gateway.client, CLIENT.asking(tokens(gateway, tenant)))
    assert error_of(refused) == (401, "invalid_client")


async def test_any_copy_of_the_gateway_takes_a_token_of_another(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    keys = {"secret_keys": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMzQ="}
    async with gateway_factory(fresh_nats.uri, **keys) as one, gateway_factory(fresh_nats.uri, **keys) as two:
        tenant = await configured(one)
        token = await CLIENT.token(two.client, tokens(two, tenant))
        assert (await outcome(one, posted(one, tenant, token)))[0] == 200
        assert (await outcome(two, posted(two, tenant, token)))[0] == 200


async def test_a_copy_without_news_issues_a_token_of_a_channel_that_another_configured(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway_factory(fresh_nats.uri) as first:

        async def deaf(self: TenantDirectory, client: Any) -> None:
            """Hears of no change."""

        monkeypatch.setattr(TenantDirectory, "follow", deaf)
        async with gateway_factory(fresh_nats.uri, secret_keys=first.settings.secret_keys) as second:
            acme = await first.tenant()
            # A tenant that is not known, then a channel of one that is: found by its label, and without it.
            second.problem(await send(second.client, CLIENT.asking(tokens(second, acme, LABEL))), 404, "channelLabel")
            for label, query in (("News", "?channelLabel=News"), ("SendGrid", "")):
                client = OAuthClient(label)
                await first.channel(label=label, provider="sendgrid", secrets=[client.secret])
                answer = await send(second.client, client.asking(tokens(second, acme, query)))
                assert answer.status_code == 200, answer.text


async def test_a_token_is_good_for_one_channel_of_one_tenant(gateway: Running) -> None:
    """Although all of them have the same secrets."""
    acme, other = await configured(gateway), await configured(gateway, "other")
    await gateway.channel(label="Marketing", provider="sendgrid", secrets=[WEBHOOK.public_key, CLIENT.secret])
    at_acme = await CLIENT.token(gateway.client, tokens(gateway, acme, LABEL))
    at_marketing = await CLIENT.token(gateway.client, tokens(gateway, acme, "?CHANNELLABEL=marketing"))
    at_other = await CLIENT.token(gateway.client, tokens(gateway, other))
    for tenant, label, right in (
        (acme, "SendGrid", at_acme),
        (acme, "Marketing", at_marketing),
        (other, "SendGrid", at_other),
    ):
        for token in (at_acme, at_marketing, at_other):
            status, _ = await outcome(gateway, posted(gateway, tenant, token, label))
            assert status == (200 if token == right else 403)


async def test_the_channel_is_found_by_its_client(gateway: Running) -> None:
    tenant = await configured(gateway)
    news = OAuthClient("news")
    await gateway.channel(label="News", provider="sendgrid", secrets=[news.secret])
    await gateway.channel()  # Twilio's, which issues no tokens.
    await gateway.channel(label="Plain SendGrid", provider="sendgrid", secrets=[WEBHOOK.public_key])
    for client, label, by_form in ((CLIENT, "SendGrid", True), (news, "News", False)):
        asked = await send(gateway.client, client.asking(tokens(gateway, tenant), by_form=by_form))
        post = posted(gateway, tenant, asked.json()["access_token"], label)
        assert (await outcome(gateway, post))[0] == 200
    assert error_of(await send(gateway.client, OAuthClient().asking(tokens(gateway, tenant)))) == (
        401,
        "invalid_client",
    )
    # The client is another channel's.
    refused = await send(gateway.client, news.asking(tokens(gateway, tenant, LABEL)))
    assert error_of(refused) == (401, "invalid_client")
    await gateway.channel(label="News", provider="sendgrid", secrets=[news.secret, CLIENT.secret])
    several = await send(gateway.client, CLIENT.asking(tokens(gateway, tenant)))
    assert error_of(several) == (400, "invalid_request")
    assert "channelLabel" in several.json()["error_description"]


async def test_a_channel_that_issues_no_tokens_says_so(gateway: Running) -> None:
    tenant = await gateway.tenant()
    for query in ("", LABEL):
        gateway.problem(await send(gateway.client, CLIENT.asking(tokens(gateway, tenant, query))), 404, "channelLabel")
    await gateway.channel()
    await gateway.channel(label="SendGrid", secrets=[WEBHOOK.public_key])
    for query in ("", LABEL, "?channelLabel=Twilio"):
        answer = await send(gateway.client, CLIENT.asking(tokens(gateway, tenant, query)))
        assert "client_secret" in gateway.problem(answer, 404, "channelLabel")["errors"][0]["fix"]


async def test_errors_are_those_of_the_rfc(gateway: Running) -> None:
    tenant = await configured(gateway)
    url, right = tokens(gateway, tenant), (CLIENT.client_id, CLIENT.client_secret)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for body, auth, expected in (
        (b"grant_type=client_credentials", ("sendgrid", "wrong"), (401, "invalid_client")),
        (b"grant_type=client_credentials", httpx.Auth(), (401, "invalid_client")),
        (b"grant_type=password", right, (400, "unsupported_grant_type")),
        (b"", right, (400, "invalid_request")),
        (b"grant_type=a&grant_type=a", right, (400, "invalid_request")),
        (b"\xff\xfe", right, (400, "invalid_request")),
    ):
        answer = await gateway.client.post(url, content=body, auth=auth, headers=form)
        assert error_of(answer) == expected
    # Not the client's fault, so as everywhere: problems.
    large = b"x" * (MAX_TOKEN_REQUEST_BYTES + 1)
    gateway.problem(await gateway.client.post(url, content=large, auth=right), 413, "body")
    gateway.problem(await gateway.client.get(url), 405)
    twice = [("Authorization", "Basic a"), ("Authorization", "Basic b")]
    gateway.problem(await gateway.client.post(url, headers=httpx.Headers(twice)), 401)


async def test_only_an_active_tenants_ingest_token_leads_there(gateway: Running) -> None:
    tenant = await configured(gateway)
    for token in ("wrong", tenant.api_key, tenant.ingest_token[:-1], tenant.ingest_token + "0"):
        address = f"{gateway.url}/in/{token}/oauth/token"
        gateway.problem(await send(gateway.client, CLIENT.asking(address)), 401, "token")
    gateway.problem(await send(gateway.client, CLIENT.asking(f"{gateway.url}/oauth/token")), 404)
    # In any case, as the address of callbacks.
    spelt = tokens(gateway, tenant).replace("/in/", "/IN/").replace("oauth/token", "OAuth/Token")
    assert (await send(gateway.client, CLIENT.asking(spelt))).status_code == 200
    await gateway.client.patch("/admin/v1/tenants/acme", headers=gateway.admin, json={"status": "suspended"})
    gateway.problem(await send(gateway.client, CLIENT.asking(tokens(gateway, tenant))), 403)


async def test_guesses_are_limited_as_callbacks_are(gateway: Running) -> None:
    tenant = await configured(gateway)
    limits = {"limits": {"requests_per_second": 0.01, "burst": 2}}
    await gateway.client.patch("/admin/v1/tenants/acme", headers=gateway.admin, json=limits)
    address = tokens(gateway, tenant)
    answers = [await send(gateway.client, OAuthClient().asking(address)) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [401, 401, 429]
    assert int(answers[2].headers["retry-after"]) > 1
    assert (await outcome(gateway, WEBHOOK.batch(callbacks(gateway, tenant), [])))[0] == 429


async def test_the_document_describes_it(gateway: Running) -> None:
    schema = (await gateway.client.get("/openapi.json")).json()
    operation = schema["paths"]["/in/{token}/oauth/token"]["post"]
    assert [one["name"] for one in operation["parameters"]] == ["token", "channelLabel"]
    assert operation["responses"].keys() >= {"200", "400", "401", "403", "404", "408", "413", "429", "503"}
    assert operation["responses"]["401"]["content"].keys() == {"application/problem+json", "application/json"}
    assert "application/x-www-form-urlencoded" in operation["requestBody"]["content"]
    assert "security" not in operation
