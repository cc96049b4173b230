"""Channels whose proof is the credential that the tenant carries."""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, ClassVar

import pytest
from backhaul_channels import (
    Adapter,
    ChannelSettings,
    Context,
    NormalizedEvent,
    Proof,
    RawCallback,
    Refusal,
    Verifier,
    load_adapters,
)
from backhaul_channels.engines.proofs import BasicSecret, BasicVerifier, objects_of
from backhaul_channels.pull import Ask, Budget, Listing, Page, PullCredentials, Puller, Span, Transport
from backhaul_common.secrets import SecretBox
from backhaul_local.nats_server import NatsServer
from backhaul_proto.callback.v1.callback_pb2 import (
    VERIFICATION_CREDENTIAL,
    VERIFICATION_OBSERVED_INVALID,
    VERIFICATION_OFF,
    VERIFICATION_VERIFIED,
)
from gateway_rig import GatewayFactory, Running
from pydantic import Field


class PlainAdapter(Adapter[ChannelSettings]):
    """A provider that signs nothing."""

    provider = "plain"
    labels: ClassVar[tuple[str, ...]] = ("Plain", "Pocket  News")
    proof = Proof.CREDENTIAL

    def split(self, callback: RawCallback, settings: ChannelSettings) -> Sequence[bytes]:
        raise NotImplementedError

    def normalize(self, part: bytes, context: Context[ChannelSettings]) -> NormalizedEvent:
        raise NotImplementedError


class ApiKey(PullCredentials):
    """By what the API of ``PasswordAdapter``'s provider is asked."""

    api_key: str = Field(min_length=8)


class PasswordPuller(Puller[ApiKey, ChannelSettings]):
    """Asks nothing in these tests."""

    credentials_model = ApiKey
    origins: ClassVar[frozenset[str]] = frozenset({"https://api.password.example"})
    budgets: ClassVar[Mapping[str, Budget]] = {"all": Budget()}
    message_budget: ClassVar[str] = "all"
    reaches_back_days = 1

    def account(self, credentials: ApiKey) -> str:
        raise NotImplementedError

    def listings(self, settings: ChannelSettings) -> Sequence[Listing]:
        raise NotImplementedError

    async def window(
        self, transport: Transport, ask: Ask[ApiKey, ChannelSettings], listing: str, span: Span, cursor: str = ""
    ) -> Page:
        raise NotImplementedError

    async def message(self, transport: Transport, ask: Ask[ApiKey, ChannelSettings], message_id: str) -> Page:
        raise NotImplementedError


class PasswordAdapter(PlainAdapter):
    """A provider that sends a password along where it was given one."""

    provider = "password"
    labels = ("PLAIN",)
    puller = PasswordPuller()

    def verifier(self, secrets: Sequence[str], settings: ChannelSettings) -> Verifier:
        return _Password(secrets)


class _Password:
    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = [secret.encode() for secret in secrets]

    def verify(self, callback: RawCallback) -> Refusal | None:
        right = callback.header(b"x-password") in self._secrets
        return None if right else Refusal("signature_invalid", "X-Password is wrong.")


class NamedAdapter(PlainAdapter):
    """A provider whose secrets are a name and a password."""

    provider = "named"
    labels = ()
    secret_model = BasicSecret

    def verifier(self, secrets: Sequence[str], settings: ChannelSettings) -> Verifier:
        return BasicVerifier(objects_of(secrets, BasicSecret))


