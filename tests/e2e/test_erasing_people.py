"""A person is erased from every service of a whole stack, and no service has logged them, or what they wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from backhaul_testing.sendgrid import new_message_id
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until
from simulators.archive import Archive, ask_for_files, filed

if TYPE_CHECKING:
    from backhaul_local.stack import Stack
    from simulators.people import Tenant, Town

Json = dict[str, Any]

ANN, BEN = "+15005550471", "+15005550472"
MAIL = "Ann.Erased@Example.com"
WORDS = "I live at Elm Row 71"
SERVICES = ["audit", "normalizer", "notifier", "reconciler", "suppression"]


async def _erase(tenant: Tenant, address: str) -> Json:
    """The receipt; asked for again as long as more is left."""

    async def probe() -> Json | None:
        url = f"{tenant.base_url}/v1/recipients/{quote(address)}"
        answer = await tenant.http.delete(url, headers={"X-Api-Key": tenant.api_key})
        assert answer.status_code in (200, 503), answer.text
        return answer.json() if answer.status_code == 200 else None

    return await until("an erasure", probe, within_s=60, pause_s=1)


async def _tell(tenant: Tenant, sid: str) -> None:
    """All that may be told of a person, in whatever way, some of it wrongly."""
    texts = tenant.address("Twilio", communicationId="spring", who=MAIL)
    await tenant.receive(
        tenant.twilio.status(texts, sid, "delivered", to=f"whatsapp:{ANN}"),
        tenant.twilio.status(texts, new_sid(), "failed", to=ANN, ErrorCode="30006"),
        tenant.reply(ANN, WORDS),
        tenant.reply(ANN, "STOP"),
        tenant.twilio.status(texts, new_sid(), "delivered", to=BEN),
        tenant.sendgrid.batch(
            tenant.address("SendGrid"), [tenant.sendgrid.event(new_message_id(), "delivered", email=MAIL)]
        ),
    )
    headers = {"X-Api-Key": tenant.api_key}
    http, url = tenant.http, tenant.base_url
    await http.post(tenant.address("Twilio"), content=f"To={ANN}&Body={WORDS}")
    await http.get(f"{url}/v1/messages", params={"recipient": ANN}, headers=headers)
    await http.get(f"{url}/v1/recipients/{quote(ANN)}", headers=headers)
    await http.get(f"{url}/v1/suppressions/address", params={"address": MAIL}, headers=headers)
    await http.post(f"{url}/v1/suppressions/check", json={"address": ANN, "purpose": "x"}, headers=headers)
    await http.post(f"{url}/v1/channels/Twilio/preview", json={"body": f"To={ANN}&Body={WORDS}"}, headers=headers)
    member = [{"member_key": "ann", "attributes": {"mail": MAIL}, "destinations": [{"recipient": ANN}]}]
    await http.put(f"{url}/v1/communications/spring", json={"name": "Spring", "channel": "Twilio"}, headers=headers)
    await http.put(f"{url}/v1/communications/spring/batches/spring-{tenant.id}", json={}, headers=headers)
    await http.post(f"{url}/v1/batches/spring-{tenant.id}/members", json=member, headers=headers)
    sent = [{"channel": "Twilio", "status": "refused", "recipient": ANN, "id": "order-1", "error_text": WORDS}]
    await http.post(f"{url}/v1/sends", json=sent, headers=headers)


async def test_a_person_is_erased_from_every_service_and_in_no_log(
    storing_town: Town, storing_installation: Stack, archive: Archive
) -> None:
    tenant = await storing_town.platform.register()
    await ask_for_files(storing_town.platform, tenant, "Twilio", encrypt_people=True)
    subscription = {"types": ["*"], "http": {"url": "http://127.0.0.1:9/nobody"}}
    headers = {"X-Api-Key": tenant.api_key}
    await tenant.http.post(f"{tenant.base_url}/v1/subscriptions", json=subscription, headers=headers)
    await _tell(tenant, sid := new_sid())
    await filed(tenant, 5)

    async def suppressed() -> bool:
        return not (await tenant.client.check(ANN)).allowed

    await until("the opt-out", suppressed)
    receipt = await _erase(tenant, ANN)
    by_name = {one["service"]: one for one in receipt["services"]}
    assert sorted(by_name) == SERVICES
    assert by_name["normalizer"]["erased"]["messages"] >= 4
    assert by_name["audit"]["erased"] == {"keys": 1}
    assert receipt["complete"]
    assert by_name["notifier"]["erased"]["deliveries"] >= 4
    assert "suppressions" in {one["kind"] for one in by_name["suppression"]["kept"]}
    assert all(one["until"] for one in receipt["streams"])
    assert not await tenant.messages(recipient=ANN)
    assert len(await tenant.messages(recipient=BEN)) == 1
    assert await suppressed()
    kept = await tenant.message("twilio", sid)
    assert kept is not None
    assert (kept.state, kept.recipient, kept.timeline[0].kind) == ("delivered", "", "delivered")
    await _erase(tenant, MAIL)
    assert not await tenant.messages(recipient=MAIL)

    logs = {one.name: one.log_path.read_text("utf-8", "replace") for one in storing_installation.services}
    assert all(tenant.id in text for text in logs.values()), "they log nothing of the tenant"
    for personal in (ANN[1:], BEN[1:], MAIL, MAIL.lower(), quote(MAIL), WORDS, "Elm Row"):
        assert not [name for name, text in logs.items() if personal in text], personal
