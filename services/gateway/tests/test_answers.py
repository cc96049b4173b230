"""How providers are answered, and what verification makes of the request: real adapters and one that asks back."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Any

import pytest
from backhaul_channels import (
    Adapter,
    Answer,
    ChannelSettings,
    Context,
    InvalidSecretError,
    NormalizedEvent,
    RawCallback,
    Refusal,
    load_adapters,
)
from backhaul_local.nats_server import NatsServer
from backhaul_proto.callback.v1.callback_pb2 import VERIFICATION_OBSERVED_INVALID, VERIFICATION_VERIFIED
from gateway_rig import GatewayFactory, Running

PATH = "/api/postevents?channelLabel=Twilio"


def basic(user: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}


class AskingAdapter(Adapter[ChannelSettings]):
    """A provider that asks whether the address is the tenant's, by posting the secret that it was given."""

    provider = "asking"
    labels = ("Asking",)
    accepted = Answer(status=204)
    signature_headers = frozenset({b"x-asking"})

    def handshake(self, callback: RawCallback, secrets: Sequence[str], settings: ChannelSettings) -> Answer | None:
        if not callback.body.startswith(b"is it you"):
            return None
        assert settings.communication_keys == ("case",)
        assert callback.url.endswith("/api/postevents?channelLabel=Asking")
        known = callback.body.removeprefix(b"is it you, ").decode() in secrets
        return Answer(200, "text/plain", b"it is me") if known else Answer(403)

    def verifier(self, secrets: Sequence[str], settings: ChannelSettings) -> AskingAdapter:
        if "unusable" in secrets:
            raise InvalidSecretError("That cannot be one.")
        return self

    def verify(self, callback: RawCallback) -> Refusal | None:
        return None if callback.header(b"x-asking") == b"yes" else Refusal("signature_missing", "No signature.")

    def split(self, callback: RawCallback, settings: ChannelSettings) -> Sequence[bytes]:
        raise NotImplementedError

    def normalize(self, part: bytes, context: Context[ChannelSettings]) -> NormalizedEvent:
        raise NotImplementedError


@pytest.fixture
def adapters() -> dict[str, Adapter[Any]]:
    return {**load_adapters(), "asking": AskingAdapter()}


async def test_a_handshake_is_answered_and_nothing_is_stored(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, adapters: dict[str, Adapter[Any]]
) -> None:
    async with gateway_factory(fresh_nats.uri, adapters=adapters) as gateway:
        tenant = await gateway.tenant()
        await gateway.channel(label="Asking", secrets=["s1", "s2"], settings={"communication_keys": ["case"]})
        path = f"/in/{tenant.ingest_token}/api/postevents?channelLabel=Asking"

        asked = await gateway.client.post(path, content=b"is it you, s2")
        assert (asked.status_code, asked.content) == (200, b"it is me")
        assert (asked.headers["content-type"], asked.headers["content-length"]) == ("text/plain", "8")
        assert "backhaul-callback-id" not in asked.headers

        refused = await gateway.client.post(path, content=b"is it you, s3")
        assert (refused.status_code, refused.content) == (403, b"")
        # Whoever is no tenant's learns nothing from a handshake.
        unknown = await gateway.client.post(path.replace(tenant.ingest_token, "nobody"), content=b"is it you, s1")
        assert unknown.status_code == 401
        assert await gateway.stored() == []

        # Everything else is verified and stored as ever, and answered as this provider wants.
        assert (await gateway.client.post(path, content=b"an event")).status_code == 403
        stored = await gateway.client.post(path, content=b"an event", headers={"X-Asking": "yes", "X-Other": "kept"})
        assert (stored.status_code, stored.content) == (204, b"")
        assert "content-length" not in stored.headers
        [[callback]] = await gateway.stored()
        assert stored.headers["backhaul-callback-id"] == callback.id
        assert b"x-other: kept" in callback.headers
        assert b"x-asking" not in callback.headers
        metrics = (await gateway.client.get("/metrics")).text
        assert re.search(r'gateway_callbacks_total\{[^}]*outcome="handshake"[^}]*\} 2\.0', metrics)


async def test_each_provider_is_answered_as_it_wants(gateway: Running) -> None:
    tenant = await gateway.tenant()
    await gateway.channel(verification="off")
    await gateway.channel(label="SendGrid", secrets=[], verification="off")
    twilio = await gateway.post(tenant)
    assert (twilio.status_code, twilio.content) == (200, b"<Response/>")
    assert twilio.headers["content-type"] == "text/xml"
    sendgrid = await gateway.post(tenant, "/api/postevents?channelLabel=SendGrid")
    assert (sendgrid.status_code, sendgrid.content) == (200, b"")
    assert "content-type" not in sendgrid.headers
    assert all(answer.headers["backhaul-callback-id"] for answer in (twilio, sendgrid))


