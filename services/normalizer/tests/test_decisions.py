"""What tenants decide about replies, beside whatever is told of them before and after: on real servers."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from typing import Any

import pytest
import tellings
from backhaul_channels import Classification, Confidence, ConsentAction, EventKind, Review
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import NORMALIZER_OUTBOX
from backhaul_common.tenants import Tenant
from backhaul_normalizer.model import Fact
from backhaul_normalizer.reviews import MongoReviews
from backhaul_normalizer.snapshot import MAX_ANEW
from backhaul_normalizer.store import MongoEventStore
from backhaul_proto.callback.v1 import callback_pb2
from backhaul_proto.callback.v1.callback_pb2 import Callback
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.event.v1.event_pb2 import EventBatch
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from backhaul_testing import make
from normalizer_rig import Rig, RigFactory
from reply_rig import PERSON, SHOP, counts, held, inbound, post, replies, within
from storedbooks import stored_books
from tellings import batch_of, told

UNCLEAR = "please cancel my appointment"
OBSERVED = callback_pb2.VERIFICATION_OBSERVED_INVALID


async def agree(rig: Rig) -> None:
    """Wait until EVENTS has what is stored: of each reply the highest revision is the stored one."""

    async def same() -> bool:
        stored = {event.id: event for event in await replies(rig, page_size=500)}
        known = await held(rig)
        published = await rig.rows(NORMALIZER_OUTBOX) == []
        return published and {event_id: known.get(event_id) for event_id in stored} == stored

    assert await within(same)
    kept = await stored_books(rig)
    assert kept.reply_totals() == kept.recount_replies()


def callback(of: Tenant, what: str, between_us: int) -> Callback:
    """What is told when it is decided; of a message that was sent ``between_us``, the first one and the reply."""
    body = inbound("IN1", UNCLEAR)
    if what == "duplicate":
        return make.callback(of, body)
    if what == "replay":
        return make.callback(of, body, source=callback_pb2.SOURCE_REPLAY)
    if what == "more":
        return make.callback(of, inbound("IN1", UNCLEAR + " and more", FromCity="Ulm"))
    if what == "plain":
        return make.callback(of, inbound("IN1", "Hello"))
    sent = make.callback(of, make.twilio("SM2", "sent"), query="campaign=summer")
    sent.received_at_us = between_us
    return sent


STORIES = [*itertools.permutations(("duplicate", "replay", "more", "sent"), 2), ("plain", "replay")]


@pytest.mark.parametrize("accepted", [True, False])
async def test_nothing_that_is_told_then_undoes_a_decision(rig: Rig, accepted: bool) -> None:
    tenants = [make.tenant(f"t{n}") for n in range(len(STORIES))]
    between_us: dict[str, int] = {}
    await rig.register(*tenants)
    for of in tenants:
        await post(rig, of, make.twilio("SM1", "sent"), query="campaign=spring")
        between_us[of.id] = time.time_ns() // 1000
        await post(rig, of, inbound("IN1", UNCLEAR), verification=OBSERVED)
    for of, story in zip(tenants, STORIES, strict=True):
        (flagged,) = await replies(rig, of.id, review=event_pb2.REVIEW_FLAGGED)
        if accepted:
            await rig.stub.AcceptReply(pb.AcceptReplyRequest(tenant_id=of.id, id=flagged.id))
        else:
            await rig.stub.DismissReply(pb.DismissReplyRequest(tenant_id=of.id, id=flagged.id))
        for what in story:
            await rig.publish(of, callback(of, what, between_us[of.id]))
            await rig.drained()

    async def all_told() -> bool:
        return await rig.rows(NORMALIZER_OUTBOX) == []

    await within(all_told)
    known = await held(rig)
    for of, story in zip(tenants, STORIES, strict=True):
        (reply,) = await replies(rig, of.id)
        assert known[reply.id] == reply, story
        assert reply.review == (event_pb2.REVIEW_ACCEPTED if accepted else event_pb2.REVIEW_DISMISSED), story
        assert (reply.consent.by == event_pb2.CONSENT_BY_TENANT) is accepted, story
        assert await replies(rig, of.id, review=event_pb2.REVIEW_FLAGGED) == []
        found = {name: await counts(rig, name, of.id) for name in named(story)}
        assert found.pop(named(story)[-1]) == pb.ReplyCounts(all=1, stop=int(accepted)), story
        assert all(other == pb.ReplyCounts() for other in found.values()), story


def named(story: tuple[str, ...]) -> list[str]:
    """The communications that are told of; the reply counts for the last one."""
    return ["spring", "summer"] if "sent" in story else ["spring"]


async def test_a_message_that_is_being_received_and_then_is_counts_as_one_reply(rig: Rig) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    await post(rig, acme, make.twilio("SM1", "sent"), query="campaign=spring")
    on_the_way = inbound("IN1", "", SmsStatus="receiving")
    await post(rig, acme, on_the_way, inbound("IN1", "STOP"), on_the_way)
    await post(rig, acme, inbound("IN2", "STOP"), inbound("IN2", "", SmsStatus="receiving"))
    assert [event.text for event in await replies(rig)] == ["STOP", "STOP"]
    assert await counts(rig, "spring") == pb.ReplyCounts(all=2, stop=2)
    await agree(rig)


async def test_a_message_that_is_told_of_twice_in_one_body_counts_as_one_reply(rig: Rig) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    await post(rig, acme, make.twilio("SM1", "sent"), query="campaign=spring")
    both = [
        {"MessageSid": "IN1", "SmsStatus": status, "From": PERSON, "To": SHOP} for status in ("receiving", "received")
    ]
    both[1]["Body"] = UNCLEAR
    await post(rig, acme, json.dumps(both))
    (flagged,) = await replies(rig, review=event_pb2.REVIEW_FLAGGED)
    assert (flagged.text, flagged.provider_status) == (UNCLEAR, "received")
    assert await counts(rig, "spring") == pb.ReplyCounts(all=1)
    await agree(rig)


async def test_a_communication_that_becomes_known_later_takes_the_counts_along(rig_factory: RigFactory) -> None:
    async with rig_factory() as rig, rig.another():
        acme = make.tenant("acme")
        await rig.register(acme)
        await post(rig, acme, make.twilio("SM1", "sent"))
        await post(rig, acme, *(inbound(f"IN{n}", text) for n, text in enumerate(("STOP", "START", "HELP", UNCLEAR))))
        (flagged,) = await replies(rig, review=event_pb2.REVIEW_FLAGGED)
        await rig.stub.AcceptReply(pb.AcceptReplyRequest(tenant_id="acme", id=flagged.id))
        await post(rig, acme, make.twilio("SM1", "delivered"), query="campaign=spring")
        everything = pb.ReplyCounts(all=4, stop=2, start=1, help=1)
        assert await counts(rig, "spring") == everything
        # Of two that a message is told to belong to, the one that was named first counts.
        earlier = make.callback(acme, make.twilio("SM1", "queued"), query="campaign=autumn")
        earlier.received_at_us -= 60_000_000
        await rig.publish(acme, earlier)
        await rig.drained()
        assert await counts(rig, "autumn") == everything
        await agree(rig)


async def test_two_that_decide_at_once_decide_once(rig: Rig) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    await post(rig, acme, make.twilio("SM1", "sent"), query="campaign=spring")
    await post(rig, acme, inbound("IN1", UNCLEAR))
    (flagged,) = await replies(rig)
    accept = pb.AcceptReplyRequest(tenant_id="acme", id=flagged.id)
    answers = await asyncio.gather(*(rig.stub.AcceptReply(accept) for _ in range(8)))
    assert {answer.reply.revision for answer in answers} == {flagged.revision + 1}
    await agree(rig)
    assert len([event for event in await rig.published() if event.review == event_pb2.REVIEW_ACCEPTED]) == 1
    assert await counts(rig, "spring") == pb.ReplyCounts(all=1, stop=1)


async def test_pages_skip_nothing_while_what_they_list_is_decided_about(rig: Rig) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    await post(rig, acme, *(inbound(f"IN{n}", UNCLEAR) for n in range(7)))
    seen: list[str] = []
    token = ""
    while True:
        page = await rig.stub.ListReplies(
            pb.ListRepliesRequest(tenant_id="acme", review=event_pb2.REVIEW_FLAGGED, page_size=2, page_token=token)
        )
        for reply in page.replies:
            seen.append(reply.message_id)
            await rig.stub.AcceptReply(pb.AcceptReplyRequest(tenant_id="acme", id=reply.id))
        token = page.next_page_token
        if not token:
            break
    assert sorted(seen) == [f"IN{n}" for n in range(7)]
    assert await replies(rig, review=event_pb2.REVIEW_FLAGGED) == []
    await agree(rig)


def flagged(name: str = "R1", **more: Any) -> Fact:
    """A reply that is to be decided about, whose own callback names a communication."""
    said = Classification(Confidence.LIKELY, ConsentAction.OPT_OUT, "CANCEL")
    between: dict[str, Any] = {"recipient": PERSON, "sender": SHOP, "classification": said, "review": Review.FLAGGED}
    return told(key="f", kind=EventKind.INBOUND, name=name, at=20, query="communicationId=spring", **between, **more)


async def stored(rig: Rig, *facts: Fact) -> Tenant:
    """A tenant of whom these are stored."""
    acme = make.tenant("acme").model_copy(update={"queue_path": "acme"})
    await rig.register(acme)
    store = MongoEventStore(rig.client, rig.database)
    await store.prepare()
    await store.commit(batch_of(facts), [])
    return acme


async def test_a_duplicate_of_another_event_is_not_decided_about(
    rig_factory: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tellings, "ONCE", frozenset({EventKind.INBOUND}))
    own, further = flagged("M1", aliases=["A1"]), flagged("A1")
    async with rig_factory(copies=0) as rig:
        acme = await stored(rig, own, further)
        reviews = MongoReviews(rig.database, lambda: None)
        with pytest.raises(BackhaulError) as refused:
            await reviews.decide(acme, further.id, Review.ACCEPTED, "")
        assert refused.value.code is Code.NOT_FOUND
        assert await rig.rows(NORMALIZER_OUTBOX) == []
        assert (await reviews.decide(acme, own.id, Review.ACCEPTED, ""))["_id"] == own.id


async def test_a_decision_is_published_with_the_communication_that_the_reply_is_stored_with(
    rig_factory: RigFactory,
) -> None:
    """Also with none, though its own callback named one: a message of very many events keeps what it has."""
    many = [told(key=str(number), kind=EventKind.OPENED, name="R1", at=1) for number in range(MAX_ANEW + 1)]
    async with rig_factory(copies=0) as rig:
        acme = await stored(rig, *many)
        reply = flagged()
        await MongoEventStore(rig.client, rig.database).commit([reply], [])
        await MongoReviews(rig.database, lambda: None).decide(acme, reply.id, Review.ACCEPTED, "")
        (row,) = await rig.rows(NORMALIZER_OUTBOX)
        (event,) = EventBatch.FromString(row["payload"]).events
        assert event.communication_id == ""
