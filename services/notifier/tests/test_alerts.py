"""People are told by mail what befalls a subscription or a communication: the whole service, and a real mail server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
from backhaul_common.ids import derived_id
from backhaul_common.names import (
    DELIVERIES_COLLECTION,
    ENDPOINTS_COLLECTION,
    SUBSCRIPTIONS_COLLECTION,
    TENANTS_COLLECTION,
    notices_subject,
)
from backhaul_common.rpc import connect
from backhaul_common.settings import CommonSettings
from backhaul_notifier.disabling import GrpcCommunications
from backhaul_notifier.documents import ALERT
from backhaul_notifier.holding.switches import Switch
from backhaul_notifier.model import Subscription
from backhaul_notifier.subscriptions.sweeping import Sweep
from backhaul_proto.event.v1.event_pb2 import Attribute, Event
from backhaul_proto.normalizer.v1 import communications_pb2 as communications
from backhaul_proto.normalizer.v1.communications_pb2_grpc import (
    CommunicationServiceServicer,
    CommunicationServiceStub,
    add_CommunicationServiceServicer_to_server,
)
from backhaul_proto.notice.v1.notice_pb2 import About, Notice
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from backhaul_proto.tenantdata.v1 import tenantdata_pb2
from backhaul_testing.waiting import until
from calling_rig import delivery, http, subscription
from site_rig import ACME, GLOBEX, Site
from smtp_rig import Box, smtp

OPS = ["ops@example.com", "night@example.com"]


@asynccontextmanager
async def mailing(site: Site) -> AsyncIterator[Box]:
    """The service runs, and its mail goes to this box."""
    async with smtp() as (box, port):
        site.values |= {
            "notifier_smtp_host": "127.0.0.1",
            "notifier_smtp_port": port,
            "notifier_smtp_security": "none",
            "notifier_mail_from": "backhaul@example.net",
        }
        async with site.running():
            yield box


async def mails(box: Box, times: int) -> None:
    async def probe() -> bool:
        return len(box.mails) >= times

    await until(f"{times} mails", probe, within_s=30)


async def disabled_for(site: Site, subscription_id: str, name: str, notify: list[str], reason: str = "500.") -> Notice:
    """The normalizer says that a communication is disabled."""
    notice = Notice(
        id=derived_id("notice", ACME.registration, name),
        tenant_id="acme",
        registration=ACME.registration,
        type="communication.disabled",
        occurred_at_us=1_795_700_000_000_000,
        about=About(communication_id="sale", reference=subscription_id),
        text="What was to be told on behalf of a communication failed for good.",
        attributes=[Attribute(name="reason", value=reason)],
        notify=notify,
    )
    subject = notices_subject(ACME.queue_path, notice.type)
    await site.nats.jetstream().publish(subject, notice.SerializeToString())
    return notice


async def test_a_subscription_whose_endpoint_wants_no_more_is_told_to_people(site: Site) -> None:
    site.answers += [410]
    async with mailing(site) as box:
        made = await site.subscribe("*", alert_addresses=OPS)
        await site.happens("1")
        await mails(box, 1)
        mail, text = box.read(), box.part("plain")
        assert box.mails[0].rcpt_tos == OPS
        assert mail["Subject"] == "ours: Subscription disabled"
        assert "The endpoint answered 410." in text
        assert f'by its subscription "ours" ({made.id})' in text
        # The one that was answered with 410 has failed.
        (alert,) = await site.listed(1, pb.DELIVERY_STATE_DELIVERED)
        assert alert.subscription_id == ALERT + made.id
        assert (alert.type, alert.attempts) == ("subscription.disabled", 1)
        assert mail["Message-ID"] == f"<{alert.webhook_id}@example.net>"
        # It can be sent again as any delivery can, though the subscription is disabled.
        request = pb.RedeliverRequest(tenant_id="acme", delivery_id=alert.id)
        assert (await site.stub.Redeliver(request)).deliveries == 1
        await mails(box, 2)
        assert box.read(1)["Message-ID"] == mail["Message-ID"]
    assert len(site.receiver.calls) == 1


async def test_those_whom_a_communication_names_are_told_that_it_is_disabled(site: Site) -> None:
    async with mailing(site) as box:
        made = await site.subscribe("message.*", alert_addresses=OPS)
        notice = await disabled_for(site, made.id, "1", ["ann@example.com", "ben@example.com"], "It answered 500.")
        await mails(box, 1)
        text = box.part("plain")
        assert box.mails[0].rcpt_tos == ["ann@example.com", "ben@example.com"]
        assert box.read()["Subject"] == "ours: Communication disabled"
        for line in (f"What happened: {notice.text}", "Reason: It answered 500.", "Communication: sale"):
            assert line in text
        # The stream may have it again.
        subject = notices_subject(ACME.queue_path, notice.type)
        await site.nats.jetstream().publish(subject, notice.SerializeToString())
        await disabled_for(site, made.id, "2", ["ann@example.com"])
        await mails(box, 2)
    assert [mail.rcpt_tos for mail in box.mails] == [["ann@example.com", "ben@example.com"], ["ann@example.com"]]


async def test_nothing_that_is_said_writes_a_header(site: Site) -> None:
    evil = "x\r\nBcc: evil@example.org\r\n\r\nno"
    async with mailing(site) as box:
        made = await site.subscribe("message.*")
        notify = ["ann@example.com\r\nBcc: evil@example.org", "evil@example.org, x@example.org", "ann@example.com"]
        await disabled_for(site, made.id, "1", notify, evil)
        await mails(box, 1)
    (envelope,) = box.mails
    assert envelope.rcpt_tos == ["ann@example.com"]
    mail = box.read()
    assert mail["To"] == "ann@example.com"
    assert mail["Bcc"] is None
    assert "x Bcc: evil@example.org" in box.part("plain")


async def test_an_alert_that_cannot_be_sent_is_told_to_nobody(site: Site) -> None:
    async with mailing(site) as box:
        box.refuses = dict.fromkeys(OPS, "550 No such user")
        made = await site.subscribe("message.*", alert_addresses=OPS)
        all_ = await site.subscribe("subscription.*", "communication.*", alert_addresses=OPS)
        site.answers += [410]
        await site.happens("1")
        await site.called(2)

        async def tried() -> Any:
            found = await site.deliveries(subscription_id=ALERT + made.id)
            return found if found and found[0].attempts else None

        (alert,) = await until("the mail to be tried", tried, within_s=30)
        assert (alert.state, alert.last_attempt.error) == (pb.DELIVERY_STATE_WAITING, "mail_refused")
        endpoint = await site.database[ENDPOINTS_COLLECTION].find_one({"_id": ALERT + made.id})
        assert endpoint is not None
        assert endpoint["active"]
        # All that was ever said is that the one was disabled, to the other and to people.
        assert [one.type for one in await site.deliveries(subscription_id=all_.id)] == ["subscription.disabled"]
        assert len(await site.deliveries()) == 3
    assert box.mails == []


async def test_nothing_is_left_of_alerts_when_the_subscription_or_the_tenant_is_deleted(site: Site) -> None:
    async def stored(collection: str) -> int:
        count: int = await site.database[collection].count_documents({"registration": ACME.registration})
        return count

    async with mailing(site) as box:
        box.refuses = {"ann@example.com": "451 Later"}
        first, second = await site.subscribe("message.*"), await site.subscribe("reply.*")
        for made in (first, second):
            await disabled_for(site, made.id, made.id, ["ann@example.com"])
            assert (await site.listed(1, pb.DELIVERY_STATE_WAITING))[0].subscription_id == ALERT + made.id
            await site.stub.DeleteSubscription(pb.DeleteSubscriptionRequest(tenant_id="acme", id=made.id))
            if made is first:
                long_ago = {"$set": {"updated_at_us": 1}}
                await site.database[SUBSCRIPTIONS_COLLECTION].update_one({"_id": made.id}, long_ago)
                await Sweep(site.database, lambda: 10**15).once()
                assert [await stored(name) for name in (DELIVERIES_COLLECTION, ENDPOINTS_COLLECTION)] == [0, 1]
        await site.database[TENANTS_COLLECTION].update_one({"_id": "acme"}, {"$set": {"status": "deleting"}})
        purge = tenantdata_pb2.PurgeTenantRequest(tenant_id="acme", registration=ACME.registration)
        await site.data.PurgeTenant(purge)
        assert await site.stored(ACME) == {}
        assert await site.stored(GLOBEX) == {}


class Told(CommunicationServiceServicer):
    """Takes what the normalizer is asked to disable."""

    def __init__(self) -> None:
        self.requests: list[communications.DisableCommunicationRequest] = []

    async def DisableCommunication(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        self.requests.append(request)
        latest = communications.Switched(disabled=True, at_us=7)
        before = communications.Switched(disabled=False, at_us=6)
        info = communications.CommunicationInfo(switched=[latest, before])
        return communications.DisableCommunicationResponse(communication=info)


async def test_the_normalizer_is_told_for_which_subscription_it_disables() -> None:
    """Without it nothing would be said of it, and so nobody told."""
    told = cast("Any", Told)()
    server = grpc.aio.server()
    add_CommunicationServiceServicer_to_server(told, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    ours = subscription(http("https://example.com/"))
    heard: list[Switch] = []

    async def noted(switch: Switch) -> None:
        heard.append(switch)

    async def known(_: Subscription, said: Event | Notice) -> str:
        # Of an event without a communication it became known later; that is asked of the normalizer.
        assert isinstance(said, Event)
        return said.communication_id or {"SM1": "later"}.get(said.message_id, "")

    try:
        async with connect(f"127.0.0.1:{port}", CommonSettings()) as channel:
            disabling = GrpcCommunications(CommunicationServiceStub(channel), known, noted)
            await disabling.disable(ours, delivery(said=Event(communication_id="sale")), "It answered 500.")
            await disabling.disable(ours, delivery(said=Event(message_id="SM1")), "It answered 500.")
            await disabling.disable(ours, delivery(said=Event(message_id="SM2")), "It answered 500.")
            # That it was so is said on behalf of nobody.
            await disabling.disable(ours, delivery("communication.disabled"), "It answered 500.")
    finally:
        await server.stop(None)
    assert heard == [Switch("acme", ours.registration, id_, True, 7) for id_ in ("sale", "later")]
    request, later = told.requests
    assert (request.tenant_id, request.communication_id) == ("acme", "sale")
    assert (later.tenant_id, later.communication_id) == ("acme", "later")
    assert (request.subscription_id, request.reason) == (ours.id, "It answered 500.")
