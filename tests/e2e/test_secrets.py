"""What providers prove themselves by is in no log, no answer and no stored callback, wherever somebody puts it."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from backhaul_testing.rbm import RbmSimulator
from backhaul_testing.sendgrid import OAuthClient, new_message_id
from backhaul_testing.waiting import until

if TYPE_CHECKING:
    from backhaul_local.stack import Stack
    from simulators.people import Town

SIGNING_KEY, PASSWORD = "a-signing-key-of-a-webhook", "a-password-of-a-webhook"
BUCKET_KEY = "a-secret-key-of-a-bucket"
SCRIPT = "<script>alert(1)</script>\r\nSet-Cookie: a=b"


async def test_no_secret_is_logged_stored_or_answered(town: Town, installation: Stack) -> None:
    tenant = await town.platform.register()
    put, client = town.platform.client.put_channel, OAuthClient()
    signed: dict[str, Any] = {"type": "hmac", "signature_header": "X-Signature"}
    password = {"username": "ann", "password": PASSWORD}
    await put(tenant.id, "SendGrid", secrets=[tenant.sendgrid.public_key, client.secret])
    await put(tenant.id, "Hook", provider="generic", settings={"proof": signed}, secrets=[SIGNING_KEY, password])
    away = {"endpoint": "http://127.0.0.1:9", "bucket": "acme-audit"}
    bucket_keys = {"access_key": "an-access-key", "secret_key": BUCKET_KEY}
    filed = {"audit": {"enabled": True, "bucket": away}}
    await put(tenant.id, "SendGrid", settings=filed, audit_credentials=bucket_keys)
    google = RbmSimulator(tenant.address("RBM"))
    await put(tenant.id, "RBM", provider="google_rbm", secrets=[google.client_token], verification="observe")

    address = f"{tenant.base_url}/in/{tenant.ingest_token}/oauth/token"
    token = await client.token(tenant.http, address)
    secrets = [client.client_secret, token, SIGNING_KEY, PASSWORD, google.client_token, BUCKET_KEY]
    everything = " ".join(secrets)
    answers: list[str] = []

    async def post(url: str, content: bytes | str, **headers: str) -> None:
        answer = await tenant.http.post(url, content=content, headers=headers)
        answers.append(answer.text + str(answer.headers))

    # Asked for a token with credentials where they do not belong, and wrongly.
    query = "&".join(f"a{number}={one}" for number, one in enumerate(secrets))
    await post(f"{address}?{query}", f"client_secret={client.client_secret}")
    await post(address, json.dumps({"client_secret": [client.client_secret]}), **{"Content-Type": "application/json"})
    basic = {"Authorization": "Basic " + base64.b64encode(f"ann:{PASSWORD}".encode()).decode()}
    await post(tenant.address("Hook"), "{}", **basic, **{"X-Signature": "00"})
    mail = tenant.sendgrid.batch(tenant.address("SendGrid"), [tenant.sendgrid.event(new_message_id(), "delivered")])
    await post(mail.url, mail.body, **dict(mail.headers), Authorization=f"Bearer {token}")
    # Shown in a header that is none of its proof's, with a body that nobody can read.
    await post(tenant.address("RBM"), "no envelope", Authorization=f"Bearer {token}", **{"X-Goog-Signature": "AA=="})

    # Google's question is answered as it was asked, as a text, to nobody but Google; and previewed to nobody.
    question = google.question(SCRIPT)
    told = await tenant.send(question)
    assert (told.status_code, told.headers["content-type"], told.text) == (200, "text/plain", SCRIPT)
    assert "set-cookie" not in told.headers
    stranger = RbmSimulator(google.address).question(SCRIPT)
    refused = await tenant.send(stranger)
    assert (refused.status_code, refused.content) == (403, b"")
    found = await tenant.client.preview("RBM", body=question.body, headers=dict(question.headers), url=question.url)
    assert (found.verification.result, found.answer.body, found.parts) == ("handshake", None, ())

    # Settings and questions that are refused.
    bodies: list[dict[str, Any]] = [
        {"secrets": [{"client_id": "a b", "client_secret": client.client_secret}]},
        {"secrets": [{"client_id": "ab", "secret": client.client_secret}, everything]},
        {"settings": {"proof": {"type": everything}}},
        {"audit_credentials": {"access_key": "a", "secret_key": BUCKET_KEY, "other": everything}},
    ]
    answers += [(await town.platform.call("PUT", f"/{tenant.id}/channels/SendGrid", body)).text for body in bodies]
    headers = {"X-Api-Key": tenant.api_key}
    for asked in ({"body": 5, "headers": {"Authorization": token}}, {"body": "", "headers": {"a": everything + "€"}}):
        url = f"{tenant.base_url}/v1/channels/SendGrid/preview"
        answers.append((await tenant.http.post(url, json=asked, headers=headers)).text)

    async def there() -> bool:
        return bool(await tenant.events(channel="sendgrid") and await tenant.dead_letters(channel="rbm"))

    await until("what was accepted", there)
    answers += [json.dumps(await tenant.read(f"/v1/dead-letters/{one.id}")) for one in await tenant.dead_letters()]
    # Who looks for what it reads in its log would find it there.
    answers.append(json.dumps(await tenant.read("/v1/suppressions")))
    answers.append(json.dumps(await tenant.read("/v1/audits")))
    answers.append(json.dumps(await tenant.read("/api/status", channelLabel="SendGrid")))
    logs = {service.name: service.log_path.read_text("utf-8", "replace") for service in installation.services}
    assert all(tenant.id in text for text in logs.values()), "they log nothing of the tenant"
    for secret in secrets:
        assert not [name for name, text in logs.items() if secret in text]
        assert not [answer for answer in answers if secret in answer]
