"""Replies on real servers: lists, decisions, counts of communications, bounds, and copies that die in between."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from backhaul_channels import Classification, Confidence, Consent, ConsentAction, ConsentBy, EventKind, Review
from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_common.names import EVENTS_COLLECTION, NORMALIZER_OUTBOX
from backhaul_common.outbox import MAX_PAYLOAD_BYTES
from backhaul_common.tenants import Tenant
from backhaul_normalizer import attribution, settling
from backhaul_normalizer.model import Fact
from backhaul_normalizer.reviews import MongoReviews
from backhaul_normalizer.rows import stored_fact
from backhaul_normalizer.settling import MAX_AT_ONCE, MAX_WAITING, Settling
from backhaul_normalizer.store import MongoEventStore
from backhaul_proto.callback.v1.callback_pb2 import VERIFICATION_OBSERVED_INVALID
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.event.v1.event_pb2 import Event, EventBatch
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from backhaul_testing import make
from normalizer_rig import Rig, RigFactory
from reply_rig import PERSON, SHOP, counts, held, inbound, post, replies, within
from storedbooks import stored_books
from tellings import batch_of, correspondence, told


async def test_replies_are_listed_and_counted_for_the_message_that_they_answer(rig: Rig) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    await post(rig, acme, make.twilio("SM1", "sent"), query="campaign=spring")
    await post(
        rig, acme, inbound("IN1", "STOP"), inbound("IN2", "please cancel my appointment"), inbound("IN3", "Thanks")
    )
    await post(rig, acme, inbound("IN4", "HELP", From="+15005550009"))

    found = {event.message_id: event for event in await replies(rig)}
    assert found.keys() == {"IN1", "IN2", "IN3", "IN4"}
    for name in ("IN1", "IN2", "IN3"):
        assert found[name].communication_id == "spring"
        answered = found[name].answered
        assert (answered.channel, answered.message_id) == ("twilio", "SM1")
        assert answered.by == event_pb2.ANSWERED_BY_ADDRESSES
    assert not found["IN4"].HasField("answered")
    assert [event.message_id for event in await replies(rig, review=event_pb2.REVIEW_FLAGGED)] == ["IN2"]
    assert [event.message_id for event in await replies(rig, recipient="+15005550009")] == ["IN4"]
    assert len(await replies(rig, communication_id="spring")) == 3
    assert await replies(rig, channel="sendgrid") == []
    first = await rig.stub.ListReplies(pb.ListRepliesRequest(tenant_id="acme", page_size=3))
    rest = await replies(rig, page_size=3, page_token=first.next_page_token)
    assert {event.message_id for event in (*first.replies, *rest)} == found.keys()
    assert await counts(rig, "spring") == pb.ReplyCounts(all=3, stop=1)


async def test_what_a_person_wrote_is_of_one_communication_whoever_is_asked(rig: Rig) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    await post(rig, acme, make.twilio("SM1", "sent", To=PERSON, From=SHOP), query="communicationId=spring")
    # One has a communication of its own, and answers what was sent for another.
    await post(rig, acme, inbound("SMIN", "STOP"))
    await post(rig, acme, inbound("SMOWN", "Hello"), query="communicationId=autumn")

    async def said_of(message_id: str) -> set[str]:
        one: dict[str, Any] = {"tenant_id": "acme", "channel": "twilio", "message_id": message_id}
        got = await rig.stub.GetMessage(pb.GetMessageRequest(**one))
        listed = await rig.stub.ListMessages(pb.ListMessagesRequest(**one))
        events = await rig.stub.ListEvents(pb.ListEventsRequest(**one))
        found: list[Any] = [got.message, *got.timeline, *listed.messages, *events.events]
        found += [reply for reply in await replies(rig) if reply.message_id == message_id]
        assert len(found) == (5 if message_id != "SM1" else 4)
        return {each.communication_id for each in found}

    assert [await said_of(name) for name in ("SM1", "SMIN", "SMOWN")] == [{"spring"}] * 3
    found = await rig.stub.GetCommunication(pb.GetCommunicationRequest(tenant_id="acme", communication_id="spring"))
    assert (found.communication.messages, found.communication.replies.all) == (1, 2)


async def test_messages_of_a_communication_are_those_that_say_so(rig: Rig) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    # What answers nothing is of the communication that it names; what answers is of the other's, whatever it names.
    await post(rig, acme, inbound("SMLONE", "Hello", From="+15005550009"), query="communicationId=autumn")
    await post(rig, acme, make.twilio("SM1", "sent", To=PERSON, From=SHOP), query="communicationId=spring")
    await post(rig, acme, inbound("SMIN", "STOP"))
    await post(rig, acme, inbound("SMOWN", "Hello"), query="communicationId=autumn")

    async def listed(size: int, communication: str = "") -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        token = ""
        while True:
            request = pb.ListMessagesRequest(
                tenant_id="acme", page_size=size, page_token=token, communication_id=communication
            )
            page = await rig.stub.ListMessages(request)
            assert page.messages
            found += [(row.message_id, row.communication_id) for row in page.messages]
            token = page.next_page_token
            if not token:
                return found

    for size in (1, 50):
        assert await listed(size, "spring") == [("SM1", "spring")]
        assert await listed(size, "autumn") == [("SMLONE", "autumn")]
    which = pb.ListMessagesRequest(tenant_id="acme", communication_id="autumn", message_id="SMOWN")
    assert not (await rig.stub.ListMessages(which)).messages
    every = dict(await listed(50))
    assert every == {"SM1": "spring", "SMIN": "spring", "SMOWN": "spring", "SMLONE": "autumn"}
    # What answers a communication is found among the replies.
    assert {reply.message_id for reply in await replies(rig, communication_id="spring")} == {"SMIN", "SMOWN"}
    assert {reply.message_id for reply in await replies(rig, communication_id="autumn")} == {"SMLONE"}


async def test_an_accepted_reply_is_an_opt_out_of_when_it_was_written(rig: Rig) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    await post(rig, acme, make.twilio("SM1", "sent"), query="campaign=spring")
    await post(rig, acme, inbound("IN1", "please cancel my appointment", MessagingServiceSid="MG1"))
    (before,) = await replies(rig)
    assert (before.review, before.HasField("consent")) == (event_pb2.REVIEW_FLAGGED, False)
    assert await counts(rig, "spring") == pb.ReplyCounts(all=1)

    accept = pb.AcceptReplyRequest(tenant_id="acme", id=before.id)
    accepted = (await rig.stub.AcceptReply(accept)).reply
    assert accepted.review == event_pb2.REVIEW_ACCEPTED
    assert accepted.revision == before.revision + 1
    assert accepted.occurred_at_us == before.occurred_at_us
    assert accepted.consent == event_pb2.Consent(
        action=event_pb2.CONSENT_ACTION_OPT_OUT,
        by=event_pb2.CONSENT_BY_TENANT,
        word="CANCEL",
        scope_kind=event_pb2.CONSENT_SCOPE_MESSAGING_SERVICE,
        scope="MG1",
    )
    assert (await rig.stub.AcceptReply(accept)).reply == accepted
    with pytest.raises(BackhaulError) as refused:
        await rig.stub.DismissReply(pb.DismissReplyRequest(tenant_id="acme", id=before.id))
    assert refused.value.code is Code.FAILED_PRECONDITION
    assert await replies(rig, review=event_pb2.REVIEW_FLAGGED) == []
    assert await replies(rig, review=event_pb2.REVIEW_ACCEPTED) == [accepted]
    assert await counts(rig, "spring") == pb.ReplyCounts(all=1, stop=1)

    async def told_of_it() -> Event | None:
        event = (await held(rig))[before.id]
        return event if event.revision == accepted.revision else None

    assert await within(told_of_it) == accepted
    assert len([event for event in await rig.published() if event.review == event_pb2.REVIEW_ACCEPTED]) == 1

    # The provider's duplicate, and a replay, change nothing of it.
    await post(rig, acme, inbound("IN1", "please cancel my appointment", MessagingServiceSid="MG1", FromCity="Ulm"))
    (again,) = await replies(rig)
    assert (again.review, again.consent) == (accepted.review, accepted.consent)
    assert await counts(rig, "spring") == pb.ReplyCounts(all=1, stop=1)


async def test_a_dismissed_reply_can_still_be_accepted(rig: Rig) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    await post(rig, acme, inbound("IN1", "please cancel my appointment"), inbound("IN2", "hello"))
    flagged, plain = sorted(await replies(rig), key=lambda event: event.message_id)
    dismiss = pb.DismissReplyRequest(tenant_id="acme", id=flagged.id)
    dismissed = (await rig.stub.DismissReply(dismiss)).reply
    assert (dismissed.review, dismissed.HasField("consent")) == (event_pb2.REVIEW_DISMISSED, False)
    assert (await rig.stub.DismissReply(dismiss)).reply == dismissed
    accepted = (await rig.stub.AcceptReply(pb.AcceptReplyRequest(tenant_id="acme", id=flagged.id))).reply
    assert (accepted.review, accepted.revision) == (event_pb2.REVIEW_ACCEPTED, dismissed.revision + 1)
    request: Any
    call: Any  # Each takes a request of its own.
    for request, call in (
        (pb.AcceptReplyRequest, rig.stub.AcceptReply),
        (pb.DismissReplyRequest, rig.stub.DismissReply),
    ):
        for event_id, code in ((plain.id, Code.FAILED_PRECONDITION), ("0" * 32, Code.NOT_FOUND)):
            with pytest.raises(BackhaulError) as refused:
                await call(request(tenant_id="acme", id=event_id))
            assert refused.value.code is code


async def test_two_tenants_with_the_same_addresses_never_meet(rig: Rig) -> None:
    acme, other = make.tenant("acme"), make.tenant("other")
    await rig.register(acme, other)
    await post(rig, acme, make.twilio("SM1", "sent"), query="campaign=spring")
    await post(rig, other, inbound("IN1", "please cancel my appointment"))
    assert await replies(rig) == []
    (foreign,) = await replies(rig, "other")
    assert not foreign.HasField("answered")
    assert await counts(rig, "spring") == pb.ReplyCounts()
    request: Any
    call: Any  # Each takes a request of its own.
    for request, call in (
        (pb.AcceptReplyRequest, rig.stub.AcceptReply),
        (pb.DismissReplyRequest, rig.stub.DismissReply),
    ):
        with pytest.raises(BackhaulError) as refused:
            await call(request(tenant_id="acme", id=foreign.id))
        assert refused.value.code is Code.NOT_FOUND
    await post(rig, other, make.twilio("SM1", "sent", DateSent="x"), query="campaign=spring")
    assert await counts(rig, "spring") == pb.ReplyCounts()


LIKELY = Classification(Confidence.LIKELY, ConsentAction.OPT_OUT, "CANCEL")


def flagged(**more: Any) -> Fact:
    """A reply that is to be looked at."""
    said = {"classification": LIKELY, "review": Review.FLAGGED, "text": "cancel it?", **more}
    between: dict[str, Any] = {"recipient": PERSON, "sender": SHOP}
    return told(key="f", kind=EventKind.INBOUND, name="R1", at=20, provisional=False, **between, **said)


async def prepared(rig: Rig) -> tuple[Tenant, MongoEventStore, MongoReviews]:
    acme = make.tenant("acme").model_copy(update={"queue_path": "acme"})
    await rig.register(acme)
    store = MongoEventStore(rig.client, rig.database)
    await store.prepare()
    return acme, store, MongoReviews(rig.database, lambda: None)


@pytest.mark.parametrize("seed", range(4))
async def test_decisions_and_callbacks_that_race_lose_neither(rig_factory: RigFactory, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  # an order that can be repeated, no secret
    async with rig_factory(copies=0) as rig:
        acme, store, reviews = await prepared(rig)
        forged = flagged(verification=VERIFICATION_OBSERVED_INVALID)
        await store.commit([forged], [])

        async def decide(review: Review) -> bool:
            await asyncio.sleep(chance.random() / 50)
            try:
                await reviews.decide(acme, forged.id, review, "")
            except BackhaulError as exc:
                return exc.code is not Code.FAILED_PRECONDITION
            return True

        async def tell(*some: Fact) -> None:
            await asyncio.sleep(chance.random() / 50)
            await store.commit(batch_of(some), [])

        sent = told(key="s", kind=EventKind.SENT, at=1, query="communicationId=spring", recipient=PERSON, sender=SHOP)
        accepted, _, *_ = await asyncio.gather(
            decide(Review.ACCEPTED),
            decide(Review.DISMISSED),
            tell(flagged(text="cancel it? please", seq=2)),
            tell(flagged(seq=3, references=["x"])),
            tell(sent),
        )
        assert accepted
        (row,) = await rig.rows(EVENTS_COLLECTION, kind="inbound")
        event = stored_fact(row).event
        assert (row["review"], event.review) == ("accepted", Review.ACCEPTED)
        assert event.consent == Consent(ConsentBy.TENANT, ConsentAction.OPT_OUT, "CANCEL")
        assert event.text == "cancel it? please"
        (communication,) = await rig.communications()
        assert {name: n for name, n in communication["replies"].items() if n} == {"all": 1, "stop": 1}
        # Each decision that was made has its row in the outbox, with what was true then.
        published = [Event.FromString(_only(row["payload"])) for row in await rig.rows(NORMALIZER_OUTBOX)]
        assert Review.ACCEPTED.name in {event_pb2.Review.Name(one.review).removeprefix("REVIEW_") for one in published}
        assert len({one.revision for one in published}) == len(published)


def _only(payload: bytes) -> bytes:
    (event,) = EventBatch.FromString(payload).events
    return event.SerializeToString()


async def test_a_decision_whose_copy_died_is_published_by_another_one(rig_factory: RigFactory) -> None:
    """However large the event is: what the outbox does not take stays in the store."""
    async with rig_factory(copies=0) as rig:
        acme, store, reviews = await prepared(rig)
        large = flagged(attributes=[("noise", "x" * 100_000)], text="cancel it?" + " " * 80_000)
        await store.commit([large], [])
        await reviews.decide(acme, large.id, Review.ACCEPTED, "")
        (row,) = await rig.rows(NORMALIZER_OUTBOX)
        assert len(row["payload"]) <= MAX_PAYLOAD_BYTES
        async with rig.another():

            async def told_of_it() -> Event | None:
                return (await held(rig)).get(large.id)

            event = await within(told_of_it)
        assert (event.review, event.consent.by) == (event_pb2.REVIEW_ACCEPTED, event_pb2.CONSENT_BY_TENANT)
        assert (event.recipient, event.occurred_at_us) == (PERSON, 20)
        assert await rig.rows(NORMALIZER_OUTBOX) == []


@pytest.mark.parametrize("deaths", [1, 3])
async def test_a_copy_that_dies_between_commit_and_settling_leaves_it_to_the_next(
    rig_factory: RigFactory, monkeypatch: pytest.MonkeyPatch, deaths: int
) -> None:
    left = deaths
    settle = Settling.settle

    async def dies(own: Settling, *args: Any) -> Any:
        nonlocal left
        # Before it has settled anything, or before it is published, in turn.
        settled = await settle(own, *args) if not left or left % 2 else ()
        if left:
            left -= 1
            raise unavailable("MongoDB")
        return settled

    async with rig_factory() as rig:
        acme = make.tenant("acme")
        await rig.register(acme)
        await post(rig, acme, inbound("IN1", "STOP", From="+15005550003"))
        monkeypatch.setattr(Settling, "settle", dies)
        await post(rig, acme, make.twilio("SM1", "sent"), inbound("IN2", "STOP"), query="campaign=spring")
        assert left == 0
        assert await counts(rig, "spring") == pb.ReplyCounts(all=1, stop=1)
        stored = {event.id: event for event in await replies(rig)}
        assert {event.answered.message_id for event in stored.values()} == {"SM1", ""}
        known = await held(rig)
        assert {event_id: known[event_id] for event_id in stored} == stored


@pytest.mark.parametrize("seed", range(4))
async def test_what_two_dying_copies_publish_of_replies_is_what_is_stored(rig_factory: RigFactory, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  # an order that can be repeated, no secret
    facts = [fact for number in range(4) for fact in correspondence(number)]
    for fact in facts:
        fact.origin.stream_seq = chance.randint(1, 20)
    messages = {seq: [fact for fact in facts if fact.origin.stream_seq == seq] for seq in range(1, 21)}
    waiting = set(messages)
    async with rig_factory(copies=0) as rig:
        _, store, _ = await prepared(rig)
        publisher = await rig.publisher()

        async def copy() -> None:
            while waiting:
                taken = chance.sample(sorted(waiting), min(len(waiting), chance.randint(1, 4)))
                committed = await store.commit(batch_of(fact for seq in taken for fact in messages[seq]), [])
                await asyncio.sleep(chance.random() / 50)
                if chance.random() < 0.5:
                    continue  # Dead, and there again.
                await publisher.publish(committed.outgoing, "")
                waiting.difference_update(taken)

        await asyncio.gather(copy(), copy())
        books = await stored_books(rig)
        known = await held(rig)
    assert books.reply_totals() == books.recount_replies()
    for event_id, row in books.event_rows.items():
        if row["kind"] == "inbound":
            stored = Event.FromString(row["payload"])
            stored.communication_id = row.get("communication_id", "")
            assert known[event_id] == stored


@pytest.mark.slow
async def test_very_many_replies_to_one_message_cost_a_bounded_part_of_each_commit(
    rig_factory: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = 5_000
    settled: list[int] = []
    settle = attribution.settle

    def counting(stored: Any, event_ids: Any, *args: Any) -> Any:
        settled.append(len(event_ids))
        return settle(stored, event_ids, *args)

    monkeypatch.setattr(settling, "settle", counting)
    between: dict[str, Any] = {"recipient": PERSON, "sender": SHOP}
    async with rig_factory(copies=0) as rig:
        _, store, _ = await prepared(rig)
        first = told(key="s", kind=EventKind.SENT, name="M1", at=1, query="communicationId=spring", **between)
        await store.commit([first], [])
        for start in range(0, many, 2500):
            some = [
                told(key=str(n), kind=EventKind.INBOUND, name=f"R{n}", at=10 + n, provisional=False, **between)
                for n in range(start, start + 2500)
            ]
            settled.clear()
            await store.commit(some, [])
            # Each once, and once more to see that nothing changed meanwhile. What was written before costs nothing.
            assert max(settled) <= MAX_AT_ONCE
            assert sum(settled) == 2 * len(some)
        (spring,) = await rig.communications()
        assert spring["replies"]["all"] == many
        late = told(key="l", kind=EventKind.SENT, name="M2", at=5, query="communicationId=summer", **between)
        settled.clear()
        committed = await store.commit([late], [])
        assert sum(settled) == 2 * MAX_WAITING
        assert len(committed.outgoing) == 1 + MAX_WAITING
        found = {row["communication_id"]: row["replies"]["all"] for row in await rig.communications()}
        assert found == {"spring": many - MAX_WAITING, "summer": MAX_WAITING}
        moved = await rig.rows(EVENTS_COLLECTION, communication_id="summer", kind="inbound")
        assert max(row["occurred_at_us"] for row in moved) == 10 + MAX_WAITING - 1


async def test_more_replies_than_are_read_at_once_are_found_one_name_after_another(
    rig_factory: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "MAX_FOUND", 16)
    monkeypatch.setattr(settling, "MAX_WAITING", 3)
    monkeypatch.setattr(settling, "MAX_CANDIDATES", 1)
    between: list[dict[str, Any]] = [{"recipient": f"+4915112345{n:03}", "sender": SHOP} for n in range(4)]
    async with rig_factory(copies=0) as rig:
        _, store, _ = await prepared(rig)
        wrote = [
            told(key=f"{n} {m}", kind=EventKind.INBOUND, name=f"R{n}{m}", at=10 + m, provisional=False, **between[n])
            for n in range(4)
            for m in range(5)
        ]
        await store.commit(wrote, [])
        sent = [
            told(key=f"s{n}{at}", kind=EventKind.SENT, name=f"M{n}{at}", at=at, query="communicationId=c", **between[n])
            for n in range(4)
            for at in (1, 2)
        ]
        await store.commit(sent, [])
        rows = await rig.rows(EVENTS_COLLECTION, kind="inbound", communication_id="c")
        assert sorted(row["occurred_at_us"] for row in rows) == sorted([10, 11, 12] * 4)
        answered = {Event.FromString(row["payload"]).answered.message_id for row in rows}
        assert answered == {"M02", "M12", "M22", "M32"}
        (communication,) = await rig.communications()
        assert communication["replies"]["all"] == 12


async def test_a_reply_that_cannot_be_settled_keeps_no_other_waiting(
    rig_factory: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = attribution.settle

    def refuses(stored: Any, event_ids: Any, *args: Any) -> Any:
        if bad.id in event_ids:
            raise ValueError("no")
        return own(stored, event_ids, *args)

    between: dict[str, Any] = {"recipient": PERSON, "sender": SHOP}
    bad, *good = (
        told(key=str(n), kind=EventKind.INBOUND, name=f"R{n}", at=10, provisional=False, **between) for n in range(5)
    )
    monkeypatch.setattr(settling, "settle", refuses)
    async with rig_factory(copies=0) as rig:
        _, store, _ = await prepared(rig)
        sent = told(key="s", kind=EventKind.SENT, name="M1", at=1, query="communicationId=spring", **between)
        await store.commit([sent, bad, *good], [])
        rows = await rig.rows(EVENTS_COLLECTION, kind="inbound", communication_id="spring")
        assert {row["_id"] for row in rows} == {fact.id for fact in good}
