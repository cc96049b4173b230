"""The whole service in this process: what happens reaches an endpoint, by real streams, a real database and HTTP."""

from __future__ import annotations

import json

from backhaul_common.ids import derived_id
from backhaul_common.names import (
    DELIVERIES_COLLECTION,
    SWITCHED_COLLECTION,
    TENANTS_COLLECTION,
    notices_subject,
)
from backhaul_proto.notice.v1.notice_pb2 import About, Notice
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from backhaul_proto.tenantdata.v1 import tenantdata_pb2
from backhaul_testing.waiting import until
from site_rig import ACME, GLOBEX, Site
from standardwebhooks.webhooks import Webhook


async def test_what_happens_is_told_once_and_signed_and_can_be_told_again(site: Site) -> None:
    async with site.running():
        made = await site.subscribe("message.*")
        await site.happens("1")
        (call,) = await site.called(1)
        said = json.loads(call.body)
        assert (said["type"], said["data"]["message_id"]) == ("message.delivered", "SM1")
        assert call.head.startswith("POST /hook?of=us ")
        (delivery,) = await site.listed(1, pb.DELIVERY_STATE_DELIVERED)
        assert (delivery.subscription_id, delivery.type) == (made.id, "message.delivered")
        assert (delivery.attempts, delivery.last_attempt.status) == (1, 200)
        headers = call.headers
        assert headers["webhook-id"] == delivery.webhook_id
        Webhook(made.secrets[0].secret).verify(call.body, headers)

        request = pb.RedeliverRequest(tenant_id="acme", delivery_id=delivery.id)
        assert (await site.stub.Redeliver(request)).deliveries == 1
        again = (await site.called(2))[1]
        assert (again.headers["webhook-id"], again.body) == (delivery.webhook_id, call.body)
        (delivery,) = await site.listed(1, pb.DELIVERY_STATE_DELIVERED)
        shown = await site.stub.GetDelivery(pb.GetDeliveryRequest(tenant_id="acme", id=delivery.id))
        assert [attempt.status for attempt in shown.attempts] == [200, 200]
        assert shown.attempts[0].request == f"POST {site.receiver.url('/hook')}"
    assert len(site.receiver.calls) == 2


async def test_a_test_call_fills_the_address_though_nobody_knows_its_member(site: Site) -> None:
    path = "/${first_name}/${id}?of=${environment.shop}&kind=${event.kind}&p=${event.vars.p x}&c=${communicationId}"
    definition = pb.Definition(types=["message.*"], http=pb.HttpDestination(url=site.receiver.url(path)))
    async with site.running():
        request = pb.CreateSubscriptionRequest(tenant_id="acme", definition=definition)
        made = (await site.stub.CreateSubscription(request)).subscription
        asked = pb.TestSubscriptionRequest(tenant_id="acme", id=made.id, type="message.delivered")
        attempt = (await site.stub.TestSubscription(asked)).attempt
    assert (attempt.status, attempt.error) == (200, "")
    (call,) = site.receiver.calls
    assert call.head.split(" ")[1] == "/first_name/SM0001?of=shop&kind=delivered&p=p%20x&c=spring-sale"


async def test_nothing_is_told_of_one_tenant_to_another(site: Site) -> None:
    async with site.running():
        await site.subscribe("*")
        theirs = await site.subscribe("*", tenant="globex")
        await site.happens("1", of=GLOBEX)
        (call,) = await site.called(1)
        (delivery,) = await site.listed(1, pb.DELIVERY_STATE_DELIVERED, "globex")
        assert (delivery.subscription_id, delivery.webhook_id) == (theirs.id, call.headers["webhook-id"])
        assert await site.deliveries() == []
        usage = tenantdata_pb2.GetUsageRequest(tenant_id="globex", registration=GLOBEX.registration)
        kept = {row.kind: row.count for row in (await site.data.GetUsage(usage)).usage}
        assert kept == {"subscriptions": 1, "deliveries": 1}


async def test_what_happens_while_it_is_paused_waits_and_comes_in_order(site: Site) -> None:
    async with site.running():
        made = await site.subscribe("message.delivered", ordering=pb.ORDERING_RECIPIENT)
        await site.happens("0")
        await site.called(1)
        paused = (
            await site.stub.PauseSubscription(pb.PauseSubscriptionRequest(tenant_id="acme", id=made.id))
        ).subscription
        assert paused.state == pb.SUBSCRIPTION_STATE_PAUSED
        numbers = [str(number) for number in range(1, 21)]
        await site.happens(*numbers)
        await site.listed(20, pb.DELIVERY_STATE_WAITING)
    # It is paused for a service that starts anew as well.
    async with site.running():
        resumed = await site.stub.ResumeSubscription(pb.ResumeSubscriptionRequest(tenant_id="acme", id=made.id))
        assert resumed.subscription.state == pb.SUBSCRIPTION_STATE_ACTIVE
        told = [json.loads(call.body)["data"]["message_id"] for call in await site.called(21)]
        assert told == [f"SM{number}" for number in ["0", *numbers]]
        await site.listed(21, pb.DELIVERY_STATE_DELIVERED)
    assert len(site.receiver.calls) == 21


