"""Subscriptions and deliveries through the gateway and the notifier, as a tenant's application asks for them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from backhaul_client import FailedPreconditionError, InvalidArgumentError, NotFoundError
from backhaul_testing.waiting import until

if TYPE_CHECKING:
    from backhaul_client.notificationmodels import Delivery, Subscription
    from backhaul_client.notifications import FilterIn, HttpIn
    from simulators.people import Town

HTTP: HttpIn = {
    "url": "https://example.com/told",
    "credentials": {"basic": {"username": "backhaul", "password": "secret"}},
}


async def test_what_one_is_told_and_nobody_else(town: Town) -> None:
    mallory, victim = await town.platform.register(), await town.platform.register()
    own, other = victim.client, mallory.client
    types = [one.type for one in await own.subscriptions.types()]
    assert {"message.sent", "reply.received", "audit.digest"} < set(types)
    with pytest.raises(InvalidArgumentError) as refused:
        await own.subscriptions.create(["message.snet"], http=HTTP)
    assert [error.field for error in refused.value.errors] == ["types[0]"]

    made = await own.subscriptions.create(["message.*"], http=HTTP, idempotency_key="one")
    assert made.secrets[0].secret
    assert (await own.subscriptions.create(["message.*"], http=HTTP, idempotency_key="one")).id == made.id
    assert [one.id async for one in own.subscriptions.list()] == [made.id]
    assert (await own.subscriptions.get(made.id)).secrets[0].secret is None
    assert (await own.subscriptions.pause(made.id)).state == "paused"

    address = victim.address("Twilio", communicationId="spring-sale")
    assert (await victim.send(victim.twilio.status(address, "SM0001", "sent"))).status_code == 200
    message = await victim.message_with("twilio", "SM0001", 1)

    async def told() -> list[Delivery] | None:
        return [one async for one in own.deliveries.list(channel="twilio", message_id="SM0001")] or None

    (delivery,) = await until("the delivery", told)
    assert (delivery.state, delivery.type, delivery.attempts) == ("waiting", "message.sent", 0)
    assert [one["id"] for one in (await victim.get(message.deliveries)).json()["deliveries"]] == [delivery.id]
    assert (await own.deliveries.get(delivery.id)).history == ()
    since = datetime.now(UTC) - timedelta(hours=1)
    missing = await own.subscriptions.redeliver(made.id, "never_attempted", from_=since, dry_run=True)
    assert missing.deliveries == 1

    # Another tenant sees and changes none of it.
    assert [one async for one in other.subscriptions.list()] == []
    assert [one async for one in other.deliveries.list()] == []
    for hidden in (
        other.subscriptions.get(made.id),
        other.subscriptions.replace(made.id, ["*"], http=HTTP),
        other.subscriptions.pause(made.id),
        other.subscriptions.resume(made.id),
        other.subscriptions.rotate_secret(made.id),
        other.subscriptions.test(made.id),
        other.subscriptions.redeliver(made.id, "all", from_=since),
        other.subscriptions.delete(made.id),
        other.deliveries.get(delivery.id),
        other.deliveries.redeliver(delivery.id),
    ):
        with pytest.raises(NotFoundError):
            await hidden

    rotated = await own.subscriptions.rotate_secret(made.id, kind="ed25519")
    assert {one.kind for one in rotated.secrets} == {"hmac", "ed25519"}
    changed = await own.subscriptions.replace(made.id, ["*"], http=HTTP, name="All", revision=rotated.revision)
    assert (changed.name, changed.types, changed.state) == ("All", ("*",), "paused")
    with pytest.raises(FailedPreconditionError):
        await own.subscriptions.replace(made.id, ["*"], http=HTTP, revision=rotated.revision)
    await own.subscriptions.delete(made.id)
    with pytest.raises(NotFoundError):
        await own.subscriptions.get(made.id)


async def test_what_came_before_its_communication_was_known_is_told_to_who_asks_for_that(town: Town) -> None:
    tenant = await town.platform.register()
    own = tenant.client
    await own.communications.put("spring-sale")
    # What it finds is held, and so nothing is called.
    await own.communications.disable("spring-sale", reason="Only looking.")
    asks: FilterIn = {"communication_ids": ["spring-sale"]}
    asking = await own.subscriptions.create(["message.*"], http=HTTP, policy={"kind": "dispatch"}, filter=asks)
    # It is told of everything, and so shows when the early one was enqueued for both.
    other = await own.subscriptions.create(["message.*"], http=HTTP)
    await own.subscriptions.pause(other.id)
    early = tenant.twilio.status(tenant.address("Twilio"), "SM0001", "sent")
    assert (await tenant.send(early)).status_code == 200
    await tenant.message_with("twilio", "SM0001", 1)

    async def listed(subscription: Subscription) -> list[Delivery]:
        return [one async for one in own.deliveries.list(subscription_id=subscription.id)]

    async def waits() -> bool:
        return [one.communication_id for one in await listed(other)] == [None]

    await until("the early one to wait", waits)
    assert await listed(asking) == []  # Nobody knows yet whether it is wanted.
    address = tenant.address("Twilio", communicationId="spring-sale")
    assert (await tenant.send(tenant.twilio.status(address, "SM0001", "delivered"))).status_code == 200

    async def both() -> list[Delivery] | None:
        found = [one for one in await listed(asking) if one.state == "held"]
        return found if len(found) > 1 else None

    found = await until("both to be held", both, within_s=60.0)
    assert {(one.type, one.communication_id) for one in found} == {
        ("message.sent", "spring-sale"),
        ("message.delivered", "spring-sale"),
    }


async def test_what_is_of_a_communication_is_held_while_its_tenant_has_it_disabled(town: Town) -> None:
    tenant = await town.platform.register()
    own = tenant.client
    await own.subscriptions.create(["message.*"], http=HTTP, policy={"kind": "dispatch"})
    noticed = await own.subscriptions.create(["communication.*"], http=HTTP)
    await own.subscriptions.pause(noticed.id)
    await own.communications.put("spring-sale")
    await own.communications.disable("spring-sale", reason="Wrong shop.")

    async def types(*expected: str) -> None:
        async def probe() -> bool:
            return [one.type async for one in own.deliveries.list(subscription_id=noticed.id)] == list(expected)

        await until(f"{expected} to be told", probe)

    await types("communication.disabled")
    address = tenant.address("Twilio", communicationId="spring-sale")
    assert (await tenant.send(tenant.twilio.status(address, "SM0001", "sent"))).status_code == 200

    async def held() -> list[Delivery] | None:
        return [one async for one in own.deliveries.list(state="held")] or None

    (delivery,) = await until("the delivery to be held", held)
    assert (delivery.attempts, delivery.communication_id, delivery.next_attempt_at) == (0, "spring-sale", None)
    await own.communications.enable("spring-sale")
    await types("communication.enabled", "communication.disabled")

    async def tried() -> Delivery | None:
        found = await own.deliveries.get(delivery.id)
        return found if found.attempts else None

    assert (await until("it to be tried", tried)).state == "waiting"
    assert await held() is None