async def test_a_query_that_arrives_sorted(gateway: Running) -> None:
    tenant = await gateway.tenant()
    await gateway.channel()
    configured = "/api/postevents?channelLabel=Twilio&campaign=spring"
    arrives = "/api/postevents?campaign=spring&channelLabel=Twilio"
    signature = gateway.sign(gateway.url + configured, gateway.form)
    assert (await gateway.post(tenant, arrives, signature=signature)).status_code == 200
    [[callback]] = await gateway.stored()
    assert callback.url == gateway.url + arrives
    assert callback.verification == VERIFICATION_VERIFIED

    wrong = await gateway.post(tenant, arrives.replace("spring", "autumn"), signature=signature)
    assert "alphabetical order" in gateway.problem(wrong, 403)["detail"]
    alone = await gateway.post(tenant, PATH, signature=signature)
    assert "alphabetical order" not in gateway.problem(alone, 403)["detail"]


@pytest.mark.parametrize(
    ("signed", "arrives"),
    [
        ("user:secret", "user:secret"),
        ("user:", "user:"),
        ("user", "user:"),
        ("us%40er:p%2Fw", "us@er:p/w"),
        ("us%40er:p", "us%40er:p"),
    ],
)
async def test_user_and_password_of_the_signed_address(gateway: Running, signed: str, arrives: str) -> None:
    tenant = await gateway.tenant()
    await gateway.channel()
    path = f"/in/{tenant.ingest_token}{PATH}"
    signature = gateway.sign(gateway.url.replace("://", f"://{signed}@") + path, gateway.form)
    assert (await gateway.post(None, path, signature=signature, headers=basic(arrives))).status_code == 200
    assert (await gateway.post(None, path, signature=signature, headers=basic(arrives + "x"))).status_code == 403
    assert (await gateway.post(None, path, signature=signature)).status_code == 403


async def test_the_api_key_in_the_signed_address(gateway: Running) -> None:
    tenant = await gateway.tenant()
    await gateway.channel()
    user = f"acme:{tenant.api_key}"
    for url in (gateway.url, gateway.url.replace("://", f"://{user}@")):
        signature = gateway.sign(url + PATH, gateway.form)
        assert (await gateway.post(None, PATH, signature=signature, headers=basic(user))).status_code == 200
    assert tenant.api_key not in str(await gateway.stored())


@pytest.mark.parametrize("user", ["evil.example/x:", "a:evil.example/x", "evil.example?x:", "evil.example#:"])
async def test_a_signature_of_another_host_does_not_verify(gateway: Running, user: str) -> None:
    tenant = await gateway.tenant()
    await gateway.channel()
    path = f"/in/{tenant.ingest_token}{PATH}"
    signature = gateway.sign(gateway.url.replace("://", f"://{user}@") + path, gateway.form)
    gateway.problem(await gateway.post(None, path, signature=signature, headers=basic(user)), 403)
    assert await gateway.stored() == []


async def test_a_form_beyond_the_bound_is_said_to_be_too_large(gateway: Running) -> None:
    tenant = await gateway.tenant()
    await gateway.channel()
    large = {"MessageSid": "SM1", "Body": "x" * (64 << 10)}
    many = {f"Field{number}": "x" for number in range(1001)}
    for form in (large, many):
        problem = gateway.problem(await gateway.post(tenant, form=form), 413, "body")
        assert "65536 bytes or 1000 fields" in problem["detail"]
    metrics = (await gateway.client.get("/metrics")).text
    assert re.search(r'gateway_callbacks_total\{[^}]*outcome="form_too_large"[^}]*\} 2\.0', metrics)
    assert await gateway.stored() == []

    # Whoever observes loses nothing, and sees what would be refused.
    await gateway.channel(verification="observe")
    assert (await gateway.post(tenant, form=large)).status_code == 200
    [[callback]] = await gateway.stored()
    assert callback.verification == VERIFICATION_OBSERVED_INVALID


async def test_a_shared_key_is_one_more_secret(gateway: Running) -> None:
    tenant = await gateway.tenant()
    await gateway.channel(secrets=[gateway.secret])
    headers = {"X-Twilio-Webhooks-Signature-Settings": "key=webhooks_sharedkey_1,algorithm=HMAC_SHA1"}
    signature = gateway.sign(gateway.url + PATH, gateway.form, "shared-secret")
    refused = await gateway.post(tenant, PATH, signature=signature, headers=headers)
    assert "the shared key webhooks_sharedkey_1" in gateway.problem(refused, 403)["detail"]
    await gateway.channel(secrets=[gateway.secret, "webhooks_sharedkey_1:shared-secret"])
    assert (await gateway.post(tenant, PATH, signature=signature, headers=headers)).status_code == 200
    assert (await gateway.post(tenant, PATH)).status_code == 200
