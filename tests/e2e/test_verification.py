"""Whether a callback is the provider's: enforced, observed, or off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backhaul_testing.sendgrid import SendGridSimulator, new_message_id
from backhaul_testing.twilio import TwilioSimulator, new_sid

if TYPE_CHECKING:
    from backhaul_testing.posts import Post
    from simulators.people import Tenant, Town


def _forgeries(tenant: Tenant) -> dict[str, Post]:
    """Posts that only look like the providers', each of another message."""
    impostor, other_webhook = TwilioSimulator(), SendGridSimulator()
    form = tenant.twilio.status(tenant.address("Twilio"), new_sid(), "sent")
    elsewhere = tenant.twilio.status(tenant.address("Twilio", extra="1"), new_sid(), "sent")
    mail = tenant.sendgrid
    events = mail.batch(tenant.address("SendGrid"), [mail.event(new_message_id(), "delivered")])
    changed = mail.batch(tenant.address("SendGrid"), [mail.event(new_message_id(), "delivered")])
    return {
        "another account": impostor.status(tenant.address("Twilio"), new_sid(), "sent"),
        "no signature": form.without_header("X-Twilio-Signature"),
        "another address": type(form)(elsewhere.url.replace("extra=1", "extra=2"), elsewhere.headers, elsewhere.body),
        "another webhook": other_webhook.batch(
            tenant.address("SendGrid"), [other_webhook.event(new_message_id(), "delivered")]
        ),
        "a changed body": type(changed)(changed.url, changed.headers, changed.body.replace(b"delivered", b"processed")),
        "a moved time": events.with_header("X-Twilio-Email-Event-Webhook-Timestamp", "1700000000"),
    }


async def test_enforce_refuses_every_forgery_and_stores_nothing_of_it(town: Town) -> None:
    tenant = await town.platform.register()
    for name, post in _forgeries(tenant).items():
        answer = await tenant.send(post)
        assert answer.status_code == 403, name
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["errors"][0]["field"] == "signature"
    genuine = new_sid()
    assert (await tenant.send(tenant.twilio.status(tenant.address("Twilio"), genuine, "sent"))).status_code == 200
    await tenant.message_with("twilio", genuine, 1)
    assert [row.message_id for row in await tenant.messages()] == [genuine]
    assert await tenant.dead_letters() == []


async def test_observe_accepts_and_marks_every_forgery(town: Town) -> None:
    tenant = await town.platform.register(verification="observe")
    forgeries = _forgeries(tenant)
    for name, post in forgeries.items():
        assert (await tenant.send(post)).status_code == 200, name
    genuine = new_sid()
    assert (await tenant.send(tenant.twilio.status(tenant.address("Twilio"), genuine, "sent"))).status_code == 200
    await tenant.message_with("twilio", genuine, 1)

    from backhaul_testing.waiting import until

    async def all_there() -> bool:
        return len(await tenant.events()) == len(forgeries) + 1

    await until("every forged event", all_there)
    marks = {row.message_id: row.verification for row in await tenant.events()}
    assert marks.pop(genuine) == "verified"
    assert set(marks.values()) == {"observed_invalid"}
    refused = {
        label: (await tenant.client.channel_status(label)).parts.verification.refused
        for label in ("Twilio", "SendGrid")
    }
    assert refused == {"Twilio": 3, "SendGrid": 3}


async def test_off_asks_for_no_signature_and_says_so(town: Town) -> None:
    tenant = await town.platform.register(verification="off")
    sid = new_sid()
    post = tenant.twilio.status(tenant.address("Twilio"), sid, "sent").without_header("X-Twilio-Signature")
    assert (await tenant.send(post)).status_code == 200
    message = await tenant.message_with("twilio", sid, 1)
    assert [event.verification for event in message.timeline] == ["off"]


async def test_twilio_may_sign_the_address_in_any_of_its_spellings(town: Town) -> None:
    tenant = await town.platform.register()
    host = tenant.base_url.removeprefix("http://")
    with_user = f"http://{tenant.id}:{tenant.api_key}@{host}/api/postevents?channelLabel=Twilio"
    without_port = tenant.address("Twilio").replace(host, host.partition(":")[0])
    sids = [new_sid() for _ in range(3)]
    fields = {"MessageSid": sids[2], "MessageStatus": "sent"}
    material = with_user + "".join(name + fields[name] for name in sorted(fields))
    posts = [
        # The user and password that the address holds are sent as a credential, and not signed...
        tenant.twilio.status(with_user, sids[0], "sent"),
        # ...the port is left out by some of Twilio's products...
        tenant.twilio.status(without_port, sids[1], "sent"),
        # ...and others sign the user and password as well.
        tenant.twilio.form(with_user, fields).with_header("X-Twilio-Signature", tenant.twilio.sign(material)),
    ]
    posts[1] = type(posts[1])(tenant.address("Twilio"), posts[1].headers, posts[1].body)
    for post in posts:
        answer = await tenant.send(post)
        assert answer.status_code == 200, answer.text
    for sid in sids:
        await tenant.message_with("twilio", sid, 1)
    # A key in the address is kept nowhere.
    assert tenant.api_key not in str(await tenant.events())


async def test_what_a_client_says_about_its_own_address_is_not_believed(town: Town) -> None:
    tenant = await town.platform.register()
    attacker_signed = tenant.twilio.status(
        tenant.address("Twilio").replace(tenant.base_url, "https://evil.example"), new_sid(), "sent"
    )
    post = type(attacker_signed)(tenant.address("Twilio"), attacker_signed.headers, attacker_signed.body)
    for name, value in (
        ("X-Forwarded-Host", "evil.example"),
        ("X-Original-Host", "evil.example"),
        ("Forwarded", "host=evil.example;proto=https"),
        ("Host", "evil.example"),
    ):
        forged = post.with_header(name, value).with_header("X-Forwarded-Proto", "https")
        assert (await tenant.send(forged)).status_code == 403, name
