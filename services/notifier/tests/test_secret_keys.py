"""What subscriptions keep encrypted comes under another key, and works when the one before is gone."""

from __future__ import annotations

import json
from typing import Any

from backhaul_common.names import SUBSCRIPTIONS_COLLECTION
from backhaul_common.secrets import SecretBox
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from backhaul_proto.secretkeys.v1.secretkeys_pb2 import RenewSecretsRequest, RenewSecretsResponse
from cryptography.fernet import Fernet
from site_rig import Site
from standardwebhooks.webhooks import Webhook
from subscriptions_rig import key_pair

BEARER = "a-bearer-token"


def tokens_in(value: Any) -> list[str]:
    """Every text of a document that is encrypted, wherever it stands."""
    if isinstance(value, dict):
        return [one for each in value.values() for one in tokens_in(each)]
    if isinstance(value, list):
        return [one for each in value for one in tokens_in(each)]
    return [value] if isinstance(value, str) and value.startswith("gAAAA") else []


async def test_every_secret_of_a_subscription_follows_the_ring(site: Site) -> None:
    old, new = site.values["secret_keys"], Fernet.generate_key().decode()
    certificate, private_key = key_pair()
    oauth = pb.OAuthCredentials(token_url=site.receiver.url("/token"), client_id="us", client_secret="theirs")
    kinds = [
        pb.Credentials(bearer_token=BEARER),
        pb.Credentials(basic=pb.BasicCredentials(username="us", password="a-password")),
        pb.Credentials(header=pb.HeaderCredentials(name="x-key", value="a-value")),
        pb.Credentials(oauth=oauth),
        pb.Credentials(mutual_tls=pb.MutualTls(certificate=certificate, private_key=private_key)),
    ]

    async def renewed(*, look: bool = False) -> RenewSecretsResponse:
        request = RenewSecretsRequest(key_id=SecretBox([new]).key_id, look=look)
        answer: RenewSecretsResponse = await site.secret_keys.RenewSecrets(request)
        assert not answer.next
        return answer

    def asked(number: int, credentials: pb.Credentials) -> pb.CreateSubscriptionRequest:
        # The others would be told over TLS, or ask for a token: one is enough to see that what is told goes on.
        types = ["message.delivered"] if number == 0 else ["message.clicked"]
        url = site.receiver.url("/hook") if number < 4 else "https://127.0.0.1:9/hook"
        destination = pb.HttpDestination(method=pb.HTTP_METHOD_POST, url=url, credentials=credentials)
        definition = pb.Definition(name=f"{number}", types=types, http=destination)
        return pb.CreateSubscriptionRequest(tenant_id="acme", definition=definition, idempotency_key=f"{number}")

    requests = [asked(number, credentials) for number, credentials in enumerate(kinds)]
    async with site.running():
        made = [await site.stub.CreateSubscription(request) for request in requests]
        rotate = pb.RotateSecretRequest(
            tenant_id="acme", id=made[1].subscription.id, kind=pb.SECRET_KIND_ED25519, grace_s=3600
        )
        await site.stub.RotateSecret(rotate)
    rows = site.database[SUBSCRIPTIONS_COLLECTION]
    before = await rows.find({}).sort("_id", 1).to_list(None)
    secrets = sum(len(tokens_in(row)) for row in before)
    assert secrets == 5 * 3 + 1

    site.values["secret_keys"] = f"{new},{old}"
    async with site.running():
        assert (await renewed(look=True)).older == secrets
        assert await rows.find({}).sort("_id", 1).to_list(None) == before
        assert (await renewed()).renewed == secrets
        again = await renewed()
        assert (again.current, again.renewed, again.older, list(again.unreadable)) == (secrets, 0, 0, [])
        # A copy that holds what was read before tells as ever.
        await site.happens("1")
        (first,) = await site.called(1)
    after = await rows.find({}).sort("_id", 1).to_list(None)
    box = SecretBox([new]).of("subscriptions")
    for row, was in zip(after, before, strict=True):
        assert all(box.decrypt(token).startswith(row["_id"]) for token in tokens_in(row))
        text = json.dumps(row, default=repr)
        for token, former in zip(tokens_in(row), tokens_in(was), strict=True):
            assert token != former
            text = text.replace(token, former)
        # Nothing else has changed, the revision neither.
        assert text == json.dumps(was, default=repr)

    site.values["secret_keys"] = new
    async with site.running():
        await site.happens("2")
        second = (await site.called(2))[1]
        for call in (first, second):
            assert call.headers["authorization"] == f"Bearer {BEARER}"
            Webhook(made[0].subscription.secrets[0].secret).verify(call.body, call.headers)
        # What an idempotency key was given for is known, and an update keeps what it leaves empty.
        for request, one in zip(requests, made, strict=True):
            found = (await site.stub.CreateSubscription(request)).subscription
            assert (found.id, found.revision > 0) == (one.subscription.id, True)
            definition = found.definition
            definition.name = f"{definition.name} renamed"
            await site.stub.UpdateSubscription(
                pb.UpdateSubscriptionRequest(tenant_id="acme", id=found.id, definition=definition)
            )
        assert (await renewed()).current == secrets