@pytest.fixture
async def gateway(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> AsyncIterator[Running]:
    own: tuple[Adapter[Any], ...] = (PlainAdapter(), PasswordAdapter(), NamedAdapter())
    adapters: dict[str, Adapter[Any]] = {**load_adapters(), **{one.provider: one for one in own}}
    async with gateway_factory(fresh_nats.uri, adapters=adapters) as running:
        yield running


PATH = "/api/postevents?channelLabel=Plain"


async def verification(gateway: Running) -> int:
    """That of the callback which was stored last."""
    return (await gateway.stored())[-1][-1].verification


async def status(gateway: Running, tenant: Any) -> dict[str, Any]:
    answer = await gateway.client.get("/api/status?channelLabel=Plain", headers={"X-Api-Key": tenant.api_key})
    part: dict[str, Any] = answer.json()["parts"]["verification"]
    return part


async def test_the_tenants_credential_is_proof_enough_where_a_provider_signs_nothing(gateway: Running) -> None:
    tenant = await gateway.tenant()
    await gateway.channel(label="Plain", provider="plain", secrets=[])
    for path, headers in (
        (PATH, {"X-Api-Key": tenant.api_key}),
        (f"/in/{tenant.ingest_token}{PATH}", {}),
    ):
        assert (await gateway.client.post(path, content=b"{}", headers=headers)).status_code == 200
        assert await verification(gateway) == VERIFICATION_CREDENTIAL
    assert (await gateway.client.post(PATH, content=b"{}")).status_code == 401
    assert await status(gateway, tenant) == {
        "state": "OK",
        "detail": None,
        "mode": "enforce",
        "secret_count": 0,
        "refused": 0,
    }
    # Off is the tenant's own word that nothing proves anything.
    await gateway.channel(label="Plain", provider="plain", secrets=[], verification="off")
    assert (await gateway.client.post(PATH, content=b"{}", headers={"X-Api-Key": tenant.api_key})).status_code == 200
    assert await verification(gateway) == VERIFICATION_OFF


async def test_no_secret_is_taken_that_would_prove_nothing(gateway: Running) -> None:
    await gateway.tenant()
    answer = await gateway.client.put(
        "/admin/v1/tenants/acme/channels/Plain",
        headers=gateway.admin,
        json={"provider": "plain", "secrets": ["", "a-secret"]},
    )
    problem = gateway.problem(answer, 422, "secrets[1]")
    assert "signs nothing" in str(problem)
    assert "a-secret" not in answer.text


async def test_every_proof_that_is_configured_must_hold(gateway: Running) -> None:
    tenant = await gateway.tenant()
    key = {"X-Api-Key": tenant.api_key}
    await gateway.channel(label="Plain", provider="password", secrets=[])
    assert (await gateway.client.post(PATH, content=b"1", headers=key)).status_code == 200
    assert await verification(gateway) == VERIFICATION_CREDENTIAL

    await gateway.channel(label="Plain", secrets=["open sesame"])
    gateway.problem(await gateway.client.post(PATH, content=b"2", headers=key), 403)
    right = key | {"X-Password": "open sesame"}
    assert (await gateway.client.post(PATH, content=b"3", headers=right)).status_code == 200
    assert await verification(gateway) == VERIFICATION_VERIFIED
    assert (await gateway.client.post(PATH, content=b"4", headers={"X-Password": "open sesame"})).status_code == 401
    assert (await status(gateway, tenant))["refused"] == 1

    await gateway.channel(label="Plain", secrets=["open sesame"], verification="observe")
    assert (await gateway.client.post(PATH, content=b"5", headers=key)).status_code == 200
    assert await verification(gateway) == VERIFICATION_OBSERVED_INVALID


async def test_a_label_of_two_providers_needs_the_tenants_word(gateway: Running) -> None:
    await gateway.tenant()
    for label in ("Plain", "plain"):
        answer = await gateway.client.put(
            f"/admin/v1/tenants/acme/channels/{label}", headers=gateway.admin, json={"secrets": []}
        )
        problem = gateway.problem(answer, 422, "provider")
        assert "password, plain" in problem["detail"]
        assert "password or plain" in str(problem["errors"])
    made = await gateway.channel(label="Plain", provider="plain", secrets=[])
    assert made.json()["provider"] == "plain"
    # What is there needs no word; and a label that one alone offers is enough by itself, in any spelling.
    assert (await gateway.channel(label="plain", secrets=[], verification="observe")).json()["provider"] == "plain"
    assert (await gateway.channel(label="pocket--news", secrets=[])).json()["provider"] == "plain"


async def put(gateway: Running, body: dict[str, Any]) -> Any:
    return await gateway.client.put("/admin/v1/tenants/acme/channels/Plain", headers=gateway.admin, json=body)


async def test_what_the_provider_is_asked_by_is_encrypted_and_never_shown(gateway: Running) -> None:
    await gateway.tenant()

    def stored() -> Any:
        return gateway.tenants.find_one({"_id": "acme"})["channels"]["plain"]

    new = {"provider": "password", "pull_credentials": {"api_key": "first-api-key"}}
    made = await put(gateway, new)
    assert (made.status_code, made.json()["has_pull_credentials"]) == (201, True)
    first = stored()
    box = SecretBox(gateway.settings.encryption_keys())
    assert json.loads(box.decrypt(first["pull_credentials"])) == {"api_key": "first-api-key"}
    assert first["secrets"] == []
    # What is left out stays; what is given replaces it; an empty object removes it.
    assert (await put(gateway, {"verification": "observe"})).json()["has_pull_credentials"]
    assert stored()["pull_credentials"] == first["pull_credentials"]
    assert (await put(gateway, {"pull_credentials": {"api_key": "second-api-key"}})).status_code == 200
    assert json.loads(box.decrypt(stored()["pull_credentials"])) == {"api_key": "second-api-key"}
    assert not (await put(gateway, {"pull_credentials": {}})).json()["has_pull_credentials"]
    # They are the provider's, and go with it.
    await put(gateway, new)
    changed = await put(gateway, {"provider": "plain"})
    assert not changed.json()["has_pull_credentials"]
    assert stored()["pull_credentials"] == ""
    assert "api-key" not in (await gateway.client.get("/admin/v1/tenants/acme", headers=gateway.admin)).text


async def test_credentials_that_do_not_fit_are_refused_by_field_and_not_repeated(gateway: Running) -> None:
    await gateway.tenant()
    for body, field in (
        ({"provider": "plain", "pull_credentials": {"api_key": "hidden-key"}}, "pull_credentials"),
        ({"provider": "twilio", "pull_credentials": {"api_key": "hidden-key"}}, "pull_credentials.account_sid"),
        # What is wrong is that neither of two is there.
        ({"provider": "twilio", "pull_credentials": {"account_sid": f"AC{'0' * 32}"}}, "pull_credentials"),
        ({"provider": "password", "pull_credentials": {"api_key": "hidden"}}, "pull_credentials.api_key"),
        (
            {"provider": "password", "pull_credentials": {"api_key": "hidden-key", "other": "hidden"}},
            "pull_credentials.other",
        ),
        ({"provider": "password", "pull_credentials": {"other": "hidden"}}, "pull_credentials.api_key"),
    ):
        answer = await put(gateway, body)
        gateway.problem(answer, 422, field)
        assert "hidden" not in answer.text
    assert (await put(gateway, {"provider": "plain", "pull_credentials": {}})).status_code == 201


BUCKET = {"endpoint": "https://s3.example.com", "bucket": "acme-audit"}
KEYS = {"access_key": "first-access", "secret_key": "first-secret"}


async def test_what_opens_a_channels_own_bucket_is_encrypted_and_never_shown(gateway: Running) -> None:
    await gateway.tenant()
    box = SecretBox(gateway.settings.encryption_keys())

    def stored() -> str:
        credentials = gateway.tenants.find_one({"_id": "acme"})["channels"]["plain"]["audit_credentials"]
        return str(credentials)

    own = {"audit": {"enabled": True, "bucket": BUCKET}}
    made = await put(gateway, {"provider": "plain", "settings": own, "audit_credentials": KEYS})
    assert (made.status_code, made.json()["has_audit_credentials"], made.json()["settings"]) == (201, True, own)
    first = stored()
    assert json.loads(box.decrypt(first)) == KEYS
    # What is left out stays; what is given replaces it.
    assert (await put(gateway, {"verification": "observe"})).json()["has_audit_credentials"]
    assert stored() == first
    second = {"access_key": "second-access", "secret_key": "second-secret"}
    assert (await put(gateway, {"audit_credentials": second})).status_code == 200
    assert json.loads(box.decrypt(stored())) == second
    for shown in (made.text, (await gateway.client.get("/admin/v1/tenants/acme", headers=gateway.admin)).text):
        assert "-secret" not in shown
        assert "-access" not in shown
    # They go with the bucket that they open.
    by_role = {"audit": {"enabled": True, "bucket": {**BUCKET, "credentials": "instance_role"}}}
    assert not (await put(gateway, {"settings": by_role})).json()["has_audit_credentials"]
    assert stored() == ""


async def test_a_bucket_and_what_opens_it_are_set_together(gateway: Running) -> None:
    await gateway.tenant()
    own = {"audit": {"enabled": True, "bucket": BUCKET}}
    for body, field in (
        ({"provider": "plain", "settings": own}, "audit_credentials"),
        ({"provider": "plain", "settings": own, "audit_credentials": {}}, "audit_credentials"),
        ({"provider": "plain", "audit_credentials": KEYS}, "audit_credentials"),
        (
            {"provider": "plain", "settings": own, "audit_credentials": {**KEYS, "secret_key": ""}},
            "audit_credentials.secret_key",
        ),
        (
            {"provider": "plain", "settings": own, "audit_credentials": {**KEYS, "token": "hidden"}},
            "audit_credentials.token",
        ),
        ({"provider": "plain", "settings": {"audit": {"folder": "../globex"}}}, "settings.audit.folder"),
        ({"provider": "plain", "settings": {"audit": {"bucket": {"bucket": "x"}}}}, "settings.audit.bucket.endpoint"),
    ):
        answer = await put(gateway, body)
        gateway.problem(answer, 422, field)
        assert "hidden" not in answer.text
        assert "first-secret" not in answer.text
    assert (await put(gateway, {"provider": "plain", "settings": own, "audit_credentials": KEYS})).status_code == 201
    gateway.problem(await put(gateway, {"audit_credentials": {}}), 422, "audit_credentials")


async def test_a_secret_of_several_parts_is_stored_as_others_are_and_proves(gateway: Running) -> None:
    tenant = await gateway.tenant()
    one, other = {"username": "ann", "password": "first-password"}, {"username": "ben", "password": "second-password"}
    made = await put(gateway, {"provider": "named", "secrets": [one, other]})
    assert (made.status_code, made.json()["secret_count"]) == (201, 2)
    stored = gateway.tenants.find_one({"_id": "acme"})["channels"]["plain"]["secrets"]
    box = SecretBox(gateway.settings.encryption_keys())
    assert [json.loads(box.decrypt(secret)) for secret in stored] == [one, other]
    for shown in (made.text, (await gateway.client.get("/admin/v1/tenants/acme", headers=gateway.admin)).text):
        assert "password" not in shown
    path = f"/in/{tenant.ingest_token}{PATH}"
    for name, password, status in (("ann", "first-password", 200), ("ben", "first-password", 403)):
        answer = await gateway.client.post(path, content=b"{}", auth=(name, password))
        assert answer.status_code == status
    assert "name and a password" in gateway.problem(answer, 403, "Authorization")["errors"][0]["fix"]
    assert await verification(gateway) == VERIFICATION_VERIFIED


async def test_a_secret_of_several_parts_that_does_not_fit_is_refused_by_field_and_not_repeated(
    gateway: Running,
) -> None:
    await gateway.tenant()
    fit = {"username": "ann", "password": "hidden"}
    for provider, secrets, field in (
        ("twilio", ["0" * 32, fit], "secrets[1]"),
        ("plain", [fit], "secrets[0]"),
        ("named", [fit, {"username": "hidden"}], "secrets[1].password"),
        ("named", [{**fit, "hidden": "hidden", "other": "x"}], "secrets[0].other"),
        ("named", [{"username": "hidden:hidden", "password": "p"}], "secrets[0].username"),
        ("named", [fit, {"username": "hidden", "password": ["hidden"]}], "secrets[1]"),
        ("named", [{}], "secrets[0]"),
        ("named", [{str(number): "hidden" for number in range(9)}], "secrets[0]"),
        ("named", [{"hidden" * 20: "x"}], "secrets[0]"),
        ("named", [["hidden"]], "secrets[0]"),
        ("named", ['{"username": "hidden"}'], "secrets[0]"),
    ):
        answer = await put(gateway, {"provider": provider, "secrets": secrets})
        found = gateway.problem(answer, 422, field)
        assert "hidden" not in answer.text.replace("secrets[0].hidden", "")
        assert not [one for one in found["errors"] if not one["fix"]]


async def test_a_generic_channels_settings_say_what_proves_and_which_header_is_not_kept(gateway: Running) -> None:
    tenant = await gateway.tenant()
    key = {"X-Api-Key": tenant.api_key}
    proof: dict[str, Any] = {"type": "credential"}
    made = await put(gateway, {"provider": "generic", "settings": {"proof": proof}})
    assert made.status_code == 201
    assert (await gateway.client.post(PATH, content=b"{}", headers=key)).status_code == 200
    assert await verification(gateway) == VERIFICATION_CREDENTIAL

    proof = {"type": "hmac", "signature_header": "X-Signed", "prefix": "sha256=", "timestamp_header": "X-Time"}
    changed = await put(gateway, {"settings": {"proof": proof}, "secrets": ["a-shared-secret"]})
    assert changed.status_code == 200, changed.text
    gateway.problem(await gateway.client.post(PATH, content=b"{}", headers=key), 403)
    now = int(time.time())
    for at, status_code in ((now, 200), (now - 3_000, 403), (now + 3_000, 403)):
        digest = hmac.digest(b"a-shared-secret", b"%d.{}" % at, "sha256").hex()
        signed = key | {"X-Signed": f"sha256={digest}", "X-Time": str(at)}
        assert (await gateway.client.post(PATH, content=b"{}", headers=signed)).status_code == status_code
    assert await verification(gateway) == VERIFICATION_VERIFIED
    kept = (await gateway.stored())[-1][-1].headers
    assert b"x-time" in kept
    assert b"x-signed" not in kept
    unprefixed = await gateway.client.post(PATH, content=b"{}", headers={**signed, "X-Signed": digest})
    assert "does not begin with 'sha256='" in gateway.problem(unprefixed, 403, "signature")["detail"]

    for settings, field in (
        ({"proof": {"type": "hmac"}}, "settings.proof.signature_header"),
        ({"mapping": {"message_id": "message-id"}}, "settings.mapping.message_id"),
        ({"statuses": {"off": "gone"}}, "settings.statuses.off"),
        ({"envelope": "a == 'b'"}, "settings.envelope"),
    ):
        gateway.problem(await put(gateway, {"settings": settings}), 422, field)
    gateway.problem(await put(gateway, {"secrets": ["no secret"]}), 422, "secrets[0]")

    # A name and a password stand beside what is signed, and never in its place.
    assert (await put(gateway, {"secrets": [{"username": "ann", "password": "word"}]})).status_code == 200
    gateway.problem(await gateway.client.post(PATH, content=b"{}", headers=signed), 403, "secrets")
    status = (await gateway.client.get("/api/status?channelLabel=Plain", headers=key)).json()
    assert status["parts"]["verification"]["state"] == "Error"
    assert "no secret that its provider signs with" in status["parts"]["verification"]["detail"]