async def test_what_fails_is_tried_again_under_the_same_id(site: Site) -> None:
    site.answers += [500]
    policy = pb.Policy(kind=pb.POLICY_KIND_CUSTOM, retry_after_s=[1, 1])
    async with site.running():
        made = await site.subscribe("channel.silent", policy=policy)
        notice = Notice(
            id=derived_id("notice", ACME.registration, "1"),
            tenant_id="acme",
            registration=ACME.registration,
            type="channel.silent",
        )
        notice.about.channel = "twilio"
        subject = notices_subject(ACME.queue_path, notice.type)
        await site.nats.jetstream().publish(subject, notice.SerializeToString())
        first, second = await site.called(2)
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert first.body == second.body
        (delivery,) = await site.listed(1, pb.DELIVERY_STATE_DELIVERED)
        assert (delivery.attempts, delivery.subscription_id, delivery.event_id) == (2, made.id, notice.id)
        row = await site.database[DELIVERIES_COLLECTION].find_one({"_id": bytes.fromhex(delivery.id)})
        assert row is not None
        assert [one["status"] for one in row["tries"]] == [500, 200]


async def test_nothing_is_left_of_a_tenant_that_is_deleted(site: Site) -> None:
    async with site.running():
        for tenant in ("acme", "globex"):
            await site.subscribe("*", tenant=tenant)
        await site.happens("1")
        await site.happens("1", of=GLOBEX)
        await site.listed(1, pb.DELIVERY_STATE_DELIVERED)
        await site.listed(1, pb.DELIVERY_STATE_DELIVERED, "globex")
        theirs = await site.stored(GLOBEX)
        assert await site.stored(ACME) == theirs
        assert {"subscriptions", "endpoints", "deliveries"} <= theirs.keys()
        await site.database[TENANTS_COLLECTION].update_one({"_id": "acme"}, {"$set": {"status": "deleting"}})
        purge = tenantdata_pb2.PurgeTenantRequest(tenant_id="acme", registration=ACME.registration)
        assert (await site.data.PurgeTenant(purge)).deleted == sum(theirs.values())
        assert await site.stored(ACME) == {}
        assert await site.stored(GLOBEX) == theirs


async def test_what_is_of_a_disabled_communication_is_held_and_sent_when_it_is_enabled(site: Site) -> None:
    async def switched(disabled: bool, at_us: int) -> None:
        notice = Notice(
            id=derived_id("notice", ACME.registration, str(at_us)),
            tenant_id="acme",
            registration=ACME.registration,
            type="communication.disabled" if disabled else "communication.enabled",
            occurred_at_us=at_us,
            about=About(communication_id="sale"),
        )
        subject = notices_subject(ACME.queue_path, notice.type)
        await site.nats.jetstream().publish(subject, notice.SerializeToString())

        async def known() -> bool:
            return bool(await site.database[SWITCHED_COLLECTION].count_documents({"disabled": disabled}))

        await until("the switch to be known", known, within_s=30)

    async with site.running():
        policy = pb.Policy(kind=pb.POLICY_KIND_DISPATCH)
        made = await site.subscribe("message.*", policy=policy, ordering=pb.ORDERING_RECIPIENT)
        await site.subscribe("message.*", "communication.*")
        await switched(True, 1)
        numbers = [str(number) for number in range(20)]
        await site.happens(*numbers, communication_id="sale")
        await site.listed(20, pb.DELIVERY_STATE_HELD)
        held = await site.deliveries(state=pb.DELIVERY_STATE_HELD, subscription_id=made.id)
        assert {(one.attempts, one.next_attempt_at_us) for one in held} == {(0, 0)}
        # What the other subscription is told waits for its own turn until then.
        await site.listed(20 + 1, pb.DELIVERY_STATE_DELIVERED)
        assert len(await site.deliveries(never_attempted=True)) == 20
        await site.happens("of another")
        await site.listed(1 + 21 + 1, pb.DELIVERY_STATE_DELIVERED)
    async with site.running():
        await switched(False, 2)
        await site.listed(20 + 23 + 1, pb.DELIVERY_STATE_DELIVERED)
        told = [one for one in await site.deliveries(subscription_id=made.id, page_size=100) if one.communication_id]
        assert {one.attempts for one in told} == {1}
    ids = {one.webhook_id for one in told}
    bodies = [json.loads(call.body) for call in site.receiver.calls if call.headers["webhook-id"] in ids]
    assert [body["data"]["message_id"] for body in bodies] == [f"SM{number}" for number in numbers]
    assert len(await site.database[SWITCHED_COLLECTION].find({"held": []}).to_list(None)) == 1
