"""May we contact this person? From what people and providers say over HTTP to what internal services are answered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

import pytest
from backhaul_client import EvidenceIn, FailedPreconditionError
from backhaul_client.suppression import Family, Kind, Purpose, ScopeKind, Sending
from backhaul_client.suppressionmodels import SuppressionOutcome
from backhaul_testing.rbm import RbmSimulator
from backhaul_testing.twilio import OWN_NUMBER, TwilioSimulator, new_sid
from backhaul_testing.waiting import until
from simulators.callers import in_words

if TYPE_CHECKING:
    from simulators.callers import InternalService
    from simulators.people import Town

ANNA, BEN, CLEO = "+15005550101", "+15005550102", "+15005550103"
OTHER_NUMBER = "+15005550007"
SERVICE, OTHER_SERVICE = "MG" + "1" * 32, "MG" + "2" * 32


async def test_a_stop_suppresses_by_every_way_of_asking_and_a_start_lifts_it(town: Town, crm: InternalService) -> None:
    tenant, neighbour = await town.platform.register(), await town.platform.register()
    for one in (tenant, neighbour):
        assert await crm.verdict(one.id, ANNA) == "allowed"
        assert (await one.client.check(ANNA)).allowed
    stop, help_, start = new_sid(), new_sid(), new_sid()
    began = datetime.now(UTC)
    # Providers send again what was answered, too.
    await tenant.receive(*[tenant.reply(ANNA, "Stop.", sid=stop)] * 2)
    await crm.told(tenant.id, ANNA, "stop")

    event = await tenant.event_of("twilio", stop)
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

    await tenant.receive(tenant.reply(ANNA, "HELP", sid=help_))
    await crm.deals_with(tenant, help_)
    assert await crm.verdict(tenant.id, ANNA) == "stop"
    await neighbour.receive(neighbour.reply(ANNA, "STOP"))
    await crm.told(neighbour.id, ANNA, "stop")
    await tenant.receive(tenant.reply(ANNA, "START", sid=start))
    await crm.told(tenant.id, ANNA, "allowed")
    assert (await tenant.client.check(ANNA)).allowed
    assert await crm.verdict(neighbour.id, ANNA) == "stop"

    lifted = await tenant.event_of("twilio", start)
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
    await crm.deals_with(tenant)
    assert await crm.verdict(tenant.id, ANNA) == "allowed"

    # The channel takes what is not signed: an opt-out might be a person's, and must hold.
    await town.platform.client.put_channel(tenant.id, "Twilio", verification="observe")
    await tenant.receive(forger.inbound(address, stop, "STOP", sender=ANNA))
    await tenant.receive(tenant.twilio.status(address, new_sid(), "undelivered", to=BEN, ErrorCode="30005"))
    await crm.told(tenant.id, ANNA, "stop")
    await crm.told(tenant.id, BEN, "invalid_address")
    await tenant.receive(forger.inbound(address, start, "START", sender=ANNA))
    await tenant.receive(forger.status(address, arrived, "delivered", to=BEN))
    await crm.deals_with(tenant, start, arrived)
    assert await crm.verdicts(tenant.id, [ANNA, BEN]) == ["stop", "invalid_address"]
    await tenant.receive(tenant.reply(ANNA, "START"), tenant.twilio.status(address, arrived, "delivered", to=BEN))
    await crm.told(tenant.id, ANNA, "allowed")


async def test_a_provider_s_block_holds_until_the_person_says_start(town: Town, crm: InternalService) -> None:
    tenant = await town.platform.register()
    address = tenant.address("Twilio")
    refused, channel = new_sid(), new_sid()
    await tenant.receive(
        tenant.twilio.status(address, refused, "failed", to=ANNA, ErrorCode="21610"),
        # This says that one channel does not reach the person, and nothing of others.
        tenant.twilio.status(address, channel, "undelivered", to=BEN, ErrorCode="63024"),
    )
    await crm.told(tenant.id, ANNA, "provider_block")
    await crm.deals_with(tenant, refused, channel)
    assert await crm.verdict(tenant.id, BEN) == "allowed"
    (row,) = [row async for row in tenant.client.suppressions(kind="provider_block")]
    assert (row.address, row.origin, row.event_id) == (ANNA, "provider", (await tenant.event_of("twilio", refused)).id)
    with pytest.raises(FailedPreconditionError, match="provider_block_by_provider"):
        await tenant.client.lift_suppression(ANNA, "provider_block")
    await tenant.receive(tenant.reply(ANNA, "START"))
    await crm.told(tenant.id, ANNA, "allowed")


async def test_what_people_say_by_rcs_holds_for_their_number(town: Town, crm: InternalService) -> None:
    tenant = await town.platform.register()
    google = RbmSimulator(tenant.address("Google RBM"), person=ANNA)
    await town.platform.client.put_channel(tenant.id, "Google RBM", secrets=[google.client_token])
    await tenant.receive(google.event("UNSUBSCRIBE"))
    await crm.told(tenant.id, ANNA, "stop")
    assert await crm.verdict(tenant.id, f"rcs:{ANNA}", Sending(sender=OWN_NUMBER)) == "stop"
    await tenant.receive(google.event("SUBSCRIBE"))
    await crm.told(tenant.id, ANNA, "allowed")
    # And the other way round.
    await tenant.receive(tenant.reply(ANNA, "STOP"))
    await crm.told(tenant.id, f"rcs:{ANNA}", "stop")


async def test_a_number_that_no_call_reaches_may_be_written_to_and_is_called_again_when_it_answers(
    town: Town, crm: InternalService
) -> None:
    tenant = await town.platform.register()
    address = tenant.address("Twilio")
    call = new_sid("CA")
    # Twilio tells whole seconds, and of two calls in one second nobody knows which was later.
    before = format_datetime(datetime.now(UTC) - timedelta(seconds=5))
    failed = tenant.twilio.call(address, call, "failed", 0, to=ANNA, SipResponseCode="404", Timestamp=before)
    await tenant.receive(failed)

    async def called() -> str:
        return in_words(await crm.client.check(tenant.id, ANNA, family=Family.VOICE))

    async def unreachable() -> bool:
        return await called() == "invalid_address"

    await until("calls do not reach the number", unreachable)
    assert await crm.verdict(tenant.id, ANNA) == "allowed"
    answered = tenant.twilio.call(address, new_sid("CA"), "in-progress", 1, to=ANNA)
    await tenant.receive(answered)

    async def reachable() -> bool:
        return await called() == "allowed"

    await until("somebody answers", reachable)
    # What is said by a call is no consent to texts, nor the other way round.
    await tenant.receive(tenant.reply(ANNA, "STOP"))
    await crm.told(tenant.id, ANNA, "stop")
    assert await called() == "allowed"


async def test_a_reply_that_somebody_accepts_as_an_opt_out_is_one(town: Town, crm: InternalService) -> None:
    tenant = await town.platform.register()
    sids = {ANNA: new_sid(), BEN: new_sid()}
    await tenant.receive(*(tenant.reply(who, "please cancel my appointment", sid) for who, sid in sids.items()))
    flagged = {who: await tenant.event_of("twilio", sid) for who, sid in sids.items()}
    assert {event.review for event in flagged.values()} == {"flagged"}
    await crm.deals_with(tenant)
    assert await crm.verdicts(tenant.id, [ANNA, BEN]) == ["allowed", "allowed"]

    await tenant.client.dismiss_reply(flagged[BEN].id)
    await tenant.client.accept_reply(flagged[ANNA].id)
    await crm.told(tenant.id, ANNA, "stop")
    (blocking,) = (await crm.client.check(tenant.id, ANNA)).blocking
    # It holds since the person wrote it.
    assert (blocking.event_id, blocking.since) == (flagged[ANNA].id, flagged[ANNA].occurred_at)
    await crm.deals_with(tenant)
    assert await crm.verdict(tenant.id, BEN) == "allowed"


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
    await tenant.receive(tenant.reply(ANNA, "STOP", sid=again))
    await crm.deals_with(tenant, again)
    assert [row.since for row in (await crm.client.check(tenant.id, ANNA)).blocking] == [said_at]
    await lift(form(said_at + timedelta(seconds=1)))
    (blocking,) = (await crm.client.check(tenant.id, ANNA)).blocking
    assert blocking.event_id == (await tenant.event_of("twilio", again)).id
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
    await tenant.receive(tenant.reply(ANNA, "START"))
    await crm.deals_with(tenant)
    assert await crm.verdict(tenant.id, ANNA) == "legal"
    await platform.lift_suppression(tenant.id, ANNA)
    assert await crm.verdict(tenant.id, ANNA) == "allowed"
