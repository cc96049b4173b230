"""Channels whose webhooks are read by a mapping: mPulse, Outbound Delivery, and any other."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from backhaul_testing.mapped import (
    GENERIC_SETTINGS,
    MPulseSimulator,
    OutboundDeliverySimulator,
    StandardWebhooksSimulator,
    new_id,
)
from backhaul_testing.posts import Post, over
from backhaul_testing.waiting import until

if TYPE_CHECKING:
    from backhaul_client.models import Communication
    from simulators.people import Tenant, Town

PERSON = "+15005550001"


async def _accepted(tenant: Tenant, *posts: Post) -> None:
    for post in posts:
        assert (await MPulseSimulator().deliver(over(tenant.http), post, tries=1)).outcomes == [200]


async def test_mpulse_from_the_sending_to_a_stop_and_each_post_twice(town: Town) -> None:
    tenant, neighbour = await town.platform.register(), await town.platform.register()
    mpulse = MPulseSimulator()
    for one in (tenant, neighbour):
        await town.platform.client.put_channel(one.id, "mPulse")
    address, sid = tenant.address("mPulse"), new_id("m")
    stop = mpulse.keyword("STOP")
    rows = [mpulse.status(sid, word, campaignId="spring") for word in ("Delivered", "Sent", "queued")]
    story = [mpulse.post(address, rows[:1]), mpulse.post(address, [*rows[1:], stop])]
    await _accepted(tenant, *story, *story)
    # Another tenant's message of the same id is another message.
    await _accepted(neighbour, mpulse.post(neighbour.address("mpulse"), [mpulse.status(sid, "Failed")]))

    told = await tenant.message_with("mpulse", sid, 3)
    assert (told.state, told.recipient, told.communication_id) == ("delivered", PERSON, "spring")
    assert [event.verification for event in told.timeline] == ["credential"] * 3

    async def heard() -> bool:
        return len(await tenant.events(kind="inbound")) == 1

    await until("the keyword", heard)
    (said,) = await tenant.events(kind="inbound")
    assert (said.text, said.recipient, said.message_id) == ("STOP", PERSON, stop["messageId"])
    assert said.consent is not None
    assert (said.consent.action, said.consent.by) == ("opt_out", "keyword")
    assert (await neighbour.message_with("mpulse", sid, 1)).state == "failed"
    assert len(await tenant.events()) == 4


async def test_a_field_of_another_name_is_a_dead_letter_until_the_channel_says_where_it_stands(town: Town) -> None:
    tenant = await town.platform.register()
    mpulse, sid = MPulseSimulator(("mpulse", "a long password")), new_id("m")
    secret = {"username": "mpulse", "password": "a long password"}
    await town.platform.client.put_channel(tenant.id, "mPulse", secrets=[secret])
    address = tenant.address("mPulse")
    post = mpulse.json(address, {"data": {"ref": sid, "outcome": "arrived"}})
    assert (await tenant.send(post.without_header("Authorization"))).status_code == 403
    await _accepted(tenant, post)

    async def filed() -> bool:
        return len(await tenant.dead_letters()) == 1

    await until("the dead letter", filed)
    (letter,) = await tenant.dead_letters()
    assert letter.reason == "status is not there under any usual name. Say where it stands, in mapping.status."
    settings = {
        "mapping": {"message_id": "data.ref", "status": "data.outcome"},
        "statuses": {"arrived": "delivered"},
    }
    await town.platform.client.put_channel(tenant.id, "mPulse", settings=settings)

    async def read() -> bool:
        await _accepted(tenant, post)
        return await tenant.message("mpulse", sid) is not None

    await until("the settings in the normalizer", read)
    told = await tenant.message_with("mpulse", sid, 1)
    assert (told.state, [event.verification for event in told.timeline]) == ("delivered", ["verified"])


async def test_an_offers_deliveries_are_counted_by_their_fulfilment_state(town: Town) -> None:
    tenant = await town.platform.register()
    await town.platform.client.put_channel(tenant.id, "Outbound Delivery")
    job, states = OutboundDeliverySimulator(), ("Queued", "Sent", "Delivered", "Undelivered", "Failed", "InvalidNumber")
    rows = [job.state(new_id("d"), state) for state in states]
    post = job.post(tenant.address("Outbound Delivery"), "offer-7", rows)
    await _accepted(tenant, post, post)

    async def counted() -> Communication | None:
        found = await tenant.communication("offer-7")
        return found if found is not None and found.messages == len(states) else None

    counts = await until("the offer's counts", counted)
    assert counts.fulfilment == dict.fromkeys(states, 1)


async def test_any_webhook_is_a_channel_by_its_settings(town: Town) -> None:
    tenant = await town.platform.register()
    sender, sid = StandardWebhooksSimulator(), new_id("m")
    settings: dict[str, Any] = GENERIC_SETTINGS
    await town.platform.client.put_channel(
        tenant.id, "News", provider="generic", secrets=[sender.secret], settings=settings
    )
    address = tenant.address("News")
    delivered = sender.post(address, sender.event(sid, "delivered", campaign="spring"))
    for bad in (
        delivered.without_header("webhook-signature"),
        StandardWebhooksSimulator().post(address, sender.event(sid, "failed")),
        sender.post(address, sender.event(sid, "failed"), at=int(time.time()) - 900),
        Post(address, delivered.headers, delivered.body.replace(b"delivered", b"bounced")),
    ):
        assert (await tenant.send(bad)).status_code == 403
    # Each try is signed anew, and the body stays what it is.
    await _accepted(tenant, delivered, delivered, sender.signed(address, delivered.body))
    told = await tenant.message_with("news", sid, 1)
    assert (told.state, told.recipient, told.communication_id) == ("delivered", PERSON, "spring")
    assert [event.verification for event in told.timeline] == ["verified"]
    assert len(await tenant.events()) == 1
