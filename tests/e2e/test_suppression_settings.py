"""What a tenant sets and changes of its channels, and who may be contacted by then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backhaul_client.suppression import Sending
from backhaul_testing.twilio import OWN_NUMBER, TwilioSimulator, new_sid

if TYPE_CHECKING:
    from simulators.callers import InternalService
    from simulators.people import Town

ANNA, BEN, CLEO = "+15005550101", "+15005550102", "+15005550103"
OTHER_NUMBER = "+15005550007"
SERVICE, OTHER_SERVICE = "MG" + "1" * 32, "MG" + "2" * 32


async def test_a_stop_to_one_topic_leaves_the_others(town: Town, crm: InternalService) -> None:
    tenant = await town.platform.register(suppression={"revocation_scope": "topic"})
    await tenant.receive(tenant.reply(ANNA, "STOP", MessagingServiceSid=SERVICE), tenant.reply(BEN, "STOP"))
    await crm.told(tenant.id, ANNA, "stop")
    await crm.told(tenant.id, BEN, "stop")
    by_service = [Sending(messaging_service=one) for one in (SERVICE, OTHER_SERVICE, "")]
    assert [await crm.verdict(tenant.id, ANNA, one) for one in by_service] == ["stop", "allowed", "allowed"]
    by_sender = [Sending(sender=one) for one in (OWN_NUMBER, OTHER_NUMBER)]
    assert [await crm.verdict(tenant.id, BEN, one) for one in by_sender] == ["stop", "allowed"]
    (blocking,) = (await tenant.client.check(BEN, sender=OWN_NUMBER)).blocking
    assert (blocking.scope.kind, blocking.scope.id) == ("sender", OWN_NUMBER)

    # A START to one is none to another.
    to_other = new_sid()
    await tenant.receive(
        tenant.reply(ANNA, "START", MessagingServiceSid=OTHER_SERVICE, sid=to_other),
        tenant.reply(BEN, "START"),
    )
    await crm.told(tenant.id, BEN, "allowed")
    await crm.deals_with(tenant, to_other)
    assert await crm.verdict(tenant.id, ANNA) == "stop"
    await tenant.receive(tenant.reply(ANNA, "START", MessagingServiceSid=SERVICE))
    await crm.told(tenant.id, ANNA, "allowed")


async def test_whatsapp_is_a_channel_of_its_own_unless_the_tenant_says_otherwise(
    town: Town, crm: InternalService
) -> None:
    apart = await town.platform.register()
    same = await town.platform.register(suppression={"whatsapp": "phone"})
    by_whatsapp = f"whatsapp:{ANNA}"
    for tenant in (apart, same):
        await tenant.receive(tenant.reply(by_whatsapp, "STOP", To=f"whatsapp:{OWN_NUMBER}"))
        await tenant.receive(tenant.reply(BEN, "STOP"))
        await crm.told(tenant.id, by_whatsapp, "stop")
        await crm.told(tenant.id, BEN, "stop")
    everybody = [ANNA, by_whatsapp, BEN, f"whatsapp:{BEN}"]
    assert await crm.verdicts(apart.id, everybody) == ["allowed", "stop", "stop", "allowed"]
    assert await crm.verdicts(same.id, everybody) == ["stop"] * 4
    for tenant in (apart, same):
        await tenant.receive(tenant.reply(ANNA, "START"))
        await crm.deals_with(tenant)
    assert await crm.verdicts(apart.id, everybody) == ["allowed", "stop", "stop", "allowed"]
    assert await crm.verdicts(same.id, everybody) == ["allowed", "allowed", "stop", "stop"]


async def test_to_delete_and_rename_a_channel_lets_nobody_be_contacted(town: Town, crm: InternalService) -> None:
    tenant = await town.platform.register(suppression={"revocation_scope": "topic"})
    await tenant.receive(
        tenant.reply(ANNA, "STOP", MessagingServiceSid=SERVICE),
        tenant.reply(BEN, "STOP"),
        tenant.twilio.status(tenant.address("Twilio"), new_sid(), "failed", to=CLEO, ErrorCode="21610"),
    )
    verdicts = ["stop", "stop", "provider_block"]
    for person, verdict in zip((ANNA, BEN, CLEO), verdicts, strict=True):
        await crm.told(tenant.id, person, verdict)
    put = town.platform.client.put_channel

    async def suppressed() -> None:
        assert await crm.verdicts(tenant.id, [ANNA, BEN, CLEO]) == verdicts
        checks = [await tenant.client.check(person) for person in (ANNA, BEN, CLEO)]
        assert [row.kind for check in checks for row in check.blocking] == verdicts

    await town.platform.client.delete_channel(tenant.id, "Twilio")
    await suppressed()
    # The same account under another name, and another account under the old one.
    await put(tenant.id, "Texts", provider="twilio", secrets=[tenant.twilio.auth_token])
    others = TwilioSimulator()
    await put(tenant.id, "Twilio", secrets=[others.auth_token])
    hello = new_sid()
    await tenant.receive(others.inbound(tenant.address("Twilio"), hello, "hello", sender=ANNA))
    await tenant.event_of("twilio", hello)
    await suppressed()
    await town.platform.client.delete_channel(tenant.id, "SendGrid")
    await town.platform.client.delete_channel(tenant.id, "Twilio")
    await suppressed()
    # What the person says counts by whichever channel it comes.
    await tenant.receive(tenant.twilio.inbound(tenant.address("Texts"), new_sid(), "START", sender=BEN))
    await crm.told(tenant.id, BEN, "allowed")
