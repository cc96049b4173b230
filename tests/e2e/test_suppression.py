"""May we contact this person? From what people and providers say over HTTP to what internal services are answered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from backhaul_client import EvidenceIn, FailedPreconditionError
from backhaul_client.models import Event
from backhaul_client.suppression import Kind, Purpose, ScopeKind, Sending
from backhaul_client.suppressionmodels import SuppressionOutcome
from backhaul_testing.posts import Post
from backhaul_testing.rbm import RbmSimulator
from backhaul_testing.twilio import OWN_NUMBER, TwilioSimulator, new_sid
from backhaul_testing.waiting import until

if TYPE_CHECKING:
    from simulators.callers import InternalService
    from simulators.people import Tenant, Town

ANNA, BEN, CLEO = "+15005550101", "+15005550102", "+15005550103"
OTHER_NUMBER = "+15005550007"
SERVICE, OTHER_SERVICE = "MG" + "1" * 32, "MG" + "2" * 32


async def _send(tenant: Tenant, *posts: Post) -> None:
    for post in posts:
        assert (await tenant.send(post)).status_code == 200


def _wrote(tenant: Tenant, text: str, person: str = ANNA, sid: str = "", **fields: str) -> Post:
    return tenant.twilio.inbound(tenant.address("Twilio"), sid or new_sid(), text, sender=person, **fields)


async def _event(tenant: Tenant, message_id: str) -> Event:
    """The one event of a message, as soon as it can be read."""

    async def there() -> Event | None:
        return next(iter(await tenant.events(channel="twilio", message_id=message_id)), None)

    return await until(f"the event of {message_id}", there)


async def _dealt_with(crm: InternalService, tenant: Tenant, *message_ids: str) -> None:
    """Return when suppression has dealt with these messages: it has with what came behind them."""
    for message_id in message_ids:
        await _event(tenant, message_id)
    somebody = f"+1500556{len(await tenant.events()):04}"
    await _send(tenant, _wrote(tenant, "STOP", somebody))
    await crm.told(tenant.id, somebody, "stop")


async def test_a_stop_suppresses_by_every_way_of_asking_and_a_start_lifts_it(town: Town, crm: InternalService) -> None:
    tenant, neighbour = await town.platform.register(), await town.platform.register()
    for one in (tenant, neighbour):
        assert await crm.verdict(one.id, ANNA) == "allowed"
        assert (await one.client.check(ANNA)).allowed
    stop, help_, start = new_sid(), new_sid(), new_sid()
    began = datetime.now(UTC)
    # Providers send again what was answered, too.
    await _send(tenant, *[_wrote(tenant, "Stop.", sid=stop)] * 2)
    await crm.told(tenant.id, ANNA, "stop")

    event = await _event(tenant, stop)
    answer = await crm.client.check(tenant.id, ANNA)
    (blocking,) = answer.blocking
    assert (blocking.event_id, blocking.since, blocking.kind) == (event.id, event.occurred_at, Kind.STOP)
    assert blocking.scope.kind == ScopeKind.ALL
    told = await tenant.client.check("+1 (500) 555-0101")
    assert (told.verdict, [row.event_id for row in told.blocking]) == ("suppressed", [event.id])
    assert told.blocking[0].suppression_id == blocking.suppression_id
    (row,) = [row async for row in tenant.client.suppressions()]
    assert (row.id, row.address, row.event_id, row.origin, row.source) == (
        blocking.suppression_id, ANNA, event.id, "recipient", "event",
    )  # fmt: skip
    assert row.due_by is not None
    assert timedelta(days=12) < row.due_by - began < timedelta(days=22)
    # Nobody else, and at nobody else's.
    assert await crm.verdicts(tenant.id, [ANNA, BEN], Sending(purpose=Purpose.TRANSACTIONAL)) == ["stop", "allowed"]
    assert await crm.verdict(neighbour.id, ANNA) == "allowed"
    assert (await neighbour.client.check(ANNA)).allowed

    await _send(tenant, _wrote(tenant, "HELP", sid=help_))
    await _dealt_with(crm, tenant, help_)
    assert await crm.verdict(tenant.id, ANNA) == "stop"
    await _send(neighbour, _wrote(neighbour, "STOP"))
    await crm.told(neighbour.id, ANNA, "stop")
    await _send(tenant, _wrote(tenant, "START", sid=start))
    await crm.told(tenant.id, ANNA, "allowed")
    assert (await tenant.client.check(ANNA)).allowed
    assert await crm.verdict(neighbour.id, ANNA) == "stop"

    lifted = await _event(tenant, start)
    record = await tenant.client.suppression_record(ANNA)
    found = [(one.suppression.active, one.fact.event_id, one.fact.word) for one in record.history]
    assert found == [(False, lifted.id, "START"), (True, event.id, "STOP")]
    assert [one.active for one in record.suppressions] == [False]


async def test_what_is_not_proven_suppresses_and_lifts_nothing(town: Town, crm: InternalService) -> None:
    tenant = await town.platform.register()
    forger = TwilioSimulator()
    address = tenant.address("Twilio")
    refused = await tenant.send(forger.inbound(address, new_sid(), "STOP", sender=ANNA))
    assert refused.status_code == 403
    stop, start, arrived = new_sid(), new_sid(), new_sid()
    await _dealt_with(crm, tenant)
    assert await crm.verdict(tenant.id, ANNA) == "allowed"

    # The channel takes what is not signed: an opt-out might be a person's, and must hold.
    await town.platform.client.put_channel(tenant.id, "Twilio", verification="observe")
    await _send(tenant, forger.inbound(address, stop, "STOP", sender=ANNA))
    await _send(tenant, tenant.twilio.status(address, new_sid(), "undelivered", to=BEN, ErrorCode="30005"))
    await crm.told(tenant.id, ANNA, "stop")
    await crm.told(tenant.id, BEN, "invalid_address")
    await _send(tenant, forger.inbound(address, start, "START", sender=ANNA))
    await _send(tenant, forger.status(address, arrived, "delivered", to=BEN))
    await _dealt_with(crm, tenant, start, arrived)
    assert await crm.verdicts(tenant.id, [ANNA, BEN]) == ["stop", "invalid_address"]
    await _send(tenant, _wrote(tenant, "START"), tenant.twilio.status(address, arrived, "delivered", to=BEN))
    await crm.told(tenant.id, ANNA, "allowed")


async def test_a_provider_s_block_holds_until_the_person_says_start(town: Town, crm: InternalService) -> None:
    tenant = await town.platform.register()
    address = tenant.address("Twilio")
    refused, channel = new_sid(), new_sid()
    await _send(
        tenant,
        tenant.twilio.status(address, refused, "failed", to=ANNA, ErrorCode="21610"),
        # This says that one channel does not reach the person, and nothing of others.
        tenant.twilio.status(address, channel, "undelivered", to=BEN, ErrorCode="63024"),
    )
    await crm.told(tenant.id, ANNA, "provider_block")
    await _dealt_with(crm, tenant, refused, channel)
    assert await crm.verdict(tenant.id, BEN) == "allowed"
    (row,) = [row async for row in tenant.client.suppressions(kind="provider_block")]
    assert (row.address, row.origin, row.event_id) == (ANNA, "provider", (await _event(tenant, refused)).id)
    with pytest.raises(FailedPreconditionError, match="provider_block_by_provider"):
        await tenant.client.lift_suppression(ANNA, "provider_block")
    await _send(tenant, _wrote(tenant, "START"))
    await crm.told(tenant.id, ANNA, "allowed")


async def test_what_people_say_by_rcs_holds_for_their_number(town: Town, crm: InternalService) -> None:
    tenant = await town.platform.register()
    google = RbmSimulator(tenant.address("Google RBM"), person=ANNA)
    await town.platform.client.put_channel(tenant.id, "Google RBM", secrets=[google.client_token])
    await _send(tenant, google.event("UNSUBSCRIBE"))
    await crm.told(tenant.id, ANNA, "stop")
    assert await crm.verdict(tenant.id, f"rcs:{ANNA}", Sending(sender=OWN_NUMBER)) == "stop"
    await _send(tenant, google.event("SUBSCRIBE"))
    await crm.told(tenant.id, ANNA, "allowed")
    # And the other way round.
    await _send(tenant, _wrote(tenant, "STOP"))
    await crm.told(tenant.id, f"rcs:{ANNA}", "stop")


async def test_a_reply_that_somebody_accepts_as_an_opt_out_is_one(town: Town, crm: InternalService) -> None:
    tenant = await town.platform.register()
    sids = {ANNA: new_sid(), BEN: new_sid()}
    await _send(tenant, *(_wrote(tenant, "please cancel my appointment", who, sid) for who, sid in sids.items()))
    flagged = {who: await _event(tenant, sid) for who, sid in sids.items()}
    assert {event.review for event in flagged.values()} == {"flagged"}
    await _dealt_with(crm, tenant)
    assert await crm.verdicts(tenant.id, [ANNA, BEN]) == ["allowed", "allowed"]

    await tenant.client.dismiss_reply(flagged[BEN].id)
    await tenant.client.accept_reply(flagged[ANNA].id)
    await crm.told(tenant.id, ANNA, "stop")
    (blocking,) = (await crm.client.check(tenant.id, ANNA)).blocking
    # It holds since the person wrote it.
    assert (blocking.event_id, blocking.since) == (flagged[ANNA].id, flagged[ANNA].occurred_at)
    await _dealt_with(crm, tenant)
    assert await crm.verdict(tenant.id, BEN) == "allowed"


async def test_a_stop_to_one_topic_leaves_the_others(town: Town, crm: InternalService) -> None:
    tenant = await town.platform.register(suppression={"revocation_scope": "topic"})
    await _send(tenant, _wrote(tenant, "STOP", ANNA, MessagingServiceSid=SERVICE), _wrote(tenant, "STOP", BEN))
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
    await _send(
        tenant,
        _wrote(tenant, "START", ANNA, MessagingServiceSid=OTHER_SERVICE, sid=to_other),
        _wrote(tenant, "START", BEN),
    )
    await crm.told(tenant.id, BEN, "allowed")
    await _event(tenant, to_other)
    assert await crm.verdict(tenant.id, ANNA) == "stop"
    await _send(tenant, _wrote(tenant, "START", ANNA, MessagingServiceSid=SERVICE))
    await crm.told(tenant.id, ANNA, "allowed")


async def test_whatsapp_is_a_channel_of_its_own_unless_the_tenant_says_otherwise(
    town: Town, crm: InternalService
) -> None:
    apart = await town.platform.register()
    same = await town.platform.register(suppression={"whatsapp": "phone"})
    by_whatsapp = f"whatsapp:{ANNA}"
    for tenant in (apart, same):
        await _send(tenant, _wrote(tenant, "STOP", by_whatsapp, To=f"whatsapp:{OWN_NUMBER}"))
        await _send(tenant, _wrote(tenant, "STOP", BEN))
        await crm.told(tenant.id, by_whatsapp, "stop")
        await crm.told(tenant.id, BEN, "stop")
    everybody = [ANNA, by_whatsapp, BEN, f"whatsapp:{BEN}"]
    assert await crm.verdicts(apart.id, everybody) == ["allowed", "stop", "stop", "allowed"]
    assert await crm.verdicts(same.id, everybody) == ["stop"] * 4
    for tenant in (apart, same):
        await _send(tenant, _wrote(tenant, "START", ANNA))
        await _dealt_with(crm, tenant)
    assert await crm.verdicts(apart.id, everybody) == ["allowed", "stop", "stop", "allowed"]
    assert await crm.verdicts(same.id, everybody) == ["allowed", "allowed", "stop", "stop"]


async def test_to_delete_and_rename_a_channel_lets_nobody_be_contacted(town: Town, crm: InternalService) -> None:
    tenant = await town.platform.register(suppression={"revocation_scope": "topic"})
    await _send(
        tenant,
        _wrote(tenant, "STOP", ANNA, MessagingServiceSid=SERVICE),
        _wrote(tenant, "STOP", BEN),
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
    await _send(tenant, others.inbound(tenant.address("Twilio"), hello, "hello", sender=ANNA))
    await _event(tenant, hello)
    await suppressed()
    await town.platform.client.delete_channel(tenant.id, "SendGrid")
    await town.platform.client.delete_channel(tenant.id, "Twilio")
    await suppressed()
    # What the person says counts by whichever channel it comes.
    await _send(tenant, tenant.twilio.inbound(tenant.address("Texts"), new_sid(), "START", sender=BEN))
    await crm.told(tenant.id, BEN, "allowed")


async def test_what_a_tenant_says_over_http_its_services_are_told_at_once(town: Town, crm: InternalService) -> None:
    tenant = await town.platform.register()
    said_at = datetime.now(UTC) - timedelta(hours=1)
    added = await tenant.client.suppress(ANNA, "stop", source="voice", effective_at=said_at)
    # Whatever was answered is known; nobody waits for it.
    assert await crm.verdict(tenant.id, ANNA) == "stop"
    assert (added.changed, added.suppression.since, added.suppression.origin) == (True, said_at, "recipient")
    assert added.suppression.author == f"key:{tenant.api_key[4:16]}"

    def form(at: datetime) -> EvidenceIn:
        return {"source": "web", "at": at, "reference": "form 4711"}

    async def lift(evidence: EvidenceIn | None) -> SuppressionOutcome:
        return await tenant.client.lift_suppression(ANNA, "stop", evidence=evidence)

    with pytest.raises(FailedPreconditionError, match="stop_by_recipient"):
        await lift(None)
    with pytest.raises(FailedPreconditionError, match="evidence_after_suppression"):
        await lift(form(said_at - timedelta(seconds=1)))
    assert await crm.verdict(tenant.id, ANNA) == "stop"
    # The person said it again to the provider: to lift what was said on the phone leaves that.
    again = new_sid()
    await _send(tenant, _wrote(tenant, "STOP", sid=again))
    await _dealt_with(crm, tenant, again)
    assert [row.since for row in (await crm.client.check(tenant.id, ANNA)).blocking] == [said_at]
    await lift(form(said_at + timedelta(seconds=1)))
    (blocking,) = (await crm.client.check(tenant.id, ANNA)).blocking
    assert blocking.event_id == (await _event(tenant, again)).id
    lifted = await lift(form(datetime.now(UTC)))
    assert await crm.verdict(tenant.id, ANNA) == "allowed"
    assert (lifted.changed, lifted.suppression.active) == (True, False)


async def test_what_the_operator_suppresses_no_tenant_lifts(town: Town, crm: InternalService) -> None:
    tenant = await town.platform.register()
    platform = town.platform.client
    await platform.suppress(tenant.id, ANNA)
    assert await crm.verdict(tenant.id, ANNA, Sending(purpose=Purpose.TRANSACTIONAL)) == "legal"
    evidence: EvidenceIn = {"source": "web", "at": datetime.now(UTC), "reference": "form 4711"}
    with pytest.raises(FailedPreconditionError, match="legal_by_operator"):
        await tenant.client.lift_suppression(ANNA, "legal", evidence=evidence)
    with pytest.raises(FailedPreconditionError, match="legal_by_operator"):
        await crm.client.lift(tenant.id, ANNA, Kind.LEGAL)
    await _send(tenant, _wrote(tenant, "START"))
    await _dealt_with(crm, tenant)
    assert await crm.verdict(tenant.id, ANNA) == "legal"
    await platform.lift_suppression(tenant.id, ANNA)
    assert await crm.verdict(tenant.id, ANNA) == "allowed"
